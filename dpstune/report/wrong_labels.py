"""Likely wrong labels for people: a CSV to relabel, and a table of those that stand first."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

from dpstune.common.textfile import decode, shown_cell
from dpstune.common.writing import copy_aside, write_text
from dpstune.data.sources import no_column
from dpstune.data.tables import separator_of
from dpstune.errors import RequestError, counted
from dpstune.report.page import Block, Heading, Paragraph, Table
from dpstune.report.tables import digits, short_text, spreadsheet_text, text_columns
from dpstune.studies.wrong_labels import FEWEST_RESTARTS, Suspect

FILE = "wrong_labels.csv"
ID, RIGHT_LABEL = "id", "right_label"
_AS_WRITTEN = f".{FILE}.sha256"  # of the list as dpstune wrote it: what differs from it, a person has changed
_MOST_LISTED = 10


def write_wrong_labels(
    folder: Path,
    suspects: Sequence[Suspect],
    ids: Sequence[str],
    texts: Sequence[tuple[str, ...]],
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write the suspects into a CSV file for a spreadsheet, in their order, with a column for the right label.

    What a person has filled in there in an earlier file stays, by the row's id. Where such a row is no longer among the
    suspects, or anything else than the right labels is not as it was written, the earlier file is kept under another
    name.

    Args:
        folder: Where to.
        suspects: The examples.
        ids: Of all examples.
        texts: Of all examples; an empty tuple where they are not known.
        tell: Is told in a line where an earlier file cannot be read, so that what was filled in there is missing.
    """
    file, written = folder / FILE, folder / _AS_WRITTEN
    filled: dict[str, str] = {}
    if file.exists():
        try:
            earlier = _rows(file.read_bytes())
            filled = _right_labels(earlier)
        except RequestError as error:
            aside = copy_aside(file)
            if tell is not None:
                tell(
                    f"the earlier {FILE} could not be read ({error}), so the new one lacks what was filled in there; "
                    f"it is kept as {aside}: mend it, rename it to {FILE}, and repeat the command"
                )
        else:
            is_as_written = written.is_file() and written.read_bytes() == _digest(earlier).encode()
            if not is_as_written or not filled.keys() <= {ids[each.place] for each in suspects}:
                copy_aside(file)
    most = max((len(texts[each.place]) for each in suspects), default=0)
    rows = [
        [
            ids[each.place],
            *map(shown_cell, texts[each.place]),
            *[""] * (most - len(texts[each.place])),
            *(shown_cell(each.label), shown_cell(each.answer), each.label_probability, each.restarts),
            filled.get(ids[each.place]),
        ]
        for each in suspects
    ]
    columns = [ID, *text_columns(most), "label", "answer", "label_probability", "restarts", RIGHT_LABEL]
    text = spreadsheet_text([columns, *rows])
    write_text(file, text)
    write_text(written, _digest(_rows(text.encode())))
    return file


def read_list(content: bytes) -> tuple[str, str]:
    """Return the text of a list and what stands between its columns, also as a spreadsheet saved it.

    Raises:
        RequestError: It is neither UTF-8 nor UTF-16.

    >>> read_list(b"id;text;label;right_label")
    ('id;text;label;right_label', ';')
    """
    text = decode(content, FILE)
    return text, separator_of(text.partition("\n")[0], (ID, RIGHT_LABEL))


def _rows(content: bytes) -> list[list[str]]:
    """Return the rows of a list, the header first, also as a spreadsheet saves it.

    Raises:
        RequestError: It cannot be read.
    """
    text, separator = read_list(content)
    try:
        return [row for row in csv.reader(StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error as error:
        raise RequestError(f"{FILE}: {error}; save it as CSV") from None


def _right_labels(rows: list[list[str]]) -> dict[str, str]:
    """Return what is filled in, by id.

    Raises:
        RequestError: It lacks a column for that.
    """
    for column in (ID, RIGHT_LABEL) if rows else ():
        if column not in rows[0]:
            raise no_column(FILE, column, rows[0])
    found = (dict(zip(rows[0], row, strict=False)) for row in rows[1:])
    return {row[ID]: row[RIGHT_LABEL] for row in found if ID in row and row.get(RIGHT_LABEL)}


def _digest(rows: list[list[str]]) -> str:
    """Return what tells a list from others, whatever its right labels are."""
    filled = rows[0].index(RIGHT_LABEL) if rows and RIGHT_LABEL in rows[0] else None
    kept = [[cell for place, cell in enumerate(row) if place != filled] for row in rows]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def wrong_labels_section(
    suspects: Sequence[Suspect],
    ids: Sequence[str],
    texts: Sequence[tuple[str, ...]],
    asked: int,
    who: str = "restart",
    *,
    left_out: int = 0,
    unseen: bool = True,
) -> list[Block]:
    """Return a section on the suspects: how many, what that means, and the first.

    Args:
        suspects: The examples.
        ids: Of all examples.
        texts: Likewise.
        asked: How many restarts or candidates that learned something answered every example; 0 where the answers are
            not known.
        who: What they are called.
        left_out: How many others there are.
        unseen: Whether it is known that none was trained on what it answers.
    """
    others = left_out_words(left_out, who)
    if asked < FEWEST_RESTARTS:
        known = asked or left_out
        here = f"here there are those of {counted(asked, who)}" if known else f"here they are not known of all {who}s"
        why = (
            f"It takes the answers of two {who}s to every example to say which labels are likely wrong; {here}.{others}"
        )
        return [Heading("Likely wrong labels: not known"), Paragraph(why)]
    heading = Heading(f"Likely wrong labels: {len(suspects)}")
    if not suspects:
        return [heading, Paragraph(f"No example is answered alike, and against its label, by all {who}s.{others}")]
    header = ["id", "example", "label", "answer", "label's probability"]
    rows = [
        [ids[each.place], short_text(texts[each.place]), each.label, each.answer, digits(each.label_probability)]
        for each in suspects[:_MOST_LISTED]
    ]
    trained = "none was trained on what it answers"
    if not unseen:
        trained = "whether one was trained on what it answers is not known here"
    text = (
        f"All {counted(suspects[0].restarts, who)} answer these examples alike, and against their label; {trained}. "
        "Some are hard, some are labelled wrong: look at them; the least probable labels "
        f"come first. {FILE} lists all of them, with an empty column for the right label.{others}"
    )
    return [heading, Paragraph(text), Table(header, rows, words=4, prose=frozenset({1}))]


def left_out_words(count: int, who: str = "restart") -> str:
    """Say how many restarts or candidates are not asked, after a space; nothing where all are.

    >>> left_out_words(2), left_out_words(0)
    (' Left out, since one answer to all is as good: 2 restarts.', '')
    """
    return f" Left out, since one answer to all is as good: {counted(count, who)}." if count else ""
