"""Linear layers that compute, in train mode and for as long as they are told, without the weights of a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dpstune.methods.mixing import (
    HalfMixtures,
    layers_by_weight,
    mixed_linear,
    patch_forward,
    refuse_replaced_forwards,
    refuse_uncalled,
    restore_forward,
)


class PrunedLayers:
    """Linear layers that compute, in train mode, with W * m, m a 0/1 mask; the gradient that W receives is dL/d(W * m).

    The weights themselves are not changed: eval mode, checkpoints and the optimizer have W. Under autocast the weights
    of all layers are pruned at once, in the first forward pass of a step.

    Args:
        model: The model.
        linears: The weights to prune, each by one layer that has it; layers that share it are pruned alike.
        masks: m of each weight [out, in], in any float dtype; read at every forward pass that prunes.
        begin_step: Called at every forward pass in train mode; it calls ``begin`` once a step.

    Raises:
        RequestError: Another method or library has replaced a layer's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        linears: Mapping[str, nn.Linear],
        masks: Mapping[str, Tensor],
        begin_step: Callable[[], None],
    ) -> None:
        self._layers = layers_by_weight(model, linears)
        refuse_replaced_forwards(layer for _, layer in self._layers)
        self._linears, self._masks, self._begin_step = linears, masks, begin_step
        self._pruning = False
        self._called: set[str] = set()  # weights that were seen computing through a layer's own forward
        self._halves = HalfMixtures(self._prune_all, {name: linear.weight for name, linear in linears.items()})
        for name, linear in self._layers:
            patch_forward(linear, partial(self._forward, name))

    def begin(self, *, pruning: bool) -> None:
        """Begin a step, in which the layers are pruned or not."""
        self._halves.clear()
        self._pruning = pruning

    def end(self, cannot: str) -> None:
        """Forget what the step's forward passes have made.

        Args:
            cannot: What does not work, for an error: ``"dps-dense cannot prune"``.

        Raises:
            RequestError: The model uses a weight without calling its layer.
        """
        self._halves.clear()
        refuse_uncalled(self._linears, self._called, cannot)

    def restore(self) -> None:
        """Let the layers compute plainly again."""
        for _, linear in self._layers:
            restore_forward(linear)

    def _prune_all(self, names: Sequence[str]) -> list[Tensor]:
        """Return W * m of some layers."""
        return list(
            torch._foreach_mul([self._linears[name].weight for name in names], [self._masks[name] for name in names])
        )

    def _forward(self, name: str, linear: nn.Linear, x: Tensor) -> Tensor:
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self._begin_step()
            self._called.add(name)
        if not self._pruning:
            return type(linear).forward(linear, x)
        if not compiling and torch.is_autocast_enabled(x.device.type):
            pruned = self._halves.get(name, linear.weight, torch.get_autocast_dtype(x.device.type))
            if pruned is not None:
                return mixed_linear(x, linear, mixed=pruned)
        # Mixing with zero: m is 0 or 1, so that each weight is exactly W or 0.
        return mixed_linear(x, linear, linear.weight.new_zeros(()), lambda: self._masks[name].to(linear.weight.dtype))
