"""Many finished runs, read back from their folders and put together into points of a grid."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dpstune.errors import DpstuneError, RequestError
from dpstune.methods import REGISTRY
from dpstune.recipe import Recipe, load_recipe
from dpstune.runs import RunFolder

RUN_PREFIX = "seed-"
_NAMED_UNFINISHED = 5

# Where the data lies and how often a run is saved change no result.
_NO_INFLUENCE = ("data.dir", "training.save_every")
# Which settings, and those below them, say where a model or a task lies: its fingerprint tells it better.
_PLACES = {"model": ("model.name", "model.revision"), "task": ("task",)}
_FINGERPRINT_DIGITS = 8


@dataclass(frozen=True)
class RunRecord:
    """A finished run: what was asked for and what came out.

    Args:
        folder: Its folder.
        recipe: The recipe as it was run, checked.
        result: The content of its result.json.
    """

    folder: Path
    recipe: Recipe
    result: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The method's name."""
        return self.recipe.method.name

    @property
    def seed(self) -> int:
        """The restart."""
        return self.recipe.seed

    @property
    def metric(self) -> str:
        """The headline metric's name."""
        return str(self.result["metric"])

    @property
    def split(self) -> str:
        """The split the value is of."""
        return str(self.result["split"])

    @property
    def value(self) -> float | None:
        """The headline metric after the last step; None where it is undefined."""
        return _number(self.result.get("value"))

    @property
    def majority(self) -> float | None:
        """What always answering the commonest training label would get; None for regression."""
        return _number(self.result.get("majority"))

    @property
    def seconds(self) -> float:
        """Wall time of the training steps."""
        return float(self.result["seconds"])

    @property
    def all_seconds(self) -> float:
        """The same and its evaluations, and what its method prepared."""
        return self.seconds + (_number(self.result.get("other_seconds")) or 0.0)

    @property
    def digest(self) -> str | None:
        """What was run, whatever kind of machine it was; None where an earlier dpstune did not write it."""
        return self.result.get("digest")

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What its model and its task hold, wherever they lie; empty where an earlier dpstune did not write it."""
        found = self.result.get("fingerprints")
        found = found if isinstance(found, Mapping) else {}
        return {section: found[section] for section in _PLACES if isinstance(found.get(section), str)}

    @property
    def score(self) -> float:
        """The value as statistics count it: an undefined correlation as 0, what it tells about the task.

        To leave it out would make a point look better for every restart that collapsed.
        """
        return 0.0 if self.value is None else self.value

    @property
    def failed(self) -> bool:
        """Whether nothing was learned: no better than the majority class, or no correlation above 0."""
        return self.value is None or self.value <= (self.majority or 0.0)

    def examples(self, split: str) -> int | None:
        """Return how many examples a split holds; None where the result does not say."""
        counts = self.result.get("examples")
        return counts.get(split) if isinstance(counts, Mapping) else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that makes the run's point, by dotted key: the recipe but for its seed and what changes no result."""
        settings = dict(_flatten(self.recipe.model_dump(mode="json", by_alias=True)))
        for key in ("seed", *_NO_INFLUENCE):
            settings.pop(key, None)
        return settings


@dataclass(frozen=True)
class Point:
    """A method with the settings in which the points of that method differ; all seeds of it are one point.

    Args:
        method: The method's name.
        settings: Dotted keys and values, in the recipe's order.
    """

    method: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The method and the settings, for people.

        >>> Point("mixout", (("method.p", 0.3),)).name, Point("vanilla").name
        ('mixout p 0.3', 'vanilla')
        """
        return f"{self.method} {self.label}".rstrip()

    @property
    def label(self) -> str:
        """The settings for people; a method's own keys without their section.

        >>> Point("mixout", (("method.p", 0.3), ("training.learning_rate", 2e-5))).label
        'p 0.3, training.learning_rate 2e-05'
        """
        given = [(key, value) for key, value in self.settings if value is not None]
        return ", ".join(f"{key.removeprefix('method.')} {format_setting(value)}" for key, value in given)

    def get(self, key: str) -> Any:
        """Return the value of a dotted key, or None."""
        return dict(self.settings).get(key)


SeedRecords = dict[int, RunRecord]
"""The runs of one point, by seed."""


def every_run(folder: Path) -> tuple[list[RunRecord], list[str]]:
    """Read all finished runs anywhere below a folder, of the same restart all.

    A run is a folder whose name begins with ``seed-`` and that a run has begun in; it is finished once it holds a
    result.

    Args:
        folder: Where to look: ``runs``, ``runs/<recipe>``, a sweep's folder, or a run's own.

    Returns:
        The runs, by folder; and a line each on what was skipped and why.

    Raises:
        RequestError: There is no such folder.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder} is no folder; the runs of a recipe lie in runs/<recipe>")
    records: list[RunRecord] = []
    notes: list[str] = []
    unfinished: list[str] = []
    for run in _run_folders(folder):
        name = str(run.relative_to(folder)) if run != folder else run.name
        if ".earlier-" in run.name:
            notes.append(f"{name}: skipped: it was set aside when the run was trained anew")
        elif not RunFolder(run).result.exists():
            unfinished.append(name)
        else:
            try:
                records.append(read_run(run))
            except (DpstuneError, OSError, ValueError) as error:
                notes.append(f"{name}: skipped: damaged: {error}")
    if unfinished:
        named = ", ".join(unfinished[:_NAMED_UNFINISHED]) + (", ..." if len(unfinished) > _NAMED_UNFINISHED else "")
        notes.append(f"runs without a result yet: {len(unfinished)}: {named}")
    return records, notes


def read_runs(folder: Path) -> tuple[list[RunRecord], list[str]]:
    """Read the finished runs anywhere below a folder, each restart once.

    Where two folders hold the same restart of the same point (another machine, other software), the newer result
    counts. Arguments, result and errors are those of ``every_run``.
    """
    records, notes = every_run(folder)
    restarts = [
        (_identity(settings), record.seed) for record, settings in zip(records, _settings_of(records), strict=True)
    ]
    kept = newest_of_each(records, restarts)
    newest = [kept[restart] for restart in restarts]
    notes.extend(
        f"{record.folder.relative_to(folder)}: skipped: the same restart as "
        f"{newer.folder.relative_to(folder)}, which is newer"
        for record, newer in zip(records, newest, strict=True)
        if newer is not record
    )
    return [record for record, newer in zip(records, newest, strict=True) if newer is record], notes


def newest_of_each(records: Sequence[RunRecord], keys: Sequence[Hashable]) -> dict[Hashable, RunRecord]:
    """Return the record with the newest result of those with the same key.

    Args:
        records: Finished runs.
        keys: The key of each.
    """
    pairs = zip(keys, records, strict=True)
    by_age = sorted(pairs, key=lambda pair: RunFolder(pair[1].folder).result.stat().st_mtime_ns)
    return dict(by_age)


def task_names(records: Sequence[RunRecord]) -> list[str]:
    """Return what the tasks of some runs are called; one that lies in several places, as in the first of them."""
    return _names(records, "task", [str(record.result["task"]) for record in records])


def model_names(records: Sequence[RunRecord]) -> list[str]:
    """Return what the models of some runs are called; one that lies in several places, as in the first of them."""
    return _names(records, "model", [record.recipe.model.name for record in records])


def group_points(records: Sequence[RunRecord]) -> list[tuple[Point, SeedRecords]]:
    """Put the restarts of each point together.

    Two runs belong to the same point when their recipes are equal but for the seed and for what changes no result
    (where the data and the model lie, how often a run is saved).

    Args:
        records: Finished runs; of two with the same point and seed the last counts.

    Returns:
        The points in the registry's order of methods, then by settings; the runs of each by ascending seed.
    """
    groups: dict[Hashable, SeedRecords] = {}
    settings: dict[Hashable, dict[str, Any]] = {}
    for record, own in zip(records, _settings_of(records), strict=True):
        groups.setdefault(_identity(own), {})[record.seed] = record
        settings.setdefault(_identity(own), own)
    methods = {identity: own["method.name"] for identity, own in settings.items()}
    keys = {
        method: _differing_keys([settings[identity] for identity in groups if methods[identity] == method])
        for method in dict.fromkeys(methods.values())
    }
    points = [
        (
            Point(methods[identity], tuple((key, settings[identity].get(key)) for key in keys[methods[identity]])),
            dict(sorted(runs.items())),
        )
        for identity, runs in groups.items()
    ]
    return sorted(points, key=lambda pair: _order(pair[0]))


def format_setting(value: Any) -> str:
    """Write a setting's value the short way, numbers to four digits.

    >>> format_setting(0.30000000000000004), format_setting(True), format_setting((0.9, 0.999)), format_setting(None)
    ('0.3', 'true', '0.9 0.999', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(format_setting(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def method_order(name: str) -> int:
    """Return a method's place in the registry; one that is not there comes last."""
    names = list(REGISTRY)
    return names.index(name) if name in names else len(names)


def _run_folders(folder: Path) -> Iterator[Path]:
    for place, below, _ in os.walk(folder):
        if _is_run(Path(place)):
            below.clear()  # nothing but the run's own content lies below
            yield Path(place)
        below.sort()


def _is_run(folder: Path) -> bool:
    """Tell a run's folder, of which one of three parts is there from its start on, from that of a recipe so called."""
    run = RunFolder(folder)
    return folder.name.startswith(RUN_PREFIX) and any(
        part.exists() for part in (run.checkpoints, run.recipe, run.result)
    )


def read_run(folder: Path) -> RunRecord:
    """Read a finished run, or say in a ValueError what is wrong with its result."""
    run = RunFolder(folder)
    result = run.read_result()
    if result is None:
        raise ValueError("result.json is not what a finished run writes")
    missing = [
        key
        for key in ("recipe", "task", "seed", "split", "metric", "value", "majority", "seconds")
        if key not in result
    ]
    if missing:
        raise ValueError(f"result.json lacks {', '.join(missing)}")
    for key in ("value", "majority", "seconds"):
        if _number(result[key]) is None and (key == "seconds" or result[key] is not None):
            raise ValueError(f"{key} in result.json is {json.dumps(result[key])}, no finite number")
    record = RunRecord(folder, load_recipe(str(run.recipe)).recipe, result)
    if result["seed"] != record.seed:
        raise ValueError(f"result.json is of seed {result['seed']}, recipe.yaml of seed {record.seed}")
    return record


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _settings_of(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the settings of each run, by what its model and its task hold.

    One that lies in several places is named as in the first; those that lay in one place at different times have the
    setting ``model.content`` or ``task.content``.
    """
    first: dict[tuple[str, str], dict[str, Any]] = {}
    changed = _changed_in_place(records)
    found = []
    for record in records:
        settings = dict(record.settings)
        for section, fingerprint in record.fingerprints.items():
            own = _place(record, section)
            settings |= dict.fromkeys(own) | first.setdefault((section, fingerprint), own)
            if fingerprint in changed:
                settings[f"{section}.content"] = fingerprint[:_FINGERPRINT_DIGITS]
        found.append(settings)
    return found


def _place(record: RunRecord, section: str) -> dict[str, Any]:
    """Return the settings of a run that say where its model or its task lies."""
    return {
        key: value
        for key, value in record.settings.items()
        if any(key == place or key.startswith(f"{place}.") for place in _PLACES[section])
    }


def _changed_in_place(records: Sequence[RunRecord]) -> set[str]:
    """Return the fingerprints of models and tasks that share their place with another.

    Runs that keep other examples back (``data.held_out``) read other ones, and are told apart by that.
    """
    held: dict[Hashable, set[str]] = defaultdict(set)
    for record in records:
        for section, fingerprint in record.fingerprints.items():
            read = record.settings.get("data.held_out") if section == "task" else None
            held[section, frozenset(_place(record, section).items()), read].add(fingerprint)
    return {fingerprint for found in held.values() if len(found) > 1 for fingerprint in found}


def _names(records: Sequence[RunRecord], section: str, names: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    changed = _changed_in_place(records)
    for record, name in zip(records, names, strict=True):
        fingerprint = record.fingerprints.get(section, name)
        told = f"{name} of content {fingerprint[:_FINGERPRINT_DIGITS]}" if fingerprint in changed else name
        first.setdefault(fingerprint, told)
    return list(dict.fromkeys(first.values()))


def _identity(settings: Mapping[str, Any]) -> Hashable:
    """Return what the runs of one point have in common."""
    return frozenset(item for item in settings.items() if item[1] is not None)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and hashable values."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _flatten(below, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tuple(value) if isinstance(value, list) else value


def _differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def _order(point: Point) -> tuple[Any, ...]:
    """Sort by method, then by each setting in turn: none, numbers by size, everything else by its text."""
    values = [value for _, value in point.settings]
    ranks = [
        (0, 0.0, "")
        if value is None
        else (1, float(value), "")
        if isinstance(value, (int, float))
        else (2, 0.0, str(value))
        for value in values
    ]
    return (method_order(point.method), point.method, *ranks)
