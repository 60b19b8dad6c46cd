"""Several runs of a fit at a time: hands them to worker processes, and notes what comes of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dpstune.common.interruption import InterruptionWatch
from dpstune.device.hardware import give_gpu_memory_back
from dpstune.errors import DpstuneError, RunError
from dpstune.settings.metrics import direction
from dpstune.studies.fit.fit import WAIT_SECONDS, Fit, Tell, told_of
from dpstune.studies.fit.order import Run, next_run
from dpstune.studies.fit.search import CandidateSearch
from dpstune.studies.fit.workers import Answer, Failed, FitWorkers, GivenBack, Task, Trained

Show = Callable[[Mapping[int, str]], None]
"""Is told, about twice a second, what each worker trains, by the worker's number."""

NewView = Callable[[], AbstractContextManager[Show]]

DEATHS = 3  # a run whose worker has died so many times is not tried again
_SECONDS_BETWEEN_LOOKS = 0.5
_WHY_WORKERS_DIE = (
    "fewer --jobs leave more memory for each, and a script that calls dpstune.fit needs an if __name__ == '__main__'"
)


def no_view() -> AbstractContextManager[Show]:
    """Return a view that shows nothing."""
    return nullcontext(lambda running: None)


def try_side_by_side(
    fit: Fit, search: CandidateSearch, new_view: NewView = no_view, tell: Tell = lambda line: None
) -> None:
    """Try candidates as ``Fit.try_candidates`` does, several runs at a time, each by a worker process.

    Args:
        fit: The fit.
        search: Chooses the candidates.
        new_view: Shows what the workers train.
        tell: Is told what was tried, a line each.

    Raises:
        RequestError, RunError: See ``Fit.try_candidates``; or the workers of the first run died.
        Interrupted: A signal came; every worker has saved a checkpoint.
    """
    table = _Table(fit, search, tell)
    give_gpu_memory_back()
    with InterruptionWatch("interrupted; every run is saved, and the same command goes on") as signals:
        try:
            with new_view() as show:
                while table.hand_out():
                    show(table.under_way())
                    answers = table.wait()
                    signals.end_if_asked()
                    table.note(answers)
            table.workers.dismiss()
        except BaseException:
            table.workers.stop()
            raise
        finally:
            table.workers.join()


class _Table:
    """Who trains what, and what that takes of the minutes.

    Args:
        fit: The fit.
        search: Chooses the candidates.
        tell: Is told what was tried, a line each.
    """

    def __init__(self, fit: Fit, search: CandidateSearch, tell: Tell) -> None:
        self._fit, self._search, self._tell = fit, search, tell
        self._budget = fit.budget(search)
        self.workers = FitWorkers(fit)
        self._tasks: dict[int, Task] = {}  # by the worker's number
        self._resting: dict[int, float] = {}  # until when a worker that gave a run back gets no other
        self._deaths: Counter[Run] = Counter()
        self._left: set[int] = set()  # workers whose GPU has no room for them
        self._told: set[str] = set()
        self._since = time.monotonic()

    def hand_out(self) -> bool:
        """Hand every free worker a run, where there is one; tell whether there is anything to wait for."""
        now = time.monotonic()
        self._resting = {number: until for number, until in self._resting.items() if until > now}
        for number in range(self._fit.request.jobs):
            if number in self._tasks or number in self._resting or number in self._left:
                continue
            running = [(task.trial.number, task.part) for task in self._tasks.values()]
            found = next_run(self._search, self._budget, running, now - self._since)
            if found is None:
                break
            self._tasks[number] = Task(*found, self._fit.peaks())
            self.workers.hand(number, self._tasks[number])
        return bool(self._tasks or self._resting)

    def under_way(self) -> dict[int, str]:
        """Return what each worker trains."""
        return {number: self._fit.describe(task.trial, task.part) for number, task in sorted(self._tasks.items())}

    def wait(self) -> list[tuple[int, Answer | None]]:
        """Wait a moment for what came of the runs."""
        return list(self.workers.answers(_SECONDS_BETWEEN_LOOKS))

    def note(self, answers: Sequence[tuple[int, Answer | None]]) -> None:
        """Note what came of the runs."""
        for number, answer in answers:
            task = self._tasks.pop(number, None)
            if task is not None:
                self._note_one(number, task, answer)

    def _note_one(self, number: int, task: Task, answer: Answer | None) -> None:
        name = self._fit.describe(task.trial, task.part)
        match answer:
            case Trained(folder):
                self._note_run(task, folder, name)
            case Failed(error, fault):
                self._note_failure(task, error, fault, name)
            case GivenBack(why, leaves):
                self._resting[number] = time.monotonic() + WAIT_SECONDS
                self._left |= {number} if leaves else set()
                if why is not None and why not in self._told:
                    self._told.add(why)
                    self._tell(f"waiting: {why}")
            case None:
                self._note_death(task, name)

    def _note_run(self, task: Task, folder: Path, name: str) -> None:
        record = self._fit.found(task.trial, task.part, folder)
        taken = time.monotonic() - self._since
        trial = self._search.report(task.trial, task.part, direction(record.metric) * record.score, taken)
        self._budget.add(trial.candidate, record, taken)
        self._since += taken
        self._tell(f"{name}: {told_of(record, trial)}")

    def _note_failure(self, task: Task, error: DpstuneError, fault: str | None, name: str) -> None:
        if fault is None or not any(trial.values for trial in self._search.trials()):
            raise error
        taken = time.monotonic() - self._since
        self._search.fail(task.trial, task.part, fault, taken)
        self._budget.add_failure(taken)
        self._since += taken
        self._tell(f"{name}: cannot be trained: {fault}")

    def _note_death(self, task: Task, name: str) -> None:
        run = (task.trial.number, task.part)
        self._deaths[run] += 1
        self._tell(f"{name}: its worker died")
        if self._deaths[run] == DEATHS:
            fault = f"its worker died {DEATHS} times: {_WHY_WORKERS_DIE}"
            self._note_failure(task, RunError(f"{name}: {fault}"), fault, name)
