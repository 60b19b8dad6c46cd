"""Which candidate wins, and an honest score of it: one from rows that took no part in choosing it.

Each candidate has an answer for every row from a run that was not trained on it. To choose by these rows and report the
winner's score on them would flatter it, the more so the more candidates there are. Bootstrap bias corrected cross-
validation (Tsamardinos, Greasidou and Borboudakis 2018, Machine Learning 107, algorithm 2) repeats the choice: rows are
drawn with replacement, the candidate that is best on them is chosen, and scored on the rows that were not drawn. The
mean of these scores is the score of choosing; their quantiles are its interval. No run is trained for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dpstune.data.examples import Examples
from dpstune.data.parts import has_groups, units_of
from dpstune.settings.metrics import METRICS, direction

REPEATS = 400
CONFIDENCE = 0.95
FEWEST_UNITS = 10  # fewer make the interval so narrow that equal candidates are often told apart

Rows = NDArray[np.int64]

Compared = tuple[float | None, float | None]
"""A score, and its difference from what it is compared with; None where it is undefined."""

Scorer = Callable[[int, Rows], float | None]
"""``score(c, rows)``: candidate c's score on some rows, a row as often as it is drawn; higher is better."""


@dataclass(frozen=True)
class Verdict:
    """The score of what was chosen, and how it compares with the best of the baseline's candidates.

    Args:
        value: The score on rows that did not choose; None where it is undefined.
        low, high: Its 95% interval.
        difference: The same of the chosen one's score minus the baseline's; None where the baseline was not tried.
        difference_low, difference_high: Its 95% interval.
        units: From how many units rows were drawn; None where it is not known.
        grouped: Whether units are groups that a user named.
    """

    value: float | None
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    units: int | None = None
    grouped: bool = False

    def in_the_metric(self, metric: str) -> Verdict:
        """Return the verdict on a metric whose scores were multiplied by its ``direction``, so that higher is better.

        It has no interval where rows drawn anew show none; see ``Metric``.
        """
        found = self
        if direction(metric) < 0:
            value, high, low, difference, difference_high, difference_low = (
                None if each is None else -each
                for each in (
                    *(self.value, self.low, self.high),
                    *(self.difference, self.difference_low, self.difference_high),
                )
            )
            found = Verdict(value, low, high, difference, difference_low, difference_high, self.units, self.grouped)
        if metric in METRICS and not METRICS[metric].has_interval:
            return replace(found, low=None, high=None, difference_low=None, difference_high=None)
        return found

    @property
    def told_apart(self) -> bool:
        """Whether the winner can be told from the baseline: 0 lies outside the difference's interval.

        It cannot where the units are too few for the interval to be believed.
        """
        low, high = self.difference_low, self.difference_high
        return low is not None and high is not None and not self.too_few and not low <= 0.0 <= high

    @property
    def too_few(self) -> bool:
        """Whether the interval is of so few units that it is far too narrow."""
        return self.units is not None and self.units < FEWEST_UNITS

    @property
    def groups(self) -> int | None:
        """How many groups were drawn; None where rows were."""
        return self.units if self.grouped else None


def choose(score: Scorer, candidates: Sequence[int], rows: Rows) -> int:
    """Return the candidate that is best on some rows; of equal ones the first, an undefined score last."""
    return max(candidates, key=lambda candidate: _or_worst(score(candidate, rows)))


def judge_by_bootstrap(
    score: Scorer, candidates: Sequence[int], baselines: Sequence[int], units: Sequence[Hashable], seed: int = 0
) -> Verdict:
    """Score the choice itself: on bootstrap samples of the rows, by the rows that are not in them.

    Args:
        score: Scores a candidate on rows.
        candidates: Those to choose from.
        baselines: Those of them that are the baseline's.
        units: One a row; rows of one unit are drawn together.
        seed: Of the draws.
    """
    members = _Units(units)
    rng = np.random.default_rng(seed)
    values: list[float] = []
    differences: list[float] = []
    for _ in range(REPEATS):
        drawn = rng.integers(len(members), size=len(members))
        inside = members.rows(drawn)
        left = np.setdiff1d(np.arange(len(members)), drawn)
        if not len(left):
            continue
        outside = members.rows(left)
        winner = choose(score, candidates, inside)
        value = score(winner, outside)
        if value is None:
            continue
        values.append(value)
        if baselines:
            baseline = choose(score, baselines, inside)
            theirs = value if baseline == winner else score(baseline, outside)
            differences += [] if theirs is None else [value - theirs]
    return Verdict(*_mean_and_interval(values), *_mean_and_interval(differences), len(members))


def judge_by_test_rows(
    score: Scorer, winner: int, baseline: int | None, units: Sequence[Hashable], seed: int = 0
) -> Verdict:
    """Score a chosen candidate on test rows, which nothing was chosen by; the interval is the bootstrap's over rows.

    Args:
        score: Scores a candidate on test rows.
        winner: What was chosen.
        baseline: The baseline's candidate that was best where the winner was chosen; None for none.
        units: One a test row; rows of one unit are drawn together.
        seed: Of the draws.
    """

    def compare(rows: Rows) -> Compared:
        ours, theirs = score(winner, rows), None if baseline is None else score(baseline, rows)
        return ours, None if ours is None or theirs is None else ours - theirs

    return judge_by_rows(compare, units, seed)


def judge_by_rows(compare: Callable[[Rows], Compared], units: Sequence[Hashable], seed: int = 0) -> Verdict:
    """Return a score and a difference on all rows, with the 95% percentile intervals of the bootstrap over rows.

    Args:
        compare: Score and difference on rows, a row as often as it is drawn.
        units: One a row; rows of one unit are drawn together.
        seed: Of the draws.
    """
    members = _Units(units)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(members), size=len(members)) for _ in range(REPEATS))
    found = [compare(members.rows(drawn)) for drawn in draws]
    value, difference = compare(members.rows(np.arange(len(members))))
    _, low, high = _mean_and_interval([ours for ours, _ in found if ours is not None])
    _, difference_low, difference_high = _mean_and_interval([each for _, each in found if each is not None])
    return Verdict(value, low, high, difference, difference_low, difference_high, len(members))


def judge_by_examples(
    compare: Callable[[Rows], Compared], examples: Examples, ids: Sequence[str], metric: str
) -> Verdict:
    """Judge by the rows of a split, as ``judge_by_rows`` does, in the metric; equal texts, or a group, are one unit.

    Args:
        compare: See ``judge_by_rows``; higher is better.
        examples: The split.
        ids: The rows' ids, in the order in which ``compare`` counts them.
        metric: Of the scores.
    """
    units = units_of(examples)
    found = judge_by_rows(compare, [units[name] for name in ids])
    return replace(found, grouped=has_groups(examples)).in_the_metric(metric)


class _Units:
    """What is drawn: rows, or several that count as one.

    Args:
        units: One a row.
    """

    def __init__(self, units: Sequence[Hashable]) -> None:
        positions: dict[Hashable, list[int]] = {}
        for row, unit in enumerate(units):
            positions.setdefault(unit, []).append(row)
        self._rows = np.array(list(chain.from_iterable(positions.values())), dtype=np.int64)
        self._sizes = np.array([len(rows) for rows in positions.values()], dtype=np.int64)
        self._starts = self._sizes.cumsum() - self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def rows(self, drawn: Rows) -> Rows:
        """Return the rows of some units, one unit after the other."""
        sizes = self._sizes[drawn]
        within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
        found: Rows = self._rows[np.repeat(self._starts[drawn], sizes) + within]
        return found


def _mean_and_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    if not values:
        return None, None, None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.mean(values)), float(low), float(high)


def _or_worst(value: float | None) -> float:
    return -np.inf if value is None else value
