"""Labelled rows that no recipe names, such as next month's file: read as a trained model's task has its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.paths import expanded
from dpstune.common.textfile import ASK_FOR_AN_ENCODING, known_encoding
from dpstune.data.files import file_rows, find_files, form_of, is_pattern
from dpstune.data.gold_labels import gaps, label_examples, sort_names
from dpstune.data.labels import map_labels
from dpstune.data.reading import TaskData, measured_by
from dpstune.data.sources import Columns, RawSplit, collect_rows, no_column, read_files
from dpstune.data.tables import Rows
from dpstune.errors import RequestError, some_of
from dpstune.evaluation.prediction import choose_text_columns, likely_columns
from dpstune.recipe.yaml_text import is_yaml_file
from dpstune.settings.metrics import USUAL_METRIC
from dpstune.settings.sections import UserTask, task_name
from dpstune.settings.tasks import TASKS, get_task

if TYPE_CHECKING:
    from dpstune.evaluation.trained import TrainedModel, TrainedPlace

SPLIT = "rows"
"""What such rows are called where a task's splits have their names."""


def names_rows(asked: str) -> bool:
    """Tell whether a user names a file of rows, or a pattern of such files, and neither a task nor a recipe.

    >>> [names_rows(asked) for asked in ("new.csv", "part-*.jsonl", "rte", "recipe.yaml", "rt")]
    [True, True, False, False, False]
    """
    path = Path(asked)
    if asked in TASKS or is_yaml_file(asked):
        return False
    return bool(form_of(path).format) or is_pattern(path) or expanded(path).is_file()


def read_labelled_file(
    asked: str,
    model: TrainedModel,
    text: Sequence[str] | None = None,
    label: str | None = None,
    encoding: str | None = None,
) -> TaskData:
    """Read a file, or those of a pattern, as a task of one split.

    Args:
        asked: The file.
        model: The classifier that is to be evaluated on it.
        text: The one or two text columns; None takes those the model was trained on, or usual ones.
        label: The label column; None takes that of the model's task.
        encoding: What a text file is in; None for UTF-8, or what its byte-order mark says.

    Raises:
        RequestError: The encoding is not known, the file cannot be read or holds no rows, a column is missing, the
            text columns are more or fewer than the model was trained on, or a label is none of the model's.
    """
    encoding = encoding and known_encoding(encoding)
    files = find_files(expanded(asked))
    likely = [*likely_columns(model.place, text), *_label_columns(model.place, label)]
    first = next((row for _, row in file_rows(files[0], likely, encoding=encoding, remedy=ASK_FOR_AN_ENCODING)), None)
    if first is None:
        raise RequestError(f"{files[0]} holds no rows")
    columns = _columns(model.place, first, str(files[0]), text, label)
    rows = read_files(files, columns, encoding, ASK_FOR_AN_ENCODING)
    return _as_task(Path(asked).stem, rows, columns, model)


def read_labelled_rows(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    model: TrainedModel,
    text: Sequence[str] | None = None,
    label: str | None = None,
) -> TaskData:
    """Read rows by column as ``read_labelled_file`` reads those of a file.

    Args:
        rows: Numbered from 0 in errors.
        name: What they are called.
        model, text, label: See ``read_labelled_file``.

    Raises:
        RequestError: There are no rows, a column is missing, the text columns are more or fewer than the model was
            trained on, or a label is none of the model's.
    """
    if not rows:
        raise RequestError(f"{name}: there are no rows")
    columns = _columns(model.place, rows[0], name, text, label)
    numbered: Rows = enumerate(rows)
    return _as_task(name, collect_rows(name, numbered, columns), columns, model)


def _label_columns(place: TrainedPlace, asked: str | None) -> list[str]:
    """Return the names that the label column may have: the one asked for, or those of the model's task."""
    task = place.task
    if asked is not None:
        return [asked]
    if isinstance(task, UserTask):
        return [task.label]
    known = get_task(task_name(task)) if task is not None else None
    sources = (known.hub, known.glue) if known is not None else ()
    return list(dict.fromkeys([*(source.label for source in sources if source is not None), "label"]))


def _columns(
    place: TrainedPlace, row: Mapping[str, Any], name: str, text: Sequence[str] | None, label: str | None
) -> Columns:
    candidates = _label_columns(place, label)
    found = next((column for column in candidates if column in row), None)
    if found is None and label is None:
        raise RequestError(
            f"{name}: no column {candidates[0]!r}, where the model's task has its labels; "
            f"say which one holds them: --label COLUMN; there are {some_of(row)}"
        )
    if found is None:
        raise no_column(name, candidates[0], list(row))
    texts = choose_text_columns(place, text, row, name)
    if len({*texts, found}) <= len(texts):
        raise RequestError(f"{name}: text and label should be different columns, not {', '.join([*texts, found])}")
    group = place.task.group if isinstance(place.task, UserTask) else None
    return Columns(texts, found, group, group_required=False)


def _as_task(name: str, raw: RawSplit, columns: Columns, model: TrainedModel) -> TaskData:
    if empty := raw.without_text(columns.text):
        raise RequestError(f"{raw.source}: column {empty[0]!r} has no text in any row")
    marks, notes = gaps(model.kind), [*raw.notes]
    names = _label_names(raw, model, marks)
    splits = {SPLIT: label_examples(raw, model.kind, names, SPLIT, notes, marks)}
    usual, asked = USUAL_METRIC[model.kind], None
    trained_on = model.place.task
    if trained_on is not None:
        usual = usual if isinstance(trained_on, UserTask) else get_task(task_name(trained_on)).metric
        asked = None if isinstance(trained_on, str) else trained_on.metric
    return measured_by(TaskData(name, model.kind, names, usual, splits, tuple(notes)), asked)


def _label_names(raw: RawSplit, model: TrainedModel, marks: Sequence[str | None]) -> tuple[str, ...]:
    """Return the model's labels, or the rows' own where those are other names that can be read as the model's.

    Those that stand one for one for the model's have its order, by which metrics such as F1 tell two labels apart.
    """
    there = sort_names({label for label in raw.labels if label is not None and label not in marks})
    if model.kind == "classification" and not set(there) <= set(model.label_names):
        with suppress(RequestError):  # ``label_examples`` says of which row the label is unknown
            read_as = map_labels(model.label_names, there).predictions
            return tuple(there[index] for index in read_as) if sorted(read_as) == [*range(len(there))] else there
    return model.label_names
