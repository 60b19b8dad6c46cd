"""Mixout: at every step replace a random part of the weights by the pre-trained ones."""

from __future__ import annotations

from typing import Literal

from dpstune.methods.base import ReservedProbability
from dpstune.methods.mixing_method import MixingConfig, MixingMethod


class MixoutConfig(MixingConfig):
    """Settings of Mixout (Lee et al. 2020, arXiv 1909.11299).

    Attributes:
        p: Mix probability, in [0, 1): how often a column's weight is replaced by its pre-trained one. The grid is
            0.1 to 0.8.
    """

    name: Literal["mixout"] = "mixout"
    p: ReservedProbability = 0.4


class Mixout(MixingMethod[MixoutConfig]):
    """Mixout over the input columns of every linear layer, toward the pre-trained weights.

    In train mode each linear layer of weight W [out, in] computes with W_eff = W0 + m * (W - W0) / (1 - p), where m is
    one Bernoulli(1 - p) draw for each input column, new at every step. W receives the gradient dL/dW_eff * m. Dropout
    is 0, since mixout takes its place. Each linear weight has one float32 buffer: W0.

    Source: Lee et al. 2020, section 3; as in the authors' code, masks are of columns and the gradient lacks 1/(1 - p).

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> method = build_method({"name": "mixout", "p": 0.5})
    >>> method.attach(model, total_steps=10, mask_source=lambda name, step: [1, 0])
    >>> with torch.no_grad():
    ...     _ = model.weight.add_(1.0)
    >>> model(torch.eye(2)).T.tolist()
    [[2.0, 0.0]]
    """

    config_class = MixoutConfig
