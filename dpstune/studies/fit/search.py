"""Which candidate is tried next, and which is given up: Optuna's TPE, and successive halving part by part.

A part is a fold, or the one set of held-out rows. A trial is a candidate, and its intermediate values are the scores of
its parts: what a study's file holds is enough to go on after any interruption. Where several runs are trained at a
time, several trials are open, and each is judged as it comes to 1, 2 and 4 parts. Halving is ours: Optuna's pruner
compares the last value alone, where the mean of the parts so far is wanted, and leaves trials out that are never given
up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.device.randomness import stream_seed
from dpstune.studies.fit.candidates import Candidate, SearchSpace
from dpstune.studies.sweep.outages import patient
from dpstune.studies.sweep.search import suggest
from dpstune.studies.sweep.storage import open_storage, sqlite_url, storage_errors

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

HALVING = 2  # after 1, 2 and 4 folds a candidate goes on where it is in the better half of those that came so far
_CANDIDATE, _ALWAYS, _ERROR, _SECONDS, _SPACE = "candidate", "always", "error", "seconds", "space"
_TAKEN, _LATE, _JUDGED = "taken", "late", "judged"

_NAME = "fit"
_ASKED = "fixed_params"  # Optuna's name for what is put in line


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
        seconds: What the run that failed took of the fit's minutes.
        taken: What runs that were trained beside others took of them, by part; any other took its own seconds.
    """

    number: int
    candidate: Candidate
    always: bool
    values: dict[int, float]
    state: str
    error: str | None = None
    seconds: float = 0.0
    taken: dict[int, float] = field(default_factory=dict)


class CandidateSearch:
    """The trials of one search, kept in a file.

    Args:
        file: The study's SQLite file; made where it is not there.
        new_space: Says where candidates come from; not asked of a study that is there, which knows it.
        parts: Parts a candidate is tried on.
        seed: Of Optuna's draws.

    Raises:
        RunError: The file cannot be read or written; each method raises it, too.
    """

    def __init__(self, file: Path, new_space: Callable[[], SearchSpace], *, parts: int, seed: int) -> None:
        import optuna

        self.parts, self._seed = parts, seed
        self.url = sqlite_url(file)
        with storage_errors(self.url):
            self._study = optuna.create_study(
                storage=open_storage(self.url, heartbeats=False),
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
            )
            space = _read_space(self._study)
        self.space = new_space() if space is None else space
        self._begin_in(self.space, is_new=space is None)

    @patient
    def _begin_in(self, space: SearchSpace, *, is_new: bool) -> None:
        """Note where candidates come from, put those in line that every search tries, and mend what was left."""
        if is_new:
            self._study.set_user_attr(_SPACE, json.dumps(asdict(space)))
        for number, candidate in enumerate(space.baselines()):
            self._enqueue(candidate, always=number == 0)  # one is there to compare with
        for candidate in space.defaults():
            self._enqueue(candidate, always=False)
        self._mend()

    @patient
    def trials(self) -> list[Trial]:
        """Return every trial that was begun, in the order in which they were."""
        from optuna.trial import TrialState

        found = self._study.get_trials(deepcopy=False)
        return [_read(trial) for trial in found if trial.state != TrialState.WAITING and _CANDIDATE in trial.user_attrs]

    def next(self) -> Trial:
        """Return the first trial that is open, or begin another."""
        return next((trial for trial in self.trials() if trial.state == "open"), None) or self.begin()

    @patient
    def begin(self) -> Trial:
        """Begin another trial; what those that are open try is avoided."""
        return self._begun(self._study.ask())

    def _begun(self, asked: Any) -> Trial:
        """Choose a trial's candidate: the one that was put in line, else one that is drawn."""
        from optuna.samplers import TPESampler

        seed = stream_seed(self._seed, "fit", len(self.trials())) % 2**32
        self._study.sampler = TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=8, constant_liar=True
        )
        method = asked.suggest_categorical("method", list(self.space.methods))
        grid = self.space.grid(method)
        settings = {key: suggest(asked, key, values, name=_parameter(method, key)) for key, values in grid.items()}
        asked.set_user_attr(_CANDIDATE, {"method": method, "settings": settings})
        return self._trial(asked.number)

    @patient
    def report(self, trial: Trial, part: int, value: float, taken: float | None = None) -> Trial:
        """Note the score of a part, and end the trial where it was the last or is given up.

        Of a trial that ended while the part was tried only what the run took is noted.

        Args:
            trial: The trial.
            part: The part's number from 1.
            value: Its score, the higher the better.
            taken: See ``Trial``; None for a run that was trained alone.
        """
        before = self._trial(trial.number)
        if before.state != "open":
            self._note_late(trial, part, taken or 0.0)
            return before
        asked = self._asked(trial.number)
        if taken is not None:
            asked.set_user_attr(_TAKEN, {**before.taken, part: taken})
        asked.report(value, part)
        return self._settled(self._trial(trial.number))

    @patient
    def fail(self, trial: Trial, part: int, error: str, seconds: float = 0.0) -> Trial:
        """Note that a trial cannot be trained on a part, and how long it took to see that; return it as it is then.

        Of a trial that has ended only the time is noted.
        """
        from optuna.trial import TrialState

        before = self._trial(trial.number)
        if before.state != "open":
            self._note_late(trial, part, seconds)
            return before
        asked = self._asked(trial.number)
        asked.set_user_attr(_ERROR, error)
        asked.set_user_attr(_SECONDS, seconds)
        self._study.tell(trial.number, state=TrialState.FAIL)
        return self._trial(trial.number)

    @patient
    def late(self) -> list[float]:
        """Return what runs took of the fit's minutes whose trials ended before they did."""
        return list(self._study.user_attrs.get(_LATE, {}).values())

    def _note_late(self, trial: Trial, part: int, taken: float) -> None:
        noted = self._study.user_attrs.get(_LATE, {})
        self._study.set_user_attr(_LATE, {**noted, f"{trial.number} {part}": taken})

    def judged_after(self, trial: Trial) -> int:
        """Return the last part that an open trial is tried on before it is judged next, or ends."""
        return self.parts if trial.always else min(self.parts, max(1, HALVING * _compared(trial.values)))

    def _settled(self, trial: Trial) -> Trial:
        """End an open trial whose parts are all done, or that falls behind where it is judged; return it as it then is.

        It is judged once by each number of parts, also where the search was stopped and is opened again.
        """
        from optuna.trial import TrialState

        asked, count = self._asked(trial.number), _compared(trial.values)
        if len(trial.values) == self.parts:
            self._study.tell(trial.number, sum(trial.values.values()) / self.parts)
        elif not trial.always and count > asked.user_attrs.get(_JUDGED, 0):
            if self._falls_behind(trial):
                self._study.tell(trial.number, state=TrialState.PRUNED)
            else:
                asked.set_user_attr(_JUDGED, count)
        return self._trial(trial.number)

    def _falls_behind(self, trial: Trial) -> bool:
        """Tell whether a trial's mean score is not among the better half after 1, 2, 4, ... parts."""
        count = _compared(trial.values)

        def mean(each: Trial) -> float:
            return sum(each.values[part] for part in range(1, count + 1)) / count

        others = [
            mean(each)
            for each in self.trials()
            if each.number != trial.number and each.state != "failed" and _compared(each.values) >= count
        ]
        return sum(other > mean(trial) for other in others) >= math.ceil((len(others) + 1) / HALVING)

    def _mend(self) -> None:
        """Go on where a process was killed as it began or ended a trial.

        A candidate that was put in line keeps its place. One that was partly drawn is left: the next trial draws all of
        it anew, since the rest alone would be drawn otherwise.
        """
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if _CANDIDATE in trial.user_attrs:
                continue
            if _ASKED in trial.system_attrs:
                self._begun(self._asked(trial.number))
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)
        for each in self.trials():
            if each.state == "open":
                self._settled(each)

    def _trial(self, number: int) -> Trial:
        return _read(self._study.get_trials(deepcopy=False)[number])

    def _asked(self, number: int) -> Any:
        from optuna.trial import Trial as OptunaTrial

        frozen = self._study.get_trials(deepcopy=False)[number]
        return OptunaTrial(self._study, frozen._trial_id)

    def _enqueue(self, candidate: Candidate, *, always: bool) -> None:
        parameters = {"method": candidate.method}
        for key, value in candidate.settings.items():
            parameters[_parameter(candidate.method, key)] = value
        self._study.enqueue_trial(parameters, user_attrs={_ALWAYS: always}, skip_if_exists=True)


def kept_space(file: Path) -> SearchSpace | None:
    """Return where the candidates of a search in a file come from; None where there is none. Nothing is written.

    Raises:
        RunError: The file cannot be read.
    """
    import optuna

    if not file.exists():
        return None
    url = sqlite_url(file)
    storage = open_storage(url, heartbeats=False)
    with storage_errors(url):
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        return _read_space(optuna.load_study(study_name=_NAME, storage=storage)) if _NAME in names else None


def _read_space(study: Any) -> SearchSpace | None:
    kept = study.user_attrs.get(_SPACE)
    if kept is None:
        return None
    stored = json.loads(kept)
    return SearchSpace(
        tuple(stored["methods"]),
        stored["rate"],
        tuple(stored["epochs"]),
        tuple(stored["fixed"]),
        stored.get("layers"),
    )


def _compared(parts: Collection[int]) -> int:
    """Return by how many of its first parts a trial is compared: the largest of 1, 2, 4, ... that are all done; or 0.

    >>> _compared([]), _compared([1]), _compared([1, 2, 3]), _compared([1, 3, 4])
    (0, 1, 2, 1)
    """
    count = 1
    while all(part in parts for part in range(1, count + 1)):
        count *= HALVING
    return count // HALVING


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
        trial.user_attrs.get(_SECONDS, 0.0),
        {int(part): seconds for part, seconds in trial.user_attrs.get(_TAKEN, {}).items()},
    )
