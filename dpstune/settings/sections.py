"""The sections of a recipe: their keys, ranges and defaults."""

from __future__ import annotations

import glob
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dpstune.common.textfile import known_encoding
from dpstune.errors import RequestError
from dpstune.settings.base import Settings
from dpstune.settings.metrics import METRICS, check_metrics, listed_metrics
from dpstune.settings.tasks import Kind, get_task

# Strict: neither `true` nor a number in quotes is a number.
Switch = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Epochs = Annotated[float, Field(gt=0.0, le=10**6, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0.0, strict=True)]
PositiveOrZero = Annotated[float, Field(ge=0.0, strict=True)]
Share = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
Decay = Annotated[float, Field(gt=0.0, le=1.0, strict=True)]
FEWEST_TOKENS = 4
"""The fewest that an example is cut to."""
_OneOrTwo = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=2)]


def _listed(value: object) -> object:
    """Turn one column's name into a list; refuse what is neither a name nor a list."""
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"should be a column, or a list of one or two, not {value!r}")
    return [value] if isinstance(value, str) else value


TextColumns = Annotated[_OneOrTwo, BeforeValidator(_listed, json_schema_input_type=str | _OneOrTwo)]


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _share(value: Any) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"should be a share of the rows: 0, or between 0 and 1 such as 0.2, not {value!r}")
    return float(value)


def _files(value: object) -> Path | tuple[Path, ...]:
    """Take a path, or a list of them."""
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed or not all(isinstance(each, str | Path) and str(each) for each in listed):
        raise ValueError(f"should be a file, a list of files or a pattern such as part-*.csv, not {value!r}")
    return tuple(map(Path, listed)) if isinstance(value, list | tuple) else Path(str(value))


def _split_name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"should be the name of a split of the dataset, not {value!r}")
    return value


def _files_or_share(value: object) -> Path | tuple[Path, ...] | float:
    return _share(value) if _is_share(value) else _files(value)


def _split_or_share(value: object) -> str | float:
    return _share(value) if _is_share(value) else _split_name(value)


Files = Annotated[Path | tuple[Path, ...], BeforeValidator(_files, json_schema_input_type=str | list[str])]
FilesOrShare = Annotated[
    Path | tuple[Path, ...] | float,
    BeforeValidator(_files_or_share, json_schema_input_type=str | list[str] | float),
]
SplitName = Annotated[str, BeforeValidator(_split_name, json_schema_input_type=str)]
SplitOrShare = Annotated[str | float, BeforeValidator(_split_or_share, json_schema_input_type=str | float)]


def _left_out(value: object) -> bool:
    """Tell a key that has nothing to say: it is not written, as by a dpstune that did not know it."""
    return value is None or value == 0


def _known_metrics(value: object) -> object:
    """Check the names of one metric or several; a list of one is that one."""
    if value is None:
        return None
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"should be a metric, or a list of them, not {value!r}")
    names = _with_its_kind([value] if isinstance(value, str) else [str(name) for name in value])
    return names[0] if len(names) == 1 else names


def _with_its_kind(names: Sequence[str], kind: Kind | None = None) -> tuple[str, ...]:
    try:
        return check_metrics(names, kind)
    except RequestError as error:
        raise ValueError(str(error)) from None


_MetricName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(METRICS)})]
_InAFile = _MetricName | list[_MetricName] | None
MetricNames = Annotated[str | tuple[str, ...] | None, BeforeValidator(_known_metrics, json_schema_input_type=_InAFile)]


def _label(value: object) -> object:
    """Take a label that YAML reads as a whole number for its text; refuse one that it reads as a truth value."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is a truth value, not a label; put quotes around the label")
    return str(value) if isinstance(value, int) else value


def _label_weights(value: object) -> object:
    """Say what may stand for class weights where something else does."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"should be balanced, or a mapping of labels to weights, not {value!r}")
    for label, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 < weight < math.inf:
            raise ValueError(f"the weight of {label!r} should be a number above 0, not {weight!r}")
    return {_label(label): weight for label, weight in value.items()}


ClassWeights = Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(_label_weights)]


def known_task(name: str) -> str:
    """Return ``name`` if it is a task of the table, else raise ValueError, which pydantic reports."""
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


class Parts(Settings):
    """What is trained on, and what that is evaluated on: places that hold it, or shares of the training rows.

    Attributes:
        train: Where the training rows lie.
        validation: Where what is evaluated during training lies; or its share of the training rows; 0 for none.
        test: The same of what is evaluated at the end; None for none.
        folds: The training rows that no other share takes are cut into so many parts, of which one is ``validation``.
        fold: Which of them, from 1 on; None for the first.
    """

    train: Any
    validation: Any = None
    test: Any = None
    folds: Annotated[int | None, Field(ge=2, le=10**6, strict=True, exclude_if=_left_out)] = None
    fold: Annotated[int | None, Field(ge=1, strict=True, exclude_if=_left_out)] = None

    @field_validator("test")
    @classmethod
    def _shares_leave_something(cls, test: Any, info: ValidationInfo) -> Any:
        validation = info.data.get("validation")
        if _is_share(test) and _is_share(validation) and test + validation >= 1:
            raise ValueError(f"{test:g} and validation's {validation:g} leave nothing to train on")
        return test

    @field_validator("folds")
    @classmethod
    def _folds_stand_for_validation(cls, folds: int | None, info: ValidationInfo) -> int | None:
        if folds is not None and info.data.get("validation") is not None:
            raise ValueError("validation and folds are both given; keep one")
        return folds

    @field_validator("fold")
    @classmethod
    def _is_one_of_the_folds(cls, fold: int | None, info: ValidationInfo) -> int | None:
        folds = info.data.get("folds")
        if fold is not None and "folds" in info.data and fold > (folds or 0):
            raise ValueError(f"there are {folds} folds, not {fold}" if folds else "says which of the folds; give folds")
        return fold

    @model_validator(mode="after")
    def _something_is_evaluated(self) -> Parts:
        if self.validation is None and self.folds is None:
            raise ValueError("key 'validation' is missing: a place, a share such as 0.2, 0 for none; or give folds: 5")
        return self

    def place(self, split: str) -> Any:
        """Return where a split lies; None where it is drawn from the training rows, or there is none."""
        given = getattr(self, split)
        return None if _is_share(given) else given

    def share(self, split: str) -> float:
        """Return which share of the training rows a split takes; 0 where it lies in a place of its own."""
        given = getattr(self, split)
        return float(given) if _is_share(given) else 0.0

    @property
    def are_drawn(self) -> bool:
        """Whether any split is drawn from the training rows."""
        return self.folds is not None or any(self.share(split) > 0 for split in ("validation", "test"))

    @property
    def names(self) -> tuple[str, ...]:
        """The splits there are."""
        there = {
            "train": True,
            "validation": self.folds is not None or self.validation != 0,
            "test": self.test is not None and self.test != 0,
        }
        return tuple(name for name, is_there in there.items() if is_there)


class FilesSection(Parts):
    """A user's own files: CSV, TSV, JSONL, JSON, Parquet or Excel; each a path, a list of paths, or a pattern."""

    train: Files
    validation: FilesOrShare | None = None
    test: FilesOrShare | None = None


class SplitsSection(Parts):
    """The splits of a dataset on the hub, by its own names."""

    train: SplitName
    validation: SplitOrShare | None = None
    test: SplitOrShare | None = None


class UserTask(Settings):
    """A user's own task, wherever it lies.

    Attributes:
        name: What it is called, for people: no part of what a run is. None takes the recipe's name.
        text: One or two text columns.
        label: The label column: strings or numbers.
        kind: ``classification``, ``regression``, or ``multilabel``: any number of labels an example, a list of them or
            one text with ``;`` between.
        metric: A metric that suits the kind, or a list, the headline first; None takes accuracy, spearman for
            regression, micro_f1 for several labels.
        group: A column; rows that have the same in it are drawn into the same part.
        split_seed: What parts of the training rows are drawn from; the same for every run seed.
        positive: Of two labels, that of which ``f1`` and ``roc_auc`` are; None for the one that sorts second.
    """

    name: Annotated[str, Field(min_length=1)] | None = None
    text: TextColumns
    label: str
    kind: Kind = "classification"
    metric: MetricNames = None
    group: Annotated[str | None, Field(min_length=1, exclude_if=_left_out)] = None
    split_seed: Annotated[int, Field(ge=0, strict=True, exclude_if=_left_out)] = 0
    positive: Annotated[str | None, BeforeValidator(_label), Field(exclude_if=_left_out)] = None

    @field_validator("positive")
    @classmethod
    def _is_one_of_two_classes(cls, positive: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind", "classification")
        if positive is not None and kind != "classification":
            raise ValueError(f"is one of the two labels of a classification task; this one is {kind}")
        return positive

    @field_validator("name")
    @classmethod
    def _is_no_path(cls, name: str | None) -> str | None:
        if name is not None and ("/" in name or not name.strip()):  # it names files too, such as a transfer's scores
            raise ValueError(f"should be a name without slashes, not {name!r}")
        return name

    @model_validator(mode="after")
    def _metric_suits_the_kind(self) -> UserTask:
        if self.metric is not None:
            _with_its_kind(listed_metrics(self.metric, ""), self.kind)
        return self

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """What is trained on, and what that is evaluated on."""


class OwnTask(UserTask):
    """A user's own task in files.

    Attributes:
        files: Where the splits lie.
        encoding: What the files are in, unless a byte-order mark says otherwise; None for UTF-8.
    """

    files: FilesSection
    encoding: Annotated[str | None, Field(exclude_if=_left_out)] = None

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        try:
            return None if encoding is None else known_encoding(encoding)
        except RequestError as error:
            raise ValueError(str(error)) from None

    @property
    def parts(self) -> FilesSection:
        """The files."""
        return self.files


class DatasetTask(UserTask):
    """A dataset of the hub that the table of tasks does not know.

    Attributes:
        dataset: Its id, or a local folder that holds it as the hub would.
        config: Its configuration.
        revision: Branch, tag or commit.
        splits: Its splits.
    """

    dataset: Annotated[str, Field(min_length=1)]
    config: str | None = None
    revision: str | None = None
    splits: SplitsSection

    @property
    def parts(self) -> SplitsSection:
        """The splits."""
        return self.splits


class TableTask(Settings):
    """A task of the table that is read from another place on the hub, or measured by other metrics.

    Attributes:
        name: The task's name in the table.
        hub_id: The dataset's id.
        hub_config: Its configuration.
        hub_revision: Branch, tag or commit.
        text: One or two text columns there.
        label: The label column there.
        metric: Other metrics than the table's, the headline first.
    """

    name: str
    hub_id: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    text: TextColumns | None = None
    label: str | None = None
    metric: Annotated[MetricNames, Field(exclude_if=_left_out)] = None

    @field_validator("name")
    @classmethod
    def _is_in_the_table(cls, name: str) -> str:
        return known_task(name)

    @model_validator(mode="after")
    def _metric_suits_the_kind(self) -> TableTask:
        if self.metric is not None:
            _with_its_kind(listed_metrics(self.metric, ""), get_task(self.name).kind)
        return self

    @property
    def moved(self) -> bool:
        """Whether it lies in another place on the hub than the table's."""
        return any((self.hub_id, self.hub_config, self.hub_revision, self.text, self.label))


AnyTask = str | TableTask | OwnTask | DatasetTask
"""A recipe's task: a name of the table, a table task somewhere else on the hub, or a user's own."""


def task_name(task: AnyTask) -> str:
    """Return what a task is called: in the table, or by its recipe.

    A user's own without a name, such as that of a run of an earlier dpstune, is called after its training file, or
    that file's folder; or after its dataset.
    """
    if isinstance(task, UserTask) and task.name is not None:
        return task.name
    if isinstance(task, OwnTask):
        train = task.files.train if isinstance(task.files.train, Path) else task.files.train[0]
        return train.parent.name if train.stem == "train" or glob.has_magic(train.name) else train.stem
    if isinstance(task, DatasetTask):
        return task.dataset.rstrip("/").rpartition("/")[2]
    return task if isinstance(task, str) else task.name


def task_kind(task: AnyTask) -> Kind:
    """Return what a task asks for."""
    return task.kind if isinstance(task, UserTask) else get_task(task_name(task)).kind


def nameless(task: AnyTask) -> AnyTask:
    """Return a task without what only people call it: two recipes of the same files have the same task."""
    return task.model_copy(update={"name": None}) if isinstance(task, UserTask) else task


def same_task(one: AnyTask, other: AnyTask) -> bool:
    """Tell whether two tasks are one, however they are scored.

    Users' own are compared by all but their names, since several may have one; others by name.
    """
    if isinstance(one, UserTask) or isinstance(other, UserTask):
        return _unscored(one) == _unscored(other)
    return task_name(one) == task_name(other)


def _unscored(task: AnyTask) -> AnyTask:
    scored = {"name": None, "metric": None, "positive": None}
    return task.model_copy(update=scored) if isinstance(task, UserTask) else task


def same_training_table(one: AnyTask, other: AnyTask) -> bool:
    """Tell whether two tasks have their training rows from one place, however these are cut and scored."""
    if isinstance(one, UserTask) and isinstance(other, UserTask):
        return _training_table(one) == _training_table(other)
    return same_task(one, other)


def _training_table(task: UserTask) -> list[object]:
    dataset = [task.dataset, task.config, task.revision] if isinstance(task, DatasetTask) else []
    return [*dataset, task.kind, task.parts.train, task.text, task.label]


class DataSection(Settings):
    """The examples.

    Attributes:
        dir: Local data; None reads the hub, and files of one's own from beside the recipe.
        train_size: A label-stratified subsample of the training split, drawn from the seed; None takes all.
        held_out: How many training examples to choose settings by: label-stratified and the same for every seed. They
            are not trained on, but evaluated instead of the validation split. None evaluates the validation split.
        max_length: A longer example is cut to this many tokens.
    """

    dir: Path | None = None
    train_size: Count | None = None
    held_out: Count | None = None
    max_length: Annotated[int, Field(ge=FEWEST_TOKENS, strict=True)] = 128


class TrainingSection(Settings):
    """How the weights are trained.

    Attributes:
        batch_size: Most examples of a batch; a step sees batch_size x gradient_accumulation x processes.
        eval_batch_size: Examples per forward pass of an evaluation.
        gradient_accumulation: How many batches a process computes for one step.
        learning_rate: Peak rate.
        layerwise_lr_decay: Factor of the rate from each layer to the one below; None for one rate (Clark et al. 2020).
        schedule: How the rate changes after warmup.
        steps, epochs: Length of the run; one of the two (3 epochs by default).
        warmup_steps, warmup_ratio: Length of warmup; one of the two (a ratio of 0.1 by default).
        weight_decay: AdamW's; biases and normalisation weights are not decayed.
        adam_betas, adam_epsilon: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        label_smoothing: Share of each label that is given to all labels alike; for classification.
        class_weights: ``balanced`` (each label weighs examples / (labels * its examples), of those trained on), or a
            weight by label, 1 where none is given; None weighs all the same. For classification.
        standardise: Train on (value - mean) / standard deviation of the training values; the finished model predicts
            values as they were. For regression.
        precision: ``auto`` is bf16 where the device computes it natively (on a CPU not for models narrower than 128),
            fp16 on other GPUs, fp32 elsewhere.
        batching: ``random`` or ``bucketed`` (similar lengths together).
        keep: The weights a run ends with: the ``last``, or the ``best`` evaluation's by the headline metric.
        patience: Evaluations without a better headline after which the run ends; None trains to the last step.
        eval_every: Steps from one evaluation to the next; None evaluates after each epoch.
        save_every: Steps from one checkpoint to the next; None saves at the end and on a signal.
        gradient_checkpointing: Recompute activations in the backward pass.
        compile: Compile the model.
        trackers: Where curves are shown while it trains: ``tensorboard``, ``wandb``, ``mlflow``, or ``[]``; None is
            TensorBoard where it is installed.
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
    standardise: Switch = False
    keep: Literal["last", "best"] = "last"
    patience: Count | None = None
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    batching: Literal["random", "bucketed"] = "random"
    eval_every: Count | None = None
    save_every: Count | None = None
    gradient_checkpointing: Switch = False
    compile: Switch = False
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] | None = None

    @field_validator("epochs", "warmup_ratio")
    @classmethod
    def _exactly_one_of_each_pair(cls, value: float | None, info: ValidationInfo) -> float | None:
        other, default = {"epochs": ("steps", 3.0), "warmup_ratio": ("warmup_steps", 0.1)}[info.field_name or ""]
        if info.data.get(other) is None:
            return default if value is None else value
        if value is not None:
            raise ValueError(f"{other} and {info.field_name} are both given; keep one")
        return None
