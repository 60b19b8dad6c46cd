"""Which columns of a user's file hold texts and labels, where its header makes that plain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dpstune.data.sources import RawSplit, file_rows, no_column, plain_cell
from dpstune.errors import RequestError, some_of

LABEL_NAMES = ("label", "target", "class", "category")
TEXT_NAMES = ("text", "sentence", "message", "comment", "review", "content", "body")


def guess_column(there: Sequence[str], names: Collection[str], place: str, flag: str) -> str:
    """Return the one column that has one of some names, in any case.

    Args:
        there: The columns.
        names: What it may be called.
        place: The file, for errors.
        flag: What names it.

    Raises:
        RequestError: None has, or several.

    >>> guess_column(["id", "Message", "category"], TEXT_NAMES, "a.csv", "--text")
    'Message'
    """
    found = [column for column in there if column.casefold() in names]
    if len(found) == 1:
        return found[0]
    what = f"{' and '.join(found)} may be it" if found else "none is plainly it"
    raise RequestError(f"{place}: name a column with {flag}: {what}; its columns are {some_of(there)}")


def columns_of(path: Path) -> list[str]:
    """Return a file's columns.

    Raises:
        RequestError: The file is not there, is malformed, or holds no rows.
    """
    first = next(((row) for _, row in file_rows(path) if row is not None), None)
    if first is None:
        raise RequestError(f"{path}: holds no rows")
    return list(first)


def read_groups(split: RawSplit, path: Path, column: str) -> list[str | None]:
    """Return the group of each row of a file.

    Args:
        split: The file's rows.
        path: The file.
        column: The column that names the groups.

    Raises:
        RequestError: There is no such column.
    """
    rows = [(number, row) for number, row in file_rows(path) if row is not None]
    if not any(column in row for _, row in rows):
        raise no_column(str(path), column, columns_of(path))
    groups = {number: plain_cell(row, column, f"{path}:{number}") or None for number, row in rows}
    return [groups[number] for number in split.rows]
