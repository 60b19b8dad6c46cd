"""What makes a run this run and no other: all that changes its result, as the name of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpstune.data import TaskData
    from dpstune.recipe import LoadedRecipe
    from dpstune.runs import RunFolder


def run_folder(
    loaded: LoadedRecipe, task: TaskData, output: Path, *, precision: str, device: str, processes: int
) -> RunFolder:
    """Return the folder of a run; its name's hash stands for all that changes the result.

    Where the data and the model lie does not change it, what they hold does.

    Args:
        loaded: The recipe.
        task: Its examples.
        output: The folder that holds all runs.
        precision: What the run computes in.
        device: The kind of device it runs on.
        processes: How many processes share it.
    """
    from dpstune.models import model_fingerprint
    from dpstune.runs import RunFolder, run_hash

    recipe = loaded.recipe
    ingredients = recipe.model_dump(mode="json")
    del ingredients["data"]["dir"], ingredients["model"]["name"], ingredients["task"]
    del ingredients["training"]["save_every"], ingredients["training"]["precision"]
    ingredients |= {
        "task": [task.kind, task.metric, task.label_names, task.fingerprint],
        "model_fingerprint": model_fingerprint(recipe.model),
        "precision": precision,
        "device": device,
        "processes": processes,
    }
    name = f"seed-{recipe.seed}-{run_hash(ingredients)}"
    return RunFolder(output / loaded.name / recipe.method.name / name)
