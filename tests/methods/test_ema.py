"""The moving average: the recursion by hand, what trains below it, what an evaluation sees, and what is refused."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from dpstune import build_method
from dpstune.common.interruption import Interrupted
from dpstune.errors import RequestError
from dpstune.evaluation import scoring
from dpstune.methods import REGISTRY, without_newer_keys
from dpstune.methods.base import Method
from dpstune.methods.ema import Ema
from dpstune.recipe.recipe import dump_recipe, load_recipe, load_run_recipe, summarize_recipe
from dpstune.recipe.schema import recipe_schema
from dpstune.studies.grid import overrides_for, parse_method, refuse_unknown_keys, widen
from dpstune.training import engine
from dpstune.training.loop import Loop
from tests.methods.test_hooks import STEPS, examples, network, take_step
from tests.training.stopping import stop_within_an_evaluation

OF = [{"name": "vanilla"}, {"name": "dps-dense", "update_ratio": 0.25}, {"name": "dps-mix", "update_ratio": 0.25}]
NOT_WRAPPED = ("ema", "lora")


def start(of, decay=0.6):
    model = network()
    method = build_method({"name": "ema", "decay": decay, "of": of})
    method.attach(model, total_steps=STEPS, seed=7)
    return model, method, torch.optim.AdamW(model.parameters(), lr=0.02)


def values(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("decay", [0.3, 0.6, 0.999])
@pytest.mark.parametrize("of", OF, ids=lambda of: of["name"])
def test_the_recursion_by_hand_on_the_weights_of_plain_training(of, decay):
    """The other method is trained by itself; its weights, step by step, are averaged in double precision."""
    alone, plain = network(), build_method(of)
    plain.attach(alone, total_steps=STEPS, seed=7)
    own = torch.optim.AdamW(alone.parameters(), lr=0.02)
    model, method, optimizer = start(of, decay)
    expected = {name: weight.double() for name, weight in values(model).items()}
    for t in range(1, STEPS + 1):
        take_step(alone, plain, own, t)
        take_step(model, method, optimizer, t)
        assert all(torch.equal(weight, values(model)[name]) for name, weight in values(alone).items())
        now = min(decay, (1 + t) / (10 + t))
        for name, weight in values(alone).items():
            expected[name] = now * expected[name] + (1 - now) * weight.double()
            torch.testing.assert_close(method.averages[name].double(), expected[name], rtol=1e-5, atol=1e-7)
    raw = values(model)
    method.detach()
    for name, weight in values(model).items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(weight, raw[name]) for name, weight in values(model).items())


def test_inside_the_block_the_model_has_the_averages_and_after_it_every_bit_it_had():
    model, method, optimizer = start(OF[1])
    for step in range(1, 5):
        take_step(model, method, optimizer, step)
    raw, places = values(model), [weight.data_ptr() for weight in model.parameters()]
    with method.as_detached():
        inside = values(model)
    assert all(torch.equal(inside[name], average) for name, average in method.averages.items())
    with pytest.raises(ZeroDivisionError), method.as_detached():
        raise ZeroDivisionError
    assert all(torch.equal(raw[name], weight) for name, weight in values(model).items())
    assert [weight.data_ptr() for weight in model.parameters()] == places
    method.detach()
    assert all(torch.equal(inside[name], weight) for name, weight in values(model).items())
    with method.as_detached():  # of what is detached already: nothing
        assert all(torch.equal(inside[name], weight) for name, weight in values(model).items())


@pytest.mark.parametrize("spoil", [float("inf"), float("nan")])
def test_a_skipped_step_is_no_update(spoil):
    """With it or without it, the averages are the same."""
    model, method, optimizer = start(OF[0], decay=0.99)
    other, without, others = start(OF[0], decay=0.99)
    for step in range(1, 6):
        if step == 3:
            before = copy.deepcopy(method.averages)
            take_step(model, method, optimizer, 9, spoil=spoil)
            assert all(torch.equal(before[name], average) for name, average in method.averages.items())
        take_step(model, method, optimizer, step)
        take_step(other, without, others, step)
    assert (method.step, without.step) == (7, 6)
    assert all(torch.equal(without.averages[name], average) for name, average in method.averages.items())


def test_only_what_trains_is_averaged_and_held():
    model = network()
    method = build_method({"name": "ema", "of": {"name": "bitfit"}})
    method.attach(model, total_steps=3)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert method.averages.keys() == trained.keys() < dict(model.named_parameters()).keys()
    assert method.held_bytes() == 4 * sum(weight.numel() for weight in trained.values())
    method.detach()
    assert all(weight.requires_grad for weight in model.parameters())
    assert method.held_bytes() == 0
    dense = build_method({"name": "ema", "of": {"name": "dps-dense"}})
    dense.attach(model, total_steps=3)
    linear = sum(layer.weight.numel() for layer in model if isinstance(layer, nn.Linear))
    assert dense.held_bytes() == 4 * sum(weight.numel() for weight in model.parameters()) + 4 * linear


def test_averages_start_from_what_was_made_of_the_weights_before_step_1():
    method = build_method({"name": "ema", "of": {"name": "lp-ft"}})
    model = network()
    method.attach(model, total_steps=3)
    before = values(model)

    def change(model, steps):
        model[3].weight.data.fill_(2.0)

    method.inner.prepare = change
    method.prepare(model, [])
    assert not torch.equal(before["3.weight"], model[3].weight)
    assert all(torch.equal(weight, method.averages[name]) for name, weight in values(model).items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_averages_have_at_least_single_precision(dtype):
    model = network().to(dtype)
    method = build_method({"name": "ema", "decay": 0.999})
    method.attach(model, total_steps=3)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    assert {average.dtype for average in method.averages.values()} == {kept}
    with method.as_detached():
        assert {weight.dtype for weight in model.parameters()} == {dtype}


def test_a_model_that_memory_does_not_suffice_for_is_left_as_it_was(monkeypatch):
    model = network()
    method = build_method({"name": "ema", "of": {"name": "dps-mix"}})
    monkeypatch.setattr("dpstune.methods.ema.new_accumulator", lambda weight: bytearray(1 << 62))
    with pytest.raises(MemoryError):
        method.attach(model, total_steps=3)
    assert "forward" not in vars(model[0])
    monkeypatch.undo()
    method.attach(model, total_steps=3)


def test_a_step_that_is_broken_off_while_weights_are_moved_leaves_the_averages():
    model = network()
    method = build_method({"name": "ema", "of": "sam"})
    method.attach(model, total_steps=3)
    averages = {name: average.clone() for name, average in method.averages.items()}
    model[0].weight.data.add_(1.0)
    model(torch.ones(2, 6)).sum().backward()
    method.after_round(1)
    method.detach()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, averages[name])


def test_what_is_asked_of_it_is_asked_of_the_method_that_trains():
    """Whatever hook a method may have, it is there; a new one of the base class must be looked at here."""
    own = {"attach", "innermost", "as_detached", "detach", "release", "acquire", "held_bytes"}
    hooks = {name for name, hook in vars(Method).items() if callable(hook) or isinstance(hook, property)}
    hooks = {name for name in hooks if not name.startswith("_")}
    assert hooks <= vars(Ema).keys() | {"attach"}
    assert own <= hooks
    r_drop = build_method({"name": "ema", "of": {"name": "r-drop", "dropout": 0.3}})
    inner = build_method({"name": "r-drop", "dropout": 0.3})
    assert r_drop.dropout(100) == inner.dropout(100) == 0.3
    assert (r_drop.most_tokens, r_drop.serves_several_labels) == (inner.most_tokens, inner.serves_several_labels)
    assert (r_drop.rounds, r_drop.rounds_share_dropout) == (inner.rounds, inner.rounds_share_dropout)
    assert r_drop.whole_embeddings


def test_gradients_and_loss_are_those_of_the_method_that_trains():
    model, method, _ = start(OF[1])
    seen = []
    for name in ("before_clip", "before_update", "begin_step", "after_update"):
        setattr(method.inner, name, lambda name=name: seen.append(name))
    method.inner.after_round = lambda number: seen.append(number)
    F.cross_entropy(model(examples(1)[0]), examples(1)[1]).backward()
    method.begin_step()
    method.after_round(1)
    method.before_clip()
    method.before_update()
    method.after_update()
    assert seen == ["begin_step", 1, "before_clip", "before_update", "after_update"]


class TestSettings:
    def load(self, *overrides, method="ema", recipe="demo"):
        return load_recipe(recipe, method=method, overrides=overrides).recipe

    @pytest.mark.parametrize(
        ("overrides", "of"),
        [
            ([], {"name": "vanilla"}),
            (["method.of=mixout"], {"name": "mixout", "p": 0.4}),
            (["method.of=mixout", "method.of.p=0.7"], {"name": "mixout", "p": 0.7}),
            (["method.of.name=mixout", "method.of.p=0.7"], {"name": "mixout", "p": 0.7}),
            (["method.of.p=0.7", "method.of.name=mixout"], {"name": "mixout", "p": 0.7}),
            (["method.of.p=0.7", "method.of=mixout"], {"name": "mixout", "p": 0.7}),
            (["method.of={name: mixout, p: 0.7}"], {"name": "mixout", "p": 0.7}),
        ],
    )
    def test_the_method_that_trains_is_set_as_any_other(self, tmp_path, overrides, of):
        recipe = self.load(*overrides)
        assert recipe.method.model_dump()["of"] == of
        (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
        assert load_run_recipe(tmp_path / "recipe.yaml") == recipe

    def test_another_method_that_trains_has_its_own_settings(self, tmp_path):
        file = tmp_path / "averaged.yaml"
        file.write_text(
            "model: {name: minilm}\ntask: toy-nli\n"
            "method: {name: ema, decay: 0.9, of: {name: dps-dense, p: 0.4, update_ratio: 0.2}}\n"
        )
        settings = load_recipe(str(file), overrides=["method.of.name=mixout"]).recipe.method.model_dump()
        assert settings == {"name": "ema", "decay": 0.9, "of": {"name": "mixout", "p": 0.4}}
        settings = load_recipe(str(file), overrides=["method.of.p=0.1"]).recipe.method.model_dump()
        assert without_newer_keys(settings["of"]) == {"name": "dps-dense", "p": 0.1, "update_ratio": 0.2}

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("method.decay=1", "method.decay: should be less than 1, not 1"),
            ("method.decay=0", "method.decay: should be greater than 0, not 0"),
            ("method.of=ema", "method.of: an average of averages is not offered"),
            ("method.of=mixot", "method.of: unknown method 'mixot'; did you mean 'mixout'?"),
            ("method.of.p=0.4", "method.of: p: unknown key 'p'; known keys: name"),
            ("method.of={name: mixout, p: 3}", "method.of: p: should be less than 1, not 3"),
            ("method.of.name=3", "method.of: name: should be a method's name"),
            ("method.of=3", "method.of: should be a mapping of keys to values, not 3"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, override, words):
        with pytest.raises(RequestError) as caught:
            self.load(override)
        assert str(caught.value).startswith(f"--set {override}: {words}")
        assert "\n" not in str(caught.value)

    def test_several_labels_are_refused_where_the_method_that_trains_does_not_serve_them(self, tmp_path):
        file = tmp_path / "several.yaml"
        file.write_text(
            "model: {name: minilm}\n"
            "task: {files: {train: a.csv, validation: 0}, text: text, label: labels, kind: multilabel}\n"
        )
        with pytest.raises(RequestError, match="r3f compares one distribution an example"):
            load_recipe(str(file), method="ema", overrides=["method.of=r3f"])

    def test_a_sweep_takes_keys_of_the_method_that_trains(self):
        assert parse_method("ema:of.name=mixout,of.p=0.7") == ("ema", ["method.of.name=mixout", "method.of.p=0.7"])
        given = ["method.of.p=0.7", "method.p=0.1"]
        assert overrides_for("ema", given) == given[:1]
        assert overrides_for("mixout", given) == given[1:]
        refuse_unknown_keys(["ema"], ["method.of.p=0.7"], "--set")
        with pytest.raises(RequestError, match=r"none of the methods has a key 'of\.p'"):
            refuse_unknown_keys(["mixout"], ["method.of.p=0.7"], "--set")
        assert widen({}, "ema", ["method.of.p=0.3,0.7"]) == {"method.of.p": [0.3, 0.7]}

    def test_people_read_what_trains(self):
        assert "ema (decay 0.99, of mixout (p 0.4)), 300 steps" in summarize_recipe(self.load("method.of=mixout"))

    def test_the_schema_offers_every_method_to_train(self):
        schema = recipe_schema()
        assert schema["$defs"]["EmaConfig"]["properties"]["of"]["anyOf"] == schema["properties"]["method"]["anyOf"]
        references = {part.split('"')[0] for part in json.dumps(schema).split('"#/$defs/')[1:]}
        assert references <= schema["$defs"].keys()


@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in NOT_WRAPPED])
def test_every_other_method_can_train(name):
    assert build_method({"name": "ema", "of": name}).inner.config.name == name


EVERY = ["training.eval_every=2", "training.precision=fp32", "training.steps=12", "method.decay=0.6"]


class TestEngine:
    def train(self, task, output, *more):
        run = engine.train(load_recipe(str(task), method="ema", overrides=[*EVERY, *more]), output=output)
        return run, load_file(run.folder / "model" / "model.safetensors")

    def test_what_is_scored_are_the_averages_and_the_best_of_them_are_kept(self, tiny_task, tmp_path, monkeypatch):
        scored, loops = {}, []
        score, evaluate = scoring.score, Loop.evaluate

        def note_and_score(model, *args, **kwargs):
            loop = loops[-1]
            step = loop.state.step
            averages = loop.method.averages
            assert all(torch.equal(averages[name], weight) for name, weight in values(model).items() if averages)
            scored.setdefault(step, {name: tensor.clone() for name, tensor in model.state_dict().items()})
            return score(model, *args, **kwargs)

        monkeypatch.setattr(scoring, "score", note_and_score)
        monkeypatch.setattr(Loop, "evaluate", lambda loop: (loops.append(loop), evaluate(loop))[1])
        run, kept = self.train(tiny_task, tmp_path, "training.keep=best", "method.of.name=dps-dense")
        expected = scored[run.result["kept"]["step"]]
        assert all(torch.equal(expected[name], tensor) for name, tensor in kept.items())
        trained = without_newer_keys(run.result["method"]["of"])
        assert trained == {"name": "dps-dense", "p": 0.3, "update_ratio": 0.05}
        assert (
            "ema (decay 0.6, of dps-dense (p 0.3, update_ratio 0.05))"
            in (run.folder / "model" / "README.md").read_text()
        )

    @pytest.mark.parametrize("keep", ["last", "best"])
    def test_a_run_that_is_stopped_within_an_evaluation_goes_on_with_the_same_bits(
        self, tiny_task, tmp_path, monkeypatch, keep
    ):
        more = ["method.of.name=dps-dense", f"training.keep={keep}"]
        _, expected = self.train(tiny_task, tmp_path / "straight", *more)
        with monkeypatch.context() as patch:
            stop_within_an_evaluation(patch, after_step=4)
            with pytest.raises(Interrupted):
                self.train(tiny_task, tmp_path / "stopped", *more)
        _, found = self.train(tiny_task, tmp_path / "stopped", *more)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    def test_without_an_evaluation_the_model_has_the_same_averages(self, tiny_task, tmp_path):
        _, often = self.train(tiny_task, tmp_path / "often")
        _, once = self.train(tiny_task, tmp_path / "once", "training.eval_every=12")
        assert all(torch.equal(once[name], tensor) for name, tensor in often.items())
