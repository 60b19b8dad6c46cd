"""Fit: tries candidates on a user's own rows within a budget."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dpstune.common.progress import Progress, SilentProgress
from dpstune.data.inputs import Inputs
from dpstune.errors import DpstuneError, RequestError
from dpstune.methods import BASELINE
from dpstune.recipe.recipe import LoadedRecipe, build_recipe, split_override
from dpstune.runs.folder import locked, run_hash
from dpstune.runs.identity import content_fingerprints, what_decides
from dpstune.settings.metrics import direction
from dpstune.studies.fit.candidates import (
    METHODS,
    Candidate,
    SearchSpace,
    check_methods,
    epochs_to_try,
    has_fixed_length,
)
from dpstune.studies.fit.parts import Parts, decide_parts
from dpstune.studies.fit.search import CandidateSearch, Trial
from dpstune.studies.grid import overrides_for
from dpstune.studies.records import RunRecord, read_run

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData

NewProgress = Callable[[], Progress]
Tell = Callable[[str], None]

RUNS = 40
RUNS_TO_AFFORD = 30  # so many runs should fit into the minutes that are given
EVERYTHING = 0  # in the place of a part's number
AT_THE_END_ALONE = 10**9  # steps between evaluations


@dataclass(frozen=True)
class FitRequest:
    """What a fit is asked to do.

    Args:
        name: What the task is called; runs are kept under it.
        recipe: A recipe's plain values: the task, and what else the user set.
        source: The recipe's file; None where there is none.
        output: The folder that holds all runs.
        minutes: How long to try; None for no limit.
        runs: How many runs to try; None for no limit, or for 40 where there are no minutes either.
        folds: Cross-validation in as many folds; None leaves it to the number of rows.
        test: A share of the rows, or a file, that is scored and chooses nothing; None likewise.
        methods: The methods to try; plain fine-tuning is always among them.
        overrides: ``KEY=VALUE`` for every run; what is set so is not searched.
    """

    name: str
    recipe: Mapping[str, Any]
    output: Path
    source: Path | None = None
    minutes: float | None = None
    runs: int | None = None
    folds: int | None = None
    test: Any = None
    methods: tuple[str, ...] = METHODS
    overrides: tuple[str, ...] = ()


class Fit:
    """A search among candidates on one task.

    Args:
        request: What was asked.

    Raises:
        RequestError: Data, a method or a setting is wrong.
        RunError: The hub could not be reached.
    """

    def __init__(self, request: FitRequest) -> None:
        self.request = request
        self.inputs: defaultdict[int, Inputs] = defaultdict(Inputs)  # each part's, read once; 0 is everything
        self._records: dict[tuple[int, int], RunRecord] = {}
        self.methods = check_methods(request.methods)
        task = request.recipe.get("task")
        if not isinstance(task, Mapping) or not {"files", "dataset"} & task.keys():
            raise RequestError("fit takes a table of your own, or a dataset of the hub; sweep takes the tasks it knows")
        self._task = dict(task)
        whole = decide_parts(self._task, 0, folds=request.folds, test=request.test).whole_task(self._task)
        self._whole = self._load(whole, Candidate(BASELINE))
        self.data: TaskData = self.inputs[EVERYTHING].task(self._whole.recipe)
        if self.data.kind == "multilabel":
            raise RequestError("fit compares one label a row; train takes several with kind: multilabel")
        self.rows = len(self.data.splits["train"])
        self.parts: Parts = decide_parts(self._task, self.rows, folds=request.folds, test=request.test)
        first = self.inputs[1].task(self.recipe_of(Candidate(BASELINE), 1).recipe)  # what is wrong with parts ends here
        self._rows_of_a_part = len(first.splits["train"])
        if self.parts.test is not None and first.splits["test"].labels is None:
            raise RequestError("the test rows have no labels: leave them out, and ask for --test 0.2")

    @property
    def folder(self) -> Path:
        """Where the fit's own files lie: the same for the same rows and settings, whatever the budget."""
        base = what_decides(self._whole.recipe)
        del base["task"], base["model"]["name"], base["method"]
        held = content_fingerprints(self._whole.recipe, self.data)
        digest = run_hash({"base": base, "held": held, "parts": repr(self.parts), "methods": self.methods})
        return self.request.output / self.request.name / f"fit-{digest}"

    def recipe_of(self, candidate: Candidate, part: int) -> LoadedRecipe:
        """Return the recipe of the run that tries a candidate on a part; each part has a seed of its own."""
        seed = self._whole.recipe.seed + part - 1
        at_the_end = f"training.eval_every={AT_THE_END_ALONE}"
        return self._load(self.parts.task_of(self._task, part), candidate, seed, at_the_end)

    def final_recipe(self, candidate: Candidate) -> LoadedRecipe:
        """Return the recipe of the run that trains a candidate on everything."""
        return self._load(self.parts.whole_task(self._task), candidate)

    def _load(self, task: Mapping[str, Any], candidate: Candidate, seed: int | None = None, *more: str) -> LoadedRecipe:
        given = overrides_for(candidate.method, self.request.overrides)
        return build_recipe(
            {"training": {}, **self.request.recipe, "task": dict(task)},
            name=self.request.name,
            source=self.request.source,
            method=candidate.method,
            overrides=[*more, *given, *candidate.overrides],
            seed=seed,
        )

    def space(self) -> SearchSpace:
        """Return where candidates come from; epochs so few that the minutes have time for about 30 runs."""
        from dpstune.data.batches import StepPlan

        recipe = self.recipe_of(Candidate(BASELINE), 1).recipe
        steps_per_epoch = StepPlan(recipe, self.inputs[1].tokens(recipe)["train"].lengths, processes=1).steps_per_epoch
        affordable = math.inf
        fixed = tuple(split_override(override)[0] for override in self.request.overrides)
        if self.request.minutes is not None and not has_fixed_length(fixed):
            an_epoch = self._seconds_of(Candidate(BASELINE, {"training.epochs": 1}))
            epochs = self.request.minutes * 60 / RUNS_TO_AFFORD / an_epoch
            affordable = epochs * steps_per_epoch
        return SearchSpace(
            self.methods, recipe.training.learning_rate, epochs_to_try(steps_per_epoch, affordable), fixed
        )

    def _seconds_of(self, candidate: Candidate) -> float:
        """Return about how long a run of a candidate on a part takes here, by a few timed steps."""
        from dpstune.studies.sweep.estimate import seconds_of_a_run

        return seconds_of_a_run(self.recipe_of(candidate, 1), self.inputs[1])

    def search(self) -> CandidateSearch:
        """Open the search, where candidates and their scores are kept, in the fit's folder; under its lock."""
        seed = self._whole.recipe.seed
        return CandidateSearch(self.folder / "study.db", self.space, parts=self.parts.count, seed=seed)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from this fit, and make its folder; see ``locked``."""
        return locked(self.folder / ".lock", self.folder, "at")

    def try_candidates(
        self, search: CandidateSearch, progress: NewProgress = SilentProgress, tell: Tell = lambda line: None
    ) -> None:
        """Try candidates, part by part, until the budget is spent; one at least is tried on every part.

        Args:
            search: Chooses them.
            progress: Makes who is told how a run goes.
            tell: Is told what was tried, a line each.

        Raises:
            RunError, RequestError: No candidate can be trained; the first one's error.
            Interrupted: A signal came; the same call goes on.
        """
        budget = _Budget(self.request, self.rows / self._rows_of_a_part)
        for trial in search.trials():
            for part in trial.values:
                budget.add(trial.candidate, self.train(trial, part))
        while True:
            trial = search.next()
            part = next(number for number in range(1, self.parts.count + 1) if number not in trial.values)
            if any(each.state == "complete" for each in search.trials()) and not budget.allows(trial.candidate):
                return
            try:
                record = self.train(trial, part, progress())
            except DpstuneError as error:
                if not any(each.values for each in search.trials()):
                    raise
                search.fail(trial, str(error))
                tell(f"{self._describe(trial, part)}: cannot be trained: {error}")
            else:
                budget.add(trial.candidate, record)
                trial = search.report(trial, part, direction(record.metric) * record.score)
                given_up = "; given up" if trial.state == "given up" else ""
                told = f"{record.metric} {record.score:.4f}, {record.all_seconds:.0f} s{given_up}"
                tell(f"{self._describe(trial, part)}: {told}")

    def plan(self) -> dict[str, Any]:
        """Return what would be tried and about how long it would take on this machine, by a few timed steps."""
        space = self.space()
        a_run = self._seconds_of(space.baselines()[0])
        last = a_run * self.rows / self._rows_of_a_part
        most = self.request.runs or (RUNS if self.request.minutes is None else None)
        if self.request.minutes is not None:
            fitting = max(self.parts.count, int((self.request.minutes * 60 - last) / a_run))
            most = min(fitting, most or fitting)
        assert most is not None
        return {
            "rows": self.rows,
            "folds": self.parts.folds,
            "methods": list(self.methods),
            "epochs": list(space.epochs),
            "seconds_a_run": a_run,
            "runs": most,
            "seconds": most * a_run + last,
        }

    def _describe(self, trial: Trial, part: int) -> str:
        of_parts = f", fold {part} of {self.parts.count}" if self.parts.folds else ""
        return f"{trial.number + 1}. {trial.candidate.name}{of_parts}"

    def train(self, trial: Trial, part: int, progress: Progress | None = None) -> RunRecord:
        """Train a trial's candidate on a part, or find that run finished; its weights are not kept."""
        from dpstune.training import engine

        key = (trial.number, part)
        if key not in self._records:
            loaded, inputs = self.recipe_of(trial.candidate, part), self.inputs[part]
            run = engine.train(loaded, output=self.request.output, inputs=inputs, keep_model=False, progress=progress)
            self._records[key] = read_run(run.folder)
        return self._records[key]


class _Budget:
    """How much may still be tried.

    Args:
        request: Says how long, and how many runs.
        growth: How many times the rows of a part the last run trains on.
    """

    def __init__(self, request: FitRequest, growth: float) -> None:
        self._most_seconds = math.inf if request.minutes is None else request.minutes * 60
        self._most_runs = request.runs or (RUNS if request.minutes is None else math.inf)
        self._growth = growth
        self._paces: dict[str, list[float]] = {}  # seconds an epoch, by method
        self._longest = 0.0
        self.seconds, self.runs = 0.0, 0

    def add(self, candidate: Candidate, record: RunRecord) -> None:
        """Count a run."""
        self.runs += 1
        self.seconds += record.all_seconds
        self._longest = max(self._longest, record.all_seconds)
        self._paces.setdefault(candidate.method, []).append(record.all_seconds / _epochs(candidate))

    def allows(self, candidate: Candidate) -> bool:
        """Tell whether a run of a candidate, and after it the last run, may still fit in."""
        last = self._longest * self._growth
        return self.runs < self._most_runs and self.seconds + self._expected(candidate) + last <= self._most_seconds

    def _expected(self, candidate: Candidate) -> float:
        paces = self._paces.get(candidate.method) or [pace for own in self._paces.values() for pace in own]
        return median(paces) * _epochs(candidate) if paces else 0.0


def _epochs(candidate: Candidate) -> float:
    """Return a candidate's epochs; 1 where all candidates have the same length."""
    return float(candidate.settings.get("training.epochs", 1))
