"""Which candidate is tried next, and which is given up: Optuna's TPE and successive halving, part by part.

A part is a fold, or the one set of held-out rows. A trial is a candidate, and its intermediate values are the scores of
its parts: what a study's file holds is enough to go on after any interruption.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.device.randomness import stream_seed
from dpstune.studies.fit.candidates import Candidate, SearchSpace
from dpstune.studies.sweep.search import suggest
from dpstune.studies.sweep.storage import open_storage, sqlite_url

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

HALVING = 2  # after 1, 2 and 4 folds a candidate goes on where it is in the better half of those that came so far
_CANDIDATE, _ALWAYS, _ERROR = "candidate", "always", "error"


@dataclass(frozen=True)
class Trial:
    """A candidate and what came out so far.

    Args:
        number: The trial's number in Optuna's study.
        candidate: What is tried.
        always: Whether it is tried on every part, however it does.
        values: Its score on each part that is done, by the part's number from 1.
        state: ``open``, ``complete``, ``given up`` or ``failed``.
        error: Why it failed.
    """

    number: int
    candidate: Candidate
    always: bool
    values: dict[int, float]
    state: str
    error: str | None = None


class CandidateSearch:
    """The trials of one search, kept in a file.

    Args:
        file: The study's SQLite file; made where it is not there.
        new_space: Says where candidates come from; not asked of a study that is there, which knows it.
        parts: Parts a candidate is tried on.
        seed: Of Optuna's draws.
    """

    def __init__(self, file: Path, new_space: Callable[[], SearchSpace], *, parts: int, seed: int) -> None:
        import optuna
        from optuna.pruners import NopPruner, SuccessiveHalvingPruner

        self.parts, self._seed = parts, seed
        halving = SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALVING)
        self._study = optuna.create_study(
            storage=open_storage(sqlite_url(file), heartbeats=False),
            study_name="fit",
            direction="maximize",
            pruner=halving if parts > 1 else NopPruner(),
            load_if_exists=True,
        )
        kept = self._study.user_attrs.get("space")
        if kept is not None:
            stored = json.loads(kept)
            space = SearchSpace(
                tuple(stored["methods"]), stored["rate"], tuple(stored["epochs"]), tuple(stored["fixed"])
            )
        else:
            space = new_space()
            for candidate in space.baselines():
                self._enqueue(candidate, always=True)
            for candidate in space.defaults():
                self._enqueue(candidate, always=False)
            self._study.set_user_attr("space", json.dumps(asdict(space)))
        self.space = space

    def trials(self) -> list[Trial]:
        """Return every trial that was begun, in the order in which they were."""
        from optuna.trial import TrialState

        found = self._study.get_trials(deepcopy=False)
        return [_read(trial) for trial in found if trial.state != TrialState.WAITING and _CANDIDATE in trial.user_attrs]

    def next(self) -> Trial:
        """Return the trial that is open, or begin another."""
        from optuna.samplers import TPESampler

        for trial in self.trials():
            if trial.state == "open":
                return trial
        seed = stream_seed(self._seed, "fit", len(self.trials())) % 2**32
        self._study.sampler = TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=8)
        asked = self._study.ask()
        method = asked.suggest_categorical("method", list(self.space.methods))
        grid = self.space.grid(method)
        settings = {key: suggest(asked, key, values, name=_parameter(method, key)) for key, values in grid.items()}
        asked.set_user_attr(_CANDIDATE, {"method": method, "settings": settings})
        return _read(self._study.get_trials(deepcopy=False)[asked.number])

    def report(self, trial: Trial, part: int, value: float) -> Trial:
        """Note the score of a part, and end the trial where it was the last or is given up.

        Args:
            trial: An open one.
            part: The part's number from 1.
            value: Its score, the higher the better.
        """
        from optuna.trial import TrialState

        asked = self._asked(trial)
        asked.report(value, part)
        values = [*trial.values.values(), value]
        if len(values) == self.parts:
            self._study.tell(trial.number, sum(values) / len(values))
        elif not trial.always and asked.should_prune():
            self._study.tell(trial.number, state=TrialState.PRUNED)
        return _read(self._study.get_trials(deepcopy=False)[trial.number])

    def fail(self, trial: Trial, error: str) -> None:
        """Note that a trial cannot be trained."""
        from optuna.trial import TrialState

        self._asked(trial).set_user_attr(_ERROR, error)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def _asked(self, trial: Trial) -> Any:
        from optuna.trial import Trial as OptunaTrial

        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        return OptunaTrial(self._study, frozen._trial_id)

    def _enqueue(self, candidate: Candidate, *, always: bool) -> None:
        parameters = {"method": candidate.method}
        for key, value in candidate.settings.items():
            parameters[_parameter(candidate.method, key)] = value
        self._study.enqueue_trial(parameters, user_attrs={_ALWAYS: always})


def _parameter(method: str, key: str) -> str:
    """Name a parameter of Optuna's: what methods have in common is one parameter, what is a method's own another."""
    return f"{method} {key}" if key.startswith("method.") else key


def _read(trial: FrozenTrial) -> Trial:
    from optuna.trial import TrialState

    found = trial.user_attrs[_CANDIDATE]
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}
    return Trial(
        trial.number,
        Candidate(found["method"], found["settings"]),
        bool(trial.user_attrs.get(_ALWAYS)),
        dict(sorted(trial.intermediate_values.items())),
        states.get(trial.state, "open"),
        trial.user_attrs.get(_ERROR),
    )
