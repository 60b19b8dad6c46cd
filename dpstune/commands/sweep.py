"""``dpstune sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import AsJson, DataDir, Jobs, Output, Overrides, RecipeName, Storage
from dpstune.errors import RequestError
from dpstune.report.output import print_json, print_out, tell


def sweep(
    recipe: RecipeName,
    methods: Annotated[list[str] | None, typer.Option("--method", help="A method, with its grid. Repeatable.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="Replace a key of the grids, or add one. Repeatable."),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="Restarts of each point.")] = 5,
    jobs: Jobs = 1,
    storage: Storage = None,
    sampler: Annotated[str, typer.Option(help="grid, or tpe: Optuna chooses points in the grid's ranges.")] = "grid",
    budget: Annotated[int, typer.Option(min=1, help="Points of each method that tpe chooses.")] = 20,
    prune: Annotated[bool, typer.Option("--prune", help="Give up points worse than the median of the others.")] = False,
    data_dir: DataDir = None,
    output: Output = Path("runs"),
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run, and run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a grid over many seeds, and report; the same command again goes on where it was stopped."""
    from dpstune.recipe import load_recipe
    from dpstune.report.sweep_report import write_sweep_report
    from dpstune.report.sweep_view import format_plan, run_watched
    from dpstune.studies.sweep import Sweep, SweepRequest

    if sampler not in ("grid", "tpe"):
        raise RequestError(f"--sampler {sampler}: should be grid or tpe")
    asked = SweepRequest(
        recipe=recipe,
        methods=tuple(methods or [load_recipe(recipe).recipe.method.name]),
        seeds=seeds,
        output=output.expanduser(),
        grid=tuple(grid or ()),
        overrides=tuple(overrides or ()),
        data_dir=data_dir and data_dir.expanduser().absolute(),
        storage=storage,
        budget=budget if sampler == "tpe" else None,
        prune=prune,
    )
    planned = Sweep(asked)
    if plan:
        print_out(format_plan(planned, jobs))
        return
    outcome = run_watched(planned, jobs)
    report = None
    if outcome.records:
        report = str(write_sweep_report(planned.folder, list(outcome.records.values()), notes=outcome.notes))
        tell(f"report: {report}")
    if as_json:
        print_json({**outcome.as_json(), "report": report})
    outcome.refuse_what_is_missing()
