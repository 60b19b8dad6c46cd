"""Checked settings: the base of every section of a recipe and of every method's config."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dpstune.errors import RequestError, counted, did_you_mean, shortened

S = TypeVar("S", bound="Settings")


def _describe_keys(schema: dict[str, Any], owner: type[BaseModel]) -> None:
    """Write what the docstring of a settings class says of its keys to each key of its JSON Schema.

    The schema is for those who write YAML, where nothing is ``null``.
    """
    if "description" in schema:
        schema["description"] = schema["description"].partition("\n\nAttributes:\n")[0]
    said = said_of_attributes(owner)
    for name, field in owner.model_fields.items():
        if name in said:
            schema["properties"][field.alias or name]["description"] = said[name].replace("None ", "null ")


def said_of_attributes(owner: type) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of each attribute; the class itself comes first."""
    said = {}
    for each in reversed(owner.__mro__):
        entries = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
        _, *parts = re.split(r"^ {4}(\w[\w, ]*): ", entries, flags=re.MULTILINE)
        for names, text in zip(parts[::2], parts[1::2], strict=True):
            said.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    return said


class Settings(BaseModel):
    """Typed settings that refuse unknown keys and cannot be changed once checked.

    What a subclass says of its keys under ``Attributes:`` is also what its JSON Schema says of them.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True, json_schema_extra=_describe_keys
    )


# A user's words where pydantic has Python's, by pydantic's type of error.
_EXPECTED = {
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "path_type": "a path",
    "tuple_type": "a list",
}


class Problem(NamedTuple):
    """What is wrong with a setting, and where: ``path`` holds the keys that lead to it."""

    path: tuple[str, ...]
    message: str


def first_problem(error: ValidationError, schema: type[BaseModel]) -> Problem:
    """Return the first thing to correct from pydantic's report, in a user's words.

    Args:
        error: What pydantic raised.
        schema: The settings class that was being checked; its keys are offered where one is misspelt.
    """
    details = error.errors(include_url=False)
    # A misspelt key is also a missing one; the misspelling says more.
    detail = next((each for each in details if each["type"] == "extra_forbidden"), details[0])
    path = tuple(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _keys_at(schema, path[:-1])
        hint = _in_a_section(schema, path) or did_you_mean(path[-1], known) or f"; known keys: {', '.join(known)}"
        return Problem(path, f"unknown key {path[-1]!r}{hint}")
    if detail["type"] == "missing" and isinstance(detail["loc"][-1], int):
        return Problem(path[:-1], "has too few values")
    if detail["type"] == "missing":
        return Problem(path, f"key {path[-1]!r} is missing")
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if detail["type"] == "value_error":
        return Problem(path, message)
    expected = _EXPECTED.get(detail["type"]) or _expected_count(detail["type"], detail.get("ctx", {})) or message
    return Problem(path, f"should be {expected}, not {_shown(detail['input'])}")


def _expected_count(kind: str, bounds: Mapping[str, Any]) -> str | None:
    """Say how many values or characters are right where their number is wrong; None for other errors."""
    match kind:
        case "too_long":
            return f"at most {counted(bounds['max_length'], 'value')}"
        case "too_short":
            return f"at least {counted(bounds['min_length'], 'value')}"
        case "string_too_short":
            return f"at least {counted(bounds['min_length'], 'character')}"
    return None


def _shown(value: Any) -> str:
    """Return a value as text: None as YAML writes it, a long value cut."""
    return "null" if value is None else shortened(repr(value))


def _keys_at(schema: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    """List the keys a settings class knows below ``path``."""
    for part in path:
        field = schema.model_fields.get(part)
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        schema = annotation
    return [field.alias or name for name, field in schema.model_fields.items()]


def _in_a_section(schema: type[BaseModel], path: tuple[str, ...]) -> str:
    """Name the section that knows a key which stands outside of it, as the tail of an error message."""
    [key, *deeper] = path
    sections = [name for name in _keys_at(schema, ()) if key in _keys_at(schema, (name,))]
    return f"; did you mean '{sections[0]}.{key}'?" if len(sections) == 1 and not deeper else ""


def listed(settings: Mapping[str, Any]) -> str:
    """Return a method's settings, as a recipe holds them, for people; its name is left out.

    >>> listed({"name": "ema", "decay": 0.9, "of": {"name": "mixout", "p": 0.7}})
    'decay 0.9, of mixout (p 0.7)'
    """
    return ", ".join(f"{key} {_in_words(value)}" for key, value in settings.items() if key != "name")


def _in_words(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if "name" not in value:
        return str(dict(value))
    below = listed(value)
    return f"{value['name']} ({below})" if below else str(value["name"])


def check_settings(schema: type[S], values: Mapping[str, Any], *, place: str) -> S:
    """Check ``values`` against ``schema``.

    Args:
        schema: The settings class.
        values: Plain values, as they come from YAML or a caller.
        place: What the values belong to, for the error: ``"method dps-dense"``.

    Raises:
        RequestError: A key is unknown or missing, or a value is out of range; one line that names it.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        path, message = first_problem(error, schema)
        where = f"{place}: {'.'.join(path)}" if path else place
        raise RequestError(f"{where}: {message}") from None
