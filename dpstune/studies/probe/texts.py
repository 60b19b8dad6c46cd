"""The texts on which hidden states are compared: a file's, a task's, or those that the runs were evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpstune.data.examples import Examples
from dpstune.data.moved import lies_there, reading_from, refuse_lost_data
from dpstune.data.reading import folder_with_task
from dpstune.errors import RequestError, counted, some_of
from dpstune.evaluation.targets import find_target
from dpstune.recipe.schema import Recipe
from dpstune.runs.identity import has_changed
from dpstune.settings.sections import UserTask, task_name
from dpstune.studies.probe.request import FEWEST_ROWS, ProbeRequest
from dpstune.studies.probe.subjects import Subject
from dpstune.studies.records import RunRecord


@dataclass(frozen=True)
class ComparedTexts:
    """Texts on which hidden states are compared.

    Args:
        name: What they are called.
        examples: All of them.
        notes: What a reader should know of them.
    """

    name: str
    examples: Examples
    notes: tuple[str, ...] = ()


def read_texts_to_compare(request: ProbeRequest, subjects: Sequence[Subject]) -> ComparedTexts:
    """Read the texts on which hidden states are compared.

    Args:
        request: Names a file, a task, or neither: the split that all runs were evaluated on.
        subjects: The models.

    Raises:
        RequestError: It names two, or what it names cannot be read; there are too few texts; or the models have no
            evaluated split in common.
        RunError: The hub could not be reached.
    """
    if request.text is not None and request.texts is None:
        raise RequestError("--text names columns of a file; add --texts FILE")
    if request.texts is not None and request.task is not None:
        raise RequestError("--texts and --task both say on which texts; keep one")
    texts = _read(request, subjects)
    count = len(texts.examples)
    if count < FEWEST_ROWS:
        raise RequestError(
            f"{texts.name}: {counted(count, 'text')} cannot show how hidden states moved; "
            f"it takes {FEWEST_ROWS} or more"
        )
    return texts


def _read(request: ProbeRequest, subjects: Sequence[Subject]) -> ComparedTexts:
    from dpstune.evaluation.prediction import read_texts

    if request.texts is not None:
        texts = read_texts(request.texts, subjects[0].place, request.text)
        return ComparedTexts(request.texts.name, Examples([str(number) for number in range(len(texts))], texts, None))
    if request.task is None:
        return _evaluated(request, subjects)
    target = find_target(request.task, request.data_dirs)
    splits = target.read().splits
    if len(splits) > 1:
        raise RequestError(f"--task {request.task}: it has several splits: {', '.join(splits)}; name one")
    ((split, examples),) = splits.items()
    return ComparedTexts(f"{target.name} {split}", examples)


def _evaluated(request: ProbeRequest, subjects: Sequence[Subject]) -> ComparedTexts:
    """Return the split that all runs were evaluated on."""
    from dpstune.data.inputs import Inputs

    records = []
    for subject in subjects:
        if subject.record is None or subject.record.result["split"] is None:
            what = "a model folder" if subject.record is None else "a run without an evaluated split"
            raise RequestError(f"{subject.place.name} is {what}: say on which texts, with --texts FILE or --task TASK")
        records.append(subject.record)
    first, *others = records
    for other in others:
        _refuse_other_examples(first, other)
    recipe = _where_its_data_lie(first.recipe, request.data_dirs)
    refuse_lost_data(recipe.task)
    task = Inputs().task(recipe)
    if first.split not in task.splits:
        raise RequestError(f"{first.folder} was evaluated on {first.split}; there is {some_of(task.splits)}")
    changed = f"{first.result['task']}: the examples read now are not those that the models were trained with"
    notes = (changed,) if has_changed(task, first.fingerprints) else ()
    return ComparedTexts(f"{first.result['task']} {first.split}", task.splits[first.split], notes)


def _where_its_data_lie(recipe: Recipe, folders: Sequence[Path]) -> Recipe:
    """Return a recipe that reads its data from the first folder that has them; as it is where none does."""
    if isinstance(recipe.task, UserTask):
        moved = (reading_from(recipe, folder) for folder in folders)
        return next((each for each in moved if lies_there(each.task)), recipe)
    return reading_from(recipe, folder_with_task(folders, task_name(recipe.task)))


def _refuse_other_examples(first: RunRecord, other: RunRecord) -> None:
    theirs, ours = (
        (each.result["task"], each.result["split"], each.fingerprints.get("task")) for each in (other, first)
    )
    if theirs != ours:
        raise RequestError(
            f"{other.folder} and {first.folder} were evaluated on different examples; say on which texts to compare "
            "them, with --texts FILE or --task TASK"
        )
