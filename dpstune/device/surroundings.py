"""What a run changes in its process for others too, and how that is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def surroundings_kept() -> Iterator[None]:
    """Put back, after the block, torch's random numbers and deterministic kernels, and accelerate's state.

    A run seeds torch, asks for deterministic kernels on a GPU, and sets accelerate up for its own precision. The next
    cell of a notebook goes on as if nothing had been trained.

    >>> import torch
    >>> _ = torch.manual_seed(1)
    >>> with surroundings_kept():
    ...     _ = torch.manual_seed(2)
    >>> torch.initial_seed()
    1
    """
    import torch
    from accelerate.state import AcceleratorState

    from dpstune.device.determinism import kernels_for_the_same_bits

    shared = AcceleratorState._shared_state
    found = dict(shared)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)), kernels_for_the_same_bits(None):
            yield
    finally:
        shared.clear()  # the dictionary itself is what an Accelerator of the user's own looks into
        shared.update(found)
