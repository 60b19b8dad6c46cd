"""``dpstune.fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.api.arguments import (
    as_columns,
    as_count,
    as_count_or_none,
    as_folder,
    as_methods,
    as_name,
    as_number,
    as_text,
    name_and_rest,
    shown,
)
from dpstune.api.frames import write_frame
from dpstune.api.guest import guest
from dpstune.api.recipes import as_overrides
from dpstune.api.results import FitResult
from dpstune.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


@guest
def fit(
    table: str | Path | pd.DataFrame,
    /,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    minutes: float | None = None,
    runs: int | None = None,
    folds: int | None = None,
    group: str | None = None,
    config: str | None = None,
    test: str | Path | float | None = None,
    methods: str | Sequence[str] = (),
    model: str | Mapping[str, Any] | None = None,
    metric: str | Sequence[str] | None = None,
    kind: str | None = None,
    name: str | None = None,
    jobs: int = 1,
    output: str | Path = "runs",
    quiet: bool = False,
    **changes: Any,
) -> FitResult:
    """Find the best model for your own rows, with an honest score; the same call goes on where it was stopped.

    Args:
        table: A file or a pattern of files, a recipe file with a task, a dataset of the hub by its id, or a data frame.
        text: The one or two text columns.
        label: The label column.
        minutes: Try for so long.
        runs: Try so many runs; 40 where no minutes are given.
        folds: Cross-validation in as many folds; 5 below 1,000 rows.
        group: A column; rows of one group stay on one side.
        config: The configuration of a dataset of the hub.
        test: A share of the rows, a file, or a dataset's split, that is scored and chooses nothing.
        methods: The methods to try; plain fine-tuning is always among them.
        model: The pre-trained model, by name or as a recipe's section; minilm.
        metric: What is the best: accuracy, macro_f1, ...; of several the first.
        kind: classification or regression.
        name: What the task is called; the file's name.
        jobs: Runs to train at a time, each by a worker process with its share of the cores. With more than one, a
            script needs ``if __name__ == "__main__":``, as Python's multiprocessing asks for.
        output: The folder that holds all runs.
        quiet: Tell nothing on stderr.
        changes: Other keys of every run: ``training={"batch_size": 8}, data={"max_length": 64}``; what is set so is not
            searched.

    Raises:
        RequestError: The table, a column, a method or a setting is wrong.
        RunError: No candidate could be trained.
        Interrupted: A signal came; the same call goes on.

    >>> import dpstune, pandas
    >>> rows = pandas.DataFrame({"message": ["the parcel is late", "a refund please"] * 20, "topic": [0, 1] * 20})
    >>> rows["message"] += [f" {number}" for number in range(40)]
    >>> found = dpstune.fit(rows, text="message", label="topic", runs=2, folds=2, methods=["vanilla"], quiet=True,
    ...                     training={"steps": 2})
    >>> found.table["method"].tolist(), (found.model / "config.json").is_file()
    (['vanilla'], True)
    """
    from dpstune.report.fit_report import answer, outcome_as_json, write_fit_report
    from dpstune.report.fit_view import fit_view
    from dpstune.report.output import tell
    from dpstune.report.progress import one_of_many
    from dpstune.studies.fit.fit import Fit
    from dpstune.studies.fit.outcome import run_fit
    from dpstune.studies.fit.request import fit_request

    folder = as_folder("output", output)
    columns: Sequence[str | None] = as_columns(text) or [None]
    if not isinstance(test, str | Path | Real | None):
        raise RequestError(f"test={shown(test)}: should be a share of the rows, such as 0.2, or a file")
    for parameter, column in {"label": label, "group": group}.items():
        if not isinstance(column, str | None):
            raise RequestError(f"{parameter}={shown(column)}: should be the name of a column")
    encoder, section = name_and_rest(model, "model")
    if name is not None:
        name = as_name(name)
    kept: list[str] = []
    if not isinstance(table, str | Path):
        name = name or "table"
        table = write_frame(table, {"text": columns[0], "label": label}, [*columns[1:], group], folder / ".tables")
        kept = [f"a copy of the rows is kept in {table.parent}; delete it when you are done"]
    request = fit_request(
        str(table),
        output=folder,
        text=columns[0],
        text2=columns[1] if len(columns) > 1 else None,
        label=label,
        minutes=as_number("minutes", minutes),
        runs=as_count_or_none("runs", runs),
        folds=as_count_or_none("folds", folds, 2),
        group=group,
        config=config,
        test=as_number("test", test) if isinstance(test, Real) else as_text("test", test),
        methods=as_methods(methods),
        model=as_text("model", encoder),
        metric=metric,
        kind=kind,
        name=name,
        overrides=as_overrides({**section, **changes}),
        jobs=as_count("jobs", jobs),
    )
    fitted = Fit(request)
    with fitted.lock():
        outcome = run_fit(fitted) if quiet else run_fit(fitted, one_of_many, tell, fit_view)
        page = write_fit_report(outcome, tell=None if quiet else tell)
    found = {**outcome_as_json(outcome), "answer": answer(outcome)}
    rows = [
        {"method": each["method"], **each["settings"], "state": each["state"], "score": each["score"]}
        for each in found["tried"]
    ]
    return FitResult(outcome.fit.folder, rows, found, page, notes=[*outcome.notes, *kept])
