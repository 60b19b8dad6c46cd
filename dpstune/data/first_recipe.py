"""A first recipe for a table: what must be said filled in, all else as comments that say what the default is."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from dpstune.common.textfile import known_encoding
from dpstune.data.columns import Guess, Table, guess_columns, read_table, suggest_max_length
from dpstune.errors import RequestError, shortened, some_of
from dpstune.methods import REGISTRY, method_class
from dpstune.recipe.schema import DEFAULT_METHOD
from dpstune.recipe.yaml_text import read_value
from dpstune.settings.base import Settings, said_of_attributes
from dpstune.settings.sections import DataSection, ModelSection, OwnTask, TrainingSection
from dpstune.settings.tasks import Kind

MODEL = "minilm"
LEARNING_RATE = 1e-4  # what suits a model as small as that
BATCH_SIZE = 16
SHARE = 0.2  # of the training rows, for a validation split where no file holds one
_STEPS = 500  # a small task is seen often enough to take about so many
_MOST_EPOCHS, _LEAST_EPOCHS = 10, 3
_WIDTH = 120  # characters a line, so that a comment never wraps
_PRINTED = frozenset("\u200c\u200d\xa0\u3000")  # joiners and spaces, which Python does not call printable
_SPLITS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def first_recipe(
    path: Path,
    target: Path,
    *,
    text: str | None = None,
    text2: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
) -> str:
    """Return the YAML of a first recipe for a table; the same table gives the same recipe.

    Args:
        path: The table.
        target: The file the recipe is meant for: paths in it are relative to its folder.
        text, text2: The text columns, where they are known.
        label: The label column, where it is known.
        encoding: What the table is in; None for UTF-8, or what its byte-order mark says.

    Raises:
        RequestError: The table cannot be read, or it cannot be told which columns are text and label.
    """
    table = read_table(path, encoding and known_encoding(encoding))
    guess = guess_columns(table, text, text2, label)
    lines = [*_head(table, target), *_model(), *_task(table, guess, target, encoding), *_data(table, guess), *_method()]
    return "\n".join([*lines, *_training(table, guess.kind), "# seed: 42  # one restart; --seeds 5 trains five", ""])


def _head(table: Table, target: Path) -> Iterator[str]:
    rows = f"more than {table.rows}" if table.more else table.rows
    name = _one_line(table.path.name)
    yield f"# A first recipe for {name}: {rows} rows; columns {_one_line(some_of(table.columns))}."
    recipe = _one_line(shlex.quote(target.name))
    yield f"#   dpstune check {recipe}"
    yield f"#   dpstune train --recipe {recipe}"
    yield "# What was guessed says why. A key behind a # has the value it has anyway: take the # away to change it."


def _model() -> Iterator[str]:
    yield "model:"
    yield f"  name: {MODEL}  # of the demo extra; or a folder, or a hub id such as FacebookAI/roberta-large"
    yield from _defaults(ModelSection(name=MODEL), {"name"})


def _task(table: Table, guess: Guess, target: Path, encoding: str | None) -> Iterator[str]:
    beside = _files_beside(table.path)
    own = OwnTask.model_validate(
        {"files": {"train": "a", "validation": "b"}, "text": guess.text, "label": guess.label, "kind": guess.kind}
    )
    yield "task:"
    yield "  files:"
    yield f"    train: {_yaml(_relative(table.path, target))}"
    if "validation" in beside:
        yield f"    validation: {_yaml(_relative(beside['validation'], target))}"
    else:
        yield f"    validation: {SHARE}  # a share of the training rows; or a file"
    if "test" in beside:
        yield f"    test: {_yaml(_relative(beside['test'], target))}"
    else:
        yield "    # test: null  # a file, or a share"
    yield from _defaults(own.files, {"train", "validation", "test"}, indent="    ")
    yield f"  text: {_yaml(list(guess.text))}  # {_one_line(guess.why_text)}"
    yield f"  label: {_yaml(guess.label)}  # {_one_line(guess.why_label)}"
    yield f"  kind: {guess.kind}  # {_one_line(guess.why_kind)}"
    if encoding is not None:
        yield f"  encoding: {_yaml(encoding)}"
    yield from _defaults(own, {"files", "text", "label", "kind", *(["encoding"] if encoding is not None else [])})


def _data(table: Table, guess: Guess) -> Iterator[str]:
    length, why = suggest_max_length(table, guess.text)
    yield "data:"
    yield f"  max_length: {length}  # {why}"
    yield from _defaults(DataSection(), {"max_length"})


def _method() -> Iterator[str]:
    schema = method_class(DEFAULT_METHOD).config_class
    yield "method:"
    yield f"  name: {DEFAULT_METHOD}  # plain fine-tuning is vanilla, with model.dropout: 0; or"
    others = ", ".join(name for name in REGISTRY if name != DEFAULT_METHOD)
    yield from wrap(others, _WIDTH, initial_indent="  #   ", subsequent_indent="  #   ", break_on_hyphens=False)
    yield from _defaults(schema(name=DEFAULT_METHOD), {"name"})


def _training(table: Table, kind: Kind) -> Iterator[str]:
    trained = table.rows if "validation" in _files_beside(table.path) else table.rows - round(SHARE * table.rows)
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(_STEPS * BATCH_SIZE / trained)))
    steps = epochs * math.ceil(trained / BATCH_SIZE)
    yield "training:"
    yield f"  batch_size: {BATCH_SIZE}"
    yield f"  learning_rate: {LEARNING_RATE}  # for {MODEL}; 2e-5 for a model of BERT's size or larger"
    yield f"  epochs: {epochs}  # {'more than' if table.more else 'about'} {steps} steps"
    if kind == "regression":
        yield "  standardise: true  # train on (value - mean) / standard deviation"
    shown = {"batch_size", "learning_rate", "epochs", *(["standardise"] if kind == "regression" else [])}
    yield from _defaults(TrainingSection(), shown)


def _files_beside(path: Path) -> dict[str, Path]:
    """Return the files of other splits that lie beside a training file and are called like it."""
    found = {}
    for split, names in _SPLITS.items():
        candidates = [path.with_name(path.name.replace("train", name)) for name in names if "train" in path.stem]
        there = next((file for file in candidates if file.is_file()), None)
        if there is not None:
            found[split] = there
    return found


def _relative(file: Path, target: Path) -> str:
    return os.path.relpath(file.absolute(), target.absolute().parent)


def _defaults(settings: Settings, given: set[str], indent: str = "  ") -> Iterator[str]:
    """Yield a commented line for each key that is not given, with its default and what it means."""
    said = said_of_attributes(type(settings))
    values = settings.model_dump(mode="json", by_alias=True)
    for name, field in type(settings).model_fields.items():
        if name in given:
            continue
        key = field.alias or name
        line = f"{indent}# {key}: {_yaml(values.get(key, getattr(settings, name)))}"
        meaning = re.sub(r"\bNone\b", "null", said.get(name, "").replace("``", "")).rstrip(".")
        yield shortened(f"{line}  # {meaning}", _WIDTH) if meaning else line


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w./][\w./-]*", value) is not None
        quoted: str = yaml.safe_dump(value, default_style='"', width=math.inf, allow_unicode=True)
        return value if plain and _reads_back(value) else quoted.rstrip("\n")
    return "null" if value is None else json.dumps(value)


def _reads_back(text: str) -> bool:
    try:
        return bool(read_value(text, "") == text)
    except RequestError:
        return False


def _one_line(text: str) -> str:
    """Return a text that ends with its line, whatever a column's name or value holds; words of any script stay."""
    return "".join(
        each if each.isprintable() or each in _PRINTED else each.encode("unicode_escape").decode() for each in text
    )
