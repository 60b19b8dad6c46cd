"""``dpstune predict``."""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import Trained, asked_columns
from dpstune.common.paths import expanded
from dpstune.errors import RequestError
from dpstune.report.output import print_lines, tell


def predict(
    trained: Trained,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="CSV, TSV, JSONL, JSON, Parquet, Excel, lines; - is stdin.")
    ],
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="The text columns; default: those it was trained on.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, tsv, jsonl, ...; the file name's ending, lines for -.")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="What a text file is in, such as latin-1; UTF-8, or what its byte-order mark says."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Most tokens of an example; default: the run's.")
    ] = None,
) -> None:
    """Label rows as they come, with scores, on stdout.

    CSV and TSV stay what they are, the rest becomes JSON lines.

    Example: dpstune predict runs/demo/dps-dense/seed-42-... new.csv
    """
    from dpstune.common.textfile import ASK_FOR_AN_ENCODING, known_encoding
    from dpstune.data.files import file_rows, form_of, open_packed
    from dpstune.evaluation.prediction import (
        STREAMED,
        LineReader,
        Writer,
        likely_columns,
        predict_rows,
        read_rows,
    )
    from dpstune.evaluation.trained import TrainedModel, find_trained

    path = expanded(file)
    form = _form(file, form)
    encoding = known_encoding(encoding) if encoding is not None else None
    place = find_trained(expanded(trained))
    columns = asked_columns(text)
    name = "stdin" if file == "-" else file
    with ExitStack() as stack:
        reader = None
        if form in STREAMED:
            stream = nullcontext(sys.stdin.buffer) if file == "-" else open_packed(path, form_of(path).packing)
            reader = LineReader(stack.enter_context(stream), name, encoding)
        model = TrainedModel(place, max_length)
        writer = Writer(form, model.label_names, name)
        if reader is None:
            rows, waiting = file_rows(path, form=form, encoding=encoding, remedy=ASK_FOR_AN_ENCODING), lambda: False
        else:
            likely = likely_columns(model.place, columns)
            rows, waiting = read_rows(reader, name, form, likely, writer.begin), lambda: reader.waiting
        print_lines(writer.line(each) for each in predict_rows(model, rows, name, columns, waiting=waiting))
        if writer.count == 0:
            print_lines(writer.header())
            tell(f"{name} holds no rows; there is nothing to label")
        if cut := model.cut.told():
            tell(cut)


def _form(file: str, asked: str | None) -> str:
    """Return the input's format."""
    from dpstune.data.files import form_of
    from dpstune.evaluation.prediction import FORMATS, STREAMED

    form = asked or ("lines" if file == "-" else form_of(Path(file)).format or "lines")
    form = "lines" if form == "txt" else form
    if form not in FORMATS:
        raise RequestError(f"{file}: cannot tell its format; say --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if form not in STREAMED and file == "-":
        raise RequestError(f"{form} is read from a file, not from stdin")
    return form
