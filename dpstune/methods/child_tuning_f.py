"""CHILD-TUNING-F: each step updates another child network, drawn by chance."""

from __future__ import annotations

from typing import Literal

from dpstune.device.randomness import stream_seed
from dpstune.methods.base import KeptShare, Method, MethodConfig
from dpstune.methods.groups import groups


class ChildTuningFConfig(MethodConfig):
    """Settings of CHILD-TUNING-F (Xu et al. 2021, arXiv 2109.05687).

    Attributes:
        p: Probability with which a gradient element is kept, in (0, 1); the authors try 0.2, 0.3 and 0.4.
    """

    name: Literal["child-tuning-f"] = "child-tuning-f"
    p: KeptShare = 0.3


class ChildTuningF(Method[ChildTuningFConfig]):
    """Task-free CHILD-TUNING.

    At each step, after clipping, every element of every gradient is kept with probability p and divided by p; the
    others become zero: g = g * m / p, m ~ Bernoulli(p), drawn from the seed and the step. The method keeps nothing
    between steps.

    Source: Xu et al. 2021, section 2.2, equations 3 and 4; it acts on all parameters, as in the authors' code.

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(1000, 1, bias=False)
    >>> method = build_method({"name": "child-tuning-f", "p": 0.25})
    >>> method.attach(model, total_steps=10)
    >>> model(torch.ones(1, 1000)).sum().backward()
    >>> method.before_update()
    >>> model.weight.grad.unique().tolist()
    [0.0, 4.0]
    """

    config_class = ChildTuningFConfig
    whole_embeddings = True  # what it draws for a weight would else depend on the words of the training texts

    def before_update(self) -> None:
        """Keep a random share p of the clipped gradients, divided by p."""
        import torch

        assert self.model is not None
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        if not gradients:
            return
        generator = torch.Generator(gradients[0].device)
        generator.manual_seed(stream_seed(self.seed, "child-network", self.step))
        for part in groups(gradients):
            sizes = [gradient.numel() for gradient in gradients[part]]
            # On a CPU, comparing uniform numbers with p is three times as fast as Bernoulli draws; one call for a group
            # and one call for each tensor draw the same numbers there.
            drawn = torch.rand(sum(sizes), generator=generator, device=generator.device)
            factors = drawn.lt_(self.config.p).div_(self.config.p).split(sizes)
            torch._foreach_mul_(
                gradients[part],
                [factor.view(gradient.shape) for factor, gradient in zip(factors, gradients[part], strict=True)],
            )
