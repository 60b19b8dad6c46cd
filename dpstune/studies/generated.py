"""Inputs for a run that measures and learns nothing: token ids drawn by chance, every example of full length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dpstune.data import TaskData, TokenDataset
from dpstune.errors import RequestError
from dpstune.inputs import Inputs
from dpstune.randomness import stream
from dpstune.recipe import OwnTask, Recipe
from dpstune.sections import task_name
from dpstune.tasks import get_task

if TYPE_CHECKING:
    import torch

_SPECIAL_TOKENS = ("pad", "bos", "eos", "cls", "sep", "mask", "unk", "decoder_start")


class GeneratedInputs(Inputs):
    """What ``engine.Loop`` asks for, without data, tokenizer or hub: one step's examples.

    The labels are as many as the recipe's task has; a user's own classification has two.
    """

    def task(self, recipe: Recipe) -> TaskData:
        """Return a task of the recipe's kind without examples."""
        if isinstance(recipe.task, OwnTask):
            kind, metric = recipe.task.kind, recipe.task.metric or "accuracy"
            labels = ("a", "b") if kind == "classification" else ()
            return TaskData("own", kind, labels, metric, {}, ())
        known = get_task(task_name(recipe.task))
        return TaskData(known.name, known.kind, known.labels, known.metric, {}, ())

    def tokenizer(self, recipe: Recipe) -> Any:
        """Return None: nothing is tokenised."""
        return None

    def tokens(self, recipe: Recipe) -> dict[str, TokenDataset]:
        """Return the training split alone.

        Raises:
            RequestError: The model takes fewer tokens than ``data.max_length``.
        """
        return {"train": GeneratedTokens(recipe, self.task(recipe))}


class GeneratedTokens(TokenDataset):
    """As many examples as a step holds, each of ``data.max_length`` tokens and a label, drawn from the seed.

    Args:
        recipe: Model, batch size and length.
        task: Kind and labels.
    """

    def __init__(self, recipe: Recipe, task: TaskData) -> None:
        import torch

        from dpstune.models import positions, read_config

        training, length = recipe.training, recipe.data.max_length
        _, config = read_config(recipe.model)
        if length > positions(config):
            raise RequestError(f"data.max_length: {length} is more than the model's {positions(config)} tokens")
        count = training.batch_size * training.gradient_accumulation
        self.lengths = [length] * count
        text = config.get_text_config()
        special = {getattr(text, f"{name}_token_id", None) for name in _SPECIAL_TOKENS}
        words = [word for word in range(text.vocab_size) if word not in special]
        generator = stream(recipe.seed, "generated")
        self._ids = torch.from_numpy(generator.choice(words, size=(count, length)))
        if getattr(text, "eos_token_id", None) is not None:
            self._ids[:, -1] = text.eos_token_id  # BART reads a sentence where it ends
        labels = generator.integers(max(1, len(task.label_names)), size=count)
        self._targets = torch.from_numpy(labels).to(torch.float32 if task.kind == "regression" else torch.int64)

    def collate(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return a batch: ``input_ids``, an ``attention_mask`` of ones and ``labels``."""
        import torch

        rows = list(indices)
        ids = self._ids[rows]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self._targets[rows]}
