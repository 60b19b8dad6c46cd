"""Reinit: draw the top encoder layers anew; they are the most bound to pre-training, the least to the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.methods.base import Method, MethodConfig

if TYPE_CHECKING:
    from torch import nn


class ReinitConfig(MethodConfig):
    """Settings of re-initialisation (Zhang et al. 2021, arXiv 2006.05987).

    Attributes:
        layers: How many encoder layers, from the top, are drawn anew, 1 or more; the grid is 1 to 7.
    """

    name: Literal["reinit"] = "reinit"
    layers: Annotated[int, Field(ge=1)] = 4


class Reinit(Method[ReinitConfig]):
    """Re-initialisation of the top layers.

    Before step 1 the top ``layers`` encoder layers, and the pooler if there is one, get the initialisation that the
    model itself gives to new weights. Then all weights train as in vanilla.

    Source: Zhang et al. 2021, section 5 ("Re-init").

    >>> from dpstune import build_method
    >>> build_method({"name": "reinit", "layers": 2}).config.layers
    2
    """

    config_class = ReinitConfig

    def acquire(self, model: nn.Module) -> None:
        """Re-initialise the top of a transformers model.

        Raises:
            RequestError: The model has fewer layers than ``layers``, or no stack of layers, or does not know how to
                initialise its weights.
        """
        from dpstune.device.randomness import stream_seed
        from dpstune.models.structure import initialize_again, pooler, top_layers

        layers = top_layers(model, self.config.layers)
        top = pooler(model)
        for number, module in enumerate([*layers, *([top] if top is not None else [])]):
            initialize_again(model, module, stream_seed(self.seed, "reinit", number))
