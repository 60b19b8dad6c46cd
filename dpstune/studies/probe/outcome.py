"""What was measured of fine-tuned models beside the pre-trained one: by run, by point, all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from dpstune.models.names import shown_models
from dpstune.studies.fit.answers import Answers
from dpstune.studies.fit.choice import Verdict
from dpstune.studies.points import Point
from dpstune.studies.probe.linear_probe import ProbedTask
from dpstune.studies.probe.subjects import Subject
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
class LinearScore:
    """What linear probes on a point's restarts score on a task.

    Args:
        task: The task.
        scores: Of each restart; an undefined score is 0.
        pretrained: Of the pre-trained model.
        verdict: The mean of the scores, and its difference from the pre-trained model's.
    """

    task: ProbedTask
    scores: tuple[float, ...]
    pretrained: float
    verdict: Verdict

    @property
    def std(self) -> float | None:
        """Standard deviation over restarts (n - 1 in the denominator); None for one."""
        return _std(self.scores)


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
    def layers(self) -> int:
        """How many values a measure has: the embeddings and each layer."""
        return len(self.restarts[0].cosine)

    def values(self, measure: Measure, layer: int) -> tuple[float, ...]:
        """Return each restart's value of a layer; undefined ones are left out."""
        found = (getattr(each, measure)[layer] for each in self.restarts)
        return tuple(value for value in found if value is not None)

    def mean(self, measure: Measure, layer: int) -> float | None:
        """Return the mean over restarts; None where it is undefined for all."""
        values = self.values(measure, layer)
        return float(np.mean(values)) if values else None

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
        notes: What a reader should know.
    """

    folder: Path
    texts: str
    count: int
    tasks: tuple[ProbedTask, ...]
    points: tuple[ProbedPoint, ...]
    notes: tuple[str, ...]

    @property
    def records(self) -> list[RunRecord]:
        """The runs."""
        subjects = (each.subject for point in self.points for each in point.restarts)
        return [subject.record for subject in subjects if subject.record is not None]

    @cached_property
    def pretrained(self) -> dict[str, str]:
        """The pre-trained models' names for people, by their names."""
        return shown_models(
            list(dict.fromkeys(each.subject.start.model.name for point in self.points for each in point.restarts))
        )


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
