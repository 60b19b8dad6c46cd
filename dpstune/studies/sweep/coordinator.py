"""Runs a sweep: fills its queue, keeps this machine's workers running, and waits until the whole sweep is done.

In Optuna a trial is a point, and each worker asks for its own. Here a point is several runs, which several workers
train. So the coordinator, one process of each machine, proposes points, and tells Optuna the mean of a point once its
last seed has ended. Several of them share one search; each goes on alone when the others stop or die.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dpstune.common.interruption import InterruptionWatch
from dpstune.common.progress import Progress, SilentProgress
from dpstune.errors import in_a_line
from dpstune.studies.records import RunRecord
from dpstune.studies.sweep.queue import Job, RunQueue, Tally
from dpstune.studies.sweep.search import PointSearch, hopeless
from dpstune.studies.sweep.storage import wait_a_moment
from dpstune.studies.sweep.sweep import Sweep
from dpstune.studies.sweep.workers import Workers


def run_sweep(sweep: Sweep, workers: int, *, watch: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Run what is not finished with ``workers`` processes on this machine; return how all of the sweep's jobs ended.

    Args:
        sweep: What to run.
        workers: Processes on this machine; other machines that share the storage add their own.
        watch: Called with the current tally, about twice a second.

    Raises:
        RequestError: The runs would have no score.
        Interrupted: A signal came; every worker has saved a checkpoint.
    """
    sweep.refuse_nothing_to_compare_by()
    queue = sweep.open_queue()
    coordinator = _Coordinator(sweep, queue, workers)
    coordinator.advance(queue.tally())
    queue.take_over_the_dead()  # before jobs are added: one that it gives up is tried again, as any that failed
    done, _ = sweep.finished()
    missing = [job for job in sweep.jobs if job not in done]
    diverged = sweep.diverged(missing)  # the same run would diverge again
    queue.add([job for job in missing if job not in diverged], also_dropped=not sweep.request.prune)
    tally = queue.tally()
    processes = Workers(sweep.request, min(workers, tally.waiting + tally.running or int(coordinator.more_may_come)))
    with InterruptionWatch("interrupted; every run is saved, and the same command goes on") as signals:
        try:
            processes.more_may_come = coordinator.more_may_come
            processes.start()
            while processes.alive:
                tally = queue.tally()
                coordinator.advance(tally)
                processes.more_may_come = coordinator.more_may_come
                watch(tally)
                wait_a_moment()
                signals.end_if_asked()
                processes.replace_the_dead(ended=len(tally.done) + len(tally.failed))
        except BaseException:
            processes.stop()
            raise
        finally:
            processes.join()
    sweep.crash = processes.crash()
    coordinator.recall_points()
    tally = queue.tally()
    sweep.learn(tally)
    watch(tally)
    return tally


def run_in_process(
    sweep: Sweep, new_progress: Callable[[], Progress] = SilentProgress, tell: Callable[[str], None] = lambda line: None
) -> Tally:
    """Train a sweep's runs in this process, one after the other, without a queue; return how they ended.

    Args:
        sweep: What to run; not a search.
        new_progress: Shows a run's progress.
        tell: Is told what came of the runs, a line each.

    Raises:
        Interrupted: A signal came; every run is saved.
    """
    if len(sweep.jobs) > 1:
        tell(f"{len(sweep.jobs)} runs, one after the other; those that are finished are read")
    failed: dict[str, str] = {}
    done, _ = sweep.finished()
    elsewhere = {job: record.result for job, record in done.items() if not sweep.is_of_here(job)}
    diverged = sweep.diverged(sweep.jobs)
    for job in sweep.jobs:
        if job in diverged:
            tell(f"{job}: diverged; not trained again")
            continue
        try:
            result = elsewhere[job] if job in elsewhere else sweep.train(job, new_progress()).result
            tell(f"{job}: {result['metric']} {result['value']}")
        except Exception as error:  # of one run alone, as in a worker process
            failed[job.identity] = in_a_line(error)
            tell(f"{job}: failed: {failed[job.identity]}")
    return Tally(failed=failed)


def open_searches(sweep: Sweep) -> list[PointSearch]:
    """Open the search of each method and plan the points chosen so far; return no searches for a grid."""
    if sweep.request.budget is None:
        return []
    searches = [
        PointSearch(sweep.storage, sweep.study_name, *item, sweep.request.budget, sweep.direction)
        for item in sweep.grids.items()
    ]
    _recall_points(sweep, searches)
    return searches


def _recall_points(sweep: Sweep, searches: Sequence[PointSearch]) -> None:
    for search in searches:
        chosen = search.points()
        sweep.plan([(search.method, point) for point in chosen])
        sweep.to_come[search.method] = search.to_come(chosen)


class _Coordinator:
    """Proposes new points before the workers run out of them, and gives up hopeless ones.

    Args:
        sweep: The sweep.
        queue: Its queue.
        workers: How many points are kept open at a time.
    """

    def __init__(self, sweep: Sweep, queue: RunQueue, workers: int) -> None:
        self._sweep, self._queue, self._workers = sweep, queue, workers
        self._ended: tuple[int, int, int] | None = None  # how many jobs had ended at the last look
        self.searches = open_searches(sweep)
        self.more_may_come = False  # while a search has an open point, it may propose another once that has ended

    def recall_points(self) -> None:
        """Plan the points that other machines' coordinators proposed."""
        _recall_points(self._sweep, self.searches)

    def advance(self, tally: Tally) -> None:
        """Propose and give up points, if jobs have ended since the last call."""
        counts = (len(tally.done), len(tally.failed), len(tally.dropped))
        if counts == self._ended:
            return
        self._ended = counts
        self._sweep.learn(tally)
        request = self._sweep.request
        if not self.searches and not request.prune:
            return
        self.recall_points()
        done, damaged = self._sweep.finished()
        unfinished = (job for job in self._sweep.jobs if job not in done and job.identity not in tally.done)
        diverged = self._sweep.diverged(unfinished)
        scored = {**diverged, **done}
        if self.searches:
            # Those that the queue calls done it gives to nobody again.
            self._propose(tally, scored, {job.identity for job in damaged if job.identity in tally.done})
        if request.prune:
            self._give_up_the_hopeless(scored)

    def _propose(self, tally: Tally, scored: Mapping[Job, RunRecord], lost: set[str]) -> None:
        """Propose points until so many are open, and queue what of them is not finished.

        Args:
            tally: The state of the queue.
            scored: The runs that have ended, also those that diverged.
            lost: The identities of jobs that have ended, of which no run can be read.
        """
        scores = {job.identity: record.score for job, record in scored.items()}
        if self._queue.shared:  # also runs of other machines, wherever their folders lie
            scores = {**{identity: ended.value for identity, ended in tally.done.items()}, **scores}
        ended = {*scores, *tally.failed, *tally.dropped, *lost}
        while True:
            for search in self.searches:
                open_points = sum(not self._told(search, point, scores, ended) for point in search.points())
                while open_points < self._workers and (proposed := search.propose()) is not None:
                    self._sweep.plan([(search.method, proposed)])
                    open_points += not self._told(search, proposed, scores, ended)  # a point may be proposed again
            self.recall_points()  # another coordinator may have died before it added the jobs of a point it proposed
            done, _ = self._sweep.finished()  # of new points, too: a grid or another kind of machine had them
            new = {job.identity: record.score for job, record in done.items() if job.identity not in ended}
            if not new:
                break
            scores |= new
            ended |= new.keys()
        left = [job for job in self._sweep.jobs if job.identity not in ended]
        self._queue.add(left, also_ended=False)
        self.more_may_come = bool(left)

    def _told(
        self, search: PointSearch, point: Mapping[str, Any], scores: Mapping[str, float], ended: set[str]
    ) -> bool:
        """Return whether all seeds of a point have ended; if so, tell the search their mean."""
        restarts = [job.identity for job in self._sweep.restarts(search.method, point)]
        if not ended.issuperset(restarts):
            return False
        own = [scores[restart] for restart in restarts if restart in scores]
        search.tell(point, sum(own) / len(own) if own else None)
        return True

    def _give_up_the_hopeless(self, scored: Mapping[Job, RunRecord]) -> None:
        """Drop the waiting jobs of hopeless points; each method's points are judged apart, so that it keeps some."""
        by_point: dict[tuple[str, str], list[Job]] = defaultdict(list)
        for job in self._sweep.jobs:
            by_point[job.method, " ".join(job.overrides)].append(job)
        for method in dict.fromkeys(method for method, _ in by_point):
            values: dict[str, Sequence[float | None]] = {
                point: [scored[job].direction * scored[job].score if job in scored else None for job in jobs]
                for (own, point), jobs in by_point.items()
                if own == method
            }
            for point in hopeless(values):
                self._queue.drop([job for job in by_point[method, point] if job not in scored])
