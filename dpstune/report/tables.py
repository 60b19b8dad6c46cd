"""Tables for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.textfile import BYTE_ORDER_MARK, csv_line
from dpstune.errors import counted
from dpstune.report.output import people_console
from dpstune.report.progress import format_value
from dpstune.settings.metrics import METRICS, constant_answer, direction
from dpstune.settings.tasks import Kind
from dpstune.training.results import choice_note, kept_metrics

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dpstune.evaluation.scoring import Evaluation
    from dpstune.studies.choice import Verdict

_LONGEST_TEXT = 160  # characters of an example in a table


def print_result(folder: Path, result: Mapping[str, Any], kind: Kind | None = None) -> None:
    """Print a finished run on stderr: metrics by split, the score of always the same answer, time, folder.

    Args:
        folder: The run's folder.
        result: The content of its result.json.
        kind: The kind of its task; None takes the first that the metric suits.
    """
    console = people_console()
    title = f"{result['recipe']}  {result['method']['name']}  seed {result['seed']}"
    metrics = kept_metrics(result)
    if metrics:
        console.print(_metrics_table(title, metrics, result["examples"]))
    else:
        console.print(f"{title}: nothing was evaluated", soft_wrap=True)
    if result["majority"] is not None:
        always = constant_answer(result["metric"], kind)
        console.print(f"{always}: {result['metric']} {format_value(result['majority'])}", soft_wrap=True)
    note = choice_note(result)
    if note is not None:
        console.print(note, soft_wrap=True)
    console.print(f"{result['steps']} steps in {result['seconds']:.0f} s", soft_wrap=True)
    console.print(str(folder), soft_wrap=True)


def print_evaluations(
    title: str, evaluations: Mapping[str, Evaluation], reading: str | None, intervals: Sequence[str] = ()
) -> None:
    """Print a trained model's metrics on a task on stderr, one row for each split, and how its labels were read.

    Args:
        title: Names model and task.
        evaluations: The evaluation of each split.
        intervals: See ``interval_lines``.
        reading: How the model's labels were matched, in words; None for regression.
    """
    console = people_console()
    counts = {split: len(evaluation.predictions) for split, evaluation in evaluations.items()}
    metrics = {split: evaluation.metrics for split, evaluation in evaluations.items()}
    console.print(_metrics_table(title, metrics, counts))
    if reading is not None:
        console.print(reading, soft_wrap=True)
    for line in intervals:
        console.print(line, soft_wrap=True)
    for split, evaluation in evaluations.items():
        if not evaluation.metrics:
            console.print(f"{split} has no labels: there is nothing to score", soft_wrap=True)
        for name in evaluation.undefined:
            why = "the model gives every example the same value, or all gold labels are equal"
            if METRICS[name].needs == "probabilities" and evaluation.probabilities is None:
                why = "it needs the probability of each label, and the task's labels are finer than the model's"
            console.print(f"{split}: {name} is undefined: {why}", style="bold", soft_wrap=True)


def _metrics_table(
    title: str, splits: Mapping[str, Mapping[str, float | None]], examples: Mapping[str, int]
) -> RenderableType:
    from rich.table import Table

    names = list(dict.fromkeys(name for metrics in splits.values() for name in metrics))
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column("split")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("examples", justify="right")
    for split, metrics in splits.items():
        values = [format_value(metrics[name]) if name in metrics else "" for name in names]
        table.add_row(split, *values, str(examples[split]))
    return table


def metric_words(metric: str) -> str:
    """Return a metric's name, and where lower is better say so.

    >>> metric_words("accuracy"), metric_words("rmse")
    ('accuracy', 'rmse (lower is better)')
    """
    return f"{metric} (lower is better)" if direction(metric) < 0 else metric


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows into columns two spaces apart: the same text for a terminal, a pipe and a file.

    >>> print(format_columns([("a", "bc"), ("def", "g")]))
    a    bc
    def  g
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as CSV: numbers in full, None as an empty cell.

    >>> csv_text([["a", "b"], [0.1, None]])
    'a,b\\n0.1,\\n'
    """
    return "".join(f"{csv_line(row)}\n" for row in rows)


def spreadsheet_text(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as ``csv_text`` does, so that a spreadsheet knows them as UTF-8: by a byte-order mark."""
    return BYTE_ORDER_MARK + csv_text(rows)


def digits(value: float | None) -> str:
    """Write a number to four digits, None as an empty text."""
    return "" if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """Write a difference to four digits, None as nothing.

    >>> signed(0.25), signed(None)
    ('+0.2500', '')
    """
    return "" if value is None else f"{value:+.4f}"


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    sign: str = "",
    *,
    metric: str | None = None,
    groups: int | None = None,
) -> str:
    """Write a value with its 95% interval.

    Args:
        value: The value; None where it is undefined.
        low, high: The interval's ends; None, or equal, for none: where every draw of the rows gives the same, as
            where all answers are right, draws cannot tell how sure that is.
        sign: ``+`` writes the sign of all three.
        metric: Whose value it is; some have no interval.
        groups: How many groups were drawn; None where rows were.

    >>> with_interval(0.5, 0.25, 0.75), with_interval(1.0, 1.0, 1.0)
    ('0.5000 (95% interval 0.2500 to 0.7500)', '1.0000 (no interval: every draw of these rows gives the same)')
    >>> with_interval(0.5, 0.25, 0.75, groups=12)
    '0.5000 (95% interval 0.2500 to 0.7500, 12 groups drawn)'
    >>> with_interval(0.5, None, None, metric="calibration_error")
    '0.5000 (no interval: in rows drawn anew it is too large)'
    """
    if value is None:
        return "undefined"
    if metric in METRICS and not METRICS[metric].has_interval:
        return f"{value:{sign}.4f} (no interval: in rows drawn anew it is too large)"
    if low is None or high is None or low == high:
        return f"{value:{sign}.4f} (no interval: every draw of these rows gives the same)"
    drawn = "" if groups is None else f", {counted(groups, 'group')} drawn"
    return f"{value:{sign}.4f} (95% interval {low:{sign}.4f} to {high:{sign}.4f}{drawn})"


INTERVAL = (
    "The interval is the bootstrap's over rows: how far the score hangs on which rows were scored, not on the seed"
)


def interval_lines(metric: str, found: Mapping[str, Verdict]) -> list[str]:
    """Return a line a split: how far its score hangs on which rows were scored; see ``intervals_over_rows``."""
    return [
        f"{split}: {metric_words(metric)} "
        f"{with_interval(each.value, each.low, each.high, metric=metric, groups=each.groups)}"
        for split, each in found.items()
    ]


def percent(share: float) -> str:
    """Write a share in percent.

    >>> percent(0.125)
    '12.5%'
    """
    return f"{100 * share:.1f}%"


def short_text(texts: Sequence[str]) -> str:
    """Return an example's texts for a cell of a table; of long ones the beginning."""
    text = " / ".join(texts)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT].rstrip()} ..."


def text_columns(count: int) -> list[str]:
    """Name the columns of a CSV that hold an example's texts.

    >>> text_columns(0), text_columns(1), text_columns(2)
    ([], ['text'], ['text1', 'text2'])
    """
    return ["text"] if count == 1 else [f"text{number}" for number in range(1, count + 1)]
