"""Two passes over one micro-batch as a single pass over 2B examples, and what compares their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn


def twin_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the float32 logits of two passes over a batch, [B, labels] each.

    The batch is computed once at twice its size: the same outputs as two passes, with dropout drawn for each, one
    kernel launch in the place of two, and one forward pass for distributed training to follow.

    Args:
        model: A classifier that returns ``logits``.
        batch: Its keyword arguments; ``labels`` are left out of the call.
    """
    twice = {key: torch.cat([value, value]) for key, value in batch.items() if key != "labels"}
    first, second = model(**twice).logits.float().chunk(2)
    return first, second


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss over a batch: cross-entropy, or squared error where labels are floating point.

    Args:
        logits: [B, labels], or [B, 1] for regression.
        labels: [B], int64 or floating point.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1), labels.float())
    return F.cross_entropy(logits, labels)


def symmetric_divergence(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Return KL(first, second) + KL(second, first), summed over classes and averaged over the batch.

    For regression (floating-point labels): the mean squared difference of the two outputs.

    Args:
        first: Logits, [B, labels].
        second: Logits, [B, labels].
        labels: The batch's labels; only their type counts.

    >>> a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> round(symmetric_divergence(a, b, torch.tensor([0])).item(), 4)
    0.2311
    """
    if labels.is_floating_point():
        return F.mse_loss(first, second)
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    # KL(P, Q) + KL(Q, P) = sum over classes of (P - Q) * (log P - log Q)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()
