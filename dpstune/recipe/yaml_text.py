"""YAML with places: plain values, and the line each key stands on, so that an error can name it.

Numbers and words are read as in YAML 1.2, not as in PyYAML's 1.1: ``2e-5`` is a number; ``on``, ``no`` and dates are
words. Anchors, aliases and tags are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dpstune.common.textfile import read_text
from dpstune.errors import RequestError

KeyPath = tuple[str, ...]

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_UNICODE_BREAKS = frozenset("\x85\u2028\u2029\ufeff")  # PyYAML writes them unescaped but reads them as line breaks
_RESOLVERS = {
    "tag:yaml.org,2002:bool": (re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    "tag:yaml.org,2002:float": (_FLOAT, "-+0123456789."),
    "tag:yaml.org,2002:null": (re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the words and numbers of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; refuse anchors, aliases and tags."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, "anchors (&) and aliases (*) are not read", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "tags (!) are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a decimal number; a leading zero does not make it octal."""
        return int(self.construct_scalar(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Read a number."""
        return float(self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would not read back as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value in full wherever it stands."""
        return True


for _tag, (_pattern, _first) in _RESOLVERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def is_yaml_file(name: str) -> bool:
    """Tell whether a name ends as a YAML file's does.

    >>> is_yaml_file("mine.YAML"), is_yaml_file("rte")
    (True, False)
    """
    return name.lower().endswith((".yaml", ".yml"))


def read_mapping(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return a YAML file's values, and the line on which each key stands.

    Raises:
        RequestError: The file is not UTF-8, not YAML or not a mapping, or gives a key twice; file and line are named.
    """
    text = read_text(path)
    node = _compose(text, str(path))
    if not isinstance(node, yaml.MappingNode):
        raise RequestError(f"{path}: should be a mapping of keys to values; `dpstune recipes show demo` shows one")
    lines: dict[KeyPath, int] = {}
    values = _Reader(str(path), lines).value(node, ())
    assert isinstance(values, dict)
    return values, lines


def read_value(text: str, place: str) -> Any:
    """Read one YAML value, such as the right-hand side of an override.

    Raises:
        RequestError: It is not YAML; ``place`` is named.

    >>> read_value("[0.9, 1e-3]", "--set")
    [0.9, 0.001]
    """
    node = _compose(text, place)
    return None if node is None else _Reader(place, {}).value(node, ())


def write_mapping(values: dict[str, Any]) -> str:
    """Return values as YAML text that ``read_mapping`` reads back the same."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if not _UNICODE_BREAKS.isdisjoint(text):
        text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=False)
    return text


def _compose(text: str, place: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        raise RequestError(f"{place}{line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        raise RequestError(f"{place}: not valid YAML: {error.reason} (character {error.position})") from None
    except RecursionError:
        raise RequestError(f"{place}: not valid YAML: nested too deep") from None
    except (ValueError, OverflowError):  # PyYAML's chr()
        raise RequestError(rf"{place}: not valid YAML: an escape (\U...) stands for no character") from None
    return node


class _Reader:
    """Turns nodes into values and remembers the lines of keys."""

    def __init__(self, place: str, lines: dict[KeyPath, int]) -> None:
        self._place, self._lines = place, lines
        self._loader = _Loader("")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError:
            line = node.start_mark.line + 1
            raise RequestError(f"{self._place}:{line}: {node.value[:20]}... is not a number") from None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if isinstance(key, int) and not isinstance(key, bool):  # a label, as it is written
                key = key_node.value
            if not isinstance(key, str):
                quoted = f'; in quotes it is one: "{key_node.value}"' if isinstance(key_node, yaml.ScalarNode) else ""
                raise RequestError(f"{self._place}:{line}: a key should be a word, not {key!r}{quoted}")
            here = (*path, key)
            if here in self._lines:
                first = self._lines[here]
                raise RequestError(f"{self._place}:{line}: {'.'.join(here)} is given twice, first on line {first}")
            self._lines[here] = line
            values[key] = self.value(value_node, here)
        return values
