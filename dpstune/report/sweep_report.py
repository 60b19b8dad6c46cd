"""The report on many runs: Markdown, an HTML page, CSV files and figures, rebuilt from the runs alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dpstune.common.writing import write_text
from dpstune.errors import RequestError, counted
from dpstune.methods import BASELINE
from dpstune.report.figures import write_figure
from dpstune.report.header import runs_header
from dpstune.report.page import Block, Bullets, Heading, Image, Paragraph, Table, write_report
from dpstune.report.sweep_figures import best_points_figure, expected_best_figure, settings_figure
from dpstune.report.tables import csv_text, digits, metric_words
from dpstune.settings.metrics import METRICS, constant_answer, direction
from dpstune.settings.sections import task_kind
from dpstune.studies.dropout import found_dropout
from dpstune.studies.environments import COMPARED, compared_value
from dpstune.studies.points import format_setting, model_names, task_names
from dpstune.studies.records import RunRecord
from dpstune.studies.summary import (
    Comparison,
    PointSummary,
    best_points,
    compare_with_baseline,
    summarize_points,
)
from dpstune.training.results import choice_note

SIGNIFICANT = 0.05  # the usual level; the report says if so few seeds cannot reach it
_MOST_SEEDS_LISTED = 10


def write_sweep_report(
    folder: Path, records: Sequence[RunRecord], *, notes: Sequence[str] = (), command: str | None = None
) -> Path:
    """Write report.md, report.html, points.csv, runs.csv and the figures.

    Args:
        folder: Where to write; made if it does not exist.
        records: Finished runs of one task, and runs of it that diverged; see ``dpstune.studies.records``.
        notes: What else the reader should know, one line each: skipped folders, failed runs, pruning.
        command: The command line that makes the report again.

    Returns:
        The HTML page; it needs no other file.

    Raises:
        RequestError: There is no run, the runs' values cannot be compared, or the folder cannot be written to.
    """
    _check_comparable(records)
    summaries = summarize_points(records)
    records = [run for summary in summaries for run in summary.runs.values()]
    best = best_points(summaries)
    images = _write_figures(folder, summaries, records, best)
    write_text(folder / "points.csv", _points_csv(summaries))
    write_text(folder / "runs.csv", _runs_csv(summaries))
    title = f"Sweep of {_recipe_names(records)}"
    blocks: list[Block] = [
        runs_header(records, command),
        Paragraph(_what_was_run(records, summaries)),
        Paragraph(_majority_text(records)),
        *_best_section(summaries, best, compare_with_baseline(best), records[0]),
        Heading("Figures"),
        *images,
        *_points_section(summaries, best),
        Heading("How to read the numbers"),
        Bullets(_explanations(summaries)),
    ]
    if notes:
        blocks += [Heading("Notes"), Bullets(notes)]
    return write_report(folder, title, blocks)


def _check_comparable(records: Sequence[RunRecord]) -> None:
    if not records:
        raise RequestError("there is no finished run to report on")
    for what, values in (
        ("tasks", task_names(records)),
        ("metrics", _distinct(record.metric for record in records)),
        ("splits", _distinct(record.split for record in records)),
    ):
        if len(values) > 1:
            raise RequestError(f"the runs are of several {what} ({', '.join(values)}); report on one at a time")


def _write_figures(
    folder: Path, summaries: Sequence[PointSummary], records: Sequence[RunRecord], best: dict[str, PointSummary]
) -> list[Image]:
    metric, split = records[0].metric, records[0].split
    images = []

    def keep(name: str, figure: Any, description: str) -> None:
        write_figure(folder / name, figure)
        images.append(Image(folder / name, description))

    majorities = {record.majority for record in records}
    majority = majorities.pop() if len(majorities) == 1 else None
    keep(
        "best-points.png",
        best_points_figure(list(best.values()), metric, split, majority),
        f"Box plot of {metric} on {split} at the best point of each method, with every seed's value",
    )
    for method in best:
        figure = settings_figure([each for each in summaries if each.point.method == method], metric, split)
        if figure is not None:
            keep(f"settings-{method}.png", figure, f"Mean {metric} on {split} over the settings of {method}")
    keep(
        "expected-best.png",
        expected_best_figure(records, metric, split),
        f"Expected best {metric} on {split} against the number of runs, for each method",
    )
    return images


def _what_was_run(records: Sequence[RunRecord], summaries: Sequence[PointSummary]) -> str:
    first = records[0]
    models = ", ".join(model_names(records))
    methods = _distinct(record.method for record in records)
    scored = _range(record.examples(first.split) for record in records)
    trained = _range(record.examples("train") for record in records)
    sizes = "; ".join(
        text for text, known in ((f"{scored} examples", scored), (f"{trained} to train on", trained)) if known
    )
    return (
        f"Recipe {_recipe_names(records)}, {models} on {first.result['task']}: "
        f"{counted(len(records), 'run')} of {counted(len(summaries), 'point')} "
        f"({counted(len(methods), 'method')}: {', '.join(methods)}), "
        f"{_seeds_text(sorted({record.seed for record in records}))}. "
        f"Values are {metric_words(first.metric)} on {first.split}{f' ({sizes})' if sizes else ''} "
        f"{_of_which_weights(records)}."
    )


def _of_which_weights(records: Sequence[RunRecord]) -> str:
    if not any(choice_note(record.result) for record in records):
        return "after the last step"
    return "of the weights that were kept; these, or when to stop, were chosen on it, so that the values are optimistic"


def _recipe_names(records: Sequence[RunRecord]) -> str:
    return ", ".join(_distinct(record.result["recipe"] for record in records))


def _majority_text(records: Sequence[RunRecord]) -> str:
    known = [record.majority for record in records if record.majority is not None]
    failed = f"failed restarts: {sum(record.failed for record in records)} of {len(records)}"
    metric = records[0].metric
    if not known and records[0].direction < 0:
        return f"No value of {metric} says by itself that nothing was learned; {failed}."
    if not known:
        return (
            "In regression there is no commonest label; a restart has failed if its correlation is not above 0; "
            f"{failed}."
        )
    low, high = min(known), max(known)
    value = digits(low) if low == high else f"{digits(low)} to {digits(high)}, by the training examples drawn"
    more = "more" if records[0].direction > 0 else "less"
    always = constant_answer(metric, task_kind(records[0].recipe.task))
    return f"{always.capitalize()} gets {metric} {value}; a restart has failed where it gets no {more}; {failed}."


def _best_section(
    summaries: Sequence[PointSummary],
    best: dict[str, PointSummary],
    comparisons: Sequence[Comparison],
    first: RunRecord,
) -> list[Block]:
    by_method = {each.best.point.method: each for each in comparisons}
    header = ["method", "best point", "points", "seeds", "mean", "std", _extreme(summaries), "failed"]
    if comparisons:
        header += ["shared seeds", f"difference from {BASELINE}", "p", "p, Holm", "smallest p"]
    rows = []
    for method, each in best.items():
        tried = sum(other.point.method == method for other in summaries)
        row = [method, each.point.label, str(tried), str(each.count), digits(each.mean), digits(each.std)]
        row += [digits(each.best), _failures(each)]
        if comparisons:
            found = by_method.get(method)
            row += _comparison_cells(found) if found else [""] * 5
        rows.append(row)
    dropout = found_dropout([run for each in summaries for run in each.runs.values()])
    blocks: list[Block] = [Heading("Best point of each method")]
    blocks += [Paragraph(dropout)] if dropout else []
    blocks.append(Table(header, rows, words=2))
    same = [text for text in (_constant_settings(method, summaries) for method in best) if text]
    if same:
        blocks.append(Paragraph(f"Settings that do not vary within a method: {'; '.join(same)}."))
    blocks.append(
        Paragraph(
            f"The best point of a method is the one with the {_highest(first)} mean on {first.split}, the split that "
            "is reported here: its mean is optimistic, the more so the more points were tried, and so are its "
            "difference and p-value. Examples that took no part in the choice are needed to confirm it."
        )
    )
    if comparisons:
        blocks.append(Paragraph(_test_text(comparisons)))
    elif BASELINE not in best:
        blocks.append(Paragraph(f"There are no runs of {BASELINE}: nothing to compare with."))
    return blocks


def _comparison_cells(found: Comparison) -> list[str]:
    difference = "" if found.difference is None else f"{found.difference:+.4f}"
    return [str(len(found.seeds)), difference, *map(_p_digits, (found.p_value, found.corrected, found.smallest))]


def _test_text(comparisons: Sequence[Comparison]) -> str:
    text = (
        f"A difference is of means over the seeds shared with {BASELINE}'s best point. p is from a two-sided paired "
        "permutation test (sign flips) over those seeds; in the next column it is corrected for the number of methods "
        "(Holm 1979), not for the number of points."
    )
    few = sorted({len(each.seeds) for each in comparisons if each.smallest is not None and each.smallest > SIGNIFICANT})
    if few:
        floors = ", ".join(f"{_p_digits(min(1.0, 2 / 2**pairs))} with {counted(pairs, 'shared seed')}" for pairs in few)
        text += (
            f" The smallest p that can be reached is {floors}: with so few seeds no difference, however large, reaches "
            f"{SIGNIFICANT:g}."
        )
    tested = [each.smallest for each in comparisons if each.smallest is not None]
    least = min(1.0, len(tested) * min(tested, default=1.0))
    if min(tested, default=1.0) <= SIGNIFICANT < least:
        text += (
            f" Corrected for {counted(len(tested), 'method')}, the smallest p that can be reached is "
            f"{_p_digits(least)}: {SIGNIFICANT:g} takes more seeds, or fewer methods."
        )
    if any(not each.seeds for each in comparisons):
        text += f" A method that shares no seed with {BASELINE} is not compared."
    return text


def _points_section(summaries: Sequence[PointSummary], best: dict[str, PointSummary]) -> list[Block]:
    extreme = _extreme(summaries)
    header = ["method", "settings", "seeds", "mean", "std", extreme, "95% from", "to", "failed", "seconds"]
    rows = [
        [
            each.point.method,
            each.point.label,
            str(each.count),
            *map(digits, (each.mean, each.std, each.best, each.low, each.high)),
            _failures(each),
            f"{each.seconds:.1f}",
        ]
        for each in summaries
    ]
    chosen = frozenset(index for index, each in enumerate(summaries) if best[each.point.method] is each)
    return [Heading("All points"), Table(header, rows, words=2, strong=chosen)]


def _failures(each: PointSummary) -> str:
    """Write how many restarts failed, of how many, and how many of these diverged."""
    diverged = f" ({each.diverged} diverged)" if each.diverged else ""
    return f"{each.failed}/{each.count}{diverged}"


def _extreme(summaries: Sequence[PointSummary]) -> str:
    """Return what the best value of a point is called."""
    return "max" if direction(summaries[0].metric) > 0 else "min"


def _highest(record: RunRecord) -> str:
    return "highest" if record.direction > 0 else "lowest"


def _constant_settings(method: str, summaries: Sequence[PointSummary]) -> str:
    """Return the method's own keys that do not vary, with their values."""
    first = next(each for each in summaries if each.point.method == method)
    varying = {key for key, _ in first.point.settings} | {"method.name"}
    settings = next(iter(first.runs.values())).settings
    constant = [
        f"{key.removeprefix('method.')} {format_setting(value)}"
        for key, value in settings.items()
        if key.startswith("method.") and key not in varying
    ]
    return f"{method} {', '.join(constant)}" if constant else ""


def _explanations(summaries: Sequence[PointSummary]) -> list[str]:
    texts = [
        "A point is a method with its settings; each seed is one restart of it. std divides by n - 1; std and interval "
        "are empty for one seed. In the table of all points the best point of each method is highlighted; a point with "
        "fewer than half as many seeds as the method's fullest point cannot be the best.",
        "The 95% interval is a percentile bootstrap of the mean over seeds (10,000 resamples). With few seeds it is "
        "too narrow: of normal values it holds the mean in 84% of cases with five, in 91% with ten.",
        "Interval and p are of restarts, all scored on the same examples. They do not say how much the values would "
        "change on new examples; with few examples, much.",
        f"The expected best of n runs is the expected {_extreme(summaries)}imum of n draws, with replacement, from all "
        "runs of the method (Dodge et al. 2019). So points with more seeds count more, and near the number of runs "
        "it is a little too low. A budget is counted in runs, not in seconds.",
        "seconds is the mean time of the training steps alone, without evaluations and without what a method does "
        "before step 1: there child-tuning-d sees one more epoch.",
        "points.csv and runs.csv hold all numbers in full.",
    ]
    diverged = sum(each.diverged for each in summaries)
    if diverged:
        texts.append(
            f"{counted(diverged, 'restart')} diverged and left no model. Without them a point would look other than "
            f"it is: in all statistics they count as {_nothing_learned(summaries)}, and as failed; empty in runs.csv."
        )
    undefined = sum(each.undefined for each in summaries)
    if undefined:
        texts.append(
            f"{counted(undefined, 'value')} undefined, since a constant answer has no correlation: counted as 0 in all "
            "statistics, and as failed; empty in runs.csv."
        )
    return texts


def _nothing_learned(summaries: Sequence[PointSummary]) -> str:
    """Say what a restart without a model counts as."""
    first = next(iter(summaries[0].runs.values()))
    if first.majority is None:
        return f"{METRICS[first.metric].without_value:g}"
    return constant_answer(first.metric, task_kind(first.recipe.task))


def _points_csv(summaries: Sequence[PointSummary]) -> str:
    keys = _setting_keys(summaries)
    extreme = _extreme(summaries)
    header = ["seeds", "undefined", "diverged", "mean", "std", extreme, "low", "high"]
    header += ["failed", "failed_share", "mean_seconds"]
    rows = [
        [
            *(each.point.method, *_setting_cells(each, keys), each.count, each.undefined, each.diverged),
            *(each.mean, each.std, each.best, each.low, each.high),
            *(each.failed, each.failed / each.count, each.seconds),
        ]
        for each in summaries
    ]
    return csv_text([["method", *keys, *header], *rows])


def _runs_csv(summaries: Sequence[PointSummary]) -> str:
    keys = _setting_keys(summaries)
    rows = [
        [
            *(run.method, *_setting_cells(each, keys), run.seed, run.split, run.metric, run.value, run.majority),
            *(int(run.failed), run.seconds, *(compared_value(run, key) for key in COMPARED), run.folder),
        ]
        for each in summaries
        for run in each.runs.values()
    ]
    header = ["seed", "split", "metric", "value", "majority", "failed", "seconds", *COMPARED, "folder"]
    return csv_text([["method", *keys, *header], *rows])


def _setting_keys(summaries: Sequence[PointSummary]) -> list[str]:
    return list(dict.fromkeys(key for each in summaries for key, _ in each.point.settings))


def _setting_cells(summary: PointSummary, keys: Sequence[str]) -> list[Any]:
    """Return the values of a point's settings: numbers in full, the others as text."""
    values = [summary.point.get(key) for key in keys]
    return [
        value if isinstance(value, (int, float)) and not isinstance(value, bool) else format_setting(value)
        for value in values
    ]


def _p_digits(value: float | None) -> str:
    return "< 0.0001" if value is not None and value < 0.0001 else digits(value)


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))


def _range(values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return str(known[0]) if min(known) == max(known) else f"{min(known)} to {max(known)}"


def _seeds_text(seeds: Sequence[int]) -> str:
    """Write seeds in short.

    >>> _seeds_text([7]), _seeds_text([1, 2, 3]), _seeds_text([1, 5])
    ('seed 7', 'seeds 1 to 3', 'seeds 1, 5')
    """
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    if len(seeds) > _MOST_SEEDS_LISTED:
        return f"{len(seeds)} seeds between {seeds[0]} and {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"
