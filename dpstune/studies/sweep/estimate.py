"""How long the remaining runs will take: estimated from finished runs, else from a few timed steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dpstune.data.inputs import Inputs
from dpstune.device.limits import cores
from dpstune.studies.processes import at_once, threads_of_a_worker

if TYPE_CHECKING:
    from dpstune.data.tokens import TokenDataset
    from dpstune.recipe.recipe import LoadedRecipe
    from dpstune.recipe.schema import Recipe
    from dpstune.studies.records import RunRecord
    from dpstune.studies.sweep.queue import Job
    from dpstune.studies.sweep.sweep import Sweep

TIMED_STEPS = 3
FORWARD_SHARE = 1 / 3  # of a training step's time; the backward pass takes about twice the forward pass's


def pace(finished: Sequence[RunRecord], left: int, workers: int) -> float | None:
    """Return the seconds that ``left`` runs will take at the pace of the finished ones; None if none is finished.

    Args:
        finished: Runs that shared this machine with as many others as the remaining ones will.
        left: How many runs are left.
        workers: Processes that share this machine; more than it has processors bring nothing.
    """
    if not finished:
        return None
    return sum(record.all_seconds for record in finished) / len(finished) * left / min(workers, cores())


def plan_as_json(sweep: Sweep, workers: int, told: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return what a sweep would run, and about how long it will take on this machine.

    A search's runs are known only once it has chosen them: ``runs`` holds those chosen so far. If a method has no
    finished run, a few steps of its first point are timed on examples of the task.

    Args:
        sweep: The sweep.
        workers: Processes that share this machine.
        told: Called with a line before each timing.

    Returns:
        A mapping for JSON: ``runs``, ``budget``, ``count``, ``left``, ``workers``, and ``seconds`` for all runs left.

    Raises:
        RequestError, RunError: Where training would raise them, too.
    """
    done, _ = sweep.finished()
    to_come = sweep.yet_to_choose()
    left = [*(job for job in sweep.jobs if job not in done), *to_come]
    of_here = {job: record for job, record in done.items() if sweep.is_of_here(job)}
    return {
        "runs": [{"run": str(job), "done": job in done} for job in sweep.jobs],
        "budget": sweep.request.budget,
        "count": len(sweep.jobs) + len(to_come),
        "left": len(left),
        "workers": workers,
        "seconds": _estimate(sweep, of_here, left, workers, told),
    }


def _estimate(
    sweep: Sweep, done: Mapping[Job, RunRecord], left: Sequence[Job], workers: int, told: Callable[[str], None]
) -> float:
    seconds, workers = 0.0, min(workers, max(1, len(left)))  # no more are started than have a run
    for method in dict.fromkeys(job.method for job in left):
        own = [job for job in left if job.method == method]
        measured = pace([record for job, record in done.items() if job.method == method], len(own), workers)
        if measured is None:
            told(f"timing {TIMED_STEPS} steps of {method}")
            with threads_of_a_worker(workers):
                a_run = seconds_of_a_run(sweep.request.load(own[0]), sweep.inputs)
            measured = a_run * len(own) / at_once(workers)
        seconds += measured
    return seconds


def seconds_of_a_run(loaded: LoadedRecipe, inputs: Inputs) -> float:
    """Return about how long a run takes on this machine, by a few timed steps on examples of its task.

    Args:
        loaded: The run's recipe.
        inputs: Its examples.

    Raises:
        RequestError, RunError: As training would.
    """
    from dpstune.data.batches import StepPlan
    from dpstune.methods import build_method
    from dpstune.methods.base import Method
    from dpstune.studies.profile.profile import Side
    from dpstune.training.optim import plan_evaluations, plan_steps

    recipe = loaded.recipe
    tokens = inputs.tokens(recipe)
    steps_per_epoch = StepPlan(recipe, tokens["train"].lengths, processes=1).steps_per_epoch
    steps, _ = plan_steps(recipe.training, steps_per_epoch)
    _, evaluations = plan_evaluations(recipe.training, steps, steps_per_epoch)
    if type(build_method(recipe.method).innermost).prepare is not Method.prepare:
        steps += steps_per_epoch  # the epoch that it sees before step 1
    evaluated = sum(sum(part.lengths) for split, part in tokens.items() if split != "train")

    length = {"steps": TIMED_STEPS + 1, "epochs": None, "warmup_steps": 0, "warmup_ratio": None}
    few = recipe.model_copy(update={"training": recipe.training.model_copy(update=length)})
    side = Side(replace(loaded, recipe=few), _FewExamples(inputs))
    side.step()  # the first makes the optimizer's state
    seconds = statistics.median(side.time_step() for _ in range(TIMED_STEPS))
    return seconds * (steps + evaluations * FORWARD_SHARE * evaluated / side.tokens)


class _FewExamples(Inputs):
    """A part of a task's training split, as many examples as the timed steps need, and no other split.

    Args:
        whole: All of them.
    """

    def __init__(self, whole: Inputs) -> None:
        super().__init__()
        self.task, self.tokenizer = whole.task, whole.tokenizer  # type: ignore[method-assign]
        self._whole = whole

    def tokens(self, recipe: Recipe) -> dict[str, TokenDataset]:
        """Return the examples, spread evenly over the split."""
        train = self._whole.tokens(recipe)["train"]
        training = recipe.training
        count = (TIMED_STEPS + 1) * training.batch_size * training.gradient_accumulation
        return {"train": train.take(range(0, len(train), max(1, len(train) // count)))}
