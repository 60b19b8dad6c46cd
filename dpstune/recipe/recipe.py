"""Recipes, the settings of a run: their schema; how one is loaded, overridden and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from dpstune.common.textfile import read_text
from dpstune.errors import RequestError, did_you_mean, shortened
from dpstune.methods import REGISTRY, method_class, without_newer_keys
from dpstune.methods.base import MethodConfig
from dpstune.recipe.yaml_text import KeyPath, is_yaml_file, read_mapping, read_value, write_mapping
from dpstune.settings.base import Settings, check_settings, first_problem, listed
from dpstune.settings.sections import (
    AnyTask,
    CountOrZero,
    DataSection,
    DatasetTask,
    FilesSection,
    ModelSection,
    OwnTask,
    TableTask,
    TrainingSection,
    UserTask,
    known_task,
    task_kind,
    task_name,
)
from dpstune.settings.tasks import TASKS

__all__ = [
    "DataSection",
    "DatasetTask",
    "FilesSection",
    "LoadedRecipe",
    "ModelSection",
    "OwnTask",
    "Recipe",
    "TableTask",
    "TrainingSection",
    "build_recipe",
    "describe_recipe",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "recipe_schema",
    "shipped_folder",
    "shipped_recipes",
    "split_override",
    "summarize_recipe",
]

DEFAULT_METHOD = "dps-dense"


class _AnyMethod(MethodConfig):
    """Checks a method whose name is missing or unknown, to report that."""

    @field_validator("name")
    @classmethod
    def _is_in_the_registry(cls, name: str) -> str:
        try:
            method_class(name)
        except RequestError as error:
            raise ValueError(str(error)) from None
        return name


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
            return check_settings(_task_schema(value), value, place="task")
        if isinstance(value, Settings):
            return value
        raise ValueError("should be a task's name, or a mapping of files (or dataset and splits), text and label")

    @field_validator("method", mode="before")
    @classmethod
    def _read_method(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping):
            return check_settings(_method_schema(value), value, place="method")
        return value

    @field_validator("method")
    @classmethod
    def _method_suits_the_task(cls, method: MethodConfig, info: ValidationInfo) -> MethodConfig:
        task = info.data.get("task")
        several = task is not None and task_kind(task) == "multilabel"
        unserved = [name for name in method.names if not method_class(name).serves_several_labels]
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
        if task is not None and task_kind(task) == "regression":
            for key in ("label_smoothing", "class_weights"):
                if getattr(training, key):
                    raise ValueError(f"{key} is for labels, and the task is regression")
        return training


def _task_schema(values: Mapping[str, Any]) -> type[Settings]:
    if "dataset" in values or "splits" in values:
        return DatasetTask
    if "name" not in values or "files" in values:
        return OwnTask
    # Both kinds have columns, and elsewhere on the hub lies a task of the table alone.
    has_columns = not values.keys().isdisjoint(("text", "label"))
    is_elsewhere = not values.keys().isdisjoint(("hub_id", "hub_config", "hub_revision"))
    return OwnTask if has_columns and not is_elsewhere and values["name"] not in list(TASKS) else TableTask


def _method_schema(values: Mapping[str, Any]) -> type[Settings]:
    name = values.get("name", DEFAULT_METHOD)
    return method_class(name).config_class if isinstance(name, str) and name in REGISTRY else _AnyMethod


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and where it came from.

    Args:
        name: The name of its file without the ending; its runs' folder is called so.
        recipe: The recipe, checked.
        source: Its file.
    """

    name: str
    recipe: Recipe
    source: Path


def load_recipe(
    name_or_file: str,
    *,
    method: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, str] = MappingProxyType({}),
    seed: int | None = None,
    data_dir: Path | None = None,
) -> LoadedRecipe:
    """Load a recipe that ships with dpstune, or a file, and override its keys.

    Args:
        name_or_file: A shipped recipe's name or a YAML file.
        method: Another method, with its default settings; the recipe's own method keeps the recipe's settings.
        overrides: ``a.b=value`` each, value read as YAML; applied after ``method``. To override one of a pair, such as
            steps and epochs, removes the recipe's other one.
        flags: The flag to name in errors, by the text of the override; ``--set`` for overrides that are not in it.
        seed: Another seed.
        data_dir: Where local data lies.

    Returns:
        The checked recipe; a user's own task without a name has the recipe's. All its paths are absolute. A path in the
        file is relative to the recipe's folder, but the task's files are relative to ``data.dir`` where that is given.
        A path in an override is relative to the working directory.

    Raises:
        RequestError: There is no such recipe, or something in it is wrong: file, line and key are named.

    >>> load_recipe("demo", overrides=["training.epochs=1"]).recipe.training.steps is None
    True
    """
    source = find_recipe(name_or_file)
    return _finish(_Draft.read(source), source.stem, method, overrides, flags, seed, data_dir)


def build_recipe(
    values: Mapping[str, Any],
    *,
    name: str,
    source: Path | None = None,
    method: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> LoadedRecipe:
    """Build a recipe from plain values, as a file would hold them.

    Args:
        values: Sections and keys.
        name: What it is called; runs are kept under it.
        source: The file they come from, to whose folder paths are relative; None for the working directory.
        method, overrides, seed: See ``load_recipe``.

    Raises:
        RequestError: Something in it is wrong: the key is named.

    >>> build_recipe({"model": {"name": "minilm"}, "task": "toy-nli"}, name="mine").recipe.training.batch_size
    16
    """
    return _finish(_Draft(source or Path(name), deepcopy(dict(values)), {}), name, method, overrides, {}, seed, None)


def _finish(
    draft: _Draft,
    name: str,
    method: str | None,
    overrides: Sequence[str],
    flags: Mapping[str, str],
    seed: int | None,
    data_dir: Path | None,
) -> LoadedRecipe:
    """Override a draft's keys and check it; see ``load_recipe``."""
    if method is not None:
        draft.switch_method(method, f"--method {method}")
    for override in overrides:
        draft.override(override, flags.get(override, f"--set {shortened(override)}"))
    if seed is not None:
        draft.set(("seed",), seed, f"--seed {seed}")
    if data_dir is not None:
        told = draft.flag_of(("data", "dir"))
        if told is not None:
            raise RequestError(f"--data-dir {data_dir} and {told} set the same key; give one of them")
        draft.set(("data", "dir"), str(data_dir.absolute()), f"--data-dir {data_dir}")
    draft.make_paths_absolute()
    recipe = draft.check()
    draft.refuse_a_task_name_for_no_file(recipe)
    return LoadedRecipe(name, _with_a_named_task(recipe, name), draft.source)


def _with_a_named_task(recipe: Recipe, name: str) -> Recipe:
    """Call a user's own task after its recipe, unless it has a name."""
    if not isinstance(recipe.task, UserTask) or recipe.task.name is not None:
        return recipe
    return recipe.model_copy(update={"task": recipe.task.model_copy(update={"name": name})})


# Keys that a method got later, with the value that describes what it did before.
_BEFORE_IT_WAS_A_KEY: dict[str, dict[str, Any]] = {"r3f": {"detach": False}}


def load_run_recipe(file: Path) -> Recipe:
    """Load the recipe that a run wrote into its folder.

    A run writes out every default. If a key is missing, the dpstune that trained the run did not know it. The key then
    has the value that the run trained with, even if the default is another one now.

    Args:
        file: ``recipe.yaml`` in a run's folder.

    Raises:
        RequestError: There is no such file, or something in it is wrong.
    """
    draft = _Draft.read(find_recipe(str(file)))
    method = draft.values.get("method")
    if isinstance(method, dict):
        draft.values["method"] = {**_BEFORE_IT_WAS_A_KEY.get(str(method.get("name")), {}), **method}
    draft.make_paths_absolute()
    return draft.check()


def refuse_told_twice(overrides: Sequence[str], flags: Mapping[str, str | None]) -> None:
    """Refuse a key that both ``--set`` and the key's own flag give.

    Args:
        overrides: What ``--set`` gave.
        flags: Keys that have their own flag, each with the flag as it was written; None where it was not given.

    Raises:
        RequestError: A key is given twice.

    >>> refuse_told_twice(["training.epochs=3"], {"seed": "--seed 3", "method": None})
    """
    for override in overrides:
        flag = flags.get(split_override(override)[0])
        if flag is not None:
            raise RequestError(f"{flag} and --set {shortened(override)} set the same key; give one of them")


def split_override(override: str) -> tuple[str, str | None]:
    """Split ``KEY=VALUE`` into the dotted key and the value's text; None where there is no ``=``.

    >>> split_override("training.steps = 5")
    ('training.steps', ' 5')
    """
    key, equals, text = override.partition("=")
    return key.strip(), text if equals else None


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with dpstune, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}


def shipped_folder() -> Path:
    """Return the folder of shipped recipes: inside the installed package, or beside the package in a checkout."""
    installed = Path(__file__).parent.parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def may_be_a_recipe(name: str) -> bool:
    """Return whether a name is that of a shipped recipe, or ends as a YAML file's does."""
    return name in shipped_recipes() or is_yaml_file(name)


def find_recipe(name_or_file: str) -> Path:
    """Return the file of a recipe.

    Raises:
        RequestError: It is neither a shipped recipe nor a file; the nearest name is offered.
    """
    shipped = shipped_recipes()
    if name_or_file in shipped:
        return shipped[name_or_file]
    path = Path(os.path.expanduser(name_or_file))
    if not name_or_file.strip():
        raise RequestError("a recipe's name is empty; `dpstune recipes list` shows them all")
    if os.path.isdir(path):  # unlike Path's methods, os.path's take a name of any length
        raise RequestError(f"{name_or_file} is a folder; a recipe is a YAML file")
    if os.path.exists(path):
        return path
    hint = did_you_mean(path.stem, shipped) or "; `dpstune recipes list` shows them all"
    raise RequestError(f"no recipe and no file is called {name_or_file!r}{hint}")


def paths_lead_elsewhere(source: Path, copy: Path) -> bool:
    """Return whether a recipe has relative paths that would lead elsewhere from a copy of it.

    Args:
        source: The recipe's file.
        copy: Where its copy is to lie.

    Raises:
        RequestError: It lies in another folder, and ``source`` cannot be read as a recipe.
    """
    if os.path.realpath(source.parent) == os.path.realpath(copy.parent):
        return False
    here = _Draft.read(source)
    there = _Draft(copy, deepcopy(here.values), {})
    here.make_paths_absolute()
    there.make_paths_absolute()
    return here.values != there.values


def describe_recipe(source: Path) -> str:
    """Return a recipe's description: the first line of its opening comment, empty if there is none.

    >>> describe_recipe(find_recipe("roberta-rte"))
    'RoBERTa-large on RTE. Zhang et al. 2022, Appendix C, Table 2.'
    """
    line = read_text(source).partition("\n")[0]
    return line.lstrip("# ") if line.startswith("#") else ""


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML that loads back to the same recipe; every key that has a value is written."""
    return write_mapping(recipe.model_dump(mode="json", exclude_none=True))


def summarize_recipe(recipe: Recipe) -> str:
    """Return what a recipe asks for, in one line.

    >>> summarize_recipe(load_recipe("roberta-rte").recipe)
    'FacebookAI/roberta-large on rte, dps-dense (p 0.3, update_ratio 0.05), 2036 steps of 16 examples, seed 42'
    """
    training = recipe.training
    settings = listed(without_newer_keys(recipe.method.model_dump()))
    method = f"{recipe.method.name} ({settings})" if settings else recipe.method.name
    examples = training.batch_size * training.gradient_accumulation
    length = f"{training.steps} steps" if training.steps is not None else f"{training.epochs:g} epochs in steps"
    subject = f"{recipe.model.name} on {task_name(recipe.task)}"
    return f"{subject}, {method}, {length} of {examples} examples, seed {recipe.seed}"


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, for editors, with every method's own keys."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    definitions.pop("MethodConfig", None)
    variants: list[dict[str, Any]] = [{"type": "string", "enum": list(REGISTRY)}]
    for name in REGISTRY:
        config = method_class(name).config_class.model_json_schema()
        if name != DEFAULT_METHOD:
            config["required"] = ["name"]
        if config.pop("$defs", None) is not None:  # it wraps a method
            _offer(config["properties"]["of"], variants)
        definitions[config["title"]] = config
        variants.append({"$ref": f"#/$defs/{config['title']}"})
    _offer(schema["properties"]["method"], variants)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "dpstune recipe"
    return schema


def _offer(key: dict[str, Any], variants: list[dict[str, Any]]) -> None:
    """Let a key of a schema, which allows any method's name alone, take one of several schemas."""
    del key["$ref"]
    key["anyOf"] = variants


S = TypeVar("S", bound=Settings)

_PARTS = ("files", "splits")  # the sections of a user's own task that say where its splits are

# Keys, and those that give way when they are overridden.
_PAIRS: dict[KeyPath, tuple[KeyPath, ...]] = {
    **{
        ("training", key): (("training", other),)
        for pair in (("steps", "epochs"), ("warmup_steps", "warmup_ratio"))
        for key, other in (pair, pair[::-1])
    },
    **{("task", parts, "validation"): (("task", parts, "folds"), ("task", parts, "fold")) for parts in _PARTS},
    **{("task", parts, "folds"): (("task", parts, "validation"),) for parts in _PARTS},
}
_SECTIONS = ("model", "data", "method", "training")
_PLACES = ("train", "validation", "test")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST_TASK_NAME = 200  # bytes: of the 255 that a file's name may have, the rest is for what is written around it


class _Draft:
    """A recipe's plain values before they are checked, and where each was given.

    Args:
        source: The recipe's file.
        values: Its values.
        places: ``file:line`` or the flag of each key.
    """

    def __init__(self, source: Path, values: dict[str, Any], places: dict[KeyPath, str]) -> None:
        self.source, self.values, self.places = source, values, places
        for section in _SECTIONS:
            if section in values and values[section] is None:  # a section whose keys are all left out
                del values[section]
        if isinstance(values.get("method"), str):
            values["method"] = {"name": values["method"]}

    @classmethod
    def read(cls, source: Path) -> _Draft:
        values, lines = read_mapping(source)
        return cls(source, values, {path: f"{source}:{line}" for path, line in lines.items()})

    def switch_method(self, name: Any, place: str) -> None:
        """Change the method: keys that the recipe gave its own method are removed, those that flags gave stay."""
        method = self.values.get("method", {"name": DEFAULT_METHOD})
        if not isinstance(method, dict) or method.get("name", DEFAULT_METHOD) != name:
            kept = method if isinstance(method, dict) else {}
            method = {key: value for key, value in kept.items() if self._is_overridden(("method", key))}
        self.values["method"] = {**method, "name": name}
        self.places["method", "name"] = place

    def _switch_wrapped(self, name: Any) -> None:
        """Remove the keys that the recipe gave another wrapped method; those that flags gave stay."""
        method = self.values.get("method")
        wrapped = method.get("of") if isinstance(method, dict) else None
        if isinstance(wrapped, dict) and wrapped.get("name") != name:
            kept = {key: value for key, value in wrapped.items() if self._is_overridden(("method", "of", key))}
            self.values["method"]["of"] = kept

    def override(self, override: str, place: str) -> None:
        """Set a key as ``--set`` does."""
        key, text = split_override(override)
        path = tuple(key.split("."))
        if text is None or not all(path):
            raise RequestError(f"{place}: should be KEY=VALUE, for example --set training.epochs=5")
        value = read_value(text, place)
        if path == ("method", "name") or (path == ("method",) and isinstance(value, str)):
            self.switch_method(value, place)
            return
        if path == ("method", "of") and isinstance(value, str):
            path = ("method", "of", "name")
        if path == ("method", "of", "name"):
            self._switch_wrapped(value)
        value = _anchored(path, value)
        if value is not None:
            for other in _PAIRS.get(path, ()):
                self._give_way(other)
        self.set(path, value, place)

    def _give_way(self, path: KeyPath) -> None:
        """Take a key away, unless a flag gave it."""
        section: Any = self.values
        for part in path[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and not self._is_overridden(path):
            section.pop(path[-1], None)

    def set(self, path: KeyPath, value: Any, place: str) -> None:
        """Set the key at ``path``."""
        section = self.values
        for depth, part in enumerate(path[:-1]):
            if path[: depth + 1] in (("task",), ("method", "of")) and isinstance(section.get(part), str):
                section[part] = {"name": section[part]}
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise RequestError(f"{place}: {'.'.join(path[: depth + 1])} has a value, not keys")
        section[path[-1]] = value
        self.places = {below: given for below, given in self.places.items() if below[: len(path)] != path}
        self.places[path] = place

    def flag_of(self, path: KeyPath) -> str | None:
        """Return the flag that gave a section's key, by itself or with the whole section; None if no flag did."""
        section = self.values.get(path[0])
        if not isinstance(section, dict) or path[1] not in section:
            return None
        return next((self.places[each] for each in (path, path[:1]) if self._is_overridden(each)), None)

    def make_paths_absolute(self) -> None:
        """Anchor relative paths; see ``load_recipe``. A ``~`` that names nobody stays: os.path's way, not Path's."""
        folder = self.source.parent.absolute()
        data, task, model = (self.values.get(section) for section in ("data", "task", "model"))
        name = model.get("name") if isinstance(model, dict) else None
        if isinstance(name, str) and name.startswith((".", "~")):
            model["name"] = str(folder / os.path.expanduser(name))  # type: ignore[index]
        if isinstance(data, dict) and isinstance(data.get("dir"), str):
            folder = folder / os.path.expanduser(data["dir"])
            data["dir"] = str(folder)
        if not isinstance(task, dict):
            return
        dataset, files = task.get("dataset"), task.get("files")
        if isinstance(dataset, str) and dataset.startswith((".", "~")):
            task["dataset"] = os.path.normpath(self.source.parent.absolute() / os.path.expanduser(dataset))
        if isinstance(files, dict):
            task["files"] = {
                split: _below(folder, given) if split in _PLACES else given for split, given in files.items()
            }

    def check(self) -> Recipe:
        """Check every key."""
        values = dict(self.values)
        for section in _SECTIONS:
            if section in values and not isinstance(values[section], dict):
                raise RequestError(f"{self._place((section,))}: {section}: should be a mapping of keys to values")
        if "method" in values:
            values["method"] = self._check_part(_method_schema(values["method"]), values["method"], ("method",))
        task = values.get("task")
        if isinstance(task, dict):
            checked = self._check_part(_task_schema(task), task, ("task",))
            values["task"] = task["name"] if list(task) == ["name"] else checked
        return self._check_part(Recipe, values, ())

    def refuse_a_task_name_for_no_file(self, recipe: Recipe) -> None:
        """Refuse a name of a user's own task that no table or file name can hold; an earlier run's recipe may."""
        name = recipe.task.name if isinstance(recipe.task, UserTask) else None
        if name is None:
            return
        wrong = f"task.name: should be {{}}, not {shortened(repr(name))}"
        place = self._place(("task", "name"))
        if _CONTROL.search(name):
            raise RequestError(f"{place}: {wrong.format('one line without control characters')}")
        if len(name.encode()) > _LONGEST_TASK_NAME:
            raise RequestError(f"{place}: {wrong.format(f'at most {_LONGEST_TASK_NAME} bytes long')}")

    def _check_part(self, schema: type[S], values: Any, prefix: KeyPath) -> S:
        try:
            return schema.model_validate(values)
        except ValidationError as error:
            below, message = first_problem(error, schema)
            path = (*prefix, *below)
            raise RequestError(f"{self._place(path)}: {'.'.join(path)}: {message}") from None

    def _place(self, path: KeyPath) -> str:
        """Return where the key at ``path``, or the nearest key above it, was given."""
        flags = [place for below, place in self.places.items() if below[: len(path)] == path and place.startswith("--")]
        if flags:
            return flags[-1]
        given = [self.places[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in self.places]
        return given[0] if given else str(self.source)

    def _is_overridden(self, path: KeyPath) -> bool:
        return self.places.get(path, "").startswith("--")


def _below(folder: Path, given: Any) -> Any:
    """Return a path, or those in a list, anchored to a folder; anything else as it is."""
    if isinstance(given, list):
        return [_below(folder, each) for each in given]
    return str(folder / os.path.expanduser(given)) if isinstance(given, str) and given else given


def _anchored(path: KeyPath, value: Any) -> Any:
    """Return an override's value with the paths in it, at any depth, anchored to the working directory."""
    if isinstance(value, dict):
        return {key: _anchored((*path, str(key)), below) for key, below in value.items()}
    if path == ("data", "dir") or (path[:2] == ("task", "files") and path[-1] in _PLACES):
        return _below(Path.cwd(), value)
    may_be_a_folder = path in (("model", "name"), ("task", "dataset"))
    if isinstance(value, str) and may_be_a_folder and value.startswith((".", "~")):
        return str(Path.cwd() / os.path.expanduser(value))
    return value
