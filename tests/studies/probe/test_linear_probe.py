"""A linear probe on features that were made so that its score is known."""

from dataclasses import astuple, replace

import numpy as np
import pytest

from dpstune.data.examples import Examples
from dpstune.data.reading import TaskData
from dpstune.errors import RequestError
from dpstune.studies.probe.linear_probe import (
    ProbedTask,
    answer_linearly,
    compare_with_pretrained,
    mean_of_defined,
    read_probed_task,
    score_of,
)


def examples(labels):
    return Examples([str(n) for n in range(len(labels))], [(f"text {n}",) for n in range(len(labels))], list(labels))


def probed(train, scored, kind="classification", names=("no", "maybe", "yes"), metric="accuracy"):
    data = TaskData("made", kind, names, metric, {"validation": examples(scored)}, ())
    return ProbedTask("made", data, "validation", examples(train), examples(scored))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def features(labels, rng, noise):
    """A direction for each label, hidden among others of greater variance."""
    x = rng.normal(size=(len(labels), 12)) * noise
    x[np.arange(len(labels)), labels] += 1.0
    x[:, 6:] *= 50
    return x.astype(np.float32)


def test_labels_that_features_hold_are_read_off_them_and_others_are_not(rng):
    train, scored = rng.integers(3, size=200), rng.integers(3, size=100)
    task = probed(train.tolist(), scored.tolist())
    right = answer_linearly(task, features(train, rng, 0.1), features(scored, rng, 0.1))
    none = answer_linearly(task, rng.normal(size=(200, 12)), rng.normal(size=(100, 12)))
    assert score_of(task, right) == 1.0
    assert score_of(task, none) < 0.5
    assert right.scores.sum(axis=1) == pytest.approx(1.0)
    assert right.predictions.tolist() == scored.tolist()


def test_a_label_that_no_training_row_has_is_never_answered(rng):
    train, scored = rng.integers(2, size=60), rng.integers(3, size=30)
    task = probed(train.tolist(), scored.tolist())
    found = answer_linearly(task, features(train, rng, 0.3), features(scored, rng, 0.3))
    assert set(found.predictions.tolist()) <= {0, 1}
    assert (found.scores[:, 2] == 0).all()


def test_values_are_read_by_ridge_regression(rng):
    x, y = rng.normal(size=(120, 5)), rng.normal(size=(40, 5))
    weights = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    task = probed((x @ weights).tolist(), (y @ weights).tolist(), kind="regression", names=(), metric="spearman")
    assert score_of(task, answer_linearly(task, x, y)) > 0.99


@pytest.mark.parametrize(
    ("metric", "kind", "better"),
    [("accuracy", "classification", 1), ("log_loss", "classification", -1), ("rmse", "regression", -1)],
)
def test_the_comparison_is_of_the_mean_over_restarts_with_an_interval_that_holds_it(rng, metric, kind, better):
    names = ("no", "maybe", "yes") if kind == "classification" else ()
    train, scored = rng.integers(3, size=200), rng.integers(3, size=80)
    if kind == "regression":
        task = probed(train.astype(float).tolist(), scored.astype(float).tolist(), kind, names, metric)
    else:
        task = probed(train.tolist(), scored.tolist(), kind, names, metric)
    noises = {"one": 0.3, "two": 0.5, "before": 3.0}
    found = {
        name: answer_linearly(task, features(train, rng, noise), features(scored, rng, noise))
        for name, noise in noises.items()
    }
    verdict = compare_with_pretrained(task, [found["one"], found["two"]], found["before"])
    scores = {name: score_of(task, each) for name, each in found.items()}
    assert verdict.value == pytest.approx((scores["one"] + scores["two"]) / 2)
    assert verdict.difference == pytest.approx(verdict.value - scores["before"])
    assert verdict.difference * better > 0
    assert verdict.difference_low < verdict.difference < verdict.difference_high
    assert verdict.difference_low * verdict.difference_high > 0  # it is told apart
    same = compare_with_pretrained(task, [found["one"]], found["one"])
    assert (same.difference, same.difference_low, same.difference_high) == (0.0, 0.0, 0.0)


def test_rows_of_one_group_are_drawn_together(rng):
    train, scored = rng.integers(3, size=200), rng.integers(3, size=80)
    alone = probed(train.tolist(), scored.tolist())
    groups = [f"group {n % 8}" for n in range(80)]
    grouped = replace(alone, scored=replace(alone.scored, groups=groups))
    found = answer_linearly(alone, features(train, rng, 0.5), features(scored, rng, 0.5))
    right = np.array([np.mean((found.predictions == scored)[n::8]) for n in range(8)])
    one, other = (compare_with_pretrained(task, [found], found) for task in (alone, grouped))
    assert one.value == other.value
    assert right.min() <= other.low < other.high <= right.max()
    assert (one.low, one.high) != (other.low, other.high)


def test_a_score_that_these_rows_leave_undefined_is_no_zero(rng):
    train = rng.integers(2, size=60)
    task = probed(train.tolist(), [1] * 20, names=("no", "yes"), metric="roc_auc")
    found = answer_linearly(task, features(train, rng, 0.3), features(np.ones(20, dtype=int), rng, 0.3))
    assert score_of(task, found) is None
    assert set(astuple(compare_with_pretrained(task, [found, found], found))[:6]) == {None}


def test_samples_of_rows_that_leave_a_score_undefined_are_left_out_of_its_interval(rng):
    train, scored = rng.integers(2, size=60), np.array([1] + [0] * 11)
    task = probed(train.tolist(), scored.tolist(), names=("no", "yes"), metric="roc_auc")
    found = answer_linearly(task, features(train, rng, 0.1), features(scored, rng, 0.1))
    verdict = compare_with_pretrained(task, [found], found)
    assert (verdict.value, verdict.low, verdict.high) == (1.0, 1.0, 1.0)  # a third of the samples have no yes


def test_an_undefined_correlation_counts_as_0_unless_no_answer_could_have_one(rng):
    values = rng.normal(size=30)
    task = probed(values.tolist(), values[:12].tolist(), kind="regression", names=(), metric="spearman")
    same = answer_linearly(task, np.zeros((30, 2)), np.zeros((12, 2)))
    assert score_of(task, same) == 0.0
    right = answer_linearly(task, values[:, None], values[:12, None])
    verdict = compare_with_pretrained(task, [right, same], same)
    assert verdict.value == pytest.approx(0.5)
    assert verdict.difference == pytest.approx(0.5)
    flat = probed(values.tolist(), [1.0] * 12, kind="regression", names=(), metric="spearman")
    assert score_of(flat, answer_linearly(flat, values[:, None], values[:12, None])) is None


def test_the_mean_is_of_the_scores_that_there_are():
    assert mean_of_defined([0.5, None, 1.0]) == 0.75
    assert mean_of_defined([None, None]) is None


def test_a_task_is_read_with_the_same_rows_each_time_and_no_more_than_asked():
    one, again = (read_probed_task("toy-rte", (), 50, 20) for _ in range(2))
    assert (len(one.train), len(one.scored), one.split) == (50, 20, "validation")
    assert (one.train.ids, one.scored.ids) == (again.train.ids, again.scored.ids)
    assert 0.3 < one.majority < 0.8
    whole = read_probed_task("toy-rte:test", (), 10**6, 10**6)
    assert whole.split == "test"
    assert whole.name == "toy-rte test"
    assert len(whole.train) > 50


def test_tasks_that_cannot_be_probed_are_refused(tmp_path):
    with pytest.raises(RequestError, match="unknown task 'toy-rt'; did you mean"):
        read_probed_task("toy-rt", (), 50, 20)
    with pytest.raises(RequestError, match="the probe is trained on split train; name another"):
        read_probed_task("toy-rte:train", (), 50, 20)
    (tmp_path / "tags.jsonl").write_text('{"t": "a", "l": ["x"]}\n{"t": "b", "l": []}\n{"t": "c", "l": ["y"]}\n')
    (tmp_path / "rare.csv").write_text("t,l\nd,y\n" + "".join(f"{n},x\n" for n in range(10)))
    (tmp_path / "few.csv").write_text("t,l\n" + "a,x\nb,y\n" * 4)
    for name, task in (
        ("few", "{files: {train: rare.csv, validation: few.csv}, text: t, label: l}"),
        ("tags", "{files: {train: tags.jsonl, validation: tags.jsonl}, text: t, label: l, kind: multilabel}"),
        ("rare", "{files: {train: rare.csv, validation: rare.csv}, text: t, label: l}"),
    ):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{name: minilm}}\ntask: {task}\n")
    with pytest.raises(RequestError, match="multilabel; a linear probe reads one label"):
        read_probed_task(str(tmp_path / "tags.yaml"), (), 50, 20)
    with pytest.raises(RequestError, match=r"8 rows of split validation cannot show .* it takes 10 or more"):
        read_probed_task(str(tmp_path / "few.yaml"), (), 50, 20)
    with pytest.raises(RequestError, match="one alone has the label 'y'"):
        read_probed_task(str(tmp_path / "rare.yaml"), (), 50, 20)
