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
    from accelerate.state import AcceleratorState, GradientState

    from dpstune.device.determinism import kernels_for_the_same_bits

    shared = (AcceleratorState._shared_state, GradientState._shared_state)
    found = [dict(each) for each in shared]
    had_a_gpu = torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if had_a_gpu else []
    try:
        with torch.random.fork_rng(devices=devices), kernels_for_the_same_bits(None):
            yield
    finally:
        for state, before in zip(shared, found, strict=True):
            state.clear()  # the dictionary itself is what an Accelerator of the user's own looks into
            state.update(before)
        if torch.cuda.is_initialized() and not had_a_gpu:
            torch.cuda.manual_seed_all(torch.initial_seed())  # as torch would have begun there
