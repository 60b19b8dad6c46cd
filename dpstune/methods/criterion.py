"""The loss of a task where it is another than the model's own: labels that weigh more, labels that are softened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Criterion:
    """Cross-entropy with a weight a label and label smoothing, averaged over the examples.

    Each example's loss is multiplied by its label's weight, and the sum is divided by the number of examples; not by
    the sum of the weights, as ``torch.nn.CrossEntropyLoss`` has it. So a batch gives one gradient, however it is cut
    into passes, accumulated or shared between ranks. Smoothing by s gives the label 1 - s and all labels together s
    (Szegedy et al. 2016, section 7); a loss is then a sum over all labels, each term multiplied by the weight of its
    own label rather than of the example's, as in ``torch.nn.functional.cross_entropy``.

    Where an example may have several labels, each label is a question of its own: binary cross-entropy, averaged over
    labels and examples. A label's weight is what its positive examples count for one negative; smoothing by s asks for
    1 - s/2 and s/2 in the place of 1 and 0.

    Args:
        label_weights: float32 [labels]; None weighs all the same.
        label_smoothing: s, in [0, 1).
        multilabel: Whether an example may have several labels.

    >>> import torch
    >>> logits, labels = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    >>> criterion = Criterion(label_weights=torch.tensor([1.0, 3.0]))
    >>> round(criterion(logits, labels).item(), 4)  # log 2 and three times log 2, by two examples
    1.3863
    """

    label_weights: Tensor | None = None
    label_smoothing: float = 0.0
    multilabel: bool = False

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over a batch, 0-d.

        Args:
            logits: [B, labels].
            labels: int64 [B]; for several labels an example a float 0 or 1 each, [B, labels].
        """
        import torch.nn.functional as F

        weights = None if self.label_weights is None else self.label_weights.to(logits)
        if self.multilabel:
            smoothing = self.label_smoothing
            targets = labels * (1.0 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, targets.to(logits), pos_weight=weights)
        losses = F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.label_smoothing, reduction="none")
        return losses.mean()
