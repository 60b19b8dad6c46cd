"""Compute a model's logits of a split; turn logits into metrics and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpstune.errors import DivergedError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from dpstune.data.examples import Examples
    from dpstune.data.labels import LabelMapping
    from dpstune.data.reading import TaskData
    from dpstune.data.tokens import TokenDataset


@dataclass(frozen=True)
class Evaluation:
    """A model's results on one split.

    Args:
        split: The split's name.
        metrics: The task's metrics, the headline first; None where a metric is undefined. Empty without labels.
        scores: float32 [examples, model labels]: probabilities, or [examples, 1]: the predicted value.
        predictions: One per example: an index into ``names``, the predicted value, or a row of 0 and 1, one per label.
        gold: Likewise; None without labels.
        names: The labels that were compared: the task's, or the model's where the task's are folded into them.
        probabilities: [examples, names]; None for regression, for several labels an example, and if the task has finer
            labels than the model.
    """

    split: str
    metrics: dict[str, float | None]
    scores: np.ndarray[Any, Any]
    predictions: list[Any]
    gold: list[Any] | None
    names: tuple[str, ...]
    probabilities: np.ndarray[Any, Any] | None = None

    @property
    def undefined(self) -> list[str]:
        """The metrics without a value: the model gives every example the same, or all gold labels are equal."""
        return [name for name, value in self.metrics.items() if value is None]


def score(
    model: nn.Module,
    dataset: TokenDataset,
    *,
    width: int,
    batch_size: int,
    device: torch.device,
    value_layer: nn.Linear | None = None,
    longest: int | None = None,
    share: tuple[int, int] = (0, 1),
    between_batches: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Return the logits of every example, float32 [examples, labels], on the CPU, in the dataset's order.

    Args:
        model: A classifier; its train or eval mode is restored.
        dataset: The tokenised split.
        width: The classifier's outputs: its labels, or 1 for regression.
        batch_size: Examples per batch.
        device: Where the model is.
        value_layer: The layer that gives the values of regression, if it does; see ``in_full_precision``.
        longest: Where few shapes should occur, the most tokens that any example could have.
        share: (r, n): compute only every n-th batch from the r-th on; the other rows are zero.
        between_batches: Called before each batch; may raise to stop.
    """
    import torch

    with nullcontext() if value_layer is None else in_full_precision(value_layer):
        rows, logits = compute_by_length(
            model,
            dataset,
            lambda inputs: model(**inputs).logits.float(),
            batch_size=batch_size,
            device=device,
            longest=longest,
            share=share,
            between_batches=between_batches,
        )
    scores = torch.zeros(len(dataset), width)
    if logits:
        scores[rows] = torch.cat(logits).cpu()
    return scores


@contextmanager
def in_full_precision(layer: nn.Linear) -> Iterator[None]:
    """Have a layer, inside the ``with`` block, give float32 where autocast computes in half precision.

    bf16 has 8 bits: of a value of 437 it would leave 436, and of many different values the same.
    """
    import torch
    import torch.nn.functional as F

    def compute_again(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        if output.dtype == torch.float32:
            return None
        with torch.autocast(output.device.type, enabled=False):
            return F.linear(given[0].float(), layer.weight, layer.bias)

    handle = layer.register_forward_hook(compute_again)
    try:
        yield
    finally:
        handle.remove()


def compute_by_length(
    model: nn.Module,
    dataset: TokenDataset,
    compute: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    *,
    batch_size: int,
    device: torch.device,
    longest: int | None = None,
    share: tuple[int, int] = (0, 1),
    between_batches: Callable[[], None] | None = None,
) -> tuple[list[int], list[torch.Tensor]]:
    """Compute something of every example, in batches, with the model in eval mode and without gradients.

    Batches hold examples of similar length, so that little is computed on padding; where the device wants few shapes,
    their widths are rounded up as in training (``rounded_width``).

    Args:
        model: Its train or eval mode is restored.
        dataset: The tokenised split.
        compute: Takes a batch's inputs, without labels; returns a row for each of its examples.
        batch_size, device, longest, share, between_batches: See ``score``.

    Returns:
        The examples' positions in the order of computation, and what was computed of each batch, on the device.
    """
    import torch

    from dpstune.data.passes import rounded_width
    from dpstune.data.tokens import to_device

    order = sorted(range(len(dataset)), key=lambda index: dataset.lengths[index])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rank, ranks = share
    computed: list[torch.Tensor] = []
    rows: list[int] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches[rank::ranks]:
                if between_batches is not None:
                    between_batches()
                tokens = dataset.lengths[batch[-1]]
                padded = tokens if longest is None else rounded_width(tokens, longest)
                inputs = to_device(dataset.collate(batch, padded), device)
                inputs.pop("labels", None)
                computed.append(compute(inputs))
                rows.extend(batch)
    finally:
        model.train(was_training)
    return rows, computed


def evaluate_split(task: TaskData, split: str, logits: torch.Tensor, labels: LabelMapping | None = None) -> Evaluation:
    """Compare logits with the split's labels.

    Args:
        task: The task; its metrics and label names are used.
        split: One of ``task.splits``.
        logits: float32 [examples, labels], as ``score`` returns them.
        labels: How the model's labels are read in this task; None where the model was trained on it.

    Raises:
        DivergedError: A logit is not finite.
    """
    from dpstune.evaluation.metrics import compute_metrics
    from dpstune.evaluation.multilabel import given_labels

    if not bool(logits.isfinite().all()):
        raise DivergedError(
            f"the model's outputs for split {split} are not finite: training has diverged; try a lower "
            "training.learning_rate, more training.warmup_steps or training.precision fp32"
        )
    given = task.splits[split].labels
    gold: list[Any] | None = None if given is None else list(given)
    names, probabilities = task.label_names, None
    if task.kind == "regression":
        scores, predictions = logits, logits[:, 0].tolist()
    elif task.kind == "multilabel":
        scores = logits.sigmoid()
        predictions = given_labels(scores)
    else:
        scores, predictions = logits.softmax(-1), logits.argmax(-1).tolist()
        probabilities = scores.numpy() if labels is None else labels.fold(scores.numpy())
        if labels is not None:
            names = labels.names
            predictions = [labels.predictions[index] for index in predictions]
            gold = None if gold is None else [labels.gold[index] for index in gold]
    metrics: dict[str, float | None] = {}
    if gold is not None:
        metrics = compute_metrics(task.metrics, predictions, gold, label_count=len(names), scores=probabilities)
    return Evaluation(split, metrics, scores.numpy(), predictions, gold, names, probabilities)


def prediction_columns(task: TaskData, evaluation: Evaluation) -> dict[str, list[Any]]:
    """Return the columns of a predictions file: id, label and prediction (label names, or values), scores.

    Where an example may have several labels, those are lists of names.
    """
    from dpstune.evaluation.multilabel import names_of

    examples: Examples = task.splits[evaluation.split]
    gold = evaluation.gold if evaluation.gold is not None else [None] * len(examples)
    predictions = evaluation.predictions
    if task.kind == "multilabel":
        gold = [None if row is None else names_of(row, evaluation.names) for row in gold]
        predictions = [names_of(row, evaluation.names) for row in predictions]
    elif evaluation.names:
        gold = [None if index is None else evaluation.names[index] for index in gold]
        predictions = [evaluation.names[index] for index in predictions]
    columns = {
        "id": examples.ids,
        "label": gold,
        "prediction": predictions,
        "scores": evaluation.scores.tolist(),
    }
    if examples.phenomena is not None:
        columns["phenomenon"] = examples.phenomena
    return columns
