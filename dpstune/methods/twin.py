"""Two forward passes of one micro-batch, for a large one in the memory of one pass, and what compares their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint, noop_context_fn

from dpstune.device.cpu_kernels import CpuKernels, alike_again
from dpstune.errors import RequestError
from dpstune.methods.base import TWIN_TOKENS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dpstune.methods.criterion import Criterion

MarkSecond = Callable[[int], AbstractContextManager[None]]
"""``mark_second(row)`` returns a context; in it, the examples from ``row`` on are those of the second forward pass."""


def twin_logits(
    model: nn.Module, batch: Mapping[str, Tensor], mark_second: MarkSecond = lambda row: nullcontext()
) -> tuple[Tensor, Tensor]:
    """Return the logits of two forward passes of a batch, [B, labels] each, with dropout drawn for each.

    They are in float32, or in the model's precision where that is higher.

    A batch of up to ``TWIN_TOKENS`` is computed once at twice its size: one kernel launch instead of two. With a larger
    batch the first forward pass keeps no activations. The backward pass goes through the second forward pass first and
    frees what it kept; then it computes the first again, with the same dropout. This takes the memory of one forward
    pass, and the time of one more.

    Args:
        model: A classifier that returns ``logits``, or what wraps it for distributed training.
        batch: Its keyword arguments; ``labels`` are left out of the call.
        mark_second: Its context is entered around every call of the model with examples of the second forward pass.
    """
    features = {key: value for key, value in batch.items() if key != "labels"}
    shape = next(iter(features.values())).shape
    if math.prod(shape[:2]) <= TWIN_TOKENS:
        with mark_second(shape[0]):
            twice = model(**{key: torch.cat([value, value]) for key, value in features.items()}).logits
        first, second = _at_least_float32(twice).chunk(2)
        return first, second
    # The backward pass calls it again, and must not call a wrapper for distributed training.
    inner = model.module if isinstance(model, DistributedDataParallel) else model

    def forgetful(*values: Tensor) -> Tensor:
        logits: Tensor = inner(**dict(zip(features, values, strict=True))).logits
        return logits

    first = checkpoint(
        forgetful,
        *features.values(),
        use_reentrant=False,
        context_fn=alike_again if CpuKernels.entered else noop_context_fn,
    )
    with mark_second(0):
        second = model(**features).logits
    return _at_least_float32(first), _at_least_float32(second)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def is_regression(logits: Tensor) -> bool:
    """Tell whether a model with these logits predicts values: as in transformers, it then has one output."""
    return logits.shape[-1] == 1


def task_loss(logits: Tensor, labels: Tensor, criterion: Criterion | None = None) -> Tensor:
    """Return the mean loss over a batch: cross-entropy, or squared error where the model has one output.

    Args:
        logits: [B, labels], or [B, 1] for regression.
        labels: [B]: indices, or values.
        criterion: Takes cross-entropy's place.

    Raises:
        RequestError: An example has several labels.
    """
    if is_regression(logits):
        return F.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
    if labels.ndim > 1:
        raise RequestError("r3f and r-drop compare one label an example; several at a time have another loss")
    return F.cross_entropy(logits, labels) if criterion is None else criterion(logits, labels)


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(first, second) + KL(second, first), summed over classes and averaged over the batch.

    For regression, return the mean squared difference of the two outputs.

    Args:
        first: Logits, [B, labels].
        second: Logits, [B, labels].

    >>> a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> round(symmetric_divergence(a, b).item(), 4)
    0.2311
    """
    if is_regression(first):
        return F.mse_loss(first, second)
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    # KL(P, Q) + KL(Q, P) = sum over classes of (P - Q) * (log P - log Q)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()
