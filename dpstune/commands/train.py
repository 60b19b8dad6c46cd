"""``dpstune train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpstune.commands.options import AsJson, DataDir, Output, RecipeName
from dpstune.common.interruption import Interrupted
from dpstune.report.output import print_json

if TYPE_CHECKING:
    from dpstune.recipe.recipe import LoadedRecipe


def train(
    recipe: RecipeName,
    method: Annotated[
        str | None, typer.Option(help="Use this method, with its defaults, instead of the recipe's.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=5. Repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed; default: the recipe's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many restarts to train: seed, seed+1, ...")] = 1,
    data_dir: DataDir = None,
    output: Output = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if the run is finished.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe; a repeated command continues an interrupted run."""
    from dpstune.device.hardware import part_from_the_other_ranks
    from dpstune.recipe.recipe import load_recipe, refuse_told_twice

    named = None if method is None else f"--method {method}"
    numbered = None if seed is None else f"--seed {seed}"
    refuse_told_twice(overrides or (), {"method": named, "method.name": named, "seed": numbered})

    def load(seed: int | None) -> LoadedRecipe:
        return load_recipe(
            recipe, method=method, overrides=overrides or (), seed=seed, data_dir=data_dir and data_dir.expanduser()
        )

    first = load(seed)
    results: list[dict[str, Any]] = []
    try:
        for restart in range(seeds):
            results.append(_train_one(load(first.recipe.seed + restart), output.expanduser(), fresh))
        part_from_the_other_ranks()
    except Interrupted as error:  # all ranks end together; the error's frames would keep their group alive
        error.with_traceback(None)
        part_from_the_other_ranks()
        raise
    finally:  # print what is finished, also if a later restart failed
        if as_json and results and is_main_process():
            print_json(results[0] if seeds == 1 else {"runs": results})


def _train_one(loaded: LoadedRecipe, output: Path, fresh: bool) -> dict[str, Any]:
    """Train one restart, show its result on stderr, and return it with the run's folder."""
    from contextlib import redirect_stdout

    from dpstune.report.progress import new_progress
    from dpstune.report.tables import print_result
    from dpstune.training import engine

    with redirect_stdout(sys.stderr):  # stdout is for the result alone; a library may print anything
        run = engine.train(loaded, output=output, progress=new_progress(), fresh=fresh)
    if is_main_process():
        print_result(run.folder, run.result)
    return {"run": str(run.folder), **run.result}


def is_main_process() -> bool:
    """Tell whether this process prints for all: it is alone, or the first that ``accelerate launch`` started."""
    return os.environ.get("RANK", "0") == "0"
