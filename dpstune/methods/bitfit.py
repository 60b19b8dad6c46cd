"""BitFit: of what is pre-trained, the biases alone train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dpstune.errors import RequestError
from dpstune.methods.base import MethodConfig
from dpstune.methods.freezing import FreezingMethod

if TYPE_CHECKING:
    from torch import nn


class BitFitConfig(MethodConfig):
    """Settings of BitFit (Ben Zaken et al. 2022, arXiv 2106.10199); there is nothing to set.

    The paper's learning rates are 1e-4, 4e-4, 7e-4 and 1e-3: larger than those for all weights.
    """

    name: Literal["bitfit"] = "bitfit"


class BitFit(FreezingMethod[BitFitConfig]):
    """Bias-only fine-tuning.

    The bias terms of the pre-trained part train, and all of the head: b in W x + b of every linear layer, and the
    biases of normalisation. All else is frozen. A bias term is a parameter whose name ends in ``bias``, as in the
    authors' code: so DeBERTa's ``q_bias`` and ``v_bias`` are. Of a pooler that the checkpoint holds, as BERT's does,
    only the bias trains, whether pre-training used it or not; a pooler that it lacks is new, and trains as a whole. So
    do the layers that RoBERTa, ELECTRA, BART and DeBERTa have above the pre-trained part.

    Source: Ben Zaken et al. 2022, section 3; the authors' code, benzakenelad/BitFit, GLUEvaluator.py.

    >>> from torch import nn
    >>> from dpstune import build_method
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    >>> build_method({"name": "bitfit"}).attach(model, total_steps=10)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['0.bias', '2.weight', '2.bias']
    """

    config_class = BitFitConfig

    def trained(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the biases and the head's parameters.

        Raises:
            RequestError: The model has no bias below its head that could train.
        """
        from dpstune.models.structure import head_parameters

        head = head_parameters(model)
        above = {id(parameter) for parameter in head}
        biases = [
            parameter
            for name, parameter in model.named_parameters()
            if name.endswith("bias") and parameter.requires_grad and id(parameter) not in above
        ]
        if not biases:
            raise RequestError(
                f"bitfit trains biases, and {type(model).__name__} has none below its head that could train; "
                "choose another method"
            )
        return [*biases, *head]
