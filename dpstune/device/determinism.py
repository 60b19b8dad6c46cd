"""The same bits from the same recipe on a GPU: which kernels may run there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dpstune.common.hub import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

STRICT, WARN_ONLY = "strict", "warn_only"
_REFUSAL = "deterministic"  # each of torch's messages has this word where strict mode refuses an operation


def fix_workspaces() -> None:
    """Have cuBLAS work in buffers of fixed size; to be called before any call to CUDA, since cuBLAS reads it once."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def ask_for_the_same_bits(how: str = STRICT) -> None:
    """Have torch run only deterministic kernels, and raise where an operation has none.

    If torch only warns, the backward pass of fused attention keeps its default kernels, which add up in an order that
    changes (PyTorch's ``attention_backward.cu`` reads that flag). New tensors are not filled: only programs that read
    uninitialized memory need that, and it costs one kernel per tensor.

    Args:
        how: ``strict``, or what ``settle`` returned; for anything but ``strict`` torch only warns.
    """
    import torch

    torch.use_deterministic_algorithms(True, warn_only=how != STRICT)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def kernels_for_the_same_bits(how: str | None) -> Iterator[None]:
    """Inside the block, ask for the kernels that a run recorded (see ``settle``); None changes nothing."""
    import torch

    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if how is not None:
        ask_for_the_same_bits(how)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def settle(model: nn.Module, new_loss: Callable[[], torch.Tensor]) -> str:
    """Try a forward and a backward pass; if strict mode refuses an operation of the model, let torch only warn.

    The model is left as it was: no gradients, the same buffers.

    Args:
        model: The model, not wrapped.
        new_loss: Returns the loss of a batch.

    Returns:
        ``strict``, or ``warn_only: `` and what torch said: two runs of this recipe may then differ in their last bits.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        new_loss().backward()
    except RuntimeError as error:
        if _REFUSAL not in str(error):
            raise
        ask_for_the_same_bits(WARN_ONLY)
        return f"{WARN_ONLY}: {first_line(error)}"
    finally:
        model.zero_grad()
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return STRICT
