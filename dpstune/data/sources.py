"""Where raw examples come from: the hub, the layout GLUE is distributed in, and files."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from dpstune.common.hub import asking_the_hub_for, first_line
from dpstune.common.textfile import read_text
from dpstune.errors import RequestError, did_you_mean, shortened, some_of
from dpstune.settings.tasks import GlueLayout, HubSource

csv.field_size_limit(sys.maxsize)

LABEL_SEPARATOR = ";"
"""Stands between the labels of an example that has several."""

DIALECTS = {"csv": "excel", "tsv": "excel-tab"}
"""The tables among the text formats, by the name that Python's csv has for them."""


@dataclass
class RawSplit:
    """Rows of a split as they were read.

    Args:
        source: The file or dataset, for errors.
        ids: One an example: the source's own id, or the row number from 0.
        texts: One or two strings an example.
        labels: What the label column holds as text, None where a row has none; empty where there is no label column.
        rows: The line or row number of each example, for errors.
        malformed: How many rows were left out because they were broken.
        renumbered: Whether the source's ids repeat, so that row numbers stand in for them.
        first_list: Place and column of the first label that is a list, for errors; None where none is.
    """

    source: str
    ids: list[str] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    malformed: int = 0
    renumbered: bool = False
    first_list: str | None = None


NumberedRow = tuple[int, Mapping[str, Any]]
"""A line or row number with a row, by column."""

Rows = Iterator[tuple[int, Mapping[str, Any] | None]]
"""The same, None in the place of a malformed row that is to be left out."""


def read_file(path: Path, text: Sequence[str], label: str, *, label_required: bool = True) -> RawSplit:
    """Read a CSV, TSV, JSONL or Parquet file by the ending of its name.

    Args:
        path: The file.
        text: Its text columns.
        label: Its label column.
        label_required: Whether a file without the label column is an error.

    Raises:
        RequestError: The file is not there, is no UTF-8, is malformed, or lacks a column.
    """
    return _collect(str(path), file_rows(path), text, label, label_required)


def file_rows(path: Path) -> Rows:
    """Yield the rows of a CSV, TSV, JSONL or Parquet file, read by the ending of its name.

    Raises:
        RequestError: The file is not there, is no UTF-8 or malformed.
    """
    form = path.suffix.lower().removeprefix(".")
    if form == "parquet":
        return parquet_rows(path)
    if form not in (*DIALECTS, "jsonl"):
        raise RequestError(f"{path}: cannot tell its format; name it .csv, .tsv, .jsonl or .parquet")
    return iter(stream_rows(str(path), _lines(path), form))


def stream_rows(
    place: str, lines: Iterator[str], form: str, on_header: Callable[[Sequence[str]], None] | None = None
) -> Iterator[NumberedRow]:
    """Yield rows as their lines come.

    Args:
        place: What the lines come from, for errors.
        lines: With their ends.
        form: csv, tsv or jsonl.
        on_header: Is given the columns of a csv or tsv before its first row, also where none follows.

    Raises:
        RequestError: A row is malformed; its line is named.
    """
    if form == "jsonl":
        rows = _jsonl_rows(place, lines)
    else:
        reader: _Reader = csv.reader(lines, strict=True) if form == "csv" else _TabReader(lines)
        rows = _table_rows(place, reader, None, on_header=on_header)
    return ((number, row) for number, row in rows if row is not None)


def read_glue(folder: Path, layout: GlueLayout, split: str) -> RawSplit:
    """Read one split of a task from the TSV files GLUE distributes.

    Raises:
        RequestError: The file is not there, is no UTF-8, is malformed, or lacks a column.
    """
    path = folder / layout.folder / layout.files[split]
    is_test = split.startswith("test")
    if layout.header or is_test:
        return _collect(str(path), _glue_rows(path), layout.text, layout.label, label_required=not is_test)
    # CoLA: source, label, the author's mark, sentence.
    columns = ("source", layout.label, "mark", *layout.text)
    return _collect(str(path), _glue_rows(path, columns), layout.text, layout.label, label_required=True)


def read_hub(hub: HubSource, split: str) -> RawSplit:
    """Read one split of a dataset on the hub, or from the hub's cache on this machine.

    Raises:
        RunError: The hub could not be reached.
        RequestError: There is no such dataset, configuration, split or column.
    """
    dataset = _load_dataset(hub, hub.splits[split])
    source = f"dataset {hub.id} ({hub.splits[split]})"
    names = getattr(dataset.features.get(hub.label), "names", None)

    def rows() -> Rows:
        for number, row in enumerate(dataset):
            value = row.get(hub.label)
            if names is not None and isinstance(value, int):
                row = {**row, hub.label: names[value] if value >= 0 else None}
            elif value == -1:
                row = {**row, hub.label: None}
            yield number, row

    return _collect(source, rows(), hub.text, hub.label, label_required=False, columns=dataset.column_names)


def _load_dataset(hub: HubSource, split: str) -> Any:
    import datasets

    name = f"dataset {hub.id}" + (f" ({hub.config})" if hub.config else "")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    with asking_the_hub_for(name, "give local data with --data-dir DIR"):
        try:
            return datasets.load_dataset(hub.id, hub.config, split=split, revision=hub.revision)
        except (ValueError, RuntimeError) as error:  # no such configuration or split; a loading script
            raise RequestError(f"{name}: {first_line(error)}") from None


def _collect(
    source: str,
    rows: Rows,
    text: Sequence[str],
    label: str,
    label_required: bool,
    columns: Sequence[str] | None = None,
) -> RawSplit:
    split = RawSplit(source)
    has_label = False
    there: list[str] = []
    for position, (number, row) in enumerate(rows):
        if row is None:
            split.malformed += 1
            continue
        if not there:
            there = list(columns or row)
            for column in text:
                if column not in there:
                    raise no_column(source, column, there)
        values = tuple(plain_cell(row, column, f"{source}:{number}") for column in text)
        if None in values:
            raise RequestError(f"{source}:{number}: column {text[values.index(None)]!r} is empty")
        split.texts.append(tuple(value for value in values if value is not None))
        split.ids.append(_identity(row, position))
        split.rows.append(number)
        if isinstance(row.get(label), list) and split.first_list is None:
            split.first_list = f"{source}:{number}: column {label!r}"
        split.labels.append(label_cell(row, label, f"{source}:{number}"))
        has_label = has_label or label in row
    if not has_label:
        if label_required and split.ids:
            raise no_column(source, label, there)
        split.labels = []
    if len(set(split.ids)) < len(split.ids):
        split.ids = [str(position) for position in range(len(split.ids))]
        split.renumbered = True
    return split


def no_column(place: str, column: str, there: list[str]) -> RequestError:
    """Return the error that says which column is missing, and which there are."""
    hint = did_you_mean(column, there)
    return RequestError(f"{place}: no column {column!r}; its columns are {some_of(there)}{hint}")


def plain_cell(row: Mapping[str, Any], column: str, place: str) -> str | None:
    """Return a cell as text, None where it holds nothing; a number is written the same whatever its type was.

    A column of whole numbers becomes one of floats where a table has gaps: 1.0 is 1.
    """
    value = row.get(column)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if value.is_integer():
            value = int(value)
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "a mapping"
        raise RequestError(f"{place}: column {column!r} holds {kind}, not text")
    try:
        if isinstance(value, bytes):
            value = value.decode()
        plain = None if value is None else str(value)
        (plain or "").encode()
    except ValueError as error:
        raise RequestError(f"{place}: column {column!r} holds no text: {first_line(error)}") from None
    return plain


def label_cell(row: Mapping[str, Any], column: str, place: str) -> str | None:
    """Return a label's cell as ``plain_cell`` does; a list of labels as one text with ``;`` between them."""
    value = row.get(column)
    if not isinstance(value, list):
        return plain_cell(row, column, place)
    labels = [plain_cell({column: each}, column, place) for each in value]
    for label in labels:
        if not (label or "").strip():
            raise RequestError(f"{place}: column {column!r} holds an empty label; an example without labels has []")
        if LABEL_SEPARATOR in (label or ""):
            raise RequestError(
                f"{place}: column {column!r}: {LABEL_SEPARATOR!r} stands between labels; rename {label!r}"
            )
    return LABEL_SEPARATOR.join(label or "" for label in labels)


def _identity(row: Mapping[str, Any], position: int) -> str:
    for column in ("id", "idx", "index", "pairID"):
        if row.get(column) is not None:
            return str(row[column])
    return str(position)


def _lines(path: Path) -> Iterator[str]:
    return iter(io.StringIO(read_text(path), newline=""))


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
            (row,) = csv.reader([line], DIALECTS["tsv"], strict=True)
        except csv.Error:
            row = plain
        if len(row) == (count or len(row)):
            return row
        if len(plain) == count:
            return plain
        begun = self.line_num
        try:
            longer = next(csv.reader(chain([line], self._read()), DIALECTS["tsv"], strict=True))
        except csv.Error:
            longer = []
        if len(longer) == count:
            return longer
        self.line_num = begun  # what is wrong is told of the line it began on
        return row


def _table_rows(
    place: str | Path,
    reader: _Reader,
    columns: Sequence[str] | None,
    *,
    skip_ragged: bool = False,
    on_header: Callable[[Sequence[str]], None] | None = None,
) -> Rows:
    try:
        for row in filter(None, reader):  # a blank line is an empty row
            if columns is None:
                columns = row
                _refuse_what_is_there_twice(row, f"{place}:{reader.line_num}", "columns")
                if on_header is not None:
                    on_header(columns)
            elif len(row) == len(columns):
                yield reader.line_num, dict(zip(columns, row, strict=True))
            elif skip_ragged:
                yield reader.line_num, None
            else:
                hint = "; save texts that hold tabs or line breaks as CSV" if isinstance(reader, _TabReader) else ""
                raise RequestError(
                    f"{place}:{reader.line_num}: {len(row)} columns where there should be {len(columns)}{hint}"
                )
    except csv.Error as error:
        hint = "; a quote inside a quoted cell should be doubled"
        if columns is not None and len(columns) == 1 and ";" in columns[0]:
            hint = "; its columns seem to have ';' between them: save it with commas"
        raise RequestError(f"{place}:{reader.line_num}: {error}{hint}") from None


def _glue_rows(path: Path, columns: Sequence[str] | None = None) -> Rows:
    """Read GLUE's own files; a few rows of QQP's, as distributed, are broken off."""
    reader = csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _table_rows(path, reader, columns, skip_ragged=True)


def _jsonl_rows(place: str, lines: Iterator[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=partial(_json_object, f"{place}:{number}"))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{place}:{number}: no valid JSON: {first_line(error)}") from None
        if not isinstance(row, dict):
            raise RequestError(f"{place}:{number}: a line should be a JSON object")
        yield number, row


def _json_object(place: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_what_is_there_twice([key for key, _ in pairs], place, "keys")
    return dict(pairs)


def _refuse_what_is_there_twice(names: Sequence[str], place: str, what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{place}: two {what} are called {shortened(repr(twice))}; rename or remove one")


def parquet_rows(path: Path) -> Iterator[NumberedRow]:
    """Yield a Parquet file's rows.

    Raises:
        RequestError: There is no such file, it cannot be read, or two of its columns have one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _refuse_what_is_there_twice(file.schema_arrow.names, str(path), "columns")
        yield from enumerate((row for batch in file.iter_batches() for row in batch.to_pylist()), start=1)
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"cannot read {path} as Parquet: {first_line(error)}") from None
