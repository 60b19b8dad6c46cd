"""The report on transfer: a table for the terminal, CSV, JSON, a figure, Markdown and an HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpstune.common.writing import write_json, write_text
from dpstune.report.figures import dress, method_colour, method_marker, new_figure, plain_text, write_figure
from dpstune.report.header import runs_header
from dpstune.report.page import Block, Bullets, Heading, Image, Paragraph, Table, write_report
from dpstune.report.tables import csv_text, digits, format_columns, metric_words
from dpstune.settings.metrics import constant_answer
from dpstune.studies.points import Point, group_points, model_names
from dpstune.studies.transfer import NamedTarget, TargetScore, TransferCell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpstune.data.reading import TaskData


def write_transfer_report(
    folder: Path,
    recipe: str,
    scores: Sequence[TargetScore],
    cells: Sequence[TransferCell],
    targets: Sequence[NamedTarget],
    notes: Sequence[str],
    command: str | None = None,
) -> Path:
    """Write report.html, report.md, transfer.csv, transfer.json, transfer.png and transfer.svg.

    transfer.csv has one row for each run and target.

    Args:
        folder: Where to write; made if it does not exist.
        recipe: The recipe's name.
        scores: The scores of every run on every target.
        cells: Their summary.
        targets: The targets, in the order of the columns.
        notes: What else the reader should know, one line each.
        command: The command line that makes the report again.

    Returns:
        The HTML page; it needs no other file.
    """
    write_text(folder / "transfer.csv", _scores_csv(scores))
    write_json(folder / "transfer.json", {"recipe": recipe, "table": [cell.as_json() for cell in cells]})
    figure = transfer_figure(cells, targets)
    for ending in ("png", "svg"):
        write_figure(folder / f"transfer.{ending}", figure)
    title = f"Transfer of {recipe}"
    blocks: list[Block] = [
        runs_header(list({str(score.run.folder): score.run for score in scores}.values()), command),
        Paragraph(_what_was_run(scores, targets)),
        Heading("In-domain and out-of-domain"),
        _table(cells, targets),
        Paragraph(
            "Mean and standard deviation over seeds (n - 1 in the denominator). Under each target, in brackets: the "
            "change against the in-domain value, averaged over seeds. The last column is the mean over the "
            f"out-of-domain targets that share the in-domain metric, {metric_words(targets[0].examples.metric)}."
        ),
        Image(folder / "transfer.png", "Each method's value on each target, in-domain targets first"),
        Heading("How labels are read"),
        Bullets(_readings(scores)),
    ]
    if notes:
        blocks += [Heading("Notes"), Bullets(notes)]
    return write_report(folder, title, blocks)


def format_transfer(cells: Sequence[TransferCell], targets: Sequence[NamedTarget]) -> str:
    """Return the table for a terminal: a row for each method, a column for each target, changes in brackets."""
    table = _table(cells, targets)
    return format_columns([tuple(table.header), *map(tuple, table.rows)])


def transfer_figure(cells: Sequence[TransferCell], targets: Sequence[NamedTarget]) -> Figure:
    """Draw each method's mean and standard deviation on each target, the in-domain targets left of a line."""
    points = _by_point(cells)
    figure, axes = new_figure(max(7.0, 2.6 + 1.5 * len(targets)), 4.8)
    width = 0.7 / max(1, len(points))
    for number, (point, row) in enumerate(points.items()):
        places = np.arange(len(targets)) + (number - (len(points) - 1) / 2) * width
        axes.errorbar(
            places,
            [row[each.name].mean for each in targets],
            [row[each.name].std or 0.0 for each in targets],
            label=plain_text(point.name),
            color=method_colour(point.method),
            marker=method_marker(point.method),
            markersize=7,
            capsize=4,
            linestyle="none",
        )
    for number, majority in enumerate(_majorities(cells, targets)):
        if majority is not None:
            bounds = (number - 0.42, number + 0.42)
            axes.hlines(majority, *bounds, colors="#555555", linestyles="--", linewidth=1.2)
    home = sum(each.in_domain for each in targets)
    if 0 < home < len(targets):
        axes.axvline(home - 0.5, color="#999999", linewidth=1)
    axes.set_xticks(range(len(targets)), [plain_text(f"{each.name}\n{each.split}") for each in targets])
    axes.set_xlim(-0.6, len(targets) - 0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    metrics = ", ".join(dict.fromkeys(metric_words(each.examples.metric) for each in targets))
    dress(
        axes,
        "In-domain (left) and out-of-domain; ± standard deviation over seeds\n"
        f"dashed: {one_answer(_tasks(cells, targets))}, by the target's own",
        "",
        metrics,
        grid="y",
    )
    return figure


def _by_point(cells: Sequence[TransferCell]) -> dict[Point, dict[str, TransferCell]]:
    points: dict[Point, dict[str, TransferCell]] = {}
    for cell in cells:
        points.setdefault(cell.point, {})[cell.target] = cell
    return points


def _table(cells: Sequence[TransferCell], targets: Sequence[NamedTarget]) -> Table:
    header = ["method", "seeds", *(each.name + (" (in-domain)" if each.in_domain else "") for each in targets)]
    rows = []
    for point, row in _by_point(cells).items():
        seeds = len(next(iter(row.values())).scores)
        rows.append([point.name, str(seeds), *(_cell(row[each.name]) for each in targets), _out_of_domain(row)])
    majorities = map(digits, _majorities(cells, targets))
    return Table([*header, "out-of-domain"], [*rows, [one_answer(_tasks(cells, targets)), "", *majorities, ""]])


def one_answer(tasks: Iterable[TaskData]) -> str:
    """Name the row of what one answer to all gets, by what that answer is.

    Args:
        tasks: Those of the columns in which it gets a value.
    """
    found = (constant_answer(task.metric, task.kind).replace(" training ", " ") for task in tasks)
    words = dict.fromkeys(each.removeprefix("always answering ") for each in found)
    return f"always {' or '.join(words) or 'the same answer'}"


def _tasks(cells: Sequence[TransferCell], targets: Sequence[NamedTarget]) -> list[TaskData]:
    """Return the targets' tasks in which one answer to all gets a value."""
    known = zip(targets, _majorities(cells, targets), strict=True)
    return [each.examples for each, majority in known if majority is not None]


def _majorities(cells: Sequence[TransferCell], targets: Sequence[NamedTarget]) -> list[float | None]:
    by_target = {cell.target: cell.majority for cell in cells}
    return [by_target[each.name] for each in targets]


def _cell(cell: TransferCell) -> str:
    spread = "" if cell.std is None else f" ± {digits(cell.std)}"
    change = "" if cell.change is None else f" ({round(cell.change, 4) + 0.0:+.4f})"  # + 0.0 takes the sign off a zero
    return f"{digits(cell.mean)}{spread}{change}"


def _out_of_domain(row: Mapping[str, TransferCell]) -> str:
    means = [cell.mean for cell in row.values() if cell.drop is not None]
    return digits(float(np.mean(means))) if means else ""


def _what_was_run(scores: Sequence[TargetScore], targets: Sequence[NamedTarget]) -> str:
    first = scores[0].run
    runs = {str(score.run.folder) for score in scores}
    sizes = ", ".join(f"{score.target} {score.examples}" for score in scores[: len(targets)])
    models = ", ".join(model_names([score.run for score in scores]))
    return (
        f"{len(runs)} runs of {models} trained on {first.result['task']} "
        f"({first.examples('train')} examples) and evaluated, without further training, on other tasks. "
        f"Examples: {sizes}."
    )


def _readings(scores: Sequence[TargetScore]) -> list[str]:
    return [
        f"{target}: {labels}"
        for target, labels in dict.fromkeys((score.target, score.labels) for score in scores)
        if labels
    ]


def _scores_csv(scores: Sequence[TargetScore]) -> str:
    header = [
        *("method", "settings", "seed", "target", "split", "metric", "value", "majority", "examples", "labels"),
        "folder",
    ]
    points = group_points([score.run for score in scores])
    settings = {str(run.folder): point.label for point, runs in points for run in runs.values()}
    rows = [
        [
            *(score.run.method, settings[str(score.run.folder)], score.run.seed, score.target, score.split),
            *(score.metric, score.metrics[score.metric], score.majority, score.examples, score.labels),
            score.run.folder,
        ]
        for score in scores
    ]
    return csv_text([header, *rows])
