"""What a method is, in words: its docstring's, and its keys."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpstune.methods import is_foreign, method_class, package_of
from dpstune.methods.base import MethodConfig


@dataclass(frozen=True)
class MethodKey:
    """One setting of a method.

    Attributes:
        name: As a recipe's ``method`` section has it.
        values: What it may be: a kind such as ``number``, or the values with ``|`` between.
        required: Whether it must be given.
        default: Its value where it is left out, as JSON has it.
        what: What it does.
    """

    name: str
    values: str
    required: bool
    default: Any
    what: str


@dataclass(frozen=True)
class MethodDescription:
    """A method in words.

    Attributes:
        name: Its name.
        package: The package that offers it.
        what: One line.
        how: What a step does, in formulas, and the source; may be of several paragraphs.
        keys: Its settings.
    """

    name: str
    package: str
    what: str
    how: str
    keys: tuple[MethodKey, ...]


def describe_method(name: str) -> MethodDescription:
    """Describe a method by what its file, its class and its config say of themselves.

    Raises:
        RequestError: There is no such method; or it is another package's, and cannot be imported.

    >>> describe_method("sam").keys[0]
    MethodKey(name='rho', values='number', required=False, default=0.05, what='How far the weights are moved, as the \
2-norm over all parameters together, above 0.')
    """
    cls = method_class(name)
    how = _prose(cls)
    if is_foreign(name):  # whose file may hold several methods
        what, _, how = how.partition("\n")
    else:
        what = _prose(sys.modules[cls.__module__])
    return MethodDescription(name, package_of(name), what, how.strip(), _keys(cls.config_class))


def _keys(config_class: type[MethodConfig]) -> tuple[MethodKey, ...]:
    schema = config_class.model_json_schema()
    required = schema.get("required", ())
    return tuple(
        MethodKey(
            name=name,
            values=_values(field),
            required=name in required,
            default=field.get("default"),
            what=field.get("description", "").replace("``", ""),
        )
        for name, field in schema["properties"].items()
        if name != "name"
    )


def _values(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return "|".join(map(str, field["enum"]))
    if "$ref" in field:
        return "a method"
    kind = str(field.get("type", "value"))
    return {"boolean": "true|false", "array": "list"}.get(kind, kind)


def _prose(documented: object) -> str:
    """Return a docstring without its example and what is for callers alone."""
    text = inspect.cleandoc(documented.__doc__ or "")
    text = re.sub(r"^(Args|Raises):\n(.+\n?)+\n*", "", text.partition("\n>>> ")[0], flags=re.MULTILINE)
    return text.replace("``", "").strip()
