"""One ``evaluate.Metric`` a metric, all local: computing one needs no network and writes no file.

Which there are stands in ``dpstune.settings.metrics``; here is how each is computed.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import datasets
import evaluate

from dpstune.evaluation.multilabel import commonest_labels
from dpstune.settings.metrics import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]

BINARY = 2
BINS = 15
"""Equal-width bins of the top probability (Guo et al. 2017, section 2)."""


class LocalMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of the table and those beside it, as ``evaluate`` knows metrics.

    Args:
        name: A key of ``METRICS``.
        several: Whether an example may have several labels: a row of 0 and 1 for each.
    """

    def __init__(self, name: str, several: bool = False) -> None:
        self.names = (name, *METRICS[name].beside)
        super().__init__(config_name="multilabel" if several else None, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        needs = METRICS[self.names[0]].needs
        references = datasets.Value("float64" if needs == "values" else "int64")
        if self.config_name == "multilabel":
            references = datasets.Sequence(references)
        predictions = datasets.Sequence(datasets.Value("float64")) if needs == "probabilities" else references
        return evaluate.MetricInfo(
            description=COMPUTED[self.names[0]].__doc__ or "",
            citation="",
            inputs_description="predictions and references, one an example",
            features=datasets.Features({"predictions": predictions, "references": references}),
        )

    def _compute(self, predictions: Any, references: Any, label_count: int = BINARY) -> dict[str, float]:
        import numpy as np

        answers, gold = np.array(list(predictions)), np.array(list(references))
        return {name: float(COMPUTED[name](gold, answers, label_count)) for name in self.names}


def _accuracy(gold: Array, answers: Array, label_count: int) -> float:
    """Share of predictions that equal their reference."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(gold, answers))


def _f1(gold: Array, answers: Array, label_count: int) -> float:
    """F1 of label 1 for two labels; for more the mean over those that are answered or right."""
    from sklearn.metrics import f1_score

    counted = None if label_count > BINARY else [1]
    return float(f1_score(gold, answers, labels=counted, average="macro", zero_division=0.0))


def _macro_f1(gold: Array, answers: Array, label_count: int) -> float:
    """Mean of the F1 of each label, over those that are answered or right; of several labels an example over all."""
    from sklearn.metrics import f1_score

    one_of_several = gold.ndim > 1 and label_count == 1  # scikit-learn takes a single column for two classes
    counted = [1] if one_of_several else None
    return float(f1_score(gold, answers, labels=counted, average="macro", zero_division=0.0))


def _micro_f1(gold: Array, answers: Array, label_count: int) -> float:
    """F1 of all labels of all examples together."""
    from sklearn.metrics import f1_score

    return float(f1_score(gold.ravel(), answers.ravel(), zero_division=0.0))


def _weighted_f1(gold: Array, answers: Array, label_count: int) -> float:
    """Mean of the F1 of each label, weighted by how many examples have it."""
    from sklearn.metrics import f1_score

    return float(f1_score(gold, answers, average="weighted", zero_division=0.0))


def _balanced_accuracy(gold: Array, answers: Array, label_count: int) -> float:
    """Mean of the recall of each label that some example has."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(gold, answers))


def _matthews(gold: Array, answers: Array, label_count: int) -> float:
    """Matthews correlation; 0 where one class alone is predicted or present."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(gold, answers))


def _roc_auc(gold: Array, answers: Array, label_count: int) -> float:
    """Area under the ROC curve of the second of two labels; for more the mean of each label against the rest.

    A label that no example has, or every one, has no curve and is left out; nan where that is all of them.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    counted = [1] if label_count == BINARY else range(label_count)
    curves = [label for label in counted if 0 < np.count_nonzero(gold == label) < len(gold)]
    areas = [roc_auc_score(gold == label, answers[:, label]) for label in curves]
    return float(np.mean(areas)) if areas else math.nan


def _log_loss(gold: Array, answers: Array, label_count: int) -> float:
    """Mean of -log of the probability of the gold label, in nats; a probability below 2.2e-16 counts as that."""
    from sklearn.metrics import log_loss

    return float(log_loss(gold, answers, labels=list(range(label_count))))


def _calibration_error(gold: Array, answers: Array, label_count: int) -> float:
    """Expected calibration error (Guo et al. 2017); see ``reliability``."""
    import numpy as np

    counts, confidence, accuracy = reliability(gold, answers)
    seen = counts > 0
    return float(np.sum(counts[seen] * np.abs(accuracy[seen] - confidence[seen])) / len(gold))


def _subset_accuracy(gold: Array, answers: Array, label_count: int) -> float:
    """Share of examples all of whose labels are right, and no other is answered."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(gold, answers))


def _spearman(gold: Array, answers: Array, label_count: int) -> float:
    """Spearman's rank correlation; nan where either side is constant."""
    from scipy.stats import spearmanr

    return math.nan if _constant(gold, answers) else float(spearmanr(answers, gold).statistic)


def _pearson(gold: Array, answers: Array, label_count: int) -> float:
    """Pearson's correlation; nan where either side is constant."""
    from scipy.stats import pearsonr

    return math.nan if _constant(gold, answers) else float(pearsonr(answers, gold).statistic)


def _rmse(gold: Array, answers: Array, label_count: int) -> float:
    """Root of the mean squared error, in the labels' unit."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(gold, answers))


def _mae(gold: Array, answers: Array, label_count: int) -> float:
    """Mean absolute error, in the labels' unit."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(gold, answers))


def _constant(*sides: Array) -> bool:
    return any(len(set(side.tolist())) == 1 for side in sides)


COMPUTED: dict[str, Callable[[Array, Array, int], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "balanced_accuracy": _balanced_accuracy,
    "matthews": _matthews,
    "roc_auc": _roc_auc,
    "log_loss": _log_loss,
    "calibration_error": _calibration_error,
    "micro_f1": _micro_f1,
    "subset_accuracy": _subset_accuracy,
    "spearman": _spearman,
    "pearson": _pearson,
    "rmse": _rmse,
    "mae": _mae,
}
"""How each metric of the table is computed: of gold labels, what it needs (see ``Metric.needs``), number of labels."""


def reliability(
    gold: ArrayLike, probabilities: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Sort examples into bins by the probability of the likeliest label: the reliability diagram.

    Bin m of the 15 holds those whose probability lies in ((m-1)/15, m/15]. With n_m examples in it, of mean probability
    conf_m, of which the share acc_m is right, the expected calibration error is sum over m of n_m/n * |acc_m - conf_m|.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Args:
        gold: Label indices, shape (n,).
        probabilities: Shape (n, labels).

    Returns:
        Examples, mean probability and share that is right of each bin, shape (15,) each; nan in an empty bin.

    >>> counts, confidence, accuracy = reliability([0, 1], [[0.9, 0.1], [0.9, 0.1]])
    >>> int(counts[13]), round(float(confidence[13]), 2), float(accuracy[13])
    (2, 0.9, 0.5)
    """
    import numpy as np

    scores = np.asarray(probabilities, dtype=np.float64)
    top = scores.max(axis=1)
    right = scores.argmax(axis=1) == np.asarray(gold)
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, weights=top, minlength=BINS) / counts
        accuracy = np.bincount(bins, weights=right, minlength=BINS) / counts
    return counts, confidence, accuracy


@lru_cache
def load_metric(name: str, several: bool = False) -> LocalMetric:
    """Return the ``evaluate.Metric`` whose headline is ``name``; of one label an example, or of several."""
    return LocalMetric(name, several)


def compute_metrics(
    names: Sequence[str],
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    label_count: int = BINARY,
    scores: Sequence[Sequence[float]] | NDArray[Any] | None = None,
) -> dict[str, float | None]:
    """Return metrics and those beside them, the headline first; None where one is undefined.

    Args:
        names: Keys of ``METRICS``, the headline first.
        predictions: Label indices, values for regression, or rows of 0 and 1 where an example may have several labels;
            one an example.
        references: Likewise.
        label_count: How many labels the task has.
        scores: Probabilities, [examples, labels]; None where they are not known: what needs them is undefined.

    >>> compute_metrics(["matthews"], [1, 1, 1], [0, 1, 1])
    {'matthews': 0.0, 'accuracy': 0.6666666666666666}
    >>> compute_metrics(["roc_auc"], [0, 1], [0, 1], scores=[[0.9, 0.1], [0.2, 0.8]])
    {'roc_auc': 1.0}
    >>> compute_metrics(["micro_f1"], [(1, 0), (1, 1)], [(1, 0), (0, 1)])
    {'micro_f1': 0.8, 'macro_f1': 0.8333333333333333, 'subset_accuracy': 0.5}
    """
    several = isinstance(references[0], tuple | list)
    found: dict[str, float | None] = {}
    for name in names:
        answers: Sequence[Any] | NDArray[Any] | None = predictions
        if METRICS[name].needs == "probabilities":
            answers = scores
        if answers is None:
            found[name] = None
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = load_metric(name, several).compute(
                predictions=list(answers),
                references=list(references),
                label_count=label_count,
            )
        found |= {key: None if math.isnan(value) else value for key, value in values.items() if key not in found}
    return found


def constant_metrics(
    names: Sequence[str], known: Sequence[Any], references: Sequence[Any], *, label_count: int
) -> dict[str, float | None]:
    """Return what always giving the same answer gets: no model should do worse.

    That is the commonest label, with the share of each label as its probability; for regression the mean; where an
    example may have several labels, those that more than half of the examples have.

    Args:
        names: Keys of ``METRICS``, the headline first.
        known: The labels the answer is chosen by, such as the training examples'.
        references: The labels it is compared with.
        label_count: How many labels the task has; 0 for regression.

    Returns:
        See ``compute_metrics``; None too where a constant answer is no floor.

    >>> constant_metrics(["accuracy"], [0, 1, 1], [0, 0, 0, 1], label_count=2)
    {'accuracy': 0.25}
    """
    answer: Any
    shares: list[list[float]] | None = None
    if label_count == 0:
        answer = sum(known) / len(known)
    elif isinstance(known[0], tuple | list):
        answer = commonest_labels(known)
    else:
        counts = Counter(known)
        answer = counts.most_common(1)[0][0]
        shares = [[counts[label] / len(known) for label in range(label_count)]] * len(references)
    values = compute_metrics(names, [answer] * len(references), references, label_count=label_count, scores=shares)
    return {name: value if METRICS[name].has_floor else None for name, value in values.items()}
