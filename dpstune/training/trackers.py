"""Trackers: what shows a run's losses and scores as curves, beside its own log; TensorBoard, MLflow, Weights & Biases.

No tracker changes a result: what each is told is what metrics.jsonl holds. One that fails is left out from there on,
and the run goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

from dpstune.common.hub import first_line
from dpstune.common.packages import is_installed
from dpstune.common.writing import read_json, write_json
from dpstune.errors import RequestError, shortened
from dpstune.runs.folder import RunFolder

if TYPE_CHECKING:
    from dpstune.recipe.schema import Recipe

_EXTRA = {"tensorboard": "tensorboard", "mlflow": "trackers", "wandb": "trackers"}
# MLflow's own patience with a server that is gone is minutes for each call; a training step does not wait so long.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_MOST_TOLD = 200  # characters of what a tracker says went wrong


class Point(NamedTuple):
    """What was measured after a step, by the name of its curve."""

    step: int
    values: dict[str, float]


class Tracker(Protocol):
    """One tracker that shows one run."""

    def log(self, points: Sequence[Point]) -> None:
        """Show what was measured, in the order of steps."""

    def finish(self, error: BaseException | None) -> None:
        """Hear that the run has ended, and by which error where it did not end well."""


def refuse_missing_trackers(names: Sequence[str] | None) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        RequestError: One is not; the command that installs it is named.

    >>> refuse_missing_trackers(None)
    """
    for name in names or ():
        if not is_installed(name):
            raise RequestError(
                f"training.trackers: {name} is not installed; pip install 'dpstune[{_EXTRA[name]}]' brings it"
            )


class Trackers:
    """The trackers of one run.

    Args:
        note: Is told, once, of each that fails.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._open: dict[str, Tracker] = {}

    def open(self, recipe: Recipe, folder: RunFolder, *, after_step: int) -> None:
        """Open the trackers a recipe names; where it names none, TensorBoard if that is installed.

        Args:
            recipe: Its keys become the parameters of a tracker that is new to the run.
            folder: The run's folder; it keeps the names by which a resumed run is found again.
            after_step: The step the run resumes after; 0 for a new one.
        """
        names: Sequence[str] | None = recipe.training.trackers
        if names is None:
            names = ("tensorboard",) if is_installed("tensorboard") else ()
        for name in dict.fromkeys(names):
            with self._guarded(name):
                self._open[name] = _KINDS[name](recipe, folder, after_step)

    def log(self, points: Sequence[Point]) -> None:
        """Show what was measured, in the order of steps."""
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                tracker.log(points)

    def finish(self, error: BaseException | None) -> None:
        """Say that the run has ended, and by which error where it did not end well."""
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                tracker.finish(error)
        self._open.clear()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Leave a tracker out that fails inside the block."""
        try:
            yield
        except Exception as error:  # whatever it is, the run is worth more
            self._open.pop(name, None)
            why = shortened(first_line(error), _MOST_TOLD)
            self._note(f"{name} failed and shows no more of this run, which goes on ({why})")


class _TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, recipe: Recipe, folder: RunFolder, after_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Events of later steps, written before the run was stopped, are passed over by whoever reads them.
        self._writer = SummaryWriter(str(folder.path / "tensorboard"), purge_step=after_step + 1)
        if after_step == 0:
            rows = "\n".join(f"| {key} | {value} |" for key, value in _parameters(recipe).items())
            self._writer.add_text("recipe", f"| key | value |\n|---|---|\n{rows}", global_step=0)

    def log(self, points: Sequence[Point]) -> None:
        for step, values in points:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def finish(self, error: BaseException | None) -> None:
        with suppress(OSError):  # on a full disk; what stopped the run has been said
            self._writer.close()


class _WandB:
    """A run of Weights & Biases, under its old id where the run is resumed: the service shows no step twice.

    Its files lie in the run's folder.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, after_step: int) -> None:
        from accelerate.tracking import WandBTracker

        run_id = (read_json(folder.tracker_ids) or {}).get("wandb") or uuid4().hex[:8]
        self._tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", _project(folder)),
            name=_run_name(folder),
            id=run_id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(folder.path)),
            settings={"console": "off", "x_disable_meta": True},  # the command line may hold a storage's password
        )
        self._tracker.start()
        _remember(folder, "wandb", run_id)
        self._tracker.store_init_configuration(_parameters(recipe))

    def log(self, points: Sequence[Point]) -> None:
        for step, values in points:
            self._tracker.log(values, step=step)

    def finish(self, error: BaseException | None) -> None:
        self._tracker.tracker.finish(exit_code=0 if error is None else 1)


class _MLflow:
    """A run of MLflow; a resumed run goes on under its old id, and tells no step twice."""

    def __init__(self, recipe: Recipe, folder: RunFolder, after_step: int) -> None:
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        import mlflow

        known = (read_json(folder.tracker_ids) or {}).get("mlflow")
        self._run_id = self._start(known, folder)
        self._client = mlflow.MlflowClient()
        self._newest: dict[str, int] | None = {} if self._run_id == known else None
        if self._run_id != known:
            _remember(folder, "mlflow", self._run_id)
            self._tracker.store_init_configuration(_parameters(recipe))

    def _start(self, known: str | None, folder: RunFolder) -> str:
        """Go on with a run, or begin one where there is none or another server is asked; return its id."""
        from accelerate.tracking import MLflowTracker
        from mlflow.exceptions import MlflowException

        self._tracker = MLflowTracker(_project(folder), run_id=known, run_name=_run_name(folder))
        try:
            self._tracker.start()
        except MlflowException as error:
            if known is None or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return self._start(None, folder)
        return str(self._tracker.tracker.info.run_id)

    def log(self, points: Sequence[Point]) -> None:
        """Show what was measured; all of it in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step)
            for step, values in points
            for name, value in values.items()
            if step > self._newest_step(name)
        ]
        if metrics:
            self._client.log_batch(self._run_id, metrics=metrics)

    def _newest_step(self, name: str) -> int:
        """Return the last step of a curve that was shown before the run was stopped; its bits come again."""
        if self._newest is None:
            return -1
        if name not in self._newest:
            history = self._client.get_metric_history(self._run_id, name)
            self._newest[name] = max((metric.step for metric in history), default=-1)
        return self._newest[name]

    def finish(self, error: BaseException | None) -> None:
        import mlflow

        stopped = "FAILED" if isinstance(error, Exception) else "KILLED"
        mlflow.end_run("FINISHED" if error is None else stopped)


_KINDS: Mapping[str, Callable[[Recipe, RunFolder, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
}


def _parameters(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's values by dotted key."""
    from transformers.utils.generic import flatten_dict

    parameters: dict[str, Any] = flatten_dict(recipe.model_dump(mode="json", by_alias=True), delimiter=".")
    return parameters


def _project(folder: RunFolder) -> str:
    return folder.path.parts[-3]  # the recipe's name


def _run_name(folder: RunFolder) -> str:
    return "/".join(folder.path.parts[-2:])


def _remember(folder: RunFolder, tracker: str, run_id: str) -> None:
    write_json(folder.tracker_ids, {**(read_json(folder.tracker_ids) or {}), tracker: run_id})
