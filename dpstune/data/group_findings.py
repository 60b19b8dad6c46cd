"""What is wrong with rows that belong together, such as those of one author."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from dpstune.data.finding import Finding, Places, Row
from dpstune.errors import some_of


def group_findings(groups: Mapping[str, Sequence[str | None]], places: Places, parts: int | None) -> Iterator[Finding]:
    """Yield which groups stand on both sides of a cut, or are too few to be cut.

    Args:
        groups: The group of each row, by split; None where a row has none.
        places: Names rows.
        parts: How many parts the rows are yet to be cut into; None where the splits are there.
    """
    first: dict[str, str] = {}  # the split that a group is first seen in
    crossing: list[Row] = []
    names: dict[str, None] = {}
    for split in sorted(groups, key=lambda split: split != "train"):
        for position, group in enumerate(groups[split]):
            if group is not None and first.setdefault(group, split) != split:
                crossing.append((split, position))
                names[group] = None
    if crossing:
        yield Finding(
            "groups-across",
            "warning",
            len(crossing),
            places.some(crossing),
            "Cut the data so that a group is in one split: else the score counts what is known of the group.",
            (f"rows of {len(names)} groups that an earlier split has, too: {some_of(names)}",),
        )
    if parts is not None and len(first) < parts:
        yield Finding(
            "few-groups",
            "warning",
            sum(group is not None for group in chain.from_iterable(groups.values())),
            (),
            f"Ask for at most {max(2, len(first))} folds, or take another group column.",
            (f"{len(first)} groups are fewer than {parts} folds",),
        )
