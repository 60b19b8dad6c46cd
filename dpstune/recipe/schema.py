"""The settings of a run: what a recipe may say, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from dpstune.errors import RequestError
from dpstune.methods import REGISTRY, is_foreign, keys_schema, method_class
from dpstune.methods.base import MethodConfig
from dpstune.settings.base import Settings, check_settings
from dpstune.settings.sections import (
    AnyTask,
    CountOrZero,
    DataSection,
    DatasetTask,
    ModelSection,
    OwnTask,
    TableTask,
    TrainingSection,
    known_task,
    task_kind,
)
from dpstune.settings.tasks import TASKS

DEFAULT_METHOD = "dps-dense"


class _AnyMethod(MethodConfig):
    """Checks a method whose name is missing or unknown, to report that and nothing else."""

    model_config = ConfigDict(extra="ignore")

    @field_validator("name")
    @classmethod
    def _is_in_the_registry(cls, name: str) -> str:
        try:
            method_class(name)
        except RequestError as error:
            raise ValueError(str(error)) from None
        return name


class UnknownMethod(MethodConfig):
    """A method that is not known here, of a run that was trained elsewhere: its model can be used all the same."""

    model_config = ConfigDict(extra="allow")


class Recipe(Settings):
    """Everything that changes a run's result.

    Attributes:
        model: The pre-trained model.
        task: A name of the table, a table task somewhere else on the hub, or a user's own task.
        data: The examples.
        method: The method's name and its own keys.
        training: How the weights are trained.
        seed: All random draws come from it: head initialisation, data order, dropout, masks.
    """

    model: ModelSection
    task: AnyTask
    data: DataSection = DataSection()
    method: SerializeAsAny[MethodConfig] = Field(default={"name": DEFAULT_METHOD}, validate_default=True)
    training: TrainingSection = TrainingSection()
    seed: CountOrZero = 42

    @field_validator("task", mode="before")
    @classmethod
    def _read_task(cls, value: Any) -> Any:
        if isinstance(value, str):
            return known_task(value)
        if isinstance(value, Mapping):
            return check_settings(task_schema(value), value, place="task")
        if isinstance(value, Settings):
            return value
        raise ValueError("should be a task's name, or a mapping of files (or dataset and splits), text and label")

    @field_validator("method", mode="before")
    @classmethod
    def _read_method(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping):
            return check_settings(method_schema(value), value, place="method")
        return value

    @field_validator("method")
    @classmethod
    def _method_suits_the_task(cls, method: MethodConfig, info: ValidationInfo) -> MethodConfig:
        task = info.data.get("task")
        several = task is not None and task_kind(task) == "multilabel"
        known = () if isinstance(method, UnknownMethod) else method.names
        unserved = [name for name in known if not method_class(name).serves_several_labels]
        if several and unserved:
            raise ValueError(
                f"{unserved[0]} compares one distribution an example, and a multilabel task has one a label; "
                "choose another method"
            )
        return method

    @field_validator("training")
    @classmethod
    def _loss_suits_the_task(cls, training: TrainingSection, info: ValidationInfo) -> TrainingSection:
        task = info.data.get("task")
        if task is None:
            return training
        unsuited, why = ["standardise"], "is for regression, and the task has labels"
        if task_kind(task) == "regression":
            unsuited, why = ["label_smoothing", "class_weights"], "is for labels, and the task is regression"
        for key in unsuited:
            if getattr(training, key):
                raise ValueError(f"{key} {why}")
        return training


def run_method_schema(values: Mapping[str, Any]) -> type[Settings]:
    """Return ``method_schema`` of a method that trained a run.

    One of another package, or of an average over it, need not be known here, nor have the keys it had.
    """
    wrapped = values.get("of")
    names = [values.get("name", DEFAULT_METHOD), *([wrapped.get("name")] if isinstance(wrapped, Mapping) else [])]
    if all(isinstance(name, str) and name in REGISTRY and not is_foreign(name) for name in names):
        return method_schema(values)
    try:
        schema = method_schema(values)
        schema.model_validate(values)
    except (RequestError, ValidationError):
        return UnknownMethod
    return schema


def task_schema(values: Mapping[str, Any]) -> type[Settings]:
    """Return the class of a task's settings, by the keys that are given."""
    if "dataset" in values or "splits" in values:
        return DatasetTask
    if "name" not in values or "files" in values:
        return OwnTask
    # Both kinds have columns, and elsewhere on the hub lies a task of the table alone.
    has_columns = not values.keys().isdisjoint(("text", "label"))
    is_elsewhere = not values.keys().isdisjoint(("hub_id", "hub_config", "hub_revision"))
    return OwnTask if has_columns and not is_elsewhere and values["name"] not in list(TASKS) else TableTask


def method_schema(values: Mapping[str, Any]) -> type[Settings]:
    """Return the class of a method's settings, by its name; that of an unknown one only says so."""
    name = values.get("name", DEFAULT_METHOD)
    return method_class(name).config_class if isinstance(name, str) and name in REGISTRY else _AnyMethod


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, for editors, with every method's own keys."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    definitions.pop("MethodConfig", None)
    variants: list[dict[str, Any]] = [{"type": "string", "enum": list(REGISTRY)}]
    for name in REGISTRY:
        try:
            config = keys_schema(name)
        except RequestError:  # another package's, which cannot be imported or shown
            if not is_foreign(name):
                raise
            continue
        if name != DEFAULT_METHOD:
            config["required"] = ["name"]
        if config.pop("$defs", None) is not None:  # it wraps a method
            _offer(config["properties"]["of"], variants)
        title = name if is_foreign(name) else config["title"]  # two packages may call their classes alike
        definitions[title] = config
        variants.append({"$ref": f"#/$defs/{title}"})
    _offer(schema["properties"]["method"], variants)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "dpstune recipe"
    return schema


def _offer(key: dict[str, Any], variants: list[dict[str, Any]]) -> None:
    """Let a key of a schema, which allows any method's name alone, take one of several schemas."""
    del key["$ref"]
    key["anyOf"] = variants
