"""Who is told how a run goes."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Who is told how a run goes."""

    def note(self, text: str) -> None:
        """Hear something a person should know: what was dropped, resumed or left out."""

    def start(self, total_steps: int, done_steps: int) -> None:
        """Hear that training starts, or goes on after ``done_steps``."""

    def step(self, step: int, loss: float, rate: float) -> None:
        """Hear the loss and learning rate of a finished step."""

    def evaluation(self, step: int, split: str, metrics: dict[str, float | None]) -> None:
        """Hear the metrics of a split after ``step``."""

    def finish(self) -> None:
        """Hear that training has ended, well or not."""


class SilentProgress:
    """Tells nobody."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def start(self, total_steps: int, done_steps: int) -> None:
        """Ignore it."""

    def step(self, step: int, loss: float, rate: float) -> None:
        """Ignore it."""

    def evaluation(self, step: int, split: str, metrics: dict[str, float | None]) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""
