"""From what a user types, or hands over in Python, to what a fit is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpstune.common.paths import expanded
from dpstune.data.columns import refuse_wrong_names
from dpstune.data.files import folder_called, names_a_dataset
from dpstune.errors import RequestError
from dpstune.recipe.draft import split_override
from dpstune.recipe.finding import find_recipe
from dpstune.recipe.recipe import refuse_told_twice
from dpstune.recipe.yaml_text import is_yaml_file, read_mapping
from dpstune.studies.fit.candidates import METHODS

MODEL = "minilm"
RATES = {MODEL: 1e-4}  # small encoders want larger steps
RATE = 2e-5
DECIDED = (
    *("training.keep", "training.patience", "training.eval_every", "data.held_out", "data.train_size", "method.name"),
)
"""Keys that ``--set`` cannot change."""

MINUTES_OF_A_YEAR = 525_600


@dataclass(frozen=True)
class FitRequest:
    """What a fit is asked to do.

    Args:
        name: What the task is called; runs are kept under it.
        recipe: A recipe's plain values: the task, and what else the user set.
        source: The recipe's file; None where there is none.
        output: The folder that holds all runs.
        minutes: How long to try; None for no limit.
        runs: How many runs to try; None for no limit, or for 40 where there are no minutes either.
        folds: Cross-validation in as many folds; None leaves it to the number of rows.
        test: A share of the rows, or a file, that is scored and chooses nothing; None likewise.
        methods: The methods to try; plain fine-tuning is always among them.
        overrides: ``KEY=VALUE`` for every run; what is set so is not searched.
        jobs: Runs that are trained at a time; more than one are trained by as many worker processes.
    """

    name: str
    recipe: Mapping[str, Any]
    output: Path
    source: Path | None = None
    minutes: float | None = None
    runs: int | None = None
    folds: int | None = None
    test: Any = None
    methods: tuple[str, ...] = METHODS
    overrides: tuple[str, ...] = ()
    jobs: int = 1


def refuse_a_wrong_budget(request: FitRequest) -> None:
    """Refuse minutes or runs of which nothing can be tried, and more than a year.

    Raises:
        RequestError: That is so.
    """
    if request.minutes is not None and not 0 < request.minutes <= MINUTES_OF_A_YEAR:
        raise RequestError(f"--minutes {request.minutes:,}: give a number above 0, and at most {MINUTES_OF_A_YEAR:,}")
    if request.runs is not None and request.runs < 1:
        raise RequestError(f"--runs {request.runs}: give 1 or more")


def refuse_what_fit_decides(overrides: Sequence[str]) -> None:
    """Refuse ``KEY=VALUE`` that would change how rows are cut, scored or chosen by.

    Raises:
        RequestError: There is one.
    """
    for override in overrides:
        key, _ = split_override(override)
        if "." not in key and key != "seed":
            raise RequestError(f"--set {override}: name single keys of {key}, such as training.batch_size=8")
        if key in DECIDED or key.startswith(("task.files", "task.splits")):
            raise RequestError(f"--set {override}: fit itself decides {key}; leave it out, or use train")


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
    config: str | None = None,
    test: str | float | None = None,
    methods: Sequence[str] = (),
    model: str | None = None,
    metric: str | Sequence[str] | None = None,
    kind: str | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    jobs: int = 1,
) -> FitRequest:
    """Put together what a fit is asked to do.

    Args:
        data: A table's file or a pattern of files, a recipe file with a task, or a dataset (its id, or a folder).
        output: The folder that holds all runs.
        text, text2: The text columns; of a recipe they are its own.
        label: The label column; likewise.
        minutes, runs, folds, methods, overrides: See ``FitRequest``.
        group: The column whose rows stay together.
        config: The configuration of a dataset of the hub.
        test: A share of the rows, or a file; of a dataset one of its splits.
        model: The pre-trained model; minilm, or the recipe's.
        metric, kind: Of the task; see ``OwnTask``.
        name: What the task is called; the file's name without its endings.
        jobs: Runs that are trained at a time.

    Raises:
        RequestError: A column is not named, or a flag does not suit the data.
    """
    refuse_wrong_names(text, text2, label)
    told = {"task.text": text, "task.label": label, "task.group": group, "task.metric": metric}
    flags = {key: f"--{key.removeprefix('task.')} {value}" for key, value in told.items() if value is not None}
    refuse_told_twice(overrides, flags | ({} if model is None else {"model.name": f"--model {model}"}))
    given = {"text": [text, text2] if text2 else text, "label": label, "group": group, "metric": metric, "kind": kind}
    task_keys = {key: value for key, value in given.items() if value is not None}
    source = None
    dataset = names_a_dataset(data)
    if config is not None and not dataset:
        raise RequestError(f"--config {config} is for a dataset of the hub, and {data} is none")
    if is_yaml_file(data):
        source = find_recipe(data)
        values, _ = read_mapping(source)
        stem = source.stem
        task = values.get("task")
        if isinstance(task, dict):
            values["task"] = {**task, **task_keys}
    else:
        for flag, value in (("--text", text), ("--label", label)):
            if value is None:
                raise RequestError(f"{flag} COLUMN is missing: which column of {data} holds the {flag[2:]}s?")
        place: dict[str, Any] = {"files": {"train": data}}
        stem = Path(data).name.split(".")[0].strip("*?[]-_") or "table"
        if dataset:
            stem = Path(folder_called(data) or data).name or "table"
            place = {"dataset": folder_called(data) or data, "splits": {"train": "train"}}
            place |= {} if config is None else {"config": config}
        values = {"model": {"name": MODEL}, "task": {**place, **task_keys}}
    sections = {key: _section(values, key, source) for key in ("model", "training")}
    if model is not None:
        sections["model"]["name"] = model
    sections["training"].setdefault("learning_rate", RATES.get(sections["model"].get("name", ""), RATE))
    values |= {key: section for key, section in sections.items() if section}
    return FitRequest(
        name=name or stem,
        recipe=values,
        source=source,
        output=output,
        minutes=minutes,
        runs=runs,
        folds=folds,
        test=_test_part(test, values.get("task")),
        methods=tuple(methods) or METHODS,
        overrides=tuple(overrides),
        jobs=jobs,
    )


def _section(values: Mapping[str, Any], key: str, source: Path | None) -> dict[str, Any]:
    """Return a recipe's section, to be added to."""
    section = values.get(key)
    if section is not None and not isinstance(section, Mapping):
        raise RequestError(f"{source}: {key} should be a mapping of keys to values, not {section!r}")
    return dict(section or {})


def _test_part(test: str | float | None, task: Any) -> Any:
    """Read ``--test``: a number is a share of the rows, anything else a file, or the split of a dataset."""
    if not isinstance(test, str):
        return test
    try:
        return float(test)
    except ValueError:
        if isinstance(task, Mapping) and "dataset" in task:
            return test
        return str(expanded(test).absolute())
