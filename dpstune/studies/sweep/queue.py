"""Jobs waiting for workers: an Optuna study whose trials any number of processes take, each trial exactly once.

A trial is a job; its user attributes say which. Its states are Optuna's: WAITING, RUNNING (a worker's heartbeat says
that it lives), COMPLETE (its value is the run's headline metric), FAIL (with the attribute ``error``; or a stale trial,
put back under another number), PRUNED (taken out of the queue).

Optuna 5 keeps the trials, finds the stale ones and puts them back into the queue. It leaves the following to us:
* Exactly once. ``Study.ask`` makes a new trial if none waits; and SQLite locks no rows, so that it gives several
  processes the same trial (four of them took 60 trials 75 to 81 times).
* Heartbeats. Optuna's beat in ``Study.optimize`` only, and stop for ever once the database was away for a moment.
* Workers of this machine. We know at once and for certain that one has ended; its trial then waits again, unchanged.
* Second tries. Optuna does not repeat a run that failed, nor a request to a database that restarts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.recipe.draft import split_override
from dpstune.studies.sweep.outages import patient
from dpstune.studies.sweep.storage import (
    DEATHS,
    HEARTBEAT_SECONDS,
    Direction,
    alone,
    open_storage,
    sqlite_file,
    storage_errors,
)
from dpstune.studies.sweep.worker_names import is_dead

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ATTEMPTS = 2
LOST = "its workers were lost"  # for a stale trial that Optuna does not try again: Optuna records no error


@dataclass(frozen=True)
class Job:
    """A run that is planned.

    Args:
        method: The method.
        overrides: Every ``KEY=VALUE`` that turns the study's recipe into this run's.
        seed: The run's seed.
    """

    method: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def identity(self) -> str:
        """The job as JSON: trials of the same job have the same."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        """Return the job on one line, for people."""
        return " ".join([self.method, *self.overrides, f"seed {self.seed}"])


@dataclass(frozen=True)
class Taken:
    """A job that this worker has taken.

    Args:
        trial: The trial's id in the storage.
        job: The job.
        failures: How often it has failed so far.
    """

    trial: int
    job: Job
    failures: int


@dataclass(frozen=True)
class Ended:
    """A finished run, as its worker recorded it.

    Args:
        value: Its headline metric.
        run: Its folder, on the machine that trained it.
    """

    value: float
    run: Path


@dataclass(frozen=True)
class Tally:
    """How a study stands.

    Args:
        waiting, running: Number of jobs.
        done: Identities of the finished jobs, with their results.
        failed: Identities of the jobs that failed and are not tried again, with their errors.
        dropped: Identities of the jobs taken out of the queue.
        workers: The job of each worker, by the worker's name.
    """

    waiting: int = 0
    running: int = 0
    done: dict[str, Ended] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    workers: dict[str, Job] = field(default_factory=dict)


class RunQueue:
    """The trials of one sweep.

    Args:
        url: The storage's URL: a database, see ``open_storage``.
        name: The study's name.
        direction: Which way its values are better, as Optuna has it.

    Raises:
        RequestError, RunError: See ``open_storage``.
    """

    def __init__(self, url: str, name: str, direction: Direction = "maximize") -> None:
        import optuna

        self._name = name
        self._storage = open_storage(url, heartbeats=True)
        with storage_errors(url):
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction=direction, load_if_exists=True
            )
        self.url = url
        self.shared = sqlite_file(url) is None

    def _changing(self) -> AbstractContextManager[None]:
        return alone(self._storage, self._name)

    @patient
    def add(self, jobs: Sequence[Job], *, also_ended: bool = True, also_dropped: bool = True) -> None:
        """Add the jobs that the queue does not hold, in this order.

        A job that failed is tried again where no job is running: while another process is at the study, whoever joins
        it would repeat what has just failed. In a storage on this machine, a complete job is added again, too: the
        caller has not found its run.

        Args:
            jobs: The jobs whose finished runs the caller has not found.
            also_ended: Whether to add jobs again that the queue held before.
            also_dropped: Whether to add jobs again that were dropped.
        """
        from optuna import create_trial
        from optuna.distributions import FloatDistribution
        from optuna.trial import TrialState

        with self._changing():
            states = [TrialState.WAITING, TrialState.RUNNING]
            states += [TrialState.COMPLETE] if self.shared else []
            states += [] if also_dropped else [TrialState.PRUNED]
            states = states if also_ended else list(TrialState)
            there = {trial.user_attrs["identity"] for trial in self._trials(*states)}
            if self._trials(TrialState.RUNNING):
                ended = _last_to_end(self._trials(TrialState.FAIL, TrialState.PRUNED))
                there |= {identity for identity, trial in ended.items() if trial.state == TrialState.FAIL}
            for job in jobs:
                if job.identity in there:
                    continue
                numbers = dict(_numbers(job.overrides))
                trial = create_trial(
                    state=TrialState.WAITING,
                    params=numbers,
                    distributions={key: FloatDistribution(value, value) for key, value in numbers.items()},
                    user_attrs={"identity": job.identity, "method": job.method, "seed": job.seed, "failures": 0},
                )
                self._study.add_trial(trial)

    @patient
    def take(self, worker: str) -> Taken | None:
        """Take the first waiting job, or return None if none waits; no two workers get the same."""
        with self._changing():
            return self._take(worker)

    def _take(self, worker: str) -> Taken | None:
        from optuna.trial import TrialState

        states = [TrialState.RUNNING, *([TrialState.COMPLETE] if self.shared else [])]
        there = self._trials(*states)
        for trial in there:  # this worker took it, but the connection broke before the answer came
            if trial.state == TrialState.RUNNING and trial.user_attrs.get("worker") == worker:
                return Taken(trial._trial_id, _job(trial), trial.user_attrs["failures"])
        seen = {trial.user_attrs["identity"] for trial in there}
        for trial in sorted(self._trials(TrialState.WAITING), key=_times_put_back):
            # First the worker's name: if the worker dies in between, the trial must still show whose it was.
            self._storage.set_trial_user_attr(trial._trial_id, "worker", worker)
            self._storage.record_heartbeat(trial._trial_id)
            if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                continue
            if trial.user_attrs["identity"] in seen:  # two machines added the same job at the same moment
                self._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
                continue
            self._storage.set_trial_user_attr(trial._trial_id, "worker", worker)
            return Taken(trial._trial_id, _job(trial), trial.user_attrs["failures"])
        return None

    @contextmanager
    def alive(self, taken: Taken) -> Iterator[None]:
        """Record a heartbeat of a taken job regularly while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                with suppress(Exception):  # a database that is away for a moment comes back
                    self._storage.record_heartbeat(taken.trial)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @patient
    def finish(self, taken: Taken, value: float | None, run: Path) -> None:
        """Record a finished run; an undefined metric counts as 0."""
        self._leave(taken.trial, "COMPLETE", [value or 0.0], run=str(run.absolute()))

    def _leave(
        self, trial: int, state: str, values: Sequence[float] | None = None, **attributes: int | str | None
    ) -> None:
        """End a trial or put it back, and set its attributes.

        If the trial has ended already, since its worker slept too long, nothing changes; what the worker trained lies
        in the run's folder.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with suppress(UpdateFinishedTrialError):
            for name, value in attributes.items():
                self._storage.set_trial_user_attr(trial, name, value)
            self._storage.set_trial_state_values(trial, TrialState[state], values)

    @patient
    def fail(self, taken: Taken, error: str, *, again: bool = True) -> None:
        """Put a failed job back once; at its second failure, or if ``again`` is false, record its error.

        Args:
            taken: The job.
            error: Why it failed.
            again: Whether a second try may succeed.
        """
        failures = taken.failures + 1
        state = "WAITING" if again and failures < ATTEMPTS else "FAIL"
        self._leave(taken.trial, state, failures=failures, error=error)

    @patient
    def give_back(self, taken: Taken, *, behind: bool = False) -> None:
        """Put an interrupted job back; the worker that takes it next continues from the run's checkpoint.

        Args:
            taken: The job.
            behind: Whether to put it behind the other jobs, since it cannot be done now.
        """
        busy = self._storage.get_trial(taken.trial).user_attrs.get("busy", 0)
        self._leave(taken.trial, "WAITING", busy=busy + behind)

    @patient
    def drop(self, jobs: Sequence[Job]) -> None:
        """Take those of the jobs that still wait out of the queue."""
        from optuna.trial import TrialState

        identities = {job.identity for job in jobs}
        with self._changing():
            for trial in self._trials(TrialState.WAITING):
                if trial.user_attrs["identity"] in identities:
                    self._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)

    @patient
    def take_over_the_dead(self) -> None:
        """Put back the jobs whose worker has died: on this machine at once, elsewhere when its heartbeat is old."""
        from optuna.storages import fail_stale_trials
        from optuna.trial import TrialState

        with self._changing():
            fail_stale_trials(self._study)
            for trial in self._trials(TrialState.RUNNING):
                if is_dead(trial.user_attrs.get("worker", "")):
                    self._put_back(trial)

    def _put_back(self, trial: FrozenTrial) -> None:
        """Put a dead worker's job back behind the others; after the deaths of ``DEATHS`` workers it has failed."""
        lost = trial.user_attrs.get("lost", 0) + 1
        if lost < DEATHS:
            self._leave(trial._trial_id, "WAITING", lost=lost)
        else:
            self._leave(trial._trial_id, "FAIL", lost=lost, error=f"its worker died {lost} times")

    @patient
    def tally(self) -> Tally:
        """Count; not while a stale run has failed and is yet to be queued anew."""
        from optuna.trial import TrialState

        by_state: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
        with self._changing():
            for trial in self._trials():
                by_state[trial.state].append(trial)
        running = by_state[TrialState.RUNNING]
        later = [*running, *by_state[TrialState.WAITING], *by_state[TrialState.COMPLETE]]
        not_given_up = {trial.user_attrs["identity"] for trial in later}
        last = _last_to_end([*by_state[TrialState.FAIL], *by_state[TrialState.PRUNED]])
        given_up = {identity: trial for identity, trial in last.items() if identity not in not_given_up}
        return Tally(
            waiting=len(by_state[TrialState.WAITING]),
            running=len(running),
            done={
                trial.user_attrs["identity"]: Ended(trial.value or 0.0, Path(trial.user_attrs["run"]))
                for trial in by_state[TrialState.COMPLETE]
            },
            failed={
                identity: trial.user_attrs.get("error", LOST)
                for identity, trial in given_up.items()
                if trial.state == TrialState.FAIL
            },
            dropped={identity for identity, trial in given_up.items() if trial.state == TrialState.PRUNED},
            workers={trial.user_attrs["worker"]: _job(trial) for trial in running if "worker" in trial.user_attrs},
        )

    def _trials(self, *states: Any) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


def _last_to_end(trials: Sequence[FrozenTrial]) -> dict[str, FrozenTrial]:
    """Return the last to end of the trials of each job, which says what came of the job.

    A stale run, or one that is tried anew, has several.
    """
    return {trial.user_attrs["identity"]: trial for trial in sorted(trials, key=_end)}


def _end(trial: FrozenTrial) -> datetime:
    assert trial.datetime_complete is not None
    return trial.datetime_complete


def _times_put_back(trial: FrozenTrial) -> int:
    """Return a job's sort key: jobs whose workers died, or that were busy, come after those not tried yet."""
    return int(trial.user_attrs.get("lost", 0)) + int(trial.user_attrs.get("busy", 0))


def _job(trial: FrozenTrial) -> Job:
    values = json.loads(trial.user_attrs["identity"])
    return Job(values["method"], tuple(values["overrides"]), values["seed"])


def _numbers(overrides: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the overrides that are numbers: Optuna's own tools show them."""
    for override in overrides:
        key, text = split_override(override)
        try:
            yield key, float(text or "")
        except ValueError:
            continue
