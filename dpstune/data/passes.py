"""How a chunk of examples is cut into forward passes, so that little is computed on padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class PassCost:
    """What a forward and backward pass costs beside its tokens.

    Args:
        tokens: As the number of tokens that take as long.
        few_shapes: Whether a shape that was not computed before costs much, so that few should occur.
    """

    tokens: float
    few_shapes: bool = False


NEVER_CUT = PassCost(10**9)

_ROWS = (4, 2, 1)  # where few shapes should occur, a pass has a multiple of the first number of examples that fits


class Pass(NamedTuple):
    """One forward pass: its example indices, and the tokens each is padded to."""

    indices: list[int]
    width: int


def rounded_width(longest: int, most: int) -> int:
    """Return the tokens that examples of up to ``longest`` tokens are padded to where few shapes should occur.

    They are multiples of 8 up to 64, of 16 up to 128, and so on; never more than ``most``.

    >>> [rounded_width(longest, most=100) for longest in (3, 11, 33, 90, 99)]
    [8, 16, 40, 96, 100]
    """
    multiple = 8
    while longest > 8 * multiple:
        multiple *= 2
    return min(most, -(-longest // multiple) * multiple)


def cut_into_passes(
    chunk: Sequence[int], lengths: Sequence[int], cost: PassCost, *, longest: int, most_tokens: float = math.inf
) -> list[Pass]:
    """Cut a chunk into forward passes over examples of similar length.

    A pass costs its tokens, padding included, plus ``cost.tokens``; no other cut costs less in all (where few shapes
    should occur: no other into multiples of 4 examples and a rest). Gradients change only by float error, since a step
    is a sum over its examples.

    Args:
        chunk: Example indices.
        lengths: Tokens of each example.
        cost: What each pass costs.
        longest: The most tokens that any example has, or could have.
        most_tokens: Most tokens, padding included, of a pass over more than one example.

    >>> cut_into_passes([0, 1, 2, 3], [90, 10, 12, 100], PassCost(64), longest=128)
    [Pass(indices=[1, 2], width=12), Pass(indices=[0, 3], width=100)]
    >>> cut_into_passes([0, 1, 2, 3], [90, 10, 12, 100], PassCost(1000, few_shapes=True), longest=128)
    [Pass(indices=[1, 2, 0, 3], width=112)]
    """
    if not chunk:
        return []
    order = sorted(chunk, key=lambda index: lengths[index])
    widths = [lengths[index] for index in order]
    if cost.few_shapes:
        widths = [rounded_width(width, longest) for width in widths]
    padded = len(order) * widths[-1]
    if padded <= most_tokens and padded - sum(widths) <= cost.tokens:
        return [Pass(order, widths[-1])]  # another pass would cost more than all of the padding
    rows = next((rows for rows in _ROWS if rows * widths[-1] <= most_tokens), 1) if cost.few_shapes else 1
    ends = sorted({*range(0, len(order), rows), len(order)})
    cheapest = {0: (0.0, 0)}  # for the first n examples: the cost, and where their last pass begins
    for before, end in enumerate(ends[1:]):
        width = widths[end - 1]
        fitting = [start for start in ends[: before + 1] if (end - start) * width <= most_tokens]
        cheapest[end] = min(
            (cheapest[start][0] + cost.tokens + (end - start) * width, start) for start in fitting or [ends[before]]
        )
    passes: list[Pass] = []
    end = len(order)
    while end > 0:
        start = cheapest[end][1]
        passes.insert(0, Pass(order[start:end], widths[end - 1]))
        end = start
    return passes
