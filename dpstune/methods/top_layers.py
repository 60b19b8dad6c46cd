"""Top layers: the lower part of the encoder stays frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.methods.base import MethodConfig
from dpstune.methods.freezing import FreezingMethod

if TYPE_CHECKING:
    from torch import nn


class TopLayersConfig(MethodConfig):
    """Settings of training the top layers alone (Lee, Tang and Lin 2019, arXiv 1911.03090).

    Attributes:
        layers: How many encoder layers, from the top, train, 0 or more. In the paper a fourth of the layers, 3 of 12 or
            6 of 24, keeps 90% of the quality.
    """

    name: Literal["top-layers"] = "top-layers"
    layers: Annotated[int, Field(ge=0)] = 3


class TopLayers(FreezingMethod[TopLayersConfig]):
    """Fine-tuning of the top layers.

    The top ``layers`` encoder layers train, the parts of the base model that follow the encoder (BERT's pooler,
    ModernBERT's last normalisation), and the head. The embeddings and the layers below are frozen. With 0 layers
    the encoder is a fixed one, whose dropout is still drawn. BART's decoder layers are its top ones. Nothing below
    the lowest trained layer needs a gradient, so the forward pass keeps no activations there and the backward pass
    ends above it.

    Source: Lee, Tang and Lin 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", who vary the
    number of the final layers that train.

    >>> from dpstune import build_method
    >>> build_method({"name": "top-layers", "layers": 0}).config.layers
    0
    """

    config_class = TopLayersConfig

    def trained(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the parameters of the top layers and of what lies above the layers.

        Raises:
            RequestError: The model has fewer layers than ``layers``, or no stack of layers.
        """
        from dpstune.models.structure import parameter_depths, top_layers

        inside = {id(each) for layer in top_layers(model, self.config.layers) for each in layer.parameters()}
        depths, head = parameter_depths(model)
        return [
            parameter
            for name, parameter in model.named_parameters()
            if id(parameter) in inside or depths[name] >= head - 1
        ]
