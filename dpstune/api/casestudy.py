"""``dpstune.casestudy``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpstune.api.arguments import as_count, as_folder, as_folder_or_none, as_methods
from dpstune.api.guest import guest
from dpstune.api.recipes import RecipeLike, as_file, as_overrides
from dpstune.api.results import CaseStudyResult
from dpstune.api.sweep import run


@guest
def casestudy(
    recipe: RecipeLike,
    *,
    methods: str | Sequence[str] = (),
    restarts: int = 10,
    split: str | None = None,
    baseline: str | None = None,
    dropout: str | float | None = None,
    jobs: int = 1,
    data_dir: str | Path | None = None,
    output: str | Path = "runs",
    quiet: bool = False,
    **changes: Any,
) -> CaseStudyResult:
    """Find the examples that most restarts of a method get right, or wrong.

    Args:
        recipe: A shipped recipe's name, a YAML file, or a mapping of sections to keys.
        methods: ``NAME`` or ``NAME:key=value,...``, one or several; plain fine-tuning and the recipe's own where
            none is named.
        restarts: Seeds of each method.
        split: The split to study; the headline's.
        baseline: The method to compare with; vanilla.
        dropout: As in ``dpstune.sweep``; when left out, each method's own rule.
        jobs: Worker processes; see ``dpstune.sweep``.
        data_dir: Local data in the place of the hub.
        output: The folder that holds all runs.
        quiet: Tell nothing on stderr.
        changes: Other keys of every run: ``training={"epochs": 1}``, or ``**{"training.epochs": 1}``.

    Raises:
        RequestError: The recipe, a method or the split is wrong, or the task is regression.
        RunError: Runs failed.
        Interrupted: A signal came; every run is saved, and the same call goes on.

    >>> import dpstune
    >>> few = {"training": {"steps": 2}, "data": {"train_size": 32}}
    >>> study = dpstune.casestudy("demo", methods=["vanilla", "mixout"], restarts=1, quiet=True, **few)
    >>> study.table["method"].tolist(), (study.table["easy"] + study.table["hard"]).tolist()
    (['vanilla', 'mixout'], [500, 500])
    """
    from dpstune.methods import BASELINE
    from dpstune.recipe.recipe import load_recipe
    from dpstune.report.casestudy_report import summarize, write_case_study
    from dpstune.report.output import tell
    from dpstune.studies.casestudy.sources import refuse_what_cannot_be_studied, study_sweep
    from dpstune.studies.dropout import settle_dropout
    from dpstune.studies.sweep.sweep import Sweep, SweepRequest

    restarts, jobs = as_count("restarts", restarts), as_count("jobs", jobs)
    folder = as_folder("output", output)
    name = as_file(recipe, folder)
    request = SweepRequest(
        recipe=name,
        methods=as_methods(methods) or tuple(dict.fromkeys((BASELINE, load_recipe(name).recipe.method.name))),
        seeds=restarts,
        output=folder,
        overrides=tuple(as_overrides(changes)),
        data_dir=as_folder_or_none("data_dir", data_dir),
        search=False,
        study="casestudy",
    )
    planned = Sweep(request if dropout is None else settle_dropout(request, str(dropout)))
    refuse_what_cannot_be_studied(planned, split, baseline)
    outcome = run(planned, jobs, quiet=quiet)
    study = study_sweep(planned, outcome, split=split, baseline=baseline)
    place = planned.folder / (split or "")
    page = None if study is None else write_case_study(place, study, tell=None if quiet else tell)
    outcome.refuse_what_is_missing()
    assert study is not None
    assert page is not None
    for note in () if quiet else study.notes:
        tell(note)
    rows = [
        {key: value if not isinstance(value, list) else len(value) for key, value in each.items() if key != "phenomena"}
        for each in summarize(study)["methods"]
    ]
    return CaseStudyResult(place, rows, page, notes=list(study.notes))
