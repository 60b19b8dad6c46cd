"""How long runs that are yet to be done will take: by those that are, else by a few timed steps."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dpstune.inputs import Inputs

if TYPE_CHECKING:
    from dpstune.data import TokenDataset
    from dpstune.recipe import Recipe
    from dpstune.studies.queue import Job
    from dpstune.studies.records import RunRecord
    from dpstune.studies.sweep import Sweep

TIMED_STEPS = 3
_OF_THE_LENGTH = ("training.steps=", "training.epochs=", "training.warmup_")
FORWARD_SHARE = 1 / 3  # of a training step's time; the backward pass takes about twice the forward pass's


def pace(finished: Sequence[RunRecord], left: int, workers: int) -> float | None:
    """Return how long ``left`` runs will take at the pace of the finished ones; None before the first is finished."""
    if not finished:
        return None
    return sum(record.all_seconds for record in finished) / len(finished) * left / workers


def estimate_seconds(sweep: Sweep, workers: int, told: Callable[[str], None] = lambda line: None) -> float:
    """Return about how long the rest of a sweep will take on this machine.

    A method of which no run is finished is timed: a few steps of its first point on examples of its task.

    Args:
        sweep: The sweep.
        workers: Processes that share this machine.
        told: Is told what is timed.

    Raises:
        RequestError, RunError: As training would.
    """
    from dpstune.hardware import visible_gpus

    done, _ = sweep.finished()
    at_once = min(workers, max(1, len(visible_gpus())))  # a CPU does no more for being shared
    total = 0.0
    for method, left in _left(sweep, done).items():
        finished = [record for job, record in done.items() if job.method == method.method]
        measured = pace(finished, left, workers)
        if measured is None:
            told(f"timing {TIMED_STEPS} steps of {method.method}")
            measured = _seconds_of_a_run(sweep, method) * left / at_once
        total += measured
    return total


def plan_as_json(sweep: Sweep, workers: int, told: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Return what a sweep would run, and about how long it will take; arguments and errors as above.

    A search's runs are not known before it chose them: ``runs`` holds those it chose so far.
    """
    done, _ = sweep.finished()
    budget, to_come = sweep.request.budget, len(sweep.yet_to_choose())
    return {
        "runs": [{"run": str(job), "done": job in done} for job in sweep.jobs],
        "budget": budget,
        "count": len(sweep.jobs) + to_come,
        "left": len(sweep.jobs) + to_come - len(done),
        "workers": workers,
        "seconds": estimate_seconds(sweep, workers, told),
    }


def _left(sweep: Sweep, done: dict[Job, RunRecord]) -> dict[Job, int]:
    """Count the runs to do of each method, by the first of them."""
    first: dict[str, Job] = {}
    counts: Counter[str] = Counter()
    for job in [*(job for job in sweep.jobs if job not in done), *sweep.yet_to_choose()]:
        first.setdefault(job.method, job)
        counts[job.method] += 1
    return {first[method]: count for method, count in counts.items() if count}


def _seconds_of_a_run(sweep: Sweep, job: Job) -> float:
    from dpstune.batches import StepPlan
    from dpstune.methods import method_class
    from dpstune.methods.base import Method
    from dpstune.optim import plan_steps
    from dpstune.studies.profile import Side

    recipe = sweep.request.load(job).recipe
    tokens = sweep.inputs.tokens(recipe)
    lengths = tokens["train"].lengths
    steps_per_epoch = StepPlan(recipe, lengths, processes=1).steps_per_epoch
    steps, _ = plan_steps(recipe.training, steps_per_epoch)
    evaluations = math.ceil(steps / (recipe.training.eval_every or steps_per_epoch))
    if method_class(recipe.method.name).prepare is not Method.prepare:
        steps += steps_per_epoch  # what it looks at before step 1
    evaluated = sum(sum(part.lengths) for split, part in tokens.items() if split != "train")

    kept = [override for override in job.overrides if not override.startswith(_OF_THE_LENGTH)]
    few = (*kept, f"training.steps={TIMED_STEPS + 1}", "training.warmup_steps=0")
    side = Side(sweep.request.load(replace(job, overrides=few)), _FewExamples(sweep.inputs))
    side.step()  # the first makes the optimizer's state
    seconds = statistics.median(side.time_step() for _ in range(TIMED_STEPS))
    return seconds * (steps + evaluations * FORWARD_SHARE * evaluated / side.tokens)


class _FewExamples(Inputs):
    """A task's examples, of the training split as many as the timed steps hold, and no other split.

    Args:
        whole: All of them.
    """

    def __init__(self, whole: Inputs) -> None:
        super().__init__()
        self.task, self.tokenizer = whole.task, whole.tokenizer  # type: ignore[method-assign]
        self._whole = whole

    def tokens(self, recipe: Recipe) -> dict[str, TokenDataset]:
        """Return them, spread evenly over the split."""
        train = self._whole.tokens(recipe)["train"]
        training = recipe.training
        count = (TIMED_STEPS + 1) * training.batch_size * training.gradient_accumulation
        return {"train": train.take(range(0, len(train), max(1, len(train) // count)))}
