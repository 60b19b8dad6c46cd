"""Tables for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpstune.report.progress import format_value


def print_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Print a finished run on stderr: a line a split, what the majority class would get, time, folder.

    Args:
        folder: The run's folder.
        result: The content of its result.json.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    title = f"{result['recipe']}  {result['method']['name']}  seed {result['seed']}"
    splits: Mapping[str, Mapping[str, float | None]] = result["last"]["metrics"]
    names = list(dict.fromkeys(name for metrics in splits.values() for name in metrics))
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column("split")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("examples", justify="right")
    for split, metrics in splits.items():
        values = [format_value(metrics[name]) if name in metrics else "" for name in names]
        table.add_row(split, *values, str(result["examples"][split]))
    console.print(table)
    if result["majority"] is not None:
        always = "always answering the commonest training label"
        console.print(f"{always}: {result['metric']} {format_value(result['majority'])}", soft_wrap=True)
    console.print(f"{result['steps']} steps in {result['seconds']:.0f} s", soft_wrap=True)
    console.print(str(folder), markup=False, soft_wrap=True)


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows into columns two spaces apart; the same in a terminal, a pipe and a file.

    >>> print(format_columns([("a", "bc"), ("def", "g")]))
    a    bc
    def  g
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
