"""Predict a user's own rows, many at a time as they arrive; from a file of any length, or a pipe."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from dpstune.common.textfile import (
    ASK_FOR_AN_ENCODING,
    SAVE_AS_UTF_8,
    SEEMS_UTF_16,
    Recoder,
    csv_line,
    is_utf_16,
    wrong_encoding,
)
from dpstune.data.columns import USUAL_PAIRS, USUAL_TEXTS
from dpstune.data.files import FILE_FORMATS, file_rows, form_of, not_packed, open_packed, stream_rows
from dpstune.data.sources import LABEL_SEPARATOR, no_column, text_cell
from dpstune.data.tables import SEPARATORS, Header, NumberedRow, OnHeader
from dpstune.errors import RequestError, RunError, some_of
from dpstune.evaluation.multilabel import given_labels, names_of
from dpstune.settings.sections import TableTask, UserTask, task_name
from dpstune.settings.tasks import get_task

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from dpstune.evaluation.trained import TrainedModel, TrainedPlace

FORMATS = (*FILE_FORMATS, "lines")
STREAMED = (*SEPARATORS, "jsonl", "lines")
"""Of the formats, those of which a row can be answered before the next one is there."""
_FIRST = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("text1", "text2"), ("sentence",), ("text",))
USUAL_COLUMNS = tuple(dict.fromkeys((*_FIRST, *USUAL_PAIRS, *((text,) for text in USUAL_TEXTS))))
"""What is read of a file for a model of which nothing says what it was trained on, the first that are there."""

_REMEDIES = {
    None: "--text COLUMN or --text COLUMN,COLUMN",
    1: "--text COLUMN, or in plain lines leave out tabs",
    2: "--text COLUMN,COLUMN, or in plain lines put a tab between the two",
}
_CHUNK = 1 << 16
_MOST_BATCHES = 16  # of rows that are computed together: their texts are sorted by length


class LineReader:
    """The lines of a stream, each handed on as soon as it is there; they end in \\n, \\r\\n or \\r.

    Args:
        stream: A binary stream that is buffered.
        name: What it is called in errors.
        encoding: What it is in, unless a byte-order mark says otherwise; None for UTF-8.
        remedy: What to do about a text in another encoding, for the error.
    """

    def __init__(
        self, stream: BinaryIO, name: str, encoding: str | None = None, remedy: str = ASK_FOR_AN_ENCODING
    ) -> None:
        self._stream, self._name, self._remedy = stream, name, remedy
        self._recoder = Recoder(encoding)
        self._lines: list[bytes] = []  # whole lines that were read but not handed on, the next one last
        self._begun: list[bytes] = []  # the pieces of a line that may go on

    @property
    def waiting(self) -> bool:
        """Whether the next line has not arrived yet, so that to read it may take long."""
        return not self._lines

    def __iter__(self) -> Iterator[str]:
        """Yield the lines with their ends.

        Raises:
            RequestError: A line is not in its encoding, or the stream cannot be unpacked.
        """
        number = 0
        while self._lines or self._read():
            line = self._lines.pop()
            number += 1
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                place = f"{self._name}:{number}"
                raise wrong_encoding(place, self._recoder.encoding, error.reason, self._remedy) from None
            if number == 1 and is_utf_16(text):
                raise wrong_encoding(f"{self._name}:1", self._recoder.encoding, SEEMS_UTF_16, self._remedy)
            if number > 1 or (text := text.lstrip("\ufeff")):
                yield text

    def _read(self) -> bool:
        while not self._lines:
            chunk = self._chunk()
            if not chunk and not self._begun:
                return False
            at_end = not chunk
            if self._begun and self._begun[-1].endswith(b"\r"):  # the \n of the same line end may follow
                chunk = self._begun.pop() + chunk
            lines = chunk.splitlines(keepends=True)
            goes_on = [] if at_end or lines[-1].endswith(b"\n") else [lines.pop()]
            if lines or at_end:
                lines[:1] = [b"".join([*self._begun, *lines[:1]])]
                self._begun = []
            self._begun += goes_on
            self._lines = lines[::-1]
        return True

    def _chunk(self) -> bytes:
        """Return the next bytes, in UTF-8; none at the end."""
        while True:
            try:
                chunk: bytes = self._stream.read1(_CHUNK)  # type: ignore[attr-defined]
            except (OSError, ValueError) as error:  # pyarrow's errors are these
                raise not_packed(self._name, None, error) from None
            recoded = self._recoder.feed(chunk)
            if recoded or not chunk:
                return recoded


@dataclass(frozen=True)
class Prediction:
    """What a model says of one row.

    Args:
        row: The row's own columns.
        prediction: The label's name, or the value; a list of names where a row may have several labels.
        scores: Probabilities by label name; empty for regression.
    """

    row: Mapping[str, Any]
    prediction: str | float | list[str]
    scores: Mapping[str, float]


def predict_rows(
    model: TrainedModel,
    rows: Iterable[NumberedRow],
    name: str,
    text: Sequence[str] | None = None,
    *,
    waiting: Callable[[], bool] = lambda: False,
) -> Iterator[Prediction]:
    """Yield one prediction per row, in order; they are computed when there are many, or no more rows have arrived.

    Args:
        model: The classifier.
        rows: Numbered rows by column, such as ``read_rows`` yields.
        name: What the rows come from, for errors.
        text: The one or two text columns; None takes those the model was trained on, or usual ones.
        waiting: Tells whether the next row has not arrived yet; then the rows before it are not kept waiting.

    Raises:
        RequestError: A text column is missing, a row has no text, or rows have another number of texts than the model
            was trained on.
        RunError: A logit is not finite.
    """
    rows_so_far: list[Mapping[str, Any]] = []
    texts: list[tuple[str, ...]] = []
    columns: Sequence[str] = ()
    batches = 1
    try:
        for number, row in rows:
            columns = columns or choose_text_columns(model.place, text, row, name)
            texts.append(_texts(row, columns, f"{name}:{number}"))
            rows_so_far.append(row)
            if len(rows_so_far) >= batches * model.batch_size or waiting():
                yield from _predict(model, rows_so_far, texts)
                rows_so_far, texts = [], []
                batches = min(2 * batches, _MOST_BATCHES)  # the first answers come soon, also of a slow model
    except RequestError:  # the rows before the wrong one are answered
        yield from _predict(model, rows_so_far, texts)
        raise
    yield from _predict(model, rows_so_far, texts)


def read_rows(
    reader: LineReader, name: str, form: str, wanted: Collection[str] = (), on_header: OnHeader | None = None
) -> Iterator[NumberedRow]:
    """Yield numbered rows by column.

    Args:
        reader: Where the lines come from.
        name: What they come from, for errors.
        form: csv, tsv or jsonl; or lines: a text each, or two with a tab between, as columns text, or text1 and text2.
            Blank lines are passed over.
        wanted: The columns that are asked for; they show what separates those of a csv.
        on_header: Is given the header of a csv or tsv before its first row, also where none follows.

    Raises:
        RequestError: A row is malformed.
    """
    if form != "lines":
        yield from stream_rows(name, iter(reader), form, wanted, on_header)
        return
    texts = 0
    for number, line in enumerate(reader, start=1):
        if not line.strip():
            continue
        parts = line.rstrip("\r\n").split("\t")
        if len(parts) > 2:
            raise RequestError(f"{name}:{number}: {len(parts)} texts; a line holds one, or two with a tab between")
        texts = texts or len(parts)
        if len(parts) != texts:
            raise RequestError(
                f"{name}:{number}: {_texts_in_words(len(parts))}, where the first had {_texts_in_words(texts)}"
            )
        yield number, dict(zip(("text",) if len(parts) == 1 else ("text1", "text2"), parts, strict=True))


class Writer:
    """Turns predictions into lines: CSV or TSV with a header, or one JSON object per line.

    Args:
        form: The input's format: csv and tsv are kept, any other becomes JSON lines.
        label_names: The model's labels; empty for regression.
        name: What the rows come from, for errors.
    """

    def __init__(self, form: str, label_names: Sequence[str], name: str) -> None:
        self._form, self._separator, self._name = form, SEPARATORS.get(form), name
        own = [f"score_{label}" for label in label_names] if self._separator else ["scores"] if label_names else []
        self._added = list(dict.fromkeys(["prediction", *own]))
        self._header: list[str] = []
        self.count = 0
        """How many predictions have become lines."""

    def begin(self, header: Header) -> None:
        """Take the header of a table; a csv keeps what separates its columns.

        Raises:
            RequestError: There is a column that would be overwritten.
        """
        refuse_taken(header.columns, self._added, self._name)
        self._header = [*header.columns, *self._added]
        self._separator = header.separator

    def header(self) -> list[str]:
        """Return the lines that stand before the first prediction: a table's header, none in JSON lines.

        Raises:
            RequestError: The table has not even a header.
        """
        if self._separator is None:
            return []
        if not self._header:
            raise RequestError(f"{self._name} is empty: a {self._form} file begins with the names of its columns")
        return [csv_line(self._header, self._separator)]

    def line(self, each: Prediction) -> str:
        """Return a prediction's line, the first one after the header; without the last line end.

        Raises:
            RequestError: The row has a column that would be overwritten.
        """
        first = self.count == 0
        self.count += 1
        if self._separator is None:
            return self._json_line(each)
        by_column = {f"score_{label}": score for label, score in each.scores.items()}
        prediction = each.prediction
        if isinstance(prediction, list):
            prediction = LABEL_SEPARATOR.join(prediction)
        values = {**each.row, "prediction": prediction, **by_column}
        line = csv_line([values[column] for column in self._header], self._separator)
        return "\n".join([*self.header(), line] if first else [line])

    def _json_line(self, each: Prediction) -> str:
        refuse_taken(each.row, self._added, self._name)
        scores = {"scores": each.scores} if each.scores else {}
        row = {column: _for_json(value) for column, value in each.row.items()}
        return json.dumps({**row, "prediction": each.prediction, **scores}, ensure_ascii=False, default=str)


def refuse_taken(columns: Iterable[str], added: Collection[str], name: str) -> None:
    """Refuse rows with a column that would be overwritten.

    Args:
        columns: The rows' own.
        added: Those that predictions add.
        name: What the rows come from, for the error.

    Raises:
        RequestError: There is one.
    """
    taken = next((column for column in columns if column in added), None)
    if taken is not None:
        raise RequestError(
            f"{name}: a column is called {taken!r}, but predict adds one of this name; rename or remove it"
        )


def _predict(
    model: TrainedModel, rows: Sequence[Mapping[str, Any]], texts: Sequence[tuple[str, ...]]
) -> Iterator[Prediction]:
    if not rows:
        return
    logits = model.score_texts(texts)
    right = int(logits.isfinite().all(-1).int().cumprod(0).sum())  # the rows before the first without an answer
    yield from _answers(model, rows[:right], logits[:right])
    if right < len(rows):
        raise RunError(f"{model.place.name}: its outputs are not finite")


def _answers(model: TrainedModel, rows: Sequence[Mapping[str, Any]], logits: torch.Tensor) -> Iterator[Prediction]:
    if model.kind == "regression":
        for row, value in zip(rows, logits[:, 0].tolist(), strict=True):
            yield Prediction(row, round(value, 6), {})
        return
    answers: list[str | list[str]]
    if model.kind == "multilabel":
        probabilities = logits.sigmoid()
        answers = [names_of(given, model.label_names) for given in given_labels(probabilities)]
    else:
        probabilities = logits.softmax(-1)
        answers = [model.label_names[index] for index in logits.argmax(-1).tolist()]
    for row, answer, scores in zip(rows, answers, probabilities.tolist(), strict=True):
        by_name = dict(zip(model.label_names, (round(score, 6) for score in scores), strict=True))
        yield Prediction(row, answer, by_name)


def read_texts(path: Path, place: TrainedPlace, text: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    """Return the texts of a file, one or two strings a row, read as ``predict`` reads it.

    Args:
        path: The file.
        place: The model; its training task says which columns hold text.
        text: The one or two text columns; None takes those the model was trained on, or usual ones.

    Raises:
        RequestError: The file cannot be read or holds no rows, a text column is missing, or a row has no text.
    """
    name, form = str(path), form_of(path)
    columns: Sequence[str] = ()
    texts = []
    with ExitStack() as stack:
        rows: Iterable[NumberedRow]
        if form.format in ("", "txt"):
            stream = stack.enter_context(open_packed(path, form.packing))
            rows = read_rows(LineReader(stream, name, remedy=SAVE_AS_UTF_8), name, "lines")
        else:
            rows = file_rows(path, likely_columns(place, text))
        for number, row in rows:
            columns = columns or choose_text_columns(place, text, row, name, any_number=True)
            texts.append(_texts(row, columns, f"{name}:{number}"))
    if not texts:
        raise RequestError(f"{name} holds no rows")
    return texts


def likely_columns(place: TrainedPlace, text: Sequence[str] | None) -> list[str]:
    """Return the names that the text columns of a table may have."""
    return [
        column for columns in ([text] if text else [*_training_columns(place), *USUAL_COLUMNS]) for column in columns
    ]


def choose_text_columns(
    place: TrainedPlace, asked: Sequence[str] | None, row: Mapping[str, Any], name: str, *, any_number: bool = False
) -> Sequence[str]:
    """Return the text columns: those asked for, the training task's, or the first usual ones that are there.

    Args:
        place: The model; its training task says which columns hold text, and how many.
        asked: The one or two that are asked for; None for none.
        row: The first row.
        name: What the rows come from, for errors.
        any_number: Whether a model that was trained on pairs may be given single texts, or the other way round, as
            where its hidden states are looked at.

    Raises:
        RequestError: One that is asked for is not there, none of the others is, or they are one where the model was
            trained on two, or two where it was trained on one.
    """
    own = _training_columns(place)
    count = len(own[0]) if own and not any_number else None
    if asked is not None:
        missing = next((column for column in asked if column not in row), None)
        if missing is not None:
            raise no_column(name, missing, list(row))
        if count is not None and len(asked) != count:
            raise RequestError(
                f"--text {','.join(asked)}: the model was trained on {_texts_in_words(count)}; say {_REMEDIES[count]}"
            )
        return asked
    for columns in (*own, *USUAL_COLUMNS):
        if count in (None, len(columns)) and all(column in row for column in columns):
            return columns
    say = "Say" if count is None else f"The model was trained on {_texts_in_words(count)}: say"
    raise RequestError(f"{name}: which columns hold the text? {say} {_REMEDIES[count]}; there are {some_of(row)}")


def _training_columns(place: TrainedPlace) -> list[Sequence[str]]:
    """Return what the text columns are called where the model's task lies; nothing where no task is known."""
    task = place.task
    if task is None:
        return []
    if isinstance(task, UserTask):
        return [task.text]
    known = get_task(task_name(task))
    moved = [task.text] if isinstance(task, TableTask) and task.text is not None else []
    # A toy task lies nowhere; its examples are pairs.
    return [*moved, *(source.text for source in (known.glue, known.hub) if source is not None)] or [USUAL_PAIRS[0]]


def _texts(row: Mapping[str, Any], columns: Sequence[str], place: str) -> tuple[str, ...]:
    texts = tuple(text_cell(row, column, place) for column in columns)
    if not any(map(str.strip, texts)):
        raise RequestError(f"{place}: no text in {' and '.join(columns)}")
    return texts


def _texts_in_words(count: int) -> str:
    return "one text" if count == 1 else "two texts"


def _for_json(value: Any) -> Any:
    """Return a cell as JSON can hold it: None for NaN, as Parquet's gaps are read; json itself writes dates as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _for_json(below) for key, below in value.items()}
    return [_for_json(below) for below in value] if isinstance(value, list) else value
