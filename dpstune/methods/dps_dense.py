"""DPS Dense: all weights train for a while, then only those whose gradients were large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from dpstune.methods.base import (
    Method,
    MethodConfig,
    ReservedProbability,
    UpdateRatio,
    gradients_are_finite,
    new_accumulator,
)
from dpstune.methods.groups import add_squares
from dpstune.methods.subnetwork import Cycle, select

if TYPE_CHECKING:
    import torch
    from torch import nn

LONG_RUN = 2000  # total steps from which the authors' code keeps the model's own dropout


class DpsDenseConfig(MethodConfig):
    """Settings of DPS Dense (Zhang et al. 2022, arXiv 2211.01642, section 3.2; defaults of the authors' scripts).

    Attributes:
        p: Reserved probability, in [0, 1): the share of each matrix that Stage II leaves out.
        update_ratio: Length of one stage as a share of all steps, in (0, 1].
    """

    name: Literal["dps-dense"] = "dps-dense"
    p: ReservedProbability = 0.3
    update_ratio: UpdateRatio = 0.05


class DpsDense(Method[DpsDenseConfig]):
    """Dynamic Parameter Selection, dense variant.

    Steps come in blocks of us = max(1, int(N * update_ratio)), Stage I and Stage II in turn. In Stage I all weights
    train, and for each linear weight of shape [out, in], GAM += g * g. The first step of Stage II selects in each
    matrix the ceil(n * (1 - p)) weights with the largest GAM, ties included. During Stage II the gradients of the
    others are zero. Then Stage I starts again with GAM = 0.

    Each linear weight has one float32 buffer: GAM in Stage I, the 0/1 selection in Stage II.

    Source: Zhang et al. 2022, Algorithm 1 (DPS Dense).

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(4, 2)
    >>> method = build_method({"name": "dps-dense", "p": 0.5, "update_ratio": 0.5})
    >>> method.attach(model, total_steps=2)
    >>> for _ in range(2):
    ...     model.zero_grad()
    ...     model(torch.ones(3, 4) * torch.arange(4)).sum().backward()
    ...     method.before_clip()
    ...     method.after_update()
    >>> model.weight.grad.tolist()
    [[0.0, 0.0, 6.0, 9.0], [0.0, 0.0, 6.0, 9.0]]
    """

    config_class = DpsDenseConfig

    def acquire(self, model: nn.Module) -> None:
        """Make a GAM of zeros for each linear weight."""
        self.cycle = Cycle.of(self.total_steps, self.config.update_ratio)
        self.gam = {name: new_accumulator(linear.weight) for name, linear in self.linears.items()}

    def dropout(self, total_steps: int) -> float | None:
        """Return 0 for runs of fewer than 2000 steps, None (the model's own) for longer ones."""
        return 0.0 if total_steps < LONG_RUN else None

    def before_clip(self) -> None:
        """Accumulate squared gradients (Stage I), or zero the gradients outside the subnetwork (Stage II)."""
        import torch

        assert self.model is not None
        opens_block = self.cycle.opens_block(self.step)
        buffers, gradients = self._with_gradients()
        if self.cycle.stage(self.step) == 1:
            if opens_block and self.gam:
                torch._foreach_zero_(list(self.gam.values()))
            if gradients:
                add_squares(buffers, gradients, gradients_are_finite(self.model))
        else:
            if opens_block:
                for gam in self.gam.values():
                    gam.copy_(select(gam, self.config.p))
            if gradients:
                # The selection is kept as floats, so that one call can multiply all gradients.
                torch._foreach_mul_(gradients, buffers)

    def _with_gradients(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the buffers of the weights that have a gradient, and those gradients."""
        gradients = {name: layer.weight.grad for name, layer in self.linears.items() if layer.weight.grad is not None}
        return [self.gam[name] for name in gradients], list(gradients.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the step and each linear weight's buffer."""
        return {**super().state_dict(), "gam": self.gam}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the step and the buffers of ``state``."""
        super().load_state_dict(state)
        for name, gam in self.gam.items():
            gam.copy_(state["gam"][name])

    def held_bytes(self) -> int:
        """Return 4 bytes a linear weight."""
        return sum(gam.nbytes for gam in self.gam.values())

    def release(self) -> None:
        """Drop the buffers."""
        self.gam = {}
