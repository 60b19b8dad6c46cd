"""The worker processes of one machine: how each is started, and what it does first.

Python's process pools break when one process is killed; here another can be started in its place.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from dpstune.device.limits import cores
from dpstune.studies.gpu_share import gpu_in_turn

CONTEXT = multiprocessing.get_context("spawn")  # a fork of a process that has used a GPU cannot use it
CRASHED = 1
_TERMINATED = 128 + signal.SIGTERM
_HELD = {signal.SIGINT, signal.SIGTERM}


class Processes:
    """This machine's worker processes, by their numbers.

    Args:
        life: What each of them does: called with what it is started with, its number, how many there are, and its place
            on a GPU.
        count: How many there are at most.
    """

    def __init__(self, life: Callable[..., None], count: int) -> None:
        self._life, self.count = life, count
        self._processes: dict[int, BaseProcess] = {}

    def begin(self, number: int, *arguments: Any) -> None:
        """Start a process as worker ``number``, in the place of an earlier one."""
        with gpu_in_turn(number) as share:
            process = CONTEXT.Process(target=self._life, args=(*arguments, number, self.count, share))
            self._processes[number] = process  # before it starts, so that stop() knows it in any case
            with _signals_held():
                process.start()

    @property
    def alive(self) -> bool:
        """Whether any worker is alive."""
        return any(process.is_alive() for process in self._processes.values())

    def dead(self) -> list[int]:
        """Return the numbers of the workers that were killed or crashed."""
        codes = {number: process.exitcode for number, process in self._processes.items()}
        return [
            number
            for number, code in codes.items()
            if code is not None and (code < 0 or code in (CRASHED, _TERMINATED))
        ]

    def stop(self) -> None:
        """Make each worker save a checkpoint and end."""
        for process in self._processes.values():
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)

    def join(self) -> None:
        """Wait until all workers have ended."""
        for process in self._processes.values():
            if process.pid is not None:
                process.join()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back, also in a process that is started in the block, until its ``begin_life``.

    Ctrl-C reaches all processes of a terminal: while a worker imports it would print a traceback. And a fork would lose
    SIGTERM to the handler that it has from its parent.
    """
    if CONTEXT.get_start_method() == "spawn":  # its tracker would start with the first worker, and let signals through
        resource_tracker.ensure_running()
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def begin_life(workers: int) -> list[int]:
    """Do what a worker process does first.

    It notes SIGTERM and ignores SIGINT, writes to stderr alone, ends with its parent, and takes its share of the cores.

    Args:
        workers: How many workers share this machine.

    Returns:
        A list to which a signal's number is added when it comes; during a run, training handles the signal itself.
    """
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process tells it to end
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    import torch

    sys.stdout = sys.stderr
    _end_with_the_parent()
    torch.set_num_threads(_threads_each(workers))
    return stopping


def _end_with_the_parent() -> None:
    """Save and end if the process that started this one is killed: no other process would stop this worker."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def threads_of_a_worker(workers: int) -> Iterator[None]:
    """Compute, while the block runs, with as many threads as each of some workers has."""
    import torch

    earlier = torch.get_num_threads()
    torch.set_num_threads(_threads_each(workers))
    try:
        yield
    finally:
        torch.set_num_threads(earlier)


def _threads_each(workers: int) -> int:
    import torch

    return max(1, torch.get_num_threads() // workers)


def at_once(workers: int) -> int:
    """Return how many of some workers compute at the same time: one on each GPU, or without one, on each core."""
    from dpstune.device.hardware import visible_gpus

    return min(workers, len(visible_gpus()) or cores())
