"""The worker processes of a fit: each trains the runs that it is handed, one after the other, and says what came of it.

The process that hands them out decides all else. It has a pipe to each worker: one that is killed takes nothing with it
that others wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from dpstune.common.interruption import Interrupted
from dpstune.errors import BusyError, DpstuneError, RequestError, RunError, unforeseen
from dpstune.studies.fit.fit import Fit, fault_of_the_candidate
from dpstune.studies.fit.request import FitRequest
from dpstune.studies.fit.search import Trial
from dpstune.studies.gpu_share import GpuShare
from dpstune.studies.processes import Processes, begin_life

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """A run to train.

    Args:
        trial: The candidate, as it stood when the run was handed out.
        part: The part that it is tried on.
        peaks: The peak memory of finished runs, in bytes: a GPU's guest starts where there is room for as much.
    """

    trial: Trial
    part: int
    peaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trained:
    """The run is finished.

    Args:
        folder: Its folder.
    """

    folder: Path


@dataclass(frozen=True)
class Failed:
    """The run cannot be trained.

    Args:
        error: Why.
        fault: What to say of the candidate; None where it is not its fault.
    """

    error: DpstuneError
    fault: str | None = None


@dataclass(frozen=True)
class GivenBack:
    """The run cannot be trained now: the GPU has no room, or another process trains it.

    Args:
        why: What people should know.
        leaves: Whether the worker ends, since its GPU has room for fewer runs than there are workers.
    """

    why: str | None = None
    leaves: bool = False


Answer = Trained | Failed | GivenBack


class FitWorkers(Processes):
    """The workers of a fit; each is started when there is a run for it, in the place of one that died, too.

    Args:
        fit: The fit.
    """

    def __init__(self, fit: Fit) -> None:
        super().__init__(_work, fit.request.jobs)
        self._fit = fit
        self._connections: dict[int, Connection] = {}

    def hand(self, number: int, task: Task) -> None:
        """Have a worker that is free train a run."""
        with suppress(ConnectionError):  # it died while it was free
            if number in self._connections:
                self._connections[number].send(task)
                return
        here, there = Pipe()
        self._connections[number] = here
        self.begin(number, self._fit.request, self._fit.folder, there)
        there.close()  # so that the end of the worker ends what is read from it
        with suppress(ConnectionError):  # it is dead already, which reading from it tells
            here.send(task)

    def answers(self, seconds: float) -> Iterator[tuple[int, Answer | None]]:
        """Wait for answers at most so long; yield each with its worker's number, None where the worker has died."""
        numbers = {id(connection): number for number, connection in self._connections.items()}
        for connection in wait(list(self._connections.values()), seconds):
            assert isinstance(connection, Connection)
            number = numbers[id(connection)]
            try:
                answer: Answer | None = connection.recv()
            except (EOFError, OSError):
                answer = None
            if answer is None or (isinstance(answer, GivenBack) and answer.leaves):
                del self._connections[number]
            yield number, answer

    def dismiss(self) -> None:
        """Have the workers end, none of which trains a run."""
        for connection in self._connections.values():
            with suppress(ConnectionError):
                connection.send(None)


def _work(
    request: FitRequest, folder: Path, connection: Connection, number: int, workers: int, share: GpuShare
) -> None:
    """Train what is handed out until there is no more: the life of a worker process."""
    stopping = begin_life(workers)
    try:
        with suppress(EOFError, ConnectionError):  # whoever hands out runs has ended
            fit = _same_fit(request, folder)
            while not stopping:
                if not connection.poll(_POLL_SECONDS):
                    continue
                task: Task | None = connection.recv()
                if task is None:
                    return
                answer = fit if isinstance(fit, Failed) else _answer(fit, task, share, stopping)
                connection.send(answer)
                if isinstance(answer, GivenBack) and answer.leaves:
                    return
    except Interrupted as interrupted:
        raise SystemExit(interrupted.exit_code) from None
    if stopping:
        raise SystemExit(128 + stopping[0])


def _same_fit(request: FitRequest, folder: Path) -> Fit | Failed:
    """Read the rows of a fit once more; fail where they are other ones than those it began with."""
    try:
        fit = Fit(request)
        if fit.folder != folder:
            raise RequestError("the rows have changed since the fit began: start it again")
    except Exception as error:
        return Failed(_as_told(error))
    return fit


def _answer(fit: Fit, task: Task, share: GpuShare, stopping: list[int]) -> Answer:
    """Train one run when the GPU is free for it; no error stops the worker."""
    try:
        return _do(fit, task, share, stopping)
    except Exception as error:  # of the turn on the GPU: no other run would get it
        return Failed(_as_told(error))


def _do(fit: Fit, task: Task, share: GpuShare, stopping: list[int]) -> Answer:
    """Train one run in this worker's turn; no error of the run is raised."""
    from dpstune.device.hardware import is_out_of_memory

    with share.turn(ended=lambda: bool(stopping)) as turn:
        if turn is None or not share.has_room(lambda: list(task.peaks)):
            return GivenBack()
        with share.present():
            try:
                return Trained(fit.train_for_another(task.trial, task.part, turn))
            except BusyError as error:
                return GivenBack(str(error))
            except Exception as error:
                if is_out_of_memory(error) and share.out_of_memory():
                    return GivenBack(leaves=share.left)
                return Failed(_as_told(error), fault_of_the_candidate(task.trial, error))


def _as_told(error: Exception) -> DpstuneError:
    """Return an error that another process can be sent, and may raise."""
    return error if isinstance(error, DpstuneError) else RunError(unforeseen(error))
