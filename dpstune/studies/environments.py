"""Machines and software of runs that are compared: where these differ, so may the scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpstune.studies.records import RunRecord

PACKAGES = ("dpstune", "torch", "transformers")
COMPARED = (*PACKAGES, "device", "precision")
"""What is told of where it differs, in this order."""


def told_of_environments(records: Sequence[RunRecord]) -> list[str]:
    """Say, in a line or none, in what the machines and the software of some runs differ, and which runs had which.

    Args:
        records: Runs that are compared; of one without an environment.json nothing is known.
    """
    differing = [told for key in COMPARED if (told := _told_of(key, records)) is not None]
    if not differing:
        return []
    return [
        f"not all runs had the same machine and software, so scores can differ by that, too: {'; '.join(differing)}"
    ]


def compared_value(record: RunRecord, key: str) -> str | None:
    """Return what a run had of one of ``COMPARED``; all that it had, where it went on elsewhere; None if unknown."""
    parts = (*record.environment.get("earlier", ()), record.environment)
    found = dict.fromkeys(value for part in parts if (value := _value(part, key)) is not None)
    return ", then ".join(found) or None


def _value(environment: Mapping[str, Any], key: str) -> str | None:
    packages = environment.get("packages")
    place = packages if key in PACKAGES and isinstance(packages, dict) else environment
    value = place.get(key)
    return None if value is None else str(value)


def _told_of(key: str, records: Sequence[RunRecord]) -> str | None:
    methods: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        if (value := compared_value(record, key)) is not None:
            methods[value][record.method] += 1
    if len(methods) < 2:
        return None
    each = (
        f"{value} ({', '.join(f'{count} of {method}' for method, count in counts.items())})"
        for value, counts in methods.items()
    )
    return f"{key} {' and '.join(each)}"
