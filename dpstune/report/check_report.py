"""What is wrong with data, for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpstune.data.finding import SEVERITIES, Finding
from dpstune.errors import counted
from dpstune.report.output import people_console

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}


def print_findings(subject: str, rows: Mapping[str, int], findings: Sequence[Finding]) -> None:
    """Print a table of findings on stderr, errors first.

    Args:
        subject: What was checked.
        rows: How many rows each split has.
        findings: What is wrong with them.
    """
    from rich.table import Table
    from rich.text import Text

    console = people_console()
    listed = ", ".join(f"{split} {count:,}" for split, count in rows.items()) if len(rows) > 1 else ""
    total = counted(sum(rows.values()), "row")
    if not findings:
        console.print(f"{subject}: nothing found in {total}", soft_wrap=True)
        return
    console.print(f"{subject}: {total}{f' ({listed})' if listed else ''}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("finding")
    for severity in SEVERITIES:
        here = [finding for finding in findings if finding.severity == severity]
        if here:
            table.add_row("", Text(counted(len(here), severity), style=_STYLES[severity]))
        for finding in here:
            lines = [finding.name, *finding.details, ", ".join(finding.places), f"-> {finding.remedy}"]
            table.add_row(f"{finding.count:,}", "\n".join(filter(None, lines)))
    console.print(table)
