"""The tables and pictures of docs/comparison.md, from docs/results/comparison.csv and results/methods-*.json alone."""

from collections import Counter

import numpy as np
import tables
from comparison import CONTROL, SEEDS, STEPS, TASKS, WAYS, chosen, reported, value_of
from questions import DOCS
from tables import markdown, replace_tables

from dpstune.studies.statistics import bootstrap_interval, holm, paired_permutation_test

PAGE = DOCS / "comparison.md"
BATCH = 16
NO_CORRELATION = 0.05  # two standard errors of none over STS-B's 1,500 pairs

LETTER = 1.04  # the factor in time that one letter takes up on the axis of the picture, at most


def write(rows):
    """Write every table and picture whose numbers are there."""
    from dpstune.report.figures import write_figure

    text = PAGE.read_text()
    replace_tables(PAGE, {name: table for name, table in build(rows).items() if f"<!-- {name} -->" in text})
    for size in sizes(rows):
        path = DOCS / f"comparison-{size}.png"
        write_figure(path, draw(Cells(rows, size)))
        print(f"wrote {path}")


def build(rows):
    """Return the tables whose numbers are there, by name."""
    built = {"reached": reached_table(rows)}
    for size in sizes(rows):
        cells = Cells(rows, size)
        built |= {
            f"scores-{size}": scores_table(cells),
            f"against-{size}": against_table(cells),
            f"chosen-{size}": chosen_table(rows, cells),
        }
    return built


def sizes(rows):
    """Return the numbers of examples of which a task is there."""
    return sorted({int(row["size"]) for row in reported(rows)})


class Cells:
    """The reported runs of one size, by task and way, in the order of the seeds."""

    def __init__(self, rows, size):
        self.size = size
        self.rows = [row for row in reported(rows) if int(row["size"]) == size]
        self.tasks = [task for task in TASKS if any(row["task"] == task for row in self.rows)]

    def runs(self, task, way):
        own = [row for row in self.rows if (row["task"], row["way"]) == (task, way)]
        return sorted(own, key=lambda row: int(row["seed"]))

    def values(self, task, way):
        return np.array([value_of(row) for row in self.runs(task, way)])

    def machine(self, task):
        """Return the processor and precision that most of a task's runs had: times are of these alone."""
        return Counter(map(machine_of, (row for row in self.rows if row["task"] == task))).most_common(1)[0][0]

    def seconds(self, task, way):
        """Return the median CPU seconds of a run on the task's machine; None where it ran none."""
        machine = self.machine(task)
        own = [float(row["cpu_seconds"]) for row in self.runs(task, way) if machine_of(row) == machine]
        return float(np.median(own)) if own else None

    def failed(self, task, way):
        """Count the runs that are no better than the commonest label; of a correlation, than none."""
        return sum(value_of(row) <= float(row["majority"] or NO_CORRELATION) for row in self.runs(task, way))

    def metric(self, task):
        return next(row["metric"] for row in self.rows if row["task"] == task and row["metric"])

    def ranks_by_seed(self):
        """Return each way's rank for each seed, 1 the best, the mean over tasks; ways that are equal share theirs."""
        from scipy.stats import rankdata

        each = [rankdata(-np.stack([self.values(task, way) for way in WAYS]), axis=0) for task in self.tasks]
        return dict(zip(WAYS, np.mean(each, axis=0), strict=True))

    def ranks(self):
        """Return each way's mean rank over tasks and seeds."""
        return {way: ranks.mean() for way, ranks in self.ranks_by_seed().items()}

    def time(self, way):
        """Return the mean over tasks of a run's time over plain fine-tuning's, None where a task has none."""
        own, plain = ([self.seconds(task, each) for task in self.tasks] for each in (way, CONTROL))
        return None if None in (*own, *plain) else float(np.mean(np.divide(own, plain)))


def reached_table(rows):
    """A row a task: of each size, the ways and runs that are there."""
    found = {(row["task"], row["size"]) for row in reported(rows)}
    lines = []
    for task in TASKS:
        cells = []
        for size in STEPS:
            own = [row for row in rows if (row["task"], int(row["size"])) == (task, size)]
            all_of_it = len(WAYS) * len(SEEDS) + sum(len(way.tried) for way in WAYS.values())
            cells.append(f"all {all_of_it} runs" if (task, str(size)) in found else f"{len(own)} of {all_of_it} runs")
        lines.append([task, *cells])
    return markdown(["task", *(f"{size} examples" for size in STEPS)], lines)


def scores_table(cells):
    """A row a way: mean with 95% interval on each task, mean rank, failed restarts, time and memory."""
    ranks, certain = cells.ranks(), p_of_ranks(cells)
    lines = []
    for way in sorted(WAYS, key=ranks.get):
        scores = [interval(cells.values(task, way)) for task in cells.tasks]
        failed = sum(cells.failed(task, way) for task in cells.tasks)
        time = cells.time(way)
        lines.append(
            [
                way,
                *scores,
                f"{ranks[way]:.1f}",
                f"{certain[way]:.3f}" if way in certain else "",
                f"{failed} of {len(SEEDS) * len(cells.tasks)}",
                "" if time is None else f"{time:.2f}x",
                f"{peak(cells, way) / 2**20:,.0f}",
            ]
        )
    majority = [commonest(cells, task) for task in cells.tasks]
    lines.append(["always the commonest label", *majority, "", "", "", "", ""])
    metrics = [f"{task}, {cells.metric(task)}" for task in cells.tasks]
    return markdown(
        ["way", *metrics, "mean rank", "its p, Holm", "failed restarts", "CPU time", "peak MiB"], lines
    ) + machines(cells)


def p_of_ranks(cells):
    """Return each way's p: of its rank against plain fine-tuning's, over seeds, corrected for all ways."""
    ranks = cells.ranks_by_seed()
    others = [way for way in WAYS if way != CONTROL]
    return dict(zip(others, holm([paired_permutation_test(ranks[way], ranks[CONTROL]) for way in others]), strict=True))


def peak(cells, way):
    """Return the peak bytes of a step: of top-layers with the most layers that were chosen, else with the defaults."""
    method = WAYS[way].method
    if method != "top-layers":
        return tables.cost(tables.read("methods-minilm-cpu-memory"), method, BATCH)["memory"]["peak"]
    settings = {setting for row in cells.rows if row["way"] == way for setting in row["settings"].split()}
    measured = tables.read("methods-minilm-layers-memory")["costs"]
    return max(each["memory"]["peak"] for each in measured if f"method.layers={each['method']['layers']}" in settings)


def interval(values):
    low, high = bootstrap_interval(values)
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def commonest(cells, task):
    found = [float(row["majority"]) for row in cells.runs(task, CONTROL) if row["majority"]]
    return f"{np.mean(found):.3f}" if found else ""


def machines(cells):
    """Say which processors ran how many of the runs, and what a run of plain fine-tuning took there."""
    told = []
    for machine, count in sorted(Counter(map(machine_of, cells.rows)).items()):
        took = [f"{task} {cells.seconds(task, CONTROL):.0f}" for task in cells.tasks if cells.machine(task) == machine]
        seconds = f"; CPU seconds of a run of plain fine-tuning: {', '.join(took)}" if took else ""
        told.append(f"{', '.join(machine)}: {count} runs{seconds}.")
    return "\n" + " ".join(told) + "\n"


def machine_of(row):
    return row["processor"], row["precision"]


def against_table(cells):
    """A row a task and way: its difference from plain fine-tuning without dropout, p, and p corrected for all ways."""
    lines = []
    for task in cells.tasks:
        plain = cells.values(task, CONTROL)
        others = [way for way in WAYS if way != CONTROL]
        p = [paired_permutation_test(cells.values(task, way), plain) for way in others]
        lines.append([task, CONTROL, "", "", "", f"{plain.min():.3f}"])
        for way, raw, corrected in zip(others, p, holm(p), strict=True):
            gained = cells.values(task, way) - plain
            low, high = bootstrap_interval(gained)
            worst = f"{cells.values(task, way).min():.3f}"
            told = f"{gained.mean():+.3f} ({low:+.3f} to {high:+.3f})"
            lines.append([task, way, told, f"{raw:.3f}", f"{corrected:.3f}", worst])
    return markdown(["task", "way", f"minus {CONTROL} (95%)", "p", "p, Holm", "worst seed"], lines)


def chosen_table(rows, cells):
    """A row a way: the settings that were tried, and those chosen on each task."""
    best = chosen(rows)
    lines = [
        [name, "; ".join(map(short, way.tried)), *(short(best[task, cells.size, name]) for task in cells.tasks)]
        for name, way in WAYS.items()
    ]
    return markdown(["way", "tried", *cells.tasks], lines)


def short(settings):
    """Return settings as a person reads them.

    >>> short("method.p=0.1 training.learning_rate=1e-4")
    'p 0.1, rate 1e-4'
    """
    words = [each.partition(".")[2].partition("=") for each in settings.split()]
    return ", ".join(f"{'rate' if key == 'learning_rate' else key} {value}" for key, _, value in words)


def draw(cells):
    """Draw every way's mean with its interval and its seeds, a panel a task; in the last, its rank against its time."""
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

    from dpstune.report.figures import method_colour

    ranks = cells.ranks()
    order = sorted(WAYS, key=ranks.get, reverse=True)  # the best on top
    figure = Figure(figsize=(3.4 + 2.6 * len(cells.tasks) + 4.6, 6.4), layout="constrained", facecolor="white")
    widths = [*[2.6] * len(cells.tasks), 4.6]
    *panels, last = figure.subplots(1, len(cells.tasks) + 1, width_ratios=widths)
    for axes, task in zip(panels, cells.tasks, strict=True):
        for place, way in enumerate(order):
            found, colour = cells.values(task, way), method_colour(WAYS[way].method)
            low, high = bootstrap_interval(found)
            axes.scatter(found, np.full(len(found), place), s=10, color=colour, alpha=0.35, linewidths=0)
            axes.plot([low, high], [place, place], color=colour, linewidth=2.5)
            axes.scatter(found.mean(), place, s=36, color=colour, marker="D", zorder=3)
        axes.axvline(cells.values(task, CONTROL).mean(), color="#555555", linestyle="--", linewidth=1)
        axes.set_title(task, fontsize=13, loc="left")
        axes.set_xlabel(cells.metric(task), fontsize=11)
        axes.set_yticks(range(len(order)), order if axes is panels[0] else [""] * len(order), fontsize=11)
        axes.locator_params(axis="x", nbins=4)
    times = {way: time for way in WAYS if (time := cells.time(way)) is not None}
    for way, (height, on_right) in label_places(times, ranks).items():
        colour, beside = method_colour(WAYS[way].method), times[way] * LETTER ** (1 if on_right else -1)
        last.plot([times[way], beside], [ranks[way], height], color=colour, linewidth=0.8)
        last.scatter(times[way], ranks[way], s=40, color=colour, marker="D", zorder=3)
        name = last.text(beside, height, way, fontsize=9, color=colour, verticalalignment="center", zorder=4)
        name.set_horizontalalignment("left" if on_right else "right")
        name.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    last.invert_yaxis()
    last.set_xscale("log")
    last.set_xlim(0.9 * min(times.values()), 1.5 * max(times.values()))
    last.xaxis.set_major_locator(FixedLocator([0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5]))
    last.xaxis.set_major_formatter(FormatStrFormatter("%gx"))
    last.xaxis.set_minor_locator(NullLocator())
    last.set_xlabel("CPU time of a run over plain fine-tuning's", fontsize=11)
    last.set_title("mean rank (1 is the best) against time", fontsize=13, loc="left")
    for axes in (*panels, last):
        axes.grid(color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        f"{cells.size} examples, {len(SEEDS)} seeds; diamonds: means; lines: 95% of the mean; dashed: {CONTROL}",
        fontsize=11,
    )
    return figure


def label_places(times, ranks, gap=0.5):
    """Return at which rank to write each way's name, and whether on the right, so that it covers no name or diamond.

    A name is written beside its own diamond, or below it on the side where it has to go less far.

    Args:
        gap: The least difference in rank between two names one below the other, or a name and a diamond.
    """
    half = LETTER**0.5  # a diamond is as wide as a letter
    diamonds = {way: (time / half, time * half, ranks[way]) for way, time in times.items()}
    names, placed = [], {}
    for way in sorted(times, key=ranks.get):
        others = [*names, *(at for other, at in diamonds.items() if other != way)]
        long = LETTER ** (len(way) + 1)
        right, left = (times[way], times[way] * long), (times[way] / long, times[way])
        beside_right, beside_left = (free_height(ranks[way], side, others, gap) for side in (right, left))
        on_right = beside_right <= beside_left
        placed[way] = min(beside_right, beside_left), on_right
        names.append((*(right if on_right else left), placed[way][0]))
    return placed


def free_height(rank, side, others, gap):
    """Return the first rank from this one on at which nothing is nearer than the gap on this side.

    Args:
        side: From which time to which.
        others: What is there already: from which time, to which, at which rank.
    """
    for height in sorted(height for start, end, height in others if side[0] < end and start < side[1]):
        if abs(rank - height) < gap:
            rank = height + gap
    return rank
