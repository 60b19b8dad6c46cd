"""Rows that say the same as others: to the letter, nearly, and with another label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from dpstune.data.finding import MOST_PLACES, RARE, Finding, Places, Row, Severity, part_of
from dpstune.data.label_findings import Labels
from dpstune.data.near_duplicates import ALIKE, near_pairs
from dpstune.data.sources import RawSplit
from dpstune.data.written_forms import label_form, text_form
from dpstune.errors import counted, shortened

Form = tuple[str, ...]

_BEFORE_THE_DIFFERENCE, _SHOWN = 20, 64  # characters of a text
_MOST_OF_A_SPLIT = 0.5
_LEARNED_BY_HEART = "Take these rows out of one of the splits: their score counts what was learned by heart."
_COUNTED_TWICE = "Keep one of each: training counts these rows more than others."
_ON_BOTH_SIDES = "Keep one of each, or keep them together when the rows are cut into splits or folds."


class _Alike(NamedTuple):
    """How alike rows are: what that is called, in words, and between two places."""

    name: str
    what: str
    sign: str
    exact: bool


_THE_SAME = _Alike("duplicates", "the same text as", "=", exact=True)
_NEARLY = _Alike("near-duplicates", f"nearly the same text (similarity {ALIKE} or more) as", "~", exact=False)


@dataclass(frozen=True)
class _Copy:
    """A row, and the earlier row that it repeats."""

    row: Row
    of: Row


def duplicate_findings(
    raw: Mapping[str, RawSplit], labels: Labels | None, places: Places, parts: int | None, *, near: bool
) -> Iterator[Finding]:
    """Yield which rows repeat others, within a split and across splits; case, spaces and Unicode form do not count.

    Args:
        raw: The splits.
        labels: The labels of classes; None for regression, where equal texts may differ a little.
        places: Names rows.
        parts: The parts that the rows are yet to be cut into; None where the splits are there.
        near: Look for those that nearly repeat others, too.
    """
    look = _Look(raw, labels, places, parts)
    for alike, copies in [(_THE_SAME, look.copies()), *([(_NEARLY, look.near_copies())] if near else [])]:
        yield from look.across(alike, copies)
        yield from look.within(alike, copies)
    yield from look.contradictions()


class _Look:
    """A look at which rows repeat others; see ``duplicate_findings`` for the arguments."""

    def __init__(self, raw: Mapping[str, RawSplit], labels: Labels | None, places: Places, parts: int | None) -> None:
        self._raw, self._places, self._parts = raw, places, parts
        columns = labels.everywhere() if labels is not None else {}
        self._labels = {row: label for label, rows in columns.items() for row in rows}
        self._rows: dict[Form, list[Row]] = defaultdict(list)  # of each different text, those of training first
        for split in sorted(raw, key=lambda split: split != "train"):
            for position, texts in enumerate(raw[split].texts):
                form = tuple(map(text_form, texts))
                if any(form):  # empty texts are told elsewhere
                    self._rows[form].append((split, position))

    def copies(self) -> list[_Copy]:
        """Return the rows whose text another row has, too."""
        return [_Copy(row, same[0]) for same in self._rows.values() for row in same[1:]]

    def near_copies(self) -> list[_Copy]:
        """Return the rows whose text another row nearly has."""
        first = [same[0] for same in self._rows.values()]
        number = {split: position for position, split in enumerate(self._raw)}
        pairs = near_pairs(list(self._rows), [number[split] for split, _ in first])
        return [_Copy(first[pair.later], first[pair.earlier]) for pair in pairs]

    def across(self, alike: _Alike, copies: Sequence[_Copy]) -> Iterator[Finding]:
        """Yield the rows of which an earlier split has a copy."""
        found = {copy.row: copy for copy in reversed(copies) if copy.row[0] != copy.of[0]}  # one of each row
        if not found:
            return
        chosen = sorted(found.values(), key=lambda copy: (list(self._raw).index(copy.row[0]), copy.row[1]))
        counts = Counter(copy.row[0] for copy in chosen)
        most = max(count / len(self._raw[split].texts) for split, count in counts.items())
        severity: Severity = "warning" if alike.exact or most >= RARE else "note"
        if alike.exact and most > _MOST_OF_A_SPLIT:
            severity = "error"
        listed = "; ".join(
            f"{part_of(count, len(self._raw[split].texts))} of {split}" for split, count in counts.items()
        )
        told = f"{alike.what} a row of an earlier split: {listed}"
        yield self._finding(f"{alike.name}-across", severity, alike, chosen, told, _LEARNED_BY_HEART)

    def within(self, alike: _Alike, copies: Sequence[_Copy]) -> Iterator[Finding]:
        """Yield the rows of which their own split has a copy."""
        chosen = [copy for copy in copies if copy.row[0] == copy.of[0]]
        if not chosen:
            return
        total = sum(len(part.texts) for part in self._raw.values())
        wrong = self._parts is not None and (alike.exact or len(chosen) >= RARE * total)
        told = f"{alike.what} an earlier row: {part_of(len(chosen), total)}"
        remedy = _COUNTED_TWICE if self._parts is None else _ON_BOTH_SIDES
        yield self._finding(alike.name, "warning" if wrong else "note", alike, chosen, told, remedy)

    def contradictions(self) -> Iterator[Finding]:
        """Yield the texts that have more than one label."""
        wrong: list[Row] = []
        pairs: list[_Copy] = []
        for same in self._rows.values():
            labelled = [row for row in same if row in self._labels]
            others = [row for row in labelled if self._differ(row, labelled[0])]
            if others:
                wrong += labelled
                pairs.append(_Copy(others[0], labelled[0]))
        if wrong:
            one, other = (self._labels[row] for row in (pairs[0].of, pairs[0].row))
            [text] = self._shown(pairs[0].of, pairs[0].of)
            yield Finding(
                "contradiction",
                "warning",
                len(wrong),
                self._both(pairs, _THE_SAME.sign),
                "Decide which label is right, or keep one of these rows.",
                (
                    f"{len(wrong)} rows of {counted(len(pairs), 'text')} with more than one label",
                    text,
                    f"  is {shortened(repr(one))} and {shortened(repr(other))}",
                ),
            )

    def _differ(self, row: Row, other: Row) -> bool:
        return label_form(self._labels[row]) != label_form(self._labels[other])

    def _finding(
        self, name: str, severity: Severity, alike: _Alike, copies: Sequence[_Copy], told: str, remedy: str
    ) -> Finding:
        first = copies[0]
        details = [told, *self._shown(first.row, first.row if alike.exact else first.of)]
        if not alike.exact and self._labels:
            both = [copy for copy in copies if copy.row in self._labels and copy.of in self._labels]
            other = sum(self._differ(copy.row, copy.of) for copy in both)
            details.append(f"{other} of them {'has' if other == 1 else 'have'} another label")
        return Finding(name, severity, len(copies), self._both(copies, alike.sign), remedy, tuple(details))

    def _both(self, copies: Sequence[_Copy], sign: str) -> tuple[str, ...]:
        return tuple(f"{self._places.of(copy.row)} {sign} {self._places.of(copy.of)}" for copy in copies[:MOST_PLACES])

    def _shown(self, *rows: Row) -> list[str]:
        """Return two rows' texts from a little before they differ; one where they do not."""
        one, other = (
            " | ".join(" ".join(text.split()) for text in self._raw[split].texts[position]) for split, position in rows
        )
        if one == other:
            return [f"  {shortened(one, _SHOWN)}"]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        start = max(0, same - _BEFORE_THE_DIFFERENCE) if max(len(one), len(other)) > _SHOWN else 0
        return [f"  {'…' if start else ''}{shortened(text[start:], _SHOWN)}" for text in (one, other)]
