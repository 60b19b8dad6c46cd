"""What people read of the methods: the list, and a page of each."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpstune.methods import OWN_PACKAGE
from dpstune.report.tables import format_columns

if TYPE_CHECKING:
    from dpstune.methods.describing import MethodDescription, MethodKey

_WIDTH = 100
_NOTATION = (
    "W: the weight of a linear layer, of n elements; g: its gradient; N: the run's number of steps;\n"
    "CE: cross-entropy; KL: Kullback-Leibler divergence."
)


def method_table(methods: Sequence[MethodDescription]) -> str:
    """Return a row for each method: name, what it is, and its package where that is not dpstune for all."""
    rows = [("NAME", "PACKAGE", "WHAT"), *((each.name, each.package, each.what) for each in methods)]
    alike = len({each.package for each in methods}) == 1
    return format_columns([(name, what) if alike else (name, package, what) for name, package, what in rows])


def method_page(method: MethodDescription) -> str:
    """Return all that is said of a method: what it is, a step in formulas, the source, the keys."""
    keys = "\n".join(map(_key_lines, method.keys)) or "It has no keys."
    about = _NOTATION if method.package == OWN_PACKAGE else f"It is a method of the package {method.package}."
    return "\n\n".join(part for part in (method.what, method.how, about, keys) if part)


def _key_lines(key: MethodKey) -> str:
    default = "must be given" if key.required else f"{_as_written(key.default)} by default"
    what = textwrap.fill(key.what, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"method.{key.name}: {key.values}; {default}\n{what}".rstrip()


def _as_written(value: Any) -> str:
    """Return a value as a recipe or ``--set`` writes it; a method is its name."""
    if isinstance(value, Mapping):
        return str(value["name"]) if value.keys() == {"name"} else json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value)
