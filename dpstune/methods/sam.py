"""SAM: update the weights with the gradient at a nearby point where the loss is higher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.errors import RequestError
from dpstune.methods.base import Method, MethodConfig
from dpstune.methods.groups import groups, zero_unless

if TYPE_CHECKING:
    import torch
    from torch import nn


class SamConfig(MethodConfig):
    """Settings of sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412).

    Attributes:
        rho: How far the weights are moved, as the 2-norm over all parameters together, above 0.
    """

    name: Literal["sam"] = "sam"
    rho: Annotated[float, Field(gt=0.0)] = 0.05


class Sam(Method[SamConfig]):
    """Sharpness-aware minimisation.

    A step has two rounds. The first gives the gradient g at the weights w; then w is moved by eps = rho * g / ||g||_2,
    the norm taken over all parameters that train. The second gives the gradient at w + eps. Before clipping the weights
    get the values that they had; the optimizer updates them with the second gradient. Dropout is the same in both
    rounds, so that both are gradients of one function. The loss of a step is that at w.

    All ranks and micro-batches of a step share one eps. Where ||g||_2 is 0 or not finite, eps is 0. The method keeps
    nothing between steps; from the first round of a step to its clipping it holds a copy of the weights that train.

    Source: Foret et al. 2021, section 2, equation 2 with p = 2 and equation 3; algorithm 1. Shared dropout as in the
    authors' code, google-research/sam, sam_jax/training_utils/flax_training.py.

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> method = build_method({"name": "sam", "rho": 1.0})
    >>> method.attach(model, total_steps=10)
    >>> model.weight.square().sum().backward()  # the gradient is twice the weights
    >>> method.after_round(1)
    >>> model.zero_grad()
    >>> model.weight.square().sum().backward()
    >>> method.before_clip()
    >>> [[round(number, 4) for number in each.tolist()[0]] for each in (model.weight, model.weight.grad)]
    [[3.0, 4.0], [7.2, 9.6]]
    """

    config_class = SamConfig
    rounds_share_dropout = True

    def acquire(self, model: nn.Module) -> None:
        """Hold no weights yet."""
        self._weights: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []
        self._moved = False

    @property
    def rounds(self) -> int:
        """Two: at the weights, and at the moved ones."""
        return 2

    def after_round(self, number: int) -> None:
        """Keep a copy of the weights that have gradients, and move them by eps.

        A gradient that is multiplied by a loss scale gives the same eps.
        """
        import torch

        assert self.model is not None
        self._weights = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        self._moved = True
        if not gradients:
            return
        norm = torch.nn.utils.get_total_norm(gradients)  # not finite where a gradient is not
        usable = norm.isfinite() & (norm > 0)
        norm = torch.where(usable, norm, 1.0)
        self._copies = [torch.empty_like(weight) for weight in self._weights]
        with torch.no_grad():
            torch._foreach_copy_(self._copies, self._weights)
            for part in groups(gradients):
                eps = zero_unless(usable, gradients[part])
                torch._foreach_div_(eps, norm)
                torch._foreach_add_(self._weights[part], eps, alpha=self.config.rho)

    def before_clip(self) -> None:
        """Give the weights back the values that they had, to the bit.

        Raises:
            RequestError: The loop computed the gradients once, so that they are plain fine-tuning's.
        """
        if not self._moved:
            raise RequestError("sam needs a loop that computes the gradients of a step in two rounds: method.rounds")
        self._restore()

    def release(self) -> None:
        """Leave no weight moved, also where a step was broken off."""
        self._restore()

    def _restore(self) -> None:
        import torch

        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, self._copies)  # subtracting eps would round
        self._weights, self._copies, self._moved = [], [], False
