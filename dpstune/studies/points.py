"""Finished runs grouped into points: what the restarts of a point share, and how points differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpstune.methods import REGISTRY
from dpstune.models.names import shown_models
from dpstune.runs.identity import newer_default
from dpstune.settings.sections import UserTask
from dpstune.studies.records import RunRecord, every_run, newest_of_each

# These settings, and those below them, say where a model or a task lies; its fingerprint says better what it is.
_PLACES = {"model": ("model.name", "model.revision"), "task": ("task",)}
_FINGERPRINT_DIGITS = 8


@dataclass(frozen=True)
class Point:
    """A method with the settings in which that method's points differ; all its restarts belong to it.

    Args:
        method: The method's name.
        settings: Dotted keys and values, in the recipe's order.
        models: The names of models for people, by ``model.name``; a model without an entry keeps its own.
    """

    method: str
    settings: tuple[tuple[str, Any], ...] = ()
    models: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

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
        given = [key for key, value in self.settings if value is not None]
        return ", ".join(f"{key.removeprefix('method.')} {self.text(key)}" for key in given)

    def get(self, key: str) -> Any:
        """Return the value of a dotted key, or None."""
        return dict(self.settings).get(key)

    def text(self, key: str) -> str:
        """Return the value of a dotted key as people read it."""
        value = self.get(key)
        return self.models.get(value, value) if key == "model.name" and value else format_setting(value)


SeedRecords = dict[int, RunRecord]
"""The runs of one point, by seed."""


def read_runs(folder: Path) -> tuple[list[RunRecord], list[str]]:
    """Read the finished runs anywhere below a folder, each restart once.

    Arguments, return value and errors are those of ``every_run``; see ``each_restart_once``.
    """
    records, notes = every_run(folder)
    kept, skipped = each_restart_once(records, folder)
    return kept, [*notes, *skipped]


def each_restart_once(records: Sequence[RunRecord], folder: Path | None = None) -> tuple[list[RunRecord], list[str]]:
    """Take of runs that are the same restart of the same point, as of two machines, the one that ended last.

    Args:
        records: Finished runs.
        folder: What the notes name the runs from; None names them in full.

    Returns:
        The runs that count, in the same order; and a note for each that was skipped.
    """

    def name(record: RunRecord) -> Path:
        return record.folder if folder is None else record.folder.relative_to(folder)

    restarts = [
        (_identity(settings), record.seed) for record, settings in zip(records, _settings_of(records), strict=True)
    ]
    kept = newest_of_each(records, restarts)
    newest = [kept[restart] for restart in restarts]
    notes = [
        f"{name(record)}: skipped: the same restart as {name(newer)}, which is newer"
        for record, newer in zip(records, newest, strict=True)
        if newer is not record
    ]
    return [record for record, newer in zip(records, newest, strict=True) if newer is record], notes


def task_names(records: Sequence[RunRecord]) -> list[str]:
    """Return the names of some runs' tasks; a task that lies in several places is named as in the first run.

    If a user's own tasks share a name, a part of their fingerprint is added to it.
    """
    return _names(records, "task", [str(record.result["task"]) for record in records])


def model_names(records: Sequence[RunRecord]) -> list[str]:
    """Return the names of some runs' models; a model that lies in several places is named as in the first run.

    A model in a folder has the last part of the folder's path as its name; see ``shown_models``.
    """
    names = [settings["model.name"] for settings in _settings_of(records)]
    shown = shown_models(dict.fromkeys(names))
    return _names(records, "model", [shown[name] for name in names])


def group_points(records: Sequence[RunRecord]) -> list[tuple[Point, SeedRecords]]:
    """Group runs by point.

    Two runs belong to the same point if their recipes differ in nothing but the seed and what changes no result
    (where the data and the model lie, how often a run is saved).

    Args:
        records: Finished runs; of two with the same point and seed, the later in the list counts.

    Returns:
        The points in the registry's order of methods, then by settings; the runs of each by ascending seed.
    """
    groups: dict[Hashable, SeedRecords] = {}
    settings: dict[Hashable, dict[str, Any]] = {}
    for record, own in zip(records, _settings_of(records), strict=True):
        identity = _identity(own)
        groups.setdefault(identity, {})[record.seed] = record
        settings.setdefault(identity, own)
    methods = {identity: own["method.name"] for identity, own in settings.items()}
    keys = {
        method: _differing_keys([settings[identity] for identity in groups if methods[identity] == method])
        for method in dict.fromkeys(methods.values())
    }
    models = shown_models(dict.fromkeys(own["model.name"] for own in settings.values()))
    points = [
        (
            Point(
                methods[identity],
                tuple((key, _value(settings[identity], key)) for key in keys[methods[identity]]),
                models,
            ),
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
    """Return a method's place in the registry; an unknown method comes last."""
    names = list(REGISTRY)
    return names.index(name) if name in names else len(names)


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; that of a newer key which was left out is its default."""
    return settings[key] if key in settings else newer_default(key, settings)


def _settings_of(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the settings of each run; two models, or tasks, of equal content have equal settings.

    A model or task that lies in several places is named as in the first run. Different ones that lay in one place at
    different times have the setting ``model.content`` or ``task.content``.
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


def _where(record: RunRecord, section: str) -> Hashable:
    return frozenset(_place(record, section).items())


def _changed_in_place(records: Sequence[RunRecord]) -> set[str]:
    """Return the fingerprints of models and tasks that share their place with another.

    Runs with another ``data.held_out`` read other examples: that setting tells them apart already.
    """
    held: dict[Hashable, set[str]] = defaultdict(set)
    for record in records:
        for section, fingerprint in record.fingerprints.items():
            read = record.settings.get("data.held_out") if section == "task" else None
            held[section, _where(record, section), read].add(fingerprint)
    return {fingerprint for found in held.values() if len(found) > 1 for fingerprint in found}


def _names(records: Sequence[RunRecord], section: str, names: Sequence[str]) -> list[str]:
    held = {_where(each, section): each.fingerprints[section] for each in records if section in each.fingerprints}
    alike = _alike_in_name(records, section, names)
    first: dict[str, str] = {}
    for record, settings, name in zip(records, _settings_of(records), names, strict=True):
        content = settings.get(f"{section}.content")
        told = name if content is None else f"{name} of content {content}"
        # An earlier dpstune wrote no fingerprint: take that of the place, since a task may have another name now.
        own = record.fingerprints.get(section) or held.get(_where(record, section), name)
        if content is None and own in alike:
            told = f"{name} of content {own[:_FINGERPRINT_DIGITS]}"
        first.setdefault(own, told)
    return list(dict.fromkeys(first.values()))


def _alike_in_name(records: Sequence[RunRecord], section: str, names: Sequence[str]) -> set[str]:
    """Return the fingerprints of users' own tasks whose name another task, in another place, has too."""
    held: dict[Hashable, set[str]] = defaultdict(set)
    for record, name in zip(records, names, strict=True):
        if section == "task" and section in record.fingerprints and isinstance(record.recipe.task, UserTask):
            held[name, record.settings.get("data.held_out")].add(record.fingerprints[section])
    return {fingerprint for found in held.values() if len(found) > 1 for fingerprint in found}


def _identity(settings: Mapping[str, Any]) -> Hashable:
    """Return what the runs of one point have in common."""
    return frozenset(item for item in settings.items() if item[1] is not None)


def _differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def _order(point: Point) -> tuple[Any, ...]:
    """Sort by method, then by each setting: None first, then numbers by size, then everything else by its text."""
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
