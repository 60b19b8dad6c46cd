"""``dpstune init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import SecondTextColumn, TextColumn, text_pair
from dpstune.common.paths import expanded
from dpstune.errors import RequestError
from dpstune.report.output import tell


def init(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Your training rows; docs/your-data.md lists the formats.")
    ],
    text: TextColumn = None,
    text2: SecondTextColumn = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The label column; guessed when left out.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="What FILE is in; UTF-8, or what its byte-order mark says.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="RECIPE", help="The recipe's file.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a first recipe for a table of your own.

    What it guesses it explains, and every key it leaves out is there as a comment with its default.

    Example: dpstune init train.csv --label stars
    """
    from dpstune.common.writing import write_text
    from dpstune.data.first_recipe import first_recipe

    output = expanded(output)
    if output.exists() and not force:
        raise RequestError(f"{output} exists; choose another file with --output, or overwrite it with --force")
    first, second = text_pair(text, text2)
    columns = {"text": first, "text2": second, "label": label}
    write_text(output, first_recipe(expanded(file), output, **columns, encoding=encoding))
    name = shlex.quote(str(output))
    tell(f"wrote {output}; look at its guesses, then:")
    tell(f"  dpstune check {name}")
    tell(f"  dpstune train --recipe {name}")
