"""Case studies of a sweep's runs, and of predictions in folders and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpstune.data.moved import reading_from
from dpstune.errors import RequestError
from dpstune.recipe.recipe import LoadedRecipe
from dpstune.runs.folder import run_hash
from dpstune.studies.casestudy.ballot_files import read_ballot_file
from dpstune.studies.casestudy.ballot_runs import (
    add_runs,
    add_task,
    add_texts,
    named_points,
    refuse_regression,
    refuse_unlabelled,
)
from dpstune.studies.casestudy.ballots import Gathered, choose_baseline, count_votes
from dpstune.studies.casestudy.casestudy import CaseStudy
from dpstune.studies.dropout import found_dropout
from dpstune.studies.environments import told_of_environments
from dpstune.studies.points import each_restart_once, read_runs
from dpstune.studies.records import RunRecord, chosen_on_a_split
from dpstune.studies.sweep.sweep import Outcome, Sweep


def refuse_what_cannot_be_studied(sweep: Sweep, split: str | None, baseline: str | None) -> None:
    """Refuse, before anything is trained, what would not make a case study.

    Raises:
        RequestError: The task is regression, the split has no labels, or the baseline is none of the methods; or data
            or model are not what the recipe says.
        RunError: The hub could not be reached.
    """
    planned = [RunRecord(Path(), sweep.request.load(job).recipe, {}) for job in sweep.jobs]
    refuse_regression(planned[0].recipe, f"--recipe {sweep.request.recipe}")
    choose_baseline(baseline, {name: point.method for name, (point, _) in named_points(planned).items()})
    if split is not None:
        refuse_unlabelled(sweep.inputs.task(planned[0].recipe), split)


def study_sweep(
    sweep: Sweep, outcome: Outcome, *, split: str | None = None, baseline: str | None = None
) -> CaseStudy | None:
    """Study a sweep's finished runs.

    Args:
        sweep: The sweep.
        outcome: What became of its jobs.
        split: The split; None for the one of the headline metric.
        baseline: The method to compare with; None takes ``vanilla`` if it is there.

    Returns:
        The study; None if no run is finished.

    Raises:
        RequestError: The runs' predictions are missing, or the baseline has no run.
        RunError: So it is, since runs failed or are still to be done.
    """
    records = list(outcome.records.values())
    if not records:
        return None
    dropout = found_dropout(records)
    gathered = Gathered(notes=[*filter(None, [dropout]), *chosen_on_a_split(records), *outcome.notes])
    try:
        subject = add_runs(gathered, records, split)
        add_texts(gathered, sweep.request.load(sweep.jobs[0]).recipe, split or records[0].split)
        return count_votes(gathered, subject, baseline=baseline)
    except RequestError:
        outcome.refuse_what_is_missing()  # the cause, where a method has no run
        raise


@dataclass(frozen=True)
class SourcesRequest:
    """A study of predictions that are there already.

    Args:
        sources: Files (see ``dpstune.studies.casestudy.ballot_files``) and folders of runs.
        output: The folder that holds all runs; the study's own folder lies in it, too.
        recipe: Its task has the labels or texts that the files lack; None for no recipe.
        methods: The methods to study; empty for all.
        restarts: Of how many restarts a count is, if no column says so.
        split: The split that was predicted; None for that of the runs' headline, or the task's first validation split.
        baseline: The method to compare with; None takes ``vanilla`` if it is there.
        texts: Text columns of the files, if they have unknown names.
        data_dir: Where the runs' data lies now; None if it has not moved.
    """

    sources: tuple[Path, ...]
    output: Path
    recipe: LoadedRecipe | None = None
    methods: tuple[str, ...] = ()
    restarts: int | None = None
    split: str | None = None
    baseline: str | None = None
    texts: tuple[str, ...] = ()
    data_dir: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the study's files lie: the same folder for the same request."""
        asked = [self.methods, self.restarts, self.split, self.baseline, self.texts]
        digest = run_hash({"sources": [str(source.absolute()) for source in self.sources], "asked": asked})
        parent = self.output if self.recipe is None else self.output / self.recipe.name
        return parent / f"casestudy-{digest}"


def study_sources(request: SourcesRequest) -> CaseStudy:
    """Study predictions that are there already.

    Raises:
        RequestError: A source is missing or cannot be read, or it does not fit the other sources.
        RunError: The hub could not be reached for the recipe's task.
    """
    gathered = Gathered()
    subjects: list[str] = []
    records: list[RunRecord] = []
    if request.recipe is not None:
        refuse_regression(request.recipe.recipe, "--recipe")
    for source in request.sources:
        if source.is_dir():
            found, notes = read_runs(source)
            gathered.notes += notes
            if not found:
                raise RequestError(f"{source}: holds no finished run{f' ({notes[0]})' if notes else ''}")
            records += found
        else:
            read_ballot_file(source, gathered, texts=request.texts, restarts=request.restarts)
            gathered.files.append(source)
            subjects.append(source.name)
    records, skipped = each_restart_once(list({record.folder.resolve(): record for record in records}.values()))
    gathered.notes += skipped
    records = _of_methods(records, gathered, request.methods)
    if records:
        gathered.notes += [*filter(None, [found_dropout(records)]), *chosen_on_a_split(records)]
        gathered.notes += told_of_environments(records)
        subjects.insert(0, add_runs(gathered, records, request.split))
    gathered.select(request.methods)
    if request.recipe is not None:
        add_task(gathered, request.recipe.recipe, request.split or (records[0].split if records else None))
        if not records:
            subjects.append(f"recipe {request.recipe.name}")
    elif records:
        recipe = reading_from(records[0].recipe, request.data_dir)
        add_texts(gathered, recipe, request.split or records[0].split)
    return count_votes(gathered, ", ".join(subjects), baseline=request.baseline, restarts=request.restarts)


def _of_methods(records: Sequence[RunRecord], gathered: Gathered, names: Sequence[str]) -> list[RunRecord]:
    """Return the runs of the methods that are asked for, at all their points: these have names only when all are read.

    All runs are returned if none is of them, since they say what the examples of files are; and if a name is unknown,
    for ``select`` to refuse it.
    """
    wanted = {name.partition(" ")[0] for name in names}
    in_files = {known for each in gathered.methods.values() for known in (each.name, each.method)}
    methods = {record.method for record in records}
    if any(name not in in_files and name.partition(" ")[0] not in methods for name in names):
        return list(records)
    return [record for record in records if record.method in wanted] or list(records)
