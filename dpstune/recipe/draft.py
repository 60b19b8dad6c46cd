"""A recipe before it is checked: plain values, where each was given, and how keys are overridden."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from dpstune.common.writing import CONTROL
from dpstune.errors import RequestError, shortened
from dpstune.recipe.schema import DEFAULT_METHOD, Recipe, method_schema, task_schema
from dpstune.recipe.yaml_text import KeyPath, read_mapping, read_value
from dpstune.settings.base import Settings, first_problem
from dpstune.settings.sections import UserTask

S = TypeVar("S", bound=Settings)

_PARTS = ("files", "splits")  # the sections of a user's own task that say where its splits are

# Keys, and those that give way when they are overridden.
_PAIRS: dict[KeyPath, tuple[KeyPath, ...]] = {
    **{
        ("training", key): (("training", other),)
        for pair in (("steps", "epochs"), ("warmup_steps", "warmup_ratio"))
        for key, other in (pair, pair[::-1])
    },
    **{("task", parts, "validation"): (("task", parts, "folds"), ("task", parts, "fold")) for parts in _PARTS},
    **{("task", parts, "folds"): (("task", parts, "validation"),) for parts in _PARTS},
}
_SECTIONS = ("model", "data", "method", "training")
_PLACES = ("train", "validation", "test")
_LONGEST_TASK_NAME = 200  # bytes: of the 255 that a file's name may have, the rest is for what is written around it


def split_override(override: str) -> tuple[str, str | None]:
    """Split ``KEY=VALUE`` into the dotted key and the value's text; None where there is no ``=``.

    >>> split_override("training.steps = 5")
    ('training.steps', ' 5')
    """
    key, equals, text = override.partition("=")
    return key.strip(), text if equals else None


class Draft:
    """A recipe's plain values before they are checked, and where each was given.

    Args:
        source: The recipe's file.
        values: Its values.
        places: ``file:line`` or the flag of each key.
    """

    def __init__(self, source: Path, values: dict[str, Any], places: dict[KeyPath, str]) -> None:
        self.source, self.values, self.places = source, values, places
        for section in _SECTIONS:
            if section in values and values[section] is None:  # a section whose keys are all left out
                del values[section]
        if isinstance(values.get("method"), str):
            values["method"] = {"name": values["method"]}

    @classmethod
    def read(cls, source: Path) -> Draft:
        """Read a recipe's file.

        Raises:
            RequestError: It cannot be read, or is no mapping.
        """
        values, lines = read_mapping(source)
        return cls(source, values, {path: f"{source}:{line}" for path, line in lines.items()})

    def switch_method(self, name: Any, place: str) -> None:
        """Change the method: keys that the recipe gave its own method are removed, those that flags gave stay."""
        method = self.values.get("method", {"name": DEFAULT_METHOD})
        if not isinstance(method, dict) or method.get("name", DEFAULT_METHOD) != name:
            kept = method if isinstance(method, dict) else {}
            method = {key: value for key, value in kept.items() if self._is_overridden(("method", key))}
        self.values["method"] = {**method, "name": name}
        self.places["method", "name"] = place

    def _switch_wrapped(self, name: Any) -> None:
        """Remove the keys that the recipe gave another wrapped method; those that flags gave stay."""
        method = self.values.get("method")
        wrapped = method.get("of") if isinstance(method, dict) else None
        if isinstance(wrapped, dict) and wrapped.get("name") != name:
            kept = {key: value for key, value in wrapped.items() if self._is_overridden(("method", "of", key))}
            self.values["method"]["of"] = kept

    def override(self, override: str, place: str) -> None:
        """Set a key as ``--set`` does."""
        key, text = split_override(override)
        path = tuple(key.split("."))
        if text is None or not all(path):
            raise RequestError(f"{place}: should be KEY=VALUE, for example --set training.epochs=5")
        value = read_value(text, place)
        if path == ("method", "name") or (path == ("method",) and isinstance(value, str)):
            self.switch_method(value, place)
            return
        if path == ("method", "of") and isinstance(value, str):
            path = ("method", "of", "name")
        if path == ("method", "of", "name"):
            self._switch_wrapped(value)
        value = _anchored(path, value)
        if value is not None:
            for other in _PAIRS.get(path, ()):
                self._give_way(other)
        self.set(path, value, place)

    def _give_way(self, path: KeyPath) -> None:
        """Take a key away, unless a flag gave it."""
        section: Any = self.values
        for part in path[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and not self._is_overridden(path):
            section.pop(path[-1], None)

    def set(self, path: KeyPath, value: Any, place: str) -> None:
        """Set the key at ``path``."""
        section = self.values
        for depth, part in enumerate(path[:-1]):
            if path[: depth + 1] in (("task",), ("method", "of")) and isinstance(section.get(part), str):
                section[part] = {"name": section[part]}
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise RequestError(f"{place}: {'.'.join(path[: depth + 1])} has a value, not keys")
        section[path[-1]] = value
        self.places = {below: given for below, given in self.places.items() if below[: len(path)] != path}
        self.places[path] = place

    def flag_of(self, path: KeyPath) -> str | None:
        """Return the flag that gave a section's key, by itself or with the whole section; None if no flag did."""
        section = self.values.get(path[0])
        if not isinstance(section, dict) or path[1] not in section:
            return None
        return next((self.places[each] for each in (path, path[:1]) if self._is_overridden(each)), None)

    def make_paths_absolute(self) -> None:
        """Anchor relative paths; see ``load_recipe``. A ``~`` that names nobody stays: os.path's way, not Path's."""
        folder = self.source.parent.absolute()
        data, task, model = (self.values.get(section) for section in ("data", "task", "model"))
        name = model.get("name") if isinstance(model, dict) else None
        if isinstance(name, str) and name.startswith((".", "~")):
            model["name"] = str(folder / os.path.expanduser(name))  # type: ignore[index]
        if isinstance(data, dict) and isinstance(data.get("dir"), str):
            data["dir"] = _below(folder, data["dir"]) or str(folder)
            folder = Path(data["dir"])
        if not isinstance(task, dict):
            return
        dataset, files = task.get("dataset"), task.get("files")
        if isinstance(dataset, str) and dataset.startswith((".", "~")):
            task["dataset"] = os.path.normpath(self.source.parent.absolute() / os.path.expanduser(dataset))
        if isinstance(files, dict):
            task["files"] = {
                split: _below(folder, given) if split in _PLACES else given for split, given in files.items()
            }

    def check(self, choose: Callable[[Mapping[str, Any]], type[Settings]] = method_schema) -> Recipe:
        """Check every key.

        Args:
            choose: Returns the class of a method's settings.

        Raises:
            RequestError: One is wrong: file and line, or flag, and key are named.
        """
        values = dict(self.values)
        for section in _SECTIONS:
            if section in values and not isinstance(values[section], dict):
                raise RequestError(f"{self._place((section,))}: {section}: should be a mapping of keys to values")
        if "method" in values:
            values["method"] = self._check_part(choose(values["method"]), values["method"], ("method",))
        task = values.get("task")
        if isinstance(task, dict):
            checked = self._check_part(task_schema(task), task, ("task",))
            values["task"] = task["name"] if list(task) == ["name"] else checked
        return self._check_part(Recipe, values, ())

    def refuse_a_task_name_for_no_file(self, recipe: Recipe) -> None:
        """Refuse a name of a user's own task that no table or file name can hold; an earlier run's recipe may."""
        name = recipe.task.name if isinstance(recipe.task, UserTask) else None
        if name is None:
            return
        wrong = f"task.name: should be {{}}, not {shortened(repr(name))}"
        place = self._place(("task", "name"))
        if CONTROL.search(name):
            raise RequestError(f"{place}: {wrong.format('one line without control characters')}")
        if len(name.encode()) > _LONGEST_TASK_NAME:
            raise RequestError(f"{place}: {wrong.format(f'at most {_LONGEST_TASK_NAME} bytes long')}")

    def _check_part(self, schema: type[S], values: Any, prefix: KeyPath) -> S:
        try:
            return schema.model_validate(values)
        except ValidationError as error:
            below, message = first_problem(error, schema)
            path = (*prefix, *below)
            raise RequestError(f"{self._place(path)}: {'.'.join(path)}: {message}") from None

    def _place(self, path: KeyPath) -> str:
        """Return where the key at ``path``, or the nearest key above it, was given."""
        flags = [place for below, place in self.places.items() if below[: len(path)] == path and place.startswith("--")]
        if flags:
            return flags[-1]
        given = [self.places[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in self.places]
        return given[0] if given else str(self.source)

    def _is_overridden(self, path: KeyPath) -> bool:
        return self.places.get(path, "").startswith("--")


def _below(folder: Path, given: Any) -> Any:
    """Return a path, or those in a list, anchored to a folder; anything else as it is."""
    if isinstance(given, list):
        return [_below(folder, each) for each in given]
    if isinstance(given, str) and "\0" in given:
        raise RequestError(f"{shortened(repr(given))}: a path holds no zero byte")
    return str(folder / os.path.expanduser(given)) if isinstance(given, str) and given else given


def _anchored(path: KeyPath, value: Any) -> Any:
    """Return an override's value with the paths in it, at any depth, anchored to the working directory."""
    if isinstance(value, dict):
        return {key: _anchored((*path, str(key)), below) for key, below in value.items()}
    if path == ("data", "dir") or (path[:2] == ("task", "files") and path[-1] in _PLACES):
        return _below(Path.cwd(), value)
    may_be_a_folder = path in (("model", "name"), ("task", "dataset"))
    if isinstance(value, str) and may_be_a_folder and value.startswith((".", "~")):
        return str(Path.cwd() / os.path.expanduser(value))
    return value
