"""The sections of a recipe: their keys, ranges and defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from dpstune.errors import RequestError
from dpstune.settings.base import Settings
from dpstune.settings.tasks import MULTILABEL_METRICS, Kind, get_task

# Strict: `true` is no number, and neither is a number in quotes.
Switch = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Epochs = Annotated[float, Field(gt=0.0, le=10**6, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0.0, strict=True)]
PositiveOrZero = Annotated[float, Field(ge=0.0, strict=True)]
Share = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
Decay = Annotated[float, Field(gt=0.0, le=1.0, strict=True)]
_OneOrTwo = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=2)]


def _listed(value: object) -> object:
    """Take one column's name for a list of it, and say what may stand there where it is neither."""
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"should be a column, or a list of one or two, not {value!r}")
    return [value] if isinstance(value, str) else value


TextColumns = Annotated[_OneOrTwo, BeforeValidator(_listed, json_schema_input_type=str | _OneOrTwo)]


def _label_weights(value: object) -> object:
    """Say what may stand for class weights where something else does."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"should be balanced, or a mapping of labels to weights, not {value!r}")
    for label, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 < weight < math.inf:
            raise ValueError(f"the weight of {label!r} should be a number above 0, not {weight!r}")
    return value


ClassWeights = Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(_label_weights)]


def known_task(name: str) -> str:
    """Return the name of a task of the table; pydantic reports where it is none."""
    try:
        return get_task(name).name
    except RequestError as error:
        raise ValueError(str(error)) from None


class ModelSection(Settings):
    """The pre-trained model.

    Attributes:
        name: Hub id, local folder, or ``minilm`` (from the ``demo`` extra).
        revision: Branch, tag or commit on the hub.
        init: ``pretrained``, or ``random``: the architecture alone.
        dropout: Hidden, attention and classifier dropout; None follows the method's rule.
    """

    name: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    dropout: Share | None = None


class FilesSection(Settings):
    """A user's own files: CSV, TSV, JSONL or Parquet."""

    train: Path
    validation: Path
    test: Path | None = None


class OwnTask(Settings):
    """A user's own task.

    Attributes:
        name: What it is called, for people: no part of what a run is. None takes the recipe's name.
        files: Where the splits lie.
        text: One or two text columns.
        label: The label column: strings or numbers.
        kind: ``classification``, ``regression``, or ``multilabel``: any number of labels an example, a list of them or
            one text with ``;`` between.
        metric: accuracy, f1, matthews or spearman; None takes accuracy, or spearman for regression. For several labels
            micro_f1 (the default), macro_f1 or subset_accuracy.
    """

    name: Annotated[str, Field(min_length=1)] | None = None
    files: FilesSection
    text: TextColumns
    label: str
    kind: Kind = "classification"
    metric: Literal["accuracy", "f1", "matthews", "spearman", "micro_f1", "macro_f1", "subset_accuracy"] | None = None

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str | None) -> str | None:
        if name is not None and ("/" in name or not name.strip()):  # it names files too, such as a transfer's scores
            raise ValueError(f"should be a name without slashes, not {name!r}")
        return name

    @model_validator(mode="after")
    def _metric_suits_the_kind(self) -> OwnTask:
        suits: Kind = "regression" if self.metric == "spearman" else "classification"
        if self.metric in MULTILABEL_METRICS:
            suits = "multilabel"
        if self.metric is not None and self.kind != suits:
            raise ValueError(f"metric {self.metric} does not suit a {self.kind} task")
        return self


class TableTask(Settings):
    """A task of the table whose place on the hub is another than the table's.

    Attributes:
        name: The task's name in the table.
        hub_id, hub_config, hub_revision: Dataset id, configuration, and branch, tag or commit.
        text: One or two text columns there.
        label: The label column there.
    """

    name: str
    hub_id: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    text: TextColumns | None = None
    label: str | None = None

    @field_validator("name")
    @classmethod
    def _is_in_the_table(cls, name: str) -> str:
        return known_task(name)


def task_name(task: str | TableTask | OwnTask) -> str:
    """Return what a task is called: in the table, or by its recipe.

    A user's own of which a run of an earlier dpstune wrote no name is called after its training file, or that file's
    folder.
    """
    if isinstance(task, OwnTask) and task.name is None:
        train = task.files.train
        return train.parent.name if train.stem == "train" else train.stem
    return task if isinstance(task, str) else str(task.name)


def task_kind(task: str | TableTask | OwnTask) -> Kind:
    """Return what a task asks for."""
    return get_task(task_name(task)).kind if isinstance(task, str | TableTask) else task.kind


def nameless(task: str | TableTask | OwnTask) -> str | TableTask | OwnTask:
    """Return a task without what only people call it: two recipes of the same files have the same task."""
    return task.model_copy(update={"name": None}) if isinstance(task, OwnTask) else task


class DataSection(Settings):
    """The examples.

    Attributes:
        dir: Local data; None reads the hub.
        train_size: A label-stratified subsample of the training split, drawn from the seed; None takes all.
        held_out: Training examples, label-stratified and the same for every seed, that are not trained on but evaluated
            in the validation split's place: what hyper-parameters are chosen by. None evaluates the validation split.
        max_length: Tokens an example is cut to.
    """

    dir: Path | None = None
    train_size: Count | None = None
    held_out: Count | None = None
    max_length: Annotated[int, Field(ge=4, strict=True)] = 128


class TrainingSection(Settings):
    """How the weights are trained.

    Attributes:
        batch_size: Examples a forward pass; a step sees batch_size x gradient_accumulation x processes.
        eval_batch_size: Examples a forward pass of an evaluation.
        gradient_accumulation: Forward passes a step.
        learning_rate: Peak rate.
        layerwise_lr_decay: Factor from each layer to the one below; None for one rate (Clark et al. 2020).
        schedule: After warmup.
        steps, epochs: Length of the run; exactly one (3 epochs).
        warmup_steps, warmup_ratio: Exactly one (ratio 0.1).
        weight_decay, adam_betas, adam_epsilon: AdamW; biases and normalisation weights are not decayed.
        max_grad_norm: Gradients are clipped to this norm.
        label_smoothing: Share of each label that is given to all labels alike; for classification.
        class_weights: ``balanced`` (each label weighs examples / (labels * its examples), of those trained on), or a
            weight by label, 1 where none is given; None weighs all the same. For classification.
        precision: ``auto`` is bf16 where the device computes it natively, fp16 on other GPUs, fp32 elsewhere.
        batching: ``random`` or ``bucketed`` (similar lengths together).
        keep: The weights a run ends with: the ``last``, or the ``best`` evaluation's by the headline metric.
        patience: Evaluations without a better headline after which the run ends; None trains to the last step.
        eval_every, save_every: In steps; None evaluates each epoch, and saves at the end and on a signal.
        gradient_checkpointing: Recompute activations in the backward pass.
        compile: Compile the model.
    """

    batch_size: Count = 16
    eval_batch_size: Count = 64
    gradient_accumulation: Count = 1
    learning_rate: Positive = 2e-5
    layerwise_lr_decay: Decay | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    steps: Count | None = None
    epochs: Annotated[Epochs | None, Field(validate_default=True)] = None
    warmup_steps: CountOrZero | None = None
    warmup_ratio: Annotated[Share | None, Field(validate_default=True)] = None
    weight_decay: PositiveOrZero = 0.01
    adam_betas: tuple[Share, Share] = (0.9, 0.999)
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    label_smoothing: Share = 0.0
    class_weights: ClassWeights = None
    keep: Literal["last", "best"] = "last"
    patience: Count | None = None
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    batching: Literal["random", "bucketed"] = "random"
    eval_every: Count | None = None
    save_every: Count | None = None
    gradient_checkpointing: Switch = False
    compile: Switch = False

    @field_validator("epochs", "warmup_ratio")
    @classmethod
    def _exactly_one_of_each_pair(cls, value: float | None, info: ValidationInfo) -> float | None:
        other, default = {"epochs": ("steps", 3.0), "warmup_ratio": ("warmup_steps", 0.1)}[info.field_name or ""]
        if info.data.get(other) is None:
            return default if value is None else value
        if value is not None:
            raise ValueError(f"{other} and {info.field_name} are both given; keep one")
        return None
