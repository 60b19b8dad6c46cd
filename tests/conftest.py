"""What several test files start from: a tiny model, a tiny task of a user's own, a warm process."""

import csv
import gc
import importlib
import os
import random
import signal

import pytest
import torch
from hypothesis import settings

from tests.tiny import WITHOUT_PEFT, save_tiny_model
from tests.zygote import Zygote

# Tiny models are faster on one thread, the tests' processes leave each other's cores alone, and sums have one order.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would the runs
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


LONGEST = ("test_gpu_benchmark.py", "test_launches.py", "test_sweep.py", "test_launcher.py", "test_distributed.py")


def pytest_collection_modifyitems(items):
    """Put what takes longest first, so that no process waits at the end for another's last test."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_runtest_setup(item):
    """Skip what trains with ``lora`` where PEFT is not installed."""
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    asked = [value.get("name") if isinstance(value, dict) else value for value in given]
    if WITHOUT_PEFT and "lora" in asked:
        pytest.skip("the lora extra (PEFT) is not installed")


def pytest_collection_finish():
    """Take what was imported for no garbage: every run looks through the rest for an earlier run's memory."""
    importlib.import_module("dpstune.training.engine")
    for name in ("accelerate", "datasets", "transformers.models.bert.modeling_bert", "matplotlib.figure"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


@pytest.fixture
def run(capsys):
    """Run the command line in this process and return exit code, stdout and stderr."""

    from dpstune import cli

    def run(*arguments):
        code = cli.run(list(map(str, arguments)))
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a tiny BERT of random weights, its tokenizer and config."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny_model(folder)
    return folder


def write_table(path, count, seed):
    """Write a CSV of sentence pairs whose label the first word decides."""
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "label"])
        for _ in range(count):
            good = rng.random() < 0.5
            first = (
                f"{'the' if good else 'a'} cat {' '.join(rng.choices(['dog', 'man', 'house'], k=rng.randrange(1, 6)))}"
            )
            writer.writerow([first, "a man, in a house", "yes" if good else "no"])


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory, tiny_model):
    """A recipe file for the tiny model on a user's own CSV files: 72 examples, 12 steps of 6 an epoch."""
    folder = tmp_path_factory.mktemp("task")
    write_table(folder / "train.csv", 72, seed=1)
    write_table(folder / "validation.csv", 30, seed=2)
    recipe = folder / "tiny.yaml"
    recipe.write_text(
        f"model: {{name: {tiny_model}}}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: [first, second], label: label}\n"
        "data: {max_length: 24}\n"
        "method: {name: dps-dense, p: 0.4, update_ratio: 0.2}\n"
        "training: {batch_size: 6, learning_rate: 0.003, epochs: 2, precision: fp32}\n"
    )
    return recipe


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    """A warm process that runs command lines in forks."""
    process = Zygote(tmp_path_factory.mktemp("zygote"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def tiny_run(zygote, tiny_task, tmp_path_factory):
    """The folder of a finished run of the tiny task."""
    output = tmp_path_factory.mktemp("run")
    run = zygote.run("train", "--recipe", tiny_task, "--output", output)
    assert run.code == 0, run.stderr
    (result,) = output.glob("*/*/*/result.json")
    return result.parent
