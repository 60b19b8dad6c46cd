"""The figure of a probe: how like fine-tuned and pre-trained hidden states are, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpstune.models.names import shown_models
from dpstune.report.figures import SMALL_SIZE, dress, line_looks, new_panels, plain_text, wrap_label
from dpstune.studies.probe.outcome import Measure, ProbedPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES: dict[Measure, str] = {"cka": "linear CKA", "cosine": "mean cosine"}
BAND = "band: ± standard deviation over restarts"


def layers_figure(points: Sequence[ProbedPoint], texts: str) -> Figure:
    """Draw each point's mean over restarts against the layers, in a panel for each measure.

    The band of a point with several restarts is one standard deviation over them on both sides.

    Args:
        points: The points.
        texts: What the texts are.
    """
    figure, panels = new_panels(11.0, 4.6, len(MEASURES))
    titles = ["Likeness to the pre-trained model", f"on {texts}"]
    if any(len(point.restarts) > 1 for point in points):
        titles = [f"{titles[0]}\n{BAND}", f"{titles[1]}\n"]
    for axes, title, (measure, name) in zip(panels, titles, MEASURES.items(), strict=True):
        _draw(axes, points, measure)
        dress(axes, title, "layer (0: embeddings)", name, grid="both")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=SMALL_SIZE)
    return figure


def _draw(axes: Axes, points: Sequence[ProbedPoint], measure: Measure) -> None:
    from matplotlib.ticker import MaxNLocator

    looks = line_looks([None if each.is_folder else each.point.method for each in points])
    folders = shown_models([each.point.name for each in points if each.is_folder])
    for each, (colour, marker, line) in zip(points, looks, strict=True):
        layers = range(each.layers)
        mean, std = (
            np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            for values in (
                [each.mean(measure, layer) for layer in layers],
                [each.std(measure, layer) for layer in layers],
            )
        )
        if len(each.restarts) > 1:
            axes.fill_between(layers, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            layers,
            mean,
            label=wrap_label(plain_text(folders[each.point.name] if each.is_folder else each.point.name)),
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=5,
            linewidth=1.8,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
