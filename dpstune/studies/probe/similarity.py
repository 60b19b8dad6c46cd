"""How like two models' representations of the same texts are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[Any]
"""A vector for each text, [texts, width]."""

_ROUNDING = 1e-12  # vectors that differ by no more, as a share of their length, are equal


def linear_cka(x: Features, y: Features) -> float | None:
    """Return the linear centred kernel alignment of two representations of the same texts.

    With every column of X and Y less its mean,

        CKA(X, Y) = ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F),

    computed in float64. It is 1 where one is the other rotated, reflected or scaled as a whole, and 0 where no linear
    function of one says anything of the other. This is the ratio with the biased estimator of HSIC: of a few texts it
    is too high (two independent representations of width d of n texts, no direction stronger than another, have about
    d / (n + d)). Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", section 3.

    Args:
        x: [texts, width].
        y: Of the same texts in the same order; the width may differ.

    Returns:
        Between 0 and 1; None where all texts have the same vector.

    >>> x = np.array([[0.0, 1.0], [2.0, 0.0], [4.0, 5.0]])
    >>> linear_cka(x, 3 * x[:, ::-1] + 1)
    1.0
    """
    centred = []
    for each in (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)):
        apart = each - each.mean(axis=0)
        if np.linalg.norm(apart) <= _ROUNDING * np.linalg.norm(each):
            return None
        centred.append(apart)
    x, y = centred
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return min(1.0, float(np.linalg.norm(y.T @ x) ** 2 / own))  # rounding may leave it a little above 1


def mean_cosine(x: Features, y: Features) -> float:
    """Return the mean over texts of the cosine of a text's two vectors; a vector of zeros counts as 0.

    Args:
        x: [texts, width].
        y: Likewise.

    >>> mean_cosine(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [1.0, -1.0]]))
    0.5
    """
    x, y = (np.asarray(each, dtype=np.float64) for each in (x, y))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    products = (x * y).sum(axis=1)
    return float(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0).mean())
