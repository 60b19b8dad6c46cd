"""Workers that share a GPU, with real locks, processes and queue; the GPU's memory alone is a number they share."""

import multiprocessing
import os
import signal
import tempfile
import time
from ctypes import c_bool
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock, Timeout

from dpstune.common.interruption import Interrupted
from dpstune.errors import RunError
from dpstune.studies import gpu_share, processes
from dpstune.studies.gpu_share import GpuShare
from dpstune.studies.sweep import workers
from dpstune.studies.sweep.queue import Job, RunQueue
from dpstune.training import engine

FORK = multiprocessing.get_context("fork")
JOBS = [Job("mixout", (), seed) for seed in range(8)]
HELD, MEMORY = 60, 100  # what a run takes of the GPU's memory


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The locks' folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows")
def test_a_link_in_the_place_of_the_locks_folder_is_not_followed(folder):
    (folder / "elsewhere").mkdir()
    (folder / f"dpstune-gpus-{os.getuid()}").symlink_to(folder / "elsewhere")
    with (
        pytest.raises(RunError, match="should be a folder of this user; remove it, or set TMPDIR"),
        GpuShare("0").present(),
    ):
        pass
    assert not [*(folder / "elsewhere").iterdir()]


def in_process(target, *arguments):
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def hold_turn(share, held, release):
    with share.turn(lambda: False):
        held.set()
        release.wait(60)


def be_present(share, there, leave):
    with share.present():
        there.set()
        leave.wait(60)


def test_a_turn_lasts_until_the_first_steps_are_done_and_no_longer():
    share, other = GpuShare("0"), GpuShare("0", guest=True)
    with share.turn(lambda: False) as turn:
        deadline = time.monotonic() + 0.6
        with other.turn(lambda: time.monotonic() > deadline) as refused:
            assert refused is None
        turn.step(1, 0.5, 1e-5)
        with other.turn(lambda: False) as granted:
            assert granted is not None
    with GpuShare("1").turn(lambda: False), share.turn(lambda: False) as granted:
        assert granted is not None, "another GPU has a turn of its own"


def test_who_waits_for_a_turn_hears_that_it_is_to_end():
    held, release = FORK.Event(), FORK.Event()
    holder = in_process(hold_turn, GpuShare("0"), held, release)
    assert held.wait(60)
    asked = []
    with GpuShare("0").turn(lambda: asked.append(1) or len(asked) > 2) as turn:
        assert turn is None
    release.set()
    holder.join()


def test_the_turn_of_a_worker_that_was_killed_is_free():
    held, release = FORK.Event(), FORK.Event()
    holder = in_process(hold_turn, GpuShare("0"), held, release)
    assert held.wait(60)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with GpuShare("0").turn(lambda: False) as turn:
        assert turn is not None


@pytest.mark.parametrize("killed", [False, True])
def test_a_worker_sees_whether_others_have_runs_on_its_gpu(killed):
    share = GpuShare("0")
    there, leave = FORK.Event(), FORK.Event()
    other = in_process(be_present, GpuShare("0", guest=True), there, leave)
    assert there.wait(60)
    with share.present():
        assert not share.alone()
        assert GpuShare("1").alone()
        os.kill(other.pid, signal.SIGKILL) if killed else leave.set()
        other.join()
        assert share.alone()
    assert share.alone()


def test_a_run_is_seen_until_its_memory_is_given_back(folder, monkeypatch):
    seen = []

    def give_back():
        (place,) = folder.glob("*/*/run-*.lock")
        with pytest.raises(Timeout), FileLock(place, timeout=0):
            seen.append("free")
        seen.append("held")

    monkeypatch.setattr(gpu_share, "give_gpu_memory_back", give_back)
    with GpuShare("0").present():
        pass
    assert seen == ["held"]
    assert GpuShare("0").alone()


def test_a_machine_without_a_gpu_has_no_locks(folder):
    share = GpuShare()
    with share.turn(lambda: False) as turn, share.present():
        turn.step(1, 0.5, 1e-5)
        assert share.alone()
    assert list(folder.iterdir()) == []


def take_memory(taken):
    """Stand in for ``engine.train``: take memory in two steps, work, and give it back; or find that there is none."""

    def train(loaded, *, progress, **settings):
        mine = 0
        try:
            for part in (HELD // 2, HELD - HELD // 2):
                time.sleep(0.01)
                with taken.get_lock():
                    if taken.value + part > MEMORY:
                        raise torch.OutOfMemoryError("CUDA out of memory")
                    taken.value += part
                mine += part
            progress.step(1, 0.5, 1e-5)
            time.sleep(0.02)
        finally:
            with taken.get_lock():
                taken.value -= mine
        return SimpleNamespace(result={"value": 0.5}, folder=Path("run"))

    return train


def work(url, number, share, taken, sees):
    """The life of a worker on a GPU whose free memory it sees, or wrongly believes in."""
    engine.train = take_memory(taken)
    gpu_share.free_gpu_bytes = lambda: MEMORY - taken.value if sees else 10 * MEMORY

    class Sweep:
        inputs = None
        is_anew = staticmethod(lambda job: False)
        peaks = staticmethod(lambda: [HELD])
        open_queue = staticmethod(lambda: RunQueue(url, "study"))
        train = workers.Sweep.train

        def __init__(self, request):
            self.request = SimpleNamespace(load=lambda job: job, output=Path(), keep_models=True)

    workers.Sweep = Sweep
    processes._end_with_the_parent = lambda: None
    workers.wait_a_moment = lambda: time.sleep(0.01)
    workers._work(None, c_bool(False), multiprocessing.Pipe()[1], number, 3, share)


def run_all(tmp_path, sees, jobs=JOBS, workers_on_it=3, others=0):
    """Train jobs by a first worker and guests on one GPU; ``others`` is what programs beside them hold."""
    url = f"sqlite:///{tmp_path}/study.db"
    RunQueue(url, "study").add(jobs)
    taken = FORK.Value("i", others)
    processes = [
        in_process(work, url, number, GpuShare("0", guest=number > 0), taken, sees) for number in range(workers_on_it)
    ]
    for process in processes:
        process.join(120)
    assert not any(process.is_alive() for process in processes)
    return RunQueue(url, "study").tally()


@pytest.mark.slow
def test_where_runs_are_seen_to_fit_one_by_one_none_is_lost(tmp_path):
    tally = run_all(tmp_path, sees=True)
    assert (len(tally.done), tally.failed, tally.waiting, tally.running) == (len(JOBS), {}, 0, 0)


@pytest.mark.slow
def test_where_guests_throw_the_first_worker_out_every_run_is_trained_in_the_end(tmp_path):
    """The driver tells of room that is not there: all start, and run out of memory beside each other."""
    tally = run_all(tmp_path, sees=False)
    assert (len(tally.done), tally.failed, tally.waiting, tally.running) == (len(JOBS), {}, 0, 0)


def test_a_run_too_large_for_the_gpu_alone_fails_and_says_what_helps(tmp_path):
    tally = run_all(tmp_path, sees=False, jobs=JOBS[:1], workers_on_it=1, others=MEMORY - HELD // 2)
    (error,) = tally.failed.values()
    assert error.startswith("out of memory with no other run of a sweep on the GPU; try a smaller training.batch_size")


def test_a_run_that_is_told_to_end_before_training_notes_signals_ends_there():
    with GpuShare().turn(ended=lambda: True) as turn, pytest.raises(Interrupted, match="before the run began"):
        turn.start(10, 0)
