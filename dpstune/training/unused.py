"""Weights that training never uses, such as XLNet's mask embedding: no process may wait for gradients of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def freeze_unused(model: nn.Module, new_loss: Callable[[], Tensor]) -> list[str]:
    """Freeze the weights that have no gradient after a forward and a backward pass; all else is left as it was.

    The pass is one of evaluation, in which no layer is dropped by chance: every rank freezes the same weights. A weight
    without a gradient is not changed by AdamW either, so that training does what it does in one process.

    Args:
        model: The model, not wrapped.
        new_loss: Returns the loss of a batch.

    Returns:
        Their names.

    >>> from torch import nn, ones
    >>> model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    >>> freeze_unused(model, lambda: model["used"](ones(1, 2)).sum())
    ['unused.weight', 'unused.bias']
    """
    import torch

    was_training = {module: module.training for module in model.modules()}
    gpus = {weight.device for weight in model.parameters() if weight.device.type == "cuda"}
    with torch.random.fork_rng(devices=gpus):
        model.eval()
        new_loss().backward()
        for module, training in was_training.items():
            module.training = training
    unused = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    for weight in unused.values():
        weight.requires_grad_(False)
    model.zero_grad()
    return [*unused]
