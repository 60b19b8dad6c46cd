"""The interval of a score over rows."""

import numpy as np
import pytest
import torch

from dpstune.data.examples import Examples
from dpstune.data.reading import TaskData
from dpstune.evaluation.scoring import evaluate_split
from dpstune.report.tables import interval_lines
from dpstune.studies.row_interval import intervals_over_rows


def evaluated(metric, gold, logits, kind="classification", names=("no", "yes"), texts=None, groups=None):
    """Return a task of one split, and what logits score on it."""
    ids = [str(number) for number in range(len(gold))]
    examples = Examples(ids, texts or [(f"row {number}",) for number in ids], list(gold), groups=groups)
    task = TaskData("task", kind, names, metric, {"rows": examples}, ())
    return task, {"rows": evaluate_split(task, "rows", torch.as_tensor(logits, dtype=torch.float32))}


def with_share_right(rows, right):
    """Return gold labels, and logits of which so many say the same."""
    gold = [number % 2 for number in range(rows)]
    answers = [label if number < right else 1 - label for number, label in enumerate(gold)]
    return gold, [[1.0 - answer, float(answer)] for answer in answers]


def test_that_of_an_accuracy_is_as_wide_as_the_binomials():
    gold, logits = with_share_right(400, 320)
    [found] = intervals_over_rows(*evaluated("accuracy", gold, logits)).values()
    assert found.value == 0.8
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (found.low, found.high) == pytest.approx((0.8 - spread, 0.8 + spread), abs=0.006)


def test_rows_with_equal_texts_count_as_one():
    gold, logits = with_share_right(40, 30)
    texts = [(f"row {number}",) for number in range(40)]
    [once] = intervals_over_rows(*evaluated("accuracy", gold, logits, texts=texts)).values()
    [often] = intervals_over_rows(*evaluated("accuracy", gold * 10, logits * 10, texts=texts * 10)).values()
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_rows_of_one_group_count_as_one():
    gold, logits = with_share_right(40, 30)
    groups = [f"group {number}" for number in range(40)]
    [once] = intervals_over_rows(*evaluated("accuracy", gold, logits)).values()
    [grouped] = intervals_over_rows(*evaluated("accuracy", gold * 10, logits * 10, groups=groups * 10)).values()
    [alone] = intervals_over_rows(*evaluated("accuracy", gold * 10, logits * 10, groups=[None] * 400)).values()
    assert (grouped.value, grouped.low, grouped.high) == pytest.approx((once.value, once.low, once.high))
    [line] = interval_lines("accuracy", {"rows": grouped})
    assert line.endswith(", 40 groups drawn)")
    assert "drawn" not in interval_lines("accuracy", {"rows": alone})[0]
    assert alone.high - alone.low < (grouped.high - grouped.low) / 2


@pytest.mark.parametrize("metric", ["f1", "macro_f1", "matthews", "roc_auc", "log_loss"])
def test_the_value_is_the_metrics_and_lies_inside(metric):
    rng = np.random.default_rng(3)
    gold = rng.integers(2, size=80)
    logits = rng.normal(size=(80, 2)) + np.eye(2)[gold]
    task, evaluations = evaluated(metric, gold.tolist(), logits)
    [found] = intervals_over_rows(task, evaluations).values()
    assert found.value == pytest.approx(evaluations["rows"].metrics[metric])
    assert found.low < found.value < found.high


def test_a_calibration_error_has_none():
    """In rows drawn with replacement it is larger: an interval of draws may not even hold the value."""
    gold, logits = with_share_right(400, 320)
    [found] = intervals_over_rows(*evaluated("calibration_error", gold, logits)).values()
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    [line] = interval_lines("calibration_error", {"rows": found})
    assert line.endswith("(no interval: in rows drawn anew it is too large)")


def test_values_and_several_labels_have_one_too():
    rng = np.random.default_rng(4)
    gold = rng.normal(size=60)
    task, evaluations = evaluated("rmse", gold.tolist(), (gold + 0.5 * rng.normal(size=60))[:, None], "regression", ())
    [found] = intervals_over_rows(task, evaluations).values()
    assert found.low < found.value < found.high
    rows = [tuple(row) for row in rng.integers(2, size=(60, 3)).tolist()]
    logits = rng.normal(size=(60, 3)) + 2 * np.array(rows) - 1
    task, evaluations = evaluated("micro_f1", rows, logits, "multilabel", ("a", "b", "c"))
    [found] = intervals_over_rows(task, evaluations).values()
    assert found.value == pytest.approx(evaluations["rows"].metrics["micro_f1"])
    assert found.low < found.value < found.high


def test_where_all_answers_are_right_there_is_none():
    gold, logits = with_share_right(20, 20)
    [found] = intervals_over_rows(*evaluated("accuracy", gold, logits)).values()
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_an_undefined_score_has_none():
    task, evaluations = evaluated("spearman", [1.0, 2.0, 3.0], [[1.0], [1.0], [1.0]], "regression", ())
    assert intervals_over_rows(task, evaluations) == {}
