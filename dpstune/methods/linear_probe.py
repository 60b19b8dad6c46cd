"""A linear probe: the output layer alone, solved on the pre-trained features; nothing else changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.methods.base import MethodConfig, StepBatches
from dpstune.methods.freezing import FreezingMethod

if TYPE_CHECKING:
    import torch
    from torch import nn


class LinearProbeConfig(MethodConfig):
    """Settings of a linear probe (Alain and Bengio 2016, arXiv 1610.01644).

    Attributes:
        l2: Penalty of the weights, above 0; a larger one keeps them nearer 0. scikit-learn's C is 1 / l2.
    """

    name: Literal["linear-probe"] = "linear-probe"
    l2: Annotated[float, Field(gt=0.0)] = 1.0


class LinearProbe(FreezingMethod[LinearProbeConfig]):
    """A linear classifier on what the pre-trained model computes.

    Before step 1 the output layer gets the weights that minimise the task's loss, with a penalty, on the features that
    the pre-trained model hands to it, as in ``lp-ft``. All else is frozen, and steps change nothing: a run of one step
    is a whole one. Where the head has another layer before its output layer (RoBERTa, ELECTRA, BART, DeBERTa), that
    one keeps its first weights, which are random.

    Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes"; as the first half
    of LP-FT, Kumar et al. 2022, section 3.4. Here it is the solution, not what gradient steps come to.

    >>> from dpstune import build_method
    >>> build_method({"name": "linear-probe", "l2": 10}).config.l2
    10.0
    """

    config_class = LinearProbeConfig
    learns_by_steps = False

    def __init__(self, config: LinearProbeConfig) -> None:
        super().__init__(config)
        self._solution: list[torch.Tensor] = []

    def trained(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """Return the output layer's parameters.

        Raises:
            RequestError: The model has no linear output layer.
        """
        from dpstune.models.structure import output_layer

        return output_layer(model).parameters()

    def prepare(self, model: nn.Module, steps: Iterable[StepBatches]) -> None:
        """Solve the output layer.

        Raises:
            RequestError: The model has no linear output layer that sees one vector an example.
        """
        from dpstune.methods.probing import solve_output_layer

        solve_output_layer(model, steps, l2=self.config.l2, criterion=self.criterion)

    def before_update(self) -> None:
        """Keep the solution."""
        assert self.model is not None
        self._solution = [parameter.detach().clone() for parameter in self.trained(self.model)]

    def after_update(self) -> None:
        """Put the solution back, and close the step."""
        import torch

        assert self.model is not None
        with torch.no_grad():
            for parameter, solved in zip(self.trained(self.model), self._solution, strict=True):
                parameter.copy_(solved)
        self._solution = []
        super().after_update()
