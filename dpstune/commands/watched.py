"""A sweep's runs, trained while people watch: what every command that trains many runs does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpstune.report.output import tell

if TYPE_CHECKING:
    from dpstune.studies.sweep.sweep import Outcome, Sweep


def run_watched(sweep: Sweep, workers: int) -> Outcome:
    """Run a sweep with its live view, and say what became of it.

    Raises:
        Interrupted: See ``run_sweep``.
    """
    from dpstune.report.sweep_view import SweepView
    from dpstune.studies.sweep.coordinator import run_sweep

    view = SweepView(sweep, workers)
    try:
        tally = run_sweep(sweep, workers, watch=view)
    finally:
        view.close()
    outcome = sweep.outcome(tally)
    tell_what_is_elsewhere(sweep, outcome)
    return outcome


def tell_what_is_elsewhere(sweep: Sweep, outcome: Outcome) -> None:
    """Say how many runs cannot be reported on, since they lie on another machine."""
    if outcome.elsewhere:
        tell(f"{outcome.elsewhere} runs were done by machines whose runs do not lie in {sweep.request.output}")
