"""What a candidate answered on the rows that its runs were not trained on, and how it scores on any of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpstune.errors import RunError
from dpstune.runs.folder import RunFolder, read_predictions
from dpstune.settings.metrics import METRICS, direction
from dpstune.studies.choice import Rows, Scorer

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData


@dataclass(frozen=True)
class Answers:
    """Answers to some rows.

    Args:
        ids: Of the rows.
        gold: Label indices, or values; [rows].
        predictions: Likewise.
        scores: Probabilities, [rows, labels], or values, [rows, 1].
    """

    ids: list[str]
    gold: NDArray[Any]
    predictions: NDArray[Any]
    scores: NDArray[np.float32]

    def in_the_order_of(self, ids: Sequence[str]) -> Answers:
        """Return the answers to some rows, in their order."""
        places = {name: place for place, name in enumerate(self.ids)}
        return self.of_rows([places[name] for name in ids])

    def of_rows(self, rows: Sequence[int]) -> Answers:
        """Return the answers to some rows, by their positions."""
        ids = [self.ids[row] for row in rows]
        return Answers(ids, self.gold[rows], self.predictions[rows], self.scores[rows])


def read_answers(folders: Sequence[Path], split: str, task: TaskData) -> Answers:
    """Read what runs predicted on a split, one run after the other.

    Args:
        folders: The runs' folders.
        split: The split.
        task: Whose labels they are.

    Raises:
        RunError: A run's predictions are gone or damaged.
    """
    index = {name: place for place, name in enumerate(task.label_names)}
    found = [_read(RunFolder(folder), split, index) for folder in folders]
    return Answers(
        [name for each in found for name in each.ids],
        np.concatenate([each.gold for each in found]),
        np.concatenate([each.predictions for each in found]),
        np.concatenate([each.scores for each in found]),
    )


def _read(run: RunFolder, split: str, index: Mapping[str, int]) -> Answers:
    """Read one run's answers; ``index`` holds each label's place, and nothing in regression."""
    file = run.predictions(split)

    def places(values: list[Any]) -> NDArray[Any]:
        return np.array([index[value] for value in values] if index else values)

    try:
        columns = read_predictions(file)
        gold, predictions = places(columns["label"]), places(columns["prediction"])
        return Answers(columns["id"], gold, predictions, np.array(columns["scores"], dtype=np.float32))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{file}: its predictions cannot be read ({error}); remove the run's folder and repeat the command that "
            "trained it"
        ) from None


def scorer(answers: Sequence[Answers], task: TaskData) -> Scorer:
    """Return what scores candidate c, whose answers are ``answers[c]``, on some rows by the task's headline metric.

    A metric that is the better the lower it is counts with its sign changed.

    Args:
        answers: Of each candidate, of the same rows in the same order.
        task: Whose metric it is.
    """
    from dpstune.evaluation.metrics import COMPUTED, Answered

    compute, way = COMPUTED[task.metric], direction(task.metric)
    of_scores = METRICS[task.metric].needs == "probabilities"

    def score(candidate: int, rows: Rows) -> float | None:
        own = answers[candidate]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels that no row has
            scores = own.scores[rows] if of_scores else None
            value = compute(Answered(own.gold[rows], own.predictions[rows], len(task.label_names), scores))
        return None if math.isnan(value) else way * value

    return score
