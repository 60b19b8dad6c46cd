"""Several labels an example: which a model gives, how good they are, what always giving the same ones would get.

Labels are a row of 0 and 1 for every example, one a label of the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpstune.settings.tasks import MULTILABEL_METRICS

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


def multilabel_metrics(
    headline: str, predictions: Sequence[LabelRow], gold: Sequence[LabelRow]
) -> dict[str, float | None]:
    """Return F1 over all labels of all examples, the mean of each label's F1, and the share of exact answers.

    A label that is neither given nor right has F1 0.

    Args:
        headline: Which comes first.
        predictions: A row an example.
        gold: Likewise.

    >>> multilabel_metrics("micro_f1", [(1, 0), (1, 1)], [(1, 0), (0, 1)])
    {'micro_f1': 0.8, 'macro_f1': 0.8333333333333333, 'subset_accuracy': 0.5}
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score

    answers, right = np.array(predictions), np.array(gold)
    average = "binary" if right.shape[1] == 1 else None  # scikit-learn takes a single column for two classes
    values = {
        "micro_f1": f1_score(right, answers, average=average or "micro", zero_division=0.0),
        "macro_f1": f1_score(right, answers, average=average or "macro", zero_division=0.0),
        "subset_accuracy": accuracy_score(right, answers),
    }
    names = (headline, *(name for name in MULTILABEL_METRICS if name != headline))
    return {name: float(values[name]) for name in names}


def commonest_labels(train: Sequence[LabelRow]) -> LabelRow:
    """Return the labels that more than half of the training examples have: the best to give always.

    >>> commonest_labels([(1, 0), (1, 1), (0, 0)])
    (1, 0)
    """
    return tuple(int(2 * sum(column) > len(train)) for column in zip(*train, strict=True))
