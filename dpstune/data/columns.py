"""What the columns of a table seem to hold: which are text, which is the label, and why one would think so."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from dpstune.common.textfile import ASK_FOR_AN_ENCODING
from dpstune.data.files import file_rows
from dpstune.data.sources import LABEL_SEPARATOR, no_column
from dpstune.data.written_forms import MOST_LABELS, number, seem_values, with_point
from dpstune.errors import RequestError, counted, shortened, some_of
from dpstune.settings.tasks import Kind

MOST_ROWS = 10_000  # more tell no more about a column
USUAL_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_A", "sentence_B"),
    ("question1", "question2"),
    ("question", "answer"),
    ("text1", "text2"),
)
USUAL_TEXTS = ("text", "sentence", "message", "comment", "review", "content", "body")
USUAL_LABELS = (
    "label",
    "labels",
    "gold_label",
    "class",
    "category",
    "target",
    "sentiment",
    "score",
    "rating",
    "stars",
    "y",
)

_IDS = ("id", "idx", "index", "pairid", "guid")
_REPEATED = 5  # rows a value, from which on more than MOST_LABELS words are labels all the same
_WORDS_OF_A_TEXT = 3.0  # on average; fewer are names or labels
# A word, a sign, or a character of a script without spaces.
_PIECE = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
_TOKENS_A_PIECE = 1.3  # an English word is 1.3 tokens of BERT's vocabulary
_SPECIAL_TOKENS = 3  # beginning, end, and the one between two texts


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: Its name.
        cells: A text a row; an empty one where there is nothing.
        lists: Whether a cell holds a list.
    """

    name: str
    cells: Sequence[str]
    lists: bool = False

    @cached_property
    def values(self) -> list[str]:
        """The filled cells."""
        return [cell for cell in self.cells if cell]

    @property
    def different(self) -> int:
        """How many different values there are."""
        return len(set(self.values))

    @property
    def characters(self) -> float:
        """Characters a value, on average."""
        return sum(map(len, self.values)) / max(1, len(self.values))

    @property
    def words(self) -> float:
        """Words a value, on average; numbers and signs, such as a date's, are none."""
        words = (piece for value in self.values for piece in _PIECE.findall(value) if piece[0].isalpha())
        return sum(1 for _ in words) / max(1, len(self.values))

    @property
    def numeric(self) -> bool:
        """Whether all values are finite numbers."""
        return bool(self.values) and all(number(value) is not None for value in self.values)

    @property
    def seems_an_id(self) -> bool:
        """Whether it names rows."""
        return self.name.lower() in _IDS or (
            self.different == len(self.values) > 1 and all(re.fullmatch(r"\d+", value) for value in self.values)
        )

    @property
    def seems_labels(self) -> bool:
        """Whether its values are few and come again."""
        few = self.different <= MOST_LABELS or (not self.numeric and self.different * _REPEATED <= len(self.values))
        return 2 <= self.different <= len(self.values) / 2 and few

    @property
    def seems_measured(self) -> bool:
        """Whether it holds many different numbers, also with a comma."""
        return seem_values(set(self.values))


@dataclass(frozen=True)
class Table:
    """The first rows of a table.

    Args:
        path: Its file.
        rows: How many rows were read.
        more: Whether there are more.
        columns: Its columns by name, in the file's order.
    """

    path: Path
    rows: int
    more: bool
    columns: Mapping[str, Column]

    def column(self, name: str) -> Column:
        """Return a column.

        Raises:
            RequestError: There is none of that name; the nearest one is named.
        """
        if name not in self.columns:
            raise no_column(str(self.path), name, list(self.columns))
        return self.columns[name]


def read_table(path: Path, encoding: str | None = None) -> Table:
    """Read the first rows of a file.

    Args:
        path: The file.
        encoding: See ``file_rows``.

    Raises:
        RequestError: The file is not there, is malformed, or holds no rows.
    """
    rows = [row for _, row in islice(file_rows(path, encoding=encoding, remedy=ASK_FOR_AN_ENCODING), MOST_ROWS + 1)]
    if not rows:
        raise RequestError(f"{path} holds no rows to look at")
    looked_at = rows[:MOST_ROWS]
    names = list(dict.fromkeys(name for row in looked_at for name in row))
    columns = {name: _column(name, [row.get(name) for row in looked_at]) for name in names}
    return Table(path, len(looked_at), len(rows) > MOST_ROWS, columns)


def _column(name: str, cells: Sequence[Any]) -> Column:
    return Column(name, [_plain(cell) for cell in cells], any(isinstance(cell, list) for cell in cells))


def _plain(value: Any) -> str:
    """Return text and numbers as text, a list as its parts with ``;`` between them, anything else as an empty text."""
    if isinstance(value, list):
        return LABEL_SEPARATOR.join(map(_plain, value))
    return str(value).strip() if isinstance(value, str | int | float) and value == value else ""


@dataclass(frozen=True)
class Guess:
    """Which columns a model would read and answer, each with a reason in words.

    Args:
        text: One or two text columns.
        why_text: Why those.
        label: The label column.
        why_label: Why that.
        kind: What the labels are.
        why_kind: Why that.
    """

    text: tuple[str, ...]
    why_text: str
    label: str
    why_label: str
    kind: Kind
    why_kind: str


def guess_columns(table: Table, text: str | None = None, text2: str | None = None, label: str | None = None) -> Guess:
    """Guess which columns are text and which is the label.

    Args:
        table: The table.
        text, text2: The text columns, where they are known.
        label: The label column, where it is known.

    Raises:
        RequestError: There is no such column, one is empty or named twice, or nothing seems to be text or labels.
    """
    told = [name for name in (text, text2, label) if name is not None]
    refuse_wrong_names(text, text2, label)
    for name in told:
        if not table.column(name).values:
            raise RequestError(f"{table.path}: column {name!r} is empty in the {counted(table.rows, 'row')} looked at")
    texts, why_text = ([text], "as --text says") if text is not None else _guess_text(table, label)
    if text2 is not None:
        texts, why_text = [texts[0], text2], "as --text and --text2 say"
    chosen, why_label = (label, "as --label says") if label is not None else _guess_label(table, texts)
    kind, why_kind = _guess_kind(table.columns[chosen])
    return Guess(tuple(texts), why_text, chosen, why_label, kind, why_kind)


def refuse_wrong_names(text: str | None, text2: str | None, label: str | None) -> None:
    """Refuse a column that is named twice, and a second text column without a first.

    Raises:
        RequestError: That is so.
    """
    told = [name for name in (text, text2, label) if name is not None]
    twice = next((name for name, count in Counter(told).items() if count > 1), None)
    if twice is not None:
        raise RequestError(f"column {twice!r} is named twice; text and label are columns of their own")
    if text2 is not None and text is None:
        raise RequestError(f"--text2 {text2}: name the first text column, too, with --text")


def _guess_text(table: Table, label: str | None) -> tuple[list[str], str]:
    for pair in USUAL_PAIRS:
        if label not in pair and all(name in table.columns for name in pair):
            return list(pair), "usual names of a pair of texts"
    open_columns = [
        each
        for each in table.columns.values()
        if each.name != label and each.values and not each.numeric and not each.lists
    ]
    if not open_columns:
        raise RequestError(
            f"{table.path}: no column seems to hold text; say --text COLUMN (its columns: {some_of(table.columns)})"
        )
    named = [each for each in open_columns if each.name.lower() in USUAL_TEXTS]
    longest = named[0] if len(named) == 1 else max(open_columns, key=lambda each: each.characters)
    why = f"the longest values: {longest.characters:.0f} characters a row"
    if len(named) == 1:
        why = "a usual name of a text"
    others = [each for each in open_columns if each is not longest and _reads_as_text(each)]
    if len(others) == 1 and not named and longest.words >= _WORDS_OF_A_TEXT:
        both = [name for name in table.columns if name in (longest.name, others[0].name)]
        return both, "the two columns of sentences; take one out if the label is not about both"
    if others:
        why += f"; {some_of(shortened(repr(each.name), 40) for each in others)} may be text, too: --text2 adds one"
    return [longest.name], why


def _reads_as_text(column: Column) -> bool:
    return column.words >= _WORDS_OF_A_TEXT and not column.seems_labels


def _guess_label(table: Table, texts: Sequence[str]) -> tuple[str, str]:
    rest = [each for each in table.columns.values() if each.name not in texts and not each.seems_an_id]
    answers = [each for each in rest if each.seems_labels or each.seems_measured or (each.lists and each.different > 1)]
    named = [each for name in USUAL_LABELS for each in rest if each.name.lower() == name and each.different > 1]
    if named:
        return named[0].name, f"a usual name of labels; {_described(named[0])}"
    if not answers:
        raise RequestError(
            f"{table.path}: no column seems to hold labels; say --label COLUMN (its columns: {some_of(table.columns)})"
        )
    # Words before numbers, few before many; among equals, the last column.
    best = min(reversed(answers), key=lambda each: (each.seems_measured, each.different))
    return best.name, f"{'many numbers' if best.seems_measured else 'few values that repeat'}: {_described(best)}"


def _described(column: Column) -> str:
    if column.seems_measured:
        numbers = [float(with_point(value)) for value in column.values]
        return f"{min(numbers):g} to {max(numbers):g}"
    counts = Counter(column.values)
    shown = (
        f"{shortened(repr(name), 30)} {count}" for name, count in sorted(counts.items(), key=lambda e: (-e[1], e[0]))
    )
    return some_of(shown)


def _guess_kind(label: Column) -> tuple[Kind, str]:
    if label.lists:
        return "multilabel", "lists of labels"
    if label.seems_measured:
        comma = "" if label.numeric else "; write them with a point and no comma"
        return "regression", f"numbers with {counted(label.different, 'different value')}{comma}"
    if label.numeric:
        return "classification", f"{counted(label.different, 'different number')}; regression if their order counts"
    return "classification", counted(label.different, "different value")


def suggest_max_length(table: Table, texts: Sequence[str]) -> tuple[int, str]:
    """Suggest how many tokens an example should be cut to, and say why.

    The tokens are an estimate from words and signs, since it takes a tokenizer to count them.
    """
    columns = [table.columns[name].cells for name in texts]
    lengths = sorted(
        math.ceil(_TOKENS_A_PIECE * sum(len(_PIECE.findall(value)) for value in row)) + _SPECIAL_TOKENS
        for row in zip(*columns, strict=True)
    )
    enough = lengths[math.ceil(0.98 * len(lengths)) - 1]
    suggested = min(512, max(16, 8 * math.ceil(enough / 8)))
    longest = f"by an estimate 98 of 100 rows have {enough} tokens or fewer, the longest {lengths[-1]}"
    return suggested, longest if enough <= suggested else f"{longest}; few encoders take more than 512"
