"""Losses of the training steps and fp16's loss scale, read from the device a few steps at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dpstune.errors import DivergedError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim import Optimizer

STEPS_BETWEEN_READINGS = 10  # on an accelerator, where to read a loss is to wait for it
LEAST_SCALE = 1.0  # below it a scaled loss is smaller than the loss, and its gradients still overflow


class LossReadings:
    """Losses of finished steps, kept on the device until a few are read at once.

    Under fp16 a step whose gradients overflow is skipped and the loss scale halved: a loss may be infinite there
    without harm. Each reading says what the scale is and how many steps were skipped so far.

    Args:
        accelerator: Says where losses are, which ranks to average over, and the loss scale if there is one.
        optimizer: Counts the updates it made.
    """

    def __init__(self, accelerator: Accelerator, optimizer: Optimizer) -> None:
        self._accelerator, self._optimizer = accelerator, optimizer
        self._interval = 1 if accelerator.device.type == "cpu" else STEPS_BETWEEN_READINGS
        self._pending: list[tuple[int, Tensor, float]] = []

    def add(self, step: int, loss: Tensor, rate: float) -> None:
        """Keep a step's loss (a 0-d tensor) and learning rate."""
        self._pending.append((step, loss, rate))

    @property
    def due(self) -> bool:
        """Whether it is time to read the kept losses."""
        return bool(self._pending) and self.at_reading_point(self._pending[-1][0])

    def at_reading_point(self, step: int) -> bool:
        """Tell whether losses are read after ``step``; the same on every rank."""
        return step % self._interval == 0

    def read(self) -> list[dict[str, Any]]:
        """Return what is kept, a dict a step, and keep it no longer.

        Under fp16 the last of them also holds what ``scaling`` returns.

        Raises:
            RunError: A loss is not finite, or under fp16 the loss scale fell below 1.
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
        scaling = self.scaling(lines[-1]["step"])
        if scaling is None:
            _refuse_infinite(lines)
        else:
            _refuse_vanished(scaling, lines[-1]["step"])
            lines[-1] |= scaling
        return lines

    def scaling(self, step: int) -> dict[str, Any] | None:
        """Return ``loss_scale``, and the ``skipped_steps`` of ``step``; None where losses are not scaled."""
        import torch

        scaler = self._accelerator.scaler
        if scaler is None:
            return None
        updates = [state["step"] for state in self._optimizer.state.values() if "step" in state]
        made = int(torch.stack(updates).max()) if updates else 0
        return {"loss_scale": float(scaler.get_scale()), "skipped_steps": step - made}


def refuse_infinite_weights(model: nn.Module, step: int) -> None:
    """Refuse to go on with what ``step`` has made of the trained weights, where one is not finite.

    Raises:
        DivergedError: It is so. No loss has shown it yet.
    """
    from dpstune.methods.base import weights_are_finite

    if not weights_are_finite(model):
        raise DivergedError(
            f"weights are not finite after step {step}; try a lower training.learning_rate, more training.warmup_steps "
            "or training.precision fp32"
        )


def _refuse_infinite(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        if not math.isfinite(line["loss"]):
            raise DivergedError(
                f"the loss of step {line['step']} is {line['loss']}; try a lower training.learning_rate, more "
                "training.warmup_steps or training.precision fp32"
            )


def _refuse_vanished(scaling: dict[str, Any], step: int) -> None:
    if scaling["loss_scale"] < LEAST_SCALE:
        raise DivergedError(
            f"gradients overflow fp16 at every loss scale: {scaling['skipped_steps']} of {step} steps were "
            "skipped; try a lower training.learning_rate, more training.warmup_steps or training.precision bf16 or fp32"
        )
