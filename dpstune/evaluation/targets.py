"""Evaluate a trained classifier on a task, its own or another: read it, match labels by name, compute metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpstune.data.moved import refuse_lost_data
from dpstune.data.reading import folder_with_task
from dpstune.errors import RequestError, some_of
from dpstune.recipe.yaml_text import is_yaml_file
from dpstune.settings.sections import AnyTask, DataSection, UserTask, task_name
from dpstune.settings.tasks import TASKS, get_task

if TYPE_CHECKING:
    from dpstune.data.labels import LabelMapping
    from dpstune.data.reading import TaskData
    from dpstune.data.tokens import TokenDataset
    from dpstune.evaluation.scoring import Evaluation
    from dpstune.evaluation.trained import TrainedModel, TrainedPlace

SHORT_NAMES = {"mnli": ("mnli", "validation_matched"), "mnli-mm": ("mnli", "validation_mismatched")}
"""The tasks and splits that names stand for which are more, or less, than a task's."""


@dataclass(frozen=True)
class Target:
    """A task to evaluate on.

    Args:
        task: As a recipe has it: a name of the table, a table task elsewhere on the hub, or a user's own.
        split: One of its splits, or what several of them begin with: mnli's ``validation`` is matched and mismatched.
        data_dir: Where its data lies; None for the hub.

    >>> Target("mnli", "validation").splits
    ('validation_matched', 'validation_mismatched')
    """

    task: AnyTask
    split: str
    data_dir: Path | None = None

    @property
    def name(self) -> str:
        """The task's name, as its data has it."""
        return task_name(self.task)

    @property
    def splits(self) -> tuple[str, ...]:
        """The task's own names of the splits that are meant."""
        if isinstance(self.task, UserTask):
            return (self.split,)
        known = get_task(self.name).splits
        beginning = tuple(split for split in known if split.partition("_")[0] == self.split)
        return (self.split,) if self.split in known else beginning or (self.split,)

    def read(self) -> TaskData:
        """Return its examples: the splits that are meant, and no other.

        Raises:
            RequestError: There is no such split, or something in its files is wrong.
            RunError: The hub could not be reached.
        """
        from dpstune.data.reading import draw_training_part, read_task

        task = read_task(self.task, DataSection(dir=self.data_dir), splits=self.splits)
        splits = {split: task.splits[split] for split in self.splits if split in task.splits}
        if not splits and self.splits[0].endswith("_matched"):  # a local file by the plain name: mnli's first half
            plain = self.splits[0].partition("_")[0]
            splits = {split: examples for split, examples in task.splits.items() if split == plain}
        if not splits:
            there = ", ".join(task.splits)
            raise RequestError(f"task {task.name} in {self.data_dir} has no split {self.split!r}; it has {there}")
        return draw_training_part(replace(task, splits=splits), None, seed=0)


def read_target(asked: str, split: str, data_dir: Path | None) -> Target:
    """Return the target a user names.

    Args:
        asked: A task of the table, or a recipe's YAML file, whose task is taken.
        split: See ``Target``.
        data_dir: Local data; a recipe file's own where it is None.

    Raises:
        RequestError: There is no such task or file.
    """
    if is_yaml_file(asked):
        from dpstune.recipe.recipe import load_recipe

        recipe = load_recipe(asked, data_dir=data_dir).recipe
        return Target(recipe.task, split, recipe.data.dir)
    return Target(get_task(asked).name, split, data_dir)


def target_of(place: TrainedPlace, asked: str | None, split: str, data_dir: Path | None) -> Target:
    """Return the target of a trained model: the task a user names, or the model's own.

    Args:
        place: Where the model lies; where no task is named, as ``reading_from`` says that its own data lie.
        asked: See ``read_target``; a task of the table is looked for in the run's own folder of data, too. None for the
            task that the model was trained on.
        split: See ``Target``.
        data_dir: Local data; the run's own where it is None.

    Raises:
        RequestError: There is no such task or file; or none is named, and no run tells one, its own files are not
            where they were, or a fit's model was trained on all of its rows.
    """
    own = place.data.dir
    if asked is not None:
        if data_dir is None and own is not None and asked in TASKS and folder_with_task([own], asked) is not None:
            data_dir = own
        return read_target(asked, split, data_dir)
    task = place.task
    if task is None:
        raise RequestError(f"{place.name} is a model folder, which names no task; name one, or a file of labelled rows")
    if place.run is None and isinstance(task, UserTask) and split not in task.parts.names:
        raise RequestError(
            f"{place.name}: the fit's model is trained on all of its rows, its score is in its report; name a file of "
            "other labelled rows"
        )
    refuse_lost_data(task)
    return Target(task, split, data_dir or own)


def find_target(asked: str, data_dirs: Sequence[Path]) -> Target:
    """Return the target that a user names in one word.

    Args:
        asked: ``TASK``, ``TASK:SPLIT``, or a recipe file, which stands for its task; mnli is its matched half, and
            ``mnli-mm`` the mismatched one.
        data_dirs: Folders of local data; a task is read from the first that has it. Empty: the hub.

    Raises:
        RequestError: There is no such task or file.
    """
    name, _, split = asked.partition(":")
    if is_yaml_file(name):
        return read_target(name, split or "validation", None)
    task, usual_split = SHORT_NAMES.get(name, (name, "validation"))
    folder = folder_with_task(data_dirs, task)
    return read_target(task, split or usual_split, folder or (data_dirs[0] if data_dirs else None))


def match_labels(model: TrainedModel, task: TaskData) -> LabelMapping | None:
    """Say how a model's labels are read in a task; None for regression, and for several labels an example.

    Raises:
        RequestError: They are not of one kind, or their labels do not match by name; where an example may have several,
            both should have the same.
    """
    from dpstune.data.labels import map_labels

    if model.kind != task.kind:
        raise RequestError(f"{model.place.name} does {model.kind}, but task {task.name} is {task.kind}")
    if task.kind == "multilabel" and model.label_names != task.label_names:
        theirs, ours = some_of(model.label_names), some_of(task.label_names)
        raise RequestError(f"{model.place.name} gives the labels {theirs}, and task {task.name} has {ours}")
    return map_labels(model.label_names, task.label_names) if task.kind == "classification" else None


def encode_target(model: TrainedModel, task: TaskData) -> dict[str, TokenDataset]:
    """Return a task's splits, tokenised for a model."""
    float_labels = task.kind != "classification"
    return {split: model.encode(examples, float_labels=float_labels) for split, examples in task.splits.items()}


def evaluate_target(
    model: TrainedModel, task: TaskData, tokens: Mapping[str, TokenDataset] | None = None
) -> dict[str, Evaluation]:
    """Evaluate a trained model on a task's splits.

    Args:
        model: The classifier.
        task: What ``Target.read`` returned.
        tokens: What ``encode_target`` made of it, where several models with one tokenizer are evaluated.

    Raises:
        RequestError: The model's labels do not match the task's; see ``match_labels``.
        RunError: A logit is not finite.
    """
    from dpstune.evaluation.scoring import evaluate_split

    labels = match_labels(model, task)
    tokens = tokens or encode_target(model, task)
    return {split: evaluate_split(task, split, model.score(dataset), labels) for split, dataset in tokens.items()}
