"""The figures of a sweep: values over settings, over seeds, over budgets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dpstune.report.figures import (
    SMALL_SIZE,
    TEXT_SIZE,
    dress,
    method_colour,
    method_marker,
    new_figure,
    plain_text,
    wrap_label,
)
from dpstune.report.tables import metric_words
from dpstune.settings.metrics import direction
from dpstune.studies.points import method_order
from dpstune.studies.records import RunRecord
from dpstune.studies.statistics import expected_best
from dpstune.studies.summary import PointSummary, best_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MOST_CELLS = 60
MOST_TICKS = 10
LOG_FROM_RATIO = 20.0  # largest over smallest value from which an axis is logarithmic
_PREFERRED_KEYS = ("method.p", "method.update_ratio")


def settings_figure(summaries: Sequence[PointSummary], metric: str, split: str) -> Figure | None:
    """Draw a method's means over its settings.

    If one setting varies: means, standard deviations and every run against it. If two vary: a heat map of mean ±
    standard deviation, or a scatter plot if there are too many values for cells. If more vary: the same for the first
    two (p and update_ratio before others), where each cell shows its best point over the other settings.

    Args:
        summaries: The points of one method.
        metric: Name of the metric.
        split: The split it was computed on.

    Returns:
        The figure; None if no setting varies.
    """
    keys = [key for key, _ in summaries[0].point.settings]
    keys.sort(key=lambda key: key not in _PREFERRED_KEYS)
    if not keys:
        return None
    shown, rest = keys[:2], keys[2:]
    sharing: dict[tuple[Any, ...], list[PointSummary]] = {}
    for summary in summaries:
        sharing.setdefault(tuple(summary.point.get(key) for key in shown), []).append(summary)
    method = summaries[0].point.method
    cells = {cell: best_points(points)[method] for cell, points in sharing.items()}
    metric = metric_words(metric)
    title = f"{method}: mean {metric} on {split}"
    if rest:
        title += f"\nbest over {', '.join(_short(key) for key in rest)}"
    if len(shown) == 1:
        return _line(shown[0], {cell[0]: summary for cell, summary in cells.items()}, title, metric)
    rows, columns = (_ordered({cell[axis] for cell in cells}) for axis in (0, 1))
    numeric = all(_is_number(value) for value in (*rows, *columns))
    if len(rows) * len(columns) > MOST_CELLS and numeric:
        return _scatter(shown, cells, title, metric)
    return _heat_map(shown, rows, columns, cells, title, metric)


def best_points_figure(best: Sequence[PointSummary], metric: str, split: str, majority: float | None) -> Figure:
    """Draw a box plot of each method's best point, with a dot for each seed.

    Args:
        best: The best point of each method.
        metric: Name of the metric.
        split: The split it was computed on.
        majority: The metric of always answering the commonest label, drawn if it lies near the values; None for none.
    """
    from matplotlib.colors import to_rgba

    labels = [f"{each.point.method}\n{wrap_label(each.point.label)}".strip() for each in best]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure, axes = new_figure(9.0, 1.6 + 0.3 * len(best) + 0.24 * lines)
    positions = np.arange(len(best), 0, -1)
    for position, each in zip(positions, best, strict=True):
        colour = method_colour(each.point.method)
        axes.boxplot(
            [each.scores],
            positions=[position],
            orientation="horizontal",
            widths=0.55,
            showfliers=False,  # every run is a dot
            patch_artist=True,
            boxprops={"facecolor": to_rgba(colour, 0.25), "edgecolor": colour},
            medianprops={"color": colour, "linewidth": 2},
            whiskerprops={"color": colour},
            showcaps=False,
        )
        heights = position + 0.16 * np.sin(2.4 * np.arange(each.count))  # apart, and the same every time
        axes.scatter(each.scores, heights, s=34, color=colour, edgecolors="white", linewidths=0.7, zorder=3)
    axes.set_yticks(positions, [plain_text(label) for label in labels])
    axes.set_ylim(0.4, len(best) + 0.6)
    scores = np.concatenate([each.scores for each in best])
    span = float(np.ptp(scores)) or 0.1
    title = "Every seed at each method's best point"
    sign = direction(metric)
    if majority is not None and sign * majority > (sign * scores).min() - span / 2:
        axes.axvline(majority, color="#555555", linestyle="--", linewidth=1.2)
        title += f"\ndashed: one answer to all, {majority:.4f}"
    dress(axes, title, f"{metric_words(metric)} on {split}", "", grid="x")
    return figure


def expected_best_figure(records: Sequence[RunRecord], metric: str, split: str) -> Figure:
    """Draw, for each method, the expected best value against the number of runs spent on it (Dodge et al. 2019).

    Args:
        records: All runs; each counts as one draw.
        metric: Name of the metric.
        split: The split it was computed on.
    """
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

    figure, axes = new_figure(9.0, 5.0)
    methods = sorted({record.method for record in records}, key=method_order)
    largest = 1
    for method in methods:
        scores = [record.score for record in records if record.method == method]
        largest = max(largest, len(scores))
        budgets = np.arange(1, len(scores) + 1)
        axes.plot(
            budgets,
            expected_best(scores, budgets, lower=direction(metric) < 0),
            label=plain_text(method),
            color=method_colour(method),
            linewidth=2,
            marker=method_marker(method),
            markevery=[0, -1],
            markersize=7,
        )
    if largest > LOG_FROM_RATIO:
        axes.set_xscale("log")
        steps = [factor * 10**power for power in range(int(math.log10(largest)) + 1) for factor in (1, 2, 5)]
        axes.xaxis.set_major_locator(FixedLocator([step for step in steps if step <= largest]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=TEXT_SIZE)
    dress(
        axes,
        "What a budget can be expected to find",
        "runs of the method (a point with one seed each)",
        f"expected best {metric_words(metric)} on {split}",
        grid="both",
    )
    return figure


def _line(key: str, cells: dict[Any, PointSummary], title: str, metric: str) -> Figure:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
    from matplotlib.transforms import offset_copy

    values = _ordered(set(cells))
    numeric = all(_is_number(value) for value in values)
    places = [float(value) for value in values] if numeric else [float(place) for place in range(len(values))]
    summaries = [cells[value] for value in values]
    colour = method_colour(summaries[0].point.method)
    figure, axes = new_figure(8.0, 4.6)
    beside = offset_copy(axes.transData, figure, x=9, units="points")  # so that no error bar hides a run
    for place, each in zip(places, summaries, strict=True):
        axes.scatter([place] * each.count, each.scores, s=26, color=colour, alpha=0.4, linewidths=0, transform=beside)
        axes.update_datalim([(place, score) for score in each.scores])  # matplotlib does not count shifted dots
    axes.errorbar(
        places,
        [each.mean for each in summaries],
        [each.std or 0.0 for each in summaries],
        color=colour,
        marker=method_marker(summaries[0].point.method),
        markersize=7,
        capsize=5,
        linewidth=1.8,
        linestyle="-" if numeric else "none",
    )
    if numeric and min(places) > 0 and max(places) / min(places) >= LOG_FROM_RATIO:
        axes.set_xscale("log")
    if len(values) <= MOST_TICKS or not numeric:
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_major_formatter(FixedFormatter(_ticks(values, key, cells.values())))
        axes.xaxis.set_minor_locator(NullLocator())
    dress(axes, f"{title}\n± standard deviation over seeds; faint dots are runs", _short(key), metric, grid="y")
    return figure


def _heat_map(
    keys: Sequence[str],
    rows: Sequence[Any],
    columns: Sequence[Any],
    cells: dict[tuple[Any, ...], PointSummary],
    title: str,
    metric: str,
) -> Figure:
    from matplotlib.patches import Rectangle

    means = np.full((len(rows), len(columns)), np.nan)
    places = {(row, column): (rows.index(row), columns.index(column)) for row, column in cells}
    for cell, place in places.items():
        means[place] = cells[cell].mean
    figure, axes = new_figure(max(6.0, 2.8 + 1.25 * len(columns)), max(3.6, 1.8 + 0.72 * len(rows)))
    image = axes.imshow(np.ma.masked_invalid(means), cmap=_colour_map(cells), origin="lower", aspect="auto")
    _add_colour_bar(figure, axes, image, metric)
    if means.size <= MOST_CELLS:
        for cell, (row, column) in places.items():
            red, green, blue, _ = image.cmap(image.norm(means[row, column]))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.46
            spread = cells[cell].std
            axes.text(
                column,
                row,
                f"{means[row, column]:.4f}" + (f"\n± {spread:.4f}" if spread is not None else ""),
                ha="center",
                va="center",
                fontsize=SMALL_SIZE,
                color="white" if dark else "black",
            )
    best = next(iter(best_points(list(cells.values())).values()))
    row, column = next(place for cell, place in places.items() if cells[cell] is best)
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=3))
    axes.set_xticks(range(len(columns)), _ticks(columns, keys[1], cells.values()))
    axes.set_yticks(range(len(rows)), _ticks(rows, keys[0], cells.values()))
    dress(axes, f"{title}\n± standard deviation over seeds; best cell outlined", _short(keys[1]), _short(keys[0]))
    return figure


def _scatter(keys: Sequence[str], cells: dict[tuple[Any, ...], PointSummary], title: str, metric: str) -> Figure:
    figure, axes = new_figure(8.0, 5.0)
    down, across = np.array(list(cells), dtype=np.float64).T
    means = [each.mean for each in cells.values()]
    dots = axes.scatter(across, down, c=means, cmap=_colour_map(cells), s=70, edgecolors="#444444", linewidths=0.6)
    _add_colour_bar(figure, axes, dots, metric)
    for values, scale in ((across, axes.set_xscale), (down, axes.set_yscale)):
        if values.min() > 0 and values.max() / values.min() >= LOG_FROM_RATIO:
            scale("log")
    dress(axes, title, _short(keys[1]), _short(keys[0]), grid="both")
    return figure


def _colour_map(cells: dict[tuple[Any, ...], PointSummary]) -> str:
    """Return the colours of means: the better, the lighter."""
    return "cividis" if direction(next(iter(cells.values())).metric) > 0 else "cividis_r"


def _add_colour_bar(figure: Figure, axes: Axes, colours: ScalarMappable, metric: str) -> None:
    bar = figure.colorbar(colours, ax=axes)
    bar.set_label(f"mean {metric}", fontsize=TEXT_SIZE)
    bar.ax.tick_params(labelsize=SMALL_SIZE)


def _ordered(values: set[Any]) -> list[Any]:
    numbers = sorted(value for value in values if _is_number(value))
    return [*numbers, *sorted((value for value in values if not _is_number(value)), key=str)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ticks(values: Sequence[Any], key: str, summaries: Iterable[PointSummary]) -> list[str]:
    """Return the tick labels of a setting's values, as their points name them."""
    texts = {each.point.get(key): each.point.text(key) for each in summaries}
    return [plain_text(texts[value] or "none") for value in values]


def _short(key: str) -> str:
    return key.removeprefix("method.")
