"""The same run by dpstune's engine and by Hugging Face's Trainer gives the same weights."""

import copy
import csv
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from dpstune import build_method
from dpstune.data.batches import StepPlan
from dpstune.data.inputs import Inputs
from dpstune.data.tokens import encode
from dpstune.device import hardware
from dpstune.errors import RequestError, RunError
from dpstune.integrations.transformers import METHOD_STATE, MethodTrainer, newest_whole_checkpoint
from dpstune.methods import REGISTRY
from dpstune.models.loading import load_classifier, load_tokenizer
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from tests.loss_scale import LARGE, scaling_from
from tests.methods.rounds import Again, check_first_step, register
from tests.tiny import FREEZING, LAYERS, some

STEPS = 18
SETTINGS = {
    "dps-dense": {"update_ratio": 0.2},
    "dps-mix": {"update_ratio": 0.2},
    "reinit": {"layers": 1},
    "top-layers": {"layers": 1},
    "ema": {"decay": 0.8},
}
HALF = {"fp16": True, "optim": "adamw_torch_fused"}
QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": not torch.cuda.is_available()}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model):
    """Three labels (two would tie in DPS's scores), no dropout, sentences of one length."""
    folder = tmp_path_factory.mktemp("trainer")
    for split, count in (("train", 72), ("validation", 12)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = ((f"{('cat', 'dog', 'man')[n % 3]} {'abcdefgh'[n % 8]}", "xyz"[n % 3]) for n in range(count))
            csv.writer(file).writerows([("text", "label"), *rows])
    recipe = folder / "three.yaml"
    recipe.write_text(
        f"model: {{name: {tiny_model}, dropout: 0.0}}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label}\n"
        "data: {max_length: 12}\n"
        f"training: {{batch_size: 4, learning_rate: 0.05, adam_epsilon: 0.1, steps: {STEPS}, warmup_steps: 3, "
        "precision: fp32}\n"
    )
    return recipe


class HalfTrainer(MethodTrainer):
    """A Trainer in fp16 on a CPU, whose first steps overflow."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        scaling_from(LARGE)(self.accelerator)


def build_trainer(loaded, folder, trainer=MethodTrainer, **arguments):
    """A Trainer on the recipe's model and on its examples, in the order in which the engine sees them."""
    recipe = loaded.recipe
    task = Inputs().task(recipe)
    dataset = encode(task.splits["train"], load_tokenizer(recipe.model), recipe.data.max_length)
    plan = StepPlan(recipe, dataset.lengths, processes=1)
    order = [index for step in range(1, STEPS + 1) for chunk in plan.chunks(step) for index in chunk]
    model = load_classifier(
        recipe.model, label_names=task.label_names, kind=task.kind, dropout=recipe.model.dropout, seed=recipe.seed
    )
    training = recipe.training
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "learning_rate": training.learning_rate,
        "adam_epsilon": training.adam_epsilon,
        "weight_decay": training.weight_decay,
        "max_steps": STEPS,
        "warmup_steps": 3,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "seed": recipe.seed,
        **QUIET,
    }
    return trainer(
        model,
        TrainingArguments(**{**settings, **arguments}),
        train_dataset=[dataset.collate([index]) for index in order],
        eval_dataset=[dataset.collate([index]) for index in range(8)],
        data_collator=lambda rows: {key: torch.cat([row[key] for row in rows]) for key in rows[0]},
        method=recipe.method,
    )


def load(recipe, method, accumulation=1, precision="fp32", more=()):
    overrides = [
        f"training.precision={precision}",
        f"training.batch_size={4 // accumulation}",
        f"training.gradient_accumulation={accumulation}",
    ]
    overrides += [f"method.{key}={value}" for key, value in SETTINGS.get(method, {}).items()]
    if method == "r3f":
        overrides += ["method.sigma=1e-9"]  # noise that both draw, from generators of their own
    if method == "r-drop":
        overrides += ["method.dropout=0"]
    return load_recipe(str(recipe), method=method, overrides=[*overrides, *more])


def apart(first, second, start):
    """How far two models lie apart, as a share of the way they came."""
    distance = torch.cat([(first[name] - second[name]).flatten() for name in first]).norm()
    way = torch.cat([(first[name] - start[name]).flatten() for name in first]).norm()
    return (distance / way).item()


@pytest.mark.parametrize("accumulation", some([2], of=[1, 2]))
@pytest.mark.parametrize(
    "method", some(["vanilla", "dps-dense", "dps-mix", "child-tuning-d", "r3f", "sam"], of=REGISTRY)
)
def test_trainer_and_engine_learn_the_same_weights(recipe, tmp_path, method, accumulation):
    loaded = load(recipe, method, accumulation)
    run = engine.train(loaded, output=tmp_path)
    trainer = build_trainer(loaded, tmp_path / "trainer")
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    assert trainer.method.model is None, "detached"
    expected = load_file(run.folder / "model" / "model.safetensors")
    assert apart(expected, trainer.model.state_dict(), start) < 1e-4


@pytest.mark.parametrize("method", [method for method in FREEZING if method != "lora"])
def test_the_optimizer_of_a_trainer_holds_what_the_method_trains(recipe, tmp_path, method):
    trainer = build_trainer(load(recipe, method), tmp_path, max_steps=2)
    trainer.train()
    held = {id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]}
    every = dict(trainer.model.named_parameters())
    trained = build_method({"name": method, **SETTINGS.get(method, {})}).trained(trainer.model)
    assert held == {id(weight) for weight in trained} < {id(weight) for weight in every.values()}
    assert all(weight.requires_grad for weight in every.values()), "thawed"


@pytest.mark.parametrize("method", ["lora"])
def test_the_optimizer_of_a_trainer_holds_the_weights_that_the_method_adds(recipe, tmp_path, method):
    trainer = build_trainer(load(recipe, method), tmp_path, max_steps=2)
    keys = list(trainer.model.state_dict())
    trainer.train()
    held = {id(weight): weight for group in trainer.optimizer.param_groups for weight in group["params"]}
    head = {id(weight) for weight in trainer.model.classifier.parameters()}
    added = sorted(tuple(weight.shape) for place, weight in held.items() if place not in head)
    assert head < held.keys()
    assert added == [(8, 16)] * 2 * LAYERS + [(16, 8)] * 2 * LAYERS
    assert list(trainer.model.state_dict()) == keys
    assert all(weight.requires_grad for weight in trainer.model.parameters()), "thawed"


@pytest.mark.parametrize("method", ["lora"])
def test_a_trainer_that_trains_twice_trains_what_the_method_adds_each_time(recipe, tmp_path, method):
    trainer = build_trainer(load(recipe, method), tmp_path, max_steps=2)
    for _ in range(2):
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        trainer.train()
        changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert len([name for name in changed if "query" in name or "value" in name]) == 2 * LAYERS
    optimizer = torch.optim.AdamW(trainer.model.parameters())
    with pytest.raises(RequestError, match="lora trains weights that no optimizer of yours holds; leave out optimiz"):
        MethodTrainer(trainer.model, trainer.args, method={"name": method}, optimizers=(optimizer, None))


@pytest.mark.parametrize("method", ["lora"])
def test_a_trainer_evaluates_merged_weights_saves_adapted_ones_and_ends_with_its_best(recipe, tmp_path, method):
    often = {"eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps", "save_steps": 6}
    first = {"metric_for_best_model": "eval_loss", "greater_is_better": True}  # so that the best is not the last
    trainer = build_trainer(load(recipe, method), tmp_path, load_best_model_at_end=True, **often, **first)
    plain = copy.deepcopy(trainer.model)
    seen, evaluate = {}, trainer.evaluation_loop

    def note(*arguments, **options):
        output = evaluate(*arguments, **options)
        with trainer.method.as_detached():
            weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        seen[trainer.state.global_step] = (output.metrics["eval_loss"], weights)
        return output

    trainer.evaluation_loop = note
    trainer.train()
    batch = trainer.data_collator(trainer.eval_dataset)
    for loss, weights in seen.values():
        plain.load_state_dict(weights)
        with torch.no_grad():
            assert loss == pytest.approx(plain.eval()(**batch).loss.item(), rel=1e-6)
    best = max(seen, key=lambda step: seen[step][0])
    assert best < STEPS
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    assert all(torch.equal(seen[best][1][name], tensor) for name, tensor in trainer.model.state_dict().items())
    saved = load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors")
    assert sum(name.endswith("lora_A.default.weight") for name in saved) == 2 * LAYERS
    trainer.save_model(tmp_path / "final")
    final = load_file(tmp_path / "final" / "model.safetensors")
    assert final.keys() == plain.state_dict().keys()
    assert all(torch.equal(seen[best][1][name], tensor) for name, tensor in final.items())


def test_a_trainer_that_fails_before_the_first_step_leaves_nothing_frozen(recipe, tmp_path, monkeypatch):
    trainer = build_trainer(load(recipe, "bitfit"), tmp_path)
    monkeypatch.setattr(trainer, "attach_method", lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert all(weight.requires_grad for weight in trainer.model.parameters())


@pytest.mark.parametrize("method", some(["dps-mix", "sam", "child-tuning-f"], of=REGISTRY))
def test_trainer_and_engine_skip_the_same_steps_in_fp16(recipe, tmp_path, monkeypatch, method):
    monkeypatch.setattr(hardware, "compute_in_fp16_on_cpu", scaling_from(LARGE))
    loaded = load(recipe, method, precision="fp16")
    run = engine.train(loaded, output=tmp_path)
    trainer = build_trainer(loaded, tmp_path / "trainer", HalfTrainer, **HALF)
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    scale = trainer.accelerator.scaler.get_scale()
    assert run.result["loss_scaling"]["loss_scale"] == scale < LARGE
    expected = load_file(run.folder / "model" / "model.safetensors")
    assert apart(expected, trainer.model.state_dict(), start) < 0.05


@pytest.mark.parametrize("method", some(["dps-dense"], of=["dps-dense", "dps-mix", "child-tuning-f"]))
def test_a_resumed_trainer_goes_on_with_the_same_bits_in_fp16(recipe, tmp_path, method):
    loaded = load(recipe, method)
    saving = {"save_strategy": "steps", "save_steps": 9, **HALF}
    whole = build_trainer(loaded, tmp_path, HalfTrainer, **saving)
    whole.train()
    resumed = build_trainer(loaded, tmp_path, HalfTrainer, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    first, second = (trainer.model.state_dict() for trainer in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.accelerator.scaler.state_dict() == resumed.accelerator.scaler.state_dict()


@pytest.mark.parametrize("method", some(["dps-mix"], of=REGISTRY))
def test_full_determinism_trains_every_method(recipe, tmp_path, method):
    trainer = build_trainer(load(recipe, method), tmp_path, full_determinism=True, max_steps=6)
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert trainer.train().global_step == 6
    finally:
        torch.use_deterministic_algorithms(False)


def test_label_smoothing_reaches_what_is_computed_before_step_1(recipe, tmp_path, monkeypatch):
    seen = []
    prepare = type(build_method({"name": "lp-ft"})).prepare
    monkeypatch.setattr(
        type(build_method({"name": "lp-ft"})),
        "prepare",
        lambda method, model, steps: seen.append(method.criterion.label_smoothing) or prepare(method, model, steps),
    )
    build_trainer(load(recipe, "lp-ft"), tmp_path, label_smoothing_factor=0.2, max_steps=1).train()
    assert seen == [0.2]


@pytest.mark.parametrize("method", ["r3f", "r-drop", "smart"])
def test_two_passes_in_the_memory_of_one_learn_the_same_weights(recipe, tmp_path, method, monkeypatch):
    loaded = load(recipe, method)
    run = engine.train(loaded, output=tmp_path)
    monkeypatch.setattr("dpstune.methods.twin.TWIN_TOKENS", 0)
    trainer = build_trainer(loaded, tmp_path / "trainer")
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    expected = load_file(run.folder / "model" / "model.safetensors")
    assert apart(expected, trainer.model.state_dict(), start) < 1e-4


@pytest.mark.parametrize(
    "method",
    some(
        ["dps-mix", "child-tuning-d", "ema", "lora"],
        of=["dps-dense", "dps-mix", "sam", "reinit", "child-tuning-d", "child-tuning-f", "ema", "lora"],
    ),
)
def test_a_resumed_trainer_goes_on_with_the_same_bits(recipe, tmp_path, method):
    loaded = load(recipe, method)
    whole = build_trainer(loaded, tmp_path / "whole")
    whole.train()
    stopped = build_trainer(loaded, tmp_path / "stopped", save_strategy="steps", save_steps=7)
    stopped.train()
    resumed = build_trainer(loaded, tmp_path / "stopped", save_strategy="steps", save_steps=7)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-7"))
    states = [trainer.model.state_dict() for trainer in (whole, stopped, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("share", [True, False])
def test_each_round_sees_all_micro_batches_and_dropout_is_as_declared(recipe, tmp_path, monkeypatch, share):
    register(monkeypatch)
    dropout = ["model.dropout=0.3"]
    settings = {"logging_strategy": "steps", "logging_steps": 1, "max_steps": 4}
    plain = build_trainer(load(recipe, "vanilla", 2, more=dropout), tmp_path, **settings)
    plain.train()
    again = build_trainer(
        load(recipe, "again", 2, more=[*dropout, f"method.share={str(share).lower()}"]), tmp_path, **settings
    )
    again.train()
    check_first_step(Again.newest)
    losses = [[line["loss"] for line in each.state.log_history if "loss" in line] for each in (plain, again)]
    assert losses[0][0] == losses[1][0], "the first round's"
    assert (losses[0] == losses[1]) == share
    first, second = (trainer.model.state_dict() for trainer in (plain, again))
    assert all(torch.equal(first[name], second[name]) for name in first) == share


def test_label_smoothing_reaches_both_rounds_of_sam(recipe, tmp_path):
    loaded = load(recipe, "sam", 2, more=["training.label_smoothing=0.2"])
    run = engine.train(loaded, output=tmp_path)
    trainer = build_trainer(loaded, tmp_path / "trainer", label_smoothing_factor=0.2)
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    expected = load_file(run.folder / "model" / "model.safetensors")
    assert apart(expected, trainer.model.state_dict(), start) < 1e-4


def test_a_trainer_that_fails_between_the_rounds_of_sam_leaves_no_weight_moved(recipe, tmp_path, monkeypatch):
    trainer = build_trainer(load(recipe, "sam"), tmp_path)
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    move, moved = trainer.method.after_round, []

    def move_and_fail(number):
        move(number)
        moved.extend(
            name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, start[name])
        )
        raise MemoryError

    monkeypatch.setattr(trainer.method, "after_round", move_and_fail)
    with pytest.raises(MemoryError):
        trainer.train()
    assert moved
    assert all(torch.equal(tensor, start[name]) for name, tensor in trainer.model.state_dict().items())


def test_evaluation_within_training_sees_plain_weights(recipe, tmp_path):
    loaded = load(recipe, "dps-mix")
    trainer = build_trainer(loaded, tmp_path, eval_strategy="steps", eval_steps=6)
    losses = []
    original = trainer.evaluate

    def evaluate(*arguments, **options):
        metrics = original(*arguments, **options)
        batch = trainer.data_collator(trainer.eval_dataset)
        twin = build_trainer(loaded, tmp_path).model
        twin.load_state_dict(trainer.model.state_dict())
        with torch.no_grad():
            losses.append((metrics["eval_loss"], twin.eval()(**batch).loss.item()))
        return metrics

    trainer.evaluate = evaluate
    trainer.train()
    assert len(losses) == 3
    for seen, plain in losses:
        assert seen == pytest.approx(plain, rel=1e-5)


def test_evaluation_within_training_sees_what_detaching_leaves_and_checkpoints_hold_what_trains(recipe, tmp_path):
    saving = {"eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps", "save_steps": 6}
    trainer = build_trainer(load(recipe, "ema"), tmp_path / "ema", **saving)
    seen, evaluate = [], trainer.evaluation_loop

    def note(*arguments, **options):
        output = evaluate(*arguments, **options)
        averages = None if trainer.method.model is None else copy.deepcopy(trainer.method.averages)
        seen.append((output.metrics["eval_loss"], averages))
        return output

    trainer.evaluation_loop = note
    trainer.train()
    trainer.evaluate()
    twin = copy.deepcopy(trainer.model)
    batch = trainer.data_collator(trainer.eval_dataset)
    assert len(seen) == 4
    for loss, averages in seen[:3]:
        twin.load_state_dict(averages)
        with torch.no_grad():
            assert loss == pytest.approx(twin.eval()(**batch).loss.item(), rel=1e-5)
    assert all(torch.equal(averages[name], weight) for name, weight in trainer.model.named_parameters())
    assert seen[3][0] == pytest.approx(seen[2][0], rel=1e-5)
    trainer.save_model(tmp_path / "final")
    final = load_file(tmp_path / "final" / "model.safetensors")
    assert all(torch.equal(averages[name], tensor) for name, tensor in final.items())
    plain = build_trainer(load(recipe, "vanilla"), tmp_path / "vanilla", **saving)
    plain.train()
    for step in (6, 12, 18):
        raw, others = (
            load_file(tmp_path / method / f"checkpoint-{step}" / "model.safetensors") for method in ("ema", "vanilla")
        )
        assert all(torch.equal(raw[name], tensor) for name, tensor in others.items())


@pytest.mark.parametrize("method", ["ema", "lora"])
def test_callbacks_see_the_finished_model_when_training_ends(recipe, tmp_path, method):
    seen = {}

    class Saver(TrainerCallback):
        def on_train_end(self, args, state, control, model=None, **others):
            seen.update({name: tensor.clone() for name, tensor in model.state_dict().items()})

    trainer = build_trainer(load(recipe, method), tmp_path, max_steps=2)
    trainer.add_callback(Saver())
    trainer.train()
    finished = trainer.model.state_dict()
    assert seen.keys() == finished.keys()
    assert all(torch.equal(tensor, finished[name]) for name, tensor in seen.items())


def test_averages_do_not_hide_weights_that_are_not_finite(recipe, tmp_path):
    class Spoiler(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **others):
            if state.global_step == 1:
                model.classifier.bias.grad.fill_(float("inf"))

    trainer = build_trainer(load(recipe, "ema"), tmp_path, max_steps=3, max_grad_norm=0.0)
    trainer.callback_handler.callbacks.insert(0, Spoiler())
    with pytest.raises(RunError, match="the trained weights are not finite, which ema would hide"):
        trainer.train()
    assert trainer.method.model is None, "detached"


@pytest.mark.parametrize("method", ["child-tuning-d", "lp-ft"])
def test_what_is_computed_before_step_1_is_computed_in_the_models_own_precision(recipe, tmp_path, monkeypatch, method):
    trainer = build_trainer(load(recipe, method), tmp_path, max_steps=2, bf16=True)
    seen, prepare = {"before": set(), "training": set()}, trainer.method.prepare

    def note(model, steps):
        now = "before"
        model.bert.pooler.dense.register_forward_hook(lambda *seen_by: seen[now].add(seen_by[-1].dtype))
        prepare(model, steps)
        now = "training"

    monkeypatch.setattr(trainer.method, "prepare", note)
    trainer.train()
    assert seen == {"before": {torch.float32}, "training": {torch.bfloat16}}


@pytest.mark.parametrize("method", ["child-tuning-d", "lp-ft"])
def test_data_without_an_end_are_seen_before_step_1_for_as_many_steps_as_there_are(recipe, tmp_path, method):
    class Endless(torch.utils.data.IterableDataset):
        read = 0

        def __iter__(self):
            while Endless.read < 1000:
                Endless.read += 1
                yield rows[Endless.read % len(rows)]

    trainer = build_trainer(load(recipe, method, accumulation=2), tmp_path, max_steps=3)
    rows = trainer.train_dataset
    trainer.train_dataset = Endless()
    trainer.train()
    assert Endless.read < 2 * 3 * 4 + 20  # before and in training; loaders read ahead


@pytest.mark.parametrize("method", ["r3f", "smart"])
def test_a_model_that_is_saved_at_once_says_what_kind_it_is(recipe, tmp_path, method):
    trainer = build_trainer(load(recipe, method), tmp_path, max_steps=1)
    trainer.model.config.problem_type = None
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["problem_type"] == "single_label_classification"


def test_the_best_checkpoint_of_averages_is_not_what_was_evaluated(recipe, tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(
        RequestError, match=r"^ema evaluates other weights than a checkpoint holds; set load_best_model"
    ):
        build_trainer(load(recipe, "ema"), tmp_path, **best)
    build_trainer(load(recipe, "dps-mix"), tmp_path, **best)


def test_a_loss_of_your_own_is_averaged_over_where_the_method_that_trains_takes_it(recipe, tmp_path):
    one = build_trainer(load(recipe, "vanilla"), tmp_path)
    own = {"compute_loss_func": lambda outputs, labels, num_items_in_batch: outputs.loss, "args": one.args}
    MethodTrainer(one.model, method={"name": "ema"}, **own)
    with pytest.raises(RequestError, match="ema has a loss of its own"):
        MethodTrainer(one.model, method={"name": "ema", "of": "r3f"}, **own)
    with pytest.raises(RequestError, match="ema sees the data before step 1"):
        MethodTrainer(one.model, method={"name": "ema", "of": "lp-ft"}, **own)


def test_a_methods_dropout_is_set_at_the_start(recipe, tmp_path):
    trainer = build_trainer(load(recipe, "dps-mix"), tmp_path)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    trainer.train()
    assert {module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_a_checkpoint_of_a_plain_trainer_is_refused(recipe, tmp_path):
    trainer = build_trainer(load(recipe, "dps-mix"), tmp_path, save_strategy="steps", save_steps=7)
    trainer.train()
    (tmp_path / "checkpoint-7" / METHOD_STATE).unlink()
    with pytest.raises(RunError, match="was not written by a MethodTrainer"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))


def test_a_checkpoint_of_another_method_or_of_other_settings_is_not_continued(recipe, tmp_path):
    build_trainer(load(recipe, "child-tuning-f"), tmp_path, save_strategy="steps", save_steps=7).train()
    for other, told in (
        (
            {"name": "child-tuning-f", "p": 0.6},
            r"written by child-tuning-f \(p 0.3\), and .* with child-tuning-f \(p 0.6\)",
        ),
        ("vanilla", r"written by child-tuning-f \(p 0.3\), and cannot be continued with vanilla \(no settings\)"),
    ):
        trainer = build_trainer(load(recipe, "vanilla"), tmp_path, save_strategy="steps", save_steps=7)
        trainer.method = build_method(other)
        with pytest.raises(RunError, match=told):
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))


def test_a_checkpoint_that_an_earlier_dpstune_wrote_is_continued(recipe, tmp_path):
    loaded = load(recipe, "dps-mix")
    first = build_trainer(loaded, tmp_path, save_strategy="steps", save_steps=7)
    first.train()
    file = tmp_path / "checkpoint-7" / METHOD_STATE
    held = torch.load(file, weights_only=True)
    assert held["method"]["name"] == "dps-mix"
    torch.save(held["state"], file)
    second = build_trainer(loaded, tmp_path, save_strategy="no")
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert all(torch.equal(first.model.state_dict()[name], each) for name, each in second.model.state_dict().items())


def test_a_compute_loss_of_your_own_takes_no_methods_loss_away(recipe, tmp_path):
    class Mine(MethodTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            return model(**inputs).loss

    one = build_trainer(load(recipe, "vanilla"), tmp_path)
    for method, told in (
        ("r3f", "r3f has a loss of its own; leave out the compute_loss of Mine"),
        ("smart", "smart has a loss of its own"),
        ("child-tuning-d", "child-tuning-d sees the data before step 1, without your loss; leave out the compute_loss"),
    ):
        with pytest.raises(RequestError, match=told):
            Mine(one.model, one.args, method=method)
    Mine(one.model, one.args, method="dps-dense")


@pytest.mark.parametrize(("killed_in", "goes_on_from"), [("_save_rng_state", 7), ("on_save", 14)])
def test_a_kill_while_it_saves_leaves_a_checkpoint_to_go_on_from(
    recipe, tmp_path, monkeypatch, killed_in, goes_on_from
):
    saving = {"save_strategy": "steps", "save_steps": 7, "save_total_limit": 1}
    whole = build_trainer(load(recipe, "dps-mix"), tmp_path / "whole")
    whole.train()
    killed = build_trainer(load(recipe, "dps-mix"), tmp_path, **saving)
    place = killed.callback_handler if killed_in == "on_save" else killed
    original = getattr(place, killed_in)

    def kill(*arguments):
        if killed.state.global_step == 14:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(place, killed_in, kill)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = build_trainer(load(recipe, "dps-mix"), tmp_path, **saving)
    first = note_steps(resumed)
    resumed.train(resume_from_checkpoint=True)
    assert first[0] == goes_on_from
    assert all(
        torch.equal(weight, whole.model.state_dict()[name]) for name, weight in resumed.model.state_dict().items()
    )


def test_a_checkpoint_whose_state_was_cut_off_is_not_whole(tmp_path):
    for step, state in ((7, "{}"), (14, '{"best_metric": nul')):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        (place / METHOD_STATE).touch()
        (place / "trainer_state.json").write_text(state)
    assert newest_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-7")


def note_steps(trainer):
    """Return a list that fills with the steps that are done before each next one."""
    steps, step = [], trainer.training_step

    def training_step(*arguments, **more):
        steps.append(trainer.state.global_step)
        return step(*arguments, **more)

    trainer.training_step = training_step
    return steps


def test_resuming_where_nothing_was_saved_is_refused_as_trainer_does(recipe, tmp_path):
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        build_trainer(load(recipe, "dps-mix"), tmp_path).train(resume_from_checkpoint=True)


def build_search(one, **arguments):
    """A Trainer for ``hyperparameter_search``, each trial from another Trainer's model."""
    return MethodTrainer(
        model_init=lambda trial: copy.deepcopy(one.model),
        args=dataclasses.replace(one.args, **arguments),
        train_dataset=one.train_dataset,
        eval_dataset=one.eval_dataset,
        data_collator=one.data_collator,
        method=one.method.config,
    )


def note_norms(trainer):
    """Return a list that fills with the norms of the gradients the method sees."""
    norms, seen = [], trainer.method.before_clip

    def before_clip():
        gradients = [weight.grad for weight in trainer.method.model.parameters() if weight.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        seen()

    trainer.method.before_clip = before_clip
    return norms


def test_a_trial_of_a_search_shows_the_method_the_gradients_of_plain_training(recipe, tmp_path):
    plain = build_trainer(load(recipe, "dps-dense"), tmp_path, max_grad_norm=1e-6)
    search = build_search(plain, max_steps=2)
    trial, whole = note_norms(search), note_norms(plain)
    search.hyperparameter_search(backend="optuna", n_trials=1, hp_space=lambda trial: {})
    plain.train()
    assert len(trial) == 2
    assert trial[0] == pytest.approx(whole[0])
    assert min(trial) > 1e-3


def test_each_trial_of_a_search_keeps_the_methods_state_beside_its_own_checkpoints(recipe, tmp_path):
    one = build_trainer(load(recipe, "dps-mix"), tmp_path)
    trainer = build_search(one, save_strategy="steps", save_steps=9, eval_strategy="steps", eval_steps=9)
    trainer.hyperparameter_search(
        backend="optuna", n_trials=2, hp_space=lambda trial: {"learning_rate": trial.suggest_float("rate", 0.01, 0.05)}
    )
    saved = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob(METHOD_STATE)}
    assert saved == {f"run-{trial}/checkpoint-{step}/{METHOD_STATE}" for trial in (0, 1) for step in (9, 18)}


def test_wrong_requests(recipe, tmp_path):
    loaded = load(recipe, "r3f")
    with pytest.raises(RequestError, match="set auto_find_batch_size=False"):
        build_trainer(loaded, tmp_path, auto_find_batch_size=True)
    reentrant = {"gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(RequestError, match="smart computes gradients within its loss; checkpoint with use_reentrant=F"):
        build_trainer(load(recipe, "smart"), tmp_path, gradient_checkpointing=True, **reentrant)
    with pytest.raises(RequestError, match="r3f has a loss of its own; leave out compute_loss_func and label smooth"):
        build_trainer(loaded, tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(
        RequestError, match="dps-dense acts on gradients, and optim=galore_adamw_layerwise uses them up"
    ):
        build_trainer(
            load(recipe, "dps-dense"), tmp_path, optim="galore_adamw_layerwise", optim_target_modules=["attn"]
        )
    with pytest.raises(
        RequestError, match="ema evaluates other weights than it trains, and so does optim=schedule_free"
    ):
        build_trainer(load(recipe, "ema"), tmp_path, optim="schedule_free_adamw")
    model = build_trainer(loaded, tmp_path, optim="galore_adamw_layerwise", optim_target_modules=["attn"]).model
    with pytest.raises(RequestError, match="child-tuning-d sees the data before step 1, without your loss function"):
        MethodTrainer(
            model,
            TrainingArguments(output_dir=str(tmp_path), **QUIET),
            compute_loss_func=lambda outputs, labels, num_items_in_batch: outputs.loss,
            method={"name": "child-tuning-d"},
        )
    with pytest.raises(RequestError, match="did you mean 'dps-mix'"):
        MethodTrainer(model, TrainingArguments(output_dir=str(tmp_path), **QUIET), method={"name": "dps-mx"})
