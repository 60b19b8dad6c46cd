"""What DPS Mix and Mixout share: every linear layer computes with a mixture of its weight and a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dpstune.methods.base import Method, MethodConfig, ReservedProbability, draw_columns

if TYPE_CHECKING:
    import torch
    from torch import nn


class MixingConfig(MethodConfig):
    """Settings of a method that mixes.

    Attributes:
        p: Reserved probability, in [0, 1).
    """

    p: ReservedProbability


C = TypeVar("C", bound=MixingConfig)


class MixingMethod(Method[C]):
    """A method whose linear layers, in train mode, compute with W_eff = T + m * (W - T) / (1 - p).

    It keeps W0, the pre-trained weights, and draws the masks over input columns. A subclass says for each step what T
    and m are. Under autocast the weights of all layers are mixed at once, in the first forward pass of a step.
    """

    works_on_linears = True

    def dropout(self, total_steps: int) -> float | None:
        """Return 0: the mixture takes dropout's place."""
        return 0.0

    def acquire(self, model: nn.Module) -> None:
        """Copy the weights as W0, and have every linear layer compute with its mixture.

        Raises:
            RequestError: Another method or library has replaced a layer's forward.
        """
        from dpstune.methods.mixing import HalfMixtures, patch_forward, refuse_replaced_forwards

        layers = self._layers()
        refuse_replaced_forwards(layer for _, layer in layers)
        self._begun = 0  # the last step that begin_step made ready
        # Whether that step's masks are columns; kept for torch.compile, which must not see step.
        self._columns_now = True
        self._called: set[str] = set()  # weights that were seen computing through a layer's own forward
        self.pretrained = {name: linear.weight.detach().clone() for name, linear in self.linears.items()}
        self.columns: dict[str, torch.Tensor] = {}
        self._gates: dict[str, torch.Tensor] = {}  # the columns as numbers of the weight's dtype
        weights = {name: linear.weight for name, linear in self.linears.items()}
        self._halves = HalfMixtures(self._mix_all, weights)
        for name, linear in layers:
            patch_forward(linear, partial(self._forward, name))

    def _layers(self) -> list[tuple[str, nn.Linear]]:
        from dpstune.methods.mixing import layers_by_weight

        assert self.model is not None
        return layers_by_weight(self.model, self.linears)

    def begin_step(self) -> None:
        """Have the subclass get ready, once in a step."""
        if self._begun != self.step:
            self._columns_now = self._masks_are_columns()
            self._halves.clear()
            self._prepare()
            self._begun = self.step

    def _prepare(self) -> None:
        """Draw the step's masks, or whatever the step needs before its first forward pass."""
        self._draw_columns()

    def _draw_columns(self) -> None:
        drawn = draw_columns(self.linears, self.config.p, seed=self.seed, step=self.step, mask_source=self._mask_source)
        self._drawn = drawn
        self.columns = self._by_layer(drawn)
        for dtype in {linear.weight.dtype for linear in self.linears.values()}:
            self._gates |= self._by_layer(drawn.to(dtype), dtype)

    def _by_layer(self, columns: torch.Tensor, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
        """Cut a vector over all layers' columns into one for each layer; with ``dtype``, for weights of it only."""
        parts = columns.split([linear.in_features for linear in self.linears.values()])
        return {
            name: part.to(linear.weight.device)
            for (name, linear), part in zip(self.linears.items(), parts, strict=True)
            if dtype in (None, linear.weight.dtype)
        }

    def _target(self, name: str) -> torch.Tensor:
        """Return a layer's T [out, in] of this step: by default W0."""
        return self.pretrained[name]

    def _scales_of(self, names: Sequence[str]) -> list[torch.Tensor]:
        """Return m / (1-p) of some neighbouring layers, each in its weight's dtype; by default m masks columns."""
        import torch

        return list(torch._foreach_div([self._gates[name] for name in names], 1.0 - self.config.p))

    def _mix_all(self, names: Sequence[str]) -> list[torch.Tensor]:
        """Return W_eff of some neighbouring layers."""
        import torch

        weights = [self.linears[name].weight for name in names]
        targets = [self._target(name).to(weight.dtype) for name, weight in zip(names, weights, strict=True)]
        return list(torch._foreach_lerp(targets, weights, self._scales_of(names)))

    def _masks_are_columns(self) -> bool:
        """Tell whether this step's masks are drawn over columns."""
        return True

    def _forward(self, name: str, linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        import torch

        from dpstune.methods.mixing import mixed_linear

        compiling = torch.compiler.is_compiling()
        if not compiling:
            self.begin_step()
            self._called.add(name)
        gate = self._gates[name] if self._columns_now else None
        if not compiling and torch.is_autocast_enabled(x.device.type):
            mixed = self._halves.get(name, linear.weight, torch.get_autocast_dtype(x.device.type))
            if mixed is not None:
                return mixed_linear(x, linear, gate=gate, mixed=mixed)
        # Compiled code mixes one layer at a time: the compiler makes the kernels.
        return mixed_linear(x, linear, self._target(name), lambda: self._scales_of([name])[0], gate=gate)

    def before_clip(self) -> None:
        """Refuse a model that uses a weight without calling its layer: that weight cannot be mixed.

        Raises:
            RequestError: There is such a weight; the message names it.
        """
        from dpstune.methods.mixing import refuse_uncalled

        self._halves.clear()
        refuse_uncalled(self.linears, self._called, f"{self.config.name} cannot mix")

    def _buffers(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the buffers that a checkpoint holds, by name; each has one tensor for each linear weight."""
        return {"pretrained": self.pretrained}

    def state_dict(self) -> dict[str, Any]:
        """Return the step, the last step that was begun, and the buffers."""
        return {**super().state_dict(), "begun": self._begun, **self._buffers()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the step and the buffers of ``state``."""
        super().load_state_dict(state)
        for key, buffers in self._buffers().items():
            for name, buffer in buffers.items():
                buffer.copy_(state[key][name])
        self._begun = int(state["begun"])
        self._halves.clear()
        self._columns_now = self._masks_are_columns()
        if self._begun == self.step and self._columns_now:
            self._draw_columns()

    def held_bytes(self) -> int:
        """Return the bytes of the buffers, and of a step's column masks as bools and as numbers of the weight's dtype.

        The masks count where none is drawn yet, too, as in Stage II after a resume: a run's result is the same then.
        """
        buffers = sum(buffer.nbytes for group in self._buffers().values() for buffer in group.values())
        layers = self.linears.values()
        return buffers + sum(linear.in_features * (1 + linear.weight.element_size()) for linear in layers)

    def release(self) -> None:
        """Let the layers compute plainly again and drop the buffers."""
        from dpstune.methods.mixing import restore_forward

        for _, linear in self._layers():
            restore_forward(linear)
        self.pretrained, self.columns, self._gates = {}, {}, {}
        del self._halves
