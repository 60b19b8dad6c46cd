"""``dpstune recipes``: list, show, copy, check, schema."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import recipe_names
from dpstune.common.paths import expanded
from dpstune.errors import RequestError, printable
from dpstune.report.output import print_json, print_out, tell

app = typer.Typer(help="List, show, copy and check recipes.\n\nExample: dpstune recipes list")


@app.command("list")
def list_recipes() -> None:
    """List the recipes that ship with dpstune.

    Example: dpstune recipes list
    """
    from dpstune.recipe.finding import describe_recipe, shipped_recipes
    from dpstune.recipe.recipe import load_recipe
    from dpstune.report.tables import format_columns

    rows = [("NAME", "MODEL", "TASK", "METHOD", "WHAT")]
    for name, path in shipped_recipes().items():
        loaded = load_recipe(name)
        rows.append(
            (name, loaded.recipe.model.name, str(loaded.recipe.task), loaded.recipe.method.name, describe_recipe(path))
        )
    print_out(format_columns(rows))


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.", autocompletion=recipe_names)],
) -> None:
    """Print a recipe's YAML.

    Example: dpstune recipes show roberta-rte
    """
    from dpstune.common.textfile import read_text
    from dpstune.recipe.finding import find_recipe

    print_out(read_text(find_recipe(name)))


@app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.", autocompletion=recipe_names)],
    file: Annotated[Path | None, typer.Argument(help="Where to; NAME.yaml when left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Copy a recipe, to make it your own.

    It is not copied where its relative paths would lead to other files.

    Example: dpstune recipes copy minilm-rte mine.yaml
    """
    from dpstune.common.textfile import read_text
    from dpstune.common.writing import write_text
    from dpstune.recipe.finding import find_recipe
    from dpstune.recipe.recipe import paths_lead_elsewhere

    source = find_recipe(name)
    target = expanded(file) if file else Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists() and not force:
        raise RequestError(f"{target} exists; choose another file, or overwrite it with --force")
    train_it = f"train it with: dpstune train --recipe {shlex.quote(str(target))}"
    try:
        leads_elsewhere = paths_lead_elsewhere(source, target)
    except RequestError as error:
        leads_elsewhere, train_it = False, f"mend it before it is trained: {error}"
    if leads_elsewhere:
        raise RequestError(
            f"{source} has relative paths, which would lead elsewhere from {target}; make them absolute in {source} "
            f"first, or copy it to a file in {source.parent.absolute()}"
        )
    write_text(target, read_text(source), flag="the argument FILE")
    tell(f"wrote {target}; {train_it}")


@app.command("check")
def check_recipes(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME|FILE...", help="Recipes' names, or YAML files.", autocompletion=recipe_names),
    ],
) -> None:
    """Check recipes' keys, not their data, and print what each of them asks for.

    ``dpstune check`` looks at a recipe's data too.

    Example: dpstune recipes check mine.yaml
    """
    from dpstune.recipe.recipe import load_recipe, summarize_recipe

    wrong = []
    for name in names:
        try:
            print_out(printable(f"{name}: ok: {summarize_recipe(load_recipe(name).recipe)}"))
        except RequestError as error:
            wrong.append(error)
            tell(f"error: {error}")
    if wrong:
        raise typer.Exit(RequestError.exit_code)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of a recipe, for editors.

    Example: dpstune recipes schema > recipe.schema.json
    """
    from dpstune.recipe.schema import recipe_schema

    print_json(recipe_schema())
