"""A sweep: every point of some methods' grids, over many seeds, by any number of workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpstune.errors import DpstuneError, RunError
from dpstune.hardware import choose_precision, device_type
from dpstune.identity import run_folder
from dpstune.inputs import Inputs
from dpstune.recipe import LoadedRecipe, load_recipe
from dpstune.runs import RunFolder, run_hash, writing_to
from dpstune.studies.grid import Grid, as_overrides, method_grid, parse_method, points, refuse_unknown_keys, widen
from dpstune.studies.queue import Job, RunQueue, Tally, wait_a_moment, worker_name
from dpstune.studies.records import RunRecord, read_run
from dpstune.studies.search import PointSearch, hopeless
from dpstune.studies.workers import Workers


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep is asked to do.

    Args:
        recipe: A shipped recipe's name, or a file.
        methods: The methods, ``NAME`` or ``NAME:key=value,...``; their grids ship with dpstune.
        seeds: Restarts of each point: the recipe's seed, seed + 1, ...
        output: The folder that holds all runs.
        grid: ``KEY=V1,V2``: replaces a key of the grids, or adds one.
        overrides: ``KEY=VALUE`` for every run.
        data_dir: Local data.
        storage: An Optuna storage URL that workers on several machines share; None keeps a file beside the runs.
        budget: Points of each method that Optuna's TPE chooses, in the place of the grid's; None runs the grid.
        prune: Give up points that are worse than the median of the others after as many seeds.
        search: Run the grids; or each method at one point alone, its defaults but for the keys that are given.
        study: What the runs are for; names the folder of the study's own files.
    """

    recipe: str
    methods: tuple[str, ...]
    seeds: int
    output: Path
    grid: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    data_dir: Path | None = None
    storage: str | None = None
    budget: int | None = None
    prune: bool = False
    search: bool = True
    study: str = "sweep"

    def what_is_run(self) -> list[Any]:
        """Return what of the request decides which runs there are, wherever and by whomever they are run."""
        return [self.methods, self.seeds, self.grid, self.overrides, self.budget is None, self.search]

    def load(self, job: Job) -> LoadedRecipe:
        """Return one run's recipe."""
        return load_recipe(
            self.recipe, method=job.method, overrides=job.overrides, seed=job.seed, data_dir=self.data_dir
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a sweep's jobs.

    Args:
        records: The finished runs that lie on this machine.
        failed: What could not be run, with its error.
        dropped: What was given up early.
        elsewhere: How many runs were done by machines whose folders this one does not see.
        left: How many are yet to be done.
        notes: What a reader of the report should know.
    """

    records: dict[Job, RunRecord]
    failed: dict[Job, str]
    dropped: list[Job]
    elsewhere: int
    left: int
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "runs": [str(record.folder) for record in self.records.values()],
            "failed": [{"run": str(job), "error": error} for job, error in self.failed.items()],
            "dropped": [str(job) for job in self.dropped],
            "left": self.left,
        }

    def refuse_what_is_missing(self) -> None:
        """End a command whose runs are not all done with an error; for after its report.

        Raises:
            RunError: Runs are yet to be done, or failed.
        """
        count = len(self.records) + len(self.failed) + len(self.dropped) + self.elsewhere + self.left
        if self.left:
            raise RunError(f"{self.left} of {count} runs are left: workers ended early; the same command goes on")
        if self.failed:
            error = next(iter(self.failed.values()))
            raise RunError(f"{len(self.failed)} of {count} runs failed; the first with: {error}")


class Sweep:
    """A sweep's jobs, its runs so far, and its queue.

    Args:
        request: What was asked.

    Raises:
        RequestError: Recipe, grid or a point of it is wrong.
    """

    def __init__(self, request: SweepRequest) -> None:
        self.request = request
        first = load_recipe(request.recipe, overrides=request.overrides, data_dir=request.data_dir)
        self.name = first.name
        self.first_seed = first.recipe.seed
        refuse_unknown_keys([parse_method(asked)[0] for asked in request.methods], request.grid)
        self.grids = {asked: self._grid(asked) for asked in dict.fromkeys(request.methods)}
        self.jobs: list[Job] = []
        self._folders: dict[Job, Path] = {}
        base = first.recipe.model_dump(mode="json")
        del base["data"]["dir"]
        self._digest = run_hash({"base": base, "asked": request.what_is_run()})
        self.inputs = Inputs()
        self._records: dict[Job, RunRecord] = {}
        self._advanced_at: tuple[int, int, int] | None = None  # what had ended when the search last looked
        for method, grid in self.grids.items():
            for point in points(grid):
                self.request.load(self._job(method, point, 0))  # each point is a recipe
        if request.budget is None:
            self._plan([(method, point) for method, grid in self.grids.items() for point in points(grid)])

    def _grid(self, asked: str) -> Grid:
        """Return what is searched for a method: its grid but for the keys that are given."""
        method, own = parse_method(asked)
        grid = widen(method_grid(method), method, self.request.grid) if self.request.search else {}
        given = {override.partition("=")[0] for override in (*self.request.overrides, *own)}
        return {key: values for key, values in grid.items() if key not in given}

    def _job(self, asked: str, point: Mapping[str, Any], restart: int) -> Job:
        method, own = parse_method(asked)
        return Job(method, (*self.request.overrides, *own, *as_overrides(point)), self.first_seed + restart)

    def _plan(self, chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Job]:
        """Add every seed of some points to the jobs, the first seed of all of them first; return the new ones."""
        every = (self._job(*point, restart) for restart in range(self.request.seeds) for point in chosen)
        new = [job for job in dict.fromkeys(every) if job not in self.jobs]
        self.jobs += new
        return new

    @property
    def runs_folder(self) -> Path:
        """Where the runs of this recipe lie."""
        return self.request.output / self.name

    @property
    def folder(self) -> Path:
        """Where the sweep's own files lie."""
        return self.runs_folder / f"{self.request.study}-{self._digest}"

    @property
    def study_name(self) -> str:
        """The study's name; the same command has the same, on every machine."""
        return f"{self.name}-{self.request.study}-{self._digest}"

    def finished(self) -> tuple[dict[Job, RunRecord], list[str]]:
        """Return this sweep's finished runs, whoever trained them, and notes on what could not be read.

        Raises:
            RequestError: Data or model are not what the recipe says.
            RunError: The hub could not be reached.
        """
        notes = []
        for job in self.jobs:
            folder = self._folder_of(job)
            if job not in self._records and RunFolder(folder).result.exists():
                try:
                    self._records[job] = read_run(folder)
                except (DpstuneError, OSError, ValueError) as error:
                    notes.append(f"{folder}: skipped: damaged: {error}")
        return {job: self._records[job] for job in self.jobs if job in self._records}, notes

    def _folder_of(self, job: Job) -> Path:
        """Return the folder in which this machine trains a job; the engine asks for the same."""
        if job not in self._folders:
            loaded = self.request.load(job)
            device = device_type()
            precision = choose_precision(loaded.recipe.training.precision, device)
            task = self.inputs.task(loaded.recipe)
            folder = run_folder(loaded, task, self.request.output, precision=precision, device=device, processes=1)
            self._folders[job] = folder.path
        return self._folders[job]

    def peaks(self) -> list[int]:
        """Return the peak memory of each finished run, in bytes."""
        results = [record.result for record in self.finished()[0].values()]
        return [result["peak_memory_bytes"] for result in results if "peak_memory_bytes" in result]

    @property
    def storage(self) -> str:
        """The storage's URL; the embedded one is a SQLite file in the sweep's folder."""
        return self.request.storage or f"sqlite:///{(self.folder / 'study.db').absolute()}"

    def open_queue(self) -> RunQueue:
        """Open the queue."""
        if self.request.storage is None:
            with writing_to(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
        return RunQueue(self.storage, self.study_name)

    def run(self, workers: int, *, watch: Callable[[Tally], None] = lambda tally: None) -> Tally:
        """Run what is not finished with ``workers`` processes on this machine, and wait for all of the sweep.

        Args:
            workers: Processes on this machine; machines that share the storage add their own.
            watch: Is told how it goes, about twice a second.

        Raises:
            Interrupted: A signal came; every worker has saved a checkpoint.
        """
        queue = self.open_queue()
        searches = self._open_searches()
        for search in searches:
            self._plan([(search.method, point) for point in search.points()])
        self._advance(queue, searches, workers)
        done, _ = self.finished()
        queue.add([job for job in self.jobs if job not in done], also_dropped=not self.request.prune)
        queue.take_over_the_dead()
        tally = queue.tally()
        wanted = min(workers, tally.waiting + tally.running)
        queue.say_more_may_come(worker_name(-1) if searches else None)
        processes = Workers(self.request, wanted)
        processes.start()
        try:
            while processes.alive:
                self._advance(queue, searches, workers)
                tally = queue.tally()
                watch(tally)
                wait_a_moment()
                processes.replace_the_dead(ended=len(tally.done) + len(tally.failed))
        except BaseException:
            processes.stop()
            raise
        finally:
            processes.join()
        tally = queue.tally()
        watch(tally)
        return tally

    def outcome(self, tally: Tally) -> Outcome:
        """Say what became of every job."""
        records, notes = self.finished()
        missing = [job for job in self.jobs if job not in records]
        failed = {job: tally.failed[job.identity] for job in missing if job.identity in tally.failed}
        dropped = [job for job in missing if job.identity in tally.dropped and job not in failed]
        elsewhere = [job for job in missing if job.identity in tally.done]
        if self.request.prune:
            notes.append(
                "pruning was on: points worse than the median of their method's others after two seeds or more were "
                "given up"
            )
        notes += [f"given up early: {job}" for job in dropped]
        notes += [f"failed: {job}: {error}" for job, error in failed.items()]
        left = len(missing) - len(failed) - len(dropped) - len(elsewhere)
        return Outcome(records, failed, dropped, len(elsewhere), left, notes)

    def _open_searches(self) -> list[PointSearch]:
        if self.request.budget is None:
            return []
        return [PointSearch(self.storage, self.study_name, *item, self.request.budget) for item in self.grids.items()]

    def _advance(self, queue: RunQueue, searches: Sequence[PointSearch], workers: int) -> None:
        """Propose points where workers would run out of them, and give up what is hopeless."""
        if not searches and not self.request.prune:
            return
        tally = queue.tally()
        counts = (len(tally.done), len(tally.failed), len(tally.dropped))
        if counts == self._advanced_at:
            return
        self._advanced_at = counts
        done, _ = self.finished()
        scores = {job.identity: record.score for job, record in done.items()}
        if self.request.storage is not None:  # what other machines did, wherever its folders lie
            scores = {**tally.done, **scores}
        ended = {*scores, *tally.failed, *tally.dropped}
        for search in searches:
            open_points = sum(not self._told(search, point, scores, ended) for point in search.points())
            while open_points < workers and (proposed := search.propose()) is not None:
                queue.add(self._plan([(search.method, proposed)]))
                open_points += not self._told(search, proposed, scores, ended)  # a repeated point may be over already
        if searches and ended >= {job.identity for job in self.jobs}:
            queue.say_more_may_come(None)
        if self.request.prune:
            self._give_up_the_hopeless(queue, done)

    def _told(
        self, search: PointSearch, point: Mapping[str, Any], scores: Mapping[str, float], ended: set[str]
    ) -> bool:
        """Tell a search how a point did, and return true, where all its seeds have ended."""
        restarts = [self._job(search.method, point, restart).identity for restart in range(self.request.seeds)]
        if not ended.issuperset(restarts):
            return False
        own = [scores[restart] for restart in restarts if restart in scores]
        search.tell(point, sum(own) / len(own) if own else None)
        return True

    def _give_up_the_hopeless(self, queue: RunQueue, done: Mapping[Job, RunRecord]) -> None:
        """Drop what is left of hopeless points, each judged among its method's: what all are compared with stays."""
        by_point: dict[tuple[str, str], list[Job]] = defaultdict(list)
        for job in self.jobs:
            by_point[job.method, " ".join(job.overrides)].append(job)
        for method in dict.fromkeys(method for method, _ in by_point):
            values = {
                point: [done[job].score for job in jobs if job in done]
                for (own, point), jobs in by_point.items()
                if own == method
            }
            for point in hopeless({point: scores for point, scores in values.items() if scores}):
                queue.drop([job for job in by_point[method, point] if job not in done])


def estimate_seconds(finished: Sequence[RunRecord], left: int, workers: int) -> float | None:
    """Return how long ``left`` runs will take at the pace of the finished ones; None before the first is finished."""
    if not finished:
        return None
    pace = sum(record.seconds for record in finished) / len(finished)
    return pace * left / workers
