"""From what a recipe says of the loss, and the training labels, to a criterion."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dpstune.errors import RequestError, did_you_mean, shortened, some_of
from dpstune.methods.criterion import Criterion
from dpstune.settings.sections import TrainingSection

if TYPE_CHECKING:
    import torch

    from dpstune.data.reading import TaskData


def build_criterion(training: TrainingSection, task: TaskData, device: torch.device | None = None) -> Criterion | None:
    """Return the loss that a recipe asks for; None for the model's own.

    Args:
        training: Label smoothing and class weights.
        task: The examples that are trained on; where there are none, as in a profile, all labels weigh the same.
        device: Where the weights are kept.

    Raises:
        RequestError: A weight is given to a label that the task does not have.
    """
    import torch

    if training.class_weights is None and not training.label_smoothing:
        return None
    weights = None
    if training.class_weights is not None and task.label_names:
        weights = torch.tensor(_label_weights(training, task), dtype=torch.float32, device=device)
    return Criterion(weights, training.label_smoothing, multilabel=task.kind == "multilabel")


def _label_weights(training: TrainingSection, task: TaskData) -> list[float]:
    given = training.class_weights
    train = task.splits.get("train")
    if train is None or train.labels is None:
        return [1.0] * len(task.label_names)
    if given == "balanced" and task.kind == "multilabel":
        return balanced_positives(train.labels)
    if given == "balanced":
        return balanced_weights([int(label) for label in train.labels], len(task.label_names))
    assert isinstance(given, dict)
    for label in given:
        if label not in task.label_names:
            hint = did_you_mean(label, task.label_names)
            raise RequestError(
                f"training.class_weights: {task.name} has no label {shortened(repr(label))}; "
                f"its labels are {some_of(task.label_names)}{hint}"
            )
    return [given.get(label, 1.0) for label in task.label_names]


def balanced_weights(labels: list[int], label_count: int) -> list[float]:
    """Return n / (labels * count) for each label, as scikit-learn's ``compute_class_weight`` has it.

    So the labels weigh the same together, and the examples 1 on average. A label without an example counts for none and
    weighs 1.

    Args:
        labels: Of the training examples.
        label_count: How many labels the task has.

    >>> balanced_weights([0, 0, 0, 1], 3)
    [0.6666666666666666, 2.0, 1.0]
    """
    counts = Counter(labels)
    return [len(labels) / (len(counts) * counts[label]) if label in counts else 1.0 for label in range(label_count)]


def balanced_positives(rows: list[tuple[int, ...]]) -> list[float]:
    """Return negatives / positives for each label, so that both weigh the same; 1 where either has no example.

    Args:
        rows: A 0 or 1 for each label, a row a training example.

    >>> balanced_positives([(1, 0, 1), (0, 0, 1), (0, 0, 1)])
    [2.0, 1.0, 1.0]
    """
    positives = [sum(column) for column in zip(*rows, strict=True)]
    return [(len(rows) - count) / count if 0 < count < len(rows) else 1.0 for count in positives]
