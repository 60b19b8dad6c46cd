"""What a fit makes of its candidates' answers: who votes on labels, what one answer to all gets, labels of few rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from dpstune.data.examples import Examples
from dpstune.data.reading import TaskData
from dpstune.studies.answers import Answers
from dpstune.studies.choice import Verdict
from dpstune.studies.fit.candidates import Candidate
from dpstune.studies.fit.outcome import (
    FitOutcome,
    _different,
    _has_learned,
    _labels_of_few_rows,
    _majority,
)
from dpstune.studies.fit.search import Trial

KINDS = {"accuracy": "classification", "f1": "classification", "macro_f1": "classification"}
KINDS |= {"log_loss": "classification", "spearman": "regression", "rmse": "regression"}


RMSE = [("rmse", 0.9, False), ("rmse", 1.0, True)]


def fit_of(metric, labels=(0, 1), names=("no", "yes")):
    """Return what of a fit tells its task."""
    kind = KINDS[metric]
    train = Examples(list(map(str, range(len(labels)))), [("a",)] * len(labels), list(labels))
    shown = names if kind == "classification" else ()
    return SimpleNamespace(data=TaskData("t", kind, shown, metric, {"train": train}, ()))


def answers_of(gold, predictions):
    scores = np.eye(4, dtype=np.float32)[predictions] if isinstance(gold[0], int) else np.array(predictions)[:, None]
    return Answers(list(map(str, range(len(gold)))), np.array(gold), np.array(predictions), scores)


@pytest.mark.parametrize(
    ("metric", "predictions", "learned"),
    [
        ("accuracy", [1, 0, 0, 0], True),
        ("accuracy", [0, 0, 0, 0], False),
        ("accuracy", [1, 1, 0, 0], False),
        ("f1", [1, 1, 1, 1], False),
        ("f1", [1, 1, 0, 0], True),
        ("macro_f1", [1, 1, 0, 0], True),
        ("log_loss", [1, 0, 0, 0], True),
        ("log_loss", [1, 1, 0, 0], False),
    ],
)
def test_who_votes_on_labels_does_better_than_one_answer_to_all(metric, predictions, learned):
    assert _has_learned(answers_of([1, 0, 0, 0], predictions), fit_of(metric)) == learned


def test_a_candidate_that_was_proposed_again_is_one():
    candidates = [Candidate("mixout", {"method.p": p}) for p in (0.3, 0.7, 0.3)] + [Candidate("vanilla")]
    trials = [Trial(number, each, False, {}, "complete") for number, each in enumerate(candidates)]
    assert _different(trials) == [0, 1, 3]


def outcome_of(fit, value, gold, predictions):
    scored = answers_of(gold, predictions)
    verdict = Verdict(value, None, None, None, None, None)
    return FitOutcome(fit, [], None, None, verdict, len(gold), _majority(scored, fit), [], 0, 0, scored, None, [])


@pytest.mark.parametrize(
    ("metric", "value", "nothing"),
    [
        ("spearman", 0.1, False),
        ("spearman", 0.0, True),
        ("spearman", -0.2, True),
        ("rmse", 0.9, False),
        ("rmse", 1.0, True),
    ],
)
def test_of_values_too_it_is_said_that_nothing_was_learned(metric, value, nothing):
    fit, gold = fit_of(metric, [1.0, 3.0]), [1.0, 3.0, 1.0, 3.0]
    assert _majority(answers_of(gold, gold), fit) == (None if metric == "spearman" else 1.0)
    assert outcome_of(fit, value, gold, [1.0, 2.0, 3.0, 4.0]).nothing_learned == nothing


def test_the_same_value_for_every_row_has_learned_nothing():
    assert outcome_of(fit_of("spearman", [1.0, 3.0]), None, [1.0, 3.0], [2.0, 2.0]).nothing_learned
    assert not outcome_of(fit_of("spearman", [1.0, 3.0]), None, [1.0, 3.0], [2.0, 3.0]).nothing_learned


def test_labels_of_few_rows_are_named_where_the_metric_weighs_each_label():
    gold = [0] * 30 + [1] * 9 + [2]
    answers = answers_of(gold, gold)
    names = ("bill", "login", "other", "never")
    (note,) = _labels_of_few_rows(answers, fit_of("macro_f1", names=names))
    assert note == (
        "other has 1 row, login has 9 rows: macro_f1 over rows drawn anew is off where few rows have a label"
    )
    assert _labels_of_few_rows(answers, fit_of("accuracy", names=names)) == []
    assert _labels_of_few_rows(answers_of([0] * 10 + [1] * 10, [0] * 20), fit_of("macro_f1")) == []
