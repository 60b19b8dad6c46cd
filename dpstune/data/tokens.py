"""A split as tokens, and batches cut out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from dpstune.data.examples import Examples
from dpstune.errors import RequestError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class TokenDataset:
    """A tokenised split. One tensor per feature holds all examples end to end; a batch is cut out of it.

    Args:
        features: ``input_ids`` and the model's other inputs; of each, a list of ints per example.
        labels: Label indices, values or rows of 0 and 1, or None.
        tokenizer: The model's; says how to pad.
        max_length: The tokens that longer examples were cut to.
        float_labels: Whether labels are floats: values, or a row for several labels an example.
    """

    def __init__(
        self,
        features: dict[str, list[list[int]]],
        labels: Sequence[Any] | None,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        float_labels: bool,
    ) -> None:
        self.max_length = max_length
        self.labels, self._tokenizer, self._float_labels = labels, tokenizer, float_labels
        self.lengths = [len(ids) for ids in features["input_ids"]]
        self._ends = list(accumulate(self.lengths))
        self._features = {name: _ints(chain.from_iterable(rows)) for name, rows in features.items()}

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, indices: Sequence[int]) -> TokenDataset:
        """Return the examples at ``indices``, in that order."""
        features = {name: [row.tolist() for row in self._rows(name, indices)] for name in self._features}
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return TokenDataset(features, labels, self._tokenizer, self.max_length, self._float_labels)

    def labelled(self, labels: Sequence[Any]) -> TokenDataset:
        """Return the same examples with other labels, one each."""
        other = copy(self)
        other.labels = labels
        return other

    def _rows(self, name: str, indices: Sequence[int]) -> list[torch.Tensor]:
        return [self._features[name][self._ends[i] - self.lengths[i] : self._ends[i]] for i in indices]

    @property
    def largest_id(self) -> int:
        """The largest token id; 0 without examples."""
        ids = self._features["input_ids"]
        return int(ids.max()) if len(ids) else 0

    def token_ids(self) -> torch.Tensor:
        """Return the ids that batches hold, each once, padding among them: int64 [N]."""
        import torch

        ids: torch.Tensor = torch.cat(
            [self._features["input_ids"], torch.tensor([self._padding("input_ids")])]
        ).unique()
        return ids

    def collate(self, indices: Sequence[int], width: int = 0) -> dict[str, torch.Tensor]:
        """Return a batch as the model's keyword arguments: int64 [examples, tokens].

        They are padded to the longest example, or to ``width``, if that is more. ``labels`` are int64 [examples],
        float32 for regression; a split without labels has none.
        """
        import torch

        lengths = torch.tensor([self.lengths[i] for i in indices]).unsqueeze(1)
        width = max(width, int(lengths.max()))
        position = torch.arange(width)
        on_the_right = self._tokenizer.padding_side == "right"
        inside = position < lengths if on_the_right else position >= width - lengths
        batch = {}
        for name in self._features:
            batch[name] = torch.full(inside.shape, self._padding(name))
            batch[name][inside] = torch.cat(self._rows(name, indices))
        if "attention_mask" in self._tokenizer.model_input_names:
            batch["attention_mask"] = inside.long()
        if self.labels is not None:
            dtype = torch.float32 if self._float_labels else torch.int64
            batch["labels"] = torch.tensor([self.labels[i] for i in indices], dtype=dtype)
        return batch

    def _padding(self, name: str) -> int:
        """Return what a feature is padded with, as the tokenizer's own ``pad`` has it."""
        tokenizer = self._tokenizer
        value: int = tokenizer.pad_token_type_id if name == "token_type_ids" else tokenizer.pad_token_id
        return value


def _ints(values: Iterable[int]) -> torch.Tensor:
    import torch

    return torch.tensor(list(values), dtype=torch.int64)


def to_device(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch on ``device``; it is copied to a GPU from page-locked memory, so that the CPU does not wait."""
    if device.type == "cuda":
        batch = {key: value.pin_memory() for key, value in batch.items()}
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def encode(
    examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int, *, float_labels: bool = False
) -> TokenDataset:
    """Tokenise a split, cutting the longer text first where a pair is too long.

    Args:
        examples: The split.
        tokenizer: The model's.
        max_length: A longer example is cut to this many tokens.
        float_labels: Whether labels are floats: values, or a row for several labels an example.

    Raises:
        RequestError: The model takes fewer tokens than ``max_length``.
    """
    if max_length > tokenizer.model_max_length:
        raise RequestError(
            f"data.max_length: {max_length} is more than the model's {tokenizer.model_max_length} tokens"
        )
    columns = list(zip(*examples.texts, strict=True))
    encoded = tokenizer(
        *[list(column) for column in columns],
        split_special_tokens=True,  # "[SEP]" in a text is read as text
        truncation="longest_first" if len(columns) > 1 else True,
        max_length=max_length,
        return_attention_mask=False,
    )
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    return TokenDataset(dict(encoded), examples.labels, tokenizer, max_length, float_labels)
