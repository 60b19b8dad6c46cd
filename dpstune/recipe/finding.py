"""Where recipes lie: those that ship with dpstune, and files."""

from __future__ import annotations

import os
from pathlib import Path

from dpstune.common.paths import expanded
from dpstune.common.textfile import read_text
from dpstune.errors import RequestError, did_you_mean
from dpstune.recipe.yaml_text import is_yaml_file


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with dpstune, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}


def shipped_folder() -> Path:
    """Return the folder of shipped recipes: inside the installed package, or beside the package in a checkout."""
    installed = Path(__file__).parent.parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def may_be_a_recipe(name: str) -> bool:
    """Return whether a name is that of a shipped recipe, or ends as a YAML file's does."""
    return name in shipped_recipes() or is_yaml_file(name)


def find_recipe(name_or_file: str) -> Path:
    """Return the file of a recipe.

    Raises:
        RequestError: It is neither a shipped recipe nor a file; the nearest name is offered.
    """
    shipped = shipped_recipes()
    if name_or_file in shipped:
        return shipped[name_or_file]
    path = expanded(name_or_file)
    if not name_or_file.strip():
        raise RequestError("a recipe's name is empty; `dpstune recipes list` shows them all")
    if os.path.isdir(path):  # unlike Path's methods, os.path's take a name of any length
        raise RequestError(f"{name_or_file} is a folder; a recipe is a YAML file")
    if os.path.exists(path):
        return path
    hint = did_you_mean(path.stem, shipped) or "; `dpstune recipes list` shows them all"
    raise RequestError(f"no recipe and no file is called {name_or_file!r}{hint}")


def describe_recipe(source: Path) -> str:
    """Return a recipe's description: the first line of its opening comment, empty if there is none.

    >>> describe_recipe(find_recipe("roberta-rte"))
    'RoBERTa-large on RTE. Zhang et al. 2022, Appendix C, Table 2.'
    """
    line = read_text(source).partition("\n")[0]
    return line.lstrip("# ") if line.startswith("#") else ""
