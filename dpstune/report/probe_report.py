"""The report on a probe: a table for the terminal, CSV, JSON, a figure, Markdown and an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from dpstune.common.writing import write_json, write_text
from dpstune.device.hardware import describe_environment, device_type
from dpstune.errors import counted
from dpstune.models.names import shown_models
from dpstune.report.figures import write_figure
from dpstune.report.header import report_header
from dpstune.report.page import Block, Bullets, Facts, Heading, Image, Paragraph, Table, write_report
from dpstune.report.probe_figure import MEASURES, layers_figure
from dpstune.report.progress import format_value
from dpstune.report.tables import csv_text, digits, format_columns, metric_words, signed
from dpstune.report.transfer_report import one_answer
from dpstune.studies.probe.linear_probe import ProbedTask
from dpstune.studies.probe.outcome import LinearScore, Measure, Probed, ProbedPoint, ProbeOutcome

PRETRAINED = "pre-trained"


def write_probe_report(outcome: ProbeOutcome, command: str | None = None) -> Path:
    """Write report.html, report.md, probe.json, layers.csv, layers.png and layers.svg, and scores.csv of linear probes.

    layers.csv has a row for each run and layer, scores.csv for each run and task.

    Args:
        outcome: What was found.
        command: The command line that makes the report again.

    Returns:
        The HTML page; it needs no other file.
    """
    folder = outcome.folder
    write_json(folder / "probe.json", probe_as_json(outcome))
    write_text(folder / "layers.csv", csv_text(list(_layer_rows(outcome))))
    if outcome.tasks:
        write_text(folder / "scores.csv", csv_text(list(_score_rows(outcome))))
    figure = layers_figure(outcome.points, outcome.texts)
    for ending in ("png", "svg"):
        write_figure(folder / f"layers.{ending}", figure)
    blocks: list[Block] = [
        _header(outcome, command),
        Paragraph(
            f"How like the hidden states of {_models(outcome)} are to those of the pre-trained model, on "
            f"{counted(outcome.count, 'text')} of {outcome.texts}. A text's state in a layer is the mean over its "
            "tokens; of an encoder with a decoder, the encoder's alone. Linear CKA (Kornblith et al. 2019, the biased "
            "estimate) is 1 where one model's states are the other's rotated or scaled, and lower the less a linear "
            "function of one says of the other; the mean cosine is 1 where no state has turned. Computed in fp32."
        ),
        _table(_rows(outcome)),
        Image(folder / "layers.png", "Each method's likeness to the pre-trained model over the layers: CKA and cosine"),
    ]
    if outcome.tasks:
        blocks += [Heading("Linear probes"), _table(_score_table(outcome)), Paragraph(_how(outcome))]
    for measure, name in MEASURES.items():
        blocks += [Heading(f"Every layer: {name}"), _table(_layer_table(outcome, measure))]
    if any(len(point.restarts) > 1 for point in outcome.points):
        blocks.append(Paragraph("Mean ± standard deviation over restarts (n - 1 in the denominator)."))
    if outcome.notes:
        blocks += [Heading("Notes"), Bullets(outcome.notes)]
    return write_report(folder, "How far fine-tuning moved the representations", blocks)


def format_probe(outcome: ProbeOutcome) -> str:
    """Return the tables for a terminal: likeness to the pre-trained model, and what linear probes score."""
    tables = [_rows(outcome), *([_score_table(outcome)] if outcome.tasks else [])]
    return "\n\n".join(map(format_columns, tables))


def probe_as_json(outcome: ProbeOutcome) -> dict[str, Any]:
    """Return what was found, for programs; lists of layers begin with the embeddings."""
    return {
        "texts": outcome.texts,
        "count": outcome.count,
        "tasks": [
            {
                "task": task.name,
                "split": task.split,
                "metric": task.data.metric,
                "train_examples": len(task.train),
                "examples": len(task.scored),
                "majority": task.majority,
            }
            for task in outcome.tasks
        ],
        "pretrained_models": [
            {
                "name": each.name,
                "model": each.start.model.name,
                "revision": each.start.model.revision,
                "max_length": each.start.max_length,
                "scores": dict(each.scores),
            }
            for each in outcome.pretrained
        ],
        "points": [_point_as_json(outcome, point) for point in outcome.points],
        "notes": list(outcome.notes),
    }


def _point_as_json(outcome: ProbeOutcome, point: ProbedPoint) -> dict[str, Any]:
    layers = range(point.layers)
    measures = {
        key: [value(measure, layer) for layer in layers]
        for measure in MEASURES
        for key, value in ((measure, point.mean), (f"{measure}_std", point.std))
    }
    return {
        "method": point.point.method,
        "settings": dict(point.point.settings),
        "pretrained_model": outcome.began_as(point).name,
        "seeds": len(point.restarts),
        **measures,
        "scores": [
            {
                "task": score.task.name,
                "metric": score.task.data.metric,
                "mean": score.verdict.value,
                "std": score.std,
                "low": score.verdict.low,
                "high": score.verdict.high,
                "pretrained": score.pretrained,
                "difference": score.verdict.difference,
                "difference_low": score.verdict.difference_low,
                "difference_high": score.verdict.difference_high,
            }
            for score in point.scores
        ],
        "runs": [
            {
                "run": each.subject.place.name,
                "seed": _seed(each),
                "cka": list(each.cka),
                "cosine": list(each.cosine),
                "scores": {score.task.name: score.scores[number] for score in point.scores},
            }
            for number, each in enumerate(point.restarts)
        ],
    }


def points_as_rows(outcome: ProbeOutcome) -> list[dict[str, Any]]:
    """Return a row for each point, by column: the mean of its layers' CKA and cosine, and what linear probes score.

    A task's columns are ``TASK METRIC`` and ``TASK minus pre-trained``: no name of a task makes them those of another.
    """
    return [
        {
            "method": point.point.name,
            "restarts": len(point.restarts),
            **{measure: _mean_of_layers(point, measure) for measure in MEASURES},
            **{f"{score.task.name} {score.task.data.metric}": score.verdict.value for score in point.scores},
            **{f"{score.task.name} minus pre-trained": score.verdict.difference for score in point.scores},
        }
        for point in outcome.points
    ]


def layers_as_rows(outcome: ProbeOutcome) -> list[dict[str, Any]]:
    """Return a row for each run and layer, by column; those of layers.csv."""
    header, *rows = _layer_rows(outcome)
    return [dict(zip(header, row, strict=True)) for row in rows]


def _mean_of_layers(point: ProbedPoint, measure: Measure) -> float | None:
    means = [value for layer in range(point.layers) if (value := point.mean(measure, layer)) is not None]
    return float(np.mean(means)) if means else None


def _header(outcome: ProbeOutcome, command: str | None) -> Facts:
    import torch

    shown = shown_models(dict.fromkeys(each.start.model.name for each in outcome.pretrained))
    return report_header(
        recipe=", ".join(dict.fromkeys(str(record.result["recipe"]) for record in outcome.records)),
        model=", ".join(shown.values()),
        model_places=[name for name, text in shown.items() if text != name],
        task=", ".join(dict.fromkeys(str(record.result["task"]) for record in outcome.records)),
        environments=[describe_environment(torch.device(device_type()), "fp32", 1)],
        dates=[date.today().isoformat()],
        command=command,
    )


def _models(outcome: ProbeOutcome) -> str:
    return counted(sum(len(point.restarts) for point in outcome.points), "fine-tuned model")


def _how(outcome: ProbeOutcome) -> str:
    sizes = "; ".join(
        f"{task.name}: {len(task.train)} training rows, {len(task.scored)} scored{_groups(outcome, task)}"
        for task in outcome.tasks
    )
    return (
        "Each model's last layer, the mean over tokens, is read by a linear function alone: logistic regression, or "
        "ridge regression of values, its penalty chosen by cross-validation over the training rows. Beside the mean "
        "over restarts: the difference from the pre-trained model, with the 95% interval of the paired bootstrap over "
        f"the scored rows. {sizes}."
    )


def _groups(outcome: ProbeOutcome, task: ProbedTask) -> str:
    """Say how many groups the interval draws; nothing where it draws rows."""
    scores = (score for point in outcome.points for score in point.scores if score.task is task)
    groups = next((score.verdict.groups for score in scores), None)
    return "" if groups is None else f", drawn by {counted(groups, 'group')}"


def _table(rows: list[list[str]]) -> Table:
    return Table(rows[0], rows[1:])


def _rows(outcome: ProbeOutcome) -> list[list[str]]:
    columns = [f"{name}, {of}" for name in MEASURES.values() for of in ("mean of layers", "last layer")]
    rows = [["method", "restarts", *columns]]
    for point in outcome.points:
        last = point.layers - 1
        cells = [cell for each in MEASURES for cell in (digits(_mean_of_layers(point, each)), _cell(point, each, last))]
        rows.append([point.point.name, str(len(point.restarts)), *cells])
    return rows


def _layer_table(outcome: ProbeOutcome, measure: Measure) -> list[list[str]]:
    most = max(point.layers for point in outcome.points)
    rows = [["layer", *(point.point.name for point in outcome.points)]]
    for layer in range(most):
        cells = [_cell(point, measure, layer) if layer < point.layers else "" for point in outcome.points]
        rows.append([str(layer) if layer else "embeddings", *cells])
    return rows


def _cell(point: ProbedPoint, measure: Measure, layer: int) -> str:
    return _with_std(digits(point.mean(measure, layer)), point.std(measure, layer))


def _with_std(mean: str, std: float | None) -> str:
    return f"{mean} ± {digits(std)}" if std is not None else mean


def _score_table(outcome: ProbeOutcome) -> list[list[str]]:
    header = ["linear probe", "restarts"]
    for task in outcome.tasks:
        header += [f"{task.name}, {metric_words(task.data.metric)}", "minus pre-trained"]
    rows = [header]
    for each in outcome.pretrained:
        cells = [cell for task in outcome.tasks for cell in (format_value(each.scores[task.name]), "")]
        rows.append([f"{PRETRAINED} {each.name}", "", *cells])
    for point in outcome.points:
        cells = [cell for score in point.scores for cell in _score_cells(score)]
        rows.append([point.point.name, str(len(point.restarts)), *cells])
    majorities = [cell for task in outcome.tasks for cell in (digits(task.majority), "")]
    known = [task.data for task in outcome.tasks if task.majority is not None]
    return [*rows, [one_answer(known), "", *majorities]]


def _score_cells(score: LinearScore) -> tuple[str, str]:
    verdict = score.verdict
    mean = _with_std(format_value(verdict.value), score.std)
    if verdict.difference is None:
        return mean, format_value(None)
    if verdict.difference_low is None:
        return mean, signed(verdict.difference)
    interval = f"{signed(verdict.difference_low)} to {signed(verdict.difference_high)}"
    return mean, f"{signed(verdict.difference)} ({interval})"


def _seed(probed: Probed) -> int | None:
    return probed.subject.record.seed if probed.subject.record is not None else None


def _layer_rows(outcome: ProbeOutcome) -> Iterator[list[Any]]:
    yield ["method", "settings", "seed", "layer", *MEASURES, "pretrained_model", "folder"]
    for point in outcome.points:
        for each in point.restarts:
            for layer in range(point.layers):
                yield [
                    *(point.point.method, point.point.label, _seed(each), layer),
                    *(each.cka[layer], each.cosine[layer], outcome.began_as(point).name, each.subject.place.name),
                ]


def _score_rows(outcome: ProbeOutcome) -> Iterator[list[Any]]:
    yield [
        *("method", "settings", "seed", "task", "split", "metric", "value", "pretrained", "majority"),
        *("train_examples", "examples", "pretrained_model", "folder"),
    ]
    for point in outcome.points:
        for score in point.scores:
            task = score.task
            for each, value in zip(point.restarts, score.scores, strict=True):
                yield [
                    *(point.point.method, point.point.label, _seed(each), task.name, task.split, task.data.metric),
                    *(value, score.pretrained, task.majority, len(task.train), len(task.scored)),
                    *(outcome.began_as(point).name, each.subject.place.name),
                ]
