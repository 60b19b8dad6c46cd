"""``dpstune fit``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import (
    AsJson,
    Output,
    SecondTextColumn,
    TextColumn,
    command_to_repeat,
    tell_of_the_hub,
    text_pair,
)
from dpstune.common.paths import expanded
from dpstune.errors import printable
from dpstune.report.output import print_json, print_out, tell


def fit(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A table of rows, a dataset's id or folder, or a recipe file (.yaml).")
    ],
    text: TextColumn = None,
    text2: SecondTextColumn = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The label column.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Try for so long.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Try so many runs; 40 where no minutes are given.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Cross-validation; 5 below 1,000 rows.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="Rows of one group stay on one side.")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="NAME", help="The configuration of a dataset of the hub.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="SHARE|FILE|SPLIT", help="Rows that are scored and choose nothing.")
    ] = None,
    methods: Annotated[list[str] | None, typer.Option("--method", help="A method to try. Repeatable.")] = None,
    model: Annotated[str | None, typer.Option(help="The pre-trained model: minilm, a folder, or a hub id.")] = None,
    metric: Annotated[str | None, typer.Option(help="What is the best: accuracy, macro_f1, ...")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override any key of every run. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs to train at a time, each with its share of the cores.")] = 1,
    output: Output = Path("runs"),
    plan: Annotated[bool, typer.Option("--plan", help="Print how long it would take, and run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the best model for your own rows, with an honest score.

    The same command goes on where it was stopped.

    Example: dpstune fit tickets.csv --text message --label topic --minutes 20
    """
    from dpstune.report.fit_report import answer, outcome_as_json, plan_text, write_fit_report
    from dpstune.report.fit_view import fit_view
    from dpstune.report.progress import one_of_many
    from dpstune.studies.fit.fit import Fit
    from dpstune.studies.fit.outcome import run_fit
    from dpstune.studies.fit.request import fit_request

    first, second = text_pair(text, text2)
    request = fit_request(
        data,
        text=first,
        text2=second,
        label=label,
        minutes=minutes,
        runs=runs,
        folds=folds,
        group=group,
        config=config,
        test=test,
        methods=methods or (),
        model=model,
        metric=metric,
        overrides=overrides or (),
        output=expanded(output),
        jobs=jobs,
    )
    tell_of_the_hub(data)
    fitted = Fit(request)
    if plan:
        for line in fitted.findings:
            tell(line)
        planned = fitted.plan()
        print_json(planned) if as_json else print_out(printable(plan_text(planned)))
        return
    with fitted.lock():
        with redirect_stdout(sys.stderr):
            outcome = run_fit(fitted, one_of_many, tell, fit_view)
        page = write_fit_report(outcome, command_to_repeat(context), tell)
    for line in answer(outcome):
        tell(line)
    tell(f"report: {page}")
    if as_json:
        print_json({**outcome_as_json(outcome), "report": str(page)})
