"""``dpstune ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import AsJson, DataDir, Output, command_to_repeat
from dpstune.common.paths import expanded
from dpstune.report.output import print_json, tell


def ensemble(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs on one task.")],
    weights: Annotated[
        bool,
        typer.Option(
            "--weights/--probabilities", help="Average weights into one model; or the probabilities that runs gave."
        ),
    ] = False,
    split: Annotated[str | None, typer.Option(help="The split they are scored on; the headline's.")] = None,
    data_dir: DataDir = None,
    output: Output = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Put restarts together, and say what that gains: their probabilities, or their weights as one model.

    Example: dpstune ensemble runs/demo/vanilla/seed-1-... runs/demo/vanilla/seed-2-... --weights
    """
    from dpstune.report.ensemble_report import (
        OF_PROBABILITIES,
        OF_WEIGHTS,
        ensemble_as_json,
        format_ensemble,
        summary,
        write_ensemble_report,
    )
    from dpstune.studies.ensemble import Ensemble

    place = data_dir and expanded(data_dir).absolute()
    together = Ensemble([expanded(run) for run in runs], expanded(output), split, weights=weights, data_dir=place)
    how = OF_WEIGHTS if weights else OF_PROBABILITIES
    with together.lock():
        outcome = together.average_weights() if weights else together.average_probabilities()
        page = write_ensemble_report(outcome, how, command_to_repeat(context))
    tell(format_ensemble(outcome, how))
    for line in [*outcome.notes, *summary(outcome, how)]:
        tell(line)
    tell(f"report: {page}")
    if as_json:
        print_json({**ensemble_as_json(outcome, how), "report": str(page)})
