"""The processes a sweep starts, and the GPU each of them sees."""

import multiprocessing
import os
import tempfile

import pytest

from dpstune.errors import RunError
from dpstune.studies import gpu_share, processes
from dpstune.studies.processes import CONTEXT
from dpstune.studies.sweep.coordinator import run_sweep
from dpstune.studies.sweep.queue import RunQueue
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from dpstune.studies.sweep.workers import Workers


def note(folder, more_may_come, errors, number, workers, share):
    """Stand in a worker's place: write down what it was started with."""
    (folder / str(number)).write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {share.gpu} {share.guest}")


def start(folder, count, monkeypatch, gpus):
    """Return what each worker was started with on a machine with such GPUs."""
    monkeypatch.setattr("dpstune.studies.gpu_share.visible_gpus", lambda: gpus)
    monkeypatch.setattr("dpstune.studies.sweep.workers._work", note)
    workers = Workers(folder, count)
    workers.start()
    workers.join()
    return [(folder / str(number)).read_text() for number in range(count)]


def test_each_worker_starts_with_a_gpu_of_its_own_and_only_then_shares(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert start(tmp_path, 3, monkeypatch, ["2", "5"]) == ["2 2 False", "5 5 False", "2 2 True"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,5"


def test_without_a_gpu_the_environment_stays_what_it_was(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert start(tmp_path, 1, monkeypatch, []) == ["None None False"]


def lead_the_locks_elsewhere(folder, monkeypatch):
    """Let workers have a GPU, whose locks' folder is a link."""
    (folder / "elsewhere").mkdir()
    (folder / f"dpstune-gpus-{os.getuid()}").symlink_to(folder / "elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(gpu_share, "visible_gpus", lambda: ["0"])


def break_the_queue(folder, monkeypatch):
    monkeypatch.setattr(RunQueue, "take", lambda queue, worker: 1 / 0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param(
            lead_the_locks_elsewhere,
            r"dpstune-gpus-\d+ should be a folder of this user; remove it, or set TMPDIR to a place of your own",
            marks=pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows"),
        ),
        (break_the_queue, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_that_ends_every_worker_is_told_in_one_line(tiny_task, tmp_path, monkeypatch, capfd, wrong, told):
    monkeypatch.setattr(processes, "CONTEXT", multiprocessing.get_context("fork"))
    wrong(tmp_path, monkeypatch)
    asked = Sweep(SweepRequest(str(tiny_task), ("vanilla",), 1, tmp_path, overrides=("training.steps=2",)))
    outcome = asked.outcome(run_sweep(asked, workers=2))
    with pytest.raises(RunError, match=f"^1 of 1 runs are left: a worker ended with: .*{told}; then the same command"):
        outcome.refuse_what_is_missing()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_worker_that_inherits_nothing_trains_a_run(tiny_task, tmp_path):
    """Other tests fork theirs from a warm process; users' are spawned."""
    assert CONTEXT.get_start_method() == "spawn"
    short = ("training.steps=2", "training.warmup_steps=1")
    asked = SweepRequest(str(tiny_task), ("vanilla",), 1, tmp_path, overrides=short, keep_models=False)
    tally = run_sweep(Sweep(asked), workers=1)
    assert tally.failed == {}
    (ended,) = tally.done.values()
    assert (ended.run / "result.json").exists()
