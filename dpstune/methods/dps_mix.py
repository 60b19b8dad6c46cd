"""DPS Mix: mix every weight with its pre-trained value, or with its value when the subnetwork was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from dpstune.methods.base import ReservedProbability, gradients_are_finite, new_accumulator
from dpstune.methods.groups import groups, multiply
from dpstune.methods.mixing_method import MixingConfig, MixingMethod
from dpstune.methods.subnetwork import (
    Cycle,
    DpsConfig,
    add_scores,
    draw_selections,
    octets,
    pack_bits,
    select,
    unpack_bytes,
    within_scope,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

LONG_STAGE = 50  # update_steps from which the authors' code penalises frequent weights


class DpsMixConfig(DpsConfig, MixingConfig):
    """Settings of DPS Mix (Zhang et al. 2022, arXiv 2211.01642, section 3.2; defaults of the authors' scripts).

    Attributes:
        p: Reserved probability, in [0, 1): how often Stage I replaces a column's weight by its target, and the
            share of each matrix that Stage II leaves out.
        stage2: ``select``, or ``prune``: Stage II mixes with zero, or ``none``: Stage I at all steps, which is mixout.
    """

    name: Literal["dps-mix"] = "dps-mix"
    p: ReservedProbability = 0.3


class DpsMix(MixingMethod[DpsMixConfig]):
    """Dynamic Parameter Selection, mixing variant.

    In train mode each linear layer of weight W [out, in] computes with W_eff = T + m * (W - T) / (1 - p), and W
    receives the gradient dL/dW_eff * m, in Stage II masked before clipping. Steps come in blocks of
    us = max(1, int(N * update_ratio)), Stage I and Stage II in turn.

    Stage I: T = W0, the pre-trained weight; m is one Bernoulli(1 - p) draw for each input column, new at every step.
    GAM += g * g per weight, FAM += m per column.
    First step of Stage II: T = W. With f = max(FAM, 1), score = GAM / f, times exp(-f / us) if a stage has us >= 50
    steps. The ceil(n * (1 - p)) largest scores of each matrix are selected, ties included.
    Stage II: m = the selection. Dropout is 0 throughout, since mixing takes its place.

    Buffers of each linear weight: W0 (float32), one float32 that is GAM in Stage I and T in Stage II, and one bit.

    ``stage2: prune``: T = 0 in Stage II. ``stage2: none``: Stage I at all steps; W0 is then the only buffer.
    ``scope: encoder``: all other layers compute plainly. ``score`` says what takes the place of g * g in GAM. At
    ``random`` nothing is added: the selection is drawn, of exactly ceil(n * (1 - p)) weights.

    Source: Zhang et al. 2022, Algorithm 1 (DPS Mix). The last paragraph is ours, not the paper's, whose published code
    knows T = W alone.

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(4, 2)
    >>> method = build_method({"name": "dps-mix", "p": 0.5, "update_ratio": 0.5})
    >>> method.attach(model, total_steps=2, mask_source=lambda name, step: [1, 0, 1, 0])
    >>> model(torch.ones(3, 4)).sum().backward()
    >>> model.weight.grad.tolist()
    [[3.0, 0.0, 3.0, 0.0], [3.0, 0.0, 3.0, 0.0]]
    """

    config_class = DpsMixConfig

    def acquire(self, model: nn.Module) -> None:
        """Copy the weights as W0; make GAM, FAM and the selection, all zeros.

        Raises:
            RequestError: ``scope`` is ``encoder`` and the model has no stack of layers; or another method or library
                has replaced a layer's forward.
        """
        import torch

        self.linears = within_scope(self.linears, model, self.config.scope)
        weights: dict[str, torch.Tensor] = {}
        if self._selects:
            self.cycle = Cycle.of(self.total_steps, self.config.update_ratio)
            weights = {name: linear.weight.detach() for name, linear in self.linears.items()}
        # GAM in Stage I; T in Stage II, where GAM is not needed any more.
        self.gam_or_target = {name: new_accumulator(w) for name, w in weights.items()}
        self.fam = {name: w.new_zeros(w.shape[1], dtype=torch.int32) for name, w in weights.items()}
        # The selections, one bit for each weight, lie one after the other, so that neighbours are unpacked at once.
        sizes = {name: -(-w.numel() // 8) for name, w in weights.items()}
        device = next(iter(weights.values())).device if weights else torch.device("cpu")
        self._packed = torch.zeros(sum(sizes.values()), dtype=torch.uint8, device=device)
        self.selected = dict(zip(sizes, self._packed.split(list(sizes.values())), strict=True))
        self._starts = dict(zip(sizes, accumulate([0, *sizes.values()]), strict=False))
        self._octets = octets(device)
        super().acquire(model)  # last: if memory runs out above, no layer is patched yet

    @property
    def _selects(self) -> bool:
        return self.config.stage2 != "none"

    def _masks_are_columns(self) -> bool:
        return not self._selects or self.cycle.stage(self.step) == 1

    def _prepare(self) -> None:
        """Draw the step's column masks (Stage I), or choose the subnetwork when Stage II opens."""
        import torch

        opens_block = self._selects and self.cycle.opens_block(self.step) and bool(self.linears)
        if self._masks_are_columns():
            if opens_block:
                torch._foreach_zero_([*self.gam_or_target.values(), *self.fam.values()])
            self._draw_columns()
        elif opens_block:
            self._select()

    def _select(self) -> None:
        import torch

        weights = [linear.weight.detach() for linear in self.linears.values()]
        if self.config.score == "random":
            drawn = draw_selections(weights, self.config.p, seed=self.seed, step=self.step)
            for packed, selected in zip(self.selected.values(), drawn, strict=True):
                packed.copy_(pack_bits(selected))
        else:
            self._select_by_scores()
        if self.config.stage2 == "prune":
            torch._foreach_zero_(list(self.gam_or_target.values()))
        else:
            torch._foreach_copy_(list(self.gam_or_target.values()), weights)

    def _select_by_scores(self) -> None:
        for name, score in self.gam_or_target.items():
            frequency = self.fam[name].clamp(min=1).to(score.dtype)
            score.div_(frequency)
            if self.cycle.update_steps >= LONG_STAGE:
                score.mul_((-frequency / self.cycle.update_steps).exp())
            self.selected[name].copy_(pack_bits(select(score, self.config.p)))

    def _target(self, name: str) -> torch.Tensor:
        return super()._target(name) if self._columns_now else self.gam_or_target[name]

    def _scales_of(self, names: Sequence[str]) -> list[torch.Tensor]:
        if self._columns_now:
            return super()._scales_of(names)
        bits, places = self._unpack(names)
        scales = bits.to(self.linears[names[0]].weight.dtype).div_(1.0 - self.config.p)
        return [scales[place].view(shape) for place, shape in places]

    def _unpack(self, names: Sequence[str]) -> tuple[torch.Tensor, list[tuple[slice, torch.Size]]]:
        """Return the selection of some neighbouring layers as one vector of bools, and the place and shape of each."""
        start = self._starts[names[0]]
        last = names[-1]
        bits = unpack_bytes(self._packed[start : self._starts[last] + len(self.selected[last])], self._octets)
        shapes = [self.linears[name].weight.shape for name in names]
        firsts = [8 * (self._starts[name] - start) for name in names]
        return bits, [(slice(first, first + shape.numel()), shape) for first, shape in zip(firsts, shapes, strict=True)]

    def before_clip(self) -> None:
        """Add gradients, masked already, to GAM and count columns (Stage I), or mask gradients (Stage II)."""
        super().before_clip()
        if not self._selects:
            return
        found = {name: layer.weight.grad for name, layer in self.linears.items() if layer.weight.grad is not None}
        names, gradients = list(found), list(found.values())
        if not names:
            return
        if not self._masks_are_columns():
            for part in groups(gradients):
                self._mask(names[part], gradients[part])
        elif self.config.score != "random":
            self._add_scores(names, gradients)

    def _add_scores(self, names: list[str], gradients: list[torch.Tensor]) -> None:
        import torch

        assert self.model is not None
        finite = gradients_are_finite(self.model)
        weights = [self.linears[name].weight for name in names]
        add_scores(self.config.score, [self.gam_or_target[name] for name in names], gradients, weights, finite)
        counted = self._by_layer((self._drawn & finite).to(torch.int32))
        torch._foreach_add_([self.fam[name] for name in names], [counted[name] for name in names])

    def _mask(self, names: Sequence[str], gradients: list[torch.Tensor]) -> None:
        """Multiply the gradients of some neighbouring layers by their selection."""
        bits, places = self._unpack(names)
        multiply(gradients, [bits[place].view(shape) for place, shape in places])

    def _buffers(self) -> dict[str, dict[str, torch.Tensor]]:
        return {
            **super()._buffers(),
            "gam_or_target": self.gam_or_target,
            "fam": self.fam,
            "selected": self.selected,
        }

    def release(self) -> None:
        """Let the layers compute plainly again and drop the buffers."""
        super().release()
        self.gam_or_target, self.fam, self.selected = {}, {}, {}
        del self._packed, self._octets
