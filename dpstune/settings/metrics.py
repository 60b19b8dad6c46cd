"""The metrics: what each needs, which kind of task it suits, which way is better; one table.

How each is computed stands in ``dpstune.evaluation.metrics``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dpstune.errors import RequestError, did_you_mean
from dpstune.settings.tasks import Kind

Needs = Literal["labels", "values", "probabilities"]


@dataclass(frozen=True)
class Metric:
    """A metric a task may ask for.

    Args:
        name: Its name.
        kinds: The kinds of task it suits.
        needs: What it compares with the gold labels: predicted labels, predicted values, or each label's probability.
        beside: The metrics that are computed with it.
        lower_is_better: Which way is better.
        has_floor: Whether always giving the same answer is a bad one: what a restart must do better than.
        without_value: What a restart without a value counts as in statistics, where no constant answer is a floor.
        has_interval: Whether rows drawn anew show how far it hangs on them.
    """

    name: str
    kinds: tuple[Kind, ...]
    needs: Needs
    beside: tuple[str, ...] = ()
    lower_is_better: bool = False
    has_floor: bool = True
    without_value: float = 0.0
    has_interval: bool = True


_CLASSES: tuple[Kind, ...] = ("classification",)
_VALUES: tuple[Kind, ...] = ("regression",)
_SEVERAL: tuple[Kind, ...] = ("multilabel",)

_TABLE = (
    Metric("accuracy", _CLASSES, "labels"),
    Metric("f1", _CLASSES, "labels", beside=("accuracy",)),
    Metric("macro_f1", _CLASSES + _SEVERAL, "labels"),
    Metric("weighted_f1", _CLASSES, "labels"),
    Metric("balanced_accuracy", _CLASSES, "labels"),
    Metric("matthews", _CLASSES, "labels", beside=("accuracy",)),
    Metric("roc_auc", _CLASSES, "probabilities"),
    Metric("log_loss", _CLASSES, "probabilities", lower_is_better=True),
    # One that always gives the shares of the training labels is well calibrated, and knows nothing.
    # And the fewer different rows, the larger it is: in rows drawn with replacement it is larger than in the rows.
    Metric(
        "calibration_error",
        _CLASSES,
        "probabilities",
        lower_is_better=True,
        has_floor=False,
        without_value=1.0,
        has_interval=False,
    ),
    Metric("micro_f1", _SEVERAL, "labels", beside=("macro_f1", "subset_accuracy")),
    Metric("subset_accuracy", _SEVERAL, "labels"),
    Metric("spearman", _VALUES, "values", beside=("pearson",)),
    Metric("pearson", _VALUES, "values"),
    Metric("rmse", _VALUES, "values", lower_is_better=True),
    Metric("mae", _VALUES, "values", lower_is_better=True),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
_OF_ONE_LABEL = ("f1", "roc_auc")  # of the second, where there are two
USUAL_METRIC: dict[Kind, str] = {
    "classification": "accuracy",
    "regression": "spearman",
    "multilabel": "micro_f1",
}
"""What a user's own task is measured by where it does not say."""


def metrics_of(kind: Kind) -> list[str]:
    """Return the names of the metrics that suit a kind of task.

    >>> metrics_of("regression")
    ['spearman', 'pearson', 'rmse', 'mae']
    """
    return [metric.name for metric in METRICS.values() if kind in metric.kinds]


def check_metrics(names: Sequence[str], kind: Kind | None = None, given: str | None = None) -> tuple[str, ...]:
    """Return the names of metrics, each once there.

    Args:
        names: What was asked for, the headline first.
        kind: The kind of task they should suit; None for any.
        given: Where and how a user asked, such as ``--metric f1``; errors begin with it.

    Raises:
        RequestError: There is no such metric, one is named twice or does not suit the kind, or there is none.
    """
    where = f"{given}: " if given is not None else ""
    if not names:
        raise RequestError(f"{where}names no metric; there are {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            known = metrics_of(kind) if kind is not None else list(METRICS)
            near = did_you_mean(name, METRICS)
            raise RequestError(f"{where}unknown metric {name!r}{near or '; there are ' + ', '.join(known)}")
        if kind is not None and kind not in METRICS[name].kinds:
            suiting = ", ".join(metrics_of(kind))
            raise RequestError(f"{where}metric {name} does not suit a {kind} task; those that do are {suiting}")
        if names.count(name) > 1:
            raise RequestError(f"{where}metric {name} is there twice")
    return tuple(names)


def listed_metrics(asked: str | Sequence[str] | None, usual: str) -> tuple[str, ...]:
    """Return a task's metrics, the headline first.

    Args:
        asked: What its ``metric`` key holds.
        usual: What stands there where it holds nothing.

    >>> listed_metrics(None, "f1"), listed_metrics(["f1", "log_loss"], "accuracy")
    (('f1',), ('f1', 'log_loss'))
    """
    return (asked,) if isinstance(asked, str) else tuple(asked or (usual,))


def told_of_one_label(names: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    """Say of which of two labels some metrics are, where one of them is that of one label.

    Args:
        names: The metrics.
        labels: The task's labels, in the order of their indices.

    >>> list(told_of_one_label(["accuracy", "f1"], ["legit", "fraud"]))
    ["f1 is that of the label 'fraud'."]
    """
    if len(labels) == 2:
        yield from (f"{name} is that of the label {labels[1]!r}." for name in names if name in _OF_ONE_LABEL)


def direction(name: str) -> int:
    """Return 1 where a metric is better when higher, -1 where it is better when lower.

    Times this, the value of any metric is better when higher.
    """
    metric = METRICS.get(name)
    return -1 if metric is not None and metric.lower_is_better else 1


def better(name: str, value: float, other: float) -> bool:
    """Tell whether a metric's value is better than another.

    >>> better("accuracy", 0.8, 0.7), better("log_loss", 0.8, 0.7)
    (True, False)
    """
    return direction(name) * value > direction(name) * other


def beats_one_answer(name: str, value: float, majority: float | None) -> bool:
    """Tell whether a metric's value shows that something was learned.

    That is one better than one answer to all gets, or a correlation above 0.

    Args:
        name: The metric.
        value: Its value.
        majority: What one answer to all gets; None where that has no value, or is no bad one.

    >>> beats_one_answer("rmse", 1.0, 1.2), beats_one_answer("spearman", -0.1, None)
    (True, False)
    """
    floor = 0.0 if majority is None and direction(name) > 0 else majority
    return floor is None or better(name, value, floor)


def constant_answer(metric: str, kind: Kind | None = None) -> str:
    """Say in words what a model that learned nothing would do, by the training labels; see ``constant_metrics``.

    Args:
        metric: The headline metric.
        kind: The kind of task; None takes the first that the metric suits.

    >>> constant_answer("accuracy"), constant_answer("rmse")
    ('always answering the commonest training label', 'always answering the mean training label')
    >>> constant_answer("micro_f1")
    'always answering the labels that more than half of the training examples have'
    """
    known = METRICS.get(metric)
    if kind is None and known is not None:
        kind = known.kinds[0]
    if kind == "regression":
        return "always answering the mean training label"
    if kind == "multilabel":
        return "always answering the labels that more than half of the training examples have"
    if known is not None and known.needs == "probabilities":
        return "always answering the shares of the training labels"
    return "always answering the commonest training label"
