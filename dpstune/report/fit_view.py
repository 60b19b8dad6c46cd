"""What a fit's workers train, on stderr, below the lines that tell what came of each run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dpstune.errors import printable
from dpstune.report.output import people_console

if TYPE_CHECKING:
    from dpstune.studies.fit.side_by_side import Show


@contextmanager
def fit_view() -> Iterator[Show]:
    """Show a line for each worker while the block runs, on a terminal alone; it leaves no trace."""
    if not sys.stderr.isatty():
        yield lambda running: None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def show(running: Mapping[int, str]) -> None:
        lines = [Text(printable(f"  worker {number}: {run}"), style="dim") for number, run in running.items()]
        live.update(Group(*lines), refresh=True)

    with Live(console=people_console(), auto_refresh=False, transient=True) as live:
        yield show
