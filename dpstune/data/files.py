"""A user's files as rows: what their names say of format and packing, how they are opened, what they hold."""

from __future__ import annotations

import glob
import io
import json
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dpstune.common.hub import first_line, is_hub_id
from dpstune.common.textfile import SAVE_AS_UTF_8, decode, read_bytes
from dpstune.data.tables import (
    SEPARATORS,
    Header,
    NumberedRow,
    OnHeader,
    Rows,
    refuse_what_is_there_twice,
    table_rows,
)
from dpstune.errors import RequestError

TEXT_FORMATS = (*SEPARATORS, "jsonl", "json")
FILE_FORMATS = (*TEXT_FORMATS, "parquet", "xlsx")
_PACKINGS = {"gz": "gzip", "zst": "zstd"}
_OTHER_FORMATS = ("yaml", "yml", "txt", "xls", "ods", "zip", "7z", "tar", "bz2", "xz", "arrow", "feather", "pkl", "db")


class FileForm(NamedTuple):
    """What a file's name says of it.

    Args:
        format: Its ending, without the dot and in small letters; empty where it has none.
        packing: gzip or zstd; None where it is not packed.
    """

    format: str
    packing: str | None


def form_of(path: Path) -> FileForm:
    """Return what a file's name says of it.

    >>> form_of(Path("tickets.CSV.gz"))
    FileForm(format='csv', packing='gzip')
    """
    packing = _PACKINGS.get(path.suffix.lower().removeprefix("."))
    if packing is not None:
        path = path.with_suffix("")
    return FileForm(path.suffix.lower().removeprefix("."), packing)


def find_files(given: Path | Iterable[Path]) -> list[Path]:
    """Return the files that a path, a pattern such as ``part-*.csv``, or a list of either stand for, each once.

    Those of a pattern are sorted by name. What is there under the very name of a pattern is not taken for one.

    Raises:
        RequestError: No file matches a pattern.
    """
    found: dict[Path, None] = {}
    for path in [given] if isinstance(given, Path) else given:
        if "\0" in str(path):
            raise RequestError(f"{str(path)!r}: a path holds no zero byte")
        files = [path]
        if is_pattern(path) and not path.exists():
            files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
            if not files:
                raise RequestError(f"no file matches {path}")
        found |= dict.fromkeys(files)
    return list(found)


def is_pattern(path: Path) -> bool:
    """Return whether a path has signs in it that stand for others: ``*``, ``?`` or ``[``."""
    return glob.has_magic(str(path))


def names_a_dataset(name: str) -> bool:
    """Return whether a name is that of a dataset: a folder's, or one that the hub may know and no file has.

    What ends as files do (``.csv``, ``.txt``) is a file, whether or not it is there, unless a folder is called so.

    >>> [names_a_dataset(name) for name in ("ag_news", "somebody/reviews.en", "tickets.csv", "part-*", "tickets.txt")]
    [True, True, False, False, False]
    """
    place = os.path.expanduser(name)  # unlike Path's methods, os.path's take a name of any length
    if not name.strip() or os.path.exists(place):
        return os.path.isdir(place)
    form, packing = form_of(Path(name))
    return is_hub_id(name) and packing is None and form not in (*FILE_FORMATS, *_OTHER_FORMATS)


def folder_called(name: str) -> str | None:
    """Return the absolute path of the folder that a user named; None where there is no such folder."""
    place = os.path.expanduser(name)
    return os.path.abspath(place) if name.strip() and os.path.isdir(place) else None


def file_rows(
    path: Path,
    wanted: Collection[str] = (),
    *,
    encoding: str | None = None,
    on_header: OnHeader | None = None,
    form: str | None = None,
    remedy: str = SAVE_AS_UTF_8,
) -> Iterator[NumberedRow]:
    """Yield the rows of a file, read by the ending of its name: one of ``FILE_FORMATS``, those of text also packed.

    Args:
        path: The file.
        wanted: The columns that are asked for; see ``table_rows``.
        encoding: What a text is in; None for UTF-8. A byte-order mark says more.
        on_header: Is given the header of a table before its first row; JSON has none.
        form: One of ``FILE_FORMATS``, whatever the ending is.
        remedy: What to do about a text in another encoding, for the error.

    Raises:
        RequestError: The file is not there, is not in its encoding, or malformed.
    """
    ending, packing = form_of(path)
    form = form or ending
    if form not in (FILE_FORMATS if packing is None else TEXT_FORMATS):
        hint = "save it as .xlsx or .csv" if form == "xls" else _known_endings()
        raise RequestError(f"{path}: cannot tell its format; {hint}")
    if form == "parquet":
        return parquet_rows(path, on_header)
    if form == "xlsx":
        return excel_rows(path, on_header)
    text = decode(_unpacked(path, packing), str(path), encoding, remedy)
    if form == "json":
        return array_rows(str(path), text)
    return stream_rows(str(path), iter(io.StringIO(text, newline="")), form, wanted, on_header)


def _known_endings() -> str:
    packed = " or ".join(f".{ending}" for ending in _PACKINGS)
    plain = ", ".join(f".{name}" for name in FILE_FORMATS[:-1])
    return f"name it {plain} or .{FILE_FORMATS[-1]} (text also with {packed} after it)"


def stream_rows(
    place: str, lines: Iterator[str], form: str, wanted: Collection[str] = (), on_header: OnHeader | None = None
) -> Iterator[NumberedRow]:
    """Yield rows as their lines come.

    Args:
        place: What the lines come from, for errors.
        lines: With their ends.
        form: csv, tsv or jsonl.
        wanted, on_header: See ``table_rows``.

    Raises:
        RequestError: A row is malformed; its line is named.
    """
    rows = _jsonl_rows(place, lines) if form == "jsonl" else table_rows(place, lines, form, wanted, on_header)
    return ((number, row) for number, row in rows if row is not None)


def open_packed(path: Path, packing: str | None) -> BinaryIO:
    """Open a file to read its bytes as they were before it was packed; what is wrong with it shows on reading.

    Raises:
        RequestError: There is no such file, or it cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    if packing is None:
        return file
    import pyarrow as pa

    stream: BinaryIO = pa.CompressedInputStream(file, packing)
    return stream


def _unpacked(path: Path, packing: str | None) -> bytes:
    content = read_bytes(path)
    if packing is None:
        return content
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(content), packing) as stream:
            unpacked: bytes = stream.read()
    except (pa.ArrowException, OSError) as error:
        raise not_packed(str(path), packing, error) from None
    return unpacked


def not_packed(place: str, packing: str | None, error: BaseException) -> RequestError:
    """Return the error that says that a file is not what the ending of its name says."""
    how = f" as {packing}" if packing is not None else ""
    return RequestError(f"cannot read {place}{how}: {first_line(error)}")


def _jsonl_rows(place: str, lines: Iterator[str]) -> Rows:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=partial(_json_object, f"{place}:{number}"))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{place}:{number}: not valid JSON: {first_line(error)}") from None
        if not isinstance(row, dict):
            raise RequestError(f"{place}:{number}: a line should be a JSON object")
        yield number, row


def array_rows(place: str, text: str) -> Iterator[NumberedRow]:
    """Yield the objects of a JSON array, numbered from 1.

    Raises:
        RequestError: The text is no array of objects.
    """
    try:
        rows = json.loads(text or "[]", object_pairs_hook=partial(_json_object, place))
    except json.JSONDecodeError as error:
        hint = "; where each line is an object of its own, name it .jsonl" if error.msg == "Extra data" else ""
        raise RequestError(f"{place}:{error.lineno}: not valid JSON: {error.msg}{hint}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{place}: not valid JSON: {first_line(error)}") from None
    if not isinstance(rows, list):
        what = "an object" if isinstance(rows, dict) else "a value"
        raise RequestError(f"{place}: holds {what} where there should be an array of objects: [{{...}}, {{...}}]")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise RequestError(f"{place}: item {number} of the array should be a JSON object")
        yield number, row


def _json_object(place: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_what_is_there_twice([key for key, _ in pairs], place, "keys")
    return dict(pairs)


def parquet_rows(path: Path, on_header: OnHeader | None = None) -> Iterator[NumberedRow]:
    """Yield a Parquet file's rows, numbered from 1.

    Raises:
        RequestError: There is no such file, it cannot be read, or two of its columns have one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        refuse_what_is_there_twice(names, str(path), "columns")
        if on_header is not None:
            on_header(Header(names))
        yield from enumerate((row for batch in file.iter_batches() for row in batch.to_pylist()), start=1)
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"cannot read {path} as Parquet: {first_line(error)}") from None


def excel_rows(path: Path, on_header: OnHeader | None = None) -> Iterator[NumberedRow]:
    """Yield the rows of an Excel file's first sheet, by the numbers that Excel shows.

    The first row with anything in it names the columns; columns without a name and rows without a value are passed
    over. A cell has the value that was last computed; of merged cells the first alone has one.

    Raises:
        RequestError: There is no such file, it cannot be read, two columns have one name, or openpyxl is not installed.
    """
    columns: dict[int, str] = {}
    for number, cells in enumerate(_sheet(path), start=1):
        if all(cell is None for cell in cells):
            continue
        if not columns:
            columns = {place: str(cell) for place, cell in enumerate(cells) if cell is not None}
            refuse_what_is_there_twice(list(columns.values()), f"{path}:{number}", "columns")
            if on_header is not None:
                on_header(Header(list(columns.values())))
        else:
            there = dict(enumerate(cells))
            yield number, {name: there.get(place) for place, name in columns.items()}


def _sheet(path: Path) -> list[tuple[Any, ...]]:
    """Return the values of an Excel file's first sheet, row by row."""
    content = io.BytesIO(read_bytes(path))
    try:
        import openpyxl
    except ImportError:
        raise RequestError(f"{path}: Excel files need openpyxl: pip install 'dpstune[excel]'") from None
    try:
        with warnings.catch_warnings():  # of what is no data: styles, drop-down lists
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(content, read_only=True, data_only=True)
            sheet: Any = book.worksheets[0]
            sheet.reset_dimensions()  # which some programs write wrong
            return list(sheet.iter_rows(values_only=True))
    except Exception as error:  # no ZIP archive, a part of it that is missing, or no XML: each has its own
        raise RequestError(f"cannot read {path} as Excel: {first_line(error)}") from None
