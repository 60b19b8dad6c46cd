"""Flags that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Option("--recipe", help="A shipped recipe's name, or a YAML file.")]
Trained = Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a local model folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any key of every run that has it. Repeatable."),
]
DataDir = Annotated[Path | None, typer.Option(help="Local data in the place of the hub.")]
Output = Annotated[Path, typer.Option(help="The folder that holds all runs.")]
Jobs = Annotated[int, typer.Option(min=1, help="Workers on this machine.")]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Optuna storage that workers on several machines share.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object on stdout.")]

_CHANGES_NO_REPORT = ("--json", "--report")


def command_to_repeat(context: typer.Context) -> str:
    """Return the command line as it was typed, for a report: passwords are left out, and what changes no report."""
    from dpstune.studies.sweep.storage import hide_passwords

    typed: list[str] = context.find_root().obj or []
    words = [word for word in typed if word not in _CHANGES_NO_REPORT]
    return shlex.join(["dpstune", *(hide_passwords(word, word) for word in words)])
