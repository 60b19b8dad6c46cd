"""Transfer: models that were trained on one task are evaluated on tasks that they never saw.

Source: Zhang et al. 2022, section 4.4 and Appendix E. A model predicts one of all the labels it knows; that
label is then read as one of the target's, by name (``dpstune.data.labels``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpstune.common.writing import write_json
from dpstune.data.reading import folder_with_task
from dpstune.errors import RequestError, RunError
from dpstune.evaluation.targets import (
    SHORT_NAMES,
    Target,
    encode_target,
    evaluate_target,
    find_target,
    match_labels,
)
from dpstune.recipe.yaml_text import is_yaml_file
from dpstune.runs.folder import RunFolder, write_predictions
from dpstune.settings.metrics import METRICS, direction
from dpstune.settings.sections import UserTask, nameless, same_task, task_name
from dpstune.settings.tasks import TASKS, Kind
from dpstune.studies.points import Point, group_points
from dpstune.studies.records import RunRecord

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.data.tokens import TokenDataset
    from dpstune.evaluation.scoring import Evaluation
    from dpstune.evaluation.trained import TrainedModel
    from dpstune.recipe.schema import Recipe

NLI_TARGETS = ("mnli", "mnli-mm", "snli", "sick", "scitail", "rte", "hans")


@dataclass(frozen=True)
class NamedTarget:
    """A task on which models are evaluated, with its name.

    Args:
        name: What it is called in tables and file names.
        target: Task, split and where its data lies.
        in_domain: Whether the models were trained on this task.
        other_names: What a user's own task is called where another has its name: its recipe file, its training file.
    """

    name: str
    target: Target
    in_domain: bool
    other_names: tuple[str, ...] = ()

    @cached_property
    def examples(self) -> TaskData:
        """Its examples, read once; raises what ``Target.read`` raises."""
        return self.target.read()

    @property
    def split(self) -> str:
        """The one split that is scored."""
        return next(iter(self.examples.splits))


@dataclass(frozen=True)
class TargetScore:
    """The scores of one run's model on one target.

    Args:
        run: The run.
        target: The target's name.
        split: The split that was scored.
        metric: The headline metric's name.
        metrics: All metrics by name, the headline first; None for an undefined one.
        examples: How many examples.
        labels: How the model's labels were read, in words; None for regression.
        majority: What always answering the commonest gold label gets, as gold labels were read; see
            ``constant_metrics``.
    """

    run: RunRecord
    target: str
    split: str
    metric: str
    metrics: Mapping[str, float | None]
    examples: int
    labels: str | None
    majority: float | None

    @property
    def score(self) -> float:
        """The headline value; an undefined correlation counts as 0, as in a sweep."""
        return self.metrics[self.metric] or 0.0


@dataclass(frozen=True)
class TransferCell:
    """One point on one target, over its seeds.

    Args:
        point: Method and settings.
        target: The target's name.
        scores: One a seed, by ascending seed.
        drop: What is lost, the mean over the seeds: in-domain minus target, or the reverse of a metric that is better
            when lower; None in-domain, and where the metrics differ.
        metric: What is scored.
        majority: What always answering the commonest gold label gets; see ``constant_metrics``.
    """

    point: Point
    target: str
    scores: tuple[float, ...]
    drop: float | None
    majority: float | None
    metric: str

    @property
    def change(self) -> float | None:
        """Mean over the seeds of target minus in-domain; None where there is no drop."""
        return None if self.drop is None else -self.drop * direction(self.metric)

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.scores))

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1 in the denominator); None for one seed."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """Return the cell as a mapping for JSON."""
        return {
            "method": self.point.method,
            "settings": dict(self.point.settings),
            "target": self.target,
            "seeds": len(self.scores),
            "mean": self.mean,
            "std": self.std,
            "drop": self.drop,
            "majority": self.majority,
        }


def choose_targets(
    asked: Sequence[str] | None, recipe: Recipe, data_dirs: Sequence[Path]
) -> tuple[list[NamedTarget], list[str]]:
    """Return the targets, the training task first, and one line on each usual target that is left out.

    Args:
        asked: ``TASK``, ``TASK:SPLIT``, or a recipe file, which stands for its task; ``mnli-mm`` is mnli's mismatched
            half. The training task is added if it is missing: drops are measured against it. None takes the usual
            targets: the training task and, for an NLI task, those corpora of the paper's experiment that are found;
            for a generated task, its shifted variant.
        recipe: What the models are trained with.
        data_dirs: Folders of local data; each task is read from the first that has it. Empty: the hub.

    Raises:
        RequestError: A target that was asked for is not found, or two have the same name.
    """
    named = [_name_target(each, recipe, data_dirs) for each in asked or _usual_targets(recipe)]
    home = Target(recipe.task, "validation", recipe.data.dir)
    if home.name in SHORT_NAMES and not isinstance(home.task, UserTask):
        home = replace(home, split=SHORT_NAMES[home.name][1])
    there = next((each for each in named if each.in_domain and each.target.split == home.split), None)
    if there is None:
        there = NamedTarget(home.name, home, in_domain=True)
        named.append(there)
    named = _told_apart(named)
    notes: list[str] = []
    if asked is None:
        why = {each.name: _why_missing(each, data_dirs) for each in named}
        named = [each for each in named if why[each.name] is None]
        notes = [f"target {name} is left out: {reason}" for name, reason in why.items() if reason is not None]
    if twice := _twice(named):
        own = any(isinstance(each.target.task, UserTask) for each in named if each.name in twice)
        hint = "; where these are two tasks, give one another task.name" if own else ""
        raise RequestError(f"--targets: {min(twice)} is given twice{hint}")
    return sorted(named, key=lambda each: (each is not there, not each.in_domain)), notes


def _twice(named: Sequence[NamedTarget]) -> set[str]:
    return {name for name, count in Counter(each.name for each in named).items() if count > 1}


def _told_apart(named: Sequence[NamedTarget]) -> list[NamedTarget]:
    """Call users' own tasks of one name by their recipe files, or else by their training files."""
    for other in range(2):
        twice = _twice(named)
        named = [
            replace(each, name=each.other_names[other]) if each.name in twice and each.other_names else each
            for each in named
        ]
    return list(named)


def _usual_targets(recipe: Recipe) -> list[str]:
    from dpstune.data.labels import map_labels

    if not isinstance(recipe.task, str):
        raise RequestError("--targets: say on which tasks to evaluate, for example --targets snli,sick")
    task = TASKS[recipe.task]
    if task.toy:
        return [task.name, f"{task.name.removesuffix('-shift')}-shift"]
    try:
        map_labels(task.labels, TASKS["mnli"].labels)
    except RequestError:
        raise RequestError(
            f"--targets: {task.name} is no entailment task and has no usual targets; say on which tasks to evaluate"
        ) from None
    return [task.name, *(name for name in NLI_TARGETS if name != task.name)]


def _name_target(asked: str, recipe: Recipe, data_dirs: Sequence[Path]) -> NamedTarget:
    name, _, split = asked.partition(":")
    others: tuple[str, ...] = ()
    target = find_target(asked, data_dirs)
    if is_yaml_file(name):
        stem = Path(name).stem
        if isinstance(target.task, UserTask):
            name, others = target.name, (stem, task_name(nameless(target.task)))
        else:
            name = stem
    in_domain = same_task(target.task, recipe.task)
    ending = f"-{split}" if split else ""
    return NamedTarget(
        f"{name}{ending}", target, in_domain, () if in_domain else tuple(f"{each}{ending}" for each in others)
    )


def _why_missing(named: NamedTarget, data_dirs: Sequence[Path]) -> str | None:
    """Say why a usual target is not found in the folders or, without folders, on the hub; None if it is found."""
    missing = f"it is not in {', '.join(map(str, data_dirs))}"
    folder, task = named.target.data_dir, TASKS[named.target.name]
    if folder is not None and not task.toy and folder_with_task([folder], task.name) is None:
        return missing
    try:
        return None if named.examples.splits else missing
    except RequestError as error:
        return missing if data_dirs else str(error)
    except RunError as error:
        return str(error)


class Evaluator:
    """Evaluates finished runs on targets; earlier evaluations are read back from the runs' folders.

    Args:
        targets: The targets.
        told: Called with a line before each evaluation.
    """

    def __init__(self, targets: Sequence[NamedTarget], told: Callable[[str], None]) -> None:
        self._targets, self._told = targets, told
        self._tokens: dict[str, dict[str, TokenDataset]] = {}

    def lacks_a_model(self, run: RunRecord) -> bool:
        """Tell whether a run cannot be scored: it holds no model, and a target has no score that was kept."""
        return not RunFolder(run.folder).model.is_dir() and any(self._read(run, each) is None for each in self._targets)

    def evaluate(self, run: RunRecord) -> list[TargetScore]:
        """Return a run's scores, one for each target; new ones are written into its folder.

        Raises:
            RequestError: The model's labels do not match a target's, or its folder cannot be read.
            RunError: A score is not finite.
        """
        kept = {each.name: self._read(run, each) for each in self._targets}
        if None in kept.values():
            from dpstune.evaluation.trained import TrainedModel, find_trained

            model = TrainedModel(find_trained(run.folder))
            for each in self._targets:
                if kept[each.name] is None:
                    self._told(f"evaluating {run.method} seed {run.seed} on {each.name}")
                    kept[each.name] = self._score(model, run, each)
        return [score for score in kept.values() if score is not None]

    def _score(self, model: TrainedModel, run: RunRecord, named: NamedTarget) -> TargetScore:
        from dpstune.evaluation.scoring import prediction_columns

        task, folder = named.examples, RunFolder(run.folder)
        if named.name not in self._tokens:
            self._tokens[named.name] = encode_target(model, task)
        evaluation = evaluate_target(model, task, self._tokens[named.name])[named.split]
        labels = match_labels(model, task)
        content = {
            "task": task.name,
            "split": named.split,
            "fingerprint": task.fingerprint,
            "metric": task.metric,
            "metrics": evaluation.metrics,
            "examples": len(evaluation.predictions),
            "labels": labels.description if labels is not None else None,
            "label_names": list(task.label_names),
            "majority": _majority(evaluation, task),
            "result": folder.result_digest(),  # of the training whose weights were scored
        }
        write_predictions(folder.predictions(f"to-{named.name}"), prediction_columns(task, evaluation))
        write_json(_scores_file(run, named), content)
        return _from_json(run, named, content)

    def _read(self, run: RunRecord, named: NamedTarget) -> TargetScore | None:
        try:
            content = json.loads(_scores_file(run, named).read_text(encoding="utf-8"))
            task = named.examples
            folder = RunFolder(run.folder)
            kept = (content["fingerprint"], content["metric"], content["label_names"])
            now = (task.fingerprint, task.metric, list(task.label_names))
            measured = content["metrics"].keys() >= set(task.metrics)
            if "result" in content or folder.model.is_dir():  # else it is an earlier dpstune's, and is all there is
                measured = measured and content.get("result") == folder.result_digest()
            return _from_json(run, named, content) if kept == now and measured else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _scores_file(run: RunRecord, named: NamedTarget) -> Path:
    return RunFolder(run.folder).transfer / f"{named.name}.json"


def _from_json(run: RunRecord, named: NamedTarget, content: Mapping[str, Any]) -> TargetScore:
    return TargetScore(
        run,
        named.name,
        content["split"],
        content["metric"],
        content["metrics"],
        content["examples"],
        content["labels"],
        content["majority"],
    )


def _majority(evaluation: Evaluation, task: TaskData) -> float | None:
    from dpstune.evaluation.metrics import constant_value

    gold = evaluation.gold
    if not gold:
        return None
    return constant_value(task.metric, gold, gold, label_count=len(evaluation.names))


def tabulate(scores: Sequence[TargetScore], targets: Sequence[NamedTarget]) -> list[TransferCell]:
    """Return a cell for each point and target: points in the order of ``group_points``, targets as they come.

    Args:
        scores: The scores of all runs on all targets.
        targets: The targets; drops are measured against the first in-domain one.
    """
    metric = {score.target: score.metric for score in scores}
    majority = {score.target: score.majority for score in scores}
    by_run = {(str(score.run.folder), score.target): score.score for score in scores}
    home = next((each.name for each in targets if each.in_domain), None)
    cells = []
    for point, runs in group_points(list({str(score.run.folder): score.run for score in scores}.values())):
        folders = [str(run.folder) for run in runs.values()]
        for each in targets:
            own = tuple(by_run[folder, each.name] for folder in folders)
            drop = None
            if home is not None and not each.in_domain and metric[home] == metric[each.name]:
                lost = [by_run[folder, home] - score for folder, score in zip(folders, own, strict=True)]
                drop = direction(metric[home]) * float(np.mean(lost))
            cells.append(TransferCell(point, each.name, own, drop, majority[each.name], metric[each.name]))
    return cells


def refuse_what_does_not_match(targets: Sequence[NamedTarget], recipe: Recipe) -> None:
    """Read every target before anything is trained, and refuse one on which this recipe's model cannot be scored.

    Raises:
        RequestError: A target has no labels, several splits, labels that do not match the training task's by name, or
            a metric that is undefined there.
        RunError: The hub could not be reached.
    """
    from dpstune.data.labels import map_labels

    names, kind = _labels_of(recipe)
    trained = task_name(recipe.task)
    if kind == "multilabel":
        raise RequestError(f"--recipe: {trained} is multilabel; transfer reads one label an example in other tasks")
    for each in targets:
        task = each.examples
        if len(task.splits) > 1:
            raise RequestError(f"--targets {each.name}: it has several splits: {', '.join(task.splits)}; name one")
        if task.splits[each.split].labels is None:
            raise RequestError(f"--targets {each.name}: split {each.split} has no labels to score against")
        if kind != task.kind:
            raise RequestError(f"--targets {each.name}: {trained} is {kind}, {task.name} is {task.kind}")
        if task.kind == "classification" and map_labels(names, task.label_names).two_way:
            _refuse_probabilities(each)


def _refuse_probabilities(named: NamedTarget) -> None:
    metric = named.examples.metric
    if METRICS[metric].needs == "probabilities":
        raise RequestError(
            f"--targets {named.name}: its labels are finer than the models', so that {metric}, which needs the "
            "probability of each, is undefined; name another metric first"
        )


def _labels_of(recipe: Recipe) -> tuple[tuple[str, ...], Kind]:
    """Return the label names and kind of what a recipe trains on; a user's own are in its training file."""
    if isinstance(recipe.task, UserTask):
        own = Target(recipe.task, "train").read()
        return own.label_names, own.kind
    known = TASKS[task_name(recipe.task)]
    return known.labels, known.kind
