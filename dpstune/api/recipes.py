"""A recipe as the functions take it: a name, a file, or its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.api.arguments import as_count_or_none, as_folder_or_none, as_json, as_name, as_plain, name_and_rest, shown
from dpstune.errors import RequestError

if TYPE_CHECKING:
    from dpstune.recipe.recipe import LoadedRecipe


RecipeLike = str | Path | Mapping[str, Any]
"""A shipped recipe's name, a YAML file, or a mapping of sections to keys."""

NAME = "recipe"  # of a mapping that has none


def as_overrides(changes: Mapping[str, Any]) -> list[str]:
    """Return changes as ``load_recipe`` takes overrides.

    Args:
        changes: Dotted keys with values, or sections with mappings of keys to values.

    >>> as_overrides({"training.epochs": 1, "data": {"train_size": 64}, "method": {"p": 0.1}})
    ['training.epochs=1', 'data.train_size=64', 'method.p=0.1']
    """
    return [f"{key}={as_json(value)}" for key, value in _leaves(changes)]


def _leaves(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, Mapping) and "." not in key and key != "task":
            yield from ((f"{key}.{below}", inner) for below, inner in value.items())
        else:
            yield key, value


def load(
    recipe: RecipeLike,
    *,
    method: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    changes: Mapping[str, Any],
) -> LoadedRecipe:
    """Load a recipe with changes.

    Args:
        recipe: Name, file or values.
        method: Another method than the recipe's; or a section with a method's keys.
        seed: Another seed.
        data_dir: Local data.
        changes: See ``as_overrides``.

    Raises:
        RequestError: See ``load_recipe``.
    """
    from dpstune.recipe.recipe import build_recipe, load_recipe

    _refuse_no_recipe(recipe)
    named, section = name_and_rest(method, "method")
    overrides = as_overrides({**section, **changes})
    folder = as_folder_or_none("data_dir", data_dir)
    seed = as_count_or_none("seed", seed, 0)
    if isinstance(recipe, Mapping):
        if folder is not None:
            overrides += as_overrides({"data.dir": folder})
        values = {key: as_plain(value) for key, value in recipe.items() if key != "name"}
        as_json(values)  # which refuses what no recipe holds, such as a data frame
        return build_recipe(
            values, name=as_name(recipe.get("name", NAME)), method=named, overrides=overrides, seed=seed
        )
    return load_recipe(str(recipe), method=named, overrides=overrides, seed=seed, data_dir=folder)


def as_file(recipe: RecipeLike, output: Path) -> str:
    """Return a recipe's name or file; a mapping is written into a file, for the processes that read it.

    Raises:
        RequestError: Something in it is wrong, or the folder cannot be written to.
    """
    from dpstune.common.writing import write_text
    from dpstune.recipe.recipe import dump_recipe
    from dpstune.runs.folder import run_hash

    _refuse_no_recipe(recipe)
    if not isinstance(recipe, Mapping):
        return str(recipe)
    loaded = load(recipe, changes={})
    text = dump_recipe(loaded.recipe)
    file = output / ".recipes" / run_hash({"recipe": text}) / f"{loaded.name}.yaml"
    write_text(file, text)
    return str(file)


def _refuse_no_recipe(recipe: Any) -> None:
    if not isinstance(recipe, str | Path | Mapping):
        raise RequestError(f"a recipe is a name, a file or a mapping of sections, not {shown(recipe)}")
