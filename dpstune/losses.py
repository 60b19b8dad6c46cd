"""Losses of the training steps, read from the device a few at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dpstune.errors import RunError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

STEPS_BETWEEN_READINGS = 10  # on an accelerator: reading a loss waits for it


class LossReadings:
    """Losses of finished steps, kept on the device until a few are read at once.

    Args:
        accelerator: Where they are, and the ranks they are averaged over.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._interval = 1 if accelerator.device.type == "cpu" else STEPS_BETWEEN_READINGS
        self._pending: list[tuple[int, Tensor, float]] = []

    def add(self, step: int, loss: Tensor, rate: float) -> None:
        """Keep a step's loss (a 0-d tensor) and learning rate."""
        self._pending.append((step, loss, rate))

    @property
    def due(self) -> bool:
        """Tell whether enough are kept."""
        return bool(self._pending) and self.at_reading_point(self._pending[-1][0])

    def at_reading_point(self, step: int) -> bool:
        """Tell whether losses are read after ``step``; the same on every rank."""
        return step % self._interval == 0

    def read(self) -> list[dict[str, Any]]:
        """Return what is kept, a dict a step, and keep it no longer.

        Raises:
            RunError: A loss is not finite.
        """
        import torch

        if not self._pending:
            return []
        losses = torch.stack([loss for _, loss, _ in self._pending])
        values = self._accelerator.reduce(losses, "mean").tolist()
        lines = [
            {"step": step, "loss": value, "learning_rate": rate}
            for (step, _, rate), value in zip(self._pending, values, strict=True)
        ]
        self._pending = []
        for line in lines:
            if not math.isfinite(line["loss"]):
                raise RunError(
                    f"the loss of step {line['step']} is {line['loss']}; try a lower training.learning_rate, more "
                    "training.warmup_steps or training.precision fp32"
                )
        return lines
