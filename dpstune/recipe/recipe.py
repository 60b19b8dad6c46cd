"""Recipes: how one is loaded, overridden and checked, and written again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dpstune.common.writing import can_name_a_folder
from dpstune.errors import RequestError, shortened
from dpstune.methods import without_newer_keys
from dpstune.recipe.draft import Draft, split_override
from dpstune.recipe.finding import find_recipe
from dpstune.recipe.schema import Recipe, run_method_schema
from dpstune.recipe.yaml_text import write_mapping
from dpstune.settings.base import listed
from dpstune.settings.sections import UserTask, task_name


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where it came from.

    Args:
        name: The name of its file without the ending; its runs' folder is called so.
        recipe: The recipe, checked.
        source: Its file.
    """

    name: str
    recipe: Recipe
    source: Path


def load_recipe(
    name_or_file: str,
    *,
    method: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, str] = MappingProxyType({}),
    seed: int | None = None,
    data_dir: Path | None = None,
) -> LoadedRecipe:
    """Load a recipe that ships with dpstune, or a file, and override its keys.

    Args:
        name_or_file: A shipped recipe's name or a YAML file.
        method: Another method, with its default settings; the recipe's own method keeps the recipe's settings.
        overrides: ``a.b=value`` each, value read as YAML; applied after ``method``. To override one of a pair, such as
            steps and epochs, removes the recipe's other one.
        flags: The flag to name in errors, by the text of the override; ``--set`` for overrides that are not in it.
        seed: Another seed.
        data_dir: Where local data lies.

    Returns:
        The checked recipe; a user's own task without a name has the recipe's. All its paths are absolute. A path in the
        file is relative to the recipe's folder, but the task's files are relative to ``data.dir`` where that is given.
        A model's folder beside the recipe begins with ``./``; a name without it is looked for in the working directory,
        then on the hub. A path in an override is relative to the working directory.

    Raises:
        RequestError: There is no such recipe, or something in it is wrong: file, line and key are named.

    >>> load_recipe("demo", overrides=["training.epochs=1"]).recipe.training.steps is None
    True
    """
    source = find_recipe(name_or_file)
    return _finish(Draft.read(source), source.stem, method, overrides, flags, seed, data_dir)


def build_recipe(
    values: Mapping[str, Any],
    *,
    name: str,
    source: Path | None = None,
    method: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> LoadedRecipe:
    """Build a recipe from plain values, as a file would hold them.

    Args:
        values: Sections and keys.
        name: What it is called; runs are kept under it.
        source: The file they come from, to whose folder paths are relative; None for the working directory.
        method, overrides, seed: See ``load_recipe``.

    Raises:
        RequestError: Something in it is wrong: the key is named.

    >>> build_recipe({"model": {"name": "minilm"}, "task": "toy-nli"}, name="mine").recipe.training.batch_size
    16
    """
    return _finish(Draft(source or Path(name), deepcopy(dict(values)), {}), name, method, overrides, {}, seed, None)


def _finish(
    draft: Draft,
    name: str,
    method: str | None,
    overrides: Sequence[str],
    flags: Mapping[str, str],
    seed: int | None,
    data_dir: Path | None,
) -> LoadedRecipe:
    """Override a draft's keys and check it; see ``load_recipe``."""
    if method is not None:
        draft.switch_method(method, f"--method {method}")
    for override in overrides:
        draft.override(override, flags.get(override, f"--set {shortened(override)}"))
    if seed is not None:
        draft.set(("seed",), seed, f"--seed {seed}")
    if data_dir is not None:
        told = draft.flag_of(("data", "dir"))
        if told is not None:
            raise RequestError(f"--data-dir {data_dir} and {told} set the same key; give one of them")
        draft.set(("data", "dir"), str(data_dir.absolute()), f"--data-dir {data_dir}")
    if not can_name_a_folder(name):
        raise RequestError(f"a recipe called {shortened(repr(name))} cannot name its runs' folder; rename it")
    draft.make_paths_absolute()
    recipe = draft.check()
    draft.refuse_a_task_name_for_no_file(recipe)
    return LoadedRecipe(name, _with_a_named_task(recipe, name), draft.source)


def _with_a_named_task(recipe: Recipe, name: str) -> Recipe:
    """Call a user's own task after its recipe, unless it has a name."""
    if not isinstance(recipe.task, UserTask) or recipe.task.name is not None:
        return recipe
    return recipe.model_copy(update={"task": recipe.task.model_copy(update={"name": name})})


# Keys that a method got later, with the value that describes what it did before.
_BEFORE_IT_WAS_A_KEY: dict[str, dict[str, Any]] = {"r3f": {"detach": False}}


def load_run_recipe(file: Path) -> Recipe:
    """Load the recipe that a run wrote into its folder.

    A run writes out every default. If a key is missing, the dpstune that trained the run did not know it. The key then
    has the value that the run trained with, even if the default is another one now. A method that is not known here is
    taken as it is.

    Args:
        file: ``recipe.yaml`` in a run's folder.

    Raises:
        RequestError: There is no such file, or something in it is wrong.
    """
    draft = Draft.read(file)
    method = draft.values.get("method")
    if isinstance(method, dict):
        draft.values["method"] = {**_BEFORE_IT_WAS_A_KEY.get(str(method.get("name")), {}), **method}
    draft.make_paths_absolute()
    return draft.check(run_method_schema)


def refuse_told_twice(overrides: Sequence[str], flags: Mapping[str, str | None]) -> None:
    """Refuse a key that both ``--set`` and the key's own flag give.

    Args:
        overrides: What ``--set`` gave.
        flags: Keys that have their own flag, each with the flag as it was written; None where it was not given.

    Raises:
        RequestError: A key is given twice.

    >>> refuse_told_twice(["training.epochs=3"], {"seed": "--seed 3", "method": None})
    """
    for override in overrides:
        flag = flags.get(split_override(override)[0])
        if flag is not None:
            raise RequestError(f"{flag} and --set {shortened(override)} set the same key; give one of them")


def paths_lead_elsewhere(source: Path, copy: Path) -> bool:
    """Return whether a recipe has relative paths that would lead elsewhere from a copy of it.

    Args:
        source: The recipe's file.
        copy: Where its copy is to lie.

    Raises:
        RequestError: It lies in another folder, and ``source`` cannot be read as a recipe.
    """
    if os.path.realpath(source.parent) == os.path.realpath(copy.parent):
        return False
    here = Draft.read(source)
    there = Draft(copy, deepcopy(here.values), {})
    here.make_paths_absolute()
    there.make_paths_absolute()
    return here.values != there.values


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML that loads back to the same recipe; every key that has a value is written."""
    return write_mapping(recipe.model_dump(mode="json", exclude_none=True))


def summarize_recipe(recipe: Recipe) -> str:
    """Return what a recipe asks for, in one line.

    >>> summarize_recipe(load_recipe("roberta-rte").recipe)
    'FacebookAI/roberta-large on rte, dps-dense (p 0.3, update_ratio 0.05), 2036 steps of 16 examples, seed 42'
    """
    training = recipe.training
    settings = listed(without_newer_keys(recipe.method.model_dump()))
    method = f"{recipe.method.name} ({settings})" if settings else recipe.method.name
    examples = training.batch_size * training.gradient_accumulation
    length = f"{training.steps} steps" if training.steps is not None else f"{training.epochs:g} epochs in steps"
    subject = f"{recipe.model.name} on {task_name(recipe.task)}"
    return f"{subject}, {method}, {length} of {examples} examples, seed {recipe.seed}"
