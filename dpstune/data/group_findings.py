"""What is wrong with rows that belong together, such as those of one author or with one premise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from dpstune.data.finding import RARE, Finding, Places, Row, part_of
from dpstune.data.sources import RawSplit
from dpstune.data.splitting import rows_together
from dpstune.data.written_forms import text_form
from dpstune.errors import some_of

_FEWEST_TEXTS = 10  # for each part that is drawn: a column of fewer holds a category, by which nothing is kept together


def group_findings(groups: Mapping[str, Sequence[str | None]], places: Places, parts: int | None) -> Iterator[Finding]:
    """Yield which groups stand on both sides of a cut, or are too few to be cut.

    Args:
        groups: The group of each row, by split; None where a row has none.
        places: Names rows.
        parts: How many parts the rows are yet to be cut into; None where the splits are there.
    """
    first: dict[str, str] = {}  # the split that a group is first seen in
    crossing: list[Row] = []
    names: dict[str, None] = {}
    for split in sorted(groups, key=lambda split: split != "train"):
        for position, group in enumerate(groups[split]):
            if group is not None and first.setdefault(group, split) != split:
                crossing.append((split, position))
                names[group] = None
    if crossing:
        yield Finding(
            "groups-across",
            "warning",
            len(crossing),
            places.some(crossing),
            "Cut the data so that a group is in one split: else the score counts what is known of the group.",
            (f"rows of {len(names)} groups that an earlier split has, too: {some_of(names)}",),
        )
    if parts is not None and len(first) < parts:
        yield Finding(
            "few-groups",
            "warning",
            sum(group is not None for group in chain.from_iterable(groups.values())),
            (),
            f"Ask for at most {max(2, len(first))} folds, or take another group column.",
            (f"{len(first)} groups are fewer than {parts} folds",),
        )


def shared_text_findings(
    raw: Mapping[str, RawSplit], columns: Sequence[str], places: Places, parts: int | None
) -> Iterator[Finding]:
    """Yield which pairs have one text in common with others, such as a premise, and nothing that keeps them together.

    A column of few different texts is none that rows could be grouped by.

    Args:
        raw: The splits.
        columns: The names of the two text columns; others than two are not looked at.
        places: Names rows.
        parts: How many parts the training rows are yet to be cut into; None where the splits are there.
    """
    train = raw.get("train")
    if train is None or parts is None or len(columns) != 2:
        return
    block_of = {
        row: number for number, rows in enumerate(rows_together(train.texts, train.groups or None)) for row in rows
    }
    rows_by_text = {column: _rows_by_text(train, number) for number, column in enumerate(columns)}
    shared = {
        column: _apart(rows_of, block_of)
        for column, rows_of in rows_by_text.items()
        if len(rows_of) >= _FEWEST_TEXTS * parts
    }
    column = max(shared, key=lambda name: len(shared[name]), default="")
    rows = [("train", position) for position in shared.get(column, ())]
    if rows:
        total = len(train.texts)
        yield Finding(
            "shared-text",
            "warning" if len(rows) >= RARE * total else "note",
            len(rows),
            places.some(rows),
            f"Keep them together by group: {column} in the task, or --group {column}: else a part that is drawn holds "
            "texts that are trained on.",
            (f"a {column!r} that other rows have beside another text: {part_of(len(rows), total)}",),
        )


def _rows_by_text(train: RawSplit, number: int) -> dict[str, list[int]]:
    """Return the rows of each text of one column, but for how it is written."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for position, texts in enumerate(train.texts):
        rows_of[text_form(texts[number])].append(position)
    return rows_of


def _apart(rows_of: Mapping[str, Sequence[int]], block_of: Mapping[int, int]) -> list[int]:
    """Return the rows whose text stands in another block, too; no text at all is none that is shared."""
    apart = (rows for text, rows in rows_of.items() if text and len({block_of[row] for row in rows}) > 1)
    return sorted(chain.from_iterable(apart))
