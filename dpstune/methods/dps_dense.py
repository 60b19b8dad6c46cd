"""DPS Dense: all weights train for a while, then only those whose gradients were large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from dpstune.methods.base import Method, gradients_are_finite, new_accumulator
from dpstune.methods.subnetwork import Cycle, DpsConfig, add_scores, draw_selections, select, within_scope

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpstune.methods.pruning import PrunedLayers

LONG_RUN = 2000  # total steps from which the authors' code keeps the model's own dropout


class DpsDenseConfig(DpsConfig):
    """Settings of DPS Dense (Zhang et al. 2022, arXiv 2211.01642, section 3.2; defaults of the authors' scripts)."""

    name: Literal["dps-dense"] = "dps-dense"


class DpsDense(Method[DpsDenseConfig]):
    """Dynamic Parameter Selection, dense variant.

    Steps come in blocks of us = max(1, int(N * update_ratio)), Stage I and Stage II in turn. In Stage I all weights
    train, and for each linear weight of shape [out, in], GAM += g * g. The first step of Stage II selects in each
    matrix the ceil(n * (1 - p)) weights with the largest GAM, ties included. During Stage II the gradients of the
    others are zero. Then Stage I starts again with GAM = 0.

    Each linear weight has one float32 buffer: GAM in Stage I, the 0/1 selection in Stage II.

    ``stage2: prune``: during Stage II the other weights, in train mode, also count as zero. Their values are still
    there: eval mode sees them, a checkpoint holds them, the next Stage I trains them, and as with ``select`` AdamW's
    moments and weight decay go on moving them. ``stage2: none``: all weights train at all
    steps, and there are no buffers. ``score`` says what takes the place of g * g in GAM. Selections
    at ``random`` have exactly ceil(n * (1 - p)) weights and differ from one Stage II to the next.

    Source: Zhang et al. 2022, Algorithm 1 (DPS Dense). The other settings are ours, not the paper's. Its published code
    knows one way to treat the other weights, ``select``; what it would be to prune them is our reading.

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
    works_on_linears = True

    def __init__(self, config: DpsDenseConfig) -> None:
        super().__init__(config)
        self.gam: dict[str, torch.Tensor] = {}
        self._begun = 0  # the last step that begin_step made ready
        self._pruned: PrunedLayers | None = None

    def acquire(self, model: nn.Module) -> None:
        """Make a GAM of zeros for each linear weight; prepare layers to be pruned, where they are to be.

        Raises:
            RequestError: ``scope`` is ``encoder`` and the model has no stack of layers; or layers are to be pruned,
                and another method or library has replaced a layer's forward.
        """
        self.linears = within_scope(self.linears, model, self.config.scope)
        if self.config.stage2 == "none":
            return
        self.cycle = Cycle.of(self.total_steps, self.config.update_ratio)
        gam = {name: new_accumulator(linear.weight) for name, linear in self.linears.items()}
        self._begun = 0
        if self.config.stage2 == "prune":
            from dpstune.methods.pruning import PrunedLayers

            self._pruned = PrunedLayers(model, self.linears, gam, self.begin_step)
        self.gam = gam  # last: a model that cannot be pruned leaves no buffers

    def dropout(self, total_steps: int) -> float | None:
        """Return 0 for runs of fewer than 2000 steps, None (the model's own) for longer ones."""
        return 0.0 if total_steps < LONG_RUN else None

    def begin_step(self) -> None:
        """Choose the subnetwork where the step opens Stage II: a pruned forward pass needs it."""
        if not self.gam or self._begun == self.step:
            return
        self._begun = self.step
        stage = self.cycle.stage(self.step)
        if stage == 2 and self.cycle.opens_block(self.step):
            self._select()
        if self._pruned is not None:
            self._pruned.begin(pruning=stage == 2)

    def _select(self) -> None:
        """Put the selection in the place of GAM. A selection selects itself, so a step may be begun again."""
        if self.config.score == "random":
            weights = [linear.weight for linear in self.linears.values()]
            drawn = draw_selections(weights, self.config.p, seed=self.seed, step=self.step)
            for gam, selected in zip(self.gam.values(), drawn, strict=True):
                gam.copy_(selected)
        else:
            for gam in self.gam.values():
                gam.copy_(select(gam, self.config.p))

    def before_clip(self) -> None:
        """Add to GAM (Stage I), or zero the gradients outside the subnetwork (Stage II).

        Raises:
            RequestError: Layers are to be pruned, and the model uses a weight without calling its layer.
        """
        import torch

        if not self.gam:
            return
        assert self.model is not None
        self.begin_step()
        if self._pruned is not None:
            self._pruned.end(f"{self.config.name} cannot prune")
        found = {name: layer.weight.grad for name, layer in self.linears.items() if layer.weight.grad is not None}
        buffers, gradients = [self.gam[name] for name in found], list(found.values())
        if self.cycle.stage(self.step) == 1:
            if self.cycle.opens_block(self.step):
                torch._foreach_zero_(list(self.gam.values()))
            if gradients and self.config.score != "random":
                weights = [self.linears[name].weight for name in found]
                add_scores(self.config.score, buffers, gradients, weights, gradients_are_finite(self.model))
        elif gradients:
            # The selection is kept as floats, so that one call can multiply all gradients.
            torch._foreach_mul_(gradients, buffers)

    def state_dict(self) -> dict[str, Any]:
        """Return the step and each linear weight's buffer."""
        return {**super().state_dict(), "gam": self.gam}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the step and the buffers of ``state``."""
        super().load_state_dict(state)
        for name, gam in self.gam.items():
            gam.copy_(state["gam"][name])
        self._begun = 0

    def held_bytes(self) -> int:
        """Return 4 bytes a linear weight."""
        return sum(gam.nbytes for gam in self.gam.values())

    def release(self) -> None:
        """Drop the buffers, and let pruned layers compute plainly again."""
        if self._pruned is not None:
            self._pruned.restore()
        self.gam, self._pruned = {}, None
