"""A run's identity: a hash of all that changes its result, in the name of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.recipe.recipe import LoadedRecipe, Recipe
    from dpstune.runs.folder import RunFolder


def run_folder(
    loaded: LoadedRecipe, task: TaskData, output: Path, *, precision: str, device: str, processes: int
) -> RunFolder:
    """Return the folder of a run; its name's hash stands for all that changes the result.

    The hash depends on what data and model contain, not on where they are.

    Args:
        loaded: The recipe.
        task: Its examples.
        output: The folder that holds all runs.
        precision: What the run computes in.
        device: The kind of device it runs on.
        processes: How many processes share it.
    """
    from dpstune.runs.folder import RunFolder, run_hash

    recipe = loaded.recipe
    ingredients = _what_is_run(recipe, task)
    del ingredients["training"]["precision"]
    ingredients |= {"precision": precision, "device": device, "processes": processes}
    name = f"seed-{recipe.seed}-{run_hash(ingredients)}"
    return RunFolder(output / loaded.name / recipe.method.name / name)


def run_digest(recipe: Recipe, task: TaskData, *, processes: int) -> str:
    """Return a hash of what a run trains: equal on every kind of device.

    Args:
        recipe: The recipe.
        task: Its examples.
        processes: How many processes share it: a step holds that many times the batch.
    """
    from dpstune.runs.folder import run_hash

    return run_hash({**_what_is_run(recipe, task), "processes": processes})


def content_fingerprints(recipe: Recipe, task: TaskData) -> dict[str, str]:
    """Return hashes of a run's ``model`` and ``task``; they depend neither on the seed nor on where these are.

    Args:
        recipe: The recipe.
        task: Its examples.
    """
    from dpstune.models.loading import model_fingerprint
    from dpstune.runs.folder import run_hash

    task_hash = run_hash({"task": [task.kind, _measured(task), task.label_names, task.source_fingerprint]})
    return {"model": model_fingerprint(recipe.model), "task": task_hash}


def _what_is_run(recipe: Recipe, task: TaskData) -> dict[str, Any]:
    from dpstune.models.loading import model_fingerprint

    ingredients = recipe.model_dump(mode="json")
    del ingredients["data"]["dir"], ingredients["model"]["name"], ingredients["task"]
    del ingredients["training"]["save_every"], ingredients["training"]["trackers"]
    return ingredients | {
        "task": [task.kind, _measured(task), task.label_names, task.fingerprint],
        "model_fingerprint": model_fingerprint(recipe.model),
    }


def _measured(task: TaskData) -> str | tuple[str, ...]:
    """Return the headline's name; all the names where more are asked for."""
    return task.metrics if task.more_metrics else task.metric
