"""What is wrong with a user's data, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dpstune.data.sources import RawSplit
from dpstune.errors import counted

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MOST_PLACES = 3
RARE = 0.01  # of the rows: what is wrong with fewer of them spoils no training


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the data, or worth a look.

    Args:
        name: What kind of thing, for programs: ``label-spellings``.
        severity: ``error``: training on it is surely wrong; ``warning``: it probably is; ``note``: good to know.
        count: How many rows it is about.
        places: Up to three of them: ``tickets.csv:17``; of duplicates with the row that was there before.
        remedy: What to do, in one sentence.
        details: What was found, in one sentence; more lines where there is more to see.
    """

    name: str
    severity: Severity
    count: int
    places: tuple[str, ...]
    remedy: str
    details: tuple[str, ...]


Row = tuple[str, int]
"""A split, and a position in it."""


class Places:
    """What rows are called: a file by its name where no two have the same, and the line.

    Args:
        raw: The splits.
    """

    def __init__(self, raw: Mapping[str, RawSplit]) -> None:
        self._raw = raw
        sources = {source for split in raw.values() for source in [split.source, *(name for _, name in split.files)]}
        names = {source: Path(source).name if Path(source).is_file() else source for source in sources}
        taken = list(names.values())
        self.files = {source: name if taken.count(name) == 1 else source for source, name in names.items()}

    def of(self, row: Row) -> str:
        """Return a row's place."""
        split, position = row
        source, _, line = self._raw[split].place(position).rpartition(":")
        return f"{self.files[source]}:{line}"

    def some(self, rows: Iterable[Row]) -> tuple[str, ...]:
        """Return the first few rows' places."""
        return tuple(self.of(row) for row, _ in zip(rows, range(MOST_PLACES), strict=False))


def share(part: int, whole: int) -> str:
    """Write a share for people.

    >>> share(1, 3), share(1, 5000), share(4999, 5000)
    ('33%', 'less than 1%', 'more than 99%')
    """
    percent = round(100 * part / whole)
    if percent == 0 and part > 0:
        return "less than 1%"
    return "more than 99%" if percent == 100 and part < whole else f"{percent}%"


def part_of(count: int, total: int) -> str:
    """Write some of the rows for people.

    >>> part_of(12, 96)
    '12 of 96 rows (12%)'
    """
    return f"{count} of {counted(total, 'row')} ({share(count, total)})"


def histogram(counts: Mapping[str, int], width: int = 30) -> tuple[str, ...]:
    """Draw counts as bars, a line each.

    >>> print(*histogram({"no": 3, "yes": 1}, width=6), sep="\\n")
    no   ###### 3
    yes  ##     1
    """
    longest, most = max(map(len, counts)), max(*counts.values(), 1)
    bars = {name: "#" * (-(-width * count // most)) for name, count in counts.items()}
    return tuple(f"{name:{longest}}  {bars[name]:{width}} {count}" for name, count in counts.items())
