"""LP-FT: first the head alone on the pre-trained features, then all weights from there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.methods.base import Method, MethodConfig, StepBatches

if TYPE_CHECKING:
    from torch import nn


class LpFtConfig(MethodConfig):
    """Settings of LP-FT (Kumar et al. 2022, arXiv 2202.10054).

    Attributes:
        l2: Penalty of the probe's weights, above 0; a larger one keeps the head nearer 0. scikit-learn's C is 1 / l2.
    """

    name: Literal["lp-ft"] = "lp-ft"
    l2: Annotated[float, Field(gt=0.0)] = 1.0


class LpFt(Method[LpFtConfig]):
    """Linear probing, then fine-tuning.

    Before step 1 one epoch of the training data gives the features that the pre-trained model hands to its output
    layer, and that layer gets the weights that minimise the task's loss on them, with a penalty. Then all weights train
    as in vanilla: a head that fits already does not distort the features, as a random one does in its first steps.

    The features take 16 bytes each on the host, until step 1. The output layer is the head's last linear layer. Where
    the head has another layer before it (RoBERTa, ELECTRA, BART, DeBERTa), that one keeps its weights until step 1.

    Source: Kumar et al. 2022, section 3.4. The authors take the probe from a solver or from gradient steps; here it is
    the solution.

    >>> from dpstune import build_method
    >>> build_method({"name": "lp-ft", "l2": 10}).config.l2
    10.0
    """

    config_class = LpFtConfig

    def prepare(self, model: nn.Module, steps: Iterable[StepBatches]) -> None:
        """Solve the output layer.

        Raises:
            RequestError: The model has no linear output layer that sees one vector an example.
        """
        from dpstune.methods.probing import solve_output_layer

        solve_output_layer(model, steps, l2=self.config.l2, criterion=self.criterion)
