"""The choice among candidates, and its score on rows that took no part in it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.studies.choice import Verdict, choose, judge_by_bootstrap, judge_by_test_rows

ROWS = 200


def accuracies(right):
    """Score candidate c by the share of its right answers, [candidates, rows] of 0 and 1."""
    return lambda candidate, rows: float(right[candidate][rows].mean())


def test_the_best_is_chosen_of_equal_ones_the_first_and_what_is_undefined_last():
    scores = {0: None, 1: 0.5, 2: 0.7, 3: 0.7}
    assert choose(lambda candidate, rows: scores[candidate], range(4), np.arange(3)) == 2
    assert choose(lambda candidate, rows: None, [4, 5], np.arange(3)) == 4


def test_the_best_of_many_that_guess_is_not_told_to_be_better_than_guessing():
    rng = np.random.default_rng(0)
    seen, honest = [], []
    for repeat in range(8):
        right = rng.random((20, ROWS)) < 0.5
        score = accuracies(right)
        seen.append(score(choose(score, range(20), np.arange(ROWS)), np.arange(ROWS)))
        honest.append(judge_by_bootstrap(score, range(20), [], range(ROWS), seed=repeat).value)
    assert np.mean(seen) > 0.55, "the best of twenty coins looks good on the tosses that chose it"
    assert abs(np.mean(honest) - 0.5) < 0.02


def test_one_that_is_much_better_is_told_apart_and_one_that_is_not_is_not():
    rng = np.random.default_rng(1)
    right = np.stack([rng.random(ROWS) < 0.6, rng.random(ROWS) < 0.6, rng.random(ROWS) < 0.95])
    verdict = judge_by_bootstrap(accuracies(right), range(3), [0, 1], range(ROWS))
    assert verdict.told_apart
    assert verdict.low < verdict.value < verdict.high
    assert verdict.difference == pytest.approx(0.35, abs=0.06)
    alike = np.stack([right[0], rng.random(ROWS) < 0.62])
    assert not judge_by_bootstrap(accuracies(alike), range(2), [0], range(ROWS)).told_apart


def test_the_baseline_against_itself_differs_by_nothing():
    right = np.random.default_rng(2).random((1, ROWS)) < 0.7
    verdict = judge_by_bootstrap(accuracies(right), [0], [0], range(ROWS))
    assert (verdict.difference, verdict.difference_low, verdict.difference_high) == (0.0, 0.0, 0.0)
    assert not verdict.told_apart


def test_rows_of_a_unit_are_drawn_together_so_that_few_units_give_a_wide_interval():
    right = np.repeat(np.random.default_rng(3).random((1, 10)) < 0.5, 20, axis=1)

    def width(units):
        verdict = judge_by_bootstrap(accuracies(right), [0], [], units)
        return verdict.high - verdict.low

    assert width([row // 20 for row in range(ROWS)]) > 2 * width(range(ROWS))


def test_what_is_undefined_on_some_rows_is_left_out_and_on_all_of_them_said():
    def score(candidate, rows):
        return None if 0 in rows else 0.5

    verdict = judge_by_bootstrap(score, [0], [], range(50))
    assert verdict == Verdict(0.5, 0.5, 0.5, None, None, None, units=50)
    assert judge_by_bootstrap(lambda candidate, rows: None, [0], [0], range(50)).value is None


def test_test_rows_score_the_winner_as_it_is():
    rng = np.random.default_rng(4)
    right = np.stack([rng.random(ROWS) < 0.7, rng.random(ROWS) < 0.8])
    verdict = judge_by_test_rows(accuracies(right), 1, 0, range(ROWS))
    assert verdict.value == right[1].mean()
    assert verdict.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert verdict.low < verdict.value < verdict.high
    assert judge_by_test_rows(accuracies(right), 1, None, range(ROWS)).difference is None


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_a_metric_that_is_the_better_the_lower_keeps_its_intervals_in_order(numbers):
    low, value, high = sorted(numbers[:3])
    difference_low, difference, difference_high = sorted(numbers[3:])
    turned = Verdict(value, low, high, difference, difference_low, difference_high).in_the_metric("rmse")
    assert turned.low <= turned.value <= turned.high
    assert turned.difference_low <= turned.difference <= turned.difference_high
    assert turned.in_the_metric("rmse") == turned.in_the_metric("rmse").in_the_metric("accuracy")
    assert (turned.value, turned.low, turned.high) == (-value, -high, -low)


def test_a_verdict_without_numbers_stays_without():
    nothing = Verdict(None, None, None, None, None, None)
    assert nothing.in_the_metric("rmse") == nothing
    assert not nothing.told_apart


def test_a_calibration_error_has_no_interval():
    turned = Verdict(-0.1, -0.3, -0.2, -0.1, -0.3, -0.2).in_the_metric("calibration_error")
    assert turned == Verdict(0.1, None, None, 0.1, None, None)
    assert not turned.told_apart


def test_of_few_units_nothing_is_told_apart_and_groups_are_counted():
    rng = np.random.default_rng(5)
    right = np.stack([rng.random(ROWS) < 0.6, np.ones(ROWS)])

    def judged(count):
        units = [row % count for row in range(ROWS)]
        by_test_rows = judge_by_test_rows(accuracies(right), 1, 0, units)
        return [judge_by_bootstrap(accuracies(right), range(2), [0], units), by_test_rows]

    for verdict in judged(9):
        assert verdict.units == 9
        assert verdict.difference_low > 0
        assert not verdict.told_apart
    for verdict in judged(10):
        assert verdict.told_apart
        assert (verdict.groups, replace(verdict, grouped=True).in_the_metric("rmse").groups) == (None, 10)
