"""The best evaluation's weights: which they are, where they lie while a run goes on, and what may choose them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.errors import RequestError, counted
from dpstune.settings.sections import TrainingSection
from dpstune.training.checkpoints import WEIGHTS, is_whole, write_with_digests

if TYPE_CHECKING:
    from torch import nn

    from dpstune.data.reading import TaskData


def headline_split(task: TaskData) -> str | None:
    """Return the split that gives a run its value: the first that is evaluated and has labels; None without one."""
    scored = (name for name, examples in task.splits.items() if name != "train" and examples.labels is not None)
    return next(scored, None)


def refuse_nothing_to_choose_by(training: TrainingSection, task: TaskData) -> None:
    """Refuse settings that ask for evaluations where no split is evaluated, or where only the test could choose.

    Raises:
        RequestError: It is so; the setting is named.
    """
    split = headline_split(task)
    remedy = "give the task validation examples, or hold some out with data.held_out"
    asked = {"keep: best": training.keep == "best", "patience": training.patience is not None}
    if split is None:
        asked["eval_every"] = training.eval_every is not None
    for key, is_asked in asked.items():
        if is_asked and split is None:
            raise RequestError(f"training.{key}: nothing of {task.name} is evaluated; {remedy}")
        if is_asked and split is not None and split.startswith("test"):
            raise RequestError(f"training.{key}: of {task.name} the {split} split alone is evaluated; {remedy}")


def told_of_few_evaluations(training: TrainingSection, evaluations: int) -> Iterator[str]:
    """Say which settings choose by evaluations and have too few of them to make a difference.

    Args:
        training: The settings.
        evaluations: How often the run is evaluated where nothing ends it early.

    >>> list(told_of_few_evaluations(TrainingSection(patience=3), 3))
    ['training.patience: 3 ends no run that is evaluated 3 times; evaluate more often with training.eval_every']
    """
    remedy = "evaluate more often with training.eval_every"
    if training.keep == "best" and evaluations == 1:
        yield f"training.keep: best is the last of a run that is evaluated once; {remedy}"
    if training.patience is not None and evaluations <= training.patience + 1:  # one that ends with the last step
        yield f"training.patience: {training.patience} ends no run that is evaluated {_times(evaluations)}; {remedy}"


def _times(count: int) -> str:
    return "once" if count == 1 else counted(count, "time")


class BestWeights:
    """The weights of the best evaluations of a run, a folder a step beside its checkpoints.

    A checkpoint says by its state which was the best so far; those weights stay as long as the checkpoint does. Which
    that is cannot be told from its step: one that a signal asked for may lie before the evaluation after that step.

    Args:
        folder: Where the checkpoints lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, step: int, model: nn.Module) -> None:
        """Write the weights after ``step`` beside their place and rename them into it.

        Raises:
            RunError: They could not be written; the earlier ones are untouched.
        """
        from safetensors.torch import save_model

        write_with_digests(self._place(step), {WEIGHTS: lambda file: save_model(model, str(file))})

    def load(self, step: int, model: nn.Module) -> None:
        """Put the weights after ``step`` into ``model``."""
        from safetensors.torch import load_model

        load_model(model, self._place(step) / WEIGHTS)

    def has(self, step: int) -> bool:
        """Tell whether the weights after ``step`` are there and whole."""
        return is_whole(self._place(step), (WEIGHTS,))

    def drop_after(self, step: int) -> None:
        """Remove what is later than ``step``: a run that goes on from there makes it again."""
        self._drop([each for each in self._steps() if each > step])

    def drop_unneeded(self, checkpoints: Iterable[dict[str, Any]]) -> None:
        """Remove all but the latest, and what each checkpoint's state names as the best."""
        if earlier := self._steps()[:-1]:
            needed = {state["loop"]["best"].get("step") for state in checkpoints}
            self._drop([each for each in earlier if each not in needed])

    def _place(self, step: int) -> Path:
        return self._folder / f"best-{step:08d}"

    def _steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("best-")) for path in self._folder.glob("best-*"))

    def _drop(self, steps: list[int]) -> None:
        for step in steps:
            shutil.rmtree(self._place(step), ignore_errors=True)
