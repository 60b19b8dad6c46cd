"""What a candidate answered on the rows that its runs were not trained on, and how it scores on any of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    """
    columns = [read_predictions(RunFolder(folder).predictions(split)) for folder in folders]
    joined = {key: [value for each in columns for value in each[key]] for key in columns[0]}
    index = {name: place for place, name in enumerate(task.label_names)}

    def read(values: list[Any]) -> NDArray[Any]:
        return np.array([index[value] for value in values] if index else values)

    scores = np.array(joined["scores"], dtype=np.float32)
    return Answers(joined["id"], read(joined["label"]), read(joined["prediction"]), scores)


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
