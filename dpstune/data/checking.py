"""Look at data before it is trained on, and say what is wrong with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dpstune.data.duplicates import duplicate_findings
from dpstune.data.finding import SEVERITIES, Finding, Places
from dpstune.data.gold_labels import several
from dpstune.data.group_findings import group_findings, shared_text_findings
from dpstune.data.label_findings import Labels, class_findings, set_of_labels, several_findings, value_findings
from dpstune.data.lengths import Lengths, length_findings
from dpstune.data.reading import RawTask, read_raw
from dpstune.data.sources import RawSplit
from dpstune.data.text_findings import leak_findings, text_findings
from dpstune.errors import DpstuneError
from dpstune.settings.sections import DataSection, DatasetTask, OwnTask

MOST_LINES = 5  # told before training
MOST_CHARACTERS = 400_000  # of texts among which training looks for near duplicates first: a third of a second's worth


def check_task(
    task: RawTask, *, lengths: Lengths | None = None, near: bool = True, standardised: bool = False
) -> list[Finding]:
    """Say what is wrong with a task's examples, errors first.

    Args:
        task: The splits as they were read, labels as they are written.
        lengths: How long the texts are; None to leave that out.
        near: Look for near duplicates, too; they take most of the time.
        standardised: Training standardises the values of regression, so that it does not matter where they lie.

    >>> split = RawSplit("a.csv", ["0", "1"], [("a text",), ("A  Text",)], ["yes", "no"], [2, 3])
    >>> findings = check_task(RawTask("classification", {"train": split}, (None, "")))
    >>> [(finding.name, finding.severity, finding.places) for finding in findings][:1]
    [('label-once', 'warning', ('a.csv:2', 'a.csv:3'))]
    """
    raw = {split: part for split, part in task.splits.items() if part.texts}
    findings = _findings(raw, task, lengths, near, standardised) if raw else ()
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _findings(
    raw: Mapping[str, RawSplit], task: RawTask, lengths: Lengths | None, near: bool, standardised: bool
) -> Iterator[Finding]:
    kind, places, parts = task.kind, Places(raw), task.parts
    labels = Labels(raw, task.unlabelled, set_of_labels) if kind == "multilabel" else Labels(raw, task.unlabelled)
    if kind == "multilabel":
        yield from several_findings(Labels(raw, task.unlabelled, several), labels, places, parts)
    elif kind == "classification":
        yield from class_findings(labels, places, parts)
    else:
        yield from value_findings(labels, places, standardised=standardised)
    if kind == "classification" or task.label in task.text:
        yield from leak_findings(labels, task.text, task.label, places)
    yield from duplicate_findings(raw, None if kind == "regression" else labels, places, parts, near=near)
    yield from text_findings(raw, labels.training, task.text, places)
    if lengths is not None:
        yield from length_findings(lengths, places)
    groups = {split: part.groups for split, part in raw.items() if part.groups}
    if groups:
        yield from group_findings(groups, places, parts)
    yield from shared_text_findings(raw, task.text, places, parts)


def told_before_training(task: OwnTask | DatasetTask, data: DataSection, source: Path) -> list[str]:
    """Return what is wrong with a user's own data, notes left out, in so few lines and so fast that nobody waits.

    Args:
        task: The data.
        data: Where they lie.
        source: The recipe's file, whose check shows all.
    """
    try:
        raw = read_raw(task, data)
    except DpstuneError as error:  # training reads less than is checked
        return [f"the data were not checked: {error}"]
    findings = check_task(raw, near=near_in_time(raw))
    return in_few_lines(findings, shlex.quote(str(source)))


def near_in_time(task: RawTask) -> bool:
    """Tell whether near duplicates are found so soon that nobody waits."""
    characters = sum(len(text) for part in task.splits.values() for texts in part.texts for text in texts)
    return characters <= MOST_CHARACTERS


def in_few_lines(findings: Sequence[Finding], source: str) -> list[str]:
    """Return errors and warnings, a line each, five at most.

    Args:
        findings: Errors first.
        source: The file or recipe whose check shows all, as a shell reads it, and what else it is checked with.
    """
    wrong = [finding for finding in findings if finding.severity != "note"]
    shown = wrong if len(wrong) <= MOST_LINES else wrong[: MOST_LINES - 1]
    lines = [_in_a_line(finding) for finding in shown]
    if len(wrong) > len(shown):
        lines.append(f"{len(wrong) - len(shown)} more findings; dpstune check {source} shows all")
    return lines


def _in_a_line(finding: Finding) -> str:
    place = f" ({finding.places[0]})" if finding.places else ""
    return f"{finding.severity}: {finding.details[0]}{place}"
