"""What the functions are given: checked, and brought into one form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dpstune.errors import RequestError, shortened


def as_json(value: Any) -> str:
    """Write a value as an override's text: numpy's numbers as numbers, paths and the like as texts.

    >>> from pathlib import Path
    >>> as_json([0.5, Path("data")])
    '[0.5, "data"]'
    """
    return json.dumps(value, default=lambda each: each.item() if hasattr(each, "item") else str(each))


def as_grid(grid: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return a grid as ``SweepRequest`` takes it.

    Args:
        grid: Dotted keys, each with a list of values; None for none.

    Raises:
        RequestError: It is no mapping, or what a key has is no list.

    >>> as_grid({"method.p": [0.1, 0.2], "method.noise": ["normal"]})
    ('method.p=0.1, 0.2', 'method.noise="normal"')
    """
    if not isinstance(grid, Mapping | None):
        raise RequestError(f"grid={shown(grid)}: should be keys with their values, for example {_GRID}")
    for key, values in (grid or {}).items():
        if not isinstance(values, list | tuple):
            raise RequestError(f"grid: {key} is {shown(values)}; it should be a list of values, for example {_GRID}")
    return tuple(f"{key}={', '.join(map(as_json, values))}" for key, values in (grid or {}).items())


_GRID = '{"method.p": [0.1, 0.2]}'


def shown(value: Any) -> str:
    """Return a value as an error shows it, in one line."""
    return shortened(" ".join(repr(value).split()))
