"""What methods share that train a part of the weights: the rest requires no gradient while they are attached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from dpstune.methods.base import Method, MethodConfig

if TYPE_CHECKING:
    from torch import nn

C = TypeVar("C", bound=MethodConfig)


class FreezingMethod(Method[C]):
    """A method that trains some parameters and freezes the others; a subclass says which train.

    A frozen parameter has ``requires_grad`` false: it gets no gradient and no moments of AdamW, weight decay leaves it
    alone, and the backward pass ends above the lowest layer that trains. What was frozen before stays frozen.

    Args:
        config: The method's settings.
    """

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self._frozen: list[nn.Parameter] = []

    @abstractmethod
    def trained(self, model: nn.Module) -> Iterable[nn.Parameter]:
        """Return the parameters that train.

        Raises:
            RequestError: The model is not one that the method can train.
        """

    def freeze(self, model: nn.Module) -> None:
        """Freeze what does not train; a second call does nothing."""
        trained = {id(parameter) for parameter in self.trained(model)}
        for parameter in model.parameters():
            if parameter.requires_grad and id(parameter) not in trained:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def acquire(self, model: nn.Module) -> None:
        """Freeze what does not train."""
        self.freeze(model)

    def detach(self) -> None:
        """Let go of the model; what the method has frozen can train again."""
        super().detach()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []
