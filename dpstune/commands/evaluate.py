"""``dpstune eval``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpstune.commands.options import AsJson, DataDir, Trained, asked_columns, command_to_repeat, task_names
from dpstune.common.paths import expanded
from dpstune.errors import RequestError, some_of
from dpstune.report.output import print_json, tell

if TYPE_CHECKING:
    from dpstune.evaluation.targets import Target
    from dpstune.settings.tasks import Kind


def evaluate(
    context: typer.Context,
    trained: Trained,
    task: Annotated[
        str | None,
        typer.Option(
            help="A task, a recipe whose task is meant, or a file of labelled rows; the run's own.",
            autocompletion=task_names,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="validation (default) or test; of mnli both halves, unless one is named.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="COLUMN[,COLUMN]", help="A file's text columns; default: those it was trained on."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A file's label column; default: that it was trained on.")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="What a file is in, such as latin-1; UTF-8, or what its byte-order mark says."),
    ] = None,
    data_dir: DataDir = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME]", help="Other metrics than the task's, the headline first.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a page on what the model gets right and wrong.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write predictions for the GLUE server.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite what --report or --submission finds there.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Most tokens of an example; default: the run's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a trained model on its own task, on another, or on a file of labelled rows.

    Labels of another task are matched by name.

    Example: dpstune eval runs/demo/dps-dense/seed-42-... --task new.csv
    """
    from dpstune.common.writing import make_writable_folder
    from dpstune.data.reading import measured_by
    from dpstune.evaluation.labelled_rows import names_rows, read_labelled_file
    from dpstune.evaluation.own_task import told_of_rows
    from dpstune.evaluation.submission import write_submission
    from dpstune.evaluation.targets import evaluate_target, match_labels, target_of
    from dpstune.evaluation.trained import TrainedModel, find_trained
    from dpstune.evaluation.training_rows import told_of_training_rows
    from dpstune.report.header import evaluation_header
    from dpstune.report.run_report import refuse_taken_folder, write_evaluation_page
    from dpstune.report.tables import INTERVAL, interval_lines, print_evaluations
    from dpstune.studies.row_interval import intervals_over_rows
    from dpstune.training.results import told_of_choice

    place = find_trained(expanded(trained))
    submission, report = submission and expanded(submission), report and expanded(report)
    if metric is not None:
        _metrics(metric)
    if force and submission is None and report is None:
        raise RequestError("--force: overwrites what is there; add --report FOLDER or --submission FILE")
    if report is not None:
        refuse_taken_folder(report, force=force)
        make_writable_folder(report, "--report")
    if task is not None and names_rows(task):
        _refuse_with_a_file({"--split": split, "--data-dir": data_dir, "--submission": submission}, task)
        model = TrainedModel(place, max_length)
        examples = read_labelled_file(task, model, asked_columns(text), label, encoding)
        told, choice = told_of_training_rows(place, examples), None
    else:
        _refuse_without_a_file({"--text": text, "--label": label, "--encoding": encoding})
        data_dir = data_dir and expanded(data_dir).absolute()
        place = place if task is not None else place.reading_from(data_dir)
        target = target_of(place, task, split or "validation", data_dir)
        if submission is not None:
            _refuse_submission(submission, target, force=force)
        examples = target.read()
        told = told_of_rows(place, target, examples)
        choice = told_of_choice(place, target, examples.splits)
        model = TrainedModel(place, max_length)
    if metric is not None:
        examples = measured_by(examples, _metrics(metric, examples.kind))
    if report is not None and all(each.labels is None for each in examples.splits.values()):
        raise RequestError(
            f"--report: split {split or 'validation'} of {examples.name} has no labels: there is nothing to show"
        )
    for note in [*examples.notes, *filter(None, [told, choice])]:
        tell(note)
    labels = match_labels(model, examples)
    if submission is not None and labels is not None and labels.two_way:
        raise RequestError(
            f"--submission: a model with the labels {some_of(model.label_names)} cannot answer with those of "
            f"{examples.name}: {some_of(examples.label_names)}"
        )
    evaluations = evaluate_target(model, examples)
    if cut := model.cut.told():
        tell(cut)
    files = [str(write_submission(submission, examples, each)) for each in evaluations.values()] if submission else []
    reading = labels.description if labels is not None else None
    intervals = intervals_over_rows(examples, evaluations)
    certainty = interval_lines(examples.metric, intervals)
    print_evaluations(f"{place.name} on {examples.name}", evaluations, reading, certainty)
    for file in files:
        tell(f"wrote {file}")
    page: str | None = None
    if report is not None:
        header = evaluation_header(place, examples.name, model, command_to_repeat(context, ("--json",)))
        title = f"{place.name} on {examples.name}"
        has_any = any(each.low is not None for each in intervals.values())
        lines = [
            f"{line}." for line in (told, choice, cut, *certainty, INTERVAL if has_any else None) if line is not None
        ]
        page = str(write_evaluation_page(report, title, header, examples, evaluations, told=lines))
        tell(f"report: {page}")
    if as_json:
        print_json(
            {
                "model": str(place.folder),
                "task": examples.name,
                "metric": examples.metric,
                "labels": reading,
                "precision": model.precision,
                "metrics": {name: each.metrics for name, each in evaluations.items()},
                "intervals": {name: [each.low, each.high] for name, each in intervals.items()},
                "groups": {name: each.groups for name, each in intervals.items()},
                "examples": {name: len(each.predictions) for name, each in evaluations.items()},
                "submission": files,
                "report": page,
            }
        )


def _refuse_submission(submission: Path, target: Target, *, force: bool) -> None:
    """Refuse a file for the GLUE server that cannot be written, before anything is computed."""
    from dpstune.common.writing import make_writable_folder
    from dpstune.evaluation.submission import refuse_no_submission, refuse_taken_files

    refuse_no_submission(target)
    if len(target.splits) > 1 and not submission.is_dir():
        parts = " and ".join(target.splits)
        raise RequestError(f"--submission {submission}: {parts} make two files; give an existing folder")
    refuse_taken_files(submission, target.name, target.splits, force=force)
    make_writable_folder(submission if submission.is_dir() else submission.parent, "--submission")


def _refuse_with_a_file(flags: Mapping[str, object], file: str) -> None:
    for flag, value in flags.items():
        if value is not None:
            raise RequestError(f"{flag}: --task {file} is a file, all of whose rows are scored; leave {flag} out")


def _refuse_without_a_file(flags: Mapping[str, object]) -> None:
    for flag, value in flags.items():
        if value is not None:
            raise RequestError(f"{flag}: tells how a file of rows is read; say which file with --task FILE")


def _metrics(asked: str, kind: Kind | None = None) -> tuple[str, ...]:
    """Read ``--metric``.

    Raises:
        RequestError: See ``check_metrics``.
    """
    from dpstune.settings.metrics import check_metrics

    return check_metrics([name.strip() for name in asked.split(",") if name.strip()], kind, f"--metric {asked}")
