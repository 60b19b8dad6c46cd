"""What restarts are good for together: the mean of their probabilities, and the mean of their weights.

The mean of probabilities is a deep ensemble (Lakshminarayanan et al. 2017): as many models to keep and to run as there
are restarts. The mean of weights is a uniform soup (Wortsman et al. 2022, section 2): one model, at one model's cost.
It is kept only where its score is not below the best restart's: restarts may lie in basins that do not mix.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpstune.common.writing import locked, write_folder, writing_to
from dpstune.data.moved import reading_from, refuse_lost_data
from dpstune.errors import RequestError
from dpstune.runs.folder import RunFolder, run_hash
from dpstune.runs.identity import has_changed
from dpstune.settings.metrics import direction
from dpstune.studies.answers import Answers, read_answers, scorer
from dpstune.studies.choice import Compared, Rows, Verdict, choose, judge_by_examples
from dpstune.studies.points import group_points
from dpstune.studies.records import RunRecord, chosen_on_a_split, read_run

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData

FEWEST_RUNS = 2
WEIGHTS = "model.safetensors"
CARD = "README.md"  # tells of one run


@dataclass(frozen=True)
class EnsembleOutcome:
    """What restarts do together.

    Args:
        folder: Where its files lie.
        task: What they were scored on.
        split: The split.
        records: The restarts.
        singles: Each restart's headline metric.
        together: The ensemble's score, and its difference from the mean of the restarts' scores: the gain.
        answers: Its answers; of a soup that was not kept as well.
        model: The soup's model folder; None for probabilities, and where the soup was not kept.
        notes: What a reader should know.
    """

    folder: Path
    task: TaskData
    split: str
    records: list[RunRecord]
    singles: list[float | None]
    together: Verdict
    answers: Answers
    model: Path | None
    notes: list[str]


class Ensemble:
    """Finished runs of one task, to be put together.

    Args:
        runs: Their folders.
        output: The folder that holds all runs.
        split: The split they are scored on; None for their headline's.
        weights: Whether it is their weights that are averaged: another folder.
        data_dir: Where the runs' data lie now; None if they have not moved.

    Raises:
        RequestError: There are fewer than two, a restart is there twice or not finished, they are of different tasks or
            labels, the rows are gone or have changed since, or weights that should be averaged cannot be read or are of
            different shapes.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        output: Path,
        split: str | None = None,
        *,
        weights: bool = False,
        data_dir: Path | None = None,
    ) -> None:
        from dpstune.data.inputs import Inputs

        if len(runs) < FEWEST_RUNS:
            raise RequestError("an ensemble is of two runs or more; name their folders")
        self.records = [_read(run) for run in runs]
        first = self.records[0]
        if split is None and first.result["split"] is None:
            raise RequestError(f"{first.folder} was not evaluated: there is nothing to score an ensemble on")
        self.split = split or first.split
        for record in self.records[1:]:
            _refuse_another_task(first, record)
        recipe = reading_from(first.recipe, data_dir)
        refuse_lost_data(recipe.task)
        self.task: TaskData = Inputs().task(recipe)
        for record in self.records:
            _refuse_changed_rows(record, self.task)
        if self.task.kind == "multilabel":
            raise RequestError(f"{first.folder} gives several labels an example; an ensemble is of runs that give one")
        examples = self.task.splits.get(self.split)
        if examples is None or examples.labels is None or self.split == "train":
            there = ", ".join(name for name in self.task.splits if name != "train")
            raise RequestError(f"--split {self.split}: the runs were scored on {there}")
        for record in self.records:
            if not RunFolder(record.folder).predictions(self.split).is_file():
                raise RequestError(f"{record.folder} holds no predictions of split {self.split}")
        _refuse_what_is_there_twice(runs)
        _refuse_the_same_restart(self.records)
        self._weights = _weights_to_average(self.records) if weights else []
        parts = [sorted(str(record.folder.absolute()) for record in self.records), self.split, weights]
        self.folder = output / str(first.result["recipe"]) / f"ensemble-{run_hash({'of': parts})}"
        found = [read_answers([record.folder], self.split, self.task) for record in self.records]
        self.answers = [each.in_the_order_of(found[0].ids) for each in found]

    def average_probabilities(self) -> EnsembleOutcome:
        """Return what the mean of the restarts' probabilities (of values in regression) scores."""
        scores = np.mean([each.scores for each in self.answers], axis=0)
        first = self.answers[0]
        predictions = scores.argmax(1) if self.task.label_names else scores[:, 0]
        return self._outcome(Answers(first.ids, first.gold, predictions, scores), None, [])

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from this ensemble; see ``locked``."""
        return locked(self.folder.with_name(f".{self.folder.name}.lock"), self.folder, "at")

    def average_weights(self) -> EnsembleOutcome:
        """Average the restarts' weights into one model, and keep it where its score is not below the best restart's.

        It is called under the lock. A model of earlier weights gives way.
        """
        soup, model = self.folder.with_name(f".{self.folder.name}.soup"), self.folder / "model"
        try:
            write_folder(soup, partial(_write_soup, self._weights))
            answers = self._answers_of(soup)
            score, own = scorer([*self.answers, answers], self.task), len(self.answers)
            every = np.arange(len(answers.ids))
            best = choose(score, range(own), every)
            if choose(score, [own, best], every) == own:
                write_folder(model, partial(shutil.copytree, soup, dirs_exist_ok=True))
                return self._outcome(answers, model, [])
        finally:
            shutil.rmtree(soup, ignore_errors=True)
        if model.exists():
            with writing_to(model):
                shutil.rmtree(model)
        seed = self.records[best].seed
        return self._outcome(
            answers, None, [f"the mean of the weights is not kept: it is worse than the best restart, seed {seed}"]
        )

    def _answers_of(self, model: Path) -> Answers:
        """Score a model folder on the split, as the restarts were."""
        from dpstune.evaluation.targets import evaluate_target
        from dpstune.evaluation.trained import TrainedModel, find_trained

        trained = TrainedModel(replace(find_trained(self.records[0].folder), folder=model))
        examples = self.task.splits[self.split]
        found = evaluate_target(trained, replace(self.task, splits={self.split: examples}))[self.split]
        answers = Answers(examples.ids, np.array(found.gold), np.array(found.predictions), found.scores)
        return answers.in_the_order_of(self.answers[0].ids)

    def _outcome(self, answers: Answers, model: Path | None, notes: list[str]) -> EnsembleOutcome:
        score = scorer([*self.answers, answers], self.task)
        restarts, own = range(len(self.answers)), len(self.answers)

        def compare(rows: Rows) -> Compared:
            values = [score(number, rows) for number in restarts]
            ours = score(own, rows)
            known = [value for value in values if value is not None]
            return ours, None if ours is None or len(known) < len(values) else ours - sum(known) / len(known)

        way = direction(self.task.metric)
        every = np.arange(len(answers.ids))
        singles = [None if (value := score(number, every)) is None else way * value for number in restarts]
        together = judge_by_examples(compare, self.task.splits[self.split], answers.ids, self.task.metric)
        notes = [*notes, *chosen_on_a_split(self.records)]
        return EnsembleOutcome(
            self.folder, self.task, self.split, self.records, singles, together, answers, model, notes
        )


def _read(run: Path) -> RunRecord:
    if not run.is_dir():
        raise RequestError(f"there is no folder {run}; name the folders of finished runs")
    try:
        return read_run(run)
    except ValueError as error:
        raise RequestError(f"{run} is no finished run: {error}") from None


def _refuse_another_task(first: RunRecord, other: RunRecord) -> None:
    for what in ("task", "metric"):
        if first.result[what] != other.result[what]:
            raise RequestError(
                f"{other.folder} is of {what} {other.result[what]}, {first.folder} of {first.result[what]}: "
                "an ensemble is of runs on one task"
            )
    ours, theirs = (record.fingerprints.get("task") for record in (first, other))
    if ours is not None and theirs is not None and ours != theirs:
        raise RequestError(f"{other.folder} and {first.folder} were trained on different examples")


def _refuse_changed_rows(record: RunRecord, task: TaskData) -> None:
    if has_changed(task, record.fingerprints):
        raise RequestError(
            f"{record.folder}: the rows of {task.name} have changed since the runs were trained; put them back as they "
            "were, or train the runs again"
        )


def _refuse_what_is_there_twice(runs: Sequence[Path]) -> None:
    places = [run.resolve() for run in runs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise RequestError(f"{runs[number]} is there twice; an ensemble is of different runs")


def _refuse_the_same_restart(records: Sequence[RunRecord]) -> None:
    """Refuse two runs of one point and seed: both would count, though they are one draw."""
    for number, record in enumerate(records):
        for other in records[:number]:
            if record.seed == other.seed and len(group_points([record, other])) == 1:
                raise RequestError(
                    f"{record.folder} is the same restart as {other.folder}; leave one out (a name with .earlier- is "
                    "an earlier try)"
                )


def _weights_to_average(records: Sequence[RunRecord]) -> list[Path]:
    """Return the file of each run's weights; only their heads are read."""
    from dpstune.models.loading import weight_shapes

    files = [_weights(RunFolder(record.folder)) for record in records]
    first = weight_shapes(files[0])
    for file in files[1:]:
        if weight_shapes(file) != first:
            raise RequestError(f"{file.parent} has other weights than {files[0].parent}: they cannot be averaged")
    return files


def _weights(run: RunFolder) -> Path:
    if not run.model.is_dir():
        raise RequestError(f"{run.path} holds no model; a sweep with --no-models keeps none")
    file = run.model / WEIGHTS
    if not file.is_file():
        split = ": its weights are split into several files" if (run.model / f"{WEIGHTS}.index.json").exists() else ""
        raise RequestError(f"{run.model} holds no {WEIGHTS}{split}; to be averaged, weights lie in one such file")
    return file


def _write_soup(files: Sequence[Path], place: Path) -> None:
    """Write the mean of several models' weights into a folder, with the first one's configuration and tokenizer."""
    from safetensors.torch import load_file, save_file

    mean: dict[str, Any] = {}
    dtypes: dict[str, Any] = {}
    for number, file in enumerate(files):
        for key, weight in load_file(file).items():
            share = weight.double() / len(files) if weight.is_floating_point() else weight
            mean[key] = share if number == 0 or not weight.is_floating_point() else mean[key] + share
            dtypes.setdefault(key, weight.dtype)
    for entry in files[0].parent.iterdir():
        if entry.is_file() and entry.name not in (WEIGHTS, CARD):
            shutil.copy2(entry, place / entry.name)
    save_file({key: weight.to(dtypes[key]) for key, weight in mean.items()}, place / WEIGHTS, {"format": "pt"})
