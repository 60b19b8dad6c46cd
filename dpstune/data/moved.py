"""A run's own data where they lie now: a recipe's places, looked for in another folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.data.files import is_pattern
from dpstune.errors import RequestError
from dpstune.settings.sections import AnyTask, DatasetTask, FilesSection, OwnTask

if TYPE_CHECKING:
    from dpstune.recipe.schema import Recipe


def reading_from(recipe: Recipe, folder: Path | None) -> Recipe:
    """Return a recipe that reads its data from another folder, as after they were moved.

    A user's own files are looked for there as they lay below ``data.dir``, or else below the folder that held them all:
    ``/old/train.csv`` and ``/old/dev.csv`` as ``train.csv`` and ``dev.csv``. A dataset of the hub stays where it is.

    Args:
        recipe: What a run was trained with.
        folder: Where its data lie now; None for where the recipe says.
    """
    if folder is None:
        return recipe
    task = recipe.task
    changes: dict[str, Any] = {}
    if isinstance(task, OwnTask):
        changes = {"files": _moved(task.files, recipe.data.dir, folder)}
    elif isinstance(task, DatasetTask) and Path(task.dataset).is_absolute():
        changes = {"dataset": str(folder / Path(task.dataset).name)}
    if not isinstance(task, str) and changes:
        task = task.model_copy(update=changes)
    return recipe.model_copy(update={"task": task, "data": recipe.data.model_copy(update={"dir": folder})})


def refuse_lost_data(task: AnyTask) -> None:
    """Refuse a run's own task whose training rows are not where they were.

    Raises:
        RequestError: They are not.
    """
    if (lost := _lost(task)) is not None:
        what = "folder" if isinstance(task, DatasetTask) else "file"
        raise RequestError(f"there is no {what} {lost}; where it was moved, --data-dir names the folder that holds it")


def lies_there(task: AnyTask) -> bool:
    """Tell whether a user's own training rows are where the task says; those on the hub always are."""
    return _lost(task) is None


def _lost(task: AnyTask) -> Path | None:
    """Return a place on this machine that should hold training rows and is not there; None where there is none."""
    places: list[Path] = []
    if isinstance(task, OwnTask):
        places = _listed(task.files.train)
    elif isinstance(task, DatasetTask) and Path(task.dataset).is_absolute():
        places = [Path(task.dataset)]
    return next(filter(_is_lost, places), None)


def _is_lost(place: Path) -> bool:
    return not place.exists() and not glob.glob(str(place), recursive=True)


def _moved(files: FilesSection, home: Path | None, folder: Path) -> FilesSection:
    places = {split: place for split in files.names if (place := files.place(split)) is not None}
    every = [_normal(path) for place in places.values() for path in _listed(place)]
    if home is not None and all(path.is_relative_to(_normal(home)) for path in every):
        homes = [_normal(home)]
    else:
        homes = list(_common(every))

    def moved(path: Path, home: Path) -> Path:
        return folder / _normal(path).relative_to(home)

    options: list[dict[str, Any]] = [
        {
            split: moved(place, home) if isinstance(place, Path) else tuple(moved(path, home) for path in place)
            for split, place in places.items()
        }
        for home in homes
    ]
    found = (option for option in options if not any(_is_lost(path) for path in _listed(option["train"])))
    return files.model_copy(update=next(found, options[-1]))


def _common(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the deepest folder that holds all of some files, and where it is a pattern, those above it.

    A folder's name may have the signs of a pattern and be none: where the files were, nothing is left to tell it by.
    """
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    yield folder
    while is_pattern(folder):
        folder = folder.parent
        yield folder


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _listed(place: Path | tuple[Path, ...]) -> list[Path]:
    return [place] if isinstance(place, Path) else list(place)
