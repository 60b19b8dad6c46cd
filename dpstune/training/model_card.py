"""The model folder that a run leaves, which plain transformers loads, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune import __version__
from dpstune.common.paths import expanded
from dpstune.common.textfile import markdown_text
from dpstune.common.writing import write_folder
from dpstune.methods import without_newer_keys
from dpstune.models.names import shown_models
from dpstune.settings.base import listed
from dpstune.settings.metrics import constant_answer, told_of_one_label
from dpstune.training.results import choice_note, kept_metrics

if TYPE_CHECKING:
    from dpstune.data.reading import TaskData
    from dpstune.recipe.schema import Recipe
    from dpstune.settings.sections import ModelSection


def save_model_folder(
    folder: Path, model: Any, tokenizer: Any, recipe: Recipe, task: TaskData, result: Mapping[str, Any]
) -> None:
    """Write weights (safetensors), config, tokenizer and model card, all of them or nothing.

    The configuration gets the run's length, so that the folder is read at it wherever it lies.
    """
    from transformers.utils import logging

    from dpstune.evaluation.trained import LENGTH_KEY

    setattr(model.config, LENGTH_KEY, recipe.data.max_length)

    def fill(place: Path) -> None:
        logging.disable_progress_bar()
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        (place / "README.md").write_text(model_card(recipe, task, result), encoding="utf-8")

    write_folder(folder, fill)


def model_card(recipe: Recipe, task: TaskData, result: Mapping[str, Any]) -> str:
    """Return the model card, in Markdown with the metadata header the hub reads."""
    import yaml

    from dpstune.evaluation.multilabel import THRESHOLD

    metrics = kept_metrics(result)
    header = {
        **_base_model(recipe.model),
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["dpstune", recipe.method.name],
        "metrics": list(metrics[result["split"]]) if result["split"] is not None else [],
    }
    rows = "\n".join(
        f"| {split} | {name} | {'undefined' if value is None else f'{value:.4f}'} |"
        for split, values in metrics.items()
        for name, value in values.items()
    )
    settings = listed(without_newer_keys(result["method"])) or "no settings"
    labels = ", ".join(map(markdown_text, task.label_names)) or "one value (regression)"
    several = task.kind == "multilabel"
    all_labels = ", top_k=None" if several else ""
    is_pair = len(task.splits["train"].texts[0]) > 1
    example = '{"text": "First text.", "text_pair": "Second text."}' if is_pair else '"A text."'
    length = recipe.data.max_length
    threshold = f"\nA text may have several labels: those with a score of {THRESHOLD} or more.\n" if several else ""
    note = choice_note(result)
    always = constant_answer(task.metric, task.kind)
    when = "after the last step" if note is None else f"after step {result['kept']['step']}"
    scores = f"""| split | metric | value {when} |
|---|---|---|
{rows}

{always.capitalize()} gives {_number(result["majority"])} ({result["metric"]}, {result["split"]})."""
    for told in told_of_one_label(header["metrics"], task.label_names):
        scores += f" {markdown_text(told)}"
    if note is not None:
        scores += f"\n\n{note[0].upper()}{note[1:]}."
    if result["split"] is None:
        scores = "It was not evaluated: no examples were kept for that."
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {shown_models([recipe.model.name])[recipe.model.name]} fine-tuned on {markdown_text(task.name)}

Fine-tuned with {recipe.method.name} ({settings}) by dpstune {__version__}, seed {recipe.seed}, on
{result["examples"]["train"]} examples, {result["steps"]} steps.

Labels: {labels}.

{scores}

## Use

```python
from transformers import pipeline

classify = pipeline(
    "text-classification", model="PATH_OF_THIS_FOLDER", truncation=True, max_length={length}{all_labels}
)
classify({example})
```

It was trained on the first {length} tokens of an example.
{threshold}
Numbers of one seed say little about a method: fine-tuning on small data varies from restart to restart.
"""


def _base_model(model: ModelSection) -> dict[str, str]:
    """Return the metadata that names a pre-trained model of the hub; the hub takes no folder there."""
    is_local = model.name == "minilm" or expanded(model.name).is_dir()
    return {} if is_local or model.init == "random" else {"base_model": model.name}


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.4f}"
