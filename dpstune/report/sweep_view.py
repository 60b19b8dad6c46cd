"""The progress of a sweep, and its plan, for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpstune.errors import counted, printable
from dpstune.report.output import people_console, tell
from dpstune.report.progress import SECONDS_BETWEEN_LINES, format_duration, format_value

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dpstune.studies.records import RunRecord
    from dpstune.studies.sweep.queue import Job, Tally
    from dpstune.studies.sweep.sweep import Sweep


def run_in_view(sweep: Sweep, workers: int) -> Tally:
    """Run a sweep by ``run_sweep``, with its progress on stderr."""
    from dpstune.studies.sweep.coordinator import run_sweep

    view = SweepView(sweep, workers)
    try:
        return run_sweep(sweep, workers, watch=view)
    finally:
        view.close()


class SweepView:
    """Shows a sweep's progress on stderr: a live table on a terminal, else a line now and then.

    Args:
        sweep: The sweep; its finished runs are read again whenever there is a new one.
        workers: Processes on this machine, to estimate the time left.
    """

    def __init__(self, sweep: Sweep, workers: int) -> None:
        self._sweep, self._workers = sweep, workers
        self._seen = -1
        self._records: dict[Job, RunRecord] = {}
        self._best = ""
        self._last_line = float("-inf")
        self._show: Callable[[Tally], None] = self._show_line
        if sys.stderr.isatty():
            from rich.live import Live

            self._live = Live(console=people_console(), auto_refresh=False)
            self._live.start()
            self._show = self._show_table

    def __call__(self, tally: Tally) -> None:
        """Show the current state."""
        if len(tally.done) != self._seen:
            self._records, _ = self._sweep.finished()
            self._best = best_line(list(self._records.values()))
            self._seen = len(tally.done)
        self._show(tally)

    def close(self) -> None:
        """Stop updating; the last table stays on the screen."""
        if self._show == self._show_table:
            self._live.stop()

    def _headline(self, tally: Tally) -> str:
        from dpstune.studies.sweep.estimate import pace

        left = len(self._sweep.jobs) - len(self._records) - len(tally.failed) - len(tally.dropped)
        of_here = [record for job, record in self._records.items() if self._sweep.is_of_here(job)]
        seconds = pace(of_here, left, self._workers)
        parts = [f"{len(self._records)} of {len(self._sweep.jobs)} runs done", f"{tally.running} running"]
        if tally.failed:
            parts.append(f"{len(tally.failed)} failed")
        if left and seconds is not None:
            parts.append(f"{format_duration(seconds)} left")
        return ", ".join(parts) + self._best

    def _show_line(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            tell(self._headline(tally))

    def _show_table(self, tally: Tally) -> None:
        from rich.console import Group
        from rich.text import Text

        lines: list[RenderableType] = [Text(printable(self._headline(tally)))]
        for worker, job in sorted(tally.workers.items()):
            number, host, *_ = worker.split()
            lines.append(Text(printable(f"  worker {number} on {host}: {job}"), style="dim"))
        self._live.update(Group(*lines), refresh=True)


def best_line(records: Sequence[RunRecord]) -> str:
    """Return the best point so far, for the end of a line; empty without runs."""
    from dpstune.studies.summary import best_points, summarize_points

    if not records:
        return ""
    best = max(best_points(summarize_points(records)).values(), key=lambda summary: summary.merit)
    return f"; best so far {format_value(best.mean)} ({best.point.name}, {counted(best.count, 'seed')})"


def format_plan(plan: Mapping[str, Any]) -> str:
    """Return what ``plan_as_json`` returned as text, one line for each run."""
    lines = [f"{'done' if run['done'] else 'to do'}  {run['run']}" for run in plan["runs"]]
    if plan["budget"] is not None:
        lines.append(f"{plan['budget']} points of each method, chosen as results come in")
    about = format_duration(plan["seconds"])
    workers = counted(plan["workers"], "worker")
    return "\n".join([*lines, f"{plan['left']} of {plan['count']} runs to do; about {about} with {workers}"])
