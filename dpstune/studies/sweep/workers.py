"""The worker processes of one machine: each takes runs from the queue until none is left.

Optuna's own workers are threads (``Study.optimize(n_jobs=...)``): they share torch's random state and get no signals.
"""

from __future__ import annotations

from contextlib import suppress
from ctypes import c_bool
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawValue

from dpstune.common.interruption import Interrupted
from dpstune.errors import BusyError, DivergedError, DpstuneError, RequestError, in_a_line, unforeseen
from dpstune.studies.gpu_share import GpuShare, Turn
from dpstune.studies.processes import CRASHED, Processes, begin_life
from dpstune.studies.sweep.queue import RunQueue, Taken
from dpstune.studies.sweep.storage import wait_a_moment
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from dpstune.studies.sweep.worker_names import worker_name

DEATHS_IN_A_ROW = 3
OUT_OF_MEMORY = (
    "out of memory with no other run of a sweep on the GPU; try a smaller training.batch_size with more "
    "training.gradient_accumulation, or training.gradient_checkpointing=true"
)


class Workers(Processes):
    """This machine's workers; one that dies is replaced.

    Args:
        request: The sweep that they work for.
        count: How many workers.
    """

    def __init__(self, request: SweepRequest, count: int) -> None:
        super().__init__(_work, count)
        self._request = request
        self._more_may_come = RawValue(c_bool, False)  # without a lock, which a worker that is killed would keep
        self._errors: dict[int, Connection] = {}  # what each worker says that ends with an error
        self._deaths, self._ended = 0, -1

    def start(self) -> None:
        """Start the workers."""
        for number in range(self.count):
            self._start(number)

    def _start(self, number: int) -> None:
        here, there = Pipe(duplex=False)
        self._errors[number] = here
        self.begin(number, self._request, self._more_may_come, there)
        there.close()  # so that the end of the worker ends what is read from it

    def crash(self) -> str | None:
        """Return the error that ended one of the workers, all of which have ended; None where none says so."""
        for connection in self._errors.values():
            with suppress(EOFError):  # it was killed, or ended as it should
                return str(connection.recv())
        return None

    @property
    def more_may_come(self) -> bool:
        """Whether workers that find nothing to do wait for jobs that a search is yet to add, and do not end."""
        return self._more_may_come.value

    @more_may_come.setter
    def more_may_come(self, more: bool) -> None:
        self._more_may_come.value = more

    def replace_the_dead(self, *, ended: int) -> None:
        """Start a new worker for each that was killed or crashed, but not for ever.

        Args:
            ended: How many runs have ended so far. After three deaths without a change of this number, no worker is
                started.
        """
        if ended != self._ended:
            self._deaths, self._ended = 0, ended
        for number in self.dead():
            if self._deaths < DEATHS_IN_A_ROW:
                self._deaths += 1
                self._start(number)


def _work(
    request: SweepRequest, more_may_come: c_bool, errors: Connection, number: int, workers: int, share: GpuShare
) -> None:
    """Take runs until none is left: the life of a worker process. An error that ends it is sent to its parent."""
    stopping = begin_life(workers)
    try:
        sweep = Sweep(request)
        queue = sweep.open_queue()
        name = worker_name(number)
        while not stopping:
            queue.take_over_the_dead()
            with share.turn(ended=lambda: bool(stopping)) as turn:
                taken = queue.take(name) if turn is not None and share.has_room(sweep.peaks) else None
                if taken is not None and turn is not None:
                    _do(sweep, queue, taken, share, turn)
            if share.left or (taken is None and not more_may_come.value and _is_empty(queue)):
                return
            if taken is None:
                wait_a_moment()  # another worker may still fail or die, or a search may propose another point
    except Interrupted as interrupted:
        raise SystemExit(interrupted.exit_code) from None
    except Exception as error:
        with suppress(OSError):  # the parent has ended
            errors.send(in_a_line(error))
        raise SystemExit(CRASHED) from None
    raise SystemExit(128 + stopping[0])


def _is_empty(queue: RunQueue) -> bool:
    tally = queue.tally()
    return not (tally.running or tally.waiting)


def _do(sweep: Sweep, queue: RunQueue, taken: Taken, share: GpuShare, turn: Turn) -> None:
    """Train one run; any error in it is recorded and does not stop the worker."""
    from dpstune.device.hardware import is_out_of_memory

    with queue.alive(taken), share.present():
        try:
            run = sweep.train(taken.job, turn)
        except Interrupted:
            queue.give_back(taken)
            raise
        except BusyError:
            queue.give_back(taken, behind=True)
            wait_a_moment()
        except DpstuneError as error:
            queue.fail(taken, str(error), again=not isinstance(error, RequestError | DivergedError))
        except Exception as error:
            if not is_out_of_memory(error):
                queue.fail(taken, unforeseen(error))
            elif share.out_of_memory():
                queue.give_back(taken, behind=True)
            else:
                queue.fail(taken, OUT_OF_MEMORY)
        else:
            queue.finish(taken, run.result["value"], run.folder)
