"""The progress of a run on stderr: a bar on a terminal, else plain lines."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from dpstune.common.progress import SilentProgress
from dpstune.report.output import people_console, tell

if TYPE_CHECKING:
    from dpstune.common.progress import Progress as ProgressProtocol

SECONDS_BETWEEN_LINES = 10.0


def new_progress() -> ProgressProtocol:
    """Return the progress that suits stderr: a bar on a terminal, else a line now and then."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class BarProgress:
    """A bar with loss, learning rate, steps and time left; notes and evaluations scroll above it."""

    def __init__(self, *, transient: bool = False) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = people_console()
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[reading]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=transient,
        )

    def note(self, text: str) -> None:
        """Print the note above the bar."""
        self._console.print(text, style="dim")

    def start(self, total_steps: int, done_steps: int) -> None:
        """Show the bar."""
        self._task = self._bar.add_task("", total=total_steps, completed=done_steps, reading="")
        self._bar.start()

    def step(self, step: int, loss: float, rate: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step, reading=_reading(loss, rate))

    def evaluation(self, step: int, split: str, metrics: dict[str, float | None]) -> None:
        """Print the metrics above the bar."""
        self._console.print(f"step {step}  {split}  {_metrics(metrics)}")

    def finish(self) -> None:
        """Stop the bar and leave it on the screen."""
        self._bar.stop()


def one_of_many() -> ProgressProtocol:
    """Return what suits a run of many that are told of by a line each: a bar on a terminal, nothing in a log."""
    return _BareBar() if sys.stderr.isatty() else SilentProgress()


class _BareBar(BarProgress):
    """A bar alone, which leaves no trace."""

    def __init__(self) -> None:
        super().__init__(transient=True)

    def note(self, text: str) -> None:
        """Ignore it."""

    def evaluation(self, step: int, split: str, metrics: dict[str, float | None]) -> None:
        """Ignore it."""


class LineProgress:
    """A line now and then, for logs: at the first step, every ten seconds, at the last step."""

    def __init__(self) -> None:
        self._total = 0
        self._start_step = 0
        self._started = self._last_line = 0.0

    def note(self, text: str) -> None:
        """Print the note."""
        tell(text)

    def start(self, total_steps: int, done_steps: int) -> None:
        """Remember when and where training started, for the time left."""
        self._total, self._start_step = total_steps, done_steps
        self._started = time.monotonic()
        self._last_line = float("-inf")

    def step(self, step: int, loss: float, rate: float) -> None:
        """Print a line where one is due."""
        now = time.monotonic()
        if step < self._total and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        seconds_a_step = (now - self._started) / max(1, step - self._start_step)
        left = format_duration(seconds_a_step * (self._total - step))
        tell(f"step {step}/{self._total}  {_reading(loss, rate)}  {left} left")

    def evaluation(self, step: int, split: str, metrics: dict[str, float | None]) -> None:
        """Print the metrics."""
        tell(f"step {step}/{self._total}  {split}  {_metrics(metrics)}")

    def finish(self) -> None:
        """Do nothing."""


def format_value(value: float | None) -> str:
    """Write a metric's value for people, to four digits.

    >>> format_value(0.87654), format_value(None)
    ('0.8765', 'undefined')
    """
    return "undefined" if value is None else f"{value:.4f}"


def _reading(loss: float, rate: float) -> str:
    return f"loss {loss:.4f}  rate {rate:.2e}"


def _metrics(metrics: dict[str, float | None]) -> str:
    return "  ".join(f"{name} {format_value(value)}" for name, value in metrics.items()) or "no labels"


def format_duration(seconds: float) -> str:
    """Write a duration as hours, minutes and seconds.

    >>> format_duration(3725)
    '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
