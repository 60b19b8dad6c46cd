"""Flags that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dpstune.errors import RequestError


def recipe_names(incomplete: str) -> list[str]:
    """Return the shipped recipes, for a shell that completes a word; files it completes by itself."""
    from dpstune.recipe.finding import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def method_names(incomplete: str) -> list[str]:
    """Return the methods, for a shell that completes a word."""
    from dpstune.methods import REGISTRY

    return [name for name in REGISTRY if name.startswith(incomplete)]


def task_names(incomplete: str) -> list[str]:
    """Return the tasks, for a shell that completes a word, or the last of several with commas between."""
    from dpstune.settings.tasks import TASKS

    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in TASKS if name.startswith(begun)]


RecipeName = Annotated[
    str, typer.Option("--recipe", help="A shipped recipe's name, or a YAML file.", autocompletion=recipe_names)
]
Trained = Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a local model folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key in every run that has it. Repeatable."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of local data, used instead of the hub; files of your own are looked for there, too."),
]
DataDirs = Annotated[
    list[Path] | None,
    typer.Option("--data-dir", help="Local data; each task is read from the first folder that has it. Repeatable."),
]
Output = Annotated[Path, typer.Option(help="The folder that holds all runs.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Workers on this machine; default: one a core, as memory allows; with a GPU 1."),
]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Optuna storage, shared by workers on several machines.")
]
Dropout = Annotated[
    str | None,
    typer.Option(
        metavar="match|own|NUMBER",
        help="One dropout for all but r-drop (match: the recipe's, or 0; vanilla is added), or each method's own rule. "
        "Default: match in a sweep of several methods, else own.",
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="COLUMN", help="The text column; twice, or with --text2, a pair's."),
]
SecondTextColumn = Annotated[
    str | None, typer.Option("--text2", metavar="COLUMN", help="The second text column of a pair.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object on stdout.")]

_CHANGE_NO_REPORT = ("--json", "--report", "--fresh")


def command_to_repeat(context: typer.Context, left_out: Sequence[str] = _CHANGE_NO_REPORT) -> str:
    """Return the command line as it was typed, for a report: passwords are left out, and what changes no report.

    Args:
        context: The command's.
        left_out: The switches that change none.
    """
    from dpstune.studies.sweep.storage import hide_passwords

    typed: list[str] = context.find_root().obj or []
    words = [word for word in typed if word not in left_out]
    line = shlex.join(["dpstune", *(hide_passwords(word, word) for word in words)])
    return line.encode("utf-8", "backslashreplace").decode()  # a path may be no text


def tell_of_the_hub(data: str) -> None:
    """Say that the hub is asked, where what a user typed is no file or folder and may be a dataset's id."""
    from dpstune.data.files import folder_called, names_a_dataset
    from dpstune.report.output import tell

    if names_a_dataset(data) and folder_called(data) is None:
        tell(f"{data}: no file or folder is called so; the hub is asked for a dataset of this name")


def text_pair(text: Sequence[str] | None, text2: str | None) -> tuple[str | None, str | None]:
    """Return the one or two text columns that ``--text``, given once or twice, and ``--text2`` name.

    Raises:
        RequestError: There are more than two.
    """
    named = [*(text or ()), *([text2] if text2 is not None else [])]
    if len(named) > 2:
        raise RequestError(f"--text {named[2]}: there are three text columns; a text is one, or a pair")
    if not text:
        return None, text2
    return named[0], named[1] if len(named) == 2 else None


def asked_columns(text: str | None) -> list[str] | None:
    """Return the columns that ``--text`` names.

    Raises:
        RequestError: They are neither one nor two.
    """
    columns = text.split(",") if text is not None else None
    if columns is not None and not 1 <= len([column for column in columns if column]) == len(columns) <= 2:
        raise RequestError(f"--text {text}: should name one column, or two with a comma between them")
    return columns
