"""From what a user types, or hands over in Python, to what a fit is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpstune.errors import RequestError
from dpstune.recipe.recipe import find_recipe
from dpstune.recipe.yaml_text import read_mapping
from dpstune.studies.fit.candidates import METHODS
from dpstune.studies.fit.fit import FitRequest

MODEL = "minilm"
RATES = {MODEL: 1e-4}  # small encoders want larger steps
RATE = 2e-5
RECIPES = (".yaml", ".yml")


def fit_request(
    data: str,
    *,
    output: Path,
    text: str | None = None,
    text2: str | None = None,
    label: str | None = None,
    minutes: float | None = None,
    runs: int | None = None,
    folds: int | None = None,
    group: str | None = None,
    test: str | float | None = None,
    methods: Sequence[str] = (),
    model: str | None = None,
    metric: str | Sequence[str] | None = None,
    kind: str | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> FitRequest:
    """Put together what a fit is asked to do.

    Args:
        data: A table's file or a pattern of files, or a recipe file with a task.
        output: The folder that holds all runs.
        text, text2: The text columns; of a recipe they are its own.
        label: The label column; likewise.
        minutes, runs, folds, methods, overrides: See ``FitRequest``.
        group: The column whose rows stay together.
        test: A share of the rows, or a file.
        model: The pre-trained model; minilm, or the recipe's.
        metric, kind: Of the task; see ``OwnTask``.
        name: What the task is called; the file's name without its endings.

    Raises:
        RequestError: A column is not named, or a flag does not suit a recipe.
    """
    given = {"text": [text, text2] if text2 else text, "label": label, "group": group, "metric": metric, "kind": kind}
    task_keys = {key: value for key, value in given.items() if value is not None}
    source = None
    if data.lower().endswith(RECIPES):
        source = find_recipe(data)
        values, _ = read_mapping(source)
        values["training"] = dict(values.get("training") or {})
        stem = source.stem
        task = values.get("task")
        if isinstance(task, dict):
            values["task"] = {**task, **task_keys}
    else:
        for flag, value in (("--text", text), ("--label", label)):
            if value is None:
                raise RequestError(f"{flag} COLUMN is missing: which column of {data} holds the {flag[2:]}s?")
        stem = Path(data).name.split(".")[0].strip("*?[]-_") or "table"
        values = {"model": {"name": MODEL}, "task": {"files": {"train": data}, **task_keys}}
    if model is not None:
        values["model"] = {**(values.get("model") or {}), "name": model}
    training = values.setdefault("training", {})
    training.setdefault("learning_rate", RATES.get(values.get("model", {}).get("name"), RATE))
    return FitRequest(
        name=name or stem,
        recipe=values,
        source=source,
        output=output,
        minutes=minutes,
        runs=runs,
        folds=folds,
        test=_share_or_file(test),
        methods=tuple(methods) or METHODS,
        overrides=tuple(overrides),
    )


def _share_or_file(test: str | float | None) -> Any:
    """Read ``--test``: a number is a share of the rows, anything else a file."""
    if not isinstance(test, str):
        return test
    try:
        return float(test)
    except ValueError:
        return str(Path(test).expanduser().absolute())
