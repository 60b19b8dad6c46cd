"""A finished run's numbers: the content of its result.json."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from dpstune.runs.identity import content_fingerprints, run_digest
from dpstune.settings.sections import same_task

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.evaluation.targets import Target
    from dpstune.evaluation.trained import TrainedPlace
    from dpstune.recipe.schema import Recipe


def what_was_run(recipe_name: str, recipe: Recipe, task: TaskData, split: str | None, processes: int) -> dict[str, Any]:
    """Return what is known of a result before training; the value is yet to come.

    Args:
        recipe_name: The recipe's name.
        recipe: What is run.
        task: Its examples.
        split: The split that gives the headline; None where none is evaluated.
        processes: How many processes train.
    """
    return {
        "recipe": recipe_name,
        "digest": run_digest(recipe, task, processes=processes),
        "processes": processes,
        "fingerprints": content_fingerprints(recipe, task),
        "task": task.name,
        "method": recipe.method.model_dump(mode="json"),
        "seed": recipe.seed,
        "split": split,
        "metric": task.metric,
        "value": None,
        "majority": None if split is None else majority_value(task, split),
        "examples": {name: len(examples) for name, examples in task.splits.items()},
    }


def build_result(
    known: Mapping[str, Any],
    *,
    chooses: bool,
    kept: Mapping[str, Any],
    last: Mapping[str, Any],
    best: Mapping[str, Any],
    steps: int,
    stopped_early: bool,
    steps_per_epoch: int,
    seconds: float,
    other_seconds: float,
    tokens: int,
    peak_memory_bytes: int,
    method_bytes: int,
    loss_scaling: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the content of result.json.

    The headline is that of the kept weights: the last, unless the recipe asks for the best. To choose an epoch on the
    validation split is to choose on the test.

    Args:
        known: What ``what_was_run`` says of it.
        chooses: Whether the recipe keeps the best evaluation's weights.
        kept: Step and metrics, by split, of the weights that are kept.
        last: The same of the last step's.
        best: Step, value and metrics of the best evaluation; empty where the headline was undefined each time.
        steps: Optimizer steps taken.
        stopped_early: Whether more were planned.
        steps_per_epoch: Steps of one epoch.
        seconds: Wall time of the training steps alone.
        other_seconds: Wall time of evaluations and preparation.
        tokens: Tokens trained on, padding not counted.
        peak_memory_bytes: The most memory that was held, in any of the processes that the run went on in.
        method_bytes: Bytes the method held.
        loss_scaling: What ``LossReadings.scaling`` says after the last step.
    """
    split = known["split"]

    def at(evaluated: Mapping[str, Any]) -> dict[str, Any]:
        step = evaluated["step"]
        return {"step": step, "epoch": round(step / steps_per_epoch, 4), "metrics": evaluated["metrics"]}

    chosen = stopped_early or (chooses and bool(best))
    return {
        **known,
        "value": None if split is None else kept["metrics"][split].get(known["metric"]),
        "kept": {**at(kept), "chosen_by": split if chosen else None},
        "last": at(last),
        "best": at(best) if best else None,
        "stopped_early_at": steps if stopped_early else None,
        "steps": steps,
        "seconds": round(seconds, 3),
        "other_seconds": round(other_seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "peak_memory_bytes": peak_memory_bytes,
        "method_bytes": method_bytes,
        "loss_scaling": None if loss_scaling is None else dict(loss_scaling),
    }


def kept_metrics(result: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the metrics, by split, of a run's kept weights: the last step's where a result does not say which."""
    metrics: dict[str, dict[str, float | None]] = result.get("kept", result["last"])["metrics"]
    return metrics


def choice_note(result: Mapping[str, Any]) -> str | None:
    """Say how the kept weights were chosen by a split, and what that means for its score; None where they were not."""
    kept = result.get("kept") or {}
    split = kept.get("chosen_by")
    if split is None:
        return None
    if kept["step"] != result["steps"]:
        chosen = f"the weights are those of step {kept['step']}, the best on {split}"
    else:
        chosen = f"the weights are the last and were chosen on {split}"
    ended = "" if result["stopped_early_at"] is None else f"training stopped early after step {result['steps']}; "
    return f"{ended}{chosen}, so that the score there is optimistic"


def told_of_choice(place: TrainedPlace, target: Target, splits: Container[str]) -> str | None:
    """Say that a run's weights were chosen by a split that is evaluated; None where they were not; see ``choice_note``.

    Args:
        place: Where the model lies.
        target: What it is evaluated on.
        splits: The splits that were read of it.
    """
    if place.run is None or place.recipe is None or not same_task(target.task, place.recipe.task):
        return None
    result = place.run.read_result() or {}
    return choice_note(result) if (result.get("kept") or {}).get("chosen_by") in splits else None


def majority_value(task: TaskData, split: str) -> float | None:
    """Return the headline metric of always giving the same answer; see ``constant_metrics``."""
    from dpstune.evaluation.metrics import constant_value

    train, examples = task.splits["train"], task.splits[split]
    if train.labels is None or examples.labels is None:
        return None
    return constant_value(task.metric, train.labels, examples.labels, label_count=len(task.label_names))
