"""One ``evaluate.Metric`` a metric, all local: computing one needs no network and writes no file.

Which there are stands in ``dpstune.settings.metrics``; here is how each is computed.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

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
"""Equal-width bins of the answer's probability (Guo et al. 2017, section 2)."""


class Answered(NamedTuple):
    """Examples and what was answered to them.

    Args:
        gold: Label indices or values, shape (n,), or rows of 0 and 1 where an example may have several labels.
        answers: Likewise.
        label_count: How many labels the task has.
        probabilities: Of each label, shape (n, labels); None where no metric that needs them is asked for.
    """

    gold: Array
    answers: Array
    label_count: int = BINARY
    probabilities: Array | None = None


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

    def _compute(
        self, predictions: Any, references: Any, label_count: int = BINARY, answers: Any = None
    ) -> dict[str, float]:
        """Compute the metrics.

        Args:
            predictions: What the headline needs, one an example.
            references: The gold labels or values, likewise.
            label_count: How many labels the task has.
            answers: The labels that were answered, where predictions are probabilities; None for the likeliest.
        """
        import numpy as np

        given, gold, probabilities = np.array(list(predictions)), np.array(list(references)), None
        if METRICS[self.names[0]].needs == "probabilities":
            probabilities = given
            given = given.argmax(axis=1) if answers is None else np.array(list(answers))
        examples = Answered(gold, given, label_count, probabilities)
        return {name: float(COMPUTED[name](examples)) for name in self.names}


def _accuracy(examples: Answered) -> float:
    """Share of answers that are right; of several labels an example, with all its labels right and no other."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(examples.gold, examples.answers))


def _f1(examples: Answered) -> float:
    """F1 of label 1 for two labels; for more the mean over those that are answered or right."""
    from sklearn.metrics import f1_score

    counted = None if examples.label_count > BINARY else [1]
    return float(f1_score(examples.gold, examples.answers, labels=counted, average="macro", zero_division=0.0))


def _macro_f1(examples: Answered) -> float:
    """Mean of the F1 of each label, over those that are answered or right; of several labels an example over all."""
    from sklearn.metrics import f1_score

    # scikit-learn takes a single column of several labels for two classes
    one_of_several = examples.gold.ndim > 1 and examples.label_count == 1
    counted = [1] if one_of_several else None
    return float(f1_score(examples.gold, examples.answers, labels=counted, average="macro", zero_division=0.0))


def _micro_f1(examples: Answered) -> float:
    """F1 of all labels of all examples together."""
    from sklearn.metrics import f1_score

    return float(f1_score(examples.gold.ravel(), examples.answers.ravel(), zero_division=0.0))


def _weighted_f1(examples: Answered) -> float:
    """Mean of the F1 of each label, weighted by how many examples have it."""
    from sklearn.metrics import f1_score

    return float(f1_score(examples.gold, examples.answers, average="weighted", zero_division=0.0))


def _balanced_accuracy(examples: Answered) -> float:
    """Mean of the recall of each label that some example has."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(examples.gold, examples.answers))


def _matthews(examples: Answered) -> float:
    """Matthews correlation; 0 where one class alone is predicted or present."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(examples.gold, examples.answers))


def _roc_auc(examples: Answered) -> float:
    """Area under the ROC curve of the second of two labels; for more the mean of each label against the rest.

    A label that no example has, or every one, has no curve and is left out; nan where that is all of them.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    gold, probabilities, label_count = examples.gold, examples.probabilities, examples.label_count
    assert probabilities is not None
    counted = [1] if label_count == BINARY else range(label_count)
    curves = [label for label in counted if 0 < np.count_nonzero(gold == label) < len(gold)]
    areas = [roc_auc_score(gold == label, probabilities[:, label]) for label in curves]
    return float(np.mean(areas)) if areas else math.nan


def _log_loss(examples: Answered) -> float:
    """Mean of -log of the probability of the gold label, in nats; a probability below 2.2e-16 counts as that."""
    import numpy as np
    from sklearn.metrics import log_loss

    probabilities = np.asarray(examples.probabilities, dtype=np.float64)  # of float32, 1.2e-7 would be the least
    return float(log_loss(examples.gold, probabilities, labels=list(range(examples.label_count))))


def _calibration_error(examples: Answered) -> float:
    """Expected calibration error (Guo et al. 2017); see ``reliability``."""
    assert examples.probabilities is not None
    return reliability(examples.gold, examples.answers, examples.probabilities).error


def _spearman(examples: Answered) -> float:
    """Spearman's rank correlation; nan where either side is constant."""
    from scipy.stats import spearmanr

    return math.nan if _constant(examples) else float(spearmanr(examples.answers, examples.gold).statistic)


def _pearson(examples: Answered) -> float:
    """Pearson's correlation; nan where either side is constant."""
    from scipy.stats import pearsonr

    return math.nan if _constant(examples) else float(pearsonr(examples.answers, examples.gold).statistic)


def _rmse(examples: Answered) -> float:
    """Root of the mean squared error, in the labels' unit."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(examples.gold, examples.answers))


def _mae(examples: Answered) -> float:
    """Mean absolute error, in the labels' unit."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(examples.gold, examples.answers))


def _constant(examples: Answered) -> bool:
    return any(len(set(side.tolist())) == 1 for side in (examples.gold, examples.answers))


COMPUTED: dict[str, Callable[[Answered], float]] = {
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
    "subset_accuracy": _accuracy,
    "spearman": _spearman,
    "pearson": _pearson,
    "rmse": _rmse,
    "mae": _mae,
}
"""How each metric of the table is computed."""


class Reliability(NamedTuple):
    """Examples sorted into bins by the probability of their answer; shape (15,) each.

    Args:
        counts: How many examples lie in each bin.
        confidence: Their mean probability; nan in an empty bin.
        accuracy: The share of them whose answer is right; likewise.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: sum over the bins m of n_m/n * |acc_m - conf_m|."""
        seen = self.counts > 0
        apart = abs(self.accuracy[seen] - self.confidence[seen])
        return float((self.counts[seen] * apart).sum() / self.counts.sum())


def reliability(gold: ArrayLike, answers: ArrayLike, probabilities: ArrayLike) -> Reliability:
    """Sort examples into bins by the probability of their answer: the reliability diagram.

    Bin m of the 15 holds those whose probability lies in ((m-1)/15, m/15]. With n_m examples in it, of mean probability
    conf_m, of which the share acc_m is right, the expected calibration error is sum over m of n_m/n * |acc_m - conf_m|.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Args:
        gold: Label indices, shape (n,).
        answers: Likewise; not always the likeliest label, where a model's labels are folded.
        probabilities: Shape (n, labels).

    >>> found = reliability([0, 1], [0, 0], [[0.9, 0.1], [0.9, 0.1]])
    >>> int(found.counts[13]), round(float(found.confidence[13]), 2), float(found.accuracy[13]), round(found.error, 2)
    (2, 0.9, 0.5, 0.4)
    """
    import numpy as np

    given = np.asarray(answers)
    sure = np.asarray(probabilities, dtype=np.float64)[np.arange(len(given)), given]
    right = given == np.asarray(gold)
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, weights=sure, minlength=BINS) / counts
        accuracy = np.bincount(bins, weights=right, minlength=BINS) / counts
    return Reliability(counts, confidence, accuracy)


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
        of_probabilities = METRICS[name].needs == "probabilities"
        needed: Sequence[Any] | NDArray[Any] | None = scores if of_probabilities else predictions
        if needed is None:
            found[name] = None
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = load_metric(name, several).compute(
                predictions=list(needed),
                references=list(references),
                label_count=label_count,
                answers=predictions,
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


def constant_value(metric: str, known: Sequence[Any], references: Sequence[Any], *, label_count: int) -> float | None:
    """Return one metric of always giving the same answer; see ``constant_metrics``."""
    return constant_metrics([metric], known, references, label_count=label_count)[metric]
