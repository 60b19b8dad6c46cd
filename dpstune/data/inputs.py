"""What the runs of one process share: examples and their tokens, each read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from dpstune.data.examples import Examples
    from dpstune.data.reading import TaskData
    from dpstune.data.tokens import TokenDataset
    from dpstune.recipe.schema import Recipe


class Inputs:
    """Examples, tokenizer and tokens of the last recipe; what the next recipe shares with it is kept.

    Files that change meanwhile are not read again.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, TaskData] = {}
        self._parts: dict[str, TaskData] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._tokens: dict[str, tuple[Examples, TokenDataset]] = {}

    def task(self, recipe: Recipe) -> TaskData:
        """Return a recipe's examples, with the errors of ``read_task`` and ``draw_training_part``."""
        from dpstune.data.reading import draw_training_part, read_task

        data = recipe.data
        key = f"{data.dir} {data.held_out} {recipe.task!r}"
        if key not in self._tasks:
            self._tasks = {key: read_task(recipe.task, data)}
        part = f"{key} {data.train_size} {recipe.seed if data.train_size else ''}"
        if part not in self._parts:
            self._parts = {part: draw_training_part(self._tasks[key], data.train_size, seed=recipe.seed)}
        return self._parts[part]

    def tokenizer(self, recipe: Recipe) -> PreTrainedTokenizerBase:
        """Return a recipe's tokenizer, as ``load_tokenizer`` does and with its errors."""
        from dpstune.models.loading import load_tokenizer

        key = repr((recipe.model.name, recipe.model.revision))
        if key not in self._tokenizers:
            self._tokenizers, self._tokens = {key: load_tokenizer(recipe.model)}, {}
        return self._tokenizers[key]

    def told_of_tokens(self, recipe: Recipe) -> list[str]:
        """Say how a recipe's training texts suit its model, as ``told_of_tokens`` of ``data/lengths.py`` does."""
        from dpstune.data.lengths import told_of_tokens

        return told_of_tokens(self.task(recipe).splits["train"], self.tokenizer(recipe), recipe.data.max_length)

    def tokens(self, recipe: Recipe) -> dict[str, TokenDataset]:
        """Return a recipe's tokenised splits, as ``encode`` makes them and with its errors."""
        from dpstune.data.tokens import encode

        task, tokenizer, length = self.task(recipe), self.tokenizer(recipe), recipe.data.max_length
        float_labels = task.kind != "classification"
        for split, examples in task.splits.items():
            kept = self._tokens.get(split)
            if kept is None or kept[0] is not examples or kept[1].max_length != length:
                self._tokens[split] = (examples, encode(examples, tokenizer, length, float_labels=float_labels))
        return {split: self._tokens[split][1] for split in task.splits}
