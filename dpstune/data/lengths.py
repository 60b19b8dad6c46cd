"""How long texts are in tokens, what of them is cut, and what of them the model does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from dpstune.data.examples import Examples
from dpstune.data.finding import RARE, Finding, Places, Row, histogram, part_of
from dpstune.data.sources import RawSplit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_UNKNOWN = 0.5
MANY_CUT = 0.1
_AT_ONCE = 2000  # rows tokenised together
_LOOKED_AT = 2000  # training rows of which it is told before training how many are cut, and how many not known
_READABLE = "Choose a model that was trained on their language or script, or take them out."


@dataclass(frozen=True)
class Lengths:
    """How long each row is.

    Args:
        of: Each row's length.
        unknown: Each row's share of unknown tokens; empty where words were counted.
        max_length: Where training cuts.
        most: What the model takes; None where words were counted.
        counted_by: The tokenizer's model; None where words were counted.
    """

    of: Mapping[Row, int]
    unknown: Mapping[Row, float]
    max_length: int
    most: int | None
    counted_by: str | None


def token_lengths(
    raw: Mapping[str, RawSplit], tokenizer: PreTrainedTokenizerBase, name: str, max_length: int
) -> Lengths:
    """Count each row's tokens, as training would see them before it cuts.

    Args:
        raw: The splits.
        tokenizer: The model's.
        name: The model's.
        max_length: Where training cuts.
    """
    lengths: dict[Row, int] = {}
    unknown: dict[Row, float] = {}
    special = _special_tokens(tokenizer, [texts for part in raw.values() for texts in part.texts[:1]])
    for split, part in raw.items():
        for start in range(0, len(part.texts), _AT_ONCE):
            for position, ids in enumerate(_whole(part.texts[start : start + _AT_ONCE], tokenizer), start):
                lengths[split, position] = len(ids)
                unknown[split, position] = _unknown(ids, tokenizer, special)
    return Lengths(lengths, unknown, max_length, tokenizer.model_max_length, name)


def told_of_tokens(training: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """Say how many training texts the model does not know, and how many are cut; nothing where they are few.

    At most about 2,000 rows are tokenised, spread evenly, so that it is fast.

    Args:
        training: The training rows.
        tokenizer: The model's.
        max_length: Where training cuts.
    """
    looked_at = training.texts[:: -(-len(training) // _LOOKED_AT)]
    tokens, special = _whole(looked_at, tokenizer), _special_tokens(tokenizer, looked_at)
    count, lengths = len(tokens), [len(ids) for ids in tokens]
    rows = "training rows" + (" that were looked at" if count < len(training) else "")
    told = []
    strange = sum(_unknown(ids, tokenizer, special) > MOST_UNKNOWN for ids in tokens)
    if strange >= RARE * count:
        told.append(f"{strange} of {count} {rows} are mostly one unknown token to the model. {_READABLE}")
    cut = sum(length > max_length for length in lengths)
    return [*told, *filter(None, [_told_of(cut, max(lengths), rows, count, f"data.max_length {max_length}")])]


class CutTexts:
    """Counts the texts of which a model reads only the beginning, as they come.

    Args:
        tokenizer: The model's.
        max_length: Where they are cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._rows = self._cut = self._longest = 0

    def add(self, texts: Sequence[tuple[str, ...]], tokens: Sequence[int]) -> None:
        """Count rows.

        Args:
            texts: Their texts.
            tokens: How many tokens are left of each.
        """
        self._rows += len(texts)
        full = [text for text, left in zip(texts, tokens, strict=True) if left == self._max_length]
        lengths = [len(ids) for ids in _whole(full, self._tokenizer)] if full else []
        self._cut += sum(length > self._max_length for length in lengths)
        self._longest = max([self._longest, *lengths])

    def told(self) -> str | None:
        """Say how many were cut; None where they are few."""
        return _told_of(self._cut, self._longest, "rows", self._rows, f"{self._max_length} tokens")


def _told_of(cut: int, longest: int, rows: str, count: int, limit: str) -> str | None:
    """Say how many of ``count`` rows are cut; None where they are few."""
    if cut == 0 or cut < MANY_CUT * count:
        return None
    return f"{cut} of {count} {rows} are longer than {limit} and are cut; the longest has {longest} tokens"


def _special_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]]) -> int:
    """Return how many tokens of a row are not of its texts."""
    return tokenizer.num_special_tokens_to_add(pair=any(len(each) == 2 for each in texts))


def _unknown(ids: list[int], tokenizer: PreTrainedTokenizerBase, special: int) -> float:
    """Return the share of unknown tokens among those of a row's texts."""
    return ids.count(tokenizer.unk_token_id) / max(1, len(ids) - special)


def _whole(texts: Sequence[tuple[str, ...]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the tokens of rows that are not cut."""
    columns = map(list, zip(*texts, strict=True))
    encoded = tokenizer(*columns, split_special_tokens=True, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def word_lengths(raw: Mapping[str, RawSplit], max_length: int) -> Lengths:
    """Count each row's words, where no tokenizer is at hand; a word is a token or more."""
    words = {
        (split, position): sum(len(text.split()) for text in texts)
        for split, part in raw.items()
        for position, texts in enumerate(part.texts)
    }
    return Lengths(words, {}, max_length, None, None)


def length_findings(lengths: Lengths, places: Places) -> Iterator[Finding]:
    """Yield what is cut, and what the model does not know."""
    total = len(lengths.of)
    strange = [row for row, unknown in lengths.unknown.items() if unknown > MOST_UNKNOWN]
    if strange:
        yield Finding(
            "unknown-tokens",
            "warning" if len(strange) >= RARE * total else "note",
            len(strange),
            places.some(strange),
            _READABLE,
            (f"mostly one unknown token to {lengths.counted_by}: {part_of(len(strange), total)}",),
        )
    cut = [row for row, length in lengths.of.items() if length > lengths.max_length]
    if cut:
        what = f"longer than {lengths.max_length} tokens of {lengths.counted_by}"
        if lengths.counted_by is None:
            what = f"longer than {lengths.max_length} words (no tokenizer is at hand; a word is one token or more)"
        yield Finding(
            "cut-text",
            "warning" if len(cut) >= MANY_CUT * total else "note",
            len(cut),
            places.some(cut),
            _how_to_keep_more(lengths),
            (
                f"{what}, and so cut: {part_of(len(cut), total)}",
                *histogram(_bins(list(lengths.of.values()), lengths.max_length)),
            ),
        )


def _how_to_keep_more(lengths: Lengths) -> str:
    ordered = sorted(lengths.of.values())
    wanted = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    if wanted <= lengths.max_length:
        return "Leave it, unless the ends of these texts matter: data.max_length keeps them."
    wanted = -(-wanted // 32) * 32
    if lengths.most is None or wanted <= lengths.most:
        return f"Set data.max_length to {wanted}, at the price of time and memory."
    if lengths.max_length < lengths.most:
        return f"Set data.max_length to {lengths.most}, which is all the model takes, or shorten the texts."
    return "Shorten the texts, or choose a model that takes more tokens."


def _bins(lengths: Sequence[int], max_length: int) -> dict[str, int]:
    """Count lengths by quarters of what is kept, and what is up to twice as long, and longer."""
    edges = sorted({0, *(max_length * quarter // 4 for quarter in range(1, 5)), 2 * max_length})
    bins = {f"{low + 1}-{high}": sum(low < length <= high for length in lengths) for low, high in pairwise(edges)}
    longer = sum(length > edges[-1] for length in lengths)
    return bins | ({f"{edges[-1] + 1}-": longer} if longer else {})
