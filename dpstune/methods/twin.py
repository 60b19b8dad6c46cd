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
from dpstune.methods.criterion import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

_SEVERAL_LABELS = (
    "an example has several labels, where the method or the model's problem_type takes one; "
    "smart takes several where problem_type is multi_label_classification"
)

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
    features = features_of(batch)
    if not _is_large(features):
        with mark_second(len(next(iter(features.values())))):
            twice = logits_of(model, {key: torch.cat([value, value]) for key, value in features.items()})
        first, second = twice.chunk(2)
        return first, second
    first = clean_logits(model, features)
    with mark_second(0):
        second = logits_of(model, features)
    return first, second


def clean_logits(model: nn.Module, features: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of a forward pass that another one follows, before the backward pass through both.

    With a batch of more than ``TWIN_TOKENS`` it keeps no activations: see ``twin_logits``. Of a model that is wrapped
    for distributed training the inner one is called. The wrapper must see one call for each backward pass: the last.

    Args:
        model: A classifier that returns ``logits``, or what wraps it for distributed training.
        features: Its keyword arguments, without ``labels``.
    """
    inner = without_wrapper(model)
    if not _is_large(features):
        return logits_of(inner, features)

    def forgetful(*values: Tensor) -> Tensor:
        return logits_of(inner, dict(zip(features, values, strict=True)))

    logits: Tensor = checkpoint(
        forgetful,
        *features.values(),
        use_reentrant=False,
        context_fn=alike_again if CpuKernels.entered else noop_context_fn,
    )
    return logits


def features_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch without its labels."""
    return {key: value for key, value in batch.items() if key != "labels"}


def without_wrapper(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper for distributed training, or the model itself."""
    inner: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return inner


def logits_of(model: nn.Module, features: Mapping[str, Tensor]) -> Tensor:
    """Return a model's logits, [B, labels], in float32 or in the model's precision where that is higher."""
    return at_least_float32(model(**features).logits)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or in its own precision where that is higher."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _is_large(features: Mapping[str, Tensor]) -> bool:
    """Tell whether a batch has more than ``TWIN_TOKENS`` tokens, padding included."""
    return math.prod(next(iter(features.values())).shape[:2]) > TWIN_TOKENS


def is_regression(logits: Tensor) -> bool:
    """Tell whether a model with these logits predicts values: as in transformers, it then has one output."""
    return logits.shape[-1] == 1


def has_several_labels(model: nn.Module, logits: Tensor, labels: Tensor) -> bool:
    """Tell whether an example may have any number of labels: as the model's configuration says, or else the labels.

    Args:
        model: The model, wrapped or not.
        logits: [B, labels].
        labels: [B]; where an example may have several, 0 or 1 each, [B, labels].
    """
    kind = getattr(getattr(without_wrapper(model), "config", None), "problem_type", None)
    if kind is None:
        return labels.ndim > 1 and not is_regression(logits)
    return bool(kind == "multi_label_classification")


def refuse_several_labels(model: nn.Module, logits: Tensor, labels: Tensor) -> None:
    """Refuse examples that may have any number of labels; the arguments are those of ``has_several_labels``.

    Raises:
        RequestError: They may.
    """
    if has_several_labels(model, logits, labels):
        raise RequestError(_SEVERAL_LABELS)


def note_problem_type(model: nn.Module, logits: Tensor, labels: Tensor) -> None:
    """Write the kind of task into a configuration that says none, as transformers does where it computes the loss.

    Args:
        model: The model, wrapped or not.
        logits: [B, labels].
        labels: See ``has_several_labels``.
    """
    config = getattr(without_wrapper(model), "config", None)
    if config is None or getattr(config, "problem_type", "none to write") is not None:
        return
    if is_regression(logits):
        config.problem_type = "regression"
    else:
        several = has_several_labels(model, logits, labels)
        config.problem_type = "multi_label_classification" if several else "single_label_classification"


def task_loss(logits: Tensor, labels: Tensor, criterion: Criterion | None = None, *, several: bool = False) -> Tensor:
    """Return the mean loss over a batch: cross-entropy, or squared error where the model has one output.

    Args:
        logits: [B, labels], or [B, 1] for regression.
        labels: [B]: indices, or values; [B, labels] where an example may have several.
        criterion: Takes cross-entropy's place.
        several: Whether an example may have several labels; the loss is then a binary cross-entropy.

    Raises:
        RequestError: An example has several labels, and must not.
    """
    if several:
        criterion = criterion or Criterion(multilabel=True)
        return criterion(logits, labels)
    if is_regression(logits):
        return F.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
    if labels.ndim > 1:
        raise RequestError(_SEVERAL_LABELS)
    return F.cross_entropy(logits, labels) if criterion is None else criterion(logits, labels)


def symmetric_divergence(first: Tensor, second: Tensor, *, several: bool = False) -> Tensor:
    """Return KL(first, second) + KL(second, first), summed over classes and averaged over the batch.

    For regression, return the mean squared difference of the two outputs.

    Args:
        first: Logits, [B, labels].
        second: Logits, [B, labels].
        several: Whether an example may have several labels; each is then compared by itself, as a yes or no, and the
            mean over labels is taken, as in the loss.

    >>> a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> round(symmetric_divergence(a, b).item(), 4)
    0.2311
    """
    if several:
        return ((first.sigmoid() - second.sigmoid()) * (first - second)).mean()  # as below, of two classes
    if is_regression(first):
        return F.mse_loss(first, second)
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    # KL(P, Q) + KL(Q, P) = sum over classes of (P - Q) * (log P - log Q)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()
