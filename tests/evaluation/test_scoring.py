import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from dpstune.data.examples import Examples
from dpstune.data.labels import map_labels
from dpstune.data.reading import TaskData
from dpstune.data.tokens import encode
from dpstune.evaluation.scoring import evaluate_split, prediction_columns, score
from tests.tiny import WORDS, tiny_classifier, tiny_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return tiny_classifier(num_labels=3)


@pytest.fixture(scope="module")
def dataset():
    rng = random.Random(5)
    texts = [(" ".join(rng.choices(WORDS, k=rng.randrange(1, 20))),) for _ in range(23)]
    examples = Examples([str(i) for i in range(23)], texts, [i % 3 for i in range(23)])
    return encode(examples, tiny_tokenizer(), 32)


def task_of(labels, kind="classification", names=("no", "maybe", "yes"), metric="accuracy", phenomena=None):
    count = 4 if labels is None else len(labels)
    examples = Examples([f"ex{i}" for i in range(count)], [("x",)] * count, labels, phenomena)
    return TaskData("task", kind, names, metric, {"validation": examples}, ())


@pytest.fixture(scope="module")
def one_by_one(model, dataset):
    """The logits of each example, computed alone."""
    model.eval()
    with torch.no_grad():
        batches = [dataset.collate([i]) for i in range(len(dataset))]
        return torch.cat([model(**{k: v for k, v in batch.items() if k != "labels"}).logits for batch in batches])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_scores_come_in_the_order_of_the_examples_whatever_the_batches(model, dataset, one_by_one, batch_size):
    scores = score(model, dataset, width=3, batch_size=batch_size, device=CPU)
    torch.testing.assert_close(scores, one_by_one, atol=1e-5, rtol=1e-4)
    assert (scores.dtype, scores.shape, scores.requires_grad) == (torch.float32, (23, 3), False)
    assert one_by_one.unique(dim=0).shape[0] > 15  # so that a wrong order would show


def test_where_few_shapes_should_occur_widths_are_rounded(model, dataset, one_by_one):
    shapes = []
    handle = model.register_forward_pre_hook(
        lambda module, args, inputs: shapes.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    scores = score(model, dataset, width=3, batch_size=2, device=CPU, longest=22)
    handle.remove()
    torch.testing.assert_close(scores, one_by_one, atol=1e-5, rtol=1e-4)
    assert set(shapes) == {8, 16, 22}


@pytest.mark.parametrize("training", [True, False])
def test_scoring_draws_no_dropout_and_leaves_the_mode_as_it_was(dataset, training):
    model = tiny_classifier(num_labels=3, hidden_dropout_prob=0.5).train(training)
    first, second = (score(model, dataset, width=3, batch_size=8, device=CPU) for _ in range(2))
    assert torch.equal(first, second)
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_restored_where_scoring_is_stopped(dataset):
    model = tiny_classifier(num_labels=3).train()
    calls = []

    def stop():
        calls.append(model.training)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(model, dataset, width=3, batch_size=8, device=CPU, between_batches=stop)
    assert calls == [False, False]
    assert model.training


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_the_shares_of_ranks_add_up_to_the_whole(model, dataset, ranks):
    whole = score(model, dataset, width=3, batch_size=5, device=CPU)
    shares = [score(model, dataset, width=3, batch_size=5, device=CPU, share=(rank, ranks)) for rank in range(ranks)]
    assert torch.equal(sum(shares), whole)
    scored = torch.stack([share.any(dim=1) for share in shares])
    assert scored.sum(dim=0).eq(1).all()
    assert shares[-1].shape == (23, 3)  # also where a rank has no batch at all


def test_batches_hold_similar_lengths(model, dataset):
    seen = []
    collate = dataset.collate

    class Watched:
        lengths = dataset.lengths

        def __len__(self):
            return len(dataset)

        def collate(self, indices, width=0):
            seen.append([dataset.lengths[i] for i in indices])
            return collate(indices)

    score(model, Watched(), width=3, batch_size=5, device=CPU)
    assert [length for lengths in seen for length in lengths] == sorted(dataset.lengths)


def test_classification_is_scored_with_probabilities_and_the_tasks_metric():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0], [9.0, 0.0, 0.0]])
    result = evaluate_split(task_of([0, 1, 2, 1]), "validation", logits)
    assert result.metrics == {"accuracy": 0.75}
    np.testing.assert_allclose(result.scores.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(result.scores[0, 0], np.exp(2) / (np.exp(2) + 2), rtol=1e-6)


def test_regression_is_scored_with_the_values_themselves():
    task = task_of([1.0, 2.0, 3.0, 4.0], "regression", (), "spearman")
    result = evaluate_split(task, "validation", torch.tensor([[0.1], [0.5], [0.2], [7.0]]))
    assert result.metrics["spearman"] == pytest.approx(0.8)
    assert list(result.metrics) == ["spearman", "pearson"]
    np.testing.assert_allclose(result.scores, [[0.1], [0.5], [0.2], [7.0]])


def test_a_constant_output_has_an_undefined_correlation():
    task = task_of([1.0, 2.0, 3.0, 4.0], "regression", (), "spearman")
    assert evaluate_split(task, "validation", torch.ones(4, 1)).metrics == {"spearman": None, "pearson": None}


def test_a_split_without_labels_has_scores_but_no_metrics():
    result = evaluate_split(task_of(None), "validation", torch.zeros(4, 3))
    assert result.metrics == {}
    assert result.scores.shape == (4, 3)


def test_predictions_are_told_by_label_names():
    task = task_of([2, 1], phenomena=["negation", "time"])
    scores = torch.tensor([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    columns = prediction_columns(task, evaluate_split(task, "validation", scores.log()))
    np.testing.assert_allclose(columns.pop("scores"), scores, rtol=1e-6)
    assert columns == {
        "id": ["ex0", "ex1"],
        "label": ["yes", "maybe"],
        "prediction": ["yes", "no"],
        "phenomenon": ["negation", "time"],
    }


def test_predictions_of_regression_are_values():
    task = task_of([0.0, 2.0], "regression", (), "spearman")
    columns = prediction_columns(task, evaluate_split(task, "validation", torch.tensor([[1.5], [-0.25]])))
    assert columns == {
        "id": ["ex0", "ex1"],
        "label": [0.0, 2.0],
        "prediction": [1.5, -0.25],
        "scores": [[1.5], [-0.25]],
    }


def test_predictions_and_gold_labels_are_read_in_another_tasks_labels():
    """A three-label model on two labels folds its predictions; a two-label model on three, the gold labels."""
    three, two = ("entailment", "neutral", "contradiction"), ("not_entailment", "entailment")
    task = task_of([0, 1, 1, 0], names=two)
    logits = torch.eye(3)[[1, 0, 2, 2]]
    columns = prediction_columns(task, evaluate_split(task, "validation", logits, map_labels(three, two)))
    assert columns["prediction"] == ["not_entailment", "entailment", "not_entailment", "not_entailment"]
    task = task_of([0, 1, 2, 0], names=three)
    result = evaluate_split(task, "validation", torch.eye(2)[[1, 0, 0, 0]], map_labels(two, three))
    columns = prediction_columns(task, result)
    assert columns["label"] == ["entailment", "not_entailment", "not_entailment", "entailment"]
    assert columns["prediction"] == ["entailment", "not_entailment", "not_entailment", "not_entailment"]
    assert result.metrics == {"accuracy": 0.75}


@pytest.mark.parametrize(("kind", "names", "width"), [("classification", ("a", "b"), 2), ("regression", (), 1)])
def test_predictions_without_labels_have_none(kind, names, width):
    task = task_of(None, kind, names)
    columns = prediction_columns(task, evaluate_split(task, "validation", torch.zeros(4, width)))
    assert columns["label"] == [None] * 4
    assert len(columns["prediction"]) == 4


def test_the_prediction_is_the_one_the_metric_counts(model, dataset):
    labels = [i % 3 for i in range(len(dataset))]
    task = task_of(labels)
    result = evaluate_split(task, "validation", score(model, dataset, width=3, batch_size=8, device=CPU))
    columns = prediction_columns(task, result)
    right = sum(label == predicted for label, predicted in zip(columns["label"], columns["prediction"], strict=True))
    assert result.metrics["accuracy"] == pytest.approx(right / len(dataset))


def test_probabilities_are_summed_by_the_targets_labels_and_unknown_where_those_are_finer():
    three, two = ("entailment", "neutral", "contradiction"), ("not_entailment", "entailment")
    probabilities = torch.tensor([[0.4, 0.3, 0.3], [0.7, 0.2, 0.1]])
    task = replace(task_of([0, 1], names=two), more_metrics=("log_loss", "roc_auc", "calibration_error"))
    result = evaluate_split(task, "validation", probabilities.log(), map_labels(three, two))
    np.testing.assert_allclose(result.probabilities, [[0.6, 0.4], [0.3, 0.7]], rtol=1e-6)
    error = (0.4 + 0.3) / 2  # wrong with 0.4, right with 0.7
    assert result.metrics == pytest.approx(
        {
            "accuracy": 0.5,
            "log_loss": -(np.log(0.6) + np.log(0.7)) / 2,
            "roc_auc": 1.0,
            "calibration_error": error,
        },
        rel=1e-6,
    )  # the first is answered among all three labels: entailment
    task = replace(task_of([0, 1, 2, 0], names=three), more_metrics=("log_loss",))
    result = evaluate_split(task, "validation", torch.eye(2)[[1, 0, 0, 0]], map_labels(two, three))
    assert result.probabilities is None
    assert result.metrics == {"accuracy": 0.75, "log_loss": None}


def test_labels_in_another_order_are_found_by_name():
    task = task_of([0, 1], names=("yes", "no"), metric="log_loss")
    probabilities = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    result = evaluate_split(task, "validation", probabilities.log(), map_labels(("no", "yes"), ("yes", "no")))
    assert result.metrics["log_loss"] == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)
