"""``dpstune.evaluate``."""

from __future__ import annotations

from pathlib import Path

from dpstune.api.arguments import as_count_or_none, as_folder, as_folder_or_none, as_text, shown
from dpstune.api.results import EvaluateResult, FitResult, SweepResult, TrainResult
from dpstune.errors import RequestError

ModelLike = str | Path | TrainResult | FitResult | SweepResult
"""A run's folder, a local model folder, or what ``train``, ``fit`` or ``sweep`` (then its best run) returned."""


def evaluate(
    model: ModelLike,
    task: str | Path | None = None,
    *,
    split: str = "validation",
    data_dir: str | Path | None = None,
    max_length: int | None = None,
) -> EvaluateResult:
    """Score a trained model on a task, its own or another whose labels match by name.

    Args:
        model: A run's folder, a local model folder, or a result.
        task: A task, or a recipe file whose task is meant; the run's own. A fit's own task has no rows left to score.
        split: validation or test.
        data_dir: Local data in the place of the hub.
        max_length: Tokens an example is cut to; the run's.

    Raises:
        RequestError: There is no such model, task or split, labels do not match, or the run's rows have changed and
            what is evaluated would be drawn from them anew.
        RunError: The hub could not be reached, or a score is not finite.

    >>> import dpstune
    >>> run = dpstune.train("demo", method="vanilla", training={"steps": 2}, data={"train_size": 32}, quiet=True)
    >>> dpstune.evaluate(run).value == run.value
    True
    >>> dpstune.evaluate(run, "toy-nli-shift").table["split"].tolist()
    ['validation']
    """
    from dpstune.evaluation.own_task import told_of_changes
    from dpstune.evaluation.targets import Target, evaluate_target, match_labels, read_target
    from dpstune.evaluation.trained import TrainedModel, find_trained
    from dpstune.settings.sections import FEWEST_TOKENS

    place = find_trained(model_folder(model))
    folder, named = as_folder_or_none("data_dir", data_dir), as_text("task", task)
    if named is not None:
        target = read_target(named, split, folder)
    elif place.recipe is not None:
        target = Target(place.recipe.task, split, folder or place.recipe.data.dir)
    else:
        raise RequestError(f"{place.name} is a model folder, which names no task; give task=")
    examples = target.read()
    changes = told_of_changes(place, target)
    trained = TrainedModel(place, as_count_or_none("max_length", max_length, FEWEST_TOKENS))
    labels = match_labels(trained, examples)
    found = evaluate_target(trained, examples)
    rows = [{"split": name, **each.metrics, "examples": len(each.predictions)} for name, each in found.items()]
    description = None if labels is None else labels.description
    notes = [*examples.notes, *filter(None, [changes])]
    return EvaluateResult(place.folder, rows, examples.metric, description, notes)


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
