"""Linear layers that compute, in train mode, with a mixture of their own weight and a target weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dpstune.errors import RequestError
from dpstune.methods.groups import groups

Scale = Callable[[], Tensor]
"""Returns m / (1-p) in the weight's dtype; m is a 0/1 mask that broadcasts against a weight [out, in]."""


def mix(weight: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """Return W_eff = ((1-m)*T + m*W - p*T) / (1-p) = T + m*(W-T) / (1-p), shape [out, in].

    With m ~ Bernoulli(1-p) the mean of W_eff is W. (Lee et al. 2020, section 3; Zhang et al. 2022, section 3.2.)

    Args:
        weight: W, the weight that trains, [out, in].
        target: T, what it is mixed with, [out, in].
        scale: m / (1-p), broadcasting against [out, in]: [in] for a mask over input columns.

    >>> mix(torch.tensor([[3.0, 3.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([2.0, 0.0])).tolist()
    [[5.0, 1.0]]
    """
    return torch.lerp(target.to(weight.dtype), weight, scale)


class _MixedLinear(torch.autograd.Function):
    """x @ W_eff^T + b for rows x [n, in], with dL/dW = gate * dL/dW_eff.

    The gradient has no factor 1/(1-p), as in the authors' code and in mixout's.
    Under autocast W_eff is kept for the backward pass in half precision, as autocast keeps a plain layer's weight.
    This takes no more memory than vanilla, and no second mixing. In full precision W_eff would be one more weight in
    memory for every layer. The backward pass mixes again: one element-wise operation beside two matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor | None,
        scale: Scale | None,
        gate: Tensor | None,
        mixed: Tensor | None,
    ) -> Tensor:
        if mixed is None:
            assert target is not None
            assert scale is not None
            mixed = mix(weight, target, scale()).to(x.dtype)
        if mixed.dtype == weight.dtype:
            ctx.save_for_backward(x, gate, None, weight, target)
        else:
            ctx.save_for_backward(x, gate, mixed, None, None)
        ctx.scale, ctx.weight_dtype, ctx.bias_dtype = scale, weight.dtype, None if bias is None else bias.dtype
        return F.linear(x, mixed, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, mixed, weight, target = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ (mix(weight, target, ctx.scale()) if mixed is None else mixed)
        if ctx.needs_input_grad[1]:
            grad_weight = grad.t() @ x
            if gate is None:
                grad_weight = grad_weight.to(ctx.weight_dtype)
            elif grad_weight.dtype == gate.dtype:
                grad_weight.mul_(gate)
            else:  # half precision times the weight's: one kernel converts and masks
                grad_weight = grad_weight * gate
        if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0).to(ctx.bias_dtype)
        return grad_x, grad_weight, grad_bias, None, None, None, None


def mixed_linear(
    x: Tensor,
    linear: nn.Linear,
    target: Tensor | None = None,
    scale: Scale | None = None,
    *,
    gate: Tensor | None = None,
    mixed: Tensor | None = None,
) -> Tensor:
    """Apply ``linear`` with its weight mixed, and return [..., out]; under autocast as ``nn.Linear`` does.

    Args:
        x: Input, [..., in].
        linear: The layer; its weight and bias receive the gradients.
        target: T, [out, in]; None if ``mixed`` is given.
        scale: Returns m / (1-p); None if ``mixed`` is given.
        gate: m, [in] or [out, in] in the weight's dtype: the weight's gradient is multiplied by it. None leaves the
            gradient whole.
        mixed: W_eff, [out, in] in autocast's dtype, where it is known already; replaces ``target`` and ``scale``.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    # Rows in, rows out: DeBERTa changes the result in place, which autograd forbids where the result is a view.
    rows: Tensor = _MixedLinear.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]), linear.weight, linear.bias, target, scale, gate, mixed
    )
    return rows.view(*x.shape[:-1], rows.shape[-1])


class HalfMixtures:
    """The mixed weights of a step in autocast's half precision: made for all layers at once, kept until the step ends.

    One layer at a time, mixing launches three kernels where vanilla's autocast launches one. For all layers at once, it
    launches two for each matrix and a few more; or, where masks are as large as weights, a few in all. The mixed
    weights take no more memory than autocast's copies of plain weights, and a step's micro-batches share them.

    Args:
        mix_all: Returns W_eff of some layers, by name, each in its weight's dtype.
        weights: W of every layer, by name.
    """

    def __init__(self, mix_all: Callable[[Sequence[str]], list[Tensor]], weights: Mapping[str, Tensor]) -> None:
        self._mix_all = mix_all
        self._weights = weights
        self._made: dict[str, tuple[int, Tensor]] = {}  # the weight's version it was made of, and W_eff

    def clear(self) -> None:
        """Forget all that was made."""
        self._made = {}

    def get(self, name: str, weight: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return a layer's W_eff [out, in] in ``dtype``, or None where the layer must be mixed by itself.

        W_eff is made anew where its weight was changed in place since. None is returned in inference mode, for a weight
        that is in ``dtype`` already, and for a weight that is not the layer's own, such as that of a copy of the model.
        """
        if weight is not self._weights[name] or weight.dtype == dtype or torch.is_inference_mode_enabled():
            return None
        version, mixed = self._made.get(name, (-1, None))
        if mixed is None or version != weight._version or mixed.dtype != dtype:
            self._make([name] if mixed is not None and mixed.dtype == dtype else list(self._weights), dtype)
            mixed = self._made[name][1]
        return mixed

    @torch.no_grad()
    def _make(self, names: Sequence[str], dtype: torch.dtype) -> None:
        weights = [self._weights[name] for name in names]
        for part in groups(weights):
            halves = [torch.empty_like(weight, dtype=dtype, requires_grad=False) for weight in weights[part]]
            torch._foreach_copy_(halves, self._mix_all(names[part]))
            for name, weight, half in zip(names[part], weights[part], halves, strict=True):
                self._made[name] = (weight._version, half)


def layers_by_weight(model: nn.Module, linears: Mapping[str, nn.Linear]) -> list[tuple[str, nn.Linear]]:
    """List every layer with its weight's name; layers that share a weight are all listed, under one name.

    Args:
        model: The model.
        linears: The weights, each by one layer that has it.
    """
    names = {id(linear.weight): name for name, linear in linears.items()}
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [(names[id(layer.weight)], layer) for layer in layers if id(layer.weight) in names]


def refuse_uncalled(linears: Mapping[str, nn.Linear], called: Collection[str], cannot: str) -> None:
    """Refuse a model that uses a weight without calling its layer, whose forward is patched in vain.

    Args:
        linears: The weights that were patched, each by one layer that has it.
        called: Those whose layers were seen computing; none where the model is compiled.
        cannot: What does not work, for the error: ``"dps-mix cannot mix"``.

    Raises:
        RequestError: There is such a weight; the message names it.
    """
    for name, linear in linears.items():
        if linear.weight.grad is not None and called and name not in called:
            raise RequestError(
                f"{cannot} {name!r}: the model uses its weight without calling the layer; "
                "freeze that weight or choose a method that leaves the forward pass alone"
            )


def refuse_replaced_forwards(linears: Iterable[nn.Linear]) -> None:
    """Refuse layers whose forward another method or library has replaced; called before any layer is patched.

    Raises:
        RequestError: There is such a layer.
    """
    if any("forward" in vars(linear) for linear in linears):
        raise RequestError(
            "a linear layer's forward is replaced already, by another method or library; undo that first"
        )


def patch_forward(linear: nn.Linear, train_forward: Callable[[nn.Linear, Tensor], Tensor]) -> None:
    """Make ``linear`` use ``train_forward`` in train mode and its own forward in eval mode.

    The new forward is an attribute of this one layer: classes, parameters and state-dict keys do not change. It is
    bound to the layer like a method, so that a deep copy of the layer computes with its own weights.
    """

    def forward(self: nn.Linear, input: Tensor) -> Tensor:
        return train_forward(self, input) if self.training else type(self).forward(self, input)

    linear.forward = MethodType(forward, linear)  # type: ignore[method-assign]


def restore_forward(linear: nn.Linear) -> None:
    """Undo ``patch_forward``."""
    vars(linear).pop("forward", None)
