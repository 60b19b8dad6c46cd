"""Likely wrong labels: examples that every restart answers alike, and against their gold label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_RESTARTS = 2


@dataclass(frozen=True)
class Suspect:
    """An example whose gold label is likely wrong.

    Args:
        place: Its position among the examples.
        label: Its gold label.
        answer: What every restart answered.
        label_probability: The mean probability that the restarts gave the gold label; None where it is not known.
        restarts: How many there are.
    """

    place: int
    label: str
    answer: str
    label_probability: float | None
    restarts: int


def have_learned(labels: Sequence[str | None], answers: Sequence[Sequence[str]]) -> list[bool]:
    """Tell which restarts have more right answers than one answer to all has; of unknown labels all.

    One that has not would cut the list of suspects down to its own answer.

    >>> have_learned(["a", "b", "b"], [["b", "b", "b"], ["a", "b", "b"]])
    [False, True]
    """
    counts = Counter(label for label in labels if label is not None)
    most = max(counts.values(), default=-1)
    return [sum(given == label for given, label in zip(each, labels, strict=True)) > most for each in answers]


def likely_wrong(
    labels: Sequence[str | None],
    answers: Sequence[Sequence[str]],
    label_probabilities: Sequence[NDArray[np.floating] | None] = (),
) -> list[Suspect]:
    """Return the examples that all restarts answer alike and against the gold label, the least likely label first.

    No restart may have been trained on an example that it answers. One restart alone is often wrong; that restarts of
    several methods, which differ in the order of examples, in dropout and in their head, are wrong alike is rarer.

    Args:
        labels: The gold labels; None where an example has none.
        answers: Of each restart that learned something (``have_learned``), one an example.
        label_probabilities: The probability that each restart gave the gold label, one an example; None for a restart
            where it is not known.

    Returns:
        The suspects, by rising probability of their label (``self_confidence`` of Northcutt et al. 2021, "Confident
        learning"); empty for fewer than two restarts.

    >>> of_the_label = np.array([0.2, 0.1, 0.4]), np.array([0.2, 0.1, 0.6])
    >>> [found.place for found in likely_wrong(["a", "b", "b"], [["b", "a", "a"], ["b", "a", "b"]], of_the_label)]
    [1, 0]
    """
    if len(answers) < FEWEST_RESTARTS:
        return []
    known = [each for each in label_probabilities if each is not None]
    mean = np.mean(known, axis=0) if known and len(known) == len(answers) else None
    suspects = [
        Suspect(place, label, answers[0][place], None if mean is None else float(mean[place]), len(answers))
        for place, label in enumerate(labels)
        if label is not None and answers[0][place] != label and len({each[place] for each in answers}) == 1
    ]
    return sorted(suspects, key=lambda suspect: suspect.label_probability or 0.0)
