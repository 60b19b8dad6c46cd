"""``dpstune.train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpstune.api.arguments import as_folder
from dpstune.api.guest import guest
from dpstune.api.recipes import RecipeLike, load
from dpstune.api.results import TrainResult


@guest
def train(
    recipe: RecipeLike,
    *,
    method: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    output: str | Path = "runs",
    fresh: bool = False,
    quiet: bool = False,
    **changes: Any,
) -> TrainResult:
    """Train one recipe with one seed; go on where the run was interrupted; return it where it is finished.

    A finished run without a model, of a sweep that kept none, is trained anew, as with ``fresh``.

    Args:
        recipe: A shipped recipe's name, a YAML file, or a mapping of sections to keys.
        method: Another method than the recipe's, at its defaults; or a section, ``{"name": "mixout", "p": 0.7}``.
        seed: Another seed.
        data_dir: Local data in the place of the hub.
        output: The folder that holds all runs.
        fresh: Train again even where the run is finished; the finished one is kept under another name.
        quiet: Tell nothing on stderr.
        changes: Other keys: ``training={"epochs": 1}``, or ``**{"training.epochs": 1}``.

    Raises:
        RequestError: The recipe asks for something that cannot be had.
        RunError: The work failed.
        Interrupted: A signal came; a checkpoint was written, and the same call goes on.

    >>> import dpstune
    >>> run = dpstune.train("demo", method="vanilla", training={"steps": 2}, data={"train_size": 32}, quiet=True)
    >>> run.table.columns.tolist()
    ['split', 'accuracy', 'examples']
    >>> (run.model / "config.json").is_file()
    True
    """
    from dpstune.common.progress import SilentProgress
    from dpstune.report.progress import new_progress
    from dpstune.training import engine
    from dpstune.training.results import choice_note, kept_metrics

    loaded = load(recipe, method=method, seed=seed, data_dir=data_dir, changes=changes)
    progress = SilentProgress() if quiet else new_progress()
    run = engine.train(
        loaded,
        output=as_folder("output", output),
        progress=progress,
        fresh=fresh,
        need_model=True,
        check_data=not quiet,
    )
    rows = [
        {"split": split, **metrics, "examples": run.result["examples"].get(split)}
        for split, metrics in kept_metrics(run.result).items()
    ]
    chosen = choice_note(run.result)
    return TrainResult(run.folder, rows, run.result, notes=[] if chosen is None else [chosen])
