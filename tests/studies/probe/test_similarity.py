"""Linear CKA and the mean cosine: what they are invariant to, and what they are not."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dpstune.studies.probe.similarity import linear_cka, mean_cosine

TEXTS, WIDTH = 9, 4
FEATURES = hnp.arrays("float32", (TEXTS, WIDTH), elements=st.floats(-4, 4, width=16))
SEEDS = st.integers(0, 2**32 - 1)


def turned(x, seed):
    """Turn all vectors by one random orthogonal map."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))
    return x.astype(np.float64) @ q


def spread_out(x):
    assume(np.ptp(x, axis=0).max() > 0.1)
    return x


@given(FEATURES, SEEDS, st.floats(0.01, 100), hnp.arrays("float64", WIDTH, elements=st.floats(-5, 5)))
def test_cka_is_1_for_what_is_turned_scaled_and_moved(x, seed, scale, shift):
    spread_out(x)
    assert linear_cka(x, x) == pytest.approx(1.0)
    assert linear_cka(x, scale * turned(x, seed) + shift) == pytest.approx(1.0)


@given(FEATURES, FEATURES, SEEDS, st.floats(0.01, 100))
def test_cka_is_between_0_and_1_symmetric_and_blind_to_turns_and_scale(x, y, seed, scale):
    spread_out(x), spread_out(y)
    found = linear_cka(x, y)
    assert 0.0 <= found <= 1.0
    assert linear_cka(y, x) == pytest.approx(found, abs=1e-9)
    assert linear_cka(scale * turned(x, seed), y) == pytest.approx(found, abs=1e-6)


@given(FEATURES, FEATURES)
def test_cka_is_that_of_the_gram_matrices(x, y):
    """Kornblith et al. 2019, equation 1: <vec(XX^T), vec(YY^T)> = ||Y^T X||_F^2."""
    spread_out(x), spread_out(y)
    x, y = (each.astype(np.float64) - each.astype(np.float64).mean(0) for each in (x, y))
    k, m = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()), abs=1e-9)


def test_cka_is_low_for_what_has_nothing_to_do_with_each_other_and_the_lower_the_more_texts():
    rng = np.random.default_rng(0)
    few, many = (linear_cka(rng.normal(size=(n, 8)), rng.normal(size=(n, 8))) for n in (20, 2000))
    assert many < 0.02 < few
    assert few == pytest.approx(8 / 28, abs=0.15)


def test_cka_sees_that_a_direction_has_gone():
    x = np.random.default_rng(0).normal(size=(200, 4))
    assert 0.6 < linear_cka(x, x * [1, 1, 0, 0]) < 0.8


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_cka_of_equal_vectors_is_undefined(value):
    x = np.random.default_rng(0).normal(size=(7, 3))
    assert linear_cka(np.full((7, 3), value), x) is None
    assert linear_cka(x, np.full((7, 3), value)) is None


@given(FEATURES, st.floats(0.01, 100))
def test_the_cosine_is_1_for_what_is_scaled_and_minus_1_for_what_is_turned_round(x, scale):
    assume(np.abs(x).max(axis=1).min() > 0.01)
    assert mean_cosine(x, scale * x) == pytest.approx(1.0)
    assert mean_cosine(x, -scale * x) == pytest.approx(-1.0)


def test_the_cosine_of_nothing_is_0():
    assert mean_cosine(np.zeros((3, 2)), np.ones((3, 2))) == 0.0
