"""What ``dpstune profile`` shows: a table, a JSON file, and a figure beside the paper's Table 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.writing import write_json
from dpstune.methods import BASELINE, without_newer_keys
from dpstune.report.output import people_console
from dpstune.studies.points import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

# Zhang et al. 2022, Appendix F, Table 3: GPU memory in G, by batch size.
TABLE_3 = {
    16: {
        "vanilla": 10.6,
        "mixout": 12.9,
        "r3f": 17.7,
        "r-drop": 17.7,
        "child-tuning-d": 10.9,
        "dps-dense": 16.3,
        "dps-mix": 21.1,
    },
    32: {
        "vanilla": 14.3,
        "mixout": 16.3,
        "r3f": 28.3,
        "r-drop": 28.3,
        "child-tuning-d": 14.7,
        "dps-dense": 20.0,
        "dps-mix": 24.7,
    },
}
_PARTS = ("weights", "gradients", "optimizer", "method", "activations")


def print_costs(outcome: Mapping[str, Any]) -> None:
    """Print what was measured on stderr: for each batch size a table of costs and a table of memory.

    ``time x`` and ``peak x`` are ratios to vanilla, ``paper x`` is the ratio in the paper's Table 3. ``opening`` is the
    time of the step that opens Stage II. ``start`` is the peak before step 1. ``bytes/w`` is the peak minus vanilla's,
    divided by the number of linear weights.

    Args:
        outcome: What ``profile`` returned.
    """
    console = people_console()
    for batch_size, costs in _by_batch_size(outcome["costs"]).items():
        size = f"{outcome['model']}, {batch_size} x {outcome['max_length']} tokens"
        names = _names(costs)
        console.print(_table(f"{size}: time and peak memory", _COSTS, map(_cost_row, names, costs)))
        console.print(_table(f"{size}: where the memory goes, MiB", _MEMORY, map(_memory_row, names, costs)))
    console.print("time x, peak x: vanilla has the method's dropout; paper x: vanilla has the model's dropout")
    environment = outcome["environment"]
    packages = environment["packages"]
    console.print(
        f"{environment['device']}, {environment['threads']} threads, {environment['precision']}, "
        f"torch {packages['torch']}, transformers {packages['transformers']}, {outcome['date']}",
        soft_wrap=True,
    )


_COSTS = ("method", "step", "time x", "opening", "tokens/s", "peak MiB", "peak x", "paper x")
_MEMORY = ("method", "weights", "grads", "optim", "method", "activ", "start", "reserved", "bytes/w")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", min_width=len(title), box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name == "method" and not table.columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _names(costs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the methods' names; a method that is there more than once gets its settings, too."""
    count = Counter(cost["method"]["name"] for cost in costs)
    points = [Point(cost["method"]["name"], tuple(without_newer_keys(cost["method"]).items())[1:]) for cost in costs]
    return [point.name if count[point.method] > 1 else point.method for point in points]


def _cost_row(name: str, cost: Mapping[str, Any]) -> list[str]:
    peak = cost["memory"]["peak"]
    return [
        name,
        _format(cost["seconds"], "{:.3f} s"),
        _format(cost["ratio"], "{:.3f}"),
        _format(cost["opening_seconds"], "{:.3f} s"),
        _format(cost["tokens_per_second"], "{:.0f}"),
        _mebibytes(peak),
        f"{peak / cost['vanilla_peak']:.2f}",
        _format(_paper_ratio(cost), "{:.2f}"),
    ]


def _memory_row(name: str, cost: Mapping[str, Any]) -> list[str]:
    memory = cost["memory"]
    parts = [_mebibytes(memory[part]) for part in (*_PARTS, "before_training")]
    reserved = "" if memory["reserved"] is None else _mebibytes(memory["reserved"])
    return [name, *parts, reserved, f"{cost['bytes_a_linear_weight']:.2f}"]


def write_profile(folder: Path, outcome: Mapping[str, Any], command: str | None = None) -> Path:
    """Write ``profile.json``, ``memory.png``, ``report.md`` and ``report.html`` into a folder; return the page.

    Args:
        folder: Where to write.
        outcome: What ``profile`` returned.
        command: The command line that measures the same again.
    """
    from dpstune.report.figures import write_figure
    from dpstune.report.header import profile_header
    from dpstune.report.page import Block, Heading, Image, Paragraph, Table, write_report

    write_json(folder / "profile.json", dict(outcome))
    figure = folder / "memory.png"
    write_figure(figure, memory_figure(outcome))
    blocks: list[Block] = [
        profile_header(outcome, command),
        Image(figure, "Peak memory of each method over vanilla's, here and in the paper's Table 3"),
    ]
    for batch_size, costs in _by_batch_size(outcome["costs"]).items():
        names = _names(costs)
        blocks += [
            Heading(f"{batch_size} x {outcome['max_length']} tokens"),
            Table(_COSTS, list(map(_cost_row, names, costs))),
            Paragraph("Where the memory goes, in MiB; bytes/w is in bytes."),
            Table(_MEMORY, list(map(_memory_row, names, costs))),
        ]
    blocks += [
        Heading("How to read the numbers"),
        Paragraph(
            "time x and peak x are ratios to vanilla with the method's dropout; paper x is the ratio of peaks in the "
            "paper's Table 3, where vanilla has the model's dropout. opening is the time of the step that opens Stage "
            "II. start is the peak before step 1. bytes/w is the peak minus vanilla's, divided by the number of linear "
            "weights."
        ),
    ]
    return write_report(folder, f"Profile of {outcome['recipe']}", blocks)


def memory_figure(outcome: Mapping[str, Any]) -> Figure:
    """Draw each method's peak memory / vanilla's, here and in the paper's Table 3; one panel for each batch size.

    Here vanilla has the method's dropout; in the paper it has the model's.

    Args:
        outcome: What ``profile`` returned.
    """
    from dpstune.report.figures import new_panels

    panels = _by_batch_size(outcome["costs"])
    measured = f"here: {Path(outcome['model']).name}, {outcome['environment']['device']}"
    height = 2.1 + 0.6 * len(next(iter(panels.values())))
    figure, row = new_panels(6.4 * len(panels), height, len(panels))
    for axes, (batch_size, costs) in zip(row, panels.items(), strict=True):
        places = list(range(len(costs), 0, -1))
        ratios = [cost["memory"]["peak"] / cost["vanilla_peak"] for cost in costs]
        axes.barh([place + 0.2 for place in places], ratios, height=0.38, color="#0072B2", label=measured)
        for place, ratio, cost in zip(places, ratios, costs, strict=True):
            axes.text(ratio, place + 0.2, f" {describe_peak(cost)}", va="center", fontsize=10)
        for label, place, paper in _paper_bars(costs, places):
            axes.barh(place - 0.2, paper, height=0.38, color="white", edgecolor="#D55E00", label=label)
        axes.axvline(1.0, color="#555555", linestyle="--", linewidth=1.0)
        axes.set_yticks(places, _names(costs), fontsize=11)
        axes.set_xlim(0, 1.3 * max([*ratios, *(paper for _, _, paper in _paper_bars(costs, places))]))
        axes.set_xlabel("peak memory, times vanilla's (here: with the method's dropout)", fontsize=11)
        axes.set_title(f"{batch_size} x {outcome['max_length']} tokens", fontsize=12, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=10, loc="outside upper right")
    return figure


def describe_peak(cost: Mapping[str, Any]) -> str:
    """Return a peak and vanilla's, as a ratio and in GiB.

    >>> describe_peak({"memory": {"peak": 3 * 2**30}, "vanilla_peak": 2 * 2**30})
    '1.50x, 3.00 over 2.00 GiB'
    """
    peak, base = cost["memory"]["peak"], cost["vanilla_peak"]
    return f"{peak / base:.2f}x, {peak / 2**30:.2f} over {base / 2**30:.2f} GiB"


def _paper_bars(costs: Sequence[Mapping[str, Any]], places: Sequence[int]) -> list[tuple[str, int, float]]:
    """Return label, place and ratio of each bar of the paper; only the first has a label, for the legend."""
    known = [(place, ratio) for cost, place in zip(costs, places, strict=True) if (ratio := _paper_ratio(cost))]
    labels = ["the paper's Table 3: BERT-large, a GPU", *["_"] * len(known)]
    return [(label, place, ratio) for label, (place, ratio) in zip(labels, known, strict=False)]


def _paper_ratio(cost: Mapping[str, Any]) -> float | None:
    """Return a method's memory / vanilla's in the paper's Table 3; None if the table does not have it."""
    column = TABLE_3.get(cost["batch_size"], {})
    paper = column.get(cost["method"]["name"])
    return None if paper is None else paper / column[BASELINE]


def _by_batch_size(costs: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    panels: dict[int, list[Mapping[str, Any]]] = {}
    for cost in costs:
        panels.setdefault(cost["batch_size"], []).append(cost)
    return panels


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f}"


def _format(value: float | None, pattern: str) -> str:
    return "" if value is None else pattern.format(value)
