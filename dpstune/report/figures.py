"""What all figures have in common: their size, their looks, and how they are written.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart, and cividis; the background is
white.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dpstune.common.writing import write_atomically
from dpstune.errors import printable
from dpstune.studies.points import method_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS = 2  # pixels of a figure for one pixel of a page, since most screens are that sharp
DOTS_PER_INCH = 96 * PIXELS
LABEL_WIDTH = 34

TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 13, 12, 11
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B8A900")
_MARKERS = "osD^vP*Xh"
_LINES = ("-", "--", ":", "-.")


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure atomically, as PNG or SVG by the ending of its name; the same figure gives the same bytes.

    Characters that its font lacks are drawn as boxes, without a warning; the tables beside it have them.
    """
    import matplotlib as mpl

    form = path.suffix.removeprefix(".")
    unstamped: dict[str, None] = {"Date": None} if form == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "dpstune"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        write_atomically(
            path, lambda beside: figure.savefig(beside, format=form, dpi=DOTS_PER_INCH, metadata=unstamped)
        )


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, with its axes."""
    figure, (axes,) = new_panels(width, height, 1)
    return figure, axes


def new_panels(width: float, height: float, count: int, *, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of a size in inches, with the axes of ``count`` panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, sharey=share_y, squeeze=False)[0])


def dress(axes: Axes, title: str, across: str, up: str, grid: Literal["x", "y", "both"] | None = None) -> None:
    """Give axes their title, axis labels and grid, in the sizes that all figures share."""
    axes.set_title(plain_text(title), fontsize=TITLE_SIZE, loc="left")
    axes.set_xlabel(plain_text(across), fontsize=TEXT_SIZE)
    axes.set_ylabel(plain_text(up), fontsize=TEXT_SIZE)
    axes.tick_params(labelsize=SMALL_SIZE)
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(axis=grid, color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)


def wrap_label(label: str) -> str:
    """Break a point's label into lines between settings, not inside one."""
    kept = label.replace(", ", ",\n").replace(" ", "\u00a0").replace("\n", " ")
    return textwrap.fill(kept, LABEL_WIDTH, break_long_words=False, break_on_hyphens=False)


def plain_text(text: str) -> str:
    r"""Escape text so that matplotlib does not read it as a formula, and an SVG can hold it.

    >>> print(plain_text("5 $ a run"))
    5 \$ a run
    """
    return printable(text).replace("$", r"\$")


def line_looks(methods: Sequence[str | None]) -> list[tuple[str, str, str]]:
    """Return colour, marker and style of each line of a figure: no two alike, as long as there are any left.

    A method's lines have its colour, and as long as there are styles its marker. A line of no method has a colour that
    no method in the figure has, as long as there is one.

    Args:
        methods: Of each line; None for what no method made, such as a model folder.

    >>> line_looks(["vanilla", "vanilla", None])
    [('#000000', 'o', '-'), ('#000000', 'o', '--'), ('#0072B2', 's', '-')]
    """
    count = len(_COLOURS)
    own = {method_order(method) % count for method in methods if method is not None}
    free = sorted(range(count), key=lambda place: place in own)
    looks: list[tuple[str, str, str]] = []
    for method in methods:
        colours = free if method is None else [method_order(method) % count]
        every = [
            (_COLOURS[colour], _MARKERS[(colour + turn) % count], line)
            for turn in range(count)
            for line in _LINES
            for colour in colours
        ]
        looks.append(next((look for look in every if look not in looks), every[0]))
    return looks


def method_colour(method: str) -> str:
    """Return the colour of a method, the same in every figure."""
    return _COLOURS[method_order(method) % len(_COLOURS)]


def method_marker(method: str) -> str:
    """Return the marker of a method, the same in every figure."""
    return _MARKERS[method_order(method) % len(_MARKERS)]
