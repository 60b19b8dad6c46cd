"""The numbers of each point, the best point of each method, and its comparison with plain fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dpstune.methods import BASELINE
from dpstune.settings.metrics import direction
from dpstune.studies.points import Point, SeedRecords, group_points
from dpstune.studies.records import RunRecord
from dpstune.studies.statistics import bootstrap_interval, holm, paired_permutation_test, smallest_p_value


@dataclass(frozen=True)
class PointSummary:
    """The numbers of a point over its seeds; what has no value counts, too (see ``RunRecord.score``).

    Args:
        point: Method and settings.
        runs: Its runs by seed.
        mean: Of the values.
        best: The highest value of a run that did not diverge; the lowest of a metric that is better when lower.
        std: Standard deviation (n - 1 in the denominator); None for one seed.
        low, high: 95% bootstrap interval of the mean; None for one seed.
        failed: Number of failed restarts.
        undefined: How many of them have no value, though they were trained.
        diverged: How many of them came to nothing.
        seconds: Mean wall time of a run; of those that did not diverge, where there are any.
    """

    point: Point
    runs: SeedRecords
    mean: float
    std: float | None
    best: float
    low: float | None
    high: float | None
    failed: int
    undefined: int
    diverged: int
    seconds: float

    @property
    def count(self) -> int:
        """Number of seeds."""
        return len(self.runs)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The values, by ascending seed."""
        return np.array([run.score for run in self.runs.values()])

    @property
    def metric(self) -> str:
        """What the values are of."""
        return next(iter(self.runs.values())).metric

    @property
    def merit(self) -> float:
        """The mean, with the sign that makes more of it better."""
        return direction(self.metric) * self.mean


@dataclass(frozen=True)
class Comparison:
    """A method's best point against the baseline's, over the seeds that both have.

    Args:
        best: The method's best point.
        baseline: The baseline's best point.
        seeds: The shared seeds.
        difference: Mean of best minus mean of baseline over the shared seeds; None where there are none.
        p_value: p of the paired permutation test; None where no seed is shared.
        corrected: The same, corrected for the number of methods that are compared; see ``holm``.
        smallest: The smallest p that so few seeds can reach; None where no seed is shared.
    """

    best: PointSummary
    baseline: PointSummary
    seeds: tuple[int, ...]
    difference: float | None
    p_value: float | None
    smallest: float | None
    corrected: float | None = None


def summarize_points(records: Sequence[RunRecord]) -> list[PointSummary]:
    """Return the numbers of each point, in the order of ``group_points``."""
    return [_summarize(point, runs) for point, runs in group_points(records)]


def best_points(summaries: Sequence[PointSummary]) -> dict[str, PointSummary]:
    """Return the point with the best mean of each method, in the order given.

    A point with fewer than half as many seeds as the method's fullest point is left out: in a sweep that is still
    going on, or that prunes, one lucky restart should not win against the mean of many. Left out, too, is a
    point of which every run diverged, where another has a model. Of equal means the first wins.
    """
    best: dict[str, PointSummary] = {}
    for method in dict.fromkeys(each.point.method for each in summaries):
        own = [each for each in summaries if each.point.method == method]
        own = [each for each in own if each.diverged < each.count] or own
        enough = max(each.count for each in own) / 2
        best[method] = max((each for each in own if each.count >= enough), key=lambda each: each.merit)
    return best


def compare_with_baseline(best: dict[str, PointSummary], baseline: str = BASELINE) -> list[Comparison]:
    """Compare every other method's best point with the baseline's; empty if the baseline was not run."""
    if baseline not in best:
        return []
    found = [_compare(each, best[baseline]) for method, each in best.items() if method != baseline]
    tested = [each.p_value for each in found if each.p_value is not None]
    corrected = iter(holm(tested).tolist() if tested else [])
    return [each if each.p_value is None else replace(each, corrected=next(corrected)) for each in found]


def _summarize(point: Point, runs: SeedRecords) -> PointSummary:
    scores = np.array([run.score for run in runs.values()])
    metric = next(iter(runs.values())).metric
    whole = [run for run in runs.values() if not run.diverged]
    low, high = bootstrap_interval(scores) if len(scores) > 1 else (None, None)
    return PointSummary(
        point,
        runs,
        mean=float(scores.mean()),
        std=float(scores.std(ddof=1)) if len(scores) > 1 else None,
        best=float((max if direction(metric) > 0 else min)(run.score for run in whole or runs.values())),
        low=low,
        high=high,
        failed=sum(run.failed for run in runs.values()),
        undefined=sum(run.value is None for run in whole),
        diverged=len(runs) - len(whole),
        seconds=float(np.mean([run.seconds for run in whole or runs.values()])),
    )


def _compare(best: PointSummary, baseline: PointSummary) -> Comparison:
    seeds = tuple(seed for seed in best.runs if seed in baseline.runs)
    if not seeds:
        return Comparison(best, baseline, seeds, None, None, None)
    ours = np.array([best.runs[seed].score for seed in seeds])
    theirs = np.array([baseline.runs[seed].score for seed in seeds])
    return Comparison(
        best,
        baseline,
        seeds,
        difference=float((ours - theirs).mean()),
        p_value=paired_permutation_test(ours, theirs),
        smallest=smallest_p_value(len(seeds)),
    )
