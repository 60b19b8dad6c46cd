"""The logs of a run while it trains: metrics.jsonl, TensorBoard events, and what ``Progress`` is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dpstune.common.progress import Progress
from dpstune.runs.folder import MetricsLog, RunFolder
from dpstune.training.tensorboard import open_events

if TYPE_CHECKING:
    from dpstune.evaluation.scoring import Evaluation


class RunLog:
    """The logs of one run; only the main process writes files.

    Args:
        folder: The run's folder; None on the processes that write nothing.
        progress: Who is told how it goes.
        steps_per_epoch: Steps of one epoch.
        size: Bytes of metrics.jsonl that a resumed run keeps: those written before its checkpoint.
        after_step: The step it resumes after.
    """

    def __init__(
        self, folder: RunFolder | None, progress: Progress, *, steps_per_epoch: int, size: int, after_step: int
    ) -> None:
        self._progress, self._steps_per_epoch = progress, steps_per_epoch
        self._metrics = None if folder is None else MetricsLog(folder.metrics, size=size)
        self._events = None if folder is None else open_events(folder.path / "tensorboard", after_step=after_step)

    @property
    def size(self) -> int:
        """Bytes of metrics.jsonl so far; 0 on the processes that write nothing."""
        return 0 if self._metrics is None else self._metrics.size

    def losses(self, lines: list[dict[str, Any]]) -> None:
        """Log finished steps, one dict each: step, loss, learning rate, and where it was read, fp16's loss scaling.

        A loss that is not finite, in a step that fp16 skipped, is null in metrics.jsonl.
        """
        for line in lines:
            line["epoch"] = self._epoch(line["step"])
            for name in ("loss", "learning_rate", "loss_scale", "skipped_steps"):
                if name in line:
                    self._event(f"train/{name}", line[name], line["step"])
        if self._metrics is not None:
            self._metrics.append([{**line, "loss": _finite(line["loss"])} for line in lines])
        if lines:
            self._progress.step(lines[-1]["step"], lines[-1]["loss"], lines[-1]["learning_rate"])

    def evaluations(self, step: int, evaluations: Mapping[str, Evaluation]) -> None:
        """Log the metrics of every split that has labels."""
        for split, evaluation in evaluations.items():
            if not evaluation.metrics:
                continue
            if self._metrics is not None:
                self._metrics.append([{"step": step, "epoch": self._epoch(step), "split": split, **evaluation.metrics}])
            for name, value in evaluation.metrics.items():
                if value is not None:
                    self._event(f"{split}/{name}", value, step)
            self._progress.evaluation(step, split, evaluation.metrics)

    def sync(self) -> None:
        """Make sure that the log is on the disk, before a checkpoint records its size."""
        if self._metrics is not None:
            self._metrics.sync()

    def close(self) -> None:
        """Close the files and tell that training has ended."""
        self._progress.finish()
        if self._metrics is not None:
            self._metrics.close()
        if self._events is not None:
            with suppress(OSError):  # on a full disk; what stopped the run has been said
                self._events.close()

    def _epoch(self, step: int) -> float:
        return round(step / self._steps_per_epoch, 4)

    def _event(self, name: str, value: float, step: int) -> None:
        if self._events is not None:
            self._events.add_scalar(name, value, step)


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
