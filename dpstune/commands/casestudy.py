"""``dpstune casestudy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpstune.commands.options import (
    AsJson,
    DataDir,
    Dropout,
    Jobs,
    Output,
    Overrides,
    Storage,
    command_to_repeat,
    method_names,
    recipe_names,
)
from dpstune.common.paths import expanded
from dpstune.errors import RequestError
from dpstune.report.output import print_json, tell

if TYPE_CHECKING:
    from dpstune.studies.casestudy.casestudy import CaseStudy
    from dpstune.studies.casestudy.sources import SourcesRequest
    from dpstune.studies.sweep.sweep import SweepRequest

DEFAULT_RESTARTS = 10  # Appendix A of the paper


def casestudy(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Option(help="A shipped recipe's name, or a YAML file.", autocompletion=recipe_names)
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="A method, NAME or NAME:key=value. Repeatable; vanilla and the recipe's own.",
            autocompletion=method_names,
        ),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Restarts of each method; default: {DEFAULT_RESTARTS}. With --from: restarts behind each count.",
        ),
    ] = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE_OR_RUNS", help="Study existing predictions; train nothing. Repeatable."),
    ] = None,
    overrides: Overrides = None,
    dropout: Dropout = None,
    split: Annotated[str | None, typer.Option(help="The split to study; default: that of the headline.")] = None,
    baseline: Annotated[str | None, typer.Option(help="The method to compare with; default: vanilla.")] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="COLUMN", help="A text column in the files of --from. Repeatable."),
    ] = None,
    jobs: Jobs = None,
    storage: Storage = None,
    data_dir: DataDir = None,
    output: Output = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Find the examples that most restarts get right, or wrong.

    The same command again goes on where it was stopped, and makes the pages anew.

    Example: dpstune casestudy --recipe demo --restarts 10
    """
    from dpstune.methods import BASELINE
    from dpstune.studies.casestudy.sources import SourcesRequest
    from dpstune.studies.dropout import settle_dropout
    from dpstune.studies.grid import load_first
    from dpstune.studies.sweep.sweep import SweepRequest

    command = command_to_repeat(context)
    output = expanded(output)
    data_dir = data_dir and expanded(data_dir).absolute()
    loaded = None
    if recipe is not None:
        trained = () if sources else methods  # with --from, methods only select from what is there
        loaded = load_first(recipe, trained, overrides or (), data_dir)
    if sources:
        training = {"--storage": storage, "--jobs": jobs, "--dropout": dropout, "--set": None if recipe else overrides}
        for flag, given in training.items():
            if given:
                raise RequestError(f"{flag}: nothing is trained with --from; leave it out")
        request = SourcesRequest(
            sources=tuple(expanded(source) for source in sources),
            output=output,
            recipe=loaded,
            methods=tuple(methods or ()),
            restarts=restarts,
            split=split,
            baseline=baseline,
            texts=tuple(texts or ()),
            data_dir=data_dir,
        )
        _study(request, command, as_json)
        return
    if recipe is None or loaded is None:
        raise RequestError("give --recipe R to train restarts, or --from FILE_OR_RUNS to study existing ones")
    if texts:
        raise RequestError("--text names a column in the files of --from; without --from, leave it out")
    asked = SweepRequest(
        recipe=recipe,
        methods=tuple(methods or dict.fromkeys((BASELINE, loaded.recipe.method.name))),
        seeds=restarts or DEFAULT_RESTARTS,
        output=output,
        overrides=tuple(overrides or ()),
        data_dir=data_dir,
        storage=storage,
        search=False,
        study="casestudy",
    )
    if dropout is not None:
        asked = settle_dropout(asked, dropout)
    _train_and_study(asked, jobs, split, baseline, command, as_json)


def _study(request: SourcesRequest, command: str, as_json: bool) -> None:
    from dpstune.studies.casestudy.sources import study_sources

    _report(study_sources(request), request.folder, command, {}, as_json)


def _train_and_study(
    asked: SweepRequest, jobs: int | None, split: str | None, baseline: str | None, command: str, as_json: bool
) -> None:
    from dpstune.commands.watched import run_watched
    from dpstune.studies.casestudy.sources import refuse_what_cannot_be_studied, study_sweep
    from dpstune.studies.dropout import planned_dropout
    from dpstune.studies.sweep.sweep import Sweep

    planned = Sweep(asked)
    refuse_what_cannot_be_studied(planned, split, baseline)
    if dropout_line := planned_dropout(planned):
        tell(dropout_line)
    outcome = run_watched(planned, jobs)
    study = study_sweep(planned, outcome, split=split, baseline=baseline)
    _report(study, planned.folder / (split or ""), command, outcome.as_json(), as_json)
    outcome.refuse_what_is_missing()


def _report(study: CaseStudy | None, folder: Path, command: str, runs: dict[str, Any], as_json: bool) -> None:
    """Write a study's report, and print what is in it for people and programs; without runs there is no study."""
    from dpstune.report.casestudy_report import format_proportions, summarize, write_case_study

    told: dict[str, Any] = {"report": None}
    if study is not None:
        page = write_case_study(folder, study, command, tell)
        for note in study.notes:
            tell(f"note: {note}")
        tell(format_proportions(study))
        tell(f"report: {page}")
        told = {**summarize(study), "report": str(page)}
    if as_json:
        print_json({**runs, **told})
