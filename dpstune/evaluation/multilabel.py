"""Several labels an example: which a model gives, and which are the commonest.

Labels are a row of 0 and 1 for every example, one a label of the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

THRESHOLD = 0.5
"""The probability from which on a label is given."""

LabelRow = tuple[int, ...]


def given_labels(probabilities: torch.Tensor) -> list[LabelRow]:
    """Return the labels whose probability is the threshold or more, a row an example.

    Args:
        probabilities: [examples, labels].
    """
    return [tuple(row) for row in (probabilities >= THRESHOLD).int().tolist()]


def names_of(row: LabelRow, names: Sequence[str]) -> list[str]:
    """Return the names of an example's labels.

    >>> names_of((1, 0, 1), ("angry", "happy", "loud"))
    ['angry', 'loud']
    """
    return [name for name, is_given in zip(names, row, strict=True) if is_given]


def commonest_labels(train: Sequence[LabelRow]) -> LabelRow:
    """Return the labels that more than half of the training examples have: always given, the fewest are wrong.

    >>> commonest_labels([(1, 0), (1, 1), (0, 0)])
    (1, 0)
    """
    return tuple(int(2 * sum(column) > len(train)) for column in zip(*train, strict=True))
