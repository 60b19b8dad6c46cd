"""Search grids: the points a method is tried at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from dpstune.errors import RequestError, did_you_mean
from dpstune.methods import method_class
from dpstune.recipe import shipped_folder, split_override
from dpstune.yaml_text import read_mapping, read_value

Grid = Mapping[str, Sequence[Any]]
"""Dotted recipe keys, and the values each is tried at."""


def method_grid(method: str) -> Grid:
    """Return the grid that ships for a method (``recipes/grids/METHOD.yaml``, Appendix D of the paper).

    Raises:
        RequestError: There is no such method.

    >>> method_grid("dps-dense")["method.update_ratio"]
    [0.05, 0.1, 0.2]
    """
    method_class(method)
    values, _ = read_mapping(grid_files()[method])
    return values


def parse_method(asked: str) -> tuple[str, list[str]]:
    """Split ``NAME:key=value,key=value``, as ``--method`` takes it, into the name and overrides.

    Raises:
        RequestError: What follows the name is not KEY=VALUE, or is another name.

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
            raise RequestError(f"--method {asked}: a method's name stands before the colon; leave out {pair!r}")
        overrides.append(f"method.{key}={value}")
    return name, overrides


def first_method(asked: Sequence[str] | None) -> str | None:
    """Return the name of the first method that is asked for, whose keys ``--set`` may hold; None: the recipe's own."""
    return parse_method(asked[0])[0] if asked else None


NOT_SEARCHED = ("seed", "task", "data.dir", "method", "method.name", "training.save_every")


def widen(grid: Grid, method: str, replacements: Sequence[str]) -> Grid:
    """Return a grid with keys replaced or added, as ``--grid KEY=V1,V2`` asks; keys another method has are left out.

    Raises:
        RequestError: A replacement is not KEY=VALUES.

    >>> widen({"method.p": [0.1, 0.2]}, "dps-mix", ["method.p=0.5", "training.learning_rate=1e-5,2e-5"])
    {'method.p': [0.5], 'training.learning_rate': [1e-05, 2e-05]}
    """
    fields = method_class(method).config_class.model_fields
    known = {f"method.{field.alias or name}" for name, field in fields.items()}
    changed = dict(grid)
    for replacement in replacements:
        key, text = split_override(replacement)
        values = read_value(f"[{text or ''}]", f"--grid {replacement}")
        if key in NOT_SEARCHED:
            raise RequestError(f"--grid {replacement}: {key} makes no point of a grid")
        if not key or not values:
            raise RequestError(f"--grid {replacement}: should be KEY=VALUE,VALUE, for example --grid method.p=0.1,0.2")
        if key in known or not key.startswith("method."):
            changed[key] = values
    return changed


def refuse_unknown_keys(methods: Sequence[str], replacements: Sequence[str]) -> None:
    """Refuse a ``method.KEY`` of ``--grid`` that none of the methods has.

    Raises:
        RequestError: There is one; the nearest key is named.
    """
    known = {
        f"method.{field.alias or name}"
        for method in methods
        for name, field in method_class(method).config_class.model_fields.items()
    }
    for replacement in replacements:
        key, _ = split_override(replacement)
        if key.startswith("method.") and key not in known:
            raise RequestError(f"--grid {replacement}: no method of this sweep has {key!r}{did_you_mean(key, known)}")


def points(grid: Grid) -> list[dict[str, Any]]:
    """Return all combinations of a grid's values, the last key changing fastest; one empty point for an empty grid.

    >>> points({"a": [1, 2], "b": ["x"]})
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def as_overrides(point: Mapping[str, Any]) -> list[str]:
    """Write a point as ``load_recipe`` takes overrides.

    >>> as_overrides({"method.p": 0.1, "method.noise": "normal"})
    ['method.p=0.1', 'method.noise="normal"']
    """
    return [f"{key}={json.dumps(value)}" for key, value in point.items()]


def grid_files() -> dict[str, Path]:
    """Return the grids that ship, by method."""
    return {path.stem: path for path in sorted((shipped_folder() / "grids").glob("*.yaml"))}
