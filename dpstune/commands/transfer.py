"""``dpstune transfer``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpstune.commands.options import (
    AsJson,
    DataDirs,
    Dropout,
    Jobs,
    Output,
    Overrides,
    RecipeName,
    Storage,
    command_to_repeat,
    method_names,
    task_names,
)
from dpstune.common.paths import expanded
from dpstune.errors import RequestError, counted
from dpstune.report.output import print_json, tell

if TYPE_CHECKING:
    from dpstune.studies.transfer import TransferCell


def transfer(
    context: typer.Context,
    recipe: RecipeName,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="T1,T2",
            help="TASK, TASK:SPLIT or a recipe file each; the paper's, where they are had.",
            autocompletion=task_names,
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="NAME or NAME:key=value. Repeatable; vanilla and the recipe's own.",
            autocompletion=method_names,
        ),
    ] = None,
    overrides: Overrides = None,
    dropout: Dropout = None,
    seeds: Annotated[int, typer.Option(min=1, help="Restarts of each method.")] = 5,
    jobs: Jobs = None,
    storage: Storage = None,
    data_dirs: DataDirs = None,
    output: Output = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Train on one task and evaluate on others.

    The same command again goes on where it was stopped.

    Example: dpstune transfer --recipe demo --method vanilla --method dps-mix
    """
    from dpstune.commands.watched import run_watched
    from dpstune.data.reading import folder_with_task
    from dpstune.methods import BASELINE
    from dpstune.report.transfer_report import format_transfer, write_transfer_report
    from dpstune.settings.sections import UserTask, task_name
    from dpstune.studies.dropout import found_dropout, planned_dropout, settle_dropout
    from dpstune.studies.grid import load_first
    from dpstune.studies.records import chosen_on_a_split
    from dpstune.studies.sweep.sweep import Sweep, SweepRequest
    from dpstune.studies.transfer import Evaluator, choose_targets, refuse_what_does_not_match, tabulate

    folders = [expanded(folder).absolute() for folder in data_dirs or ()]
    named = load_first(recipe, methods, overrides or ()).recipe.task
    own = isinstance(named, UserTask)  # its files lie where its recipe says; the folders are the targets'
    home = None if own else folder_with_task(folders, task_name(named))
    data_dir = home or (folders[0] if folders and not own else None)
    loaded = load_first(recipe, methods, overrides or (), data_dir).recipe
    asked = [each for each in targets.split(",") if each] if targets is not None else None
    if asked == []:
        raise RequestError("--targets: names no task; give some, for example --targets snli,sick")
    carried_to, notes = choose_targets(asked, loaded, folders)
    refuse_what_does_not_match(carried_to, loaded)
    for note in notes:
        tell(note)
    request = SweepRequest(
        recipe=recipe,
        methods=tuple(methods or dict.fromkeys([BASELINE, loaded.method.name])),
        seeds=seeds,
        output=expanded(output),
        overrides=tuple(overrides or ()),
        data_dir=data_dir,
        storage=storage,
        search=False,
        study="transfer",
    )
    sweep = Sweep(request if dropout is None else settle_dropout(request, dropout))
    if dropout_line := planned_dropout(sweep):
        tell(dropout_line)
    evaluator = Evaluator(carried_to, tell)
    done, _ = sweep.finished()
    bare = [job for job, run in done.items() if evaluator.lacks_a_model(run)]
    if bare and storage is not None:  # there a finished job is done for good
        raise RequestError(
            f"{counted(len(bare), 'finished run')} without a model, such as {done[bare[0]].folder}, cannot be scored "
            "on what is new; the same command without --storage trains them anew"
        )
    if bare:
        tell(f"{counted(len(bare), 'finished run')} without a model, as sweep --no-models leaves them: trained anew")
        sweep.train_anew(bare)
    outcome = run_watched(sweep, jobs)
    report: str | None = None
    cells: list[TransferCell] = []
    if outcome.records:
        scores = [score for run in outcome.records.values() for score in evaluator.evaluate(run)]
        cells = tabulate(scores, carried_to)
        runs = list(outcome.records.values())
        notes += [*filter(None, [found_dropout(runs)]), *chosen_on_a_split(runs), *outcome.notes]
        command = command_to_repeat(context)
        report = str(write_transfer_report(sweep.folder, sweep.name, scores, cells, carried_to, notes, command))
        tell(format_transfer(cells, carried_to))
        tell(f"report: {report}")
    if as_json:
        print_json({**outcome.as_json(), "report": report, "table": [cell.as_json() for cell in cells]})
    outcome.refuse_what_is_missing()
