"""Two processes train one model: bit for bit the same on both ranks, and what one process makes of the double batch."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from dpstune.device import hardware
from dpstune.methods import REGISTRY
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_metrics, read_predictions
from dpstune.training import engine
from tests.loss_scale import LARGE, scaling_from
from tests.once import made_once
from tests.tiny import LEARNING, METHODS, VOCABULARY, tiny_tokenizer

pytestmark = pytest.mark.slow

SETTINGS = {
    "dps-dense": "p: 0.4, update_ratio: 0.2",
    "dps-mix": "p: 0.4, update_ratio: 0.2",
    "reinit": "layers: 1",
    "top-layers": "layers: 1",
}


CHOSEN = ", keep: best, patience: 2, class_weights: balanced, label_smoothing: 0.1, save_every: 2"


def write_recipe(folder, task, method, batch_size, precision="fp32", more=""):
    """The tiny task with a method and a batch size; no dropout, and no division by float noise."""
    text = task.read_text().replace("train.csv", f"{task.parent}/train.csv")
    text = text.replace("validation.csv", f"{task.parent}/validation.csv")
    lines = [line for line in text.splitlines() if not line.startswith(("method:", "training:", "model:"))]
    model = next(line for line in text.splitlines() if line.startswith("model:"))
    settings = f", {SETTINGS[method]}" if method in SETTINGS else ""
    training = f"batch_size: {batch_size}, learning_rate: 0.3, adam_epsilon: 1.0, steps: 14, precision: {precision}"
    recipe = folder / f"{'chosen' if more else method}-{precision}.yaml"
    recipe.write_text(
        "\n".join(
            [
                *lines,
                model.replace("}", ", dropout: 0.0}"),
                f"method: {{name: {method}{settings}}}",
                f"training: {{{training}, eval_every: {2 if more else 5}{more}}}",
            ]
        )
    )
    return recipe


def losses_of(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def every_recipe(folder, task, precision):
    """Write a recipe of every method, of 9 steps an epoch, and one that chooses its weights."""
    recipes = [str(write_recipe(folder, task, method, 4, precision)) for method in METHODS]
    return [*recipes, str(write_recipe(folder, task, "vanilla", 4, precision, CHOSEN))]


def launch(folder, recipes):
    """Train recipes in two processes, as a user starts them."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    done = subprocess.run(
        [
            sys.executable,
            *launch,
            "--main_process_port",
            "0",
            "--mixed_precision",
            "no",
            "-m",
            "tests.training.ranks",
            str(folder),
            *recipes,
        ],
        capture_output=True,
        text=True,
        timeout=1000,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def fork(zygote, folder, recipes, **environment):
    """Train recipes in two forks of a warm process, which are told what a launcher tells; return how they ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", **environment}
    ranks = [
        zygote.start(folder, *recipes, program="tests.training.ranks", RANK=rank, LOCAL_RANK=rank, **told)
        for rank in ("0", "1")
    ]
    first, second = ranks
    given_up_at = time.monotonic() + 1000
    while first.alive or (second.alive and "KILLED_AT_WRITE" not in environment):
        assert time.monotonic() < given_up_at
        time.sleep(0.05)
    if "KILLED_AT_WRITE" in environment:  # a launcher ends the other rank where one is gone
        second.send_to_all(signal.SIGKILL)
    return [first.wait(), second.wait()]


@pytest.fixture(scope="module")
def two_ranks(tiny_task, tmp_path_factory):
    return made_once(
        tmp_path_factory, "ranks-fp32", lambda folder: launch(folder, every_recipe(folder, tiny_task, "fp32"))
    )


@pytest.fixture(scope="module")
def two_ranks_in_fp16(zygote, tiny_task, tmp_path_factory):
    def train(folder):
        for done in fork(zygote, folder, every_recipe(folder, tiny_task, "fp16")):
            assert done.code == 0, done.stderr[-3000:]

    return made_once(tmp_path_factory, "ranks-fp16", train)


@pytest.mark.parametrize("ranks", ["two_ranks", "two_ranks_in_fp16"])
@pytest.mark.parametrize("method", REGISTRY)
def test_both_ranks_hold_the_same_bits(method, ranks, request):
    folder = request.getfixturevalue(ranks)
    first, second = (load_file(next(folder.glob(f"{method}-*-rank{rank}.safetensors"))) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", LEARNING)
def test_ranks_that_overflow_in_fp16_skip_the_same_steps_and_then_train(
    two_ranks_in_fp16, tiny_task, tmp_path, monkeypatch, method
):
    if method in ("r3f", "r-drop", "smart"):
        pytest.skip("each rank draws noise of its own; one process draws other noise")
    monkeypatch.setattr(hardware, "compute_in_fp16_on_cpu", scaling_from(LARGE))
    one = engine.train(load_recipe(str(write_recipe(tmp_path, tiny_task, method, 8, "fp16"))), output=tmp_path)
    (two,) = two_ranks_in_fp16.glob(f"runs/{method}-fp16/*/*/result.json")
    scaling = [json.loads(result.read_text())["loss_scaling"] for result in (one.folder / "result.json", two)]
    skipped = [each["skipped_steps"] for each in scaling]
    assert [each["loss_scale"] for each in scaling] == [LARGE / 2**steps for steps in skipped]
    # A rank's mean is over half of the examples, so that its scaled gradients are twice as large.
    assert 1 <= skipped[0] <= skipped[1] <= skipped[0] + 1 < 12
    losses = [losses_of(folder)[: skipped[0] + 1] for folder in (one.folder, two.parent)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


@pytest.mark.parametrize("method", LEARNING)
def test_two_processes_match_one_with_the_double_batch(two_ranks, tiny_task, tiny_model, tmp_path, method):
    if method in ("r3f", "r-drop", "smart"):
        pytest.skip("each rank draws noise of its own; one process draws other noise")
    one = engine.train(load_recipe(str(write_recipe(tmp_path, tiny_task, method, 8))), output=tmp_path)
    (two,) = two_ranks.glob(f"runs/{method}-fp32/*/*/result.json")
    losses = [losses_of(folder) for folder in (one.folder, two.parent)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-4)
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one.folder, two.parent))
    first = load_file(tiny_model / "model.safetensors")
    moved = torch.cat([(weights[f"bert.{name}"] - tensor).flatten() for name, tensor in first.items()])
    apart = torch.cat([(others[name] - tensor).flatten() for name, tensor in weights.items()])
    # Where scores tie but for float noise, another weight may be selected.
    assert apart.norm() < (2e-2 if method.startswith(("dps", "child-tuning-d")) else 1e-4) * moved.norm()
    answers, other_answers = (
        read_predictions(folder / "predictions" / "validation.parquet") for folder in (one.folder, two.parent)
    )
    assert answers["id"] == other_answers["id"]
    assert answers["label"] == other_answers["label"]


def test_two_ranks_choose_stop_and_weigh_as_one(two_ranks, tiny_task, tmp_path):
    recipe = write_recipe(tmp_path, tiny_task, "vanilla", 8, more=CHOSEN)
    one = engine.train(load_recipe(str(recipe)), output=tmp_path).result
    (file,) = two_ranks.glob("runs/chosen-fp32/*/*/result.json")
    two = json.loads(file.read_text())
    assert [two[key] for key in ("stopped_early_at", "kept", "value")] == [
        one[key] for key in ("stopped_early_at", "kept", "value")
    ]
    (alone,) = tmp_path.glob("chosen-fp32/*/*/result.json")
    assert losses_of(file.parent) == pytest.approx(losses_of(alone.parent), rel=2e-4)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_two_ranks_that_are_killed_at_a_write_go_on_with_the_same_bits(zygote, two_ranks, tiny_task, tmp_path, number):
    recipe = [str(write_recipe(tmp_path, tiny_task, "vanilla", 4, more=CHOSEN))]
    writes, _ = fork(zygote, tmp_path, recipe, KILLED_AT_WRITE=str(number))
    assert writes.code == -signal.SIGKILL, writes.stderr[-3000:]
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))
    for again in fork(zygote, tmp_path, recipe):
        assert again.code == 0, again.stderr[-3000:]
    (resumed,), (whole,) = (
        folder.glob("runs/chosen-fp32/*/*/model/model.safetensors") for folder in (tmp_path, two_ranks)
    )
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_rank_without_a_step_in_an_epoch_gets_the_probe_of_the_other(zygote, tiny_task, tmp_path):
    """72 examples are one step of two ranks: the second sees none of them before step 1."""
    for done in fork(zygote, tmp_path, [str(write_recipe(tmp_path, tiny_task, "lp-ft", 36))]):
        assert done.code == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"lp-ft-fp32-rank{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_that_training_never_uses_are_waited_for_by_no_rank(zygote, tiny_task, tmp_path):
    """XLNet's mask embedding has no gradient."""
    shape = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "vocab_size": len(VOCABULARY)}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("xlnet", **shape))
    model.transformer.save_pretrained(tmp_path / "xlnet")
    tiny_tokenizer().save_pretrained(tmp_path / "xlnet")
    recipe = write_recipe(tmp_path, tiny_task, "vanilla", 4)
    recipe.write_text(re.sub("model: {name: [^,}]*", f"model: {{name: {tmp_path}/xlnet", recipe.read_text()))
    for done in fork(zygote, tmp_path, [str(recipe)]):
        assert done.code == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"vanilla-fp32-rank{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    before = load_file(tmp_path / "xlnet" / "model.safetensors")
    assert torch.equal(first["transformer.mask_emb"], before["mask_emb"])
    assert not torch.equal(first["transformer.word_embedding.weight"], before["word_embedding.weight"])
