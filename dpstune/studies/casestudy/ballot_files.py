"""Predictions made elsewhere, read from tables in any format that a task's files have.

Two kinds of table are read:

* One row for each prediction: ``id``, with ``prediction`` (and the gold ``label``) or with ``correct`` (0 or 1); and
  ``seed`` or ``restart``, if the rows say of which restart they are.
* Counts: ``id`` with ``correct``, the number of the ``restarts`` that were right; or one column ``correct_NAME`` for
  each method, as in a case study's own examples.csv.

``method`` names a row's method; without it, the file's name does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpstune.common.textfile import read_cell
from dpstune.data.columns import USUAL_PAIRS, USUAL_TEXTS
from dpstune.data.files import file_rows
from dpstune.data.sources import no_column, plain_cell
from dpstune.errors import RequestError, did_you_mean, some_of
from dpstune.studies.casestudy.ballots import Ballot, Gathered, MethodBallots
from dpstune.studies.casestudy.casestudy import Example

TEXT_COLUMNS = (*(column for pair in USUAL_PAIRS for column in pair), *USUAL_TEXTS)
_KNOWN = ("id", "method", "seed", "restart", "label", "prediction", "correct", "restarts", "phenomenon")
_COUNT_PREFIX, _RESTARTS_PREFIX = "correct_", "restarts_"
# Columns of a run's predictions, of a case study's own table, and of pandas' row numbers.
_IGNORED = ("scores", "", "__index_level_0__", "Unnamed: 0")
_VERDICT_PREFIX = "verdict_"
_IGNORED_PREFIXES = (_VERDICT_PREFIX, "change_")
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


def read_ballot_file(path: Path, gathered: Gathered, *, texts: Sequence[str] = (), restarts: int | None = None) -> None:
    """Add a table's methods and examples to what is gathered.

    Args:
        path: The file.
        gathered: Where they are added.
        texts: Its text columns, if their names are not in ``TEXT_COLUMNS``.
        restarts: Of how many restarts its counts are, if no column says so.

    Raises:
        RequestError: The file is missing, not UTF-8 or malformed; it lacks a column or has an unknown one; it holds a
            row twice; or a count is larger than the restarts. The message names file and line.
    """
    reader: _Reader | None = None
    for number, cells in file_rows(path, _KNOWN):
        row = _Row(f"{path}:{number}", cells or {})
        if reader is None:
            reader = _Reader(path, _find_layout(path, list(cells or ()), texts), restarts)
        gathered.add_example(reader.read(row), row.place)
    if reader is None:
        raise RequestError(f"{path}: holds no predictions; it should have a row for each example and restart")
    for method in reader.methods.values():
        gathered.add_method(method)


class _Row:
    """A row of a table.

    Args:
        place: ``file:line``, for errors.
        cells: Its cells, by column.
    """

    def __init__(self, place: str, cells: Mapping[str, Any]) -> None:
        self.place, self._cells = place, cells

    def get(self, column: str) -> str | None:
        """Return a cell's text; None if there is no such column or the cell is empty."""
        return plain_cell(self._cells, column, self.place) or None

    def has(self, column: str) -> bool:
        """Return whether there is such a column."""
        return column in self._cells

    def need(self, column: str) -> str:
        """Return a cell's text; an empty or missing cell is an error."""
        value = self.get(column)
        if value is None:
            raise RequestError(f"{self.place}: column {column!r} is empty")
        return value

    def count(self, column: str) -> int:
        """Return a cell's whole number."""
        value = self.need(column)
        if not value.isascii() or not value.isdecimal():
            raise RequestError(f"{self.place}: {column} is {value!r}; it should be a whole number")
        return int(value)

    def truth(self, column: str) -> bool:
        """Return whether a cell says yes."""
        value = self.need(column).lower()
        if value not in _TRUTH:
            raise RequestError(
                f"{self.place}: {column} is {value!r}; it should be 0 or 1, since a table with a column 'seed', "
                "'restart' or 'prediction' has one prediction in each row"
            )
        return _TRUTH[value]


@dataclass(frozen=True)
class _Layout:
    """What a table's columns tell.

    Args:
        texts: The text columns.
        restart: The column that tells restarts apart; None if there is none.
        votes: Whether each row is one prediction; if not, rows hold counts.
        counted: The methods that have a count column of their own.
        ours: Whether it is a case study's own examples.csv, whose texts and labels are written for a spreadsheet.
    """

    texts: Sequence[str]
    restart: str | None
    votes: bool
    counted: Sequence[str]
    ours: bool


def _find_layout(path: Path, columns: list[str], texts: Sequence[str]) -> _Layout:
    for needed in ("id", *texts):
        if needed not in columns:
            raise no_column(str(path), needed, columns)
    found = list(texts) or [column for column in TEXT_COLUMNS if column in columns]
    counted = [column.removeprefix(_COUNT_PREFIX) for column in columns if column.startswith(_COUNT_PREFIX)]
    for column in columns:
        known = column in (*_KNOWN, *_IGNORED, *found)
        if not known and not column.startswith((*_IGNORED_PREFIXES, _COUNT_PREFIX, _RESTARTS_PREFIX)):
            hint = did_you_mean(column, [*_KNOWN, *TEXT_COLUMNS])
            raise RequestError(f"{path}: unknown column {column!r}; --text {column} reads it as a text{hint}")
    restart = next((column for column in ("seed", "restart") if column in columns), None)
    votes = "prediction" in columns or (restart is not None and not counted)
    if not votes and not counted and "correct" not in columns:
        raise RequestError(
            f"{path}: has no column 'prediction' or 'correct'; a row should say what a restart predicted, or how many "
            f"restarts were right; its columns are {some_of(columns)}"
        )
    ours = bool(counted) and all(f"{_VERDICT_PREFIX}{name}" in columns for name in counted)
    return _Layout(found, restart, votes, counted, ours)


class _Reader:
    """Sorts one table's rows into methods as they come.

    Args:
        path: The file.
        layout: What its columns tell.
        restarts: Of how many restarts its counts are, if no column says so.
    """

    def __init__(self, path: Path, layout: _Layout, restarts: int | None) -> None:
        self._path, self._layout, self._restarts = path, layout, restarts
        self.methods: dict[str, MethodBallots] = {}
        self._ballots: dict[tuple[str, str | int], Ballot] = {}
        self._times_met: Counter[tuple[str, str]] = Counter()

    def read(self, row: _Row) -> Example:
        """Read a row and return its example."""
        example = row.need("id")
        if self._layout.votes:
            self._read_vote(row, example)
        elif self._layout.counted:
            for name in self._layout.counted:
                self._read_count(row, example, name, _COUNT_PREFIX + name, _RESTARTS_PREFIX + name)
        else:
            self._read_count(row, example, self._name(row), "correct", "restarts")
        texts, label = tuple(row.get(column) or "" for column in self._layout.texts), row.get("label")
        if self._layout.ours:
            texts, label = tuple(map(read_cell, texts)), label and read_cell(label)
        if not (len(texts) == 2 and texts[1]):  # the first of a pair may be empty
            texts = tuple(filter(None, texts))
        return Example(example, label, texts, row.get("phenomenon"))

    def _name(self, row: _Row) -> str:
        return row.need("method") if row.has("method") else self._path.stem

    def _method(self, name: str) -> MethodBallots:
        return self.methods.setdefault(name, MethodBallots(name, str(self._path)))

    def _read_vote(self, row: _Row, example: str) -> None:
        name = self._name(row)
        self._times_met[name, example] += 1
        restart: str | int = self._times_met[name, example]  # unless rows name their restart, each is another
        if self._layout.restart is not None:
            restart = f"{self._layout.restart} {row.need(self._layout.restart)}"
        ballot = self._ballots.get((name, restart))
        if ballot is None:
            ballot = Ballot(restart if isinstance(restart, str) else None, str(self._path))
            self._ballots[name, restart] = ballot
            self._method(name).ballots.append(ballot)
        if example in ballot.predictions or example in ballot.right:
            raise RequestError(f"{row.place}: example {example!r} is there twice for {restart} of {name}")
        if row.has("prediction"):
            ballot.predictions[example] = row.need("prediction")
        if row.has("correct") or not row.has("prediction"):
            ballot.right[example] = row.truth("correct")

    def _read_count(self, row: _Row, example: str, name: str, column: str, restarts_column: str) -> None:
        method = self._method(name)
        if example in method.counts:
            raise RequestError(
                f"{row.place}: example {example!r} is there twice for {name}; if each row is one prediction, add a "
                "column 'seed' or 'prediction'"
            )
        restarts = self._restarts_of(row, restarts_column)
        if restarts != (method.restarts or restarts):
            raise RequestError(
                f"{row.place}: {restarts} restarts of {name} here and {method.restarts} before; every example should "
                "have as many"
            )
        method.restarts = restarts
        correct = row.count(column)
        if correct > restarts:
            raise RequestError(f"{row.place}: {column} is {correct}, more than the {restarts} restarts of {name}")
        method.counts[example] = correct

    def _restarts_of(self, row: _Row, column: str) -> int:
        for named in (column, "restarts"):
            if row.has(named):
                restarts = row.count(named)
                if restarts == 0:
                    raise RequestError(f"{row.place}: {named} is 0; it should be 1 or more")
                return restarts
        if self._restarts is None:
            raise RequestError(
                f"{self._path}: does not say of how many restarts its counts are; add a column 'restarts', or give "
                "--restarts N; if each row is one restart's answer, add a column 'seed'"
            )
        return self._restarts
