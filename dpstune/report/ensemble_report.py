"""The report on restarts put together: each by itself, all together, and what that gains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpstune.common.writing import write_json
from dpstune.errors import counted
from dpstune.report.header import runs_header
from dpstune.report.page import Block, Bullets, Paragraph, Table, write_report
from dpstune.report.tables import digits, format_columns, metric_words, signed, with_interval
from dpstune.runs.folder import write_predictions
from dpstune.studies.ensemble import EnsembleOutcome

OF_WEIGHTS, OF_PROBABILITIES = "mean of weights", "mean of probabilities"
KEPT_BY_THESE_EXAMPLES = (
    " Weights were kept, or not, by these very examples: of weights that are kept, score and gain are a little "
    "optimistic."
)


def write_ensemble_report(outcome: EnsembleOutcome, how: str, command: str | None = None) -> Path:
    """Write report.html, report.md, ensemble.json and predictions/SPLIT.parquet, and return the page.

    Args:
        outcome: What the restarts do together.
        how: ``OF_WEIGHTS`` or ``OF_PROBABILITIES``.
        command: The command line that makes it again.
    """
    folder = outcome.folder
    write_json(folder / "ensemble.json", ensemble_as_json(outcome, how))
    write_predictions(folder / "predictions" / f"{outcome.split}.parquet", _columns(outcome))
    header, *rows = _rows(outcome, how)
    blocks: list[Block] = [
        runs_header(outcome.records, command),
        *(Paragraph(line) for line in summary(outcome, how)),
        Table(header, rows, words=1, strong=frozenset({len(rows) - 1})),
        Paragraph(
            "The intervals are the bootstrap's over examples (95%). The gain is over the mean of the restarts: what a "
            "user who trains one can expect." + (KEPT_BY_THESE_EXAMPLES if how == OF_WEIGHTS else "")
        ),
    ]
    if outcome.notes:
        blocks.append(Bullets(outcome.notes))
    return write_report(folder, f"Ensemble of {counted(len(outcome.records), 'restart')}", blocks)


def summary(outcome: EnsembleOutcome, how: str) -> list[str]:
    """Say what the restarts score together and what that gains, in a line or two."""
    metric, found = outcome.task.metric, outcome.together
    value = with_interval(found.value, found.low, found.high, metric=metric, groups=found.groups)
    gain = with_interval(*_gain(outcome), "+", metric=metric, groups=found.groups)
    lines = [
        f"{how.capitalize()} of {len(outcome.records)} restarts: {metric_words(metric)} {value} on {outcome.split}; "
        f"gain over a restart {gain}"
    ]
    if outcome.model is not None:
        lines.append(f"The model is {outcome.model}, a plain transformers folder.")
    return lines


def format_ensemble(outcome: EnsembleOutcome, how: str) -> str:
    """Return the table for people to read."""
    return format_columns(_rows(outcome, how))


def ensemble_as_json(outcome: EnsembleOutcome, how: str) -> dict[str, Any]:
    """Return what the restarts do together, for programs."""
    together, gain = outcome.together, _gain(outcome)
    return {
        "how": how,
        "task": outcome.task.name,
        "split": outcome.split,
        "examples": len(outcome.answers.ids),
        "metric": outcome.task.metric,
        "restarts": [
            {"run": str(record.folder), "value": value}
            for record, value in zip(outcome.records, outcome.singles, strict=True)
        ],
        "value": together.value,
        "low": together.low,
        "high": together.high,
        "groups": together.groups,
        "gain": gain[0],
        "gain_low": gain[1],
        "gain_high": gain[2],
        "model": None if outcome.model is None else str(outcome.model),
        "notes": outcome.notes,
    }


def _gain(outcome: EnsembleOutcome) -> tuple[float | None, float | None, float | None]:
    """Return how much better all together are than a restart, with its interval; a loss is below 0 in any metric."""
    found = outcome.together.in_the_metric(outcome.task.metric)
    return found.difference, found.difference_low, found.difference_high


def _rows(outcome: EnsembleOutcome, how: str) -> list[list[str]]:
    rows = [["", metric_words(outcome.task.metric), "95% from", "to", "gain", "95% from", "to"]]
    for record, value in zip(outcome.records, outcome.singles, strict=True):
        rows.append([f"{record.method}, seed {record.seed}", digits(value), "", "", "", "", ""])
    together = outcome.together
    scores = map(digits, (together.value, together.low, together.high))
    return [*rows, [how, *scores, *map(signed, _gain(outcome))]]


def _columns(outcome: EnsembleOutcome) -> dict[str, list[Any]]:
    answers, names = outcome.answers, outcome.task.label_names

    def named(values: Any) -> list[Any]:
        return [names[value] for value in values] if names else values.tolist()

    return {
        "id": answers.ids,
        "label": named(answers.gold),
        "prediction": named(answers.predictions),
        "scores": answers.scores.tolist(),
    }
