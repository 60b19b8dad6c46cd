"""A run's identity: a hash of all that changes its result, in the name of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dpstune.methods import foreign_code, newer_keys, without_newer_keys

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.recipe.recipe import LoadedRecipe
    from dpstune.recipe.schema import Recipe
    from dpstune.runs.folder import RunFolder

_HAVE_FINGERPRINTS = ("model", "task")

NEWER_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "training.label_smoothing": 0.0,
        "training.class_weights": None,
        "training.standardise": False,
        "training.keep": "last",
        "training.patience": None,
    }
)
"""Keys that recipes did not always have, dotted, with the value that changes nothing: what runs were before.

Those of a method stand in its config class: ``MethodConfig.newer_keys``.
"""

NO_INFLUENCE = ("data.dir", "training.save_every", "training.trackers")
"""Keys that change no result, dotted: where data lie, how often a checkpoint is saved, who shows the run."""


def newer_default(key: str, settings: Mapping[str, Any]) -> Any:
    """Return the value that changes nothing of a key that recipes did not always have; None for any other key.

    Args:
        key: Dotted.
        settings: A recipe's settings by dotted key.

    >>> newer_default("method.of.score", {"method.name": "ema", "method.of.name": "dps-dense"})
    'squared'
    """
    section, _, own = key.rpartition(".")
    newer_of_method = newer_keys(settings.get(f"{section}.name")) if key.startswith("method.") else {}
    return newer_of_method.get(own, NEWER_DEFAULTS.get(key))


def without_newer_defaults(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's plain values without the newer keys that change nothing.

    What is hashed of a recipe goes through it, so that a run, a sweep and a point keep the names they had before the
    keys were there.

    Args:
        dump: What ``Recipe.model_dump`` returns; it stays as it is.

    >>> without_newer_defaults({"training": {"steps": 9, "label_smoothing": 0.0, "class_weights": "balanced"}})
    {'training': {'steps': 9, 'class_weights': 'balanced'}}
    >>> without_newer_defaults({"method": {"name": "dps-mix", "p": 0.3, "scope": "all", "score": "random"}})
    {'method': {'name': 'dps-mix', 'p': 0.3, 'score': 'random'}}
    """
    kept = _without(dump, "")
    return {**kept, "method": without_newer_keys(kept["method"])} if "method" in kept else kept


def what_decides(recipe: Recipe, *, with_saving: bool = False) -> dict[str, Any]:
    """Return a recipe's plain values less what changes no result: ``NO_INFLUENCE``, and newer keys at their defaults.

    Args:
        recipe: The recipe.
        with_saving: Whether ``training.save_every`` stays: a sweep's name counts it.
    """
    values = without_newer_defaults(recipe.model_dump(mode="json"))
    for key in NO_INFLUENCE:
        section, name = key.split(".")
        if not (with_saving and name == "save_every"):
            del values[section][name]
    return values


def _without(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in values.items()
        if f"{prefix}{key}" not in NEWER_DEFAULTS or value != NEWER_DEFAULTS[f"{prefix}{key}"]
    }
    return {
        key: _without(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value for key, value in kept.items()
    }


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

    return {"model": model_fingerprint(recipe.model), "task": task_fingerprint(task)}


def task_fingerprint(task: TaskData) -> str:
    """Return a hash of a task's examples, labels and metrics; it does not depend on which examples a seed draws."""
    from dpstune.runs.folder import run_hash

    return run_hash({"task": [task.kind, _measured(task), task.label_names, task.source_fingerprint]})


def known_fingerprints(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes that a result.json holds, as ``content_fingerprints`` made them.

    Those that an earlier dpstune did not write, or that are damaged, are left out.

    >>> known_fingerprints({"fingerprints": {"model": "0a", "task": None}})
    {'model': '0a'}
    """
    found = result.get("fingerprints")
    found = found if isinstance(found, Mapping) else {}
    return {section: found[section] for section in _HAVE_FINGERPRINTS if isinstance(found.get(section), str)}


def has_changed(task: TaskData, since: Mapping[str, str]) -> bool:
    """Tell whether a task's examples, labels or metrics are other ones than those that a run was trained with.

    Args:
        task: As it is read now.
        since: The run's fingerprints; where they do not name the task, nothing is known to have changed.
    """
    known = since.get("task")
    return known is not None and known != task_fingerprint(task)


def _what_is_run(recipe: Recipe, task: TaskData) -> dict[str, Any]:
    from dpstune.models.loading import model_fingerprint

    ingredients = what_decides(recipe)
    del ingredients["model"]["name"], ingredients["task"]
    code = foreign_code(recipe.method)
    return ingredients | {
        **({"method_code": code} if code else {}),
        "task": [task.kind, _measured(task), task.label_names, task.fingerprint],
        "model_fingerprint": model_fingerprint(recipe.model),
    }


def _measured(task: TaskData) -> str | tuple[str, ...]:
    """Return the headline's name; all the names where more are asked for."""
    return task.metrics if task.more_metrics else task.metric
