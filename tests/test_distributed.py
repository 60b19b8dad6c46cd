"""Two processes train one model: bit for bit the same on both ranks, and what one process makes of the double batch."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dpstune import engine
from dpstune.methods import REGISTRY
from dpstune.recipe import load_recipe
from dpstune.runs import read_metrics, read_predictions

SETTINGS = {"dps-dense": "p: 0.4, update_ratio: 0.2", "dps-mix": "p: 0.4, update_ratio: 0.2", "reinit": "layers: 1"}


def write_recipe(folder, task, method, batch_size):
    """The tiny task with a method and a batch size; no dropout, and no division by float noise."""
    text = task.read_text().replace("train.csv", f"{task.parent}/train.csv")
    text = text.replace("validation.csv", f"{task.parent}/validation.csv")
    lines = [line for line in text.splitlines() if not line.startswith(("method:", "training:", "model:"))]
    model = next(line for line in text.splitlines() if line.startswith("model:"))
    settings = f", {SETTINGS[method]}" if method in SETTINGS else ""
    training = f"batch_size: {batch_size}, learning_rate: 0.3, adam_epsilon: 1.0, steps: 14, precision: fp32"
    recipe = folder / f"{method}.yaml"
    recipe.write_text(
        "\n".join(
            [
                *lines,
                model.replace("}", ", dropout: 0.0}"),
                f"method: {{name: {method}{settings}}}",
                f"training: {{{training}, eval_every: 5}}",
            ]
        )
    )
    return recipe


@pytest.fixture(scope="module")
def two_ranks(tiny_task, tmp_path_factory):
    """What two processes made of every method."""
    folder = tmp_path_factory.mktemp("ranks")
    recipes = [str(write_recipe(folder, tiny_task, method, 4)) for method in REGISTRY]  # 9 steps an epoch
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
            "tests.ranks",
            str(folder),
            *recipes,
        ],
        capture_output=True,
        text=True,
        timeout=1000,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("method", REGISTRY)
def test_both_ranks_hold_the_same_bits(two_ranks, method):
    first, second = (load_file(two_ranks / f"{method}-rank{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", REGISTRY)
def test_two_processes_match_one_with_the_double_batch(two_ranks, tiny_task, tiny_model, tmp_path, method):
    if method in ("r3f", "r-drop"):
        pytest.skip("each rank draws noise of its own; one process draws other noise")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = engine.train(load_recipe(str(write_recipe(tmp_path, tiny_task, method, 8))), output=tmp_path)
    torch.set_num_threads(threads)
    (two,) = two_ranks.glob(f"runs/{method}/*/*/result.json")
    losses = [
        [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
        for folder in (one.folder, two.parent)
    ]
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
