"""Turn labels as they were read into indices or values: sort their names, find missing and unknown ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dpstune.data.examples import Examples
from dpstune.data.sources import LABEL_SEPARATOR, RawSplit
from dpstune.data.written_forms import nearest, number, seem_values, with_point
from dpstune.errors import RequestError, shortened, some_of
from dpstune.settings.tasks import Kind

LARGEST_VALUE = 3.4e38  # of float32
UNLABELLED = (None, "")
WRITTEN_GAPS = ("nan", "NaN")  # what str() makes of a missing label
NO_GOLD_LABEL = ("-", "-1")  # SNLI and corpora like it mark so a pair on which annotators did not agree


def gaps(kind: Kind) -> tuple[str | None, ...]:
    """Return what stands for a missing label in a user's own data."""
    if kind == "multilabel":
        return (None, *WRITTEN_GAPS)  # what is empty is no gap: the example has no label
    return (*UNLABELLED, *WRITTEN_GAPS) if kind == "classification" else UNLABELLED


def sort_names(names: set[str]) -> tuple[str, ...]:
    """Sort names: as numbers if all are numbers ("1" before "1.0"), else as text; the same on every machine."""
    values = _numbers(names)
    return tuple(sorted(names) if values is None else sorted(names, key=lambda name: (values[name], name)))


def _numbers(names: Iterable[str]) -> dict[str, float] | None:
    """Return the number that each name is; None if one is not a finite number."""
    values = {name: value for name in names if (value := number(name)) is not None}
    return values if len(values) == len(set(names)) else None


def label_examples(
    raw: RawSplit,
    kind: Kind,
    names: tuple[str, ...],
    split: str,
    notes: list[str],
    unlabelled_marks: Sequence[str | None],
) -> Examples:
    """Turn raw labels into indices or values; drop examples without a gold label, and say how many.

    Args:
        raw: The split as it was read.
        kind: What the labels are.
        names: The labels, in the order of their indices; empty for regression.
        split: Its name; one that begins with ``test`` may have no labels.
        notes: What a user should know is appended to it.
        unlabelled_marks: What stands for a missing label.

    Raises:
        RequestError: The split is empty or has no labels, or a label is unknown, not a number, or a list where an
            example has one.
    """
    if raw.renumbered:
        notes.append(f"{raw.source}: ids repeat; examples are numbered by row")
    if raw.malformed:
        notes.append(f"{raw.source}: left out {raw.malformed} rows with too few or too many columns")
    if not raw.ids:
        raise RequestError(f"split {split} is empty: {raw.source} holds no examples")
    unlabelled = [label in unlabelled_marks for label in raw.labels]
    if raw.first_list is not None and kind != "multilabel":
        raise RequestError(
            f"{raw.first_list} holds a list, not text; where an example may have several labels, say kind: multilabel"
        )
    empty = (*unlabelled_marks, *(() if kind == "multilabel" else UNLABELLED))
    if not raw.labels or all(label in empty for label in raw.labels):
        if not split.startswith("test"):
            raise RequestError(f"split {split} has no labels: {raw.source}")
        return Examples(raw.ids, raw.texts, None, groups=raw.groups or None)
    kept = [i for i, without in enumerate(unlabelled) if not without]
    if len(kept) < len(raw.ids):
        written = next((label for label in raw.labels if label in WRITTEN_GAPS), None)
        why = "no gold label" + (f" ({written!r} is read as missing; if it is a label, rename it)" if written else "")
        notes.append(f"{raw.source}: dropped {len(raw.ids) - len(kept)} of {len(raw.ids)} examples: {why}")
    to_label = {"regression": _value, "classification": _index, "multilabel": _row}[kind]
    labels: list[Any] = [to_label(raw, i, names) for i in kept]
    groups = [raw.groups[i] for i in kept] if raw.groups else None
    return Examples([raw.ids[i] for i in kept], [raw.texts[i] for i in kept], labels, groups=groups)


def several(text: str | None) -> list[str]:
    """Return the labels of an example that may have several: what stands between the separators.

    >>> several("loud; angry"), several("")
    (['loud', 'angry'], [])
    """
    return [label for part in (text or "").split(LABEL_SEPARATOR) if (label := part.strip())]


def _row(raw: RawSplit, position: int, names: tuple[str, ...]) -> tuple[int, ...]:
    own = {_find(label, raw, position, names) for label in several(raw.labels[position])}
    return tuple(int(index in own) for index in range(len(names)))


def _index(raw: RawSplit, position: int, names: tuple[str, ...]) -> int:
    return _find(raw.labels[position], raw, position, names)


def _find(label: str | None, raw: RawSplit, position: int, names: tuple[str, ...]) -> int:
    if label not in names:
        place = raw.place(position)
        what = f"unknown label {shortened(repr(label))}; the labels are {some_of(names)}"
        raise RequestError(f"{place}: {what}{_label_hint(str(label), names)}")
    return names.index(label)


def _label_hint(label: str, names: Sequence[str]) -> str:
    """Return a hint about an unknown label: the name nearest to it, or regression if the labels are many numbers."""
    if seem_values(names):
        return "; if they are values, not classes, set kind: regression"
    return nearest(label, names)


def _value(raw: RawSplit, position: int, names: tuple[str, ...]) -> float:
    label = raw.labels[position]
    value = number(label or "")
    if value is None or abs(value) > LARGEST_VALUE:
        has_comma = value is None and number(with_point(label or "")) is not None
        hint = "; write it with a point and no comma" if has_comma else ""
        raise RequestError(f"{raw.place(position)}: a regression label should be a finite float32, not {label!r}{hint}")
    return value
