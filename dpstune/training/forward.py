"""The forward passes of training: how a chunk of examples is cut into them, and what computes them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from dpstune.data.passes import Pass, PassCost, cut_into_passes
from dpstune.training.pass_cost import pass_cost

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from dpstune.data.tokens import TokenDataset
    from dpstune.methods.base import Method
    from dpstune.recipe.schema import Recipe


class ForwardPasses:
    """The training examples of a run, a forward pass at a time.

    Args:
        recipe: Tells the longest an example may be, and whether the model is compiled.
        examples: The tokenised training split.
        model: What each pass costs follows from its size.
        method: Tells the most tokens that a pass should have.
        accelerator: Device and precision.
    """

    def __init__(
        self,
        recipe: Recipe,
        examples: TokenDataset,
        model: nn.Module,
        method: Method[Any],
        accelerator: Accelerator,
    ) -> None:
        self._examples, self._device = examples, accelerator.device
        self._longest, self._most_tokens = recipe.data.max_length, method.most_tokens
        self._has_own_kernels = has_own_kernels(recipe, accelerator)
        self.cost: PassCost = pass_cost(model, accelerator.device, accelerator.mixed_precision)
        """What a pass costs beside its tokens; a run that goes on has the cost it began with."""

    def cut(self, chunk: list[int]) -> list[Pass]:
        """Cut a chunk into forward passes."""
        return cut_into_passes(
            chunk, self._examples.lengths, self.cost, longest=self._longest, most_tokens=self._most_tokens
        )

    def batch(self, taken: Pass) -> dict[str, Tensor]:
        """Return the examples of a pass as the model's keyword arguments, on its device."""
        from dpstune.data.tokens import to_device

        return to_device(self._examples.collate(taken.indices, taken.width), self._device)

    def kernels(self) -> AbstractContextManager[object]:
        """Return a context to compute a pass in; see ``CpuKernels``."""
        from dpstune.device.cpu_kernels import CpuKernels

        return CpuKernels() if self._has_own_kernels else nullcontext()


def has_own_kernels(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Tell whether training replaces torch's functions by its own: on a CPU, where nothing is compiled."""
    return accelerator.device.type == "cpu" and not recipe.training.compile
