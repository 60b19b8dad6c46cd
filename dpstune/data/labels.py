"""What a classifier's labels mean in another task: matched by name, never by position.

An entailment task has three labels (entailment, neutral, contradiction) or two (entailment or not). To compare one kind
with the other, dpstune follows the paper's transfer experiments (Zhang et al. 2022, Appendix E): the model first
predicts one of all its labels, and only then is that label read as one of the target's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dpstune.errors import RequestError, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Meaning = Literal["entailment", "neutral", "contradiction", "non-entailment"]

_MEANINGS: dict[str, Meaning] = {
    "entailment": "entailment",
    "entails": "entailment",
    "neutral": "neutral",
    "contradiction": "contradiction",
    "not_entailment": "non-entailment",
    "non-entailment": "non-entailment",
}
_THREE_WAY = {"entailment", "neutral", "contradiction"}
_TWO_WAY = {"entailment", "non-entailment"}
_SCITAIL = {"entails", "neutral"}  # SciTail calls all that does not follow neutral


@dataclass(frozen=True)
class LabelMapping:
    """How predictions and gold labels are compared.

    Args:
        names: The labels that are compared: the target's, or the model's where gold labels are folded.
        predictions: For each of the model's labels, in its order, its index in ``names``.
        gold: For each of the target's labels, in its order, its index in ``names``.
        two_way: Whether the target's three labels are folded into the model's two.
        description: The mapping in words, for reports.
    """

    names: tuple[str, ...]
    predictions: tuple[int, ...]
    gold: tuple[int, ...]
    two_way: bool
    description: str

    def fold(self, scores: NDArray[Any]) -> NDArray[Any] | None:
        """Return the probability of each of the target's labels: the sum over the model's labels that are read as it.

        Args:
            scores: Of the model's labels, [examples, model labels].

        Returns:
            [examples, target labels]; None where the target has finer labels, whose probabilities the model does not
            tell.
        """
        import numpy as np

        if self.two_way:
            return None
        return np.stack([scores[:, self._read_as(label)].sum(axis=1) for label in range(len(self.names))], axis=1)

    def _read_as(self, label: int) -> list[int]:
        return [index for index, reading in enumerate(self.predictions) if reading == label]


def map_labels(model: Sequence[str], target: Sequence[str]) -> LabelMapping:
    """Say how a model's labels are read in a target task.

    Args:
        model: The model's label names, in the order of its outputs.
        target: The target's label names, in its order.

    Raises:
        RequestError: The labels do not match; the message names both sets.

    >>> map_labels(("entailment", "neutral", "contradiction"), ("not_entailment", "entailment")).predictions
    (1, 0, 0)
    >>> map_labels(("entails", "neutral"), ("entailment", "neutral", "contradiction")).gold
    (0, 1, 1)
    >>> map_labels(("no", "yes"), ("YES", "NO")).predictions
    (1, 0)
    """
    if model and set(model) == set(target):
        return _by_name(tuple(model), tuple(target), dict(zip(model, model, strict=True)))
    folded = {label.casefold(): label for label in target}
    if model and len(folded) == len(target) and sorted(folded) == sorted(map(str.casefold, model)):
        return _by_name(tuple(model), tuple(target), {label: folded[label.casefold()] for label in model})
    ours, theirs = _meanings(model), _meanings(target)
    if ours is None or theirs is None:
        raise RequestError(
            f"a model with {_listed(model)} cannot be evaluated on a task with {_listed(target)}: "
            "the labels should have the same names, or be those of entailment tasks"
        )
    if len(ours) < len(theirs):
        return _by_name(tuple(model), tuple(target), _readings(target, theirs, model, ours), two_way=True)
    return _by_name(tuple(model), tuple(target), _readings(model, ours, target, theirs))


def _by_name(
    model: tuple[str, ...], target: tuple[str, ...], readings: dict[str, str], *, two_way: bool = False
) -> LabelMapping:
    """Turn readings of the model's labels (of the target's, where those are folded) into indices."""
    names = model if two_way else target
    read = tuple(names.index(readings[label]) for label in (target if two_way else model))
    same = tuple(range(len(names)))
    whose = "gold labels" if two_way else "predictions"
    changed = [f"{label} -> {reading}" for label, reading in readings.items() if label != reading]
    description = f"{whose}: {', '.join(changed)}" if changed else "the same labels"
    return LabelMapping(names, same if two_way else read, read if two_way else same, two_way, description)


def _readings(
    labels: Sequence[str], meanings: Sequence[Meaning], others: Sequence[str], theirs: Sequence[Meaning]
) -> dict[str, str]:
    """Return which of ``others`` each label is read as; of two, all but entailment is read as the other one."""
    names = dict(zip(theirs, others, strict=True))
    rest = names.get("non-entailment")
    return {
        label: names[meaning] if meaning in names else str(rest)
        for label, meaning in zip(labels, meanings, strict=True)
    }


def _meanings(labels: Sequence[str]) -> tuple[Meaning, ...] | None:
    """Return what each label of an entailment task means; None for the labels of any other task."""
    folded = [label.casefold() for label in labels]
    if set(folded) == _SCITAIL:
        return tuple("entailment" if label == "entails" else "non-entailment" for label in folded)
    if not set(folded) <= _MEANINGS.keys():
        return None
    meanings = tuple(_MEANINGS[label] for label in folded)
    complete = set(meanings) in (_THREE_WAY, _TWO_WAY) and len(set(meanings)) == len(labels)
    return meanings if complete else None


def _listed(labels: Sequence[str]) -> str:
    return f"the labels {some_of(labels)}" if labels else "no labels (regression)"
