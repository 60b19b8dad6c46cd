"""How many of the rows that are scored a model was trained on: there the score counts what was learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpstune.common.paths import expanded
from dpstune.data.written_forms import text_form
from dpstune.errors import RequestError
from dpstune.settings.sections import DatasetTask, OwnTask

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.evaluation.trained import TrainedPlace
    from dpstune.recipe.schema import Recipe


def told_of_training_rows(place: TrainedPlace, examples: TaskData, *, of_its_table: bool = False) -> str | None:
    """Say how many of some rows have texts that a model was trained on; None where its files have changed since.

    Case, spaces and Unicode form do not count, as in ``dpstune check``.

    Args:
        place: Where the model lies.
        examples: The rows, a task.
        of_its_table: Whether they come from where the training rows lie: these are then read again wherever that is.

    Raises:
        RunError: That is the hub, which could not be reached.
    """
    from dpstune.data.reading import draw_training_part, read_task
    from dpstune.runs.identity import has_changed, known_fingerprints

    recipe = place.recipe
    if recipe is None or not (of_its_table or _lies_here(recipe)):
        return None
    try:
        task = read_task(recipe.task, recipe.data)
        since = known_fingerprints((place.run.read_result() if place.run is not None else None) or {})
        if has_changed(task, since):
            return None
        train = draw_training_part(task, recipe.data.train_size, seed=recipe.seed).splits["train"]
    except RequestError:  # the files are gone, or no longer what they were
        return None
    known = {_form(texts) for texts in train.texts}
    rows = [texts for split in examples.splits.values() for texts in split.texts]
    count = sum(_form(texts) in known for texts in rows)
    what = "the training rows have the same text, so the score counts what was learned by heart"
    return f"{count} of {len(rows)} rows: {what}" if count else None


def _lies_here(recipe: Recipe) -> bool:
    """Tell whether a recipe's rows are on this machine, so that none is fetched from the hub."""
    if isinstance(recipe.task, DatasetTask):
        return expanded(recipe.task.dataset).is_dir()
    return isinstance(recipe.task, OwnTask) or recipe.data.dir is not None


def _form(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(text_form, texts))
