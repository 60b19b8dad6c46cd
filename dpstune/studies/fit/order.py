"""Which run is trained next beside those that are under way: asynchronous successive halving.

A trial that may go on does, on the parts that come before it is judged next. Where none may, another begins, so that no
worker waits for a judgement (after Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", section 3;
what is given up is not taken up again). Where the budget has no room to try another on every part, open ones are tried
on parts before they are judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from dpstune.studies.fit.budget import Budget
from dpstune.studies.fit.fit import MOST_FAILURES, failures_in_a_row, no_more_are_tried
from dpstune.studies.fit.search import CandidateSearch, Trial

Run = tuple[int, int]
"""A trial's number, and a part's."""


def next_run(
    search: CandidateSearch, budget: Budget, running: Collection[Run] = (), waited: float = 0.0
) -> tuple[Trial, int] | None:
    """Return a trial and the part that it is tried on next; None where there is nothing to do now.

    One trial at least is tried on every part, whatever the budget.

    Args:
        search: The trials so far; one is begun where that is due.
        budget: How much may still be tried.
        running: The runs that are under way.
        waited: Seconds since the last run ended.
    """
    trials = search.trials()
    if no_more_are_tried(trials):
        return None
    if not any(trial.values for trial in trials):  # what is wrong with the first candidate's first run ends the fit
        first = trials[0] if trials else search.begin()
        parts = _parts_left(search, first, running)
        return (first, parts[0]) if parts else None
    open_ones = [trial for trial in trials if trial.state == "open"]
    none_in_full = all(trial.state != "complete" for trial in trials)
    left = {trial.number: _parts_left(search, trial, running) for trial in open_ones}
    to_do = sum(map(len, left.values())) + search.parts
    room_for_another = budget.allows_more(to_do, running=len(running), waited=waited)
    waiting = [trial for trial in open_ones if left[trial.number]]
    candidates = {trial.number: trial.candidate for trial in trials}
    none_begins = failures_in_a_row(trials) >= MOST_FAILURES
    for trial in waiting if none_begins else _in_order(search, waiting, left, room_for_another):
        part = left.get(trial.number, [1])[0]
        if any(part == other and trial.candidate == candidates[number] for number, other in running):
            continue  # another trial of an equal candidate: it would be the same run
        whatever_is_left = none_in_full and trial.number == min(left, default=trial.number)
        if whatever_is_left or budget.allows(trial.candidate, running=len(running), waited=waited):
            return trial, part
    return None


def _parts_left(search: CandidateSearch, trial: Trial, running: Collection[Run]) -> list[int]:
    """Return the parts that an open trial is neither done with nor tried on now."""
    parts = range(1, search.parts + 1)
    return [part for part in parts if part not in trial.values and (trial.number, part) not in running]


def _in_order(
    search: CandidateSearch, waiting: Sequence[Trial], left: Mapping[int, Sequence[int]], room_for_another: bool
) -> Iterator[Trial]:
    """Yield the trials that may be tried next, those first that should be."""
    yield from (trial for trial in waiting if left[trial.number][0] <= search.judged_after(trial))
    begun_for_nothing = any(len(left[trial.number]) == search.parts for trial in waiting)
    if begun_for_nothing or not room_for_another:
        yield from waiting
    if not begun_for_nothing and (room_for_another or not waiting):
        yield search.begin()
