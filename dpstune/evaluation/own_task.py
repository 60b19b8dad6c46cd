"""Whether a run's own task still is what it was trained with: a part drawn of other rows, or another draw, is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpstune.errors import RequestError
from dpstune.evaluation.training_rows import told_of_training_rows
from dpstune.settings.sections import AnyTask, UserTask, same_task, same_training_table

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.evaluation.targets import Target
    from dpstune.evaluation.trained import TrainedPlace


def told_of_rows(place: TrainedPlace, target: Target, examples: TaskData) -> str | None:
    """Say why a task's rows may not be those that a run should be scored on; None where nothing is known against them.

    Those of a run's own training table may have changed since; of a user's other task, such as that of an edited
    recipe, the run may have been trained on some. What cannot change under a run, such as the hub's pinned datasets, is
    not read for it.

    Args:
        place: Where the model lies.
        target: What it is to be evaluated on.
        examples: What was read of that.

    Raises:
        RequestError: The task has changed, and what is evaluated is drawn from its training rows: the draw is another
            one, with rows that the run was trained on.
        RunError: The hub could not be reached.
    """
    if place.recipe is None:
        return None
    of_its_table = same_training_table(target.task, place.recipe.task)
    changed = _changed(place, target) if of_its_table else None
    if changed is not None or same_task(target.task, place.recipe.task) or not isinstance(target.task, UserTask):
        return changed
    return told_of_training_rows(place, examples, of_its_table=of_its_table)


def _changed(place: TrainedPlace, target: Target) -> str | None:
    """Say that the rows a run was trained with have changed since; None where they have not."""
    from dpstune.data.reading import read_task
    from dpstune.runs.identity import has_changed, known_fingerprints

    if place.run is None or place.recipe is None:
        return None
    if target.data_dir is None and not isinstance(target.task, UserTask):
        return None
    trained_with = known_fingerprints(place.run.read_result() or {})
    if "task" not in trained_with:
        return None
    is_drawn = _is_drawn(target.task, target.split)
    try:
        task = read_task(place.recipe.task, place.recipe.data.model_copy(update={"dir": target.data_dir}))
    except RequestError as error:  # of a split that is not evaluated here
        if not is_drawn:
            return None
        if same_task(target.task, place.recipe.task):
            raise
        raise RequestError(
            f"{place.name}: its {target.split} rows are drawn from the rows that it was trained on, and cannot be "
            f"compared with those: {error}"
        ) from None
    if not has_changed(task, trained_with):
        return None
    if is_drawn:
        raise RequestError(
            f"{place.name}: the rows of {task.name} have changed since it was trained, and its {target.split} rows, "
            "drawn anew from them, would hold rows that it was trained on; train it again, or put the rows back as "
            "they were"
        )
    return f"{task.name}: the data have changed since {place.name} was trained"


def _is_drawn(task: AnyTask, split: str) -> bool:
    """Tell whether a split is drawn from the training rows."""
    return isinstance(task, UserTask) and split in task.parts.names and task.parts.place(split) is None
