"""Running a sweep with its progress on stderr, for every command that trains many runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpstune.report.output import tell

if TYPE_CHECKING:
    from dpstune.studies.sweep.sweep import Outcome, Sweep


def run_watched(sweep: Sweep, jobs: int | None) -> Outcome:
    """Run a sweep with its progress on stderr, and return what became of it.

    Args:
        sweep: What to run.
        jobs: Workers on this machine; None for as many as suit it.

    Raises:
        Interrupted: See ``run_sweep``.
    """
    from dpstune.report.sweep_view import run_in_view
    from dpstune.studies.tokens import planned_tokens
    from dpstune.studies.worker_count import default_workers

    workers = jobs or default_workers(sweep)
    if jobs is None and workers > 1:
        tell(f"up to {workers} runs at a time; --jobs sets another number")
    for line in planned_tokens(sweep):
        tell(line)
    outcome = sweep.outcome(run_in_view(sweep, workers))
    tell_what_is_elsewhere(sweep, outcome)
    return outcome


def tell_what_is_elsewhere(sweep: Sweep, outcome: Outcome) -> None:
    """Print how many runs the report lacks, since they lie on another machine, and what to do about it."""
    for line in sweep.told_of_runs_elsewhere(outcome.elsewhere):
        tell(line)
