"""What was measured of fine-tuned models beside the pre-trained one: by run, by point, all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from dpstune.studies.answers import Answers
from dpstune.studies.choice import Verdict
from dpstune.studies.points import Point
from dpstune.studies.probe.linear_probe import ProbedTask, mean_of_defined
from dpstune.studies.probe.subjects import Start, Subject
from dpstune.studies.records import RunRecord

Measure = Literal["cka", "cosine"]


@dataclass(frozen=True)
class Probed:
    """What was measured of one fine-tuned model.

    Args:
        subject: The model.
        cka: Linear CKA with the pre-trained model, a value a layer, the embeddings first; None where it is undefined.
        cosine: The mean cosine, likewise.
        answers: The linear probe's answers, by task.
    """

    subject: Subject
    cka: tuple[float | None, ...]
    cosine: tuple[float, ...]
    answers: Mapping[str, Answers] = field(repr=False)


@dataclass(frozen=True)
class Pretrained:
    """What fine-tuned models began as.

    Args:
        start: The model, and how texts are given to it.
        name: What it is called in tables; it tells the same model with other lengths or revisions apart.
        scores: The linear probe's, by task; None where it is undefined.
    """

    start: Start
    name: str
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class LinearScore:
    """What linear probes on a point's restarts score on a task.

    Args:
        task: The task.
        scores: Of each restart; None where it is undefined.
        pretrained: Of the pre-trained model, likewise.
        verdict: The mean of the scores, and its difference from the pre-trained model's; both are in the metric.
    """

    task: ProbedTask
    scores: tuple[float | None, ...]
    pretrained: float | None
    verdict: Verdict

    @property
    def std(self) -> float | None:
        """Standard deviation over restarts (n - 1 in the denominator); None for fewer than two defined scores."""
        return _std([score for score in self.scores if score is not None])


@dataclass(frozen=True)
class ProbedPoint:
    """A point with all its restarts; a model folder is a point by itself.

    Args:
        point: Method and settings; of a model folder its name.
        restarts: By ascending seed.
        scores: The linear probe's, in the order of the tasks.
    """

    point: Point
    restarts: tuple[Probed, ...]
    scores: tuple[LinearScore, ...]

    @property
    def is_folder(self) -> bool:
        """Whether it is a model folder, which no run made."""
        return self.restarts[0].subject.record is None

    @property
    def layers(self) -> int:
        """How many values a measure has: the embeddings and each layer."""
        return len(self.restarts[0].cosine)

    def values(self, measure: Measure, layer: int) -> tuple[float, ...]:
        """Return each restart's value of a layer; undefined ones are left out."""
        found = (getattr(each, measure)[layer] for each in self.restarts)
        return tuple(value for value in found if value is not None)

    def mean(self, measure: Measure, layer: int) -> float | None:
        """Return the mean over restarts; None where it is undefined for all."""
        return mean_of_defined(self.values(measure, layer))

    def std(self, measure: Measure, layer: int) -> float | None:
        """Return the standard deviation over restarts (n - 1 in the denominator); None for fewer than two."""
        return _std(self.values(measure, layer))


@dataclass(frozen=True)
class ProbeOutcome:
    """What was found.

    Args:
        folder: Where its files lie.
        texts: What the texts are, for people.
        count: How many texts.
        tasks: The linear probe's.
        points: In the order of ``group_points``; model folders come last, in the order in which they were given.
        pretrained: What the models began as, each once.
        notes: What a reader should know.
    """

    folder: Path
    texts: str
    count: int
    tasks: tuple[ProbedTask, ...]
    points: tuple[ProbedPoint, ...]
    pretrained: tuple[Pretrained, ...]
    notes: tuple[str, ...]

    @property
    def records(self) -> list[RunRecord]:
        """The runs."""
        subjects = (each.subject for point in self.points for each in point.restarts)
        return [subject.record for subject in subjects if subject.record is not None]

    def began_as(self, point: ProbedPoint) -> Pretrained:
        """Return what a point's models began as; where one model lies in several places, as its first restart."""
        start = point.restarts[0].subject.start
        return next(each for each in self.pretrained if each.start == start)


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
