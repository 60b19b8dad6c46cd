"""Worker processes: how each is started, and what it does first."""

import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch

from dpstune.studies import processes
from dpstune.studies.processes import Processes, at_once, begin_life, threads_of_a_worker


@pytest.fixture
def forked(monkeypatch):
    monkeypatch.setattr(processes, "CONTEXT", multiprocessing.get_context("fork"))


@pytest.fixture
def four_threads():
    earlier = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(earlier)


def live(folder, number, workers, share):
    stopping = begin_life(workers)
    (folder / f"{number}").write_text(str(torch.get_num_threads()))
    while number == 1 and not stopping:
        time.sleep(0.01)
    raise SystemExit(128 + stopping[0] if stopping else 0)


def test_workers_share_the_threads_and_end_when_they_are_told_to(forked, four_threads, tmp_path):
    workers = Processes(live, 2)
    for number in (0, 1):
        workers.begin(number, tmp_path)
    while not (tmp_path / "1").exists():
        time.sleep(0.01)
    assert workers.alive
    workers.stop()
    workers.join()
    assert not workers.alive
    while not (tmp_path / "0").exists():
        time.sleep(0.01)
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "2"
    assert 1 in workers.dead(), "it did not end by itself"


def begin_late(folder, number, workers, share):
    (folder / "started").touch()
    time.sleep(0.2)
    (folder / "noted").write_text(str(begin_life(workers)))


def test_a_worker_that_is_told_to_end_before_it_began_notes_it(forked, tmp_path):
    """The signal is not lost to the handler that a fork has from its parent."""
    earlier = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        workers = Processes(begin_late, 1)
        workers.begin(0, tmp_path)
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        workers.stop()
        workers.join()
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert (tmp_path / "noted").read_text() == str([int(signal.SIGTERM)])


def test_a_worker_may_be_started_from_another_thread(forked, tmp_path):
    masks = []

    def begin():
        workers = Processes(begin_late, 1)
        workers.begin(0, tmp_path)
        workers.join()
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert (tmp_path / "noted").read_text() == "[]"
    assert signal.SIGTERM not in masks[0]


def be_killed(number, workers, share):
    os.kill(os.getpid(), signal.SIGKILL if number else signal.SIGINT)


def test_who_was_killed_is_known_and_an_interrupt_is_ignored(forked):
    workers = Processes(be_killed, 2)
    for number in (0, 1):
        workers.begin(number)
    workers.join()
    assert workers.dead() == [1]


def test_what_is_timed_for_workers_has_their_threads(four_threads):
    with threads_of_a_worker(3):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("gpus", "workers", "count"), [([], 1, 1), (["0"], 3, 1), (["0", "1"], 8, 2), ([], 8, 4)])
def test_no_more_compute_at_once_than_there_are_gpus_or_else_cores(monkeypatch, gpus, workers, count):
    monkeypatch.setattr("dpstune.device.hardware.visible_gpus", lambda: gpus)
    monkeypatch.setattr(processes, "cores", lambda: 4)
    assert at_once(workers) == count
