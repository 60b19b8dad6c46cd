"""What a method is, in words: its docstring's, and its keys."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpstune.methods import is_foreign, keys_schema, method_class, package_of
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
        RequestError: There is no such method; or it is another package's, and cannot be imported or shown.

    >>> describe_method("sam").keys[0]
    MethodKey(name='rho', values='number', required=False, default=0.05, what='How far the weights are moved, as the \
2-norm over all parameters together, above 0.')
    """
    cls = method_class(name)
    how = _prose(cls)
    if is_foreign(name):  # whose file may hold several methods
        what, _, how = how.partition("\n\n")
    else:
        what = _prose(sys.modules[cls.__module__])
    keys = _keys(cls.config_class, keys_schema(name))
    return MethodDescription(name, package_of(name), " ".join(what.split()), how.strip(), keys)


def _keys(config_class: type[MethodConfig], schema: Mapping[str, Any]) -> tuple[MethodKey, ...]:
    keys = []
    for name, field in config_class.model_fields.items():
        if name == "name":
            continue
        shown = schema["properties"][field.alias or name]
        made = None if field.is_required() else field.get_default(call_default_factory=True)
        keys.append(
            MethodKey(
                name=field.alias or name,
                values=_values(shown, schema.get("$defs", {})),
                required=field.is_required(),
                default=shown.get("default", made),
                what=_with_plain_marks(shown.get("description", "")),
            )
        )
    return tuple(keys)


def _values(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "enum" in field:
        return "|".join(map(str, field["enum"]))
    if "anyOf" in field:
        return "|".join(_values(each, definitions) for each in field["anyOf"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return "a method" if name == MethodConfig.__name__ else _values(definitions[name], definitions)
    kind = str(field.get("type", "value"))
    return {"boolean": "true|false", "array": "list"}.get(kind, kind)


def _prose(documented: object) -> str:
    """Return a docstring without its example and what is for callers alone."""
    text = inspect.cleandoc(documented.__doc__ or "")
    text = re.split(r"\n(?:Examples?:\n)?\s*>>> ", text)[0]
    text = re.sub(r"^(Args|Raises):\n(.+\n?)+\n*", "", text, flags=re.MULTILINE)
    return _with_plain_marks(text).strip()


def _with_plain_marks(text: str) -> str:
    return text.replace("``", "`")
