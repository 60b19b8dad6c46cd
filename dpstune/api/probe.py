"""``dpstune.probe``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpstune.api.arguments import as_columns, as_count, as_folder, as_folder_or_none, as_names, as_text
from dpstune.api.evaluate import ModelLike, model_folder
from dpstune.api.guest import guest
from dpstune.api.results import ProbeResult, SweepResult
from dpstune.errors import RequestError


@guest
def probe(
    runs: ModelLike | Sequence[ModelLike],
    *,
    on: str | Sequence[str] = (),
    texts: str | Path | None = None,
    text: str | Sequence[str] | None = None,
    task: str | Path | None = None,
    rows: int = 500,
    train_rows: int = 1000,
    scored_rows: int = 1000,
    pretrained: str | Path | None = None,
    data_dir: str | Path | None = None,
    output: str | Path = "runs",
    quiet: bool = False,
) -> ProbeResult:
    """Say how far fine-tuning moved a model's representations, and how well a linear probe does other tasks on them.

    Args:
        runs: A run's folder, a local model folder, or a result; one or several. Of a sweep all runs that kept a model.
        on: Tasks for a linear probe on the last layer: ``TASK``, ``TASK:SPLIT`` or a recipe file each.
        texts: A file of texts to compare hidden states on; the runs' own evaluated split.
        text: Its one or two text columns.
        task: A task whose texts are compared on.
        rows: The most texts, 10 or more.
        train_rows: The most rows that a linear probe is trained on, 10 or more.
        scored_rows: The most rows that it is scored on, 10 or more.
        pretrained: The model that they began as, by name or folder; what each recipe says.
        data_dir: Local data in the place of the hub; of the runs' own files, where they lie now.
        output: The folder that holds all runs; the report lies in it, too.
        quiet: Tell nothing on stderr.

    Raises:
        RequestError: An argument is of the wrong kind, a run is not finished or began with random weights, or texts or
            tasks cannot be had.
        RunError: The hub could not be reached.

    >>> import dpstune
    >>> run = dpstune.train("demo", method="vanilla", training={"steps": 2}, data={"train_size": 32}, quiet=True)
    >>> found = dpstune.probe(run, on="toy-rte", rows=40, train_rows=40, scored_rows=40, quiet=True)
    >>> found.table.columns.tolist()[:4], len(found.layers)
    (['method', 'restarts', 'cka', 'cosine'], 7)
    >>> found.layers["cka"].round(2).tolist()[:2]
    [1.0, 1.0]
    """
    from dpstune.report.output import tell
    from dpstune.report.probe_report import layers_as_rows, points_as_rows, write_probe_report
    from dpstune.studies.probe.probe import Probe
    from dpstune.studies.probe.request import FEWEST_ROWS, ProbeRequest

    listed = [one for each in (runs if isinstance(runs, list | tuple) else [runs]) for one in _each_run(each)]
    folder = as_folder_or_none("data_dir", data_dir)
    columns, file = as_columns(text), as_text("texts", texts)
    request = ProbeRequest(
        runs=tuple(map(model_folder, listed)),
        output=as_folder("output", output),
        on=as_names("on", on, '["mrpc", "rte"]'),
        texts=None if file is None else Path(file),
        text=None if columns is None else tuple(columns),
        task=as_text("task", task),
        rows=as_count("rows", rows, FEWEST_ROWS),
        train_rows=as_count("train_rows", train_rows, FEWEST_ROWS),
        scored_rows=as_count("scored_rows", scored_rows, FEWEST_ROWS),
        pretrained=as_text("pretrained", pretrained),
        data_dirs=() if folder is None else (folder,),
    )
    outcome = Probe(request).run(*([] if quiet else [tell]))
    for note in () if quiet else outcome.notes:
        tell(note)
    page = write_probe_report(outcome)
    points, layers = points_as_rows(outcome), layers_as_rows(outcome)
    return ProbeResult(outcome.folder, points, page, layers, notes=list(outcome.notes))


def _each_run(given: Any) -> list[Any]:
    """Return the runs of a sweep that have a model; anything else is one.

    Raises:
        RequestError: No run of the sweep has one.
    """
    if not isinstance(given, SweepResult):
        return [given]
    kept = [run for run in given.runs if (run / "model").is_dir()]
    if not kept:
        raise RequestError(f"{given.folder}: the sweep kept no model (keep_models=False); probe needs them")
    return kept
