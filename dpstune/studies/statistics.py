"""Statistics over restarts: intervals, tests, and the best run to be expected of a budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpstune.errors import RequestError

RESAMPLES = 10_000
MOST_PAIRS_ENUMERATED = 16
RANDOM_FLIPS = 100_000

_ENTRIES_AT_ONCE = 4_000_000  # bounds the memory of resampling many values


def bootstrap_interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean.

    n values are drawn with replacement, 10,000 times; the interval reaches from the (1 - c)/2 quantile of the means
    to the (1 + c)/2 quantile. Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    With few values it is too narrow: it never leaves the range of the values seen.

    Args:
        values: One value for each restart.
        confidence: c, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        Low and high end; of a single value, that value twice.

    Raises:
        RequestError: There is no value, one is not finite, or the confidence is out of range.

    >>> bootstrap_interval([0.5])
    (0.5, 0.5)
    """
    sample = _checked(values)
    if not 0.0 < confidence < 1.0:
        raise RequestError(f"confidence should be between 0 and 1, not {confidence:g}")
    if len(sample) == 1:
        return float(sample[0]), float(sample[0])
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            sample[rng.integers(len(sample), size=(rows, len(sample)))].mean(axis=1)
            for rows in _parts(RESAMPLES, len(sample))
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_permutation_test(a: ArrayLike, b: ArrayLike, seed: int = 0) -> float:
    """Return the two-sided p-value of a sign-flip test on the mean paired difference.

    With d_i = a_i - b_i, p is the share of the sign vectors s for which |sum s_i d_i| >= |sum d_i|. Up to n = 16 all
    2**n vectors are enumerated. For more pairs 100,000 random ones are drawn, and the observed one is counted, too:
    p = (hits + 1)/(draws + 1). Sources: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010,
    "Permutation p-values should never be zero".

    Args:
        a: One value for each pair.
        b: Likewise, in the same order.
        seed: Seed of the random flips.

    Raises:
        RequestError: There is no pair, a value is not finite, or the lengths differ.

    >>> paired_permutation_test([0.9, 0.8, 0.7], [0.5, 0.5, 0.5])
    0.25
    """
    first, second = _checked(a), _checked(b)
    if len(first) != len(second):
        raise RequestError(f"a paired test needs as many values on both sides, not {len(first)} and {len(second)}")
    differences = first - second
    # Sums that differ by rounding alone count as equal.
    observed = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    pairs = len(differences)
    if pairs <= MOST_PAIRS_ENUMERATED:
        bits = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * bits) @ differences) >= observed))
    rng = np.random.default_rng(seed)
    hits = 0
    for rows in _parts(RANDOM_FLIPS, pairs):
        signs = 1.0 - 2.0 * rng.integers(2, size=(rows, pairs), dtype=np.int8)
        hits += int(np.count_nonzero(np.abs(signs @ differences) >= observed))
    return (hits + 1) / (RANDOM_FLIPS + 1)


def smallest_p_value(pairs: int) -> float:
    """Return the smallest p-value that ``paired_permutation_test`` can return for so many pairs.

    >>> smallest_p_value(5)
    0.0625
    """
    return min(1.0, 2.0 / 2**pairs) if pairs <= MOST_PAIRS_ENUMERATED else 1.0 / (RANDOM_FLIPS + 1)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values of several tests, corrected for their number by Holm's method.

    The k-th smallest of m is multiplied by m - k + 1, raised to the largest of those before it, and cut to 1. If only
    tests of at most a are taken as real, the chance that one of them is not is at most a, whether or not they depend on
    each other. Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Args:
        p_values: One for each test; shape (m,).

    Returns:
        In the same order; shape (m,).

    Raises:
        RequestError: There is no value, or one is not finite.

    >>> holm([0.03, 0.01, 0.5]).tolist()
    [0.06, 0.03, 0.5]
    """
    values = _checked(p_values)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    return corrected


def expected_best(values: ArrayLike, budgets: ArrayLike, *, lower: bool = False) -> NDArray[np.float64]:
    """Return the expected best of n runs, for each budget n.

    This is the expected maximum of n draws with replacement from the N values seen, v_1 <= ... <= v_N:
    sum over i of v_i * ((i/N)**n - ((i-1)/N)**n). Source: Dodge et al. 2019, "Show Your Work: Improved Reporting of
    Experimental Results", section 3.

    Args:
        values: One value for each run.
        budgets: Numbers of runs, 1 or more each; shape (B,).
        lower: Whether the lowest value is the best: the expected minimum is returned.

    Returns:
        The expectations; shape (B,).

    Raises:
        RequestError: There is no value, one is not finite, or a budget is below 1.

    >>> expected_best([0.0, 1.0], [1, 2, 3]).tolist()
    [0.5, 0.75, 0.875]
    >>> expected_best([0.0, 1.0], [1, 2, 3], lower=True).tolist()
    [0.5, 0.25, 0.125]
    """
    ordered = np.sort(_checked(values))[:: -1 if lower else 1]
    counts = np.asarray(budgets, dtype=np.float64).reshape(-1)
    if np.any(counts < 1):
        raise RequestError("a budget should be 1 run or more")
    reached = np.linspace(0.0, 1.0, len(ordered) + 1)[:, None] ** counts  # share of draws no better than v_i
    expectations: NDArray[np.float64] = ordered @ np.diff(reached, axis=0)
    return expectations


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(array):
        raise RequestError("statistics need one value or more")
    if not np.all(np.isfinite(array)):
        raise RequestError("statistics need finite values")
    return array


def _parts(rows: int, columns: int) -> list[int]:
    """Return how many rows of a large matrix to take at a time, so that no part is large."""
    most = max(1, _ENTRIES_AT_ONCE // columns)
    return [min(most, rows - start) for start in range(0, rows, most)]
