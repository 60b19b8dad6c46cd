"""Grids: the points at which a method is tried."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from dpstune.errors import RequestError, did_you_mean
from dpstune.methods import method_class
from dpstune.recipe.draft import split_override
from dpstune.recipe.finding import shipped_folder
from dpstune.recipe.recipe import LoadedRecipe, load_recipe
from dpstune.recipe.yaml_text import read_mapping, read_value
from dpstune.runs.identity import NO_INFLUENCE

Grid = Mapping[str, Sequence[Any]]
"""Dotted recipe keys, each with the values to try."""

LENGTH_KEYS = ("training.steps", "training.epochs", "training.warmup_steps", "training.warmup_ratio")
"""The keys that say how long a run is."""


def method_grid(method: str) -> Grid:
    """Return the grid that ships for a method (``recipes/grids/METHOD.yaml``, Appendix D of the paper).

    A method of another package has none: its grid is what ``--grid`` says.

    Raises:
        RequestError: There is no such method.

    >>> method_grid("dps-dense")["method.update_ratio"]
    [0.05, 0.1, 0.2]
    """
    method_class(method)
    file = grid_files().get(method)
    return read_mapping(file)[0] if file is not None else {}


def parse_method(asked: str) -> tuple[str, list[str]]:
    """Split ``NAME:key=value,key=value``, as ``--method`` takes it, into the name and overrides.

    Raises:
        RequestError: What follows the colon is not KEY=VALUE, or sets the name again.

    >>> parse_method("dps-dense:p=0.4,update_ratio=0.1")
    ('dps-dense', ['method.p=0.4', 'method.update_ratio=0.1'])
    """
    name, _, settings = asked.partition(":")
    overrides = []
    for pair in filter(None, settings.split(",")):
        key, value = split_override(pair)
        if value is None:
            raise RequestError(f"--method {asked}: {pair!r} should be KEY=VALUE, for example --method mixout:p=0.7")
        if key == "name":
            raise RequestError(f"--method {asked}: the method's name stands before the colon; leave out {pair!r}")
        overrides.append(f"method.{key}={value}")
    return name, overrides


def method_keys(method: str) -> list[str]:
    """Return the dotted keys a method has.

    Raises:
        RequestError: There is no such method.

    >>> method_keys("mixout")
    ['method.name', 'method.p']
    """
    fields = method_class(method).config_class.model_fields
    return [f"method.{field.alias or name}" for name, field in fields.items()]


def has_key(method: str, key: str) -> bool:
    """Tell whether a dotted key is one that a method has, or lies below one.

    Raises:
        RequestError: There is no such method.

    >>> has_key("ema", "method.of.p"), has_key("vanilla", "method.p")
    (True, False)
    """
    return any(key == known or key.startswith(f"{known}.") for known in method_keys(method))


def overrides_for(method: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides without those of keys that only other methods have.

    >>> overrides_for("vanilla", ["method.p=0.4", "training.epochs=1"])
    ['training.epochs=1']
    """
    keys = [(each, split_override(each)[0]) for each in overrides]
    return [each for each, key in keys if has_key(method, key) or not key.startswith("method.")]


def load_first(
    recipe: str, asked: Sequence[str] | None, overrides: Sequence[str], data_dir: Path | None = None
) -> LoadedRecipe:
    """Load a recipe with the first method asked for, or else its own, and with that method's overrides.

    Raises:
        RequestError: See ``load_recipe`` and ``parse_method``.
    """
    if not asked:
        return load_recipe(recipe, overrides=overrides, data_dir=data_dir)
    method, _ = parse_method(asked[0])
    # Which keys a wrapped method has depends on what else a point sets.
    own = [each for each in overrides_for(method, overrides) if not each.startswith("method.of.")]
    return load_recipe(recipe, method=method, overrides=own, data_dir=data_dir)


NOT_SEARCHED = ("seed", "task", "method", "method.name", *NO_INFLUENCE)


def widen(grid: Grid, method: str, replacements: Sequence[str]) -> Grid:
    """Return a grid with keys replaced or added, as ``--grid KEY=V1,V2`` asks; other methods' keys are ignored.

    Raises:
        RequestError: A replacement is not KEY=VALUES, or its key is never searched.

    >>> widen({"method.p": [0.1, 0.2]}, "dps-mix", ["method.p=0.5", "training.learning_rate=1e-5,2e-5"])
    {'method.p': [0.5], 'training.learning_rate': [1e-05, 2e-05]}
    """
    changed = dict(grid)
    for replacement in replacements:
        key, text = split_override(replacement)
        values = read_value(f"[{text or ''}]", f"--grid {replacement}")
        if key in NOT_SEARCHED:
            raise RequestError(f"--grid {replacement}: {key} makes no point of a grid")
        if key.startswith("task.") or key == "data.held_out":
            raise RequestError(
                f"--grid {replacement}: makes runs of other tasks, which one report cannot compare; give the sweep "
                "once for each value, with --set KEY=VALUE"
            )
        if not key or not values:
            raise RequestError(f"--grid {replacement}: should be KEY=VALUE,VALUE, for example --grid method.p=0.1,0.2")
        if has_key(method, key) or not key.startswith("method."):
            changed[key] = values
    return changed


def refuse_unknown_keys(asked: Sequence[str], given: Sequence[str], flag: str) -> None:
    """Refuse a ``method.KEY`` that none of the methods has.

    Args:
        asked: The methods, as ``parse_method`` takes them.
        given: ``KEY=VALUE`` each.
        flag: The flag that gave them.

    Raises:
        RequestError: There is such a key; the message names the nearest known key, or all of them.
    """
    methods = [parse_method(each)[0] for each in asked]
    known = [key.removeprefix("method.") for key in dict.fromkeys(key for each in methods for key in method_keys(each))]
    for each in given:
        key, _ = split_override(each)
        if key.startswith("method.") and not any(has_key(method, key) for method in methods):
            own = key.removeprefix("method.")
            hint = did_you_mean(own, known) or f"; known keys: {', '.join(known)}"
            raise RequestError(f"{flag} {each}: none of the methods has a key {own!r}{hint}")


def points(grid: Grid) -> list[dict[str, Any]]:
    """Return all combinations of a grid's values, the last key changing fastest; one empty point for an empty grid.

    >>> points({"a": [1, 2], "b": ["x"]})
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def as_overrides(point: Mapping[str, Any]) -> list[str]:
    """Write a point as overrides for ``load_recipe``.

    >>> as_overrides({"method.p": 0.1, "method.noise": "normal"})
    ['method.p=0.1', 'method.noise="normal"']
    """
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]


def grid_files() -> dict[str, Path]:
    """Return the grids that ship, by method."""
    return {path.stem: path for path in sorted((shipped_folder() / "grids").glob("*.yaml"))}
