"""How much a fit may still try."""

from __future__ import annotations

import math
from statistics import median

from dpstune.methods import method_class
from dpstune.studies.fit.candidates import Candidate
from dpstune.studies.fit.request import FitRequest
from dpstune.studies.records import RunRecord

RUNS = 40  # where neither runs nor minutes are given


class Budget:
    """How much may still be tried.

    What a run takes of the minutes is its own time, or where runs are trained side by side, the time since the one
    before it ended. So it adds up to what a clock shows, but for what runs under way had taken when a fit was stopped;
    and it says the same to a fit that goes on with other ``jobs``.

    Args:
        request: Says how long, how many runs, and how many at a time.
        growth: How many times the rows of a part the last run trains on.
    """

    def __init__(self, request: FitRequest, growth: float) -> None:
        self._most_seconds = math.inf if request.minutes is None else request.minutes * 60
        usual = RUNS if request.minutes is None else math.inf
        self._most_runs = usual if request.runs is None else request.runs
        self._growth, self._jobs = growth, request.jobs
        self._lengths: list[float] = []  # seconds of each run
        self._paces: dict[str, list[float]] = {}  # seconds an epoch, by method
        self.seconds, self.runs = 0.0, 0

    def add_failure(self, seconds: float) -> None:
        """Count a run that failed, or whose result came too late."""
        self.runs += 1
        self.seconds += seconds

    def add(self, candidate: Candidate, record: RunRecord, taken: float | None = None) -> None:
        """Count a run.

        Args:
            candidate: What was trained.
            record: Its run.
            taken: What it took of the minutes; None for its own time.
        """
        self.runs += 1
        self.seconds += record.all_seconds if taken is None else taken
        if method_class(candidate.method).learns_by_steps:  # a linear probe's one step says nothing of the others
            self._lengths.append(record.all_seconds)
            self._paces.setdefault(candidate.method, []).append(record.all_seconds / _epochs(candidate))

    def allows(self, candidate: Candidate, *, running: int = 0, waited: float = 0.0) -> bool:
        """Tell whether a run of a candidate, and after it the last run, may still fit in.

        Args:
            candidate: The candidate.
            running: Runs that are under way.
            waited: Seconds since the last run ended.
        """
        return self._has_room(1, self._expected(candidate), running, waited)

    def allows_more(self, runs: int, *, running: int = 0, waited: float = 0.0) -> bool:
        """Tell whether so many runs of middle length, ``jobs`` at a time, and after them the last may still fit in."""
        seconds = median(self._lengths) * runs / self._jobs if self._lengths else 0.0
        return self._has_room(runs, seconds, running, waited)

    def _has_room(self, runs: int, seconds: float, running: int, waited: float) -> bool:
        last = max(self._lengths, default=0.0) * self._growth
        return (
            self.runs + running + runs <= self._most_runs
            and self.seconds + waited + seconds + last <= self._most_seconds
        )

    def _expected(self, candidate: Candidate) -> float:
        paces = self._paces.get(candidate.method) or [pace for own in self._paces.values() for pace in own]
        return median(paces) * _epochs(candidate) if paces else 0.0


def _epochs(candidate: Candidate) -> float:
    """Return a candidate's epochs; 1 where all candidates have the same length."""
    return float(candidate.settings.get("training.epochs", 1))
