"""Finished runs, and those that came to nothing, read back from their folders."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from dpstune.common.writing import can_name_a_folder, read_json
from dpstune.errors import DpstuneError, RequestError, counted, shortened
from dpstune.recipe.recipe import load_run_recipe
from dpstune.recipe.schema import Recipe
from dpstune.runs.folder import RunFolder
from dpstune.runs.identity import NO_INFLUENCE, known_fingerprints, without_newer_defaults
from dpstune.settings.metrics import METRICS, beats_one_answer, direction
from dpstune.settings.sections import UserTask

RUN_PREFIX = "seed-"
PROCESSES = "processes"
"""The one setting of a point that no recipe has: a launcher says it."""
_NAMED = 5


@dataclass(frozen=True)
class RunRecord:
    """A finished run, or one that diverged: its recipe and its result.

    Args:
        folder: Its folder.
        recipe: The recipe as it was run, checked.
        result: The content of its result.json; of one that diverged, that of its diverged.json.
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
        """The seed, which tells the restarts of a point apart."""
        return self.recipe.seed

    @property
    def metric(self) -> str:
        """The headline metric's name."""
        return str(self.result["metric"])

    @property
    def split(self) -> str:
        """The split on which ``value`` was computed."""
        return str(self.result["split"])

    @property
    def value(self) -> float | None:
        """The headline metric of the kept weights; None where it is undefined, or the run diverged."""
        return _number(self.result.get("value"))

    @property
    def majority(self) -> float | None:
        """What always giving the same answer would get; None where that is no number to beat, as for a correlation."""
        return _number(self.result.get("majority"))

    @property
    def seconds(self) -> float:
        """Wall time of the training steps."""
        return float(self.result["seconds"])

    @property
    def all_seconds(self) -> float:
        """Wall time of the training steps, the evaluations and what the method does before step 1."""
        return self.seconds + (_number(self.result.get("other_seconds")) or 0.0)

    @property
    def ended(self) -> datetime | None:
        """When the run ended, where it ran; of a result of an earlier dpstune, when its file was written.

        None where neither is known.
        """
        with suppress(KeyError, TypeError, ValueError):
            moment = datetime.fromisoformat(self.result["ended"])
            return moment if moment.tzinfo is not None else moment.astimezone()
        with suppress(OSError):
            return datetime.fromtimestamp(RunFolder(self.folder).result.stat().st_mtime).astimezone()
        return None

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Machine and software, as ``describe_environment`` says; empty where the run's folder does not say."""
        return read_json(RunFolder(self.folder).environment) or {}

    @property
    def processes(self) -> int:
        """How many processes trained it together: a step held that many times the batch."""
        count = self.result.get("processes", self.environment.get("processes", 1))
        return count if isinstance(count, int) else 1

    @property
    def digest(self) -> str | None:
        """A hash of what was run, the same on any kind of machine; None if an earlier dpstune did not write it."""
        return self.result.get("digest")

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of what its model and its task hold; empty if an earlier dpstune did not write them."""
        return known_fingerprints(self.result)

    @property
    def diverged(self) -> bool:
        """Whether training came to nothing, so that there is no model."""
        return "error" in self.result

    @property
    def score(self) -> float:
        """The value as statistics count it: where there is none, that of one answer to all, or no correlation.

        Of a calibration error it is the worst there is. To leave it out would make a point look better for every
        restart that collapsed or diverged.
        """
        known = self.value if self.value is not None else self.majority
        return METRICS[self.metric].without_value if known is None else known

    @property
    def failed(self) -> bool:
        """Whether nothing was learned: no better than one answer to all, or no correlation above 0."""
        return self.value is None or not beats_one_answer(self.metric, self.value, self.majority)

    @property
    def direction(self) -> int:
        """1 where the metric is better when higher, -1 where it is better when lower."""
        return direction(self.metric)

    def examples(self, split: str) -> int | None:
        """Return how many examples a split holds; None where the result does not say."""
        counts = self.result.get("examples")
        return counts.get(split) if isinstance(counts, Mapping) else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that makes the run's point, by dotted key: the recipe but for its seed and what changes no result.

        Several processes are a setting, too.

        Newer keys at their defaults are left out; see ``without_newer_defaults``.
        """
        settings = dict(_flatten(without_newer_defaults(self.recipe.model_dump(mode="json", by_alias=True))))
        named_for_people = ("task.name",) if isinstance(self.recipe.task, UserTask) else ()
        for key in ("seed", *NO_INFLUENCE, *named_for_people):
            settings.pop(key, None)
        return settings if self.processes == 1 else {**settings, PROCESSES: self.processes}


def every_run(folder: Path) -> tuple[list[RunRecord], list[str]]:
    """Read all finished runs anywhere below a folder, also several of the same restart.

    A run's folder has a name that begins with ``seed-``, and holds what a run writes. The run is finished once the
    folder holds a result.

    Args:
        folder: Where to look: ``runs``, ``runs/<recipe>``, a sweep's folder, or a run's own.

    Returns:
        The runs, sorted by folder; and notes, one line for each thing that was skipped and why.

    Raises:
        RequestError: There is no such folder.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder} is not a folder; the runs of a recipe lie in runs/<recipe>")
    records: list[RunRecord] = []
    notes: list[str] = []
    unfinished: list[str] = []
    diverged: list[str] = []
    for run in _run_folders(folder):
        name = str(run.relative_to(folder)) if run != folder else run.name
        if ".earlier-" in run.name:
            notes.append(f"{name}: skipped: it was set aside when the run was trained anew")
        elif not RunFolder(run).result.exists():
            (diverged if RunFolder(run).diverged.exists() else unfinished).append(name)
        else:
            try:
                record = read_run(run)
                if record.result["split"] is None:
                    notes.append(f"{name}: skipped: nothing was evaluated, so that there is nothing to compare by")
                else:
                    records.append(record)
            except (DpstuneError, OSError, ValueError) as error:
                notes.append(f"{name}: skipped: damaged: {error}")
    if unfinished:
        notes.append(f"runs without a result yet: {len(unfinished)}: {_first_of(unfinished)}")
    if diverged:
        notes.append(f"{counted(len(diverged), 'run')} diverged: {_first_of(diverged)}")
    return records, notes


def _first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def chosen_on_a_split(records: Sequence[RunRecord]) -> list[str]:
    """Say, in a line or none, that some runs' weights were chosen on a split, so that their scores there flatter."""
    splits = {(record.result.get("kept") or {}).get("chosen_by") for record in records} - {None}
    if not splits:
        return []
    named = " and ".join(sorted(map(str, splits)))
    return [
        f"weights, or when to stop, were chosen on {named}: scores there are optimistic, and a drop from there, too"
    ]


def newest_of_each(records: Sequence[RunRecord], keys: Sequence[Hashable]) -> dict[Hashable, RunRecord]:
    """Return one record for each key: of the records with that key, the one with the newest result.

    Args:
        records: Finished runs.
        keys: The key of each record, in the same order.
    """
    by_age = sorted(zip(keys, records, strict=True), key=lambda pair: _moment(pair[1]))
    return dict(by_age)


def newest_by_digest(folder: Path, digests: Container[str]) -> dict[str, RunRecord]:
    """Return the finished runs anywhere below a folder that have some digests; of several alike the newest.

    Args:
        folder: Where to look.
        digests: See ``RunRecord.digest``; only the recipes of runs with one of these are read.
    """
    records: list[RunRecord] = []
    for run in _run_folders(folder):
        result = None if ".earlier-" in run.name else read_json(RunFolder(run).result)
        if result is not None and result.get("digest") in digests:
            with suppress(DpstuneError, OSError, ValueError):  # every_run tells of what is damaged
                records.append(read_run(run))
    newest = newest_of_each(records, [record.result["digest"] for record in records])
    return {str(digest): record for digest, record in newest.items()}


def _moment(record: RunRecord) -> float:
    return 0.0 if record.ended is None else record.ended.timestamp()


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the runs' folders below a folder, each once; links are followed, as to runs on another disk."""
    seen: set[tuple[int, int]] = set()
    for place, below, _ in os.walk(folder, followlinks=True):
        identity = None
        with suppress(OSError):  # renamed meanwhile
            status = os.stat(place)
            identity = (status.st_dev, status.st_ino)
        if identity is None or identity in seen:
            below.clear()  # also a link to a folder that it lies in
            continue
        seen.add(identity)
        if _is_run(Path(place)):
            below.clear()  # nothing but the run's own content lies below
            yield Path(place)
        below.sort()


def _is_run(folder: Path) -> bool:
    """Tell whether a folder is a run's; one whose recipe has such a name holds none of the parts of a run."""
    run = RunFolder(folder)
    return folder.name.startswith(RUN_PREFIX) and any(
        part.exists() for part in (run.checkpoints, run.recipe, run.result)
    )


def read_run(folder: Path) -> RunRecord:
    """Read a finished run.

    Raises:
        ValueError: Its result is damaged; the message says how.
        DpstuneError, OSError: Its recipe or result cannot be read.
    """
    run = RunFolder(folder)
    result = run.read_result()
    if result is None:
        raise ValueError("result.json is not what a finished run writes")
    return _checked(folder, result, run.result.name)


def every_divergence(folder: Path) -> list[RunRecord]:
    """Read the runs anywhere below a folder that came to nothing."""
    return [record for run in _run_folders(folder) if (record := read_divergence(run)) is not None]


def read_divergence(folder: Path) -> RunRecord | None:
    """Read a run that came to nothing; None where it has not, or what it says is damaged."""
    run = RunFolder(folder)
    with suppress(OSError, ValueError, DpstuneError):
        result = json.loads(run.diverged.read_text(encoding="utf-8"))
        return None if run.result.exists() else _checked(folder, result, run.diverged.name)
    return None


def _checked(folder: Path, result: Any, file: str) -> RunRecord:
    if not isinstance(result, dict):
        raise ValueError(f"{file} holds no mapping")
    missing = [
        key
        for key in ("recipe", "task", "seed", "split", "metric", "value", "majority", "seconds")
        if key not in result
    ]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}")
    name = result["recipe"]
    if not isinstance(name, str) or not can_name_a_folder(name):  # reports are written into a folder of this name
        raise ValueError(f"recipe in {file} is {shortened(json.dumps(name))}; it should be a name without slashes")
    for key in ("value", "majority", "seconds"):
        if _number(result[key]) is None and (key == "seconds" or result[key] is not None):
            raise ValueError(f"{key} in {file} is {json.dumps(result[key])}; it should be a finite number")
    if not isinstance(result.get("kept", {}), dict):
        raise ValueError(f"kept in {file} holds no mapping")
    record = RunRecord(folder, load_run_recipe(RunFolder(folder).recipe), result)
    if result["seed"] != record.seed:
        raise ValueError(f"{file} is of seed {result['seed']}, recipe.yaml of seed {record.seed}")
    return record


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and hashable values."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _flatten(below, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tuple(value) if isinstance(value, list) else value
