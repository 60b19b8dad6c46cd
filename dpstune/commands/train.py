"""``dpstune train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpstune.commands.options import AsJson, DataDir, Output, RecipeName, command_to_repeat, method_names
from dpstune.common.interruption import Interrupted
from dpstune.common.paths import expanded
from dpstune.errors import RequestError, in_a_line
from dpstune.report.output import print_json, tell

if TYPE_CHECKING:
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import LoadedRecipe


def train(
    context: typer.Context,
    recipe: RecipeName,
    method: Annotated[
        str | None, typer.Option(help="Another method than the recipe's, at its defaults.", autocompletion=method_names)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. training.epochs=5. Repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed; default: the recipe's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many restarts to train: seed, seed+1, ...")] = 1,
    data_dir: DataDir = None,
    output: Output = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even where the run is finished.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="ID", help="Upload the finished model to this repository of the hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push-to-hub: only you may see it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train one recipe, or go on with an interrupted run.

    The same command again continues what was interrupted; what is finished it shows;
    a finished run without a model, of a sweep with --no-models, it trains anew.

    Example: dpstune train --recipe demo --method dps-mix --seed 3
    """
    from dpstune.device.hardware import part_from_the_other_ranks
    from dpstune.recipe.recipe import load_recipe, refuse_told_twice

    named = None if method is None else f"--method {method}"
    numbered = None if seed is None else f"--seed {seed}"
    refuse_told_twice(overrides or (), {"method": named, "method.name": named, "seed": numbered})

    def load(seed: int | None) -> LoadedRecipe:
        return load_recipe(
            recipe, method=method, overrides=overrides or (), seed=seed, data_dir=data_dir and expanded(data_dir)
        )

    first, command = load(seed), command_to_repeat(context)
    _refuse_what_cannot_be_pushed(push_to_hub, private, seeds)
    results: list[dict[str, Any]] = []
    try:
        for restart in range(seeds):
            loaded = load(first.recipe.seed + restart)
            results.append(_train_one(loaded, expanded(output), fresh, command, check_data=restart == 0))
        if push_to_hub is not None and is_main_process():
            results[0]["pushed"] = _push(Path(results[0]["run"]), push_to_hub, private)
        part_from_the_other_ranks()
    except Interrupted as error:  # all ranks end together; the error's frames would keep their group alive
        error.with_traceback(None)
        part_from_the_other_ranks()
        raise
    finally:  # print what is finished, also if a later restart failed
        if as_json and results and is_main_process():
            print_json(results[0] if seeds == 1 else {"runs": results})


def _train_one(loaded: LoadedRecipe, output: Path, fresh: bool, command: str, *, check_data: bool) -> dict[str, Any]:
    """Train one restart, show its result on stderr, write its page, and return the result with the run's folder."""
    from contextlib import redirect_stdout

    from dpstune.data.inputs import Inputs
    from dpstune.report.progress import new_progress
    from dpstune.report.tables import print_result
    from dpstune.settings.sections import task_kind
    from dpstune.training import engine

    with redirect_stdout(sys.stderr):  # stdout is for the result; what a library prints is for people
        inputs = Inputs()
        run = engine.train(
            loaded,
            output=output,
            progress=new_progress(),
            fresh=fresh,
            inputs=inputs,
            need_model=True,
            check_data=check_data,
        )
    if is_main_process():
        print_result(run.folder, run.result, task_kind(loaded.recipe.task))
        if run.trained or not (run.folder / "report.html").exists():
            _write_page(run.folder, loaded, inputs, command)
    return {"run": str(run.folder), **run.result}


def _refuse_what_cannot_be_pushed(repository: str | None, private: bool, seeds: int) -> None:
    from dpstune.integrations.upload import refuse_what_cannot_be_uploaded

    if repository is None:
        if private:
            raise RequestError("--private: says who may see what --push-to-hub uploads; give that, too")
        return
    if seeds > 1:
        raise RequestError(f"--push-to-hub {repository}: takes one model, and --seeds {seeds} trains {seeds}; give one")
    refuse_what_cannot_be_uploaded(repository)


def _push(run: Path, repository: str, private: bool) -> str:
    """Upload a finished run's model, and return where it is."""
    from dpstune.evaluation.trained import find_trained
    from dpstune.integrations.upload import upload_model

    address = upload_model(find_trained(run).folder, repository, private=private)
    tell(f"pushed to {address}")
    return address


def _write_page(run: Path, loaded: LoadedRecipe, inputs: Inputs, command: str) -> None:
    """Write a run's page, and say where it is; or why there is none, which loses nothing of the run."""
    from dpstune.report.run_report import write_run_page
    from dpstune.runs.folder import RunFolder

    folder = RunFolder(run)
    try:
        with folder.lock():
            folder.clear_partial()
            tell(f"report: {write_run_page(run, inputs.task(loaded.recipe), command)}")
    except Exception as error:
        tell(f"no report: {in_a_line(error)}")


def is_main_process() -> bool:
    """Tell whether this process prints for all: it is alone, or the first that ``accelerate launch`` started."""
    return os.environ.get("RANK", "0") == "0"
