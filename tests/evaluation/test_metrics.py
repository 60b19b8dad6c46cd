import socket

import evaluate
import numpy as np
import pytest
from hypothesis import given as given_examples
from hypothesis import settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from dpstune.evaluation.metrics import (
    BINS,
    COMPUTED,
    Answered,
    compute_metrics,
    constant_metrics,
    load_metric,
    reliability,
)
from dpstune.settings.metrics import METRICS
from dpstune.settings.tasks import TASKS

CLASSIFICATION = [name for name, metric in METRICS.items() if metric.needs == "labels"]


def given(name, answers):
    """What a metric compares, and the names of its keyword: answers as labels or values, or as sure probabilities."""
    return (
        {"scores": [[1.0 - answer, float(answer)] for answer in answers]}
        if METRICS[name].needs == "probabilities"
        else {}
    )


def several(name):
    """Whether a metric is for several labels an example alone."""
    return METRICS[name].kinds == ("multilabel",)


def written(name, labels):
    """Labels as a metric gets them: of several an example a row of 0 and 1 each."""
    return [(1 - label, label) for label in labels] if several(name) else labels


def perfect(name):
    return 0.0 if METRICS[name].lower_is_better else 1.0


pairs_of_labels = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)


@settings(max_examples=40)
@given_examples(drawn=pairs_of_labels)
@pytest.mark.filterwarnings("ignore::UserWarning:sklearn", "ignore::RuntimeWarning")
def test_classification_metrics_are_those_of_scikit_learn(drawn):
    classes, pairs = drawn
    predictions, references = map(list, zip(*pairs, strict=True))
    average = "binary" if classes == 2 else "macro"
    accuracy = sk.accuracy_score(references, predictions)
    f1 = sk.f1_score(references, predictions, average=average, zero_division=0)
    matthews = sk.matthews_corrcoef(references, predictions)
    assert compute_metrics(["accuracy"], predictions, references) == {"accuracy": pytest.approx(accuracy)}
    values = compute_metrics(["f1"], predictions, references, label_count=classes)
    assert values == pytest.approx({"f1": f1, "accuracy": accuracy})
    assert compute_metrics(["matthews"], predictions, references) == pytest.approx(
        {"matthews": matthews, "accuracy": accuracy}
    )


@pytest.mark.parametrize(("seed", "rounded"), [(0, False), (1, False), (2, True)])
def test_regression_metrics_are_those_of_scipy_with_and_without_ties(seed, rounded):
    rng = np.random.default_rng(seed)
    references = rng.uniform(0, 5, 200)
    predictions = references + rng.normal(0, 1, 200)
    if rounded:
        references, predictions = references.round(), predictions.round()
    values = compute_metrics(["spearman"], predictions.tolist(), references.tolist())
    assert values["spearman"] == pytest.approx(stats.spearmanr(predictions, references).statistic)
    assert values["pearson"] == pytest.approx(np.corrcoef(predictions, references)[0, 1])
    assert values["spearman"] != pytest.approx(values["pearson"], abs=1e-6)


def test_spearman_sees_ranks_alone_and_pearson_values():
    values = compute_metrics(["spearman"], [1.0, 10.0, 100.0, 1000.0], [1.0, 2.0, 3.0, 4.0])
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson"] < 0.9


def test_values_below_whole_numbers_are_not_cut_off():
    assert compute_metrics(["spearman"], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])["spearman"] == pytest.approx(-1.0)


@pytest.mark.parametrize("predicted", [0, 1])
def test_predicting_one_class_alone_gives_a_matthews_of_zero(predicted):
    values = compute_metrics(["matthews"], [predicted] * 4, [0, 1, 1, 1])
    assert values == {"matthews": 0.0, "accuracy": [0.25, 0.75][predicted]}


@pytest.mark.parametrize(
    ("predictions", "references"), [([0, 0, 0], [1, 0, 1]), ([0, 0, 0], [0, 0, 0]), ([1, 1], [0, 0])]
)
def test_f1_is_zero_where_no_positive_example_is_found(predictions, references):
    assert compute_metrics(["f1"], predictions, references)["f1"] == 0.0


def test_f1_is_of_label_one_for_two_labels_and_the_mean_for_more():
    assert compute_metrics(["f1"], [1, 1, 0, 0], [1, 0, 0, 0])["f1"] == pytest.approx(2 / 3)
    assert compute_metrics(["f1"], [0, 1, 2, 2], [0, 1, 2, 1], label_count=3)["f1"] == pytest.approx(
        (1 + 2 / 3 + 2 / 3) / 3
    )


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([2.5, 2.5, 2.5], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]),
        ([1.0], [2.0]),
        ([float("nan")] * 3, [1.0, 2.0, 3.0]),
        ([1.0, float("nan"), 2.0], [1.0, 2.0, 3.0]),
    ],
    ids=["constant output", "constant scores", "one example", "nan", "one nan"],
)
@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")  # sklearn's, and numpy's and scipy's
def test_a_correlation_that_is_undefined_is_none_without_a_warning(predictions, references):
    assert compute_metrics(["spearman"], predictions, references) == {"spearman": None, "pearson": None}


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")  # sklearn's, and numpy's and scipy's
@pytest.mark.parametrize("name", [name for name in CLASSIFICATION if not several(name)])
def test_degenerate_predictions_cause_no_warning(name):
    assert compute_metrics([name], [0], [0])[name] in (0.0, 1.0)


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")  # sklearn's, and numpy's and scipy's
@pytest.mark.parametrize("name", [name for name in CLASSIFICATION if "multilabel" in METRICS[name].kinds])
@pytest.mark.parametrize("row", [(0,), (1,), (0, 0), (1, 1)])
def test_degenerate_rows_of_labels_cause_no_warning(name, row):
    found = compute_metrics([name], [row], [row], label_count=len(row))[name]
    assert found == (1.0 if 1 in row or name == "subset_accuracy" else 0.0)


@pytest.mark.parametrize("name", METRICS)
def test_the_headline_comes_first(name):
    answers, gold = written(name, [0, 1, 1]), written(name, [0, 1, 0])
    assert next(iter(compute_metrics([name], answers, gold, **given(name, [0, 1, 1])))) == name


def test_every_task_has_its_metric():
    assert {task.metric for task in TASKS.values()} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_predictions_without_their_reference_are_refused(name):
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        compute_metrics([name], written(name, [0, 1, 1]), written(name, [0, 1]), **given(name, [0, 1, 1]))
    answers = written(name, [0, 1, 1])  # and the next one is right
    assert compute_metrics([name], answers, answers, **given(name, [0, 1, 1]))[name] == pytest.approx(perfect(name))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_evaluate_and_take_batches(name):
    metric = load_metric(name, several(name))
    assert isinstance(metric, evaluate.Metric)
    answers, gold = written(name, [0, 1, 1, 0]), written(name, [0, 1, 0, 0])
    scores = given(name, [0, 1, 1, 0])
    own = scores.get("scores", answers)
    metric.add_batch(predictions=own[:2], references=gold[:2])
    metric.add_batch(predictions=own[2:], references=gold[2:])
    assert metric.compute() == pytest.approx(compute_metrics([name], answers, gold, **scores))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_needs_no_network_and_writes_no_file(name, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a metric opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path)
    load_metric.cache_clear()
    try:
        answers, scores = written(name, [0, 1, 1]), given(name, [0, 1, 1])
        assert compute_metrics([name], answers, answers, **scores)[name] == pytest.approx(perfect(name))
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        load_metric.cache_clear()


def test_the_table_and_what_is_computed_are_the_same_metrics():
    assert list(COMPUTED) == list(METRICS)
    assert all(beside in METRICS for metric in METRICS.values() for beside in metric.beside)


@st.composite
def scored(draw):
    labels = draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(2, 60))
    scores = rng.dirichlet(np.full(labels, draw(st.sampled_from([0.2, 1.0, 5.0]))), count)
    answers = scores.argmax(1) if draw(st.booleans()) else rng.integers(0, labels, count)
    return labels, rng.integers(0, labels, count), answers, scores


def test_log_loss_is_the_same_of_half_as_precise_probabilities():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    given = [Answered(np.array([0, 1, 1]), np.array([0, 1, 0]), 2, scores.astype(kind)) for kind in ("f4", "f8")]
    assert (
        COMPUTED["log_loss"](given[0])
        == COMPUTED["log_loss"](given[1])
        == pytest.approx(-np.log(2.2e-16) / 3, rel=1e-2)
    )


@settings(max_examples=40)
@given_examples(drawn=scored())
def test_metrics_of_probabilities_are_what_their_definitions_say(drawn):
    labels, gold, answers, scores = drawn
    names = ["log_loss", "calibration_error", "roc_auc"]
    found = compute_metrics(names, answers.tolist(), gold.tolist(), label_count=labels, scores=scores)
    assert list(found) == names
    given_to_gold = np.maximum(scores[np.arange(len(gold)), gold], np.finfo(np.float64).eps)
    assert found["log_loss"] == pytest.approx(-np.log(given_to_gold).mean(), rel=1e-6)
    sure, right = scores[np.arange(len(gold)), answers], answers == gold
    error = 0.0
    for number in range(BINS):
        inside = (sure > number / BINS) & (sure <= (number + 1) / BINS)
        if inside.any():
            error += inside.sum() / len(gold) * abs(right[inside].mean() - sure[inside].mean())
    assert found["calibration_error"] == pytest.approx(error, abs=1e-9)
    curves = [1] if labels == 2 else range(labels)
    areas = []
    for label in curves:
        inside, outside = scores[gold == label, label], scores[gold != label, label]
        if len(inside) and len(outside):
            areas.append(np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside]))
    assert found["roc_auc"] == (pytest.approx(np.mean(areas)) if areas else None)


def test_sure_and_right_answers_lie_in_the_last_bin():
    counts, confidence, accuracy = reliability([0, 1, 1], [0, 1, 0], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert (counts[-1], confidence[-1], accuracy[-1]) == (3, 1.0, pytest.approx(2 / 3))
    assert np.isnan(accuracy[:-1]).all()


def test_f1_of_labels_alike_and_by_their_examples():
    answers, gold = [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]
    found = compute_metrics(["macro_f1", "weighted_f1", "balanced_accuracy"], answers, gold)
    first, second = 6 / 7, 2 / 3
    assert found == pytest.approx(
        {
            "macro_f1": (first + second) / 2,
            "weighted_f1": (3 * first + 2 * second) / 5,
            "balanced_accuracy": 0.75,
        }
    )


def test_errors_of_values_are_in_their_unit():
    found = compute_metrics(["rmse", "mae", "pearson"], [1.0, 2.0, 6.0], [1.0, 2.0, 3.0])
    assert list(found) == ["rmse", "mae", "pearson"]
    assert (found["rmse"], found["mae"]) == pytest.approx((3**0.5, 1.0))


def test_several_metrics_come_in_the_order_asked_with_what_stands_beside_each_once():
    answers = [0, 1, 1]
    found = compute_metrics(["f1", "log_loss", "matthews"], answers, answers, **given("log_loss", answers))
    assert list(found) == ["f1", "accuracy", "log_loss", "matthews"]


def test_without_probabilities_what_needs_them_is_undefined():
    assert compute_metrics(["accuracy", "roc_auc"], [0, 1], [0, 1]) == {"accuracy": 1.0, "roc_auc": None}


def test_one_answer_to_all_is_the_commonest_label_with_the_shares_as_probabilities():
    names = ["accuracy", "log_loss", "roc_auc", "calibration_error"]
    found = constant_metrics(names, [0, 1, 1, 1], [1, 1, 0, 1], label_count=2)
    assert found["accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4)
    assert found["roc_auc"] == 0.5
    assert found["calibration_error"] is None  # of a constant answer it is small, and says nothing
    assert constant_metrics(["spearman", "rmse"], [1.0, 3.0], [2.0, 4.0], label_count=0) == {
        "spearman": None,
        "pearson": None,
        "rmse": pytest.approx(2**0.5),
    }


@settings(max_examples=40)
@given_examples(
    rows=st.integers(1, 4).flatmap(
        lambda labels: st.lists(
            st.tuples(*[st.lists(st.integers(0, 1), min_size=labels, max_size=labels).map(tuple)] * 2), min_size=1
        )
    )
)
def test_of_several_labels_an_example_metrics_are_what_their_definitions_say(rows):
    answers, gold = (list(side) for side in zip(*rows, strict=True))
    labels = len(gold[0])
    found = compute_metrics(["micro_f1"], answers, gold, label_count=labels)
    assert list(found) == ["micro_f1", "macro_f1", "subset_accuracy"]
    right, given_, there = (np.array(side) for side in (np.logical_and(answers, gold), answers, gold))

    def f1(hits, said, gold):
        return 2 * hits / (said + gold) if said + gold else 0.0

    each = [f1(right[:, label].sum(), given_[:, label].sum(), there[:, label].sum()) for label in range(labels)]
    assert found["micro_f1"] == pytest.approx(f1(right.sum(), given_.sum(), there.sum()))
    assert found["macro_f1"] == pytest.approx(np.mean(each))
    assert found["subset_accuracy"] == pytest.approx(np.mean([a == b for a, b in rows]))


def test_one_answer_to_all_is_the_labels_that_more_than_half_have():
    known = [(1, 0), (1, 1), (0, 0), (1, 0)]
    found = constant_metrics(["subset_accuracy", "macro_f1"], known, [(1, 0), (0, 1)], label_count=2)
    assert found == {"subset_accuracy": 0.5, "macro_f1": pytest.approx((2 / 3 + 0) / 2)}
