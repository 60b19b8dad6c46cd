import socket

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from dpstune.evaluation.metrics import METRICS, compute_metric, load_metric
from dpstune.settings.tasks import TASKS

CLASSIFICATION = ("accuracy", "f1", "matthews")
pairs_of_labels = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40),
    )
)


@settings(max_examples=100)
@given(drawn=pairs_of_labels)
@pytest.mark.filterwarnings("ignore::UserWarning:sklearn", "ignore::RuntimeWarning")
def test_classification_metrics_are_those_of_scikit_learn(drawn):
    classes, pairs = drawn
    predictions, references = map(list, zip(*pairs, strict=True))
    average = "binary" if classes == 2 else "macro"
    accuracy = sk.accuracy_score(references, predictions)
    f1 = sk.f1_score(references, predictions, average=average, zero_division=0)
    matthews = sk.matthews_corrcoef(references, predictions)
    assert compute_metric("accuracy", predictions, references) == {"accuracy": pytest.approx(accuracy)}
    values = compute_metric("f1", predictions, references, label_count=classes)
    assert values == pytest.approx({"f1": f1, "accuracy": accuracy})
    assert compute_metric("matthews", predictions, references) == pytest.approx(
        {"matthews": matthews, "accuracy": accuracy}
    )


@pytest.mark.parametrize(("seed", "rounded"), [(0, False), (1, False), (2, True)])
def test_regression_metrics_are_those_of_scipy_with_and_without_ties(seed, rounded):
    rng = np.random.default_rng(seed)
    references = rng.uniform(0, 5, 200)
    predictions = references + rng.normal(0, 1, 200)
    if rounded:
        references, predictions = references.round(), predictions.round()
    values = compute_metric("spearman", predictions.tolist(), references.tolist())
    assert values["spearman"] == pytest.approx(stats.spearmanr(predictions, references).statistic)
    assert values["pearson"] == pytest.approx(np.corrcoef(predictions, references)[0, 1])
    assert values["spearman"] != pytest.approx(values["pearson"], abs=1e-6)


def test_spearman_sees_ranks_alone_and_pearson_values():
    values = compute_metric("spearman", [1.0, 10.0, 100.0, 1000.0], [1.0, 2.0, 3.0, 4.0])
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson"] < 0.9


def test_values_below_whole_numbers_are_not_cut_off():
    assert compute_metric("spearman", [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])["spearman"] == pytest.approx(-1.0)


@pytest.mark.parametrize("predicted", [0, 1])
def test_predicting_one_class_alone_gives_a_matthews_of_zero(predicted):
    values = compute_metric("matthews", [predicted] * 4, [0, 1, 1, 1])
    assert values == {"matthews": 0.0, "accuracy": [0.25, 0.75][predicted]}


@pytest.mark.parametrize(
    ("predictions", "references"), [([0, 0, 0], [1, 0, 1]), ([0, 0, 0], [0, 0, 0]), ([1, 1], [0, 0])]
)
def test_f1_is_zero_where_no_positive_example_is_found(predictions, references):
    assert compute_metric("f1", predictions, references)["f1"] == 0.0


def test_f1_is_of_label_one_for_two_labels_and_the_mean_for_more():
    assert compute_metric("f1", [1, 1, 0, 0], [1, 0, 0, 0])["f1"] == pytest.approx(2 / 3)
    assert compute_metric("f1", [0, 1, 2, 2], [0, 1, 2, 1], label_count=3)["f1"] == pytest.approx(
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
    assert compute_metric("spearman", predictions, references) == {"spearman": None, "pearson": None}


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")  # sklearn's, and numpy's and scipy's
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_degenerate_predictions_cause_no_warning(name):
    assert compute_metric(name, [0], [0])[name] in (0.0, 1.0)


@pytest.mark.parametrize("name", METRICS)
def test_the_headline_comes_first(name):
    assert next(iter(compute_metric(name, [0, 1, 1], [0, 1, 0]))) == name


def test_every_task_has_its_metric():
    assert {task.metric for task in TASKS.values()} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_predictions_without_their_reference_are_refused(name):
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        compute_metric(name, [0, 1, 1], [0, 1])
    assert compute_metric(name, [0, 1, 1], [0, 1, 1])[name] == pytest.approx(1.0)  # and the next one is right


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_evaluate_and_take_batches(name):
    metric = load_metric(name)
    assert isinstance(metric, evaluate.Metric)
    metric.add_batch(predictions=[0, 1], references=[0, 1])
    metric.add_batch(predictions=[1, 0], references=[0, 0])
    assert metric.compute() == pytest.approx(compute_metric(name, [0, 1, 1, 0], [0, 1, 0, 0]))


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
        assert compute_metric(name, [0, 1, 1], [0, 1, 1])[name] == pytest.approx(1.0)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        load_metric.cache_clear()
