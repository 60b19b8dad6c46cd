"""The figure of a probe: how like fine-tuned and pre-trained hidden states are, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpstune.report.figures import SMALL_SIZE, dress, method_colour, method_marker, new_panels, plain_text, wrap_label
from dpstune.studies.probe.outcome import Measure, ProbedPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES: dict[Measure, str] = {"cka": "linear CKA", "cosine": "mean cosine"}
BAND = "band: ± standard deviation over restarts"
_LINES = ("-", "--", ":", "-.")  # of one method's points, which have its colour


def layers_figure(points: Sequence[ProbedPoint], texts: str) -> Figure:
    """Draw each point's mean over restarts against the layers, in a panel for each measure.

    The band is one standard deviation over restarts on both sides.

    Args:
        points: The points.
        texts: What the texts are.
    """
    figure, panels = new_panels(11.0, 4.6, len(MEASURES))
    for axes, (measure, name) in zip(panels, MEASURES.items(), strict=True):
        _draw(axes, points, measure)
        what = "Likeness to the pre-trained model" if axes is panels[0] else f"on {texts}"
        title = f"{what}\n{BAND if axes is panels[0] else ''}"
        dress(axes, title, "layer (0: embeddings)", name, grid="both")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=SMALL_SIZE)
    return figure


def _draw(axes: Axes, points: Sequence[ProbedPoint], measure: Measure) -> None:
    from matplotlib.ticker import MaxNLocator

    seen: Counter[str] = Counter()
    for each in points:
        method = each.point.method
        layers = range(each.layers)
        mean, spread = (
            np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            for values in (
                [each.mean(measure, layer) for layer in layers],
                [each.std(measure, layer) or 0.0 for layer in layers],
            )
        )
        colour = method_colour(method)
        axes.fill_between(layers, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            layers,
            mean,
            label=wrap_label(plain_text(each.point.name)),
            color=colour,
            linestyle=_LINES[seen[method] % len(_LINES)],
            marker=method_marker(method),
            markersize=5,
            linewidth=1.8,
        )
        seen[method] += 1
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
