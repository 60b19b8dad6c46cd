"""``dpstune sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpstune.commands.options import (
    AsJson,
    DataDir,
    Dropout,
    Jobs,
    Output,
    Overrides,
    RecipeName,
    Storage,
    command_to_repeat,
    method_names,
)
from dpstune.commands.watched import run_watched, tell_what_is_elsewhere
from dpstune.common.paths import expanded
from dpstune.errors import DpstuneError, RequestError, counted, printable, some_of
from dpstune.report.output import print_json, print_out, tell

if TYPE_CHECKING:
    from dpstune.studies.sweep.sweep import Outcome, Sweep, SweepRequest

TPE_BUDGET = 20


def sweep(
    context: typer.Context,
    recipe: RecipeName,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="A method with its grid: NAME, or NAME:KEY=VALUE,... to fix keys. Repeatable.",
            autocompletion=method_names,
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="Replace a key of the grids, or add one. Repeatable."),
    ] = None,
    overrides: Overrides = None,
    dropout: Dropout = None,
    seeds: Annotated[int, typer.Option(min=1, help="Restarts of each point.")] = 5,
    jobs: Jobs = None,
    storage: Storage = None,
    sampler: Annotated[str, typer.Option(help="grid; or tpe: Optuna chooses points in the grid's ranges.")] = "grid",
    budget: Annotated[int | None, typer.Option(min=1, help="Points of each method for tpe; default: 20.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Give up points worse than the median of the others.")] = False,
    models: Annotated[
        bool, typer.Option(help="Keep each run's weights; without them, only its numbers and predictions.")
    ] = True,
    data_dir: DataDir = None,
    output: Output = Path("runs"),
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run and how long; run nothing.")] = False,
    report_only: Annotated[bool, typer.Option("--report", help="Report on what is finished; run nothing.")] = False,
    launcher: Annotated[
        str | None, typer.Option(help="slurm or local: submit --jobs tasks, each with one worker, and do not wait.")
    ] = None,
    launcher_options: Annotated[
        list[str] | None,
        typer.Option("--launcher-set", metavar="KEY=VALUE", help="An option of sbatch for the tasks. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a grid over many seeds, and report which point is best.

    The same command again goes on where it was stopped.

    Example: dpstune sweep --recipe demo --method mixout --grid method.p=0.3,0.7 --seeds 5
    """
    from dpstune.recipe.recipe import load_recipe
    from dpstune.report.sweep_view import format_plan
    from dpstune.studies.dropout import as_flag, planned_dropout, settle_dropout
    from dpstune.studies.sweep.coordinator import open_searches
    from dpstune.studies.sweep.estimate import plan_as_json
    from dpstune.studies.sweep.launcher import refuse_wrong_options
    from dpstune.studies.sweep.sweep import Sweep, SweepRequest
    from dpstune.studies.worker_count import default_workers

    if sampler not in ("grid", "tpe"):
        raise RequestError(f"--sampler {sampler}: should be grid or tpe")
    if budget is not None and sampler == "grid":
        raise RequestError(
            f"--budget {budget}: a grid has a fixed number of points; add --sampler tpe, or leave it out"
        )
    if plan + report_only + (launcher is not None) > 1:
        raise RequestError("--plan, --report and --launcher: give only one of them")
    refuse_wrong_options(launcher, launcher_options or ())
    asked = SweepRequest(
        recipe=recipe,
        methods=tuple(methods or [load_recipe(recipe).recipe.method.name]),
        seeds=seeds,
        output=expanded(output),
        grid=tuple(grid or ()),
        overrides=tuple(overrides or ()),
        data_dir=data_dir and expanded(data_dir).absolute(),
        storage=storage,
        budget=(budget or TPE_BUDGET) if sampler == "tpe" else None,
        prune=prune,
        keep_models=models,
    )
    planned = Sweep(settle_dropout(asked, dropout))
    if dropout_line := planned_dropout(planned):
        tell(dropout_line)
    if plan:
        if planned.has_storage:
            open_searches(planned)
        planned_runs = plan_as_json(planned, jobs or default_workers(planned), tell)
        print_json(planned_runs) if as_json else print_out(printable(format_plan(planned_runs)))
        return
    if launcher is not None:
        _launch(planned, launcher, jobs or 1, launcher_options or (), as_json)
        return
    outcome = _read_outcome(planned) if report_only else run_watched(planned, jobs)
    # Without it the command may come to mean another study.
    flag = as_flag(planned.request) if dropout is None else None
    command = command_to_repeat(context) + (f" --dropout {flag}" if flag else "")
    report = _write_report(planned, outcome, command)
    if as_json:
        print_json({**outcome.as_json(), "report": report})
    if not report_only:
        outcome.refuse_what_is_missing()


def _launch(sweep: Sweep, launcher: str, tasks: int, options: Sequence[str], as_json: bool) -> None:
    """Submit tasks that each run the same command with one worker, and say which they are; none where all is done.

    Raises:
        RequestError: The tasks could not share the queue; or see ``submit``.
        RunError: See ``submit``.
    """
    from dpstune.studies.sweep.launcher import submit
    from dpstune.studies.sweep.storage import sqlite_file

    if launcher == "slurm" and tasks > 1 and sqlite_file(sweep.storage) is not None:
        raise RequestError(
            "--launcher slurm: its tasks need a database that every node reaches; add --storage postgresql://..."
        )
    logs = (sweep.folder / "tasks").absolute()
    if _is_done(sweep):
        ids = []
        tell("nothing to do: every run is finished; --report shows them")
    else:
        ids = submit(launcher, logs, _same_command(sweep.request), tasks, options)
        tell(f"submitted {counted(tasks, 'task')}: {some_of(ids)}; logs in {logs}; --report shows what is finished")
    if as_json:
        print_json({"tasks": ids, "logs": str(logs)})


def _is_done(sweep: Sweep) -> bool:
    """Tell whether every run of a sweep is finished, as far as this machine sees."""
    from dpstune.studies.sweep.coordinator import open_searches

    searches = sweep.request.budget is not None
    if not sweep.runs_folder.is_dir() or (not sweep.has_storage and searches):
        return False
    try:
        open_searches(sweep)
        done, _ = sweep.finished()
    except DpstuneError:  # data, model and database may be within the tasks' reach alone
        return False
    return len(done) == len(sweep.jobs) and not (searches and sweep.yet_to_choose())


def _same_command(request: SweepRequest) -> list[str]:
    """Return the command line that runs the same sweep with one worker."""
    from dpstune.studies.dropout import as_flag

    repeated = {"--method": request.methods, "--grid": request.grid, "--set": request.overrides}
    once = {
        "--recipe": request.recipe,
        "--seeds": request.seeds,
        "--jobs": 1,
        "--storage": request.storage,
        "--budget": request.budget,
        "--sampler": None if request.budget is None else "tpe",
        "--dropout": as_flag(request),
        "--data-dir": request.data_dir,
        "--output": request.output,
    }
    given = [(flag, value) for flag, values in repeated.items() for value in values]
    given += [(flag, str(value)) for flag, value in once.items() if value is not None]
    switches = ["--prune"] * request.prune + ["--no-models"] * (not request.keep_models)
    return ["sweep", *(f"{flag}={value}" for flag, value in given), *switches]


def _read_outcome(sweep: Sweep) -> Outcome:
    """Return what of a sweep is finished, as its runs tell, also those of another kind of machine.

    If its storage exists, the storage tells what failed or was given up, and which points tpe chose.

    Raises:
        RequestError: Nothing is finished.
    """
    from dpstune.studies.sweep.coordinator import open_searches

    tally = None
    if sweep.has_storage:
        open_searches(sweep)
        tally = sweep.open_queue().tally()
        sweep.learn(tally)
    sweep.find_divergences()
    outcome = sweep.outcome(tally)
    tell_what_is_elsewhere(sweep, outcome)
    if not outcome.records:
        damaged = "".join(f"; {each}" for each in list(outcome.damaged.values())[:1])
        raise RequestError(f"--report: none of the sweep's runs is finished in {sweep.runs_folder}{damaged}")
    return outcome


def _write_report(sweep: Sweep, outcome: Outcome, command: str) -> str | None:
    from dpstune.report.sweep_report import write_sweep_report

    if not outcome.records:
        return None
    report = str(write_sweep_report(sweep.folder, outcome.restarts, notes=outcome.notes, command=command))
    tell(f"report: {report}")
    return report
