"""NoisyTune: shake the pre-trained weights a little before they are fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.methods.base import Method, MethodConfig

if TYPE_CHECKING:
    from torch import nn


class NoisyTuneConfig(MethodConfig):
    """Settings of NoisyTune (Wu et al. 2022, arXiv 2202.12024).

    Attributes:
        lambda_: Width of the noise in standard deviations of a matrix, 0 or more. The paper takes
            0.15 for GLUE.
    """

    name: Literal["noisytune"] = "noisytune"
    lambda_: Annotated[float, Field(ge=0.0, alias="lambda")] = 0.15


class NoisyTune(Method[NoisyTuneConfig]):
    """Noise before fine-tuning.

    Before step 1 each pre-trained parameter W becomes W + U(-lambda/2, lambda/2) * std(W): matrices, biases and
    normalisation alike, each with its own standard deviation. Then all weights train as in vanilla. The uniform
    numbers are drawn on the CPU from the seed and the parameter's name alone: the same on every device and every rank.

    Left as they are: the head, which in most families is no pre-trained weight but a random one already; a parameter of
    one element, which has no standard deviation; and what is frozen.

    Source: Wu et al. 2022, section 2, equation 1.

    >>> from dpstune import build_method
    >>> build_method({"name": "noisytune", "lambda": 0.2}).config.lambda_
    0.2
    """

    config_class = NoisyTuneConfig

    def acquire(self, model: nn.Module) -> None:
        """Add the noise; where a run is continued, its weights replace what this makes of them."""
        import torch

        from dpstune.device.randomness import stream_seed
        from dpstune.models.structure import head_parameters

        head = {id(parameter) for parameter in head_parameters(model)}
        for name, parameter in model.named_parameters():
            if id(parameter) in head or parameter.numel() < 2 or not parameter.requires_grad:
                continue
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "noisytune", name))
            weight = parameter.detach()
            exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
            uniform = torch.rand(weight.shape, generator=generator).sub_(0.5).to(exact)
            weight.copy_(exact + self.config.lambda_ * uniform * exact.std())
