"""``dpstune.evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.api.arguments import as_columns, as_count_or_none, as_folder, as_folder_or_none, as_names, as_text, shown
from dpstune.api.frames import frame_rows
from dpstune.api.guest import guest
from dpstune.api.results import EvaluateResult, FitResult, SweepResult, TrainResult, prediction_frame
from dpstune.errors import RequestError
from dpstune.settings.metrics import check_metrics

if TYPE_CHECKING:
    import pandas as pd

ModelLike = str | Path | TrainResult | FitResult | SweepResult
"""A run's folder, a local model folder, or what ``train``, ``fit`` or ``sweep`` (then its best run) returned."""


@guest
def evaluate(
    model: ModelLike,
    task: str | Path | pd.DataFrame | None = None,
    *,
    split: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    encoding: str | None = None,
    metric: str | Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    max_length: int | None = None,
    quiet: bool = False,
) -> EvaluateResult:
    """Score a trained model on a task, its own or another whose labels match by name, or on labelled rows.

    Args:
        model: A run's folder, a local model folder, or a result.
        task: A task, a recipe file whose task is meant, a file of labelled rows, or a data frame of them; the run's
            own. A fit's own task has no rows left to score.
        split: Of a task, validation (when left out) or test.
        text: The one or two text columns of a file or data frame; those the model was trained on.
        label: Their label column; that of the model's task.
        encoding: What a text file is in, such as latin-1; UTF-8, or what its byte-order mark says.
        metric: What is measured, the headline first; the task's.
        data_dir: Local data in the place of the hub; of the run's own files, where they lie now.
        max_length: Tokens an example is cut to; the run's.
        quiet: Tell nothing on stderr.

    Raises:
        RequestError: There is no such model, task, split, column or metric, labels do not match, or the run's rows have
            changed and what is evaluated would be drawn from them anew.
        RunError: The hub could not be reached, or a score is not finite.

    >>> import dpstune, pandas
    >>> run = dpstune.train("demo", method="vanilla", training={"steps": 2}, data={"train_size": 32}, quiet=True)
    >>> dpstune.evaluate(run).value == run.value
    True
    >>> dpstune.evaluate(run, "toy-nli-shift").table["split"].tolist()
    ['validation']
    >>> row = {"premise": "A cat sleeps.", "hypothesis": "An animal sleeps.", "label": "entailment"}
    >>> dpstune.evaluate(run, pandas.DataFrame([row])).table["examples"].tolist()
    [1]
    >>> dpstune.evaluate(run, metric=["log_loss", "macro_f1"]).table.columns[1:3].tolist()
    ['log_loss', 'macro_f1']
    """
    from dpstune.data.reading import measured_by
    from dpstune.evaluation.labelled_rows import names_rows, read_labelled_file, read_labelled_rows
    from dpstune.evaluation.own_task import told_of_rows
    from dpstune.evaluation.scoring import prediction_columns
    from dpstune.evaluation.targets import evaluate_target, match_labels, target_of
    from dpstune.evaluation.trained import TrainedModel, find_trained
    from dpstune.evaluation.training_rows import told_of_training_rows
    from dpstune.report.output import tell
    from dpstune.settings.sections import FEWEST_TOKENS
    from dpstune.studies.row_interval import intervals_over_rows
    from dpstune.training.results import told_of_choice

    place = find_trained(model_folder(model))
    columns, longest = as_columns(text), as_count_or_none("max_length", max_length, FEWEST_TOKENS)
    folder = as_folder_or_none("data_dir", data_dir)
    metrics = None if metric is None else as_names("metric", metric, '["macro_f1", "log_loss"]')
    if metrics is not None:
        check_metrics(metrics, given=f"metric={shown(metric)}")
    if not isinstance(label, str | None):
        raise RequestError(f"label={shown(label)}: should be the name of a column")
    if not isinstance(encoding, str | None):
        raise RequestError(f"encoding={shown(encoding)}: should be the name of an encoding, such as latin-1")
    named = as_text("task", task) if isinstance(task, str | Path | None) else None
    if (named is None and task is not None) or (named is not None and names_rows(named)):
        _refuse("all rows are scored", split=split, data_dir=data_dir)
        trained = TrainedModel(place, longest)
        if named is not None:
            examples = read_labelled_file(named, trained, columns, label, encoding)
        else:
            _refuse("a data frame has none", encoding=encoding)
            examples = read_labelled_rows(frame_rows(task), "the data frame", trained, columns, label)
        told, choice = told_of_training_rows(place, examples), None
    else:
        _refuse("a task has its own", text=text, label=label, encoding=encoding)
        place = place if named is not None else place.reading_from(folder)
        target = target_of(place, named, "validation" if split is None else split, folder)
        examples = target.read()
        told = told_of_rows(place, target, examples)
        choice = told_of_choice(place, target, examples.splits)
        trained = TrainedModel(place, longest)
    if metrics is not None:
        examples = measured_by(examples, check_metrics(metrics, examples.kind, f"metric={shown(metric)}"))
    labels = match_labels(trained, examples)
    found = evaluate_target(trained, examples)
    rows = [{"split": name, **each.metrics, "examples": len(each.predictions)} for name, each in found.items()]
    description = None if labels is None else labels.description
    notes = [*examples.notes, *filter(None, [told, choice, trained.cut.told()])]
    first = intervals_over_rows(examples, found).get(next(iter(found)))
    interval = (None, None) if first is None else (first.low, first.high)
    answers = [prediction_frame(name, prediction_columns(examples, each), each.names) for name, each in found.items()]
    for note in () if quiet else notes:
        tell(note)
    groups = None if first is None else first.groups
    return EvaluateResult(place.folder, rows, examples.metric, description, interval, answers, groups, notes=notes)


def _refuse(why: str, **given: Any) -> None:
    """Refuse a parameter that would change nothing."""
    for parameter, value in given.items():
        if value is not None:
            raise RequestError(f"{parameter}={shown(value)}: {why}; leave it out")


def model_folder(model: ModelLike) -> Path:
    """Return the folder of a model, or of its run.

    Raises:
        RequestError: It is neither a folder nor such a result.
    """
    if isinstance(model, TrainResult):
        return model.folder
    if isinstance(model, SweepResult):
        return model.best_run
    if isinstance(model, FitResult):
        return model.model
    if not isinstance(model, str | Path):
        raise RequestError(f"a model is a folder, or what train, fit or sweep returned, not {shown(model)}")
    return as_folder("model", model)
