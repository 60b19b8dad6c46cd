"""What a fit says of its winner, in words."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dpstune.data.reading import TaskData
from dpstune.report.fit_report import _each_label, answer, outcome_as_json
from dpstune.report.page import Paragraph
from dpstune.studies.answers import Answers
from dpstune.studies.choice import Verdict
from dpstune.studies.fit.candidates import Candidate
from dpstune.studies.fit.outcome import FitOutcome, Tried
from dpstune.studies.fit.parts import Parts
from dpstune.studies.fit.search import Trial

BETTER = Verdict(0.9, 0.8, 0.95, 0.1, 0.05, 0.2, units=100)
FOLDS, HELD_OUT = Parts("files", 5), Parts("files", None, 0.2, 0.2)


def outcome_of(verdict, metric="accuracy", parts=FOLDS, majority=0.5, kind="classification"):
    plain = [Tried(Trial(number, Candidate("vanilla"), False, {}, "complete"), 0.8, {}) for number in range(2)]
    winner = Tried(Trial(2, Candidate("mixout"), False, {}, "complete"), 0.9, {})
    data = TaskData("t", kind, ("no", "yes") if kind == "classification" else (), metric, {}, ())
    fit = SimpleNamespace(data=data, parts=parts, rows=200, folder=Path("fit"), request=SimpleNamespace(name="t"))
    gold = np.array([0, 1])
    answered = Answers(["0", "1"], gold, gold, np.eye(2, dtype=np.float32))
    final = SimpleNamespace(folder=Path("run"))
    return FitOutcome(fit, [*plain, winner], winner, plain[0], verdict, 200, majority, [], 0, 0, answered, final, [])


def said(*arguments, **more):
    return " ".join(answer(outcome_of(*arguments, **more)))


def test_a_plain_candidate_that_was_proposed_twice_is_one():
    assert "It is better than the best of 1 plain candidate, vanilla: the difference is +0.1000" in said(BETTER)


def test_of_one_set_of_held_out_rows_the_comparison_is_of_one_seed():
    assert said(BETTER, parts=HELD_OUT).count("with this seed; another may turn it round") == 1
    assert "this seed" not in said(BETTER)


@pytest.mark.parametrize(("grouped", "words"), [(True, "too few groups to tell"), (False, "too few rows to tell")])
def test_of_few_units_it_is_not_told_from_plain_fine_tuning(grouped, words):
    verdict = Verdict(0.9, 0.8, 0.95, 0.1, 0.05, 0.2, units=9, grouped=grouped)
    text = said(verdict)
    assert "It cannot be told from the best of" in text
    assert words in text
    assert text.count(", 9 groups drawn)") == (2 if grouped else 0)
    told = outcome_as_json(outcome_of(verdict))
    assert told["difference_from_vanilla"]["told_apart"] is False
    assert told["score"]["groups"] == (9 if grouped else None)


def test_a_calibration_error_is_told_without_interval():
    text = said(Verdict(0.1, None, None, -0.1, None, None, units=100), metric="calibration_error", majority=None)
    assert text.count("(no interval: in rows drawn anew it is too large)") == 2
    assert "0 lies inside" not in text


@pytest.mark.parametrize(
    ("metric", "kind", "words"),
    [
        ("accuracy", "classification", "Always answering the commonest training label gets 0.9500."),
        ("log_loss", "classification", "Always answering the shares of the training labels gets 0.9500."),
        ("rmse", "regression", "Always answering the mean training label gets 0.9500."),
    ],
)
def test_the_floor_is_called_what_it_is(metric, kind, words):
    assert words in said(BETTER, metric=metric, kind=kind, majority=0.95)


def test_of_a_correlation_too_it_is_said_that_nothing_was_learned():
    nothing = Verdict(-0.1, -0.3, 0.1, 0.0, -0.1, 0.1, units=100)
    assert "There is no correlation above 0: there is no sign that anything was learned" in said(
        nothing, metric="spearman", kind="regression", majority=None
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [(FOLDS, "These rows chose it: a little too good."), (HELD_OUT, "of the rows that chose, not of the test rows.")],
)
def test_the_table_of_labels_says_that_its_rows_chose(parts, words):
    blocks = list(_each_label(outcome_of(BETTER, parts=parts), lambda *_: Paragraph("a picture")))
    assert any(isinstance(block, Paragraph) and block.text.endswith(words) for block in blocks)
