import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpstune.errors import RequestError
from dpstune.studies.statistics import (
    bootstrap_interval,
    expected_best,
    holm,
    paired_permutation_test,
    smallest_p_value,
)

SCORE = st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 6))
SCORES = st.lists(SCORE, min_size=1, max_size=12)
PAIRS = st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=8)
RNG = np.random.default_rng(7)


def test_bootstrap_agrees_with_scipy():
    values = RNG.normal(0.6, 0.05, size=12)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    assert bootstrap_interval(values) == pytest.approx(tuple(expected.confidence_interval), abs=0.002)


def test_bootstrap_is_exact_where_all_resamples_can_be_counted():
    """Of 27 equally likely resamples of three values one in 27 is (low, low, low): inside 5%, outside 20%."""
    values = [0.0, 0.5, 1.0]
    means = sorted(np.mean(draw) for draw in itertools.product(values, repeat=3))
    assert bootstrap_interval(values, confidence=0.95) == (means[0], means[-1])
    low, high = bootstrap_interval(values, confidence=0.8)
    assert (low, high) == pytest.approx((means[3], means[-4]))


def test_bootstrap_of_large_samples_is_done_in_parts():
    values = RNG.normal(size=3000)
    low, high = bootstrap_interval(values)
    error = stats.sem(values)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=error / 5)


@given(SCORES, st.floats(0.5, 0.99))
@settings(max_examples=30)
def test_bootstrap_lies_within_the_values_and_is_the_same_twice(values, confidence):
    low, high = bootstrap_interval(values, confidence)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert bootstrap_interval(values, confidence) == (low, high)
    wider = bootstrap_interval(values, 0.999)
    assert wider[0] <= low
    assert wider[1] >= high


def test_one_value_is_its_own_interval():
    assert bootstrap_interval([0.7]) == (0.7, 0.7)


@given(PAIRS)
def test_permutation_test_agrees_with_brute_force(pairs):
    differences = [a - b for a, b in pairs]
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(pairs))]  # fmt: skip
    expected = np.mean([each >= abs(sum(differences)) - 1e-9 for each in sums])
    p = paired_permutation_test([a for a, _ in pairs], [b for _, b in pairs])
    assert p == expected
    assert smallest_p_value(len(pairs)) <= p <= 1.0
    assert p == paired_permutation_test([b for _, b in pairs], [a for a, _ in pairs])


@pytest.mark.parametrize("count", [2, 5, 10, 16])
def test_permutation_test_agrees_with_scipy_where_it_enumerates(count):
    first, second = RNG.normal(0.1, 0.2, count), RNG.normal(0, 0.2, count)
    expected = stats.permutation_test(
        (first, second), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_permutation_test(first, second) == pytest.approx(expected.pvalue)


def test_permutation_test_draws_flips_where_there_are_too_many():
    first, second = RNG.normal(0.08, 0.2, 40), RNG.normal(0, 0.2, 40)
    expected = stats.permutation_test(
        (first, second), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples",
        n_resamples=100_000, vectorized=True, batch=10_000, rng=np.random.default_rng(3),
    )  # fmt: skip
    assert paired_permutation_test(first, second) == pytest.approx(expected.pvalue, abs=0.006)
    assert paired_permutation_test(first + 5, second) == smallest_p_value(40) == 1 / 100_001


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_the_smallest_p_is_reached_where_all_differences_agree(count):
    assert paired_permutation_test(np.ones(count), np.zeros(count)) == smallest_p_value(count) == 2 / 2**count


def test_no_difference_is_no_evidence():
    assert paired_permutation_test([0.5, 0.6], [0.5, 0.6]) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.999))
def test_holm_takes_as_real_what_the_stepwise_procedure_does(p_values, level):
    real = set()
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - place) > level:
            break
        real.add(index)
    assert set(np.flatnonzero(holm(p_values) <= level)) == real


@given(st.lists(SCORE, min_size=1, max_size=5), st.integers(1, 4))
def test_expected_best_agrees_with_all_draws(values, budget):
    expected = np.mean([max(draw) for draw in itertools.product(values, repeat=budget)])
    assert expected_best(values, [budget])[0] == pytest.approx(expected, abs=1e-9)


@given(SCORES)
def test_expected_best_climbs_from_the_mean_to_the_maximum(values):
    curve = expected_best(values, [1, 2, 3, 10, 10_000])
    assert curve[0] == pytest.approx(np.mean(values), abs=1e-12)
    assert np.all(np.diff(curve) >= -1e-12)
    assert curve[-1] == pytest.approx(max(values), abs=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([]),
        lambda: bootstrap_interval([0.1, float("nan")]),
        lambda: bootstrap_interval([0.1, 0.2], confidence=95),
        lambda: paired_permutation_test([], []),
        lambda: paired_permutation_test([0.1], [0.1, 0.2]),
        lambda: holm([]),
        lambda: holm([0.1, float("nan")]),
        lambda: expected_best([0.1], [0]),
        lambda: expected_best([], [1]),
    ],
)
def test_what_cannot_be_computed_is_a_wrong_request(call):
    with pytest.raises(RequestError):
        call()
