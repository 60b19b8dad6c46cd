"""One ``evaluate.Metric`` per metric family; to compute one needs no network and writes no file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import datasets
import evaluate

BINARY = 2


class LocalMetric(evaluate.Metric):  # type: ignore[misc]
    """Base of the metrics: what ``evaluate`` wants to know of a metric that lives in this package."""

    value_type = "int64"

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description="predictions and references, one per example",
            features=datasets.Features(
                {"predictions": datasets.Value(self.value_type), "references": datasets.Value(self.value_type)}
            ),
        )


class Accuracy(LocalMetric):
    """Share of predictions that equal their reference."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(LocalMetric):
    """F1 of label 1 for two labels; for more, the mean F1 of all predicted or correct labels. Also accuracy."""

    def _compute(self, predictions: Any, references: Any, label_count: int = 2) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score

        counted = None if label_count > BINARY else [1]
        f1 = f1_score(references, predictions, labels=counted, average="macro", zero_division=0.0)
        return {
            "f1": float(f1),
            "accuracy": float(accuracy_score(references, predictions)),
        }


class Matthews(LocalMetric):
    """Matthews correlation; 0 if only one class is predicted or correct. Also accuracy."""

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, matthews_corrcoef

        return {
            "matthews": float(matthews_corrcoef(references, predictions)),
            "accuracy": float(accuracy_score(references, predictions)),
        }


class Spearman(LocalMetric):
    """Spearman's rank correlation and Pearson's; nan if predictions or references are constant."""

    value_type = "float64"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        from scipy.stats import pearsonr, spearmanr

        if len(set(predictions)) == 1 or len(set(references)) == 1:
            return {"spearman": math.nan, "pearson": math.nan}
        return {
            "spearman": float(spearmanr(predictions, references).statistic),
            "pearson": float(pearsonr(predictions, references).statistic),
        }


METRICS: dict[str, type[LocalMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "matthews": Matthews,
    "spearman": Spearman,
}
"""The metric families, by the name of their headline."""


@lru_cache
def load_metric(name: str) -> LocalMetric:
    """Return the ``evaluate.Metric`` whose headline is ``name``."""
    return METRICS[name](keep_in_memory=True)


def compute_metric(
    name: str, predictions: Sequence[float], references: Sequence[float], *, label_count: int = BINARY
) -> dict[str, float | None]:
    """Return a family's metrics, the headline first; None where a metric is undefined.

    Args:
        name: A key of ``METRICS``.
        predictions: Label indices, or values for regression; one per example.
        references: Likewise.
        label_count: How many labels the task has; only F1 needs it.

    >>> compute_metric("matthews", [1, 1, 1], [0, 1, 1])
    {'matthews': 0.0, 'accuracy': 0.6666666666666666}
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"label_count": label_count} if name == "f1" else {}
        values = load_metric(name).compute(predictions=list(predictions), references=list(references), **options)
    return {key: None if math.isnan(value) else value for key, value in values.items()}
