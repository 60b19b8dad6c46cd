"""Texts that are nearly the same, found without comparing each with each.

A text is the set of its shingles, all runs of five characters. How alike two sets are is their Jaccard similarity: what
they share, divided by what either has. The smallest hash of a set's members is the same for two sets as often as they
are alike (Broder 1997, "On the resemblance and containment of documents"). Of some such hashes a text, bands are made;
texts that agree in a whole band are candidates (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter
3.4), and only those are compared, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from dpstune.device.randomness import stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 5  # characters
ALIKE = 0.8
BANDS, HASHES_A_BAND = 12, 4  # two texts that are 0.8 alike agree in a band or more with a probability of 0.998
_NEIGHBOURS = 10  # a text's candidates in a band: so many of each part before it, so that many copies cost no square
_LIKELY = 0.6  # of the hashes: below, two texts that are 0.8 alike lie 3.5 standard deviations away
_BLOCK = 1 << 17  # characters hashed at once: what stays in a processor's cache


class NearPair(NamedTuple):
    """Two texts that are nearly the same, by their positions, and how alike they are."""

    earlier: int
    later: int
    similarity: float


def near_pairs(texts: Sequence[tuple[str, ...]], parts: Sequence[int]) -> list[NearPair]:
    """Find, for each text and each part, one earlier text of that part that is nearly the same.

    Args:
        texts: One or two strings each; a pair is nearly the same as another where both of its strings are.
        parts: Which part, such as a split, each text belongs to.

    Returns:
        Pairs of a Jaccard similarity of 0.8 or more (of a pair's strings the lower one counts), ordered by the later.

    >>> near_pairs([("The printer is out of paper",), ("The printer is out of paper!",), ("Hello",)], [0, 1, 1])
    [NearPair(earlier=0, later=1, similarity=0.9583333333333334)]
    """
    found: dict[tuple[int, int], NearPair] = {}
    shingles = lru_cache(maxsize=1 << 12)(lambda position: [shingle_set(text) for text in texts[position]])
    for earlier, later in _candidates(texts, parts):
        if (later, parts[earlier]) not in found:
            similarity = min(map(jaccard, shingles(earlier), shingles(later)))
            if similarity >= ALIKE:
                found[later, parts[earlier]] = NearPair(earlier, later, similarity)
    return sorted(found.values(), key=lambda pair: (pair.later, pair.earlier))


def shingle_set(text: str) -> frozenset[str]:
    """Return a text's runs of five characters; a shorter text is one by itself.

    >>> sorted(shingle_set("banana"))
    ['anana', 'banan']
    """
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return what two sets share, divided by what either has.

    >>> jaccard(frozenset("abc"), frozenset("bcd"))
    0.5
    """
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _candidates(texts: Sequence[tuple[str, ...]], parts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield pairs of texts that are probably alike, ordered by the later one, the likeliest first."""
    import numpy as np

    if len(texts) < 2:
        return
    hashes = _smallest_hashes(texts)
    pairs = np.unique(np.concatenate(list(_agreeing(hashes, np.array(parts)))))
    earlier, later = np.divmod(pairs, len(texts))
    agree = np.zeros(len(pairs), dtype=np.int16)
    for each in hashes:
        agree += each[earlier] == each[later]
    likely = np.flatnonzero(agree >= _LIKELY * len(hashes))
    order = likely[np.lexsort((earlier[likely], -agree[likely], later[likely]))]
    yield from zip(earlier[order].tolist(), later[order].tolist(), strict=True)


def _agreeing(hashes: NDArray[np.uint64], parts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield, band by band, pairs of texts that agree in it, each as earlier * count + later.

    A text is paired with the latest ten of each part before it.

    Args:
        hashes: [functions, texts].
        parts: Which part each text belongs to.
    """
    import numpy as np

    count = hashes.shape[1]
    factors = stream(0, "bands").integers(1, 1 << 63, size=HASHES_A_BAND, dtype=np.uint64) | 1
    for band in range(0, len(hashes), HASHES_A_BAND):
        key = (hashes[band : band + HASHES_A_BAND] * factors[:, None]).sum(axis=0, dtype=np.uint64)
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        for part in np.unique(parts):
            members = np.flatnonzero(parts[order] == part)
            before = np.searchsorted(members, np.arange(count))  # how many of the part come before each text
            later = np.flatnonzero(before)
            for distance in range(1, _NEIGHBOURS + 1):
                later = later[before[later] >= distance]
                earlier = members[before[later] - distance]
                same = ordered[earlier] == ordered[later]
                earlier, later = earlier[same], later[same]
                if not len(later):
                    break
                yield order[earlier] * count + order[later]
    yield np.empty(0, dtype=np.int64)


def _smallest_hashes(texts: Sequence[tuple[str, ...]]) -> NDArray[np.uint64]:
    """Return the smallest hash of each text's shingles under each of the hash functions, a row a function."""
    import numpy as np

    draw = stream(0, "shingles")
    count = BANDS * HASHES_A_BAND
    first, second = (draw.integers(0, 1 << 63, size=count, dtype=np.uint64) << 1 | 1 for _ in range(2))
    smallest = np.empty((count, len(texts)), dtype=np.uint64)
    for start, stop in _blocks(texts):
        members, begins = _hashed_shingles(texts[start:stop])
        for number in range(count):
            mixed = members * first[number]
            mixed ^= mixed >> 32
            mixed *= second[number]
            smallest[number, start:stop] = np.minimum.reduceat(mixed, begins)
    return smallest


def _blocks(texts: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Yield ranges of texts of some characters together, one text at least."""
    start, characters = 0, 0
    for position, strings in enumerate(texts):
        characters += sum(map(len, strings))
        if characters >= _BLOCK:
            yield start, position + 1
            start, characters = position + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _hashed_shingles(texts: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return a number for each shingle of each text, end to end, and where each text's begin.

    The shingles of a pair's second string are other ones than those of its first.
    """
    import numpy as np

    strings = [string.ljust(SHINGLE, "\0") for pair in texts for string in pair]
    columns = len(texts[0])
    codes = np.frombuffer("".join(strings).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, strings), dtype=np.int64, count=len(strings))
    windows = lengths - SHINGLE + 1
    factors = stream(0, "characters").integers(1, 1 << 63, size=SHINGLE, dtype=np.uint64) | 1
    last = len(codes) - SHINGLE + 1
    numbers = np.zeros(last, dtype=np.uint64)
    for offset, factor in enumerate(factors):
        numbers += codes[offset : offset + last] * factor
    inside = np.ones(len(codes), dtype=bool)  # a window that ends in another string is no shingle
    ends = np.cumsum(lengths)
    for offset in range(1, SHINGLE):
        inside[ends - offset] = False
    numbers = numbers[inside[:last]]
    numbers += np.repeat(np.tile(np.arange(columns, dtype=np.uint64), len(texts)), windows) * factors[0] * factors[1]
    numbers ^= numbers >> 31
    numbers *= factors[2]
    numbers ^= numbers >> 27
    begins = np.concatenate(([0], np.cumsum(windows)[:-1]))[::columns]
    return numbers, begins
