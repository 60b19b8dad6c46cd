"""The logs of a run while it trains: metrics.jsonl, trackers, and what ``Progress`` is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dpstune.common.progress import Progress
from dpstune.runs.folder import MetricsLog, RunFolder
from dpstune.training.trackers import Point, Trackers

if TYPE_CHECKING:
    from dpstune.evaluation.scoring import Evaluation
    from dpstune.recipe.schema import Recipe


class RunLog:
    """The logs of one run; only the main process writes files.

    Args:
        folder: The run's folder; None on the processes that write nothing.
        progress: Who is told how it goes.
        steps_per_epoch: Steps of one epoch.
        size: Bytes of metrics.jsonl that a resumed run keeps: those written before its checkpoint.
        after_step: The step it resumes after.
        recipe: Names the trackers; without one, or a folder, there are none.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        progress: Progress,
        *,
        steps_per_epoch: int,
        size: int,
        after_step: int,
        recipe: Recipe | None = None,
    ) -> None:
        self._progress, self._steps_per_epoch = progress, steps_per_epoch
        self._metrics = None if folder is None else MetricsLog(folder.metrics, size=size)
        self._trackers = Trackers(progress.note)
        if folder is not None and recipe is not None:
            self._trackers.open(recipe, folder, after_step=after_step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files and tell that training has ended, and how."""
        try:
            self._progress.finish()
        finally:
            if self._metrics is not None:
                self._metrics.close()
            self._trackers.finish(error)

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
        if self._metrics is not None:
            self._metrics.append([{**line, "loss": _finite(line["loss"])} for line in lines])
        if lines:
            self._trackers.log([Point(line["step"], _curves(line)) for line in lines])
            self._progress.step(lines[-1]["step"], lines[-1]["loss"], lines[-1]["learning_rate"])

    def evaluations(self, step: int, evaluations: Mapping[str, Evaluation]) -> None:
        """Log the metrics of every split that has labels."""
        for split, evaluation in evaluations.items():
            if not evaluation.metrics:
                continue
            if self._metrics is not None:
                self._metrics.append([{"step": step, "epoch": self._epoch(step), "split": split, **evaluation.metrics}])
            values = {f"{split}/{name}": value for name, value in evaluation.metrics.items() if value is not None}
            self._trackers.log([Point(step, values)])
            self._progress.evaluation(step, split, evaluation.metrics)

    def sync(self) -> None:
        """Make sure that the log is on the disk, before a checkpoint records its size."""
        if self._metrics is not None:
            self._metrics.sync()

    def _epoch(self, step: int) -> float:
        return round(step / self._steps_per_epoch, 4)


def _curves(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what a line of a step holds, by the names of its curves."""
    return {f"train/{name}": value for name, value in line.items() if name not in ("step", "epoch")}


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
