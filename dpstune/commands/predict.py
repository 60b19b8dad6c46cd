"""``dpstune predict``."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from dpstune.commands.options import Trained
from dpstune.errors import RequestError
from dpstune.report.output import print_lines, tell


def predict(
    trained: Trained,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="CSV, TSV, JSONL, Parquet or plain lines; - is stdin.")],
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="The text columns; default: those it was trained on.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, tsv, jsonl or lines; default: by the file name's ending, lines for -."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Most tokens of an example; default: the run's.")
    ] = None,
) -> None:
    """Label rows as they come, with a score for each label; CSV and TSV keep their format, others become JSON lines."""
    from dpstune.data.sources import parquet_rows
    from dpstune.evaluation.prediction import LineReader, Writer, predict_rows, read_rows
    from dpstune.evaluation.trained import TrainedModel, find_trained

    form = _form(file, form)
    place = find_trained(trained.expanduser())
    columns = text.split(",") if text is not None else None
    if columns is not None and not 1 <= len([column for column in columns if column]) == len(columns) <= 2:
        raise RequestError(f"--text {text}: should name one column, or two with a comma between them")
    name = "stdin" if file == "-" else file
    with ExitStack() as stack:
        reader = LineReader(stack.enter_context(_open(file)), name) if form != "parquet" else None
        model = TrainedModel(place, max_length)
        writer = Writer(form, model.label_names, name)
        if reader is None:
            rows, waiting = parquet_rows(Path(file).expanduser()), lambda: False
        else:
            rows, waiting = read_rows(reader, name, form, writer.begin), lambda: reader.waiting
        print_lines(writer.line(each) for each in predict_rows(model, rows, name, columns, waiting=waiting))
        if writer.count == 0:
            print_lines(writer.header())
            tell(f"{name} holds no rows; there is nothing to label")


def _open(file: str) -> AbstractContextManager[BinaryIO]:
    try:
        return nullcontext(sys.stdin.buffer) if file == "-" else Path(file).expanduser().open("rb")
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror}") from None


def _form(file: str, asked: str | None) -> str:
    """Return the input's format."""
    from dpstune.evaluation.prediction import FORMATS

    form = asked or ("lines" if file == "-" else Path(file).suffix.lower().removeprefix(".") or "lines")
    form = "lines" if form == "txt" else form
    if form not in FORMATS:
        raise RequestError(f"{file}: cannot tell its format; say --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if form == "parquet" and file == "-":
        raise RequestError("Parquet is read from a file, not from stdin")
    return form
