"""Inputs for a run that is measured and learns nothing: random token ids and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dpstune.data.inputs import Inputs
from dpstune.data.reading import TaskData
from dpstune.data.tokens import TokenDataset
from dpstune.device.randomness import stream
from dpstune.errors import RequestError
from dpstune.recipe.schema import Recipe
from dpstune.settings.metrics import USUAL_METRIC
from dpstune.settings.sections import UserTask, task_name
from dpstune.settings.tasks import get_task

if TYPE_CHECKING:
    import torch


class GeneratedInputs(Inputs):
    """What ``Loop`` asks for, without data, tokenizer or hub.

    There are as many labels as the recipe's task has; a user's own classification has two.

    Args:
        steps: Steps in an epoch.
        padded: See ``GeneratedTokens``.
    """

    def __init__(self, steps: int = 1, padded: bool = False) -> None:
        super().__init__()
        self._steps, self._padded = steps, padded

    def task(self, recipe: Recipe) -> TaskData:
        """Return a task of the recipe's kind without examples."""
        if isinstance(recipe.task, UserTask):
            kind = recipe.task.kind
            labels = () if kind == "regression" else ("a", "b")
            return TaskData("own", kind, labels, USUAL_METRIC[kind], {}, ())
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
        return {"train": GeneratedTokens(recipe, self.task(recipe), steps=self._steps, padded=self._padded)}


class GeneratedTokens(TokenDataset):
    """The examples of an epoch, drawn from the seed: up to ``data.max_length`` tokens and a label each.

    Unless ``padded``, all have that length except one in each batch, which is one token shorter: for a batch without
    any padding, models use other kernels than for real training data.

    Args:
        recipe: Model, batch size and length.
        task: Kind and labels.
        steps: Steps in an epoch.
        padded: Whether lengths are drawn, from a fourth of ``data.max_length`` up to all of it.
    """

    def __init__(self, recipe: Recipe, task: TaskData, *, steps: int = 1, padded: bool = False) -> None:
        import torch

        from dpstune.models.loading import positions, read_config
        from dpstune.models.structure import special_ids

        training, length = recipe.training, recipe.data.max_length
        _, config = read_config(recipe.model)
        if length > positions(config):
            raise RequestError(f"data.max_length: {length} is more than the model's {positions(config)} tokens")
        size = training.batch_size
        count = size * training.gradient_accumulation * steps
        text = config.get_text_config()
        special = special_ids(text)
        words = [word for word in range(text.vocab_size) if word not in special]
        self._vocabulary = torch.arange(text.vocab_size)
        generator = stream(recipe.seed, "generated")
        self._ids = torch.from_numpy(generator.choice(words, size=(count, length)))
        several = task.kind == "multilabel"
        shape = (count, len(task.label_names)) if several else count
        labels = generator.integers(2 if several else max(1, len(task.label_names)), size=shape)
        self._targets = torch.from_numpy(labels).to(torch.int64 if task.kind == "classification" else torch.float32)
        if padded:
            self.lengths = generator.integers(-(-length // 4), length + 1, size=count).tolist()
        else:
            self.lengths = [max(1, length - 1) if size > 1 and row % size == 0 else length for row in range(count)]
        ends = torch.tensor(self.lengths)
        if getattr(text, "eos_token_id", None) is not None:
            self._ids[torch.arange(count), ends - 1] = text.eos_token_id  # BART reads a sentence where it ends
        self._mask = (torch.arange(length) < ends.unsqueeze(1)).long()
        self._ids[self._mask == 0] = getattr(text, "pad_token_id", None) or 0

    @property
    def largest_id(self) -> int:
        """The largest token id."""
        return int(self._ids.max())

    def token_ids(self) -> torch.Tensor:
        """Return every id, int64 [vocabulary]: which of them real texts would use is not known."""
        return self._vocabulary

    def collate(self, indices: Sequence[int], width: int = 0) -> dict[str, torch.Tensor]:
        """Return a batch padded to its longest example, or to ``width``, if that is more.

        It holds ``input_ids`` and ``attention_mask`` [B, T] and ``labels`` [B].
        """
        rows = list(indices)
        width = max(width, max(self.lengths[row] for row in rows))
        return {
            "input_ids": self._ids[rows, :width],
            "attention_mask": self._mask[rows, :width],
            "labels": self._targets[rows],
        }
