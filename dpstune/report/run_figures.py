"""The figures of a run's page: what is taken for what, how far probabilities can be trusted, how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dpstune.errors import shortened
from dpstune.report.figures import SMALL_SIZE, dress, new_figure, new_panels, plain_text
from dpstune.report.tables import metric_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dpstune.evaluation.metrics import Reliability

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#555555"
_SPLIT_COLOURS = (_BLUE, _ORANGE, "#009E73", "#CC79A7")
_LONGEST_NAME = 22  # characters of a label at an axis
_MOST_WITH_SHARES = 8  # labels, in whose cells there is room for two lines
_MOST_LEVEL = 4  # labels whose names may stand side by side
_SMOOTHED_OVER = 40  # parts of a run, over one of which the loss is averaged
_LONGEST_LEVEL_NAME = 9


def confusion_figure(matrix: NDArray[Any], names: Sequence[str], split: str) -> Figure:
    """Draw how often each label was answered for each gold label; a cell's colour is its share of the row.

    Args:
        matrix: Counts, [gold labels, answers].
        names: The labels.
        split: What was answered.
    """
    from matplotlib.colors import LinearSegmentedColormap

    count = len(names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shown = [plain_text(shortened(name, _LONGEST_NAME)) for name in names]
    longest = max(map(len, shown))
    level = count <= _MOST_LEVEL and longest <= _LONGEST_LEVEL_NAME
    cell = 0.9 if count <= _MOST_WITH_SHARES else 0.5
    figure, axes = new_figure(max(5.4, 1.8 + 0.09 * longest + cell * count), max(3.6, 2.2 + 0.8 * cell * count))
    colours = LinearSegmentedColormap.from_list("counts", ["#ffffff", _BLUE])
    axes.pcolormesh(shares, cmap=colours, vmin=0.0, vmax=1.0)  # much faster than a resampled image
    axes.invert_yaxis()
    for row in range(count):
        for column in range(count):
            share = shares[row, column]
            if matrix[row, column] == 0 and row != column:
                continue
            text = f"{matrix[row, column]}" + (f"\n{100 * share:.0f}%" if count <= _MOST_WITH_SHARES else "")
            weight = "bold" if row == column else "normal"
            colour = "white" if share > 0.6 else "black"
            size = SMALL_SIZE if count <= _MOST_WITH_SHARES else SMALL_SIZE - 2
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=size, fontweight=weight
            )
    middles = np.arange(count) + 0.5
    axes.set_xticks(middles, shown)
    if not level:
        for name in axes.get_xticklabels():
            name.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, shown)
    dress(axes, f"What is taken for what on {split}\ncolour: share of the gold label", "answer", "gold label")
    axes.tick_params(length=0)
    return figure


def reliability_figure(found: Reliability, split: str) -> Figure:
    """Draw how often answers are right against how probable the model calls them, and how many there are of each.

    Args:
        found: What ``reliability`` returns.
        split: What was answered.
    """
    figure, (left, right) = new_panels(10.0, 4.2, 2)
    counts, confidence, accuracy = found
    seen = counts > 0
    left.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1.2)
    left.plot(confidence[seen], accuracy[seen], color=_BLUE, linewidth=1.6)
    sizes = 30 + 170 * counts[seen] / counts.max()
    left.scatter(confidence[seen], accuracy[seen], s=sizes, color=_BLUE, edgecolors="white", linewidths=0.7, zorder=3)
    left.set_xlim(0, 1.03)
    left.set_ylim(-0.04, 1.04)
    title = f"Reliability on {split}: calibration error {found.error:.4f}\nbelow the dashed line: surer than right"
    dress(left, title, "probability of the answer", "share that is right", grid="both")
    width = 1 / len(counts)
    right.bar((np.arange(len(counts)) + 0.5) * width, counts, width=0.9 * width, color=_BLUE)
    right.set_xlim(0, 1.03)
    dress(right, "How sure the answers are\n", "probability of the answer", "examples", grid="y")
    return figure


def scatter_figure(gold: NDArray[Any], predicted: NDArray[Any], split: str) -> Figure:
    """Draw predicted values over gold ones."""
    figure, axes = new_figure(6.4, 5.4)
    ends = [float(min(gold.min(), predicted.min())), float(max(gold.max(), predicted.max()))]
    axes.plot(ends, ends, color=_GREY, linestyle="--", linewidth=1.2)
    alpha = float(np.clip(150 / len(gold), 0.15, 0.7))
    axes.scatter(gold, predicted, s=22, color=_BLUE, alpha=alpha, linewidths=0)
    title = f"Predicted over gold values on {split}\non the dashed line they are equal"
    dress(axes, title, "gold value", "predicted value", grid="both")
    return figure


def curves_figure(lines: Sequence[Mapping[str, Any]], metric: str) -> Figure | None:
    """Draw the training loss, and each split's headline metric where one was evaluated, over the steps.

    Args:
        lines: Of metrics.jsonl.
        metric: The headline metric.

    Returns:
        The figure; None where fewer than two steps have a loss.
    """
    from matplotlib.ticker import MaxNLocator

    losses = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    if len(losses) < 2:
        return None
    steps, values = np.array(losses, dtype=np.float64).T
    splits = dict.fromkeys(line["split"] for line in lines if line.get(metric) is not None and "split" in line)
    figure, panels = new_panels(10.0, 3.8, 2 if splits else 1)
    left = panels[0]
    window = max(1, len(values) // _SMOOTHED_OVER)
    smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
    left.plot(steps, values, color=_BLUE, linewidth=1, alpha=0.35 if window > 1 else 1.0)
    if window > 1:
        left.plot(steps[window - 1 :], smooth, color=_BLUE, linewidth=2)
    mean = f"\nstrong: mean of the last {window} steps" if window > 1 else "\n"
    dress(left, f"Training loss{mean}", "step", "loss", grid="y")
    if not splits:
        return figure
    right = panels[1]
    for number, split in enumerate(splits):
        found = [(line["step"], line[metric]) for line in lines if line.get("split") == split]
        known = [pair for pair in found if pair[1] is not None]
        colour = _SPLIT_COLOURS[number % len(_SPLIT_COLOURS)]
        right.plot(*np.array(known).T, color=colour, marker="o", markersize=5, label=plain_text(split))
    if len(splits) > 1:
        right.legend(frameon=False, fontsize=SMALL_SIZE)
    over = f" on {next(iter(splits))}" if len(splits) == 1 else ""
    dress(right, f"Evaluations{over}\n", "step", metric_words(metric), grid="y")
    right.set_xlim(left.get_xlim())
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
