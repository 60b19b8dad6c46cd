"""How much a fit may still try."""

from __future__ import annotations

import math
from statistics import median

from dpstune.studies.fit.candidates import Candidate
from dpstune.studies.fit.request import FitRequest
from dpstune.studies.records import RunRecord

RUNS = 40  # where neither runs nor minutes are given


class Budget:
    """How much may still be tried.

    Args:
        request: Says how long, and how many runs.
        growth: How many times the rows of a part the last run trains on.
    """

    def __init__(self, request: FitRequest, growth: float) -> None:
        self._most_seconds = math.inf if request.minutes is None else request.minutes * 60
        usual = RUNS if request.minutes is None else math.inf
        self._most_runs = usual if request.runs is None else request.runs
        self._growth = growth
        self._paces: dict[str, list[float]] = {}  # seconds an epoch, by method
        self._longest = 0.0
        self.seconds, self.runs = 0.0, 0

    def add_failure(self, seconds: float) -> None:
        """Count a run that failed."""
        self.runs += 1
        self.seconds += seconds

    def add(self, candidate: Candidate, record: RunRecord) -> None:
        """Count a run."""
        self.runs += 1
        self.seconds += record.all_seconds
        self._longest = max(self._longest, record.all_seconds)
        self._paces.setdefault(candidate.method, []).append(record.all_seconds / _epochs(candidate))

    def allows(self, candidate: Candidate) -> bool:
        """Tell whether a run of a candidate, and after it the last run, may still fit in."""
        last = self._longest * self._growth
        return self.runs < self._most_runs and self.seconds + self._expected(candidate) + last <= self._most_seconds

    def _expected(self, candidate: Candidate) -> float:
        paces = self._paces.get(candidate.method) or [pace for own in self._paces.values() for pace in own]
        return median(paces) * _epochs(candidate) if paces else 0.0


def _epochs(candidate: Candidate) -> float:
    """Return a candidate's epochs; 1 where all candidates have the same length."""
    return float(candidate.settings.get("training.epochs", 1))
