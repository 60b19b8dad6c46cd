"""Figure 1 of Zhang et al. 2022: the shares of easy and of hard examples of each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpstune.report.figures import SMALL_SIZE, TEXT_SIZE, TITLE_SIZE, method_colour, new_panels, plain_text, wrap_label
from dpstune.studies.casestudy.casestudy import CaseStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHOLE_PERCENTS_FROM = 0.05  # largest share from which the axis needs no decimals


def proportions_figure(study: CaseStudy) -> Figure:
    """Draw a bar for each method in two panels: (a) easy, (b) hard examples; a dashed line is the baseline's share."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    counts = [study.proportions(method) for method in study.methods]
    names = [wrap_label(plain_text(method.name)) for method in study.methods]
    lines = sum(1.6 + name.count("\n") for name in names)
    figure, both = new_panels(10.0, 1.5 + 0.3 * lines, 2, share_y=True)
    places = range(len(names), 0, -1)
    panels = (
        ("(a) easy: most restarts are right", [each.easy_share for each in counts]),
        ("(b) hard: most restarts are wrong", [each.hard_share for each in counts]),
    )
    for axes, (title, shares) in zip(both, panels, strict=True):
        bars = axes.barh(places, shares, height=0.64, color=[method_colour(each.method) for each in study.methods])
        texts = axes.bar_label(bars, [f"{100 * share:.1f}%" for share in shares], padding=5, fontsize=SMALL_SIZE)
        for text in texts:  # readable also where the dashed line is behind it
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})
        for method, share in zip(study.methods, shares, strict=True):
            if method.name == study.baseline and len(shares) > 1:
                axes.axvline(share, color="#555555", linestyle="--", linewidth=1.2)
        axes.set_xlim(0.0, max(1.2 * max(shares), 0.01))
        axes.set_ylim(0.5, len(names) + 0.5)
        axes.set_yticks(places, names)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if max(shares) > _WHOLE_PERCENTS_FROM else 1))
        axes.set_title(title, fontsize=TITLE_SIZE, loc="left")
        axes.set_xlabel(f"of {len(study.examples)} examples", fontsize=TEXT_SIZE)
        axes.tick_params(labelsize=SMALL_SIZE)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure
