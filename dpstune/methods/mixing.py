"""Linear layers that compute, in train mode, with a mixture of their own weight and a target weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dpstune.errors import RequestError

Mask = Callable[[], Tensor]
"""Gives a 0/1 mask that broadcasts against a weight [out, in]; called anew in the forward and the backward pass."""


def mix(weight: Tensor, target: Tensor, mask: Tensor, p: float) -> Tensor:
    """Return W_eff = ((1-m)*T + m*W - p*T) / (1-p) = T + m*(W-T) / (1-p), shape [out, in].

    With m ~ Bernoulli(1-p) the mean of W_eff is W. (Lee et al. 2020, section 3; Zhang et al. 2022, section 3.2.)

    Args:
        weight: W, the weight that trains, [out, in].
        target: T, what it is mixed with, [out, in].
        mask: m, 0/1, broadcasting against [out, in]: [in] for a mask over input columns.
        p: Reserved probability, in [0, 1).

    >>> mix(torch.tensor([[3.0, 3.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([True, False]), p=0.5).tolist()
    [[5.0, 1.0]]
    """
    return torch.lerp(target.to(weight.dtype), weight, mask.to(weight.dtype) / (1.0 - p))


class _MixedLinear(torch.autograd.Function):
    """x @ W_eff^T + b for rows x [n, in], with dL/dW = m * dL/dW_eff.

    No 1/(1-p) in the gradient: so it is in the authors' code and in mixout's.
    Under autocast W_eff is kept for the backward pass in half precision, as autocast keeps a plain layer's weight:
    no more memory than vanilla, and no second mixing. In full precision it would be one more weight in memory for every
    layer, and the backward pass mixes again: one element-wise pass beside two matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, mask: Mask, p: float
    ) -> Tensor:
        mixed = mix(weight, target, mask(), p).to(x.dtype)
        ctx.save_for_backward(x, weight, target, None if mixed.dtype == weight.dtype else mixed)
        ctx.mask, ctx.p, ctx.bias_dtype = mask, p, None if bias is None else bias.dtype
        return F.linear(x, mixed, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, target, mixed = ctx.saved_tensors
        mask = ctx.mask()
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ (mix(weight, target, mask, ctx.p) if mixed is None else mixed)
        if ctx.needs_input_grad[1]:
            grad_weight = (grad.t() @ x).to(weight.dtype).mul_(mask)
        if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0).to(ctx.bias_dtype)
        return grad_x, grad_weight, grad_bias, None, None, None


def mixed_linear(x: Tensor, linear: nn.Linear, target: Tensor, mask: Mask, p: float) -> Tensor:
    """Apply ``linear`` with its weight mixed with ``target``; autocast is honoured as ``nn.Linear`` honours it.

    Args:
        x: Input, [..., in].
        linear: The layer; its weight and bias receive the gradients.
        target: T, [out, in].
        mask: Gives m of the step.
        p: Reserved probability.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    # Rows in, rows out: a result that autograd took for a view could not be changed in place, as DeBERTa does.
    rows: Tensor = _MixedLinear.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]), linear.weight, linear.bias, target, mask, p
    )
    return rows.view(*x.shape[:-1], rows.shape[-1])


def refuse_replaced_forwards(linears: Iterable[nn.Linear]) -> None:
    """Refuse layers whose forward was replaced by someone else, before any is patched.

    Raises:
        RequestError: There is one.
    """
    if any("forward" in vars(linear) for linear in linears):
        raise RequestError(
            "a linear layer's forward is replaced already, by another method or library; undo that first"
        )


def patch_forward(linear: nn.Linear, train_forward: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    """Make ``linear`` use ``train_forward`` in train mode and its own forward in eval mode.

    The override is an attribute of the one layer: classes, parameters and state-dict keys stay what they are. It is
    bound to the layer as a method is, so that a deep copy of the layer computes with its own weights.
    """

    def forward(self: nn.Linear, input: Tensor) -> Tensor:
        return train_forward(self, input) if self.training else type(self).forward(self, input)

    linear.forward = MethodType(forward, linear)  # type: ignore[method-assign]


def restore_forward(linear: nn.Linear) -> None:
    """Undo ``patch_forward``."""
    vars(linear).pop("forward", None)
