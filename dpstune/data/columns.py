"""Which columns of a user's file hold texts and labels, where its header makes that plain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dpstune.data.files import file_rows
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


def columns_of(path: Path, encoding: str | None = None) -> list[str]:
    """Return a file's columns.

    Args:
        path: The file.
        encoding: See ``file_rows``.

    Raises:
        RequestError: The file is not there, is malformed, or holds no rows.
    """
    first = next((row for _, row in file_rows(path, encoding=encoding)), None)
    if first is None:
        raise RequestError(f"{path}: holds no rows")
    return list(first)
