"""Flags that several commands share."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Option("--recipe", help="A shipped recipe's name, or a YAML file.")]
Trained = Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a local model folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key in every run that has it. Repeatable."),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of local data, used instead of the hub.")]
Output = Annotated[Path, typer.Option(help="The folder that holds all runs.")]
Jobs = Annotated[int, typer.Option(min=1, help="Workers on this machine.")]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Optuna storage, shared by workers on several machines.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object on stdout.")]

_CHANGES_NO_REPORT = ("--json", "--report")
_SECRETS = (r"(?<=://)([^:/@\s]*):.*@", r"\1:***@"), (r"(?i)\b(password=)[^&\s]*", r"\1***")


def command_to_repeat(context: typer.Context) -> str:
    """Return the command line as typed, for a report, without passwords and without flags that change no report."""
    typed: list[str] = context.find_root().obj or []
    words = [word for word in typed if word not in _CHANGES_NO_REPORT]
    for pattern, kept in _SECRETS:
        words = [re.sub(pattern, kept, word) for word in words]
    return shlex.join(["dpstune", *words])
