"""What a finished run leaves behind: its numbers, and a model folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune import __version__
from dpstune.models.names import shown_models
from dpstune.runs.folder import write_folder

if TYPE_CHECKING:
    import torch

    from dpstune.data.reading import TaskData
    from dpstune.evaluation.scoring import Evaluation
    from dpstune.recipe.recipe import Recipe


def build_result(
    *,
    recipe_name: str,
    digest: str,
    fingerprints: Mapping[str, str],
    recipe: Recipe,
    task: TaskData,
    evaluations: Mapping[str, Evaluation],
    best: Mapping[str, Any],
    steps: int,
    steps_per_epoch: int,
    seconds: float,
    other_seconds: float,
    tokens: int,
    method_bytes: int,
    loss_scaling: Mapping[str, Any] | None,
    device: torch.device,
) -> dict[str, Any]:
    """Return the content of result.json.

    The headline is the last evaluation's: the best one's would be chosen by the split that it is reported on.

    Args:
        recipe_name: The recipe's name.
        digest: What ``run_digest`` says of it.
        fingerprints: What ``content_fingerprints`` says of it.
        recipe: What was run.
        task: Its examples.
        evaluations: The splits scored after the last step; the first of them gives the headline.
        best: Step, value and metrics of the best evaluation.
        steps: Optimizer steps taken.
        steps_per_epoch: Steps of one epoch.
        seconds: Wall time of the training steps alone.
        other_seconds: Wall time of evaluations and preparation.
        tokens: Tokens trained on, padding not counted.
        method_bytes: Bytes the method held.
        loss_scaling: What ``LossReadings.scaling`` says after the last step.
        device: Where it ran.
    """
    from dpstune.device.hardware import peak_memory_bytes

    split = next(iter(evaluations))
    metric = task.metric
    last = evaluations[split].metrics
    return {
        "recipe": recipe_name,
        "digest": digest,
        "fingerprints": dict(fingerprints),
        "task": task.name,
        "method": recipe.method.model_dump(mode="json"),
        "seed": recipe.seed,
        "split": split,
        "metric": metric,
        "value": last.get(metric),
        "majority": majority_value(task, split),
        "last": {
            "step": steps,
            "epoch": round(steps / steps_per_epoch, 4),
            "metrics": {name: evaluation.metrics for name, evaluation in evaluations.items()},
        },
        "best": {
            "step": best["step"],
            "epoch": round(best["step"] / steps_per_epoch, 4),
            "metrics": best["metrics"],
        }
        if best
        else None,
        "examples": {name: len(examples) for name, examples in task.splits.items()},
        "steps": steps,
        "seconds": round(seconds, 3),
        "other_seconds": round(other_seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "peak_memory_bytes": peak_memory_bytes(device),
        "method_bytes": method_bytes,
        "loss_scaling": None if loss_scaling is None else dict(loss_scaling),
    }


def majority_value(task: TaskData, split: str) -> float | None:
    """Return the headline metric of always giving the same answer; see ``constant_metrics``."""
    from dpstune.evaluation.metrics import constant_metrics

    train, examples = task.splits["train"], task.splits[split]
    if train.labels is None or examples.labels is None:
        return None
    found = constant_metrics([task.metric], train.labels, examples.labels, label_count=len(task.label_names))
    return found[task.metric]


def save_model_folder(
    folder: Path, model: Any, tokenizer: Any, recipe: Recipe, task: TaskData, result: Mapping[str, Any]
) -> None:
    """Write weights (safetensors), config, tokenizer and model card, all of them or nothing."""
    from transformers.utils import logging

    def fill(place: Path) -> None:
        logging.disable_progress_bar()
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        (place / "README.md").write_text(model_card(recipe, task, result), encoding="utf-8")

    write_folder(folder, fill)


def model_card(recipe: Recipe, task: TaskData, result: Mapping[str, Any]) -> str:
    """Return the model card, in Markdown with the metadata header the hub reads."""
    import yaml

    metrics = result["last"]["metrics"]
    header = {
        "base_model": recipe.model.name,
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["dpstune", recipe.method.name],
        "metrics": list(metrics[result["split"]]),
    }
    rows = "\n".join(
        f"| {split} | {name} | {'undefined' if value is None else f'{value:.4f}'} |"
        for split, values in metrics.items()
        for name, value in values.items()
    )
    settings = ", ".join(f"{k} {v}" for k, v in result["method"].items() if k != "name") or "no settings"
    labels = ", ".join(task.label_names) or "one value (regression)"
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {shown_models([recipe.model.name])[recipe.model.name]} fine-tuned on {task.name}

Fine-tuned with {recipe.method.name} ({settings}) by dpstune {__version__}, seed {recipe.seed}, on
{result["examples"]["train"]} examples, {result["steps"]} steps.

Labels: {labels}.

| split | metric | value after the last step |
|---|---|---|
{rows}

Always answering the commonest training label gives {_number(result["majority"])}
({result["metric"]}, {result["split"]}).

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", model="PATH_OF_THIS_FOLDER")
```

Numbers of one seed say little about a method: fine-tuning on small data varies from restart to restart.
"""


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.4f}"
