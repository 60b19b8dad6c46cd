"""What is wrong with labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from statistics import fmean, pstdev

from dpstune.data.finding import Finding, Places, Row, Severity, histogram, part_of, share
from dpstune.data.gold_labels import several
from dpstune.data.sources import LABEL_SEPARATOR, RawSplit
from dpstune.data.written_forms import label_form, looks, number, seem_values, text_form
from dpstune.errors import counted, shortened, some_of

LARGE_SHARE, LARGEST_SHARE = 0.75, 0.9
MANY_TIMES = 10  # the largest label's rows to the smallest one's
MANY_UNLABELLED = 0.1
PERHAPS_NONE = ("-", "?", "na", "n/a", "none", "null", "unknown")
STANDARDISE = (
    "With training.standardise: true a model is trained on (value - mean) / standard deviation, and predicts values "
    "as they were."
)
_FAR = 5.0  # a new output layer gives values near 0
_MOST_LISTED = 8
_LONGEST = 30  # characters of a label


class Labels:
    """The label column.

    Args:
        raw: The splits.
        unlabelled: What stands in it where a row has no label.
        labels_of: The labels that a cell holds; the cell is one where nothing is given.
    """

    def __init__(
        self,
        raw: Mapping[str, RawSplit],
        unlabelled: Sequence[str | None],
        labels_of: Callable[[str], Sequence[str]] = lambda cell: [cell],
    ) -> None:
        self.raw = raw
        self.training = "train" if "train" in raw else next(iter(raw))
        self.rows: dict[str, dict[str, list[Row]]] = {split: defaultdict(list) for split in raw}
        self.missing: list[Row] = []
        self.expected = 0
        """How many rows should have a label."""
        for split, part in raw.items():
            some = any(label not in unlabelled for label in part.labels)  # a test split may have none
            asked = some or not split.startswith("test")
            self.expected += len(part.labels) if asked else 0
            for position, label in enumerate(part.labels):
                if label is not None and label not in unlabelled:
                    for each in dict.fromkeys(labels_of(label)):
                        self.rows[split][each].append((split, position))
                elif asked:
                    self.missing.append((split, position))

    @property
    def counts(self) -> Counter[str]:
        """How many training rows have each label."""
        return Counter({label: len(rows) for label, rows in self.rows[self.training].items()})

    def everywhere(self) -> dict[str, list[Row]]:
        """Return every label's rows, of all splits."""
        found: dict[str, list[Row]] = defaultdict(list)
        for label, rows in chain.from_iterable(split.items() for split in self.rows.values()):
            found[label] += rows
        return found


def set_of_labels(cell: str) -> list[str]:
    """Return the labels of an example that may have several as one text, in whatever order they are written.

    >>> set_of_labels("loud; angry")
    ['angry; loud']
    """
    return [f"{LABEL_SEPARATOR} ".join(sorted({*several(cell)}))]


def class_findings(labels: Labels, places: Places, parts: int | None) -> Iterator[Finding]:
    """Yield what is wrong with the labels of classes.

    Args:
        labels: The label column.
        places: Names rows.
        parts: How many parts each label should have rows in: those that the rows are yet to be cut into, such as folds;
            None where the splits are there.
    """
    counts = labels.counts
    total = counts.total()
    yield from _missing(labels, places)
    if len(counts) < 2:
        what = f"every labelled row has the label {_quoted(next(iter(counts)))}" if counts else "no row has a label"
        yield Finding(
            "one-label", "error", total, (), "Give rows of two labels or more: there is nothing to learn.", (what,)
        )
        return
    numbers = seem_values(counts)
    one_each = total >= 5 and len(counts) > 0.9 * total
    if numbers:
        comma = "" if all(number(label) is not None for label in counts) else ", and write them with a point (1.5)"
        yield Finding(
            "numbers-as-labels",
            "error" if one_each else "warning",
            total,
            (),
            f"Where they are values, say kind: regression in the task{comma}.",
            (f"{len(counts)} different numbers are labels: {some_of(counts)}",),
        )
    elif one_each:
        yield Finding(
            "label-of-its-own",
            "error",
            total,
            (),
            "Name the column that holds the labels: this one tells rows apart, as an id or a text does.",
            (f"{total} rows have {len(counts)} different labels",),
        )
    if numbers or one_each:
        return
    yield from _name_findings(labels, places, parts)
    column = _by_commonest_spelling(labels.rows[labels.training])
    yield from _imbalance(Counter({label: len(rows) for label, rows in column.items()}))


def several_findings(labels: Labels, sets: Labels, places: Places, parts: int | None) -> Iterator[Finding]:
    """Yield what is wrong with the labels of examples that may have several.

    Args:
        labels: The label column, each label by itself.
        sets: The same, each example's labels together; see ``set_of_labels``.
        places: Names rows.
        parts: See ``class_findings``.
    """
    yield from _missing(labels, places)
    counts = sets.counts
    if len(counts) < 2:
        what = f"every labelled row has the labels {_quoted(next(iter(counts)))}" if counts else "no row has a label"
        remedy = "Give rows of different labels: there is nothing to learn."
        yield Finding("one-label", "error", counts.total(), (), remedy, (what,))
        return
    yield from _name_findings(labels, places, parts)


def _name_findings(labels: Labels, places: Places, parts: int | None) -> Iterator[Finding]:
    yield from _spellings(labels, places)
    yield from _not_trained(labels, places, labels.raw[labels.training].label_names)
    yield from _perhaps_none(labels, places)
    yield from _rare(_by_commonest_spelling(labels.rows[labels.training]), places, parts)


def far_values(values: Sequence[float]) -> str | None:
    """Say how values lie that a new output layer, which starts at 0, hardly reaches; None where it does.

    >>> far_values([1.0, 2.0, 4.5]), far_values([20.0, 100.0])
    (None, 'the values lie far from 0 or far apart: mean 60, standard deviation 40')
    """
    if not values:
        return None
    mean, deviation = fmean(values), pstdev(values)
    if max(abs(mean), deviation) <= _FAR:
        return None
    return f"the values lie far from 0 or far apart: mean {mean:.6g}, standard deviation {deviation:.6g}"


def value_findings(labels: Labels, places: Places, *, standardised: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with the labels of regression.

    Args:
        labels: The values, as they are written.
        places: Names rows.
        standardised: They are trained on as (value - mean) / standard deviation: they may lie far from 0.
    """
    yield from _missing(labels, places)
    wrong = {label: rows for label, rows in labels.everywhere().items() if number(label) is None}
    if wrong:
        rows = list(chain.from_iterable(wrong.values()))
        yield Finding(
            "no-number",
            "error",
            len(rows),
            places.some(rows),
            "Write a number there, with a point and no comma (1.5), or leave out kind: regression.",
            (f"labels that are no numbers: {some_of(map(_quoted, wrong))}",),
        )
    values = {value for label in labels.counts if (value := number(label)) is not None}
    if len(values) == 1 or not (values or wrong):
        what = "every row that has a value has the same value" if values else "no row has a value"
        yield Finding(
            "one-label",
            "error",
            labels.counts.total(),
            (),
            "Give rows of different values: there is nothing to learn.",
            (what,),
        )
        return
    each = [value for label in labels.counts.elements() if (value := number(label)) is not None]
    if not standardised and (far := far_values(each)):
        yield Finding("far-values", "note", labels.counts.total(), (), STANDARDISE, (far,))


def _missing(labels: Labels, places: Places) -> Iterator[Finding]:
    if labels.missing:
        yield Finding(
            "unlabelled",
            "warning" if len(labels.missing) > MANY_UNLABELLED * labels.expected else "note",
            len(labels.missing),
            places.some(labels.missing),
            "Label these rows, or take them out: training leaves them out.",
            (f"no label: {part_of(len(labels.missing), labels.expected)}",),
        )


def _perhaps_none(labels: Labels, places: Places) -> Iterator[Finding]:
    marks = {label: rows for label, rows in labels.everywhere().items() if text_form(label) in PERHAPS_NONE}
    if marks:
        rows = list(chain.from_iterable(marks.values()))
        yield Finding(
            "label-or-none",
            "note",
            len(rows),
            places.some(rows),
            "Empty these cells where they mean that a row has no label: as it is, they are one.",
            (f"labels that may mean that there is none: {some_of(map(_quoted, marks))}",),
        )


def _spellings(labels: Labels, places: Places) -> Iterator[Finding]:
    found = labels.everywhere()
    groups: dict[str, list[str]] = defaultdict(list)
    for label in found:
        groups[label_form(label)].append(label)
    respelled = [sorted(group, key=lambda label: -len(found[label])) for group in groups.values() if len(group) > 1]
    if not respelled:
        return
    rare = [row for group in respelled for label in group[1:] for row in found[label]]
    lines = [
        " = ".join(f"{name} ({len(found[label])})" for label, name in _told_apart(group).items()) for group in respelled
    ]
    yield Finding(
        "label-spellings",
        "error",
        len(rare),
        places.some(rare),
        "Write each label one way: as it is, each spelling is a class of its own.",
        (f"labels that differ only in case, spaces, Unicode form or number form: {lines[0]}", *_listed(lines[1:])),
    )


def _not_trained(labels: Labels, places: Places, declared: Sequence[str]) -> Iterator[Finding]:
    trained = {label_form(label) for label in labels.counts}  # another spelling is told as such
    column = [
        (label, rows)
        for split, column in labels.rows.items()
        if split != labels.training
        for label, rows in column.items()
        if label_form(label) not in trained
    ]
    unknown = [(label, rows) for label, rows in column if label not in declared]
    if unknown:
        remedy = "Give the training split rows of these labels, or take these rows out: training refuses them."
        yield _labels_not_trained("error", unknown, places, "labels that no training row has", remedy)
    known = [(label, rows) for label, rows in column if label in declared]
    if known:
        remedy = "Give the training split rows of these labels: without one, no model learns to answer them."
        yield _labels_not_trained("warning", known, places, "known labels that no training row has", remedy)


def _labels_not_trained(
    severity: Severity, column: Sequence[tuple[str, list[Row]]], places: Places, what: str, remedy: str
) -> Finding:
    rows = list(chain.from_iterable(rows for _, rows in column))
    names = dict.fromkeys(_quoted(label) for label, _ in column)
    return Finding("label-not-trained", severity, len(rows), places.some(rows), remedy, (f"{what}: {some_of(names)}",))


def _by_commonest_spelling(column: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Return each label's rows, its other spellings' among them."""
    found: dict[str, list[Row]] = {}
    names: dict[str, str] = {}
    for label in sorted(column, key=lambda label: -len(column[label])):
        found.setdefault(names.setdefault(label_form(label), label), []).extend(column[label])
    return found


def _rare(column: Mapping[str, Sequence[Row]], places: Places, parts: int | None) -> Iterator[Finding]:
    once = [label for label, rows in column.items() if len(rows) == 1]
    if once:
        yield Finding(
            "label-once",
            "warning",
            len(once),
            places.some(column[label][0] for label in once),
            "Give these labels more rows, or put them together with others.",
            (f"{counted(len(once), 'label')} seen once: {some_of(map(_quoted, once))}",),
        )
    few = {label: rows for label, rows in column.items() if 1 < len(rows) < (parts or 0)}
    if few:
        rows = list(chain.from_iterable(few.values()))
        listed = some_of(f"{_quoted(label)} ({len(rows)})" for label, rows in few.items())
        yield Finding(
            "label-rare",
            "warning",
            len(rows),
            places.some(rows),
            "Give these labels more rows, or ask for fewer folds.",
            (f"labels with fewer rows than there are folds ({parts}): {listed}",),
        )


def _imbalance(counts: Counter[str]) -> Iterator[Finding]:
    ranked = counts.most_common()
    total = counts.total()
    (largest, most), (smallest, least) = ranked[0], ranked[-1]
    if most < LARGE_SHARE * total and most < MANY_TIMES * least:
        return
    shown = dict(ranked[:_MOST_LISTED])
    bars = histogram({_quoted(label): count for label, count in shown.items()})
    yield Finding(
        "imbalance",
        "warning" if most >= LARGEST_SHARE * total else "note",
        total,
        (),
        "Look at macro_f1 or matthews rather than accuracy, and try training.class_weights: balanced.",
        (
            f"{_quoted(largest)} has {share(most, total)} of the training rows, "
            f"{_quoted(smallest)} has {share(least, total)}",
            *bars,
            *([f"and {len(ranked) - len(shown)} more"] if len(ranked) > len(shown) else []),
        ),
    )


def _quoted(label: str) -> str:
    return shortened(repr(label), _LONGEST)


def _told_apart(group: Sequence[str]) -> dict[str, str]:
    """Return how each spelling is shown: with escapes where two would look the same."""
    alike = len(set(map(looks, group))) < len(group)
    return {label: ascii(label) if alike else _quoted(label) for label in group}


def _listed(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - _MOST_LISTED
    return [*lines[:_MOST_LISTED], *([f"and {rest} more"] if rest > 0 else [])]
