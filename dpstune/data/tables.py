"""Rows of text tables: CSV, whose separator its header shows, and TSV, whose quotes may be plain characters."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from dpstune.errors import RequestError, shortened

csv.field_size_limit(sys.maxsize)

SEPARATORS = {"csv": ",", "tsv": "\t"}
"""The tables among the text formats, and what usually stands between their columns."""

_SEPARATORS_OF_CSV = (",", ";", "\t")

NumberedRow = tuple[int, Mapping[str, Any]]
"""A line or row number with a row, by column."""

Rows = Iterator[tuple[int, Mapping[str, Any] | None]]
"""The same, None in the place of a malformed row that is to be left out."""


class Header(NamedTuple):
    """What is known of a table before its first row.

    Args:
        columns: The columns' names.
        separator: What stands between them in a text; None where nothing does.
    """

    columns: Sequence[str]
    separator: str | None = None


OnHeader = Callable[[Header], None]


def table_rows(
    place: str, lines: Iterator[str], form: str, wanted: Collection[str] = (), on_header: OnHeader | None = None
) -> Rows:
    """Yield the rows of a table.

    Args:
        place: What the lines come from, for errors.
        lines: With their ends.
        form: csv or tsv. The separator of a csv is a comma, a semicolon or a tab: the one with which most of the wanted
            columns stand in the header.
        wanted: The columns that are asked for.
        on_header: Is given the header before the first row, also where none follows.

    Raises:
        RequestError: A row is malformed; its line is named.
    """
    if form == "tsv":
        return _rows(place, _TabReader(lines), None, "\t", on_header)
    lines, separator = _recognise(lines, wanted)
    return _rows(place, csv.reader(lines, delimiter=separator, strict=True), None, separator, on_header)


def glue_rows(place: str, lines: Iterator[str], columns: Sequence[str] | None = None) -> Rows:
    """Yield the rows of one of GLUE's own files; a few of QQP's, as distributed, are broken off: None in their place.

    Args:
        place: What the lines come from, for errors.
        lines: With their ends.
        columns: The columns' names where the file has no header.
    """
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return _rows(place, reader, columns, "\t", skip_ragged=True)


def _recognise(lines: Iterator[str], wanted: Collection[str]) -> tuple[Iterator[str], str]:
    """Return all lines, and the separator that the first one with anything in it shows."""
    begun: list[str] = []
    for line in lines:
        begun.append(line)
        if line.strip():
            break
    return chain(begun, lines), separator_of(begun[-1] if begun else "", wanted)


def separator_of(header: str, wanted: Collection[str]) -> str:
    """Return what stands between a CSV's columns: with it most of the wanted ones stand in the header.

    >>> separator_of("id;text, in full;label", ["id", "label"])
    ';'
    """

    def found(separator: str) -> tuple[int, int]:
        try:
            (cells,) = csv.reader([header], delimiter=separator, strict=True)
        except (csv.Error, ValueError):
            return (0, 0)
        return (len({*wanted}.intersection(cells)), len(cells))

    return max(_SEPARATORS_OF_CSV, key=found)


class _Reader(Protocol):
    """What csv.reader returns."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...


class _TabReader:
    """The rows of a TSV, whose quotes may be those of CSV or plain characters, as in the files GLUE distributes.

    The first row tells how many cells a row has. A line that is a row of CSV by itself is read as such; one that is not
    but has as many cells between its tabs is read as it stands. Where neither fits, a quoted cell goes on in the lines
    below; so a cell with a line break is read where it is not in the last column, and no tab stands before the break.

    Args:
        lines: With their ends.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.line_num = 0

    def __iter__(self) -> Iterator[list[str]]:
        """Yield the rows, an empty one for a blank line."""
        count: int | None = None
        for line in self._read():
            row = self._row(line, count)
            yield row
            count = count or len(row)

    def _read(self) -> Iterator[str]:
        for line in self._lines:
            self.line_num += 1
            yield line

    def _row(self, line: str, count: int | None) -> list[str]:
        plain = line.rstrip("\r\n").split("\t") if line.strip("\r\n") else []
        if '"' not in line:
            return plain
        try:
            (row,) = csv.reader([line], delimiter="\t", strict=True)
        except csv.Error:
            row = plain
        if len(row) == (count or len(row)):
            return row
        if len(plain) == count:
            return plain
        begun = self.line_num
        try:
            longer = next(csv.reader(chain([line], self._read()), delimiter="\t", strict=True))
        except csv.Error:
            longer = []
        if len(longer) == count:
            return longer
        self.line_num = begun  # what is wrong is told of the line it began on
        return row


def _rows(
    place: str,
    reader: _Reader,
    columns: Sequence[str] | None,
    separator: str,
    on_header: OnHeader | None = None,
    *,
    skip_ragged: bool = False,
) -> Rows:
    begun = 1  # the line on which a row begins
    try:
        for row in reader:
            if not row:
                pass  # a blank line
            elif columns is None:
                columns = row
                refuse_what_is_there_twice(row, f"{place}:{begun}", "columns")
                if on_header is not None:
                    on_header(Header(columns, separator))
            elif len(row) == len(columns):
                yield begun, dict(zip(columns, row, strict=True))
            elif skip_ragged:
                yield begun, None
            else:
                hint = "; save texts that hold tabs or line breaks as CSV" if isinstance(reader, _TabReader) else ""
                what = f"{len(row)} columns where there should be {len(columns)}"
                raise RequestError(f"{place}:{begun}: {what}{_goes_on(begun, reader)}{hint}")
            begun = reader.line_num + 1
    except csv.Error as error:
        is_open = str(error) == "unexpected end of data"
        hint = "; close the quote" if is_open else "; a quote inside a quoted cell should be doubled"
        raise RequestError(f"{place}:{begun}: {error}{_goes_on(begun, reader)}{hint}") from None


def _goes_on(begun: int, reader: _Reader) -> str:
    """Say where a row of several lines ends."""
    return f", in a row that goes on to line {reader.line_num}" if reader.line_num > begun else ""


def refuse_what_is_there_twice(names: Sequence[str], place: str, what: str) -> None:
    """Refuse columns or keys of one name.

    Raises:
        RequestError: There are two; ``place`` is named.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{place}: two {what} are called {shortened(repr(twice))}; rename or remove one")
