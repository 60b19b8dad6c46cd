"""The examples of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Examples:
    """The examples of one split.

    Args:
        ids: One per example.
        texts: One or two strings per example.
        labels: Label indices; values for regression; for several labels an example a row of 0 and 1, one per label of
            the task. None where the split has no labels.
        phenomena: What decides each example of a toy task; None for other tasks.
        groups: What says which examples belong together, None where an example stands alone; None where nothing does.
    """

    ids: list[str]
    texts: list[tuple[str, ...]]
    labels: list[Any] | None
    phenomena: list[str] | None = None
    groups: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int]) -> Examples:
        """Return the examples at ``indices``, in that order."""
        return Examples(
            [self.ids[i] for i in indices],
            [self.texts[i] for i in indices],
            None if self.labels is None else [self.labels[i] for i in indices],
            None if self.phenomena is None else [self.phenomena[i] for i in indices],
            None if self.groups is None else [self.groups[i] for i in indices],
        )
