"""Predictions of finished runs, and their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpstune.data.examples import Examples
from dpstune.data.moved import refuse_lost_data
from dpstune.data.reading import TaskData, read_task
from dpstune.errors import DpstuneError, RequestError, some_of
from dpstune.recipe.schema import Recipe
from dpstune.runs.folder import RunFolder, read_predictions
from dpstune.settings.sections import UserTask, task_kind, task_name
from dpstune.settings.tasks import get_task
from dpstune.studies.casestudy.ballots import Ballot, Gathered, MethodBallots, fill_in
from dpstune.studies.casestudy.casestudy import Example
from dpstune.studies.points import Point, SeedRecords, group_points, model_names, task_names
from dpstune.studies.records import RunRecord


def refuse_regression(recipe: Recipe, place: str) -> None:
    """Refuse regression, whose predictions are neither right nor wrong.

    Args:
        recipe: The recipe of the task.
        place: What the message names: a flag or a folder.

    Raises:
        RequestError: It is regression, or an example may have several labels; ``place`` is named.
    """
    name, kind = task_name(recipe.task), task_kind(recipe.task)
    if kind == "multilabel":
        raise RequestError(f"{place}: {name} is multilabel: a case study needs one label an example")
    if kind == "regression":
        raise RequestError(
            f"{place}: {name} is regression: a predicted value is neither right nor wrong; a case study needs labels"
        )


def refuse_unlabelled(task: TaskData, split: str) -> None:
    """Refuse a split that no run predicts, or that has no labels.

    Raises:
        RequestError: It is such a split.
    """
    predicted = [name for name in task.splits if name != "train"]
    if split not in predicted:
        raise RequestError(f"--split {split}: should be one that runs of {task.name} predict: {', '.join(predicted)}")
    if task.splits[split].labels is None:
        raise RequestError(f"--split {split}: it has no labels, so no prediction is right or wrong")


def named_points(records: Sequence[RunRecord]) -> dict[str, tuple[Point, SeedRecords]]:
    """Return the points of some runs by name: the method's name and, if it has several points, their settings."""
    points = group_points(records)
    methods = [point.method for point, _ in points]
    return {point.name if methods.count(point.method) > 1 else point.method: (point, runs) for point, runs in points}


def add_runs(gathered: Gathered, records: Sequence[RunRecord], split: str | None) -> str:
    """Add the predictions of finished runs; each point becomes one method of the case study.

    Args:
        gathered: Where they are added.
        records: The runs.
        split: The split; None for the one of their headline metric.

    Returns:
        Model, task and split, in words.

    Raises:
        RequestError: The runs are of several tasks or of regression; or their predictions are missing, damaged, without
            labels, or of different examples.
    """
    for record in records:
        refuse_regression(record.recipe, str(record.folder))
    tasks = task_names(records)
    if len(tasks) > 1:
        raise RequestError(f"the runs are of several tasks ({', '.join(tasks)}); study one at a time")
    for name, (_, runs) in named_points(records).items():
        place = str(next(iter(runs.values())).folder.parent)
        ballots = [_read_ballot(gathered, record, split or record.split) for record in runs.values()]
        gathered.add_method(MethodBallots(name, place, ballots))
    gathered.runs += records
    models = ", ".join(model_names(records))
    return f"{models} on {tasks[0]}, {split or records[0].split}"


def _read_ballot(gathered: Gathered, record: RunRecord, split: str) -> Ballot:
    path = RunFolder(record.folder).predictions(split)
    if not path.exists():
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.parquet"))) or "nothing"
        raise RequestError(f"{path} is not there: the run predicted {there}; choose with --split, or train it anew")
    try:
        columns = read_predictions(path)
        rows = list(zip(columns["id"], columns["label"], columns["prediction"], columns["scores"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"{path}: its predictions cannot be read ({error}); train the run anew") from None
    phenomena = columns.get("phenomenon", [None] * len(rows))
    ballot = Ballot(f"seed {record.seed}", str(path))
    outputs = {answer: scores.index(max(scores)) for _, _, answer, scores in rows if scores.count(max(scores)) == 1}
    for (identity, label, prediction, scores), phenomenon in zip(rows, phenomena, strict=True):
        if identity in ballot.predictions:
            raise RequestError(f"{path}: example {identity!r} is there twice")
        if label is None:
            raise RequestError(f"{path}: its examples have no labels, so no prediction is right or wrong")
        ballot.predictions[identity] = prediction
        ballot.label_probabilities[identity] = _label_probability(label, scores, outputs)
        gathered.add_example(Example(identity, label, phenomenon=phenomenon), str(path))
    return ballot


def _label_probability(label: str, scores: Sequence[float], outputs: Mapping[str, int]) -> float:
    """Return the probability that a label was given: of a label that was never an answer, all that the others leave.

    Args:
        label: The label.
        scores: The probability of each output.
        outputs: Which output each answer belongs to; the file does not say so of other labels.

    >>> _label_probability("no", [0.25, 0.75], {"yes": 1})
    0.25
    """
    if label in outputs:
        return scores[outputs[label]]
    return max(0.0, 1.0 - sum(scores[output] for output in outputs.values()))


def add_texts(gathered: Gathered, recipe: Recipe, split: str) -> None:
    """Add the examples' texts from the task of the runs; if they cannot be read, add a note that says why.

    Args:
        gathered: Examples with labels; gets the texts or the note.
        recipe: Says which task, and where its data lies.
        split: The split that was predicted.
    """
    try:
        refuse_lost_data(recipe.task)
        examples = _read_examples(recipe, split)
    except DpstuneError as error:
        gathered.notes.append(f"texts are left out: {error}")
        return
    known = {example.id: example for example in examples}
    if any(
        identity not in known or known[identity].label != each.label for identity, each in gathered.examples.items()
    ):
        gathered.notes.append(f"texts are left out: split {split} holds other examples now than when it was predicted")
        return
    gathered.examples = {identity: fill_in(each, known[identity]) for identity, each in gathered.examples.items()}


def add_task(gathered: Gathered, recipe: Recipe, split: str | None) -> None:
    """Add labels, texts and phenomena of a recipe's task to predictions that came without them.

    Args:
        gathered: Examples by the ids that they have in the task; gets what they lack.
        recipe: The recipe.
        split: The split that was predicted; None for the task's first validation split.

    Raises:
        RequestError: The split lacks an example or a predicted label, or has another label for an example; or the data
            is not what the recipe says.
        RunError: The hub could not be reached.
    """
    examples = _read_examples(recipe, split)
    known = {example.id: example for example in examples}
    labels = {example.label for example in examples}
    for method in gathered.methods.values():
        for ballot in method.ballots:
            for identity, prediction in ballot.predictions.items():
                unlabelled = gathered.examples[identity].label is None and identity not in ballot.right
                if unlabelled and prediction not in labels:
                    raise RequestError(
                        f"{ballot.place}: {prediction!r} is no label of the recipe's task; its labels are "
                        f"{some_of(sorted(map(str, labels)))}"
                    )
    for identity, each in gathered.examples.items():
        if identity not in known:
            first = examples[0].id
            raise RequestError(f"the recipe's task has no example {identity!r}; its ids look like {first!r}")
        if None not in (each.label, known[identity].label) and each.label != known[identity].label:
            raise RequestError(
                f"example {identity!r} has the label {each.label!r} here and {known[identity].label!r} in the recipe's "
                "task; name the recipe of its task, or none"
            )
        gathered.examples[identity] = fill_in(each, known[identity])


def _read_examples(recipe: Recipe, split: str | None) -> list[Example]:
    if split is None:
        split = "validation"
        if not isinstance(recipe.task, UserTask):
            split = get_task(task_name(recipe.task)).validation_splits[0]
    task = read_task(recipe.task, recipe.data, splits=[split])
    found: Examples = next(part for name, part in task.splits.items() if name != "train" or split == "train")
    labels: list[str | None] = [None] * len(found)
    if found.labels is not None:
        labels = [task.label_names[int(label)] for label in found.labels]
    phenomena: Sequence[str | None] = found.phenomena or [None] * len(found)
    return [Example(*row) for row in zip(found.ids, labels, found.texts, phenomena, strict=True)]
