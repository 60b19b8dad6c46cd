"""Several workers on one GPU: the first always runs, the others if finished runs show that there is room."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dpstune.common.interruption import Interrupted
from dpstune.common.private import make_private_folder
from dpstune.common.progress import SilentProgress
from dpstune.device.hardware import free_gpu_bytes, give_gpu_memory_back, gpu_identity, visible_gpus

MARGIN = 1.25  # times a run's measured peak: the allocator and the libraries keep more than its tensors
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.5


@dataclass
class GpuShare:
    """A worker's place on a GPU, or on a machine without one.

    Workers take memory in turn: a worker takes its GPU's lock, checks that there is room, and starts its run. It
    releases the lock when the first steps are done, which have taken the run's memory. The locks lie in one folder of
    this user on this machine, so that workers of several sweeps see each other.

    No run is put back into the queue for ever. A guest that runs out of memory takes no other run, so that guests
    become fewer. A first worker that has run out of memory beside others starts a run only where there is room, as for
    a guest, or alone.

    Args:
        gpu: The GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None on a machine without one.
        guest: Whether another worker of this sweep has this GPU first.
        left: Whether the guest has given up its place, since the GPU has room for fewer runs than expected.
        careful: Whether a first worker has run out of memory beside others, and now checks for room as guests do.
    """

    gpu: str | None = None
    guest: bool = False
    left: bool = False
    careful: bool = False

    def has_room(self, peaks_of_runs: Callable[[], list[int]]) -> bool:
        """Tell whether a run may start now.

        Args:
            peaks_of_runs: Returns the peak memory of each finished run, in bytes; a guest waits until there is one.
        """
        if not self.guest and (not self.careful or self.alone()):
            return True
        peaks = peaks_of_runs()
        return bool(peaks) and free_gpu_bytes() > MARGIN * max(peaks)

    @contextmanager
    def turn(self, ended: Callable[[], bool]) -> Iterator[Turn | None]:
        """Wait for this GPU's lock and hold it until the block or the turn ends; without a GPU do not wait.

        Args:
            ended: Asked while waiting; if it returns true, the block gets None and no lock.
        """
        if self.gpu is None:
            yield Turn(None, ended)
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
            yield Turn(lock, ended)
        finally:
            lock.release()

    @contextmanager
    def present(self) -> Iterator[None]:
        """Show the GPU's other workers, while the block runs, that this process has a run there."""
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
        """Tell whether no other worker of this user has a run on this GPU now; a killed worker has none."""
        if self.gpu is None:
            return True
        others = [place for place in self._folder().glob("run-*.lock") if place != self._own_place()]
        return not any(_is_held(place) for place in others)

    def out_of_memory(self) -> bool:
        """Note that this worker's run is out of memory; tell whether other runs on the GPU may be the cause."""
        if self.alone():
            return False
        self.left = self.guest
        self.careful = True
        return True

    def _folder(self) -> Path:
        user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        own = Path(tempfile.gettempdir()) / f"dpstune-gpus-{user}"
        make_private_folder(own, "set TMPDIR to a place of your own")
        folder = own / gpu_identity(str(self.gpu)).replace("/", "-")
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def _own_place(self) -> Path:
        return self._folder() / f"run-{os.getpid()}.lock"


class Turn(SilentProgress):
    """A worker's turn to take memory: as a run's progress it learns of the first steps, and ends with them.

    Args:
        lock: Held during the turn; None without a GPU.
        ended: Asked as the run begins; if it returns true, the run ends there.
    """

    def __init__(self, lock: FileLock | None, ended: Callable[[], bool]) -> None:
        self._lock, self._ended = lock, ended

    def start(self, total_steps: int, done_steps: int) -> None:
        """End the run where a signal came before training began to note signals itself."""
        if self._ended():
            raise Interrupted(signal.SIGTERM, "interrupted before the run began")

    def step(self, step: int, loss: float, rate: float) -> None:
        """End the turn: a loss was read, so steps are done."""
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
    """Let a process that is started in the block, worker ``number`` of this machine, see only one GPU, each in turn.

    The environment that the process starts with says so: the driver reads it only once.
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
