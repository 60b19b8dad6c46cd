"""``dpstune profile``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import AsJson, Overrides, RecipeName, command_to_repeat, method_names
from dpstune.common.paths import expanded
from dpstune.errors import RequestError
from dpstune.report.output import print_json, tell

WAIT_SECONDS = 60  # for another process to write its profile: the measurement took longer


def profile(
    context: typer.Context,
    recipe: RecipeName,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="NAME or NAME:key=value. Repeatable; those of the paper's Table 3.",
            autocompletion=method_names,
        ),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N1,N2", help="Examples in a step; one table for each. Default: 16,32.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Timed steps of each method; 0 measures memory only.")] = 10,
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option(help="The folder that holds all runs; reports go to RECIPE/profile in it.")
    ] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure what methods cost, in time and memory.

    It takes random weights and tokens: no data, and no hub.

    Example: dpstune profile --recipe minilm-rte --method vanilla --method dps-mix
    """
    from dpstune.common.writing import locked, make_writable_folder, set_aside
    from dpstune.report.profile_report import print_costs, write_profile
    from dpstune.studies.profile import profile as study

    request = study.ProfileRequest(
        recipe=recipe,
        methods=tuple(methods or study.METHODS_OF_TABLE_3),
        batch_sizes=study.BATCH_SIZES_OF_TABLE_3 if batch_size is None else _read_batch_sizes(batch_size),
        steps=steps,
        overrides=tuple(overrides or ()),
    )
    folder = expanded(output) / request.plan()[0][0].name / "profile"
    make_writable_folder(folder)
    with redirect_stdout(sys.stderr):  # stdout is for the result; what a library prints is for people
        outcome = study.profile(request, tell)
    print_costs(outcome)
    # Another profile of the recipe may have been written meanwhile.
    with locked(folder.with_name(f".{folder.name}.lock"), folder, "at", wait=WAIT_SECONDS):
        if (folder / "profile.json").exists():
            tell(f"the earlier profile is kept as {set_aside(folder)}")
        page = write_profile(folder, outcome, command_to_repeat(context))
    tell(f"figure: {folder / 'memory.png'}")
    tell(f"report: {page}")
    if as_json:
        print_json(outcome)


def _read_batch_sizes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise RequestError(f"--batch-size {text}: should be whole numbers, 1 or more each, for example 16,32")
    return tuple(dict.fromkeys(map(int, parts)))
