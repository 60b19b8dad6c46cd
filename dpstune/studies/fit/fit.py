"""Fit: tries candidates on a user's own rows within a budget."""

from __future__ import annotations

import math
import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.progress import Progress, SilentProgress
from dpstune.common.writing import locked
from dpstune.data.checking import check_task, in_few_lines, near_in_time
from dpstune.data.inputs import Inputs
from dpstune.data.parts import has_groups, units_of
from dpstune.data.reading import read_raw
from dpstune.data.splitting import rows_together
from dpstune.errors import BusyError, DivergedError, RequestError, out_of_memory
from dpstune.methods import BASELINE, method_class
from dpstune.recipe.draft import split_override
from dpstune.recipe.recipe import LoadedRecipe, build_recipe
from dpstune.runs.folder import run_hash
from dpstune.runs.identity import NO_INFLUENCE, content_fingerprints, what_decides
from dpstune.settings.metrics import direction
from dpstune.studies.fit.budget import RUNS, Budget
from dpstune.studies.fit.candidates import (
    Candidate,
    SearchSpace,
    check_methods,
    epochs_to_try,
    has_fixed_length,
)
from dpstune.studies.fit.parts import TEST, VALIDATION, Parts, decide_parts
from dpstune.studies.fit.request import FitRequest, refuse_a_wrong_budget, refuse_what_fit_decides
from dpstune.studies.fit.search import CandidateSearch, Trial, kept_space
from dpstune.studies.grid import LENGTH_KEYS, overrides_for, refuse_unknown_keys
from dpstune.studies.processes import at_once, threads_of_a_worker
from dpstune.studies.records import RunRecord, read_run

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.training.engine import RunResult

NewProgress = Callable[[], Progress]
Tell = Callable[[str], None]

RUNS_TO_AFFORD = 20  # of middle length should fit into the minutes that are given
STUDY = "study.db"
EVERYTHING = 0  # in the place of a part's number
AT_THE_END_ALONE = 10**9  # steps between evaluations
# An evaluation that chose weights or an end would be seen by the choice, and then score it.
LAST_WEIGHTS = ("training.keep=last", "training.patience=null")
ONE_STEP = ("training.steps=1", "training.warmup_steps=0")  # all of a run of a method that does not learn by steps
MOST_FAILURES = 5  # in a row
WAIT_SECONDS = 1.0


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
        refuse_a_wrong_budget(request)
        refuse_what_fit_decides(request.overrides)
        self.inputs: defaultdict[int, Inputs] = defaultdict(Inputs)  # each part's, read once; 0 is everything
        self._records: dict[tuple[int, int], RunRecord] = {}
        self.methods = check_methods(request.methods)
        refuse_unknown_keys(self.methods, request.overrides, "--set")
        self._task = self._checked_task()
        whole = decide_parts(self._task, 0, folds=request.folds, test=request.test).whole_task(self._task)
        self._whole = self._load(whole, Candidate(BASELINE))
        for key in ("held_out", "train_size"):
            if getattr(self._whole.recipe.data, key) is not None:
                raise RequestError(f"data.{key}: fit itself cuts the rows; leave it out, or use train")
        self.data: TaskData = self.inputs[EVERYTHING].task(self._whole.recipe)
        if self.data.kind == "multilabel":
            raise RequestError("fit compares one label a row; train takes several with kind: multilabel")
        self.rows = len(self.data.splits["train"])
        self.parts: Parts = decide_parts(self._task, self.rows, folds=request.folds, test=request.test)
        recipe = self.recipe_of(Candidate(BASELINE), 1).recipe
        self._first = self.inputs[1].task(recipe)  # what is wrong with parts ends here
        self._rows_of_a_part = len(self._first.splits["train"])
        if self.parts.test is not None and self._first.splits["test"].labels is None:
            raise RequestError("the test rows have no labels: leave them out, and ask for --test 0.2")
        self.final_recipe(Candidate(BASELINE))
        self._raw = read_raw(recipe.task, recipe.data)

    @property
    def folder(self) -> Path:
        """Where the fit's own files lie: the same for the same rows and settings, whatever the budget."""
        base = what_decides(self._whole.recipe)
        del base["task"], base["model"]["name"], base["method"]
        fixed = {key: value for key, value in map(split_override, self.request.overrides) if key not in NO_INFLUENCE}
        asked = {
            "base": base,
            "held": content_fingerprints(self._whole.recipe, self.data),
            "parts": [repr(self.parts), self._first.fingerprint],
            "methods": self.methods,
            "set": sorted(fixed.items(), key=str),
        }
        return self.request.output / self.request.name / f"fit-{run_hash(asked)}"

    @cached_property
    def findings(self) -> list[str]:
        """What is wrong with the rows, in few lines; how many are cut or unknown to the model, where these are many."""
        flags = {"--text": self._raw.text[0], "--label": self._raw.label, "--group": self._task.get("group")}
        if len(self._raw.text) > 1:
            flags["--text2"] = self._raw.text[1]
        subject = [str(self.request.source)]
        if self.request.source is None:
            flags["--config"] = self._task.get("config")
            table = self._task["dataset"] if "dataset" in self._task else self._task["files"]["train"]
            subject = [str(table), *(word for flag, name in flags.items() if name is not None for word in (flag, name))]
        lines = in_few_lines(check_task(self._raw, near=near_in_time(self._raw)), shlex.join(subject))
        return [*lines, *self.inputs[EVERYTHING].told_of_tokens(self._whole.recipe)]

    def units(self, split: str) -> dict[str, int]:
        """Return what each row of a split, by its id, counts with; see ``units_of``."""
        return units_of(self._raw.rows_of(split))

    def grouped(self, split: str) -> bool:
        """Tell whether rows of a split belong to groups."""
        return has_groups(self._raw.rows_of(split))

    def texts(self, split: str) -> dict[str, tuple[str, ...]]:
        """Return the texts of each row of a split, by its id."""
        raw = self._raw.rows_of(split)
        return dict(zip(raw.ids, raw.texts, strict=True))

    def seen_elsewhere(self, split: str, *, grouped: bool = True) -> set[str]:
        """Return the ids of a split's rows whose texts or groups are in another file, too, that is used before it.

        Of the rows that choose it is the training file; of test rows also the file of those that choose. Rows that are
        cut from one file are apart already.

        Args:
            split: Its name.
            grouped: Whether a group in common counts, too; else texts alone.
        """
        own = self._raw.rows_of(split)
        before = ("train", VALIDATION) if split == TEST else ("train",)
        others = [raw for name in before if (raw := self._raw.splits.get(name)) is not None and raw is not own]
        if not others:
            return set()
        groups = [group for raw in (*others, own) for group in raw.groups or [None] * len(raw.ids)]
        texts = [row for raw in (*others, own) for row in raw.texts]
        first = len(texts) - len(own.ids)
        blocks = rows_together(texts, groups if grouped else None)
        return {own.ids[row - first] for block in blocks if block[0] < first for row in block if row >= first}

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
        if not method_class(candidate.method).learns_by_steps:
            given = [*(each for each in given if split_override(each)[0] not in LENGTH_KEYS), *ONE_STEP]
        return build_recipe(
            {**self.request.recipe, "training": self._training(), "task": dict(task)},
            name=self.request.name,
            source=self.request.source,
            method=candidate.method,
            overrides=[*candidate.overrides, *given, *LAST_WEIGHTS, *more],
            seed=seed,
        )

    def _training(self) -> dict[str, Any]:
        """Return the recipe's own section; values of regression are standardised unless it says otherwise."""
        kind = dict(map(split_override, self.request.overrides)).get("task.kind", self._task.get("kind"))
        usual = {"standardise": True} if kind == "regression" else {}
        return {**usual, **self.request.recipe.get("training", {})}

    def _checked_task(self) -> dict[str, Any]:
        """Return the user's task, of which at least the training rows are named as they should be."""
        task = self.request.recipe.get("task")
        if not isinstance(task, Mapping) or not {"files", "dataset"} & task.keys():
            raise RequestError("fit takes a table of your own, or a dataset of the hub; sweep takes the tasks it knows")
        place = "splits" if "dataset" in task else "files"
        if not isinstance(task.get(place), Mapping) or "train" not in task[place]:
            where = f"{self.request.source}: " if self.request.source is not None else ""
            raise RequestError(
                f"{where}task.{place} should be a mapping that says where the training rows are: train: ..."
            )
        return dict(task)

    def space(self) -> SearchSpace:
        """Return where candidates come from; with few minutes, the longest runs are shorter."""
        from dpstune.data.batches import StepPlan
        from dpstune.models.loading import read_config
        from dpstune.models.structure import configured_layers

        recipe = self.recipe_of(Candidate(BASELINE), 1).recipe
        steps_per_epoch = StepPlan(recipe, self.inputs[1].tokens(recipe)["train"].lengths, processes=1).steps_per_epoch
        affordable = math.inf
        fixed = tuple(split_override(override)[0] for override in self.request.overrides)
        if self.request.minutes is not None and not has_fixed_length(fixed):
            an_epoch = self._seconds_of(Candidate(BASELINE, {"training.epochs": 1}))
            runs = min(RUNS_TO_AFFORD, self.request.runs or RUNS_TO_AFFORD)
            affordable = self.request.minutes * 60 * at_once(self.request.jobs) / runs / an_epoch * steps_per_epoch
        _, config = read_config(recipe.model)
        return SearchSpace(
            self.methods,
            recipe.training.learning_rate,
            epochs_to_try(steps_per_epoch, affordable),
            fixed,
            configured_layers(config),
        )

    def _seconds_of(self, candidate: Candidate) -> float:
        """Return about how long a run of a candidate on a part takes here, by a few timed steps of it alone."""
        from dpstune.studies.sweep.estimate import seconds_of_a_run

        with threads_of_a_worker(self.request.jobs):
            return seconds_of_a_run(self.recipe_of(candidate, 1), self.inputs[1])

    def search(self) -> CandidateSearch:
        """Open the search, where candidates and their scores are kept, in the fit's folder; under its lock."""
        seed = self._whole.recipe.seed
        return CandidateSearch(self.folder / STUDY, self.space, parts=self.parts.count, seed=seed)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from this fit, and make its folder; see ``locked``."""
        return locked(self.folder / ".lock", self.folder, "at")

    def try_candidates(
        self, search: CandidateSearch, progress: NewProgress = SilentProgress, tell: Tell = lambda line: None
    ) -> None:
        """Try candidates, run by run, until the budget is spent; one at least is tried on every part.

        Args:
            search: Chooses them.
            progress: Makes who is told how a run goes.
            tell: Is told what was tried, a line each.

        Raises:
            RequestError, RunError: The first candidate cannot be trained, or what fails is no candidate's fault: a full
                disk.
            Interrupted: A signal came; the same call goes on.
        """
        budget = self.budget(search)
        while not no_more_are_tried(search.trials()):
            trial = search.next()
            part = next(number for number in range(1, self.parts.count + 1) if number not in trial.values)
            if any(each.state == "complete" for each in search.trials()) and not budget.allows(trial.candidate):
                return
            started = time.monotonic()
            try:
                record = self.train(trial, part, progress(), tell)
            except Exception as error:
                why = fault_of_the_candidate(trial, error)
                if why is None or not any(each.values for each in search.trials()):
                    raise
                seconds = time.monotonic() - started
                search.fail(trial, part, why, seconds)
                budget.add_failure(seconds)
                tell(f"{self.describe(trial, part)}: cannot be trained: {why}")
            else:
                budget.add(trial.candidate, record)
                trial = search.report(trial, part, direction(record.metric) * record.score)
                tell(f"{self.describe(trial, part)}: {told_of(record, trial)}")

    def budget(self, search: CandidateSearch) -> Budget:
        """Return how much may still be tried, after what a search was told of."""
        budget = Budget(self.request, self.rows / self._rows_of_a_part)
        for trial in search.trials():
            for part in trial.values:
                budget.add(trial.candidate, self.train(trial, part), trial.taken.get(part))
            if trial.state == "failed":
                budget.add_failure(trial.seconds)
        for seconds in search.late():
            budget.add_failure(seconds)
        return budget

    def plan(self) -> dict[str, Any]:
        """Return what would be tried and about how long it would take on this machine, by a few timed plain steps."""
        space = kept_space(self.folder / STUDY) or self.space()
        a_run = self._seconds_of(space.baselines()[0])
        last, beside = a_run * self.rows / self._rows_of_a_part, at_once(self.request.jobs)
        most = self.request.runs if self.request.runs or self.request.minutes is not None else RUNS
        if self.request.minutes is not None:
            fitting = max(self.parts.count, int((self.request.minutes * 60 - last) / a_run * beside))
            most = min(fitting, most or fitting)
        assert most is not None
        return {
            "rows": self.rows,
            "folds": self.parts.folds,
            "methods": list(self.methods),
            "epochs": list(space.epochs),
            "seconds_a_run": a_run,
            "runs": most,
            "jobs": self.request.jobs,
            "seconds": most * a_run / beside + last,
        }

    def describe(self, trial: Trial, part: int) -> str:
        """Name a run for people, by its candidate and its part."""
        of_parts = f", fold {part} of {self.parts.count}" if self.parts.folds else ""
        return f"{trial.number + 1}. {trial.candidate.name}{of_parts}"

    def train(
        self, trial: Trial, part: int, progress: Progress | None = None, tell: Tell = lambda line: None
    ) -> RunRecord:
        """Train a trial's candidate on a part, or find that run finished; its weights are not kept."""
        key = (trial.number, part)
        if key not in self._records:
            loaded = self.recipe_of(trial.candidate, part)
            run = self._patiently(lambda: self._train(loaded, part, progress, keep_model=False), tell)
            self._records[key] = read_run(run.folder)
        return self._records[key]

    def train_for_another(self, trial: Trial, part: int, progress: Progress) -> Path:
        """Train as ``train`` does, for the process that this one works for; return the run's folder.

        Raises:
            BusyError: Another process trains the same run, as another fit of the same rows may.
        """
        return self._train(self.recipe_of(trial.candidate, part), part, progress, keep_model=False).folder

    def peaks(self) -> tuple[int, ...]:
        """Return the peak memory of the runs that are known here, in bytes."""
        results = [record.result for record in self._records.values()]
        return tuple(result["peak_memory_bytes"] for result in results if "peak_memory_bytes" in result)

    def found(self, trial: Trial, part: int, folder: Path) -> RunRecord:
        """Take up the run of a trial that another process trained for this one."""
        record = self._records[trial.number, part] = read_run(folder)
        return record

    def train_on_everything(
        self, candidate: Candidate, progress: Progress | None = None, tell: Tell = lambda line: None
    ) -> RunResult:
        """Train a candidate on all rows, or find that run finished."""
        loaded = self.final_recipe(candidate)
        return self._patiently(lambda: self._train(loaded, EVERYTHING, progress, keep_model=True), tell)

    def _train(self, loaded: LoadedRecipe, part: int, progress: Progress | None, *, keep_model: bool) -> RunResult:
        from dpstune.training import engine

        return engine.train(
            loaded,
            output=self.request.output,
            inputs=self.inputs[part],
            keep_model=keep_model,
            need_model=keep_model,
            progress=progress,
        )

    def _patiently(self, train: Callable[[], RunResult], tell: Tell) -> RunResult:
        """Train; where another process trains the same run, as another fit of the same rows may, wait for it."""
        told = False
        while True:
            try:
                return train()
            except BusyError as error:
                if not told:
                    tell(f"waiting: {error}")
                told = True
                time.sleep(WAIT_SECONDS)


def failures_in_a_row(trials: Sequence[Trial]) -> int:
    """Return how many of the last candidates that were ended could not be trained."""
    count = 0
    for trial in trials:
        count = count + 1 if trial.state == "failed" else 0 if trial.state in ("complete", "given up") else count
    return count


def no_more_are_tried(trials: Sequence[Trial]) -> bool:
    """Tell whether too many candidates in a row could not be trained; while none is complete an open one goes on."""
    states = {trial.state for trial in trials}
    return failures_in_a_row(trials) >= MOST_FAILURES and ("complete" in states or "open" not in states)


def told_of(record: RunRecord, trial: Trial) -> str:
    """Say what came of a run, and whether its candidate is given up."""
    given_up = "; given up" if trial.state == "given up" else ""
    return f"{record.metric} {record.score:.4f}, {record.all_seconds:.0f} s{given_up}"


def fault_of_the_candidate(trial: Trial, error: Exception) -> str | None:
    """Say why a candidate cannot be trained; None where that is not its fault, and the fit should end."""
    if isinstance(error, RequestError):  # what was trained on a part, and plain fine-tuning, suit the model
        of_the_place = isinstance(error.__cause__, OSError)
        return None if trial.values or trial.always or of_the_place else str(error)
    return str(error) if isinstance(error, DivergedError) else out_of_memory(error)
