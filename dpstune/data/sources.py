"""Where raw examples come from: the hub, the layout GLUE is distributed in, and files."""

from __future__ import annotations

import io
import logging
import math
import pkgutil
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dpstune.common.hub import asking_the_hub_for, first_line
from dpstune.common.textfile import SAVE_AS_UTF_8, read_text
from dpstune.data.files import file_rows, form_of
from dpstune.data.tables import Header, Rows, glue_rows
from dpstune.data.written_forms import nearest
from dpstune.errors import RequestError, shortened, some_of
from dpstune.settings.tasks import GlueLayout, HubSource

LABEL_SEPARATOR = ";"
"""Stands between the labels of an example that has several."""

ID_COLUMNS = ("id", "idx", "index", "pairID")
"""What a row may be known by, the first that is there."""
_MOST_OF_A_REASON = 300  # characters
_BROKEN_FILES = (tarfile.TarError, zipfile.BadZipFile)


@dataclass
class RawSplit:
    """Rows of a split as they were read.

    Args:
        source: The file or dataset, for errors.
        ids: One per example: the source's own id, or the row number from 0.
        texts: One or two strings per example.
        labels: The label column as text, None for a row without a label; empty if there is no label column.
        rows: The line or row number of each example, for errors.
        groups: What the group column holds, None where a row has nothing there; empty where none was asked for.
        label_names: The labels that the source says it has, whether or not a row has them; empty where it says none.
        files: Where several files were read, each with the position of its first example.
        malformed: How many rows were left out because they were broken.
        renumbered: Whether the source's ids repeat, so that row numbers stand in for them.
        notes: What a person should know of how it was read.
        first_list: Place and column of the first label that is a list, for errors; None where none is.
    """

    source: str
    ids: list[str] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    label_names: tuple[str, ...] = ()
    files: list[tuple[int, str]] = field(default_factory=list)
    malformed: int = 0
    renumbered: bool = False
    notes: list[str] = field(default_factory=list)
    first_list: str | None = None

    def place(self, position: int) -> str:
        """Return the file or dataset of an example, and its line or row."""
        at = bisect_right(self.files, position, key=lambda file: file[0])
        return f"{self.files[at - 1][1] if at else self.source}:{self.rows[position]}"

    def without_text(self, columns: Sequence[str]) -> list[str]:
        """Return which of the text columns have no text in any row; none where there are no rows."""
        numbered = enumerate(columns if self.texts else ())
        return [column for number, column in numbered if not any(texts[number].strip() for texts in self.texts)]


@dataclass(frozen=True)
class Columns:
    """Which columns are read.

    Args:
        text: One or two.
        label: The label's.
        group: What says which rows belong together; None for none.
        label_required, group_required: Whether a source without that column is an error.
    """

    text: Sequence[str]
    label: str
    group: str | None = None
    label_required: bool = True
    group_required: bool = True

    @property
    def wanted(self) -> list[str]:
        """All of them."""
        return [*self.text, self.label, *([self.group] if self.group is not None else [])]

    def refuse_missing(self, source: str, there: list[str]) -> None:
        """Refuse a source that lacks a text column, or a group column that is required.

        Raises:
            RequestError: ``source``, which has the columns ``there``, lacks one.
        """
        for column in (*self.text, *([self.group] if self.group and self.group_required else [])):
            if column not in there:
                raise no_column(source, column, there)


def collect_rows(source: str, rows: Rows, columns: Columns) -> RawSplit:
    """Read rows that lie in no file.

    Args:
        source: What they are called, for errors.
        rows: Numbered rows by column.
        columns: What is read of each.

    Raises:
        RequestError: A row lacks a column, or a cell holds no text.
    """
    return _join([_collect(source, rows, columns)])


def read_files(
    paths: Sequence[Path], columns: Columns, encoding: str | None = None, remedy: str = SAVE_AS_UTF_8
) -> RawSplit:
    """Read files one after the other, each by the ending of its name.

    Args:
        paths: One or more; tables have the same columns.
        columns: What is read of each.
        encoding, remedy: What texts are in, and what to do where they are not; see ``file_rows``.

    Raises:
        RequestError: A file is not there, is not in its encoding, is malformed, lacks a column, or has others than the
            first.
    """
    headers: dict[Path, Header] = {}

    def take(path: Path, header: Header) -> None:
        headers[path] = header
        _refuse_other_columns(headers, path)

    parts: list[RawSplit] = []
    for path in paths:
        rows = file_rows(path, columns.wanted, encoding=encoding, remedy=remedy, on_header=partial(take, path))
        parts.append(_collect(str(path), rows, columns, first=sum(len(part.ids) for part in parts)))
    split = _join(parts)
    split.notes += _notes_on_separators(headers)
    return split


def _refuse_other_columns(headers: Mapping[Path, Header], path: Path) -> None:
    first = next(iter(headers))
    expected, found = headers[first].columns, headers[path].columns
    if set(found) != set(expected):
        raise RequestError(
            f"{path}: its columns are {some_of(found)}, those of {first} are {some_of(expected)}; "
            "files that are read together should have the same"
        )


def _notes_on_separators(headers: Mapping[Path, Header]) -> list[str]:
    """Say what stands between the columns of CSV files where it is no comma, once for each sign."""
    notes = []
    for separator, name in ((";", "';'"), ("\t", "tabs")):
        files = [
            str(path)
            for path, header in headers.items()
            if header.separator == separator and form_of(path).format == "csv"
        ]
        if files:
            notes.append(f"{_shown(files)}: columns are separated by {name}")
    return notes


def _shown(files: Sequence[str]) -> str:
    """Name the first of some files, and say how many more there are."""
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def read_glue(folder: Path, layout: GlueLayout, split: str) -> RawSplit:
    """Read one split of a task from the TSV files GLUE distributes.

    Raises:
        RequestError: The file is not there, is not UTF-8, is malformed, or lacks a column.
    """
    path = folder / layout.folder / layout.files[split]
    is_test = split.startswith("test")
    lines = iter(io.StringIO(read_text(path), newline=""))
    columns = Columns(layout.text, layout.label, label_required=not is_test)
    # CoLA's labelled files have no header: source, label, the author's mark, sentence.
    header = None if layout.header or is_test else ("source", layout.label, "mark", *layout.text)
    return collect_rows(str(path), glue_rows(str(path), lines, header), columns)


def read_hub(
    hub: HubSource,
    split: str,
    *,
    group: str | None = None,
    label_required: bool = False,
    group_required: bool = True,
    minus_one: bool = False,
    remedy: str = "give local data with --data-dir DIR",
    no_split: str = "",
) -> RawSplit:
    """Read one split of a dataset on the hub, or from the hub's cache on this machine.

    Args:
        hub: The dataset.
        split: One of its splits, by our name.
        group: The column that says which rows belong together.
        label_required, group_required: Whether a dataset without that column is an error.
        minus_one: Whether -1 is a label like another where the column has no names for its numbers; else it is none.
        remedy: How to do without the hub, for the error.
        no_split: What to do where there is no such split, for the error.

    Raises:
        RunError: The hub could not be reached.
        RequestError: There is no such dataset, configuration, split or column.
    """
    dataset = _load_dataset(hub, hub.splits[split], remedy, no_split)
    columns = Columns(hub.text, hub.label, group, label_required, group_required)
    there = dataset.column_names
    source = f"dataset {hub.id} ({hub.splits[split]})"
    columns.refuse_missing(source, there)
    names = _names_of_numbers(dataset.features.get(hub.label))

    def rows() -> Rows:
        # What is not read is not decoded: images, sound.
        read = [column for column in there if column in (*columns.wanted, *ID_COLUMNS)]
        for number, row in enumerate(dataset.select_columns(read)):
            value = row.get(hub.label)
            if names is not None:
                row = {**row, hub.label: _by_name(value, names)}
            elif value == -1 and not minus_one:
                row = {**row, hub.label: None}
            yield number, row

    with _reading_a_folder(hub.id):
        raw = _join([_collect(source, rows(), columns, there=there)])
    raw.label_names = tuple(names or ())
    return raw


def _names_of_numbers(feature: Any) -> list[str] | None:
    """Return the names that a column has for its numbers, one a row or a list of them; None where it has none.

    Those of lists are none where one is empty, or holds what stands between the labels of a list.
    """
    names: list[str] | None = getattr(getattr(feature, "feature", feature), "names", None)
    in_lists = hasattr(feature, "feature")
    if in_lists and names and any(not name.strip() or LABEL_SEPARATOR in name for name in names):
        return None
    return names


def _by_name(value: Any, names: Sequence[str]) -> Any:
    """Return a cell with names for numbers; -1 is no label."""
    if isinstance(value, list):
        return [_by_name(each, names) for each in value if each != -1]
    if isinstance(value, int):
        return names[value] if value >= 0 else None
    return value


def _load_dataset(hub: HubSource, split: str, remedy: str, no_split: str) -> Any:
    import datasets

    _refuse_a_reader_of_files(hub.id)
    name = f"dataset {hub.id}" + (f" ({hub.config})" if hub.config else "")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    with asking_the_hub_for(name, remedy), _reading_a_folder(hub.id):
        try:
            return datasets.load_dataset(hub.id, hub.config, split=split, revision=hub.revision)
        except (ValueError, RuntimeError) as error:  # no such configuration or split; a loading script
            told = first_line(error)
            hint = no_split if told.startswith("Unknown split") else ""
            raise RequestError(f"{name}: {told.rstrip('.')}{hint}") from None


def _refuse_a_reader_of_files(name: str) -> None:
    """Refuse the name of one of the readers that come with ``datasets``, such as ``csv``.

    In the place of a dataset it would read what lies in the working directory.
    """
    from datasets import packaged_modules

    readers = {module.name for module in pkgutil.iter_modules(packaged_modules.__path__)}
    if (reader := name.removeprefix("hf://datasets/")) in readers:
        raise RequestError(
            f"dataset {name}: is the name of a reader of files, not of a dataset; name the files themselves, "
            f"or a folder of that name as ./{reader}"
        )


@contextmanager
def _reading_a_folder(name: str) -> Iterator[None]:
    """Say of a folder of this machine that it cannot be read, and why; leave alone what is no folder."""
    import datasets
    import yaml

    if not Path(name).is_dir():
        yield
        return
    logger, told = logging.getLogger("datasets"), _Told()
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [told], False
    try:
        yield
    except (datasets.exceptions.DatasetsError, OSError, ImportError, *_BROKEN_FILES, yaml.YAMLError) as error:
        why = told.lines[0] if told.lines else str(error.__cause__ or error)
        why = shortened(" ".join(why.split()).rstrip("."), _MOST_OF_A_REASON)
        remedy = "" if isinstance(error, ImportError) else "; name the file itself"
        raise RequestError(f"folder {name} holds no dataset that can be read ({why}){remedy}") from None
    finally:
        logger.handlers, logger.propagate = before


class _Told(logging.Handler):
    """Keeps what ``datasets`` logs of a file that it cannot read: its exceptions do not name the file."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's message."""
        self.lines.append(record.getMessage())


def _collect(source: str, rows: Rows, columns: Columns, there: Sequence[str] | None = None, first: int = 0) -> RawSplit:
    """Put the rows of one file or dataset together.

    Args:
        source: What it is, for errors.
        rows: Its rows.
        columns: Which columns are read.
        there: The columns it has; None for those of its first row.
        first: How many examples were read before.
    """
    split = RawSplit(source)
    has_label = has_group = False
    for position, (number, row) in enumerate(rows, start=first):
        if row is None:
            split.malformed += 1
            continue
        if not split.ids:
            there = list(there or row)
            columns.refuse_missing(source, there)
        place = f"{source}:{number}"
        split.texts.append(tuple(text_cell(row, column, place) for column in columns.text))
        split.ids.append(_identity(row, position, place))
        split.rows.append(number)
        if isinstance(row.get(columns.label), list) and split.first_list is None:
            split.first_list = f"{place}: column {columns.label!r}"
        label = label_cell(row, columns.label, place)
        split.labels.append(label if label is None or label.strip() else "")
        if columns.group is not None:
            split.groups.append(_group_cell(row, columns, place))
            has_group = has_group or columns.group in row
        has_label = has_label or columns.label in row
    if not has_label:
        if columns.label_required and split.ids:
            raise no_column(source, columns.label, list(there or ()))
        split.labels = []
    if not has_group:
        split.groups = []
    return split


def _group_cell(row: Mapping[str, Any], columns: Columns, place: str) -> str | None:
    """Return a row's group; where no group is required, a cell that cannot be one says that the row has none."""
    try:
        return plain_cell(row, str(columns.group), place) or None
    except RequestError:
        if columns.group_required:
            raise
        return None


def _join(parts: Iterable[RawSplit]) -> RawSplit:
    """Put what was read of several files after one another; ids that repeat give way to row numbers."""
    parts = list(parts)
    joined = RawSplit(_shown([part.source for part in parts]))
    labelled, grouped = (any(getattr(part, what) for part in parts) for what in ("labels", "groups"))
    for part in parts:
        joined.files.append((len(joined.ids), part.source))
        joined.ids += part.ids
        joined.texts += part.texts
        joined.rows += part.rows
        joined.groups += part.groups or ([None] * len(part.ids) if grouped else [])
        joined.labels += part.labels or ([None] * len(part.ids) if labelled else [])
        joined.malformed += part.malformed
        joined.first_list = joined.first_list or part.first_list
    if len(set(joined.ids)) < len(joined.ids):
        joined.ids = [str(position) for position in range(len(joined.ids))]
        joined.renumbered = True
    return joined


class MissingColumnError(RequestError):
    """A table lacks a column that is asked for."""


def no_column(place: str, column: str, there: list[str]) -> MissingColumnError:
    """Return the error that says which column is missing, and which there are."""
    several = column.split(",")
    if len(several) > 1 and set(several) <= set(there):
        hint = f"; name {' and '.join(map(repr, several))} each by itself"
    else:
        hint = nearest(column, there)
    return MissingColumnError(f"{place}: no column {column!r}; its columns are {some_of(there)}{hint}")


def plain_cell(row: Mapping[str, Any], column: str, place: str) -> str | None:
    """Return a cell as text, None if it is empty.

    1.0 becomes "1": a column of whole numbers is read as floats if the table has gaps.

    Raises:
        RequestError: The cell holds a list, a mapping, or bytes that are not text.
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
        raise RequestError(f"{place}: column {column!r} does not hold text: {first_line(error)}") from None
    return plain


def text_cell(row: Mapping[str, Any], column: str, place: str) -> str:
    """Return a text's cell: what ``plain_cell`` returns, and an empty text for an empty cell, as in CSV.

    Raises:
        RequestError: The row has no such cell, or the cell holds a list, a mapping, or bytes that are not text.
    """
    if column not in row:
        raise RequestError(f"{place}: column {column!r} is missing")
    return plain_cell(row, column, place) or ""


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


def _identity(row: Mapping[str, Any], position: int, place: str) -> str:
    for column in ID_COLUMNS:
        if row.get(column) is not None:
            name = str(row[column])
            _refuse_what_no_file_holds(name, column, place)
            return name
    return str(position)


def _refuse_what_no_file_holds(text: str, column: str, place: str) -> None:
    try:
        text.encode()
    except ValueError as error:
        raise RequestError(f"{place}: column {column!r} does not hold text: {first_line(error)}") from None
