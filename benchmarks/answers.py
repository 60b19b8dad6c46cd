"""The tables and pictures of docs/results.md, from docs/results/*.csv and results/methods-*.json alone.

    python benchmarks/answers.py

The numbers are of the runs of `questions.py`; costs are of `methods.py`.
"""

from collections import Counter

import numpy as np
import tables
from questions import (
    COMPARED,
    CONTROL,
    DOCS,
    FIRST_SEED,
    HARD,
    NUMBERS,
    POINTS,
    RATES,
    SEEDS,
    TASKS,
    chosen_points,
    is_reported,
    read,
)
from tables import markdown, replace_tables

MAJORITY = "always the commonest label"
VANILLA = "vanilla"


def main():
    replace_tables(DOCS / "results.md", build_tables())
    for name, figure in build_figures().items():
        from dpstune.report.figures import write_figure

        write_figure(DOCS / f"{name}.png", figure)
        print(f"wrote {DOCS / name}.png")


def build_tables():
    """Return the tables whose numbers are there, by name."""
    rows, carried = read("runs.csv"), read("transfer.csv")
    built = {"rates": rates_table(rows), "chosen": chosen_table(rows), "cost": cost_table()}
    compared = fully_compared(rows)
    if compared:
        built |= {
            "compare": compare_table(compared),
            "against": against_table(compared),
            "steady": steady_table(compared),
            "each": each_table(compared),
        }
    if carried:
        built["carry"] = carry_table(carried)
    if read("votes.csv"):
        built["hard"] = hard_table(case_study(), rows)
    return built


def build_figures():
    """Return the pictures whose numbers are there, by name."""
    from dpstune.report.casestudy_figure import proportions_figure
    from dpstune.report.profile_report import memory_figure

    compared, carried = fully_compared(read("runs.csv")), read("transfer.csv")
    built = {"results-cost": memory_figure(memory_measured())}
    if compared:
        built["results"] = draw(compared, "task")
    if carried:
        built["results-carry"] = draw(carried, "target")
    if read("votes.csv"):
        built["results-hard"] = proportions_figure(case_study())
    return built


# The numbers


def fully_compared(rows):
    """Return the reported runs of the tasks of which every method has all its seeds, as it was chosen."""
    best, seeds = chosen_points(rows), range(FIRST_SEED, FIRST_SEED + SEEDS)
    reported = [row for row in rows if is_reported(row, best) and int(row["seed"]) in seeds]
    counts = Counter(row["task"] for row in reported)
    return [row for row in reported if counts[row["task"]] == len(COMPARED) * SEEDS]


def values(rows, **wanted):
    """Return the values of the rows that have what is wanted, one a seed, by ascending seed."""
    kept = {int(row["seed"]): float(row["value"]) for row in rows if all(row[key] == wanted[key] for key in wanted)}
    return np.array([kept[seed] for seed in sorted(kept)])


def differences(rows, method, base, tasks=None):
    """Return a method's values minus those of another with the same task and seed."""
    pairs = [
        values(rows, task=task, method=method) - values(rows, task=task, method=base)
        for task in tasks or found_in(rows, "task")
    ]
    return np.concatenate(pairs)


def found_in(rows, key):
    return list(dict.fromkeys(row[key] for row in rows))


def majority_of(rows):
    """Return what always answering the commonest label gets, the mean over the rows; None where there is none."""
    known = [float(row["majority"]) for row in rows if row["majority"]]
    return np.mean(known) if known else None


def case_study():
    from dpstune.studies.casestudy_sources import SourcesRequest, study_sources

    return study_sources(SourcesRequest(sources=(NUMBERS / "votes.csv",), output=NUMBERS))


def memory_measured():
    return tables.read("methods-bert-large-cpu-memory") or tables.read("methods-minilm-cpu-memory")


# The tables


def rates_table(rows):
    held = [row for row in rows if row["split"] == "held_out" and row["method"] == VANILLA]
    lines, means = [], {float(rate): [] for rate in RATES}
    for task in TASKS:
        own = [row for row in held if row["task"] == task]
        found = {rate: values([row for row in own if float(row["rate"]) == rate]) for rate in means}
        if all(len(each) == 2 for each in found.values()):
            lines.append([task, own[0]["metric"], *map(spread, found.values())])
            for rate, each in found.items():
                means[rate].append(each.mean())
    lines.append(["mean", "", *(f"{np.mean(each):.4f}" for each in means.values())])
    return markdown(["task", "metric", *(f"rate {rate:g}" for rate in means)], lines)


def chosen_table(rows):
    best = chosen_points(rows)
    tasks = [task for task in TASKS if any(place[0] == task for place in best)]
    lines = [
        [method, len(points), *(best.get((task, method), "") for task in tasks)]
        for method, points in POINTS.items()
        if method != VANILLA
    ]
    return markdown(["method", "points", *tasks], lines)


def compare_table(rows):
    """A row a method: mean and standard deviation on each task, and the mean over tasks."""
    by_task = {task: [row for row in rows if row["task"] == task] for task in found_in(rows, "task")}
    lines = []
    for method in COMPARED:
        found = [values(own, method=method) for own in by_task.values()]
        lines.append([method, *map(spread, found), f"{np.mean([each.mean() for each in found]):.4f}"])
    lines.append([MAJORITY, *(number(majority_of(own)) for own in by_task.values()), ""])
    return markdown(["method", *(f"{task}, {own[0]['metric']}" for task, own in by_task.items()), "mean"], lines)


def against_table(rows):
    """A row a method: its difference from vanilla, with dropout and without, over all pairs of a task and seed."""
    lines = []
    for method in COMPARED:
        cells = [against(differences(rows, method, base)) if method != base else "" for base in (VANILLA, CONTROL)]
        lines.append([method, *cells])
    return markdown(["method", "minus vanilla (95%), p", "minus vanilla without dropout (95%), p"], lines)


def steady_table(rows):
    """A row a method: failed restarts, and over tasks the mean of the standard deviation and of the worst seed."""
    lines = []
    for method in COMPARED:
        own = [row for row in rows if row["method"] == method]
        failed = [float(row["value"]) <= float(row["majority"] or 0.0) for row in own]
        by_task = [values(own, task=task) for task in found_in(rows, "task")]
        stds, worst = [each.std(ddof=1) for each in by_task], [each.min() for each in by_task]
        lines.append([method, f"{sum(failed)} of {len(failed)}", number(np.mean(stds)), number(np.mean(worst))])
    return markdown(["method", "failed restarts", "standard deviation", "worst seed"], lines)


def each_table(rows):
    """A row a task and method: all that a sweep's report says of it."""
    from dpstune.studies.statistics import bootstrap_interval

    lines = []
    for task in found_in(rows, "task"):
        for method in COMPARED:
            own = values(rows, task=task, method=method)
            low, high = bootstrap_interval(own)
            compared = ["", ""]
            if method != VANILLA:
                difference = differences(rows, method, VANILLA, [task])
                compared = [f"{difference.mean():+.4f}", p_value(difference)]
            lines.append([task, method, spread(own), number(own.max()), f"{low:.4f} to {high:.4f}", *compared])
    return markdown(["task", "method", "mean, std", "best", "95% of the mean", "minus vanilla", "p"], lines)


def carry_table(rows):
    """A row a method: mean and standard deviation on each target, and what is lost on average."""
    targets = found_in(rows, "target")
    lines = []
    for method in COMPARED:
        found = [values(rows, method=method, target=target) for target in targets]
        lost = np.mean([(found[0] - each).mean() for each in found[1:]])
        lines.append([method, *map(spread, found), number(lost)])
    majorities = [majority_of([row for row in rows if row["target"] == target]) for target in targets]
    lines.append([MAJORITY, *map(number, majorities), ""])
    return markdown(["method", *targets, f"mean lost against {targets[0]}"], lines)


def hard_table(study, rows):
    """A row a method: accuracy over its restarts, the shares of easy and hard examples, what it rescues and loses."""
    best = chosen_points(rows)
    reported = [row for row in rows if row["task"] == HARD and is_reported(row, best)]
    lines = []
    for method in study.methods:
        counts, own = study.proportions(method), values(reported, method=method.name)
        shares = [f"{each} ({each / counts.examples:.1%})" for each in (counts.easy, counts.hard, counts.neither)]
        changed = ["" if each is None else each for each in (counts.rescued, counts.lost)]
        lines.append([method.name, method.restarts, spread(own), *shares, *changed])
    return markdown(["method", "restarts", "accuracy", "easy", "hard", "neither", "rescued", "lost"], lines)


def cost_table():
    """A row a method: its step and its memory beside the paper's Table 3."""
    from dpstune.report.profile_report import TABLE_3

    times, memory = tables.read("methods-minilm-cpu"), memory_measured()
    size = 16
    paper = TABLE_3[size]
    lines = []
    for method, gigabytes in paper.items():
        timed, measured = tables.cost(times, method, size), tables.cost(memory, method, size)
        peak, base = measured["memory"]["peak"], measured["vanilla_peak"]
        lines.append(
            [
                method,
                tables.spread(timed["ratio"], timed["ratio_quartiles"]),
                f"{peak / 2**30:.2f} GiB, {peak / base:.2f}x",
                f"{measured['bytes_a_linear_weight']:.2f}",
                f"{gigabytes} G, {gigabytes / paper[VANILLA]:.2f}x",
            ]
        )
    header = ["method", f"step, {times['model']}", f"peak, {memory['model']}", "bytes a linear weight"]
    return markdown([*header, "the paper's Table 3"], lines) + tables.measured_on(memory)


# How numbers are written


def spread(found):
    return f"{found.mean():.4f} ± {found.std(ddof=1):.4f}" if len(found) > 1 else f"{found[0]:.4f}"


def number(value):
    return "" if value is None else f"{value:.4f}"


def against(found):
    from dpstune.studies.statistics import bootstrap_interval

    low, high = bootstrap_interval(found)
    return f"{found.mean():+.4f} ({low:+.4f} to {high:+.4f}), {p_value(found)}"


def p_value(found):
    from dpstune.studies.statistics import paired_permutation_test

    return f"{paired_permutation_test(found, np.zeros_like(found)):.3f}"


def draw(rows, panel):
    """Draw each method's seeds and mean, a panel a task or target, beside vanilla's mean (dashed)."""
    from matplotlib.figure import Figure

    from dpstune.report.figures import method_colour

    names, methods = found_in(rows, panel), list(COMPARED)
    figure = Figure(figsize=(2.6 * len(names) + 1.4, 4.0), layout="constrained", facecolor="white")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        own = [row for row in rows if row[panel] == name]
        axes.axvline(values(own, method=VANILLA).mean(), color="#555555", linestyle="--", linewidth=1)
        majority = majority_of(own)
        if majority is not None:
            axes.axvline(majority, color="#bbbbbb", linewidth=3, zorder=0)
        for position, method in enumerate(reversed(methods)):
            found, colour = values(own, method=method), method_colour(method.partition(",")[0])
            axes.scatter(found, np.full(len(found), position), s=16, color=colour, alpha=0.45, linewidths=0)
            axes.scatter(found.mean(), position, s=70, color=colour, marker="D", edgecolors="white", zorder=3)
        axes.set_title(f"{name}, {own[0]['metric']}", fontsize=12, loc="left")
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
    figure.axes[0].set_yticks(range(len(methods)), methods[::-1], fontsize=12)
    return figure


if __name__ == "__main__":
    main()
