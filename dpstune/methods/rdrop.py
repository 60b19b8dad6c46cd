"""R-Drop: two forward passes of a batch, each with its own dropout, should agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dpstune.methods.base import TWIN_TOKENS, Method, MethodConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


class RDropConfig(MethodConfig):
    """Settings of R-Drop (Wu et al. 2021, arXiv 2106.14448).

    Attributes:
        alpha: Weight of the divergence, 0 or more. The grid is 0.1, 0.5, 1, 3, 5.
        dropout: Dropout of the model, in [0, 1); at 0 the two forward passes are the same.
    """

    name: Literal["r-drop"] = "r-drop"
    alpha: Annotated[float, Field(ge=0.0)] = 1.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1


class RDrop(Method[RDropConfig]):
    """Regularised dropout.

    Each micro-batch goes through the model twice, each time with its own dropout. Loss = CE1 + CE2 + alpha * (KL(1, 2)
    + KL(2, 1)) / 2, averaged over the batch. For regression CE is a squared error, and the mean squared difference of
    the two outputs replaces (KL(1, 2) + KL(2, 1)) / 2.

    Source: Wu et al. 2021, section 2, equations 2 to 4.

    >>> from dpstune import build_method
    >>> build_method({"name": "r-drop", "alpha": 3}).dropout(total_steps=100)
    0.1
    """

    config_class = RDropConfig
    most_tokens = TWIN_TOKENS
    needs_dropout = True
    serves_several_labels = False  # its divergence compares one distribution an example

    def dropout(self, total_steps: int) -> float | None:
        """Return the dropout that the two forward passes draw."""
        return self.config.dropout

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of both forward passes plus alpha times their divergence, averaged over the batch."""
        from dpstune.methods.twin import (
            is_regression,
            note_problem_type,
            refuse_several_labels,
            symmetric_divergence,
            task_loss,
            twin_logits,
        )

        labels = batch["labels"]
        first, second = twin_logits(model, batch)
        refuse_several_labels(model, first, labels)
        note_problem_type(model, first, labels)
        divergence = symmetric_divergence(first, second)
        if not is_regression(first):
            divergence = divergence / 2
        losses = task_loss(first, labels, self.criterion) + task_loss(second, labels, self.criterion)
        return losses + self.config.alpha * divergence
