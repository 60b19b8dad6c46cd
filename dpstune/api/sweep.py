"""``dpstune.sweep``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.api.arguments import as_count, as_folder, as_folder_or_none, as_grid, as_methods
from dpstune.api.guest import guest
from dpstune.api.recipes import RecipeLike, as_file, as_overrides
from dpstune.api.results import SweepResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dpstune.studies.records import RunRecord
    from dpstune.studies.summary import PointSummary
    from dpstune.studies.sweep.sweep import Outcome, Sweep


@guest
def sweep(
    recipe: RecipeLike,
    *,
    methods: str | Sequence[str] = (),
    seeds: int = 5,
    grid: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    dropout: str | float | None = None,
    jobs: int = 1,
    data_dir: str | Path | None = None,
    output: str | Path = "runs",
    keep_models: bool = True,
    quiet: bool = False,
    **changes: Any,
) -> SweepResult:
    """Run a grid over many seeds, and report; the same call goes on where it was stopped.

    Args:
        recipe: A shipped recipe's name, a YAML file, or a mapping of sections to keys.
        methods: ``NAME`` or ``NAME:key=value,...``, one or several; the recipe's own where none is named.
        seeds: Restarts of each point.
        grid: Dotted keys, each with a list of values: replaces a key of the methods' grids, or adds one.
        dropout: ``"match"`` or a number: one dropout for every method, ``match`` the recipe's, or 0 where it has none;
            vanilla is added where it is not named. ``"own"``: each method's own rule. When left out, ``match`` if
            several methods are compared and nothing sets ``model.dropout``, else ``own``.
        jobs: Worker processes. With more than one, a script needs ``if __name__ == "__main__":``, as Python's
            multiprocessing asks for.
        data_dir: Local data in the place of the hub.
        output: The folder that holds all runs.
        keep_models: Keep each run's weights; or its numbers and predictions alone.
        quiet: Tell nothing on stderr.
        changes: Other keys of every run: ``training={"epochs": 1}``, or ``**{"training.epochs": 1}``.

    Raises:
        RequestError: Recipe, grid or a point of it is wrong.
        RunError: No run could be finished. Where some were, ``failed`` holds the errors of the others; a point has
            a row in the table where a run of it is finished or diverged.
        Interrupted: A signal came; every run is saved, and the same call goes on.

    >>> import dpstune
    >>> few = {"training": {"steps": 2}, "data": {"train_size": 32}}
    >>> study = dpstune.sweep("demo", methods=["mixout"], grid={"method.p": [0.3, 0.7]}, seeds=1, quiet=True, **few)
    >>> study.table[["method", "method.p", "seeds"]].values.tolist()
    [['mixout', 0.3, 1], ['mixout', 0.7, 1]]
    """
    from dpstune.recipe.recipe import load_recipe
    from dpstune.report.sweep_report import write_sweep_report
    from dpstune.studies.dropout import settle_dropout
    from dpstune.studies.summary import best_points, summarize_points
    from dpstune.studies.sweep.sweep import Sweep, SweepRequest

    seeds, jobs = as_count("seeds", seeds), as_count("jobs", jobs)
    folder = as_folder("output", output)
    name = as_file(recipe, folder)
    request = SweepRequest(
        recipe=name,
        methods=as_methods(methods) or (load_recipe(name).recipe.method.name,),
        seeds=seeds,
        output=folder,
        grid=as_grid(grid),
        overrides=tuple(as_overrides(changes)),
        data_dir=as_folder_or_none("data_dir", data_dir),
        keep_models=keep_models,
    )
    planned = Sweep(settle_dropout(request, None if dropout is None else str(dropout)))
    outcome = run(planned, jobs, quiet=quiet)
    records = list(outcome.records.values())
    if not records:
        outcome.refuse_what_is_missing()
    report = write_sweep_report(planned.folder, outcome.restarts, notes=outcome.notes)
    summaries = summarize_points(outcome.restarts)
    with_a_model = [each for each in best_points(summaries).values() if each.diverged < each.count]
    best = max(with_a_model, key=lambda each: each.merit)
    rows = [
        {
            "method": each.point.method,
            **dict(each.point.settings),
            "seeds": each.count,
            "mean": each.mean,
            "std": each.std,
            "best": each.best,
            "low": each.low,
            "high": each.high,
            "failed": each.failed,
            "seconds": each.seconds,
            "best_run": str(_best_run(each).folder),
        }
        for each in summaries
    ]
    runs = [record.folder for record in records]
    failed, notes = _failed(planned, outcome), list(outcome.notes)
    return SweepResult(planned.folder, rows, report, runs, _best_run(best).folder, failed, notes=notes)


def _best_run(point: PointSummary) -> RunRecord:
    return max(point.runs.values(), key=lambda record: (not record.diverged, record.direction * record.score))


def _failed(planned: Sweep, outcome: Outcome) -> dict[str, str]:
    """Return the error of each job without a run, by the job."""
    missing = [job for job in planned.jobs if job not in outcome.records]
    known = {**outcome.damaged, **outcome.failed}
    crash = "its worker ended early" if outcome.crash is None else f"a worker ended with: {outcome.crash}"
    return {str(job): known.get(job, f"{crash}; the same call goes on") for job in missing}


def run(planned: Sweep, jobs: int, *, quiet: bool) -> Outcome:
    """Train a sweep's runs: one after the other in this process, or by worker processes.

    Args:
        planned: The sweep.
        jobs: Worker processes; 1 trains here.
        quiet: Tell nothing on stderr.

    Raises:
        RequestError: The runs would have no score.
        Interrupted: A signal came; every run is saved.
    """
    from dpstune.report.output import tell
    from dpstune.report.progress import one_of_many
    from dpstune.report.sweep_view import run_in_view
    from dpstune.studies.dropout import planned_dropout
    from dpstune.studies.sweep.coordinator import run_in_process, run_sweep
    from dpstune.studies.tokens import planned_tokens

    planned.refuse_nothing_to_compare_by()
    for line in [] if quiet else filter(None, [planned_dropout(planned), *planned_tokens(planned)]):
        tell(line)
    if jobs > 1:
        return planned.outcome(run_sweep(planned, jobs) if quiet else run_in_view(planned, jobs))
    return planned.outcome(run_in_process(planned) if quiet else run_in_process(planned, one_of_many, tell))
