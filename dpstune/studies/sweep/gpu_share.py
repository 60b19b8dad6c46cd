"""Several workers on one GPU: the first always runs, the others where what was measured says that there is room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dpstune.common.progress import SilentProgress
from dpstune.device.hardware import free_gpu_bytes, give_gpu_memory_back, gpu_identity, visible_gpus

MARGIN = 1.25  # over a run's measured peak: what the allocator and the libraries keep beside its tensors
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.5


@dataclass
class GpuShare:
    """A worker's place on a GPU, or on a machine without one.

    Who takes memory does so in turn: a worker looks whether there is room, and starts its run, while it holds its GPU's
    lock, and lets go of it when the first steps are done and their memory is taken. The locks lie in a folder of this
    user's on this machine, so that workers of several sweeps see each other.

    No run goes back for ever. A guest that runs out of memory takes no other run, so that guests become fewer; a first
    worker, once it ran out of memory beside others, starts where there is room as measured, or alone.

    Args:
        gpu: The GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None on a machine without one.
        guest: Whether another worker came to this GPU first.
        left: Whether the guest has given its place up: the GPU held fewer runs than it seemed.
        careful: Whether a first worker ran out of memory beside others, and now looks for room as guests do.
    """

    gpu: str | None = None
    guest: bool = False
    left: bool = False
    careful: bool = False

    def has_room(self, peaks_of_runs: Callable[[], list[int]]) -> bool:
        """Tell whether a run may start now.

        Args:
            peaks_of_runs: Returns the peak memory of each finished run, in bytes; a guest waits for the first of them.
        """
        if not self.guest and (not self.careful or self.alone()):
            return True
        peaks = peaks_of_runs()
        return bool(peaks) and free_gpu_bytes() > MARGIN * max(peaks)

    @contextmanager
    def turn(self, ended: Callable[[], bool]) -> Iterator[Turn | None]:
        """Wait for this GPU's lock, and hold it inside the block, or until the turn is ended; on a CPU nobody waits.

        Yields None where ``ended`` came true first.
        """
        if self.gpu is None:
            yield Turn(None)
            return
        lock = FileLock(self._folder() / "turn.lock")
        while not ended():
            with suppress(Timeout):
                lock.acquire(timeout=_POLL_SECONDS)
                break
        else:
            yield None
            return
        try:
            yield Turn(lock)
        finally:
            lock.release()

    @contextmanager
    def present(self) -> Iterator[None]:
        """Be seen by the GPU's other workers inside the block: a run of this process is there."""
        if self.gpu is None:
            yield
            return
        place = self._own_place()
        try:
            with FileLock(place):
                try:
                    yield
                finally:
                    give_gpu_memory_back()  # while others still see who has it
        finally:
            place.unlink(missing_ok=True)

    def alone(self) -> bool:
        """Tell whether no other worker of this user has a run on this GPU now; one that was killed has none."""
        if self.gpu is None:
            return True
        others = [place for place in self._folder().glob("run-*.lock") if place != self._own_place()]
        return not any(_is_held(place) for place in others)

    def out_of_memory(self) -> bool:
        """Note that a run of this worker ran out of memory; tell whether others, who were there, may be the cause."""
        if self.alone():
            return False
        self.left = self.guest
        self.careful = True
        return True

    def _folder(self) -> Path:
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        folder = Path(tempfile.gettempdir()) / f"dpstune-gpus-{user}" / gpu_identity(str(self.gpu)).replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def _own_place(self) -> Path:
        return self._folder() / f"run-{os.getpid()}.lock"


class Turn(SilentProgress):
    """A worker's turn to take memory: it ends with the first steps of a run that tells it how it goes.

    Args:
        lock: What is held meanwhile.
    """

    def __init__(self, lock: FileLock | None) -> None:
        self._lock = lock

    def step(self, step: int, loss: float, rate: float) -> None:
        """End the turn: losses were read, so that steps were done."""
        if self._lock is not None:
            self._lock.release()


def _is_held(place: Path) -> bool:
    try:
        with FileLock(place, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def gpu_in_turn(number: int) -> Iterator[GpuShare]:
    """Have a process that is started meanwhile, worker ``number`` of its machine, see the next GPU in turn alone.

    It is said in the environment the process starts with: after the driver has looked, it does not look again.
    """
    gpus = visible_gpus()
    if not gpus:
        yield GpuShare()
        return
    earlier = os.environ.get(_VISIBLE)
    gpu = os.environ[_VISIBLE] = gpus[number % len(gpus)]
    try:
        yield GpuShare(gpu, guest=number >= len(gpus))
    finally:
        del os.environ[_VISIBLE]
        if earlier is not None:
            os.environ[_VISIBLE] = earlier
