"""A sweep: every point of some methods' grids, over many seeds, by any number of workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dpstune.common.progress import Progress
from dpstune.common.writing import writing_to
from dpstune.data.inputs import Inputs
from dpstune.device.hardware import device_type
from dpstune.errors import DpstuneError, RequestError, RunError
from dpstune.methods import build_method, needs_own_dropout
from dpstune.models.precision import model_precision
from dpstune.recipe.draft import split_override
from dpstune.recipe.recipe import LoadedRecipe, load_recipe
from dpstune.recipe.schema import Recipe
from dpstune.recipe.yaml_text import read_value
from dpstune.runs.folder import RunFolder, run_hash
from dpstune.runs.identity import content_fingerprints, run_digest, run_folder, what_decides, without_newer_defaults
from dpstune.settings.metrics import direction
from dpstune.settings.sections import UserTask
from dpstune.studies.environments import told_of_environments
from dpstune.studies.grid import (
    Grid,
    as_overrides,
    load_first,
    method_grid,
    overrides_for,
    parse_method,
    points,
    refuse_unknown_keys,
    widen,
)
from dpstune.studies.records import RunRecord, every_divergence, newest_by_digest, read_divergence, read_run
from dpstune.studies.sweep.queue import Job, RunQueue, Tally
from dpstune.studies.sweep.search import most_points
from dpstune.studies.sweep.storage import Direction, has_study, sqlite_file, sqlite_url
from dpstune.training.best import headline_split
from dpstune.training.trackers import refuse_missing_trackers

if TYPE_CHECKING:
    from dpstune.training.engine import RunResult

MOST_RUNS = 100_000
_OWN_DROPOUT = "model.dropout=null"  # the method's own; a recipe may say another


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep should do.

    Args:
        recipe: A shipped recipe's name, or a file.
        methods: The methods, ``NAME`` or ``NAME:key=value,...``; their grids ship with dpstune.
        seeds: Restarts of each point: the recipe's seed, seed + 1, ...
        output: The folder that holds all runs.
        grid: ``KEY=V1,V2`` each: replaces a key of the grids, or adds one.
        overrides: ``KEY=VALUE`` each, for every run; a ``method.KEY`` for the methods that have it.
        data_dir: Folder of local data; None for the hub.
        storage: An Optuna storage URL that workers on several machines share; None keeps a file beside the runs.
        budget: How many points of each method Optuna's TPE chooses; None runs the grid.
        prune: Give up points that are worse than the median of the others after as many seeds.
        search: Whether to run the grids; if not, each method runs at one point: its defaults and the given overrides.
        keep_models: Whether to keep each run's weights, beside its numbers and predictions.
        study: The kind of study, such as ``sweep``; the folder of the study's own files begins with it.
        anew: Identities of jobs to be trained anew, for their weights, where a finished run holds none.
        dropout: The model's dropout under every method whose loss does not need its own; None: each method's own rule.
            See ``dpstune.studies.dropout``.
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
    keep_models: bool = True
    study: str = "sweep"
    dropout: float | None = None
    anew: frozenset[str] = frozenset()

    def what_is_run(self) -> list[Any]:
        """Return the parts of the request that decide which runs there are, on any machine."""
        matched = [] if self.dropout is None else [self.dropout]  # what earlier studies were named by stays as it was
        return [self.methods, self.seeds, self.grid, self.overrides, self.budget is None, self.search, *matched]

    def load(self, job: Job, flags: Mapping[str, str] = MappingProxyType({})) -> LoadedRecipe:
        """Return one run's recipe; ``flags`` as ``load_recipe`` takes them."""
        return load_recipe(
            self.recipe,
            method=job.method,
            overrides=job.overrides,
            flags=flags,
            seed=job.seed,
            data_dir=self.data_dir,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a sweep's jobs.

    Args:
        records: The finished runs whose folders this machine sees.
        failed: The jobs that failed, with their errors.
        diverged: Those of them of which training came to nothing; statistics count them.
        dropped: The jobs that were given up early.
        elsewhere: How many runs were done by machines whose folders this one does not see.
        left: How many jobs are still to be done, with those of points that a search is yet to choose, at most.
        notes: What a reader of the report should know.
        crash: The error that ended a worker of this machine.
        damaged: Of finished runs that cannot be read, what is damaged and what to do; they count as left.
    """

    records: dict[Job, RunRecord]
    failed: dict[Job, str]
    diverged: dict[Job, RunRecord]
    dropped: list[Job]
    elsewhere: int
    left: int
    notes: list[str]
    crash: str | None = None
    damaged: dict[Job, str] = field(default_factory=dict)

    @property
    def restarts(self) -> list[RunRecord]:
        """What statistics are of: the finished runs, and those that diverged."""
        return [*self.records.values(), *self.diverged.values()]

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as a mapping for JSON."""
        return {
            "runs": [str(record.folder) for record in self.records.values()],
            "failed": [{"run": str(job), "error": error} for job, error in self.failed.items()],
            "dropped": [str(job) for job in self.dropped],
            "left": self.left,
        }

    def refuse_what_is_missing(self) -> None:
        """Raise an error if not all runs are done; called after the report.

        Raises:
            RunError: Runs are still to be done, or failed.
        """
        count = len(self.records) + len(self.failed) + len(self.dropped) + self.elsewhere + self.left
        if self.left:
            left = f"{self.left} of {count} runs are left"
            if self.crash is not None:
                raise RunError(f"{left}: a worker ended with: {self.crash}; then the same command goes on")
            if self.damaged:
                raise RunError(f"{left}: {next(iter(self.damaged.values()))}")
            raise RunError(
                f"{left}: workers were killed or crashed, often for want of memory; the same command goes on, with "
                "fewer --jobs where it was short (a script needs if __name__ == '__main__')"
            )
        if self.failed:
            error = next(iter(self.failed.values()))
            raise RunError(f"{len(self.failed)} of {count} runs failed; the first with: {error}")


class Sweep:
    """A sweep's jobs, its runs so far, and its queue.

    Args:
        request: What the sweep should do.

    Raises:
        RequestError: The recipe, the grid or a point of it is wrong.
    """

    def __init__(self, request: SweepRequest) -> None:
        self.request = request
        for override in request.overrides:
            if split_override(override)[0] in ("method", "method.name"):
                raise RequestError(f"--set {override}: here --method names the methods")
        refuse_unknown_keys(request.methods, request.overrides, "--set")
        refuse_unknown_keys(request.methods, request.grid, "--grid")
        first = load_first(request.recipe, request.methods, request.overrides, request.data_dir)
        self.name = first.name
        self.first_seed = first.recipe.seed
        self.fixed_dropout = first.recipe.model.dropout  # the recipe's, for every method; None where it says none
        self.grids = {asked: self._grid(asked) for asked in dict.fromkeys(request.methods)}
        self._refuse_what_no_method_is_tried_with()
        self.jobs: list[Job] = []
        self._folders: dict[Job, Path] = {}
        refuse_missing_trackers(first.recipe.training.trackers)
        for asked in self.grids:
            build_method({"name": parse_method(asked)[0]})  # refuses one whose library is missing
        self._base = what_decides(first.recipe, with_saving=True)
        if isinstance(first.recipe.task, UserTask):
            del self._base["task"]["name"]  # for people: the same files under another name are the same sweep
        if others := list(self.grids)[1:]:  # by their defaults too: what an earlier dpstune trained may be other runs
            self._base["others"] = [self._defaults(asked) for asked in others]
        self.inputs = Inputs()
        self.to_come: dict[str, int] = {}  # the most points that each method's open search may still propose
        self._records: dict[Job, RunRecord] = {}
        self._diverged: dict[Job, RunRecord] = {}  # those that another kind of machine trained
        self.crash: str | None = None  # the error that ended a worker of this machine
        self._sought: set[Job] = set()  # those of which runs of other kinds of machines were looked for
        self._elsewhere: dict[str, Path] = {}  # folders of other machines' runs, by the identity of their jobs
        self._refuse_too_many()
        every = [(method, point) for method, grid in self.grids.items() for point in points(grid)]
        for method, point in every:
            self._refuse_what_is_no_recipe(method, point)
        if request.budget is None:
            self.plan(every)

    def _refuse_too_many(self) -> None:
        """Refuse more runs than anyone has meant, before their points are made."""
        grids, budget, seeds = self.grids.values(), self.request.budget, self.request.seeds
        count = sum(math.prod(len(values) for values in grid.values()) for grid in grids)
        runs = seeds * (count if budget is None else sum(most_points(grid, budget) for grid in grids))
        if max(count, runs) > MOST_RUNS:
            raise RequestError(
                f"the grids have {count:,} points, which makes {runs:,} runs with {seeds:,} seeds each; a study has at "
                f"most {MOST_RUNS:,}: ask for fewer values, fewer seeds or a smaller budget"
            )

    def _defaults(self, asked: str) -> dict[str, Any]:
        """Return the settings of a method that is asked for, where no grid sets them."""
        loaded = load_first(self.request.recipe, [asked], self.request.overrides, self.request.data_dir)
        method: dict[str, Any] = without_newer_defaults({"method": loaded.recipe.method.model_dump(mode="json")})[
            "method"
        ]
        return method

    def _refuse_what_is_no_recipe(self, asked: str, point: Mapping[str, Any]) -> None:
        """Load a point's recipe, to check it; an error names the flag that gave the wrong key."""
        self.request.load(self.restarts(asked, point)[0], _flags(asked, point))

    def _grid(self, asked: str) -> Grid:
        """Return the grid to search for a method, without the keys that the request sets."""
        method, own = parse_method(asked)
        grid = widen(method_grid(method), method, self.request.grid) if self.request.search else {}
        given = {split_override(override)[0] for override in (*self.request.overrides, *own)}
        return {key: values for key, values in grid.items() if key not in given}

    def _refuse_what_no_method_is_tried_with(self) -> None:
        """Refuse values to try of a key that --set or each --method fixes."""
        for replacement in self.request.grid if self.request.search else ():
            key = split_override(replacement)[0]
            if not any(key in grid for grid in self.grids.values()):
                raise RequestError(f"--grid {replacement}: --set or --method gives {key} one value; leave one out")

    def restarts(self, asked: str, point: Mapping[str, Any]) -> list[Job]:
        """Return a point's jobs, one for each seed."""
        method, _ = parse_method(asked)
        given = overrides_for(method, self.request.overrides)
        overrides = (*given, *_own_overrides(asked), *as_overrides(point))
        if self.request.dropout is not None:
            config = self.request.load(Job(method, overrides, self.first_seed), _flags(asked, point)).recipe.method
            overrides += (_OWN_DROPOUT if needs_own_dropout(config) else f"model.dropout={self.request.dropout}",)
        return [Job(method, overrides, self.first_seed + restart) for restart in range(self.request.seeds)]

    def with_own_dropout(self) -> list[str]:
        """Return the methods that keep their own dropout where the others have one."""
        firsts = {asked: self.restarts(asked, points(grid)[0])[0] for asked, grid in self.grids.items()}
        own = [self.request.load(job).recipe.method for job in firsts.values() if _OWN_DROPOUT in job.overrides]
        return list(dict.fromkeys(" of ".join(method.names) for method in own))

    def plan(self, chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Job]:
        """Add the jobs of some points, the first seed of every point first; return the new jobs."""
        by_seed = zip(*(self.restarts(*point) for point in chosen), strict=True)
        there = set(self.jobs)
        new = [job for job in dict.fromkeys(chain.from_iterable(by_seed)) if job not in there]
        self.jobs += new
        return new

    def yet_to_choose(self) -> list[Job]:
        """Return stand-ins for the jobs of points that a search will still choose: jobs of the grid's first point."""
        budget = self.request.budget or 0
        return [
            job
            for asked, grid in self.grids.items()
            for job in self.restarts(asked, points(grid)[0]) * self.to_come.get(asked, most_points(grid, budget))
        ]

    @property
    def runs_folder(self) -> Path:
        """Where the runs of this recipe lie."""
        return self.request.output / self.name

    @cached_property
    def folder(self) -> Path:
        """Where the sweep's own files lie: the same on the same data and model, wherever these are.

        A folder that an earlier dpstune named after the places of data and model keeps its name. It is called so, too,
        where they cannot be read, as on a machine that launches tasks and trains nothing.
        """
        digest = run_hash({"base": self._base, "asked": self.request.what_is_run()})
        named_after_places = self.runs_folder / f"{self.request.study}-{digest}"
        try:
            folder = self.runs_folder / f"{self.request.study}-{self._content_digest}"
        except DpstuneError:
            return named_after_places
        return folder if folder.is_dir() or not named_after_places.is_dir() else named_after_places

    @cached_property
    def _first_recipe(self) -> Recipe:
        asked, grid = next(iter(self.grids.items()))
        first, *_ = self.restarts(asked, points(grid)[0])
        return self.request.load(first).recipe

    def recipes(self) -> list[Recipe]:
        """Return each point's recipe with its first seed; before a search has chosen one, the grid's first."""
        first = [job for job in self.jobs if job.seed == self.jobs[0].seed]
        return [self.request.load(job).recipe for job in first] or [self._first_recipe]

    @property
    def direction(self) -> Direction:
        """Which way the headline metric is better, as Optuna has it."""
        return "maximize" if direction(self.inputs.task(self._first_recipe).metric) > 0 else "minimize"

    @property
    def study_name(self) -> str:
        """The study's name; the same command on the same data and model has the same, on every machine."""
        return f"{self.name}-{self.request.study}-{self._content_digest}"

    @cached_property
    def _content_digest(self) -> str:
        """A hash of what is run, and of what data and model hold."""
        recipe = self._first_recipe
        held = content_fingerprints(recipe, self.inputs.task(recipe))  # what those are, wherever they lie
        base = {**self._base, "task": None, "model": {**self._base["model"], "name": None}}
        return run_hash({"base": base, "asked": self.request.what_is_run(), "held": held})

    def refuse_nothing_to_compare_by(self) -> None:
        """Refuse a sweep whose runs would have no score.

        Raises:
            RequestError: No split of the task is evaluated; or data is not what the recipe says.
            RunError: The hub could not be reached.
        """
        task = self.inputs.task(self._first_recipe)
        if headline_split(task) is None:
            raise RequestError(
                f"nothing of {task.name} is evaluated, so that there is nothing to compare by; "
                "give the task validation examples, or hold some out with --set data.held_out=N"
            )

    def learn(self, tally: Tally) -> None:
        """Note where runs lie, as the storage says: a run on another kind of device has another folder."""
        self._elsewhere = {identity: ended.run for identity, ended in tally.done.items()}

    def finished(self) -> tuple[dict[Job, RunRecord], dict[Job, str]]:
        """Return this sweep's finished runs, whoever trained them, and of those that cannot be read, what is damaged.

        Of a run that this kind of machine has not trained, that of another kind counts, where it lies in the recipe's
        folder: a finished run is not trained again.

        Raises:
            RequestError: Data or model are not what the recipe says.
            RunError: The hub could not be reached.
        """
        damaged = {}
        for job in self.jobs:
            if job in self._records or self.is_anew(job):
                continue
            folder = self._folder_of(job)
            if job.identity in self._elsewhere and not RunFolder(folder).result.exists():
                folder = self._elsewhere[job.identity]
            if RunFolder(folder).result.exists():
                try:
                    self._records[job] = read_run(folder)
                except (DpstuneError, OSError, ValueError) as error:
                    damaged[job] = (
                        f"{folder}: skipped: damaged: {error}; put back what it held, or remove the folder, and the "
                        f"same command{'' if self.request.storage is None else ' without --storage'} trains the run "
                        "anew"
                    )
        self._find_those_of_other_machines()
        records = {job: self._records[job] for job in self.jobs if job in self._records}
        return records, {job: told for job, told in damaged.items() if job not in records}

    def _find_those_of_other_machines(self) -> None:
        new = [job for job in self.jobs if job not in self._sought]
        self._sought.update(new)
        missing = [job for job in new if job not in self._records and not self.is_anew(job)]
        if missing and self.runs_folder.is_dir():
            digests = {job: self._digest_of(job) for job in missing}
            found = newest_by_digest(self.runs_folder, set(digests.values()))
            self._records |= {job: found[digest] for job, digest in digests.items() if digest in found}

    def train_anew(self, jobs: Iterable[Job]) -> None:
        """Have finished runs of some jobs trained again, for their weights; what they were is renamed, not overwritten.

        Args:
            jobs: Those whose runs hold no model.
        """
        anew = {job.identity: job for job in jobs}
        self.request = replace(self.request, anew=self.request.anew.union(anew))
        for job in anew.values():
            self._records.pop(job, None)

    def is_anew(self, job: Job) -> bool:
        """Tell whether a job is still to be trained anew: its run is finished, and holds no model."""
        return job.identity in self.request.anew and not RunFolder(self._folder_of(job)).model.is_dir()

    def find_divergences(self) -> None:
        """Find the runs of other kinds of machines that came to nothing; here they might not."""
        done, _ = self.finished()
        missing = [job for job in self.jobs if job not in done]
        if missing and self.runs_folder.is_dir():
            diverged = {record.digest: record for record in every_divergence(self.runs_folder)}
            self._diverged |= {job: diverged[key] for job in missing if (key := self._digest_of(job)) in diverged}

    def is_of_here(self, job: Job) -> bool:
        """Tell whether this kind of machine has trained a job's run, so that it cost what it would cost here."""
        return job in self._records and self._records[job].folder.name == self._folder_of(job).name

    def _digest_of(self, job: Job) -> str:
        recipe = self.request.load(job).recipe
        return run_digest(recipe, self.inputs.task(recipe), processes=1)

    def _folder_of(self, job: Job) -> Path:
        """Return the folder in which this machine trains a job; the engine asks for the same."""
        if job not in self._folders:
            loaded = self.request.load(job)
            device = device_type()
            precision = model_precision(loaded.recipe.training.precision, loaded.recipe.model, device)
            task = self.inputs.task(loaded.recipe)
            folder = run_folder(loaded, task, self.request.output, precision=precision, device=device, processes=1)
            self._folders[job] = folder.path
        return self._folders[job]

    def train(self, job: Job, progress: Progress) -> RunResult:
        """Train a job's run in this process, or read it where it is finished; its errors are those of training."""
        from dpstune.training import engine

        return engine.train(
            self.request.load(job),
            output=self.request.output,
            fresh=self.is_anew(job),
            inputs=self.inputs,
            keep_model=self.request.keep_models,
            progress=progress,
        )

    def peaks(self) -> list[int]:
        """Return the peak memory of each run that this kind of machine has finished, in bytes."""
        results = [record.result for job, record in self.finished()[0].items() if self.is_of_here(job)]
        return [result["peak_memory_bytes"] for result in results if "peak_memory_bytes" in result]

    @property
    def storage(self) -> str:
        """The storage's URL; by default, an SQLite file in the sweep's folder."""
        return self.request.storage or sqlite_url(self.folder / "study.db")

    @property
    def has_storage(self) -> bool:
        """Whether the storage exists already; a server is not asked and counts as existing."""
        file = sqlite_file(self.storage)
        return file is None or file.is_file()

    @property
    def is_begun(self) -> bool:
        """Whether the study has files here, or is in the storage that machines share.

        Raises:
            RequestError: Data or model are not what the recipe says, or the storage cannot be opened.
            RunError: The hub could not be reached.
        """
        shared = self.request.storage
        may_be_here = any(self.runs_folder.glob(f"{self.request.study}-*"))  # else data need not be read to say no
        return (may_be_here and self.folder.is_dir()) or (
            shared is not None and self.has_storage and has_study(shared, self.study_name)
        )

    def open_queue(self) -> RunQueue:
        """Open the queue."""
        name, direction = self.study_name, self.direction  # before a folder is made: data may be out of reach
        if self.request.storage is None:
            with writing_to(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
        return RunQueue(self.storage, name, direction)

    def outcome(self, tally: Tally | None) -> Outcome:
        """Return what became of every job; without a tally, only the finished runs tell."""
        records, damaged = self.finished()
        notes = list(damaged.values())
        tally = tally or Tally()
        missing = [job for job in self.jobs if job not in records]
        diverged = self.diverged(job for job in missing if job.identity not in tally.done)
        failed = {job: str(record.result["error"]) for job, record in diverged.items()}
        failed |= {job: tally.failed[job.identity] for job in missing if job.identity in tally.failed}
        dropped = [job for job in missing if job.identity in tally.dropped and job not in failed]
        shared = self.request.storage is not None  # else no other machine can have done it
        elsewhere = [job for job in missing if shared and job.identity in tally.done and job not in damaged]
        if self.request.prune:
            notes.append(
                "giving up was on (--prune): after two seeds or more, points worse than the median of their method's "
                "other points were given up"
            )
        notes += told_of_environments([*records.values(), *diverged.values()])
        notes += [f"given up early: {job}" for job in dropped]
        notes += [f"failed: {job}: {error}" for job, error in failed.items()]
        notes += self.told_of_runs_elsewhere(len(elsewhere))
        to_come = len(self.yet_to_choose())
        left = len(missing) - len(failed) - len(dropped) - len(elsewhere) + to_come
        if left:
            notes.append(f"{left} of {len(self.jobs) + to_come} runs are still to be done")
        return Outcome(records, failed, diverged, dropped, len(elsewhere), left, notes, self.crash, damaged)

    def told_of_runs_elsewhere(self, count: int) -> list[str]:
        """Say, in a line or none, that finished runs are missing, since their folders lie on other machines."""
        if not count:
            return []
        report = " with --report" if self.request.study == "sweep" else ""
        every = len(self.jobs) + len(self.yet_to_choose())
        return [
            f"{count} of {every} runs are finished, but not in {self.runs_folder}: they are missing here. Copy them "
            f"into {self.runs_folder} and repeat the command{report}; if they are lost, give the command without "
            "--storage, which trains them anew."
        ]

    def diverged(self, unfinished: Iterable[Job]) -> dict[Job, RunRecord]:
        """Return those of some jobs of which training came to nothing, as far as this machine sees their folders."""
        found = {job: read_divergence(self._folder_of(job)) or self._diverged.get(job) for job in unfinished}
        return {job: record for job, record in found.items() if record is not None}


def _flags(asked: str, point: Mapping[str, Any]) -> dict[str, str]:
    """Return the flag that gave each override of a point, for errors."""
    flags = dict.fromkeys(_own_overrides(asked), f"--method {asked}")
    return flags | {override: f"--grid {override}" for override in as_overrides(point)}


def _own_overrides(asked: str) -> list[str]:
    """Return the overrides of ``NAME:key=value,...``; equal values are written alike."""
    _, own = parse_method(asked)
    pairs = map(split_override, own)
    return as_overrides({key: read_value(text or "", f"--method {asked}") for key, text in pairs})
