"""Cutting rows into parts: each label with its share, what belongs together never apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from dpstune.data.written_forms import text_form
from dpstune.device.randomness import stream
from dpstune.errors import RequestError

_MOST_BINS = 10  # that values are put into
_ROWS_A_BIN = 5  # in each part
_WEIGHT_OF_SIZE = 0.25  # of a part's size against that of its labels: less than one row of a rare label


def split_rows(
    labels: Sequence[Hashable],
    texts: Sequence[tuple[str, ...]],
    groups: Sequence[Hashable | None] | None = None,
    *,
    shares: Sequence[float],
    seed: int = 0,
    values: bool = False,
) -> list[list[int]]:
    """Cut rows into parts by chance, so that each has its share of every label.

    Rows of one group, and rows with equal texts (``text_form``), go into the same part. Such blocks are dealt out
    one after the other, the largest first, each to the part that lacks the most of what is in
    it, of the rows that have come so far.

    Args:
        labels: One a row; a tuple where a row may have several.
        texts: One or two strings a row.
        groups: What rows have in common that belong together, None for a row by itself; None for no groups at all.
        shares: The parts' shares of the rows; they add up to 1. K folds are ``[1 / K] * K``.
        seed: What chance is drawn from; the same rows, shares and seed give the same parts on every machine.
        values: Whether labels are values; the parts then have equal shares of low, middling and high ones.

    Returns:
        The positions of each part's rows, ascending.

    Raises:
        RequestError: There are fewer blocks than parts.

    >>> split_rows(["a", "b"] * 4, [(str(n),) for n in range(8)], shares=[0.5, 0.5])
    [[0, 5, 6, 7], [1, 2, 3, 4]]
    """
    blocks = rows_together(texts, groups)
    if len(blocks) < len(shares):
        raise RequestError(
            f"{len(labels)} rows cannot make {len(shares)} parts: there are {len(blocks)} that may stand in different "
            "ones (those of one group or with equal texts stand together)"
        )
    strata = [
        label if isinstance(label, tuple) else (label,) for label in (_bins(labels, shares) if values else labels)
    ]
    sizes = Counter(stratum for row in strata for stratum in row)
    order = stream(seed, "split").permutation(len(blocks)).tolist()
    held = [Counter(stratum for row in block for stratum in strata[row]) for block in blocks]
    rarest = [min((sizes[stratum] for stratum in counts), default=0) for counts in held]
    order.sort(key=lambda block: (-len(blocks[block]), rarest[block]))
    parts = [_Part(share) for share in shares]
    for block in order:
        for part in parts:
            part.come(held[block], len(blocks[block]))
        least = min(parts, key=lambda part: part.cost(held[block], len(blocks[block])))
        least.take(held[block], blocks[block])
    return [sorted(part.rows) for part in parts]


class _Part:
    """A part while blocks are dealt out.

    Args:
        share: Its share of the rows.
    """

    def __init__(self, share: float) -> None:
        self.rows: list[int] = []
        self._share = share
        self._lacks: defaultdict[Hashable, float] = defaultdict(float)  # of each stratum, of the rows that have come
        self._lacks_rows = 0.0

    def come(self, counts: Counter[Hashable], size: int) -> None:
        """Count a block that is to be dealt out, whoever takes it."""
        self._lacks_rows += self._share * size
        for stratum, count in counts.items():
            self._lacks[stratum] += self._share * count

    def cost(self, counts: Counter[Hashable], size: int) -> float:
        """Return by how much the squared distance from the part's shares would grow with a block."""
        of_labels = sum(count * (count - 2 * self._lacks[stratum]) for stratum, count in counts.items())
        return of_labels + _WEIGHT_OF_SIZE * size * (size - 2 * self._lacks_rows)

    def take(self, counts: Counter[Hashable], rows: Sequence[int]) -> None:
        """Take a block."""
        self.rows += rows
        self._lacks_rows -= len(rows)
        for stratum, count in counts.items():
            self._lacks[stratum] -= count


def rows_together(texts: Sequence[tuple[str, ...]], groups: Sequence[Hashable | None] | None) -> list[list[int]]:
    """Return the rows that stand together, block by block, in the order of their first rows.

    Args:
        texts: One or two strings a row; rows with equal ones (``text_form``) stand together.
        groups: What else rows that stand together have in common; None for a row by itself, or for no groups at all.
    """
    block_of = list(range(len(texts)))

    def root(row: int) -> int:
        while block_of[row] != row:
            block_of[row] = row = block_of[block_of[row]]
        return row

    def unite(keys: Iterable[Hashable | None]) -> None:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                one, other = sorted((root(first.setdefault(key, row)), root(row)))
                block_of[other] = one

    unite(tuple(map(text_form, row)) for row in texts)
    unite(groups or ())
    blocks: defaultdict[int, list[int]] = defaultdict(list)
    for row in range(len(texts)):
        blocks[root(row)].append(row)
    return list(blocks.values())


def _bins(values: Sequence[Hashable], shares: Sequence[float]) -> list[Hashable]:
    """Return the quantile bin of each value: as many as leave some rows of each for every part."""
    import numpy as np

    count = min(_MOST_BINS, max(1, len(values) // (_ROWS_A_BIN * len(shares))))
    numbers = np.asarray(values, dtype=np.float64)
    edges = np.quantile(numbers, np.linspace(0, 1, count + 1)[1:-1])
    bins: list[Hashable] = np.searchsorted(edges, numbers, side="right").tolist()
    return bins
