"""A classifier's output layer solved on the features that a pre-trained model gives it: a linear probe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import distributed

from dpstune.errors import RequestError
from dpstune.methods.base import StepBatches
from dpstune.methods.criterion import Criterion
from dpstune.models.structure import output_layer

if TYPE_CHECKING:
    from torch import Tensor, nn

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""Takes logits, [n, outputs], and labels; returns the mean loss, 0-d."""

_ITERATIONS = 1000
_TOLERANCE = 1e-7  # of the largest element of the gradient, in the units of a mean loss


def solve_output_layer(
    model: nn.Module, steps: Iterable[StepBatches], *, l2: float, criterion: Criterion | None = None
) -> None:
    """Give a classifier's output layer the weights that fit the training data best; nothing else changes.

    The rest of the model computes the layer's inputs, without dropout; see ``solve`` for the problem. Solving takes 16
    bytes a feature and example, on the host; in a distributed run on that of the first rank, which tells the others
    what it finds.

    Args:
        model: A classifier, not wrapped.
        steps: One epoch of the training data; see ``Method.prepare``.
        l2: Strength of the penalty.
        criterion: The task's loss; None for the model's own.

    Raises:
        RequestError: The model has no linear output layer that sees one vector an example.
    """
    layer = output_layer(model)

    def solve_for(shares: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        shares = [share for share in shares if len(share[0])]  # a rank may have had no step
        if not shares:
            return None
        features, labels = (torch.cat(parts) for parts in zip(*shares, strict=True))
        loss = _model_loss(model, labels) if criterion is None else criterion
        return solve(features, labels, layer.out_features, l2=l2, loss=loss, has_bias=layer.bias is not None)

    own = _features(model, layer, steps)
    found = _solved_by_the_first_rank(own, solve_for) if distributed.is_initialized() else solve_for([own])
    if found is None:
        return
    with torch.no_grad():
        layer.weight.copy_(found[0])
        if layer.bias is not None:
            layer.bias.copy_(found[1])


def _solved_by_the_first_rank(
    own: tuple[Tensor, Tensor], solve_for: Callable[[list[tuple[Tensor, Tensor]]], tuple[Tensor, Tensor] | None]
) -> tuple[Tensor, Tensor] | None:
    """Gather what every rank saw on the first one, which solves it; return what it found, on every rank."""
    hosts = distributed.new_group(backend="gloo")  # NCCL would gather through a GPU's memory
    try:
        first = distributed.get_rank() == 0
        shares: list[Any] | None = [None] * distributed.get_world_size() if first else None
        distributed.gather_object(own, shares, dst=0, group=hosts)
        found = [solve_for(shares) if shares is not None else None]
        distributed.broadcast_object_list(found, src=0, group=hosts)
        return found[0]
    finally:
        distributed.destroy_process_group(hosts)


def _features(model: nn.Module, layer: nn.Linear, steps: Iterable[StepBatches]) -> tuple[Tensor, Tensor]:
    """Return the output layer's inputs, [examples, in_features] in float32 on the CPU, and the labels."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    labels: list[Tensor] = []

    def see(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.append(given[0].float().cpu())
        outputs.append(output)

    was_training = model.training
    handle = layer.register_forward_hook(see)
    model.eval()
    try:
        with torch.no_grad():
            for step in steps:
                for batch, _ in step:
                    output = model(**{key: value for key, value in batch.items() if key != "labels"})
                    logits = getattr(output, "logits", None)
                    if logits is None or logits.ndim != 2 or not outputs or outputs[-1].shape != logits.shape:
                        raise RequestError(
                            "a linear probe needs a head whose last linear layer gives the logits, one vector an "
                            f"example; that of {type(model).__name__} does not"
                        )
                    outputs.clear()
                    labels.append(batch["labels"].cpu())
    finally:
        model.train(was_training)
        handle.remove()
    if not inputs:
        return torch.zeros(0, layer.in_features), torch.zeros(0)
    return torch.cat(inputs), torch.cat(labels)


def _model_loss(model: nn.Module, labels: Tensor) -> Loss:
    """Return the loss that a transformers classifier would choose for itself, by its configuration or else by labels.

    Source: ``loss_function`` of ``transformers``' sequence classifiers.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "problem_type", None)
    if kind == "regression" or (kind is None and getattr(config, "num_labels", 2) == 1):
        return lambda logits, values: F.mse_loss(logits.flatten(), values.flatten().to(logits))
    several = kind == "multi_label_classification" or (kind is None and labels.is_floating_point())
    return Criterion(multilabel=several)


def solve(
    features: Tensor, labels: Tensor, outputs: int, *, l2: float, loss: Loss, has_bias: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the weight W and the bias b that minimise sum of losses + l2 / 2 * |W|^2, in float64.

    Each label counts with a loss: one an example, or one for each of its several labels or values. So this is
    scikit-learn's logistic regression with C = 1 / l2, of one label after the other where an example has several, and
    for values ridge regression with alpha = l2 / 2. The problem is convex, so the start and the seed do not matter.
    What is returned is the solution, or what 1,000 iterations of L-BFGS come to.

    Args:
        features: [n, in_features].
        labels: [n] indices or values, or [n, outputs] zeros and ones or values.
        outputs: Labels of the task; 1 for a value an example.
        l2: Strength of the penalty, above 0.
        loss: The mean over all labels; convex in the logits.
        has_bias: Whether there is a bias.

    Returns:
        W, [outputs, in_features], and b, [outputs].

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> W, b = solve(x, torch.tensor([0, 1]), 2, l2=1.0, loss=Criterion())
    >>> [round(value, 4) for value in W.flatten().tolist()], b.abs().max().item() < 1e-6
    ([-0.5213, 0.5213], True)
    """
    x = features.to(torch.float64, copy=True)
    center = x.mean(0) if has_bias else torch.zeros_like(x[0])
    x -= center  # the solution is the same, and found sooner
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
        value = loss(x @ weight.T + bias, labels) + l2 / (2 * labels.numel()) * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(objective)
    return weight.detach(), bias.detach() - weight.detach() @ center
