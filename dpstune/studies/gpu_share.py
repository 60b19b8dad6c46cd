"""Several workers on one GPU: the first always runs, the others where what was measured says that there is room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dpstune.hardware import free_gpu_bytes, visible_gpus

MARGIN = 1.25  # over a run's measured peak: what the allocator and the libraries keep beside its tensors
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class GpuShare:
    """A worker's place on a GPU, or on a machine without one.

    Args:
        guest: Whether another worker came to this GPU first.
        left: Whether the guest has given its place up: the GPU held fewer runs than it seemed.
    """

    guest: bool = False
    left: bool = False

    def has_room(self, peaks_of_runs: Callable[[], list[int]]) -> bool:
        """Tell whether a run may start now.

        Args:
            peaks_of_runs: Returns the peak memory of each finished run, in bytes; a guest waits for the first of them.
        """
        if not self.guest:
            return True
        peaks = peaks_of_runs()
        return bool(peaks) and free_gpu_bytes() > MARGIN * max(peaks)


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
    os.environ[_VISIBLE] = gpus[number % len(gpus)]
    try:
        yield GpuShare(guest=number >= len(gpus))
    finally:
        del os.environ[_VISIBLE]
        if earlier is not None:
            os.environ[_VISIBLE] = earlier
