"""A run's folder: what is written there and when, atomically, and how it is read back.

    runs/<recipe>/<method>/seed-<n>-<hash>/
      recipe.yaml  environment.json  metrics.jsonl  result.json  predictions/<split>.parquet  model/  checkpoints/
      transfer/<target>.json, the scores of its model on other tasks
      diverged.json, in the place of a result, where training came to nothing

Everything is written as ``dpstune.common.writing`` writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dpstune.common.writing import (
    is_text,
    locked,
    make_writable_folder,
    read_json,
    set_aside,
    write_atomically,
    writing_to,
)
from dpstune.errors import RequestError

FIT_RESULT = "fit.json"
"""What a fit found, in its folder; the winner's ``model`` and ``recipe.yaml`` lie beside it."""


def run_hash(ingredients: Mapping[str, Any]) -> str:
    """Return ten hex digits that stand for everything that changes a run's result.

    >>> run_hash({"seed": 1}) == run_hash({"seed": 2})
    False
    """
    text = json.dumps(ingredients, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class RunFolder:
    """The places in a run's folder.

    Args:
        path: ``runs/<recipe>/<method>/seed-<n>-<hash>``.
    """

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe as it was run, every default written out."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """Machine and software versions."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: one for each step, and one for each evaluated split."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """The run's numbers; written last, so that its presence says the run is finished."""
        return self.path / "result.json"

    @property
    def diverged(self) -> Path:
        """What the result would say of the run, and how it diverged; the next try may still finish it."""
        return self.path / "diverged.json"

    @property
    def model(self) -> Path:
        """The fine-tuned model, its tokenizer and its card."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """What an interrupted run continues from; empty once the run is finished."""
        return self.path / "checkpoints"

    @property
    def tracker_ids(self) -> Path:
        """By which id each tracker knows this run, so that a resumed one goes on there."""
        return self.path / "trackers.json"

    @property
    def transfer(self) -> Path:
        """The model's scores on tasks that it never saw, a file each."""
        return self.path / "transfer"

    def predictions(self, split: str) -> Path:
        """The predictions on one split: id, label, prediction, scores."""
        return self.path / "predictions" / f"{split}.parquet"

    def create(self) -> None:
        """Make the folder.

        Raises:
            RequestError: The place cannot be written to.
        """
        if not is_text(self.path):
            raise RequestError(f"--output {self.path}: its name is no UTF-8 text; choose another folder")
        make_writable_folder(self.path)
        with writing_to(self.path):
            self.checkpoints.mkdir(exist_ok=True)
        self.clear_partial()

    def clear_partial(self) -> None:
        """Remove what a process left that was killed while it wrote; to be called under the lock.

        Raises:
            RequestError: The place cannot be written to.
        """
        with writing_to(self.path):
            for left in self.path.rglob(".*.partial"):
                left.unlink() if left.is_file() else shutil.rmtree(left)

    def read_result(self) -> dict[str, Any] | None:
        """Return the content of result.json; None if it is missing or cannot be read: the run is not finished."""
        result = read_json(self.result)
        return result if result is not None and "last" in result else None

    def result_digest(self) -> str | None:
        """Return a hash of result.json's bytes, which tells one training of the run from another; None without one."""
        try:
            return hashlib.sha256(self.result.read_bytes()).hexdigest()
        except OSError:
            return None

    @property
    def holds_what_ends_a_training(self) -> bool:
        """Whether there is anything that is written once a run is trained, or later about its model."""
        return any(place.exists() for place in (self.model, self.path / "predictions", self.transfer))

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training the same run; see ``locked``."""
        return locked(self.path.with_name(f".{self.path.name}.lock"), self.path, "training")

    def set_aside(self) -> Path:
        """Rename the folder to make room for a fresh run, and return where it went."""
        return set_aside(self.path)


class MetricsLog:
    """metrics.jsonl, append-only; a resumed run cuts off what was logged after its checkpoint.

    Args:
        path: The file.
        size: How many of its bytes are kept.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        with writing_to(path):
            self._file = path.open("a+b")
            self._file.truncate(_end_of_line(self._file, size))

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Write one line per dict, and flush them to the operating system."""
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        with writing_to(Path(self._file.name)):
            self._file.write(text.encode())
            self._file.flush()

    def sync(self) -> None:
        """Make sure that all lines are on the disk."""
        with writing_to(Path(self._file.name)):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; a full disk was reported when a line was written."""
        with suppress(OSError):
            self._file.close()


def _end_of_line(file: BinaryIO, size: int) -> int:
    """Return ``size``, or the end of the last whole line if the file is shorter than that."""
    file.seek(0)
    content = file.read(size)
    return size if len(content) == size else content.rfind(b"\n") + 1


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl back."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_predictions(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a Parquet file of id, label, prediction and scores, one row per example."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns))
    write_atomically(path, lambda beside: pq.write_table(table, beside))


def read_predictions(path: Path) -> dict[str, list[Any]]:
    """Read a predictions file back, one list per column."""
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return columns
