"""What the functions are given: checked, and brought into one form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from dpstune.common.writing import can_name_a_folder
from dpstune.errors import RequestError, shortened


def as_json(value: Any) -> str:
    """Write a value as an override's text: numpy's arrays as lists, its numbers as numbers, paths as texts.

    Raises:
        RequestError: There is something in it that no recipe holds, such as a data frame.

    >>> from pathlib import Path
    >>> as_json([0.5, Path("data")])
    '[0.5, "data"]'
    """
    return json.dumps(as_plain(value), default=_as_text)


def _as_text(value: Any) -> str:
    if len(str(value).splitlines()) > 1:
        raise RequestError(f"{shown(value)}: a setting is a number, a text, or a list or mapping of them")
    return str(value)


def as_plain(value: Any) -> Any:
    """Return a value with lists and numbers of Python's own in the place of numpy's, and paths as texts.

    >>> import numpy
    >>> as_plain({"steps": numpy.int64(2), "betas": numpy.array([0.5, 0.5])})
    {'steps': 2, 'betas': [0.5, 0.5]}
    """
    if isinstance(value, Mapping):
        return {key: as_plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple | range):
        return [as_plain(below) for below in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


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
    listed = as_plain(grid or {})
    for key, values in listed.items():
        if not isinstance(values, list):
            raise RequestError(f"grid: {key} is {shown(values)}; it should be a list of values, for example {_GRID}")
    return tuple(f"{key}={', '.join(map(as_json, values))}" for key, values in listed.items())


def as_methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    """Return methods as commands take them; a name by itself is one.

    Raises:
        RequestError: They are no names.

    >>> as_methods("mixout:p=0.7"), as_methods(["vanilla", "mixout"])
    (('mixout:p=0.7',), ('vanilla', 'mixout'))
    """
    return as_names("methods", methods, '["vanilla", "mixout"]')


def as_names(parameter: str, given: str | Sequence[str], example: str) -> tuple[str, ...]:
    """Return names that are given as a list; a name by itself is one.

    Args:
        parameter: What they are given for.
        given: The names.
        example: Such a list, for the error.

    Raises:
        RequestError: They are no names.
    """
    names = _names(given)
    if names is None:
        raise RequestError(f"{parameter}={shown(given)}: should be a list of names, for example {example}")
    return tuple(names)


def name_and_rest(given: str | Mapping[str, Any] | None, section: str) -> tuple[Any, dict[str, Any]]:
    """Return the name that a parameter gives, and the other keys as changes: what is a mapping is a recipe's section.

    >>> name_and_rest("mixout", "method"), name_and_rest({"name": "mixout", "p": 0.7}, "method")
    (('mixout', {}), ('mixout', {'method': {'p': 0.7}}))
    """
    if not isinstance(given, Mapping):
        return given, {}
    return given.get("name"), {section: {key: value for key, value in given.items() if key != "name"}}


def as_columns(text: str | Sequence[str] | None) -> list[str] | None:
    """Return the text columns that are asked for; None where none are.

    Raises:
        RequestError: They are not one name or two.

    >>> as_columns("message"), as_columns(("question", "answer"))
    (['message'], ['question', 'answer'])
    """
    names = None if text is None else _names(text)
    if text is not None and (names is None or not 1 <= len(names) <= 2):
        raise RequestError(f"text={shown(text)}: should name one column, or two of a pair")
    return names


def _names(given: Any) -> list[str] | None:
    """Return names that were given as one or as a list; None where they are none."""
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        return None
    names = [given] if isinstance(given, str) else list(given)
    return names if all(isinstance(name, str) for name in names) else None


def as_name(name: Any) -> str:
    """Return a name by which a folder can be called.

    Raises:
        RequestError: It cannot.
    """
    if not isinstance(name, str) or not can_name_a_folder(name) or "\\" in name:
        raise RequestError(f"name={shown(name)}: should be a name without slashes")
    return name


def as_text(parameter: str, given: str | Path | None) -> str | None:
    """Return a name or a path as text, with ``~`` as the home folder; None where there is none.

    Args:
        parameter: What it is given for.
        given: The name or path.

    Raises:
        RequestError: It is neither.

    >>> as_text("task", "rte"), as_text("pretrained", None)
    ('rte', None)
    """
    if given is not None and (not isinstance(given, str | Path) or not str(given).strip()):
        raise RequestError(f"{parameter}={shown(given)}: should be a name or a path")
    return None if given is None else os.path.expanduser(given)


def as_count(parameter: str, given: Any, least: int = 1) -> int:
    """Return a number of things as Python's own, also of numpy's.

    Args:
        parameter: What it is given for.
        given: The number.
        least: The least that makes sense.

    Raises:
        RequestError: It is no whole number from ``least`` on.

    >>> import numpy
    >>> as_count("seeds", numpy.int64(5))
    5
    """
    if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < least:
        raise RequestError(f"{parameter}={shown(given)}: should be a whole number, {least} or more")
    return int(given)


def as_count_or_none(parameter: str, given: Any, least: int = 1) -> int | None:
    """Return what ``as_count`` does; None where there is none."""
    return None if given is None else as_count(parameter, given, least)


def as_number(parameter: str, given: Any) -> float | None:
    """Return a number as Python's own, also of numpy's; None where there is none.

    Raises:
        RequestError: It is no number.

    >>> as_number("minutes", 1.5)
    1.5
    """
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Real):
        raise RequestError(f"{parameter}={shown(given)}: should be a number")
    return int(given) if isinstance(given, Integral) else float(given)


def as_folder(parameter: str, given: str | Path) -> Path:
    """Return a folder's absolute path, with ``~`` as the home folder: results stay where they are after ``os.chdir``.

    Args:
        parameter: What it is given for.
        given: The folder.

    Raises:
        RequestError: It is no path.

    >>> as_folder("output", "runs").is_absolute()
    True
    """
    path = as_text(parameter, given)
    if path is None:
        raise RequestError(f"{parameter}=None: should be a path")
    return Path(path).absolute()


def as_folder_or_none(parameter: str, given: str | Path | None) -> Path | None:
    """Return what ``as_folder`` does; None where there is none."""
    return None if given is None else as_folder(parameter, given)


_GRID = '{"method.p": [0.1, 0.2]}'


def shown(value: Any) -> str:
    """Return a value as an error shows it, in one line."""
    return shortened(" ".join(repr(value).split()))
