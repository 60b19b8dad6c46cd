"""One recipe, one seed, one model: begins a run, continues it, or returns the finished one.

It refuses a precision the device lacks, what the task or the method cannot give, and two processes in one run's folder,
before it writes anything. The training itself is ``loop.py``'s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.interruption import Interrupted, InterruptionWatch
from dpstune.common.progress import Progress, SilentProgress
from dpstune.errors import DivergedError, RequestError
from dpstune.training.loop import Loop

if TYPE_CHECKING:
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import LoadedRecipe
    from dpstune.recipe.schema import Recipe
    from dpstune.runs.folder import RunFolder

_ONE_AT_A_TIME = threading.RLock()  # the runs of a process share torch's random numbers and settings


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: Its folder.
        result: The content of its result.json.
        trained: Whether this call trained it; False if it was finished before.
    """

    folder: Path
    result: dict[str, Any]
    trained: bool


def train(
    loaded: LoadedRecipe,
    *,
    output: Path,
    progress: Progress | None = None,
    fresh: bool = False,
    inputs: Inputs | None = None,
    keep_model: bool = True,
    need_model: bool = False,
    check_data: bool = False,
) -> RunResult:
    """Train one recipe with one seed, continue an interrupted run, or return a finished one.

    Called from several threads, it trains one run after the other.

    Args:
        loaded: The recipe.
        output: The folder that holds all runs.
        progress: Who is told how it goes.
        fresh: Train again even if the run is finished; the finished run's folder is renamed, not overwritten. An
            interrupted run is continued all the same.
        inputs: What the runs of this process share.
        keep_model: Write the finished run's model folder; False writes only its numbers and predictions.
        need_model: Train a finished run that holds no model again, as ``fresh`` does; without it, a finished run's
            numbers are enough.
        check_data: Tell what is wrong with a user's own files before they are trained on, and of any task how many
            texts are cut, where these are many.

    Raises:
        RequestError: The recipe asks for something that cannot be had: see each part's own errors.
        RunError: The work failed: a loss that is not finite, a full disk, a hub that does not answer.
        Interrupted: A signal came; a checkpoint was written and the same call continues from it.
    """
    from dpstune.common.writing import read_json, write_json, write_text
    from dpstune.data.inputs import Inputs
    from dpstune.device.hardware import (
        describe_environment,
        device_type,
        free_earlier_runs,
        new_accelerator,
        reset_peak_memory,
        slow_precision,
        with_earlier,
    )
    from dpstune.device.surroundings import surroundings_kept
    from dpstune.models.precision import model_precision
    from dpstune.recipe.recipe import dump_recipe
    from dpstune.runs.identity import run_folder
    from dpstune.training.checkpoints import Checkpoints

    recipe = loaded.recipe
    progress = progress or SilentProgress()
    inputs = inputs or Inputs()
    with InterruptionWatch() as watch, _ONE_AT_A_TIME, ExitStack() as stack:
        free_earlier_runs()
        stack.enter_context(surroundings_kept())
        precision = model_precision(recipe.training.precision, recipe.model, device_type())
        accelerator = new_accelerator(precision)
        reset_peak_memory(accelerator.device)
        if not accelerator.is_main_process:
            progress = SilentProgress()
        task = inputs.task(recipe)
        folder = run_folder(
            loaded,
            task,
            output,
            precision=precision,
            device=accelerator.device.type,
            processes=accelerator.num_processes,
        )
        with folder.lock() if accelerator.is_main_process else nullcontext():
            accelerator.wait_for_everyone()
            finished = folder.read_result()
            lacks_model = need_model and not folder.model.is_dir()
            if finished is not None and not fresh and lacks_model:
                progress.note(f"{folder.path} holds no model, as sweep --no-models leaves it: trained anew")
            elif finished is not None and not fresh:
                if accelerator.is_main_process:  # the run may have been killed before it did this itself
                    Checkpoints(folder.checkpoints).clear()
                    _write_a_lost_recipe(folder, recipe, progress)
                progress.note(f"finished already: {folder.path}")
                watch.end_if_asked()
                return RunResult(folder.path, finished, trained=False)
            _refuse_what_cannot_be_trained(recipe, inputs)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                if folder.result.exists():
                    progress.note(f"the earlier run is kept as {folder.set_aside()}")
                folder.create()
            accelerator.wait_for_everyone()
            slow = slow_precision(precision, accelerator.device.type)
            for note in [*task.notes, *([slow] if slow else [])]:
                progress.note(note)
            loop = Loop(recipe, inputs, folder, accelerator, watch, progress)
            if accelerator.is_main_process:
                if loop.checkpoint is None and folder.holds_what_ends_a_training:  # of a training whose result is gone
                    progress.note(f"what an earlier training left is kept as {folder.set_aside()}")
                    folder.create()
                for line in _told_of_the_data(loaded, inputs) if check_data else ():
                    progress.note(line)
                write_text(folder.recipe, dump_recipe(recipe))
                environment = describe_environment(accelerator.device, precision, accelerator.num_processes)
                environment |= {"determinism": loop.determinism}
                before = None if loop.checkpoint is None else read_json(folder.environment)
                write_json(folder.environment, with_earlier(environment, before))
            loop.resume()
            if accelerator.is_main_process:
                folder.diverged.unlink(missing_ok=True)  # of an earlier try
            try:
                with loop.log:
                    evaluations = loop.run()
            except DivergedError as error:
                loop.keep_divergence(loaded.name, error)
                raise
            result = loop.finish(loaded.name, evaluations, keep_model=keep_model)
        if watch.received is not None:
            raise Interrupted(watch.received, f"interrupted when {folder.path} was finished; all of it is saved")
        return RunResult(folder.path, result, trained=True)


def _write_a_lost_recipe(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Write a finished run's recipe again where its file is gone or cannot be read; a damaged one is kept aside.

    The folder's name has a hash of all that changes the result, so that the recipe asked for is the one that was run.
    """
    from dpstune.common.writing import set_aside, write_text
    from dpstune.recipe.recipe import dump_recipe, load_run_recipe

    try:
        load_run_recipe(folder.recipe)
    except RequestError as error:
        if folder.recipe.exists():
            set_aside(folder.recipe)
        write_text(folder.recipe, dump_recipe(recipe))
        progress.note(f"written again, since it was lost or damaged ({error}): {folder.recipe}")


def _refuse_what_cannot_be_trained(recipe: Recipe, inputs: Inputs) -> None:
    """Refuse what would end a run later, before anything is written."""
    from dpstune.methods import build_method
    from dpstune.training.best import refuse_nothing_to_choose_by
    from dpstune.training.criterion import build_criterion
    from dpstune.training.trackers import refuse_missing_trackers

    task = inputs.task(recipe)
    refuse_missing_trackers(recipe.training.trackers)
    build_method(recipe.method)  # whose library may be missing
    inputs.tokens(recipe)  # which the tokenizer may not take
    build_criterion(recipe.training, task)  # which may weigh labels that are not there
    refuse_nothing_to_choose_by(recipe.training, task)


def _told_of_the_data(loaded: LoadedRecipe, inputs: Inputs) -> Iterator[str]:
    """Yield what is wrong with a user's own files; of any task, that values lie far from 0, or what tokens tell."""
    from dpstune.data.checking import told_before_training
    from dpstune.data.label_findings import STANDARDISE, far_values
    from dpstune.settings.sections import DatasetTask, OwnTask

    recipe, task = loaded.recipe, inputs.task(loaded.recipe)
    if isinstance(recipe.task, OwnTask | DatasetTask):
        yield from told_before_training(recipe.task, recipe.data, loaded.source)
    as_they_are = task.kind == "regression" and not recipe.training.standardise
    if as_they_are and (far := far_values(task.splits["train"].labels or ())):
        yield f"{far}. {STANDARDISE}"
    yield from inputs.told_of_tokens(recipe)
