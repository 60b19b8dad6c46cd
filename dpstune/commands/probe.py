"""``dpstune probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import AsJson, DataDirs, Output, asked_columns, command_to_repeat, task_names
from dpstune.common.paths import expanded
from dpstune.report.output import print_json, tell
from dpstune.studies.probe.request import FEWEST_ROWS


def probe(
    context: typer.Context,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, or of models with --pretrained.")
    ],
    on: Annotated[
        str | None,
        typer.Option(
            metavar="T1,T2",
            help="Train a linear probe on these: TASK, TASK:SPLIT or a recipe file each.",
            autocompletion=task_names,
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compare on these; default: the runs' own evaluated split."),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="The text columns of --texts.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Compare on the texts of a task, TASK or TASK:SPLIT.", autocompletion=task_names),
    ] = None,
    rows: Annotated[int, typer.Option(min=FEWEST_ROWS, help="Most texts to compare on.")] = 500,
    train_rows: Annotated[
        int, typer.Option(min=FEWEST_ROWS, help="Most rows that a linear probe is trained on.")
    ] = 1000,
    scored_rows: Annotated[int, typer.Option(min=FEWEST_ROWS, help="Most rows that it is scored on.")] = 1000,
    pretrained: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model they began as; default: what each recipe says.")
    ] = None,
    data_dirs: DataDirs = None,
    output: Output = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show how far fine-tuning moved the representations, layer by layer.

    With --on also how well a linear probe on the last layer does other tasks.

    Example: dpstune probe runs/demo/vanilla/seed-1-... runs/demo/dps-mix/seed-1-... --on toy-rte
    """
    from dpstune.report.probe_report import format_probe, probe_as_json, write_probe_report
    from dpstune.studies.probe.probe import Probe
    from dpstune.studies.probe.request import ProbeRequest

    columns = asked_columns(text)
    request = ProbeRequest(
        runs=tuple(expanded(run) for run in runs),
        output=expanded(output),
        on=tuple(on.split(",")) if on is not None else (),
        texts=texts and expanded(texts),
        text=None if columns is None else tuple(columns),
        task=task,
        rows=rows,
        train_rows=train_rows,
        scored_rows=scored_rows,
        pretrained=pretrained,
        data_dirs=tuple(expanded(folder).absolute() for folder in data_dirs or ()),
    )
    outcome = Probe(request).run(tell)
    page = write_probe_report(outcome, command_to_repeat(context))
    for note in outcome.notes:
        tell(f"note: {note}")
    tell(format_probe(outcome))
    tell(f"report: {page}")
    if as_json:
        print_json({**probe_as_json(outcome), "report": str(page)})
