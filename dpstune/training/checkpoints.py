"""Checkpoints: all that an exact resume needs, saved so that no crash at any moment can lose the last good one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from dpstune.common.writing import write_folder, writing_to

if TYPE_CHECKING:
    from torch import nn

KEPT = 2  # the newest, and the one before it in case the newest is damaged
WEIGHTS, STATE, MANIFEST = "model.safetensors", "state.pt", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole: complete and undamaged.

    Args:
        folder: Where it lies.
        state: Everything but the weights: optimizer, schedule, loss scale, method, progress.
    """

    folder: Path
    state: dict[str, Any]

    def load_weights(self, model: nn.Module) -> None:
        """Put the saved weights into ``model``."""
        from safetensors.torch import load_model

        load_model(model, self.folder / WEIGHTS)


class Checkpoints:
    """The ``checkpoints/`` folder of a run.

    Args:
        folder: Where checkpoints lie, one folder a step.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, model: nn.Module, state: dict[str, Any]) -> None:
        """Save step ``step`` beside the others, rename it into place, then drop all but the newest two.

        Raises:
            RunError: It could not be written; the earlier checkpoints are untouched.
        """

        def save_state(place: Path) -> None:
            import torch

            with place.open("wb") as file:
                torch.save(state, file)

        def save_weights(place: Path) -> None:
            from safetensors.torch import save_model

            save_model(model, str(place))

        write_with_digests(self.folder / f"step-{step:08d}", {WEIGHTS: save_weights, STATE: save_state})
        for old in self._newest_first()[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def states(self) -> Iterator[dict[str, Any]]:
        """Read the states of the checkpoints that are kept; their tensors stay on the disk."""
        for folder in self._newest_first():
            if (state := _read_state(folder, mmap=True)) is not None:
                yield state

    def newest(
        self, is_usable: Callable[[dict[str, Any]], bool] = lambda state: True
    ) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that is whole, and a note about each newer one that is damaged.

        A damaged one is renamed out of the way, so that its step can be saved again.

        Args:
            is_usable: Told a checkpoint's state, whether what it needs elsewhere is whole.
        """
        notes: list[str] = []
        for folder in self._newest_first():
            state = _read_state(folder) if is_whole(folder, (WEIGHTS, STATE)) else None
            if state is not None and is_usable(state):
                return Checkpoint(folder, state), notes
            notes.append(f"checkpoint {folder} is damaged; falling back to the one before")
            aside = folder.with_name(f"damaged-{folder.name}")
            with writing_to(folder):
                if aside.exists():  # the step was damaged, and saved again, before
                    shutil.rmtree(aside)
                folder.rename(aside)
        if notes:
            notes.append("no checkpoint is whole; training starts again from step 1")
        return None, notes

    def clear(self) -> None:
        """Remove all checkpoints; a finished run needs none."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def write_with_digests(folder: Path, files: Mapping[str, Callable[[Path], None]]) -> None:
    """Write a folder of files and their digests beside its place, and rename it into it.

    Args:
        folder: The place.
        files: What writes each file, by its name.

    Raises:
        RunError: It could not be written.
    """

    def fill(beside: Path) -> None:
        for name, write in files.items():
            write(beside / name)
        (beside / MANIFEST).write_text(json.dumps({name: _digest(beside / name) for name in files}))

    write_folder(folder, fill)


def is_whole(folder: Path, names: Sequence[str]) -> bool:
    """Tell whether files are as ``write_with_digests`` wrote them."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return all(_digest(folder / name) == manifest[name] for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_state(folder: Path, *, mmap: bool = False) -> dict[str, Any] | None:
    """Return a checkpoint's state, None where it cannot be read."""
    import torch

    try:
        state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, UnpicklingError):
        return None
    return state


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
