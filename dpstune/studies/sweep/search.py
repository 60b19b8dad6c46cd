"""Points that a sampler proposes instead of a grid, and points that are given up before all their seeds are run.

Optuna proposes, by ask and tell. It does not give up points for us: its ``MedianPruner`` compares a trial's best value
so far with complete trials. Here points are compared while all of them still run, by their means over the same seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from statistics import median
from typing import Any

from dpstune.device.randomness import stream_seed
from dpstune.studies.grid import Grid
from dpstune.studies.sweep.outages import patient
from dpstune.studies.sweep.storage import Direction, alone, open_storage, storage_errors

LOG_SPAN = 10.0  # a range whose high end is so many times its low end is searched on a logarithmic scale
POINTS_TO_COMPARE = 4
SEEDS_TO_JUDGE = 2


class PointSearch:
    """Optuna's TPE over the ranges that one method's grid spans.

    A proposed point is a trial of a second Optuna study, beside the queue. The trial is RUNNING until all seeds of the
    point have ended; then it gets their mean. This is all that a search needs to go on after an interruption.

    Args:
        url: The sweep's storage.
        name: The sweep's name.
        method: The method.
        grid: Numeric keys with several values span a range; other keys are chosen from their values.
        budget: Points to try, all in all.
        direction: Which way values are better, as Optuna has it.

    Raises:
        RequestError, RunError: See ``open_storage``.
    """

    def __init__(
        self, url: str, name: str, method: str, grid: Grid, budget: int, direction: Direction = "maximize"
    ) -> None:
        import optuna

        self.method, self._grid, self._budget = method, grid, budget
        self.url = url
        self._storage = open_storage(url, heartbeats=False)
        with storage_errors(url):
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=f"{name}: {method}",
                direction=direction,
                load_if_exists=True,
            )

    @patient
    def points(self) -> list[dict[str, Any]]:
        """Return every point proposed so far, in the order of the proposals."""
        return _points_of(self._trials())

    def to_come(self, chosen: Sequence[Mapping[str, Any]]) -> int:
        """Return how many more different points may be proposed at most.

        Args:
            chosen: Every point proposed so far.
        """
        distinct = {json.dumps(point, sort_keys=True) for point in chosen}
        return max(0, min(self._budget - len(chosen), most_points(self._grid, self._budget) - len(distinct)))

    @patient
    def propose(self) -> dict[str, Any] | None:
        """Return another point; None if the budget is used up, or if all possible points were proposed.

        Processes that search together propose one after the other, so that each sees what the others have proposed.
        A point is drawn in memory, and kept all at once: where the connection breaks, the storage has it or has it not.
        If it has, but the answer was lost, this returns another, and ``points`` both.
        """
        from optuna import create_study, create_trial
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        with alone(self._storage, self._study.study_name):
            before = self._trials()
            chosen = _points_of(before)
            if self.to_come(chosen) == 0:
                return None
            # A new seed each time: machines that search together should not draw the same points.
            seed = stream_seed(len(chosen), self._study.study_name) % 2**32
            in_memory = create_study(sampler=TPESampler(seed=seed, constant_liar=True), direction=self._study.direction)
            in_memory.add_trials(before)
            drawn = in_memory.ask()
            point = {key: suggest(drawn, key, values) for key, values in self._grid.items()}
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=drawn.params,
                    distributions=drawn.distributions,
                    user_attrs={"point": point},
                )
            )
            return point

    @patient
    def tell(self, point: Mapping[str, Any], mean: float | None) -> None:
        """Tell Optuna, once, the mean of a point's finished seeds; None if all of them failed.

        Another process may have told it at the same moment; what was told first stays.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        for trial in self._trials(TrialState.RUNNING):
            if trial.user_attrs["point"] == dict(point):
                state = TrialState.FAIL if mean is None else TrialState.COMPLETE
                with suppress(UpdateFinishedTrialError):
                    self._study.tell(trial.number, mean, state=state, skip_if_finished=True)

    def _trials(self, *states: Any) -> list[Any]:
        trials = self._study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in trials if "point" in trial.user_attrs]


def _points_of(trials: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(trial.user_attrs["point"]) for trial in trials]


def suggest(trial: Any, key: str, values: Sequence[Any], name: str | None = None) -> Any:
    """Have Optuna choose a key's value: within the range that numbers span, else one of the values.

    Args:
        trial: Of Optuna's, from ``Study.ask``.
        key: The dotted key.
        values: What a grid lists for it.
        name: Of Optuna's parameter; the key.
    """
    name = name or key
    if not _span_a_range(values):
        return trial.suggest_categorical(name, list(values))
    low, high = min(values), max(values)
    if _are_whole(values):
        return trial.suggest_int(name, low, high)
    value = trial.suggest_float(name, low, high, log=low > 0 and high / low >= LOG_SPAN)
    return min(max(float(f"{value:.3g}"), low), high)  # rounded, but not out of the range


def most_points(grid: Grid, budget: int) -> int:
    """Return how many different points a search of a grid's ranges can propose at most.

    >>> most_points({"method.layers": [1, 2, 7], "model.dropout": [None, 0.0]}, 20)
    14
    >>> most_points({"method.p": [0.1, 0.5]}, 20), most_points({}, 20)
    (20, 1)
    """
    if any(_span_a_range(values) and not _are_whole(values) for values in grid.values()):
        return budget
    counts = [
        max(values) - min(values) + 1 if _span_a_range(values) else len(set(map(json.dumps, values)))
        for values in grid.values()
    ]
    return min(budget, prod(counts))


def _span_a_range(values: Sequence[Any]) -> bool:
    """Tell whether values span a range: several numbers, between which a search may choose."""
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return are_numbers and len(set(values)) > 1


def _are_whole(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int) for value in values)


def hopeless(values: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Return the points to give up: worse than the median of the others after as many seeds (Golovin et al. 2017).

    A point is judged once it has two seeds, if at least four others have as many.

    Args:
        values: Each point's values, more being better, by ascending seed; what comes after a None, which has no value
            yet, is left out, so that points are compared by the same seeds.

    >>> hopeless({"a": [0.9, 0.8], "b": [0.8, 0.9], "c": [0.7, 0.7], "d": [0.8, 0.8], "e": [0.5, 0.6], "f": [0.1]})
    ['c', 'e']
    """
    found = {name: _up_to_a_gap(each) for name, each in values.items()}
    given_up = []
    for name, own in found.items():
        count = len(own)
        if count < SEEDS_TO_JUDGE:
            continue
        others = [sum(each[:count]) / count for other, each in found.items() if other != name and len(each) >= count]
        if len(others) >= POINTS_TO_COMPARE and sum(own) / count < median(others):
            given_up.append(name)
    return given_up


def _up_to_a_gap(values: Sequence[float | None]) -> list[float]:
    found: list[float] = []
    for value in values:
        if value is None:
            break
        found.append(value)
    return found
