"""A classifier's output layer solved on the features that a pre-trained model gives it: a linear probe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import distributed

from dpstune.methods.base import StepBatches
from dpstune.methods.criterion import Criterion
from dpstune.models.structure import output_layer

if TYPE_CHECKING:
    from torch import Tensor, nn

_ITERATIONS = 1000
_TOLERANCE = 1e-7  # of the largest element of the gradient, in the units of a mean loss


def solve_output_layer(
    model: nn.Module, steps: Iterable[StepBatches], *, l2: float, criterion: Criterion | None = None
) -> None:
    """Give a classifier's output layer the weights that fit the training data best; nothing else changes.

    The rest of the model computes the layer's inputs, without dropout; see ``solve`` for the problem. In a distributed
    run every rank sees the features of all, and finds the same weights.

    Args:
        model: A classifier, not wrapped.
        steps: One epoch of the training data; see ``Method.prepare``.
        l2: Strength of the penalty.
        criterion: The task's loss; None for the model's own.

    Raises:
        RequestError: The model has no linear output layer.
    """
    layer = output_layer(model)
    features, labels = _features(model, layer, steps)
    if distributed.is_initialized():  # every rank saw other examples; all solve one problem
        shares: list[tuple[Tensor, Tensor]] = [(features, labels)] * distributed.get_world_size()
        distributed.all_gather_object(shares, (features, labels))
        features, labels = (torch.cat(parts) for parts in zip(*shares, strict=True))
    weight, bias = solve(
        features, labels, layer.out_features, l2=l2, criterion=criterion, has_bias=layer.bias is not None
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)


def _features(model: nn.Module, layer: nn.Linear, steps: Iterable[StepBatches]) -> tuple[Tensor, Tensor]:
    """Return the output layer's inputs, [examples, in_features] in float64 on the CPU, and the labels."""
    seen: list[Tensor] = []
    labels: list[Tensor] = []
    was_training = model.training
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double().cpu()))
    model.eval()
    try:
        with torch.no_grad():
            for step in steps:
                for batch, _ in step:
                    model(**{key: value for key, value in batch.items() if key != "labels"})
                    labels.append(batch["labels"].cpu())
    finally:
        model.train(was_training)
        handle.remove()
    return torch.cat(seen), torch.cat(labels)


def solve(
    features: Tensor,
    labels: Tensor,
    outputs: int,
    *,
    l2: float,
    criterion: Criterion | None = None,
    has_bias: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the weight W and the bias b that minimise sum of losses + l2 / 2 * |W|^2, in float64.

    Each feature is first scaled to mean 0 and variance 1, so that one ``l2`` suits all models; W and b are then put in
    terms of the features as they were. The problem is convex, so the start and the seed do not matter. Without a bias
    nothing is moved to mean 0.

    Args:
        features: [n, in_features], float64.
        labels: [n] indices or values, or [n, outputs] zeros and ones.
        outputs: Labels of the task; 1 for values.
        l2: Strength of the penalty, above 0.
        criterion: The loss; None for cross-entropy, or squared error where there is one output.
        has_bias: Whether there is a bias.

    Returns:
        W, [outputs, in_features], and b, [outputs].

    >>> x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    >>> W, b = solve(x, torch.tensor([0, 1]), 2, l2=1.0)
    >>> [round(value, 4) for value in W.flatten().tolist()], b.abs().max().item() < 1e-6
    ([-0.5213, 0.5213], True)
    """
    count = len(features)
    center = features.mean(0) if has_bias else torch.zeros_like(features[0])
    scale = (features - center).square().mean(0).sqrt()
    scale[scale < 1e-8] = 1.0  # a feature that is always the same says nothing
    x = (features - center) / scale
    weight = torch.zeros(outputs, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(outputs, dtype=x.dtype, requires_grad=has_bias)
    optimizer = torch.optim.LBFGS(
        [weight, bias] if has_bias else [weight],
        max_iter=_ITERATIONS,
        tolerance_grad=_TOLERANCE,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = _mean_loss(x @ weight.T + bias, labels, criterion) + l2 / (2 * count) * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    found = weight.detach() / scale
    return found, bias.detach() - found @ center


def _mean_loss(logits: Tensor, labels: Tensor, criterion: Criterion | None) -> Tensor:
    if logits.shape[-1] == 1 and labels.ndim == 1:
        return F.mse_loss(logits.flatten(), labels.to(logits))
    return (criterion or Criterion(multilabel=labels.ndim > 1))(logits, labels)
