"""The tables and pictures of docs/results.md and its appendix, from docs/results and results/methods-*.json alone.

    python benchmarks/answers.py

The numbers are of the runs of `questions.py`; costs are of `methods.py`.
"""

from collections import Counter
from dataclasses import replace
from math import comb
from pathlib import Path
from types import MappingProxyType

import numpy as np
import tables
from questions import (
    BEST_POINTS,
    COMPARED,
    CONTROL,
    DOCS,
    EPOCHS,
    FIRST_SEED,
    HARD,
    LONGER,
    NUMBERS,
    POINTS,
    RATE,
    RATES,
    RESTARTS,
    SEEDS,
    STUDIED,
    TASKS,
    WHY,
    chosen_points,
    is_reported,
    points_of,
    read,
)
from tables import markdown, replace_tables

PAGES = (DOCS / "results.md", DOCS / "results-appendix.md")
MAJORITY = "always the commonest label"
VANILLA = "vanilla"
WITHOUT_DROPOUT = ("mixout", "dps-dense", "dps-mix")  # they ask for none in runs as short as these
TWO_PASSES = ("r3f", "r-drop", "smart")  # a second loss cannot be told from the first; what they hold is activations
BATCH = 16


def main():
    from dpstune.report.figures import write_figure

    tables = build_tables()
    for page in PAGES:
        text = page.read_text()
        replace_tables(page, {name: table for name, table in tables.items() if f"<!-- {name} -->" in text})
    for name, figure in build_figures().items():
        write_figure(DOCS / f"{name}.png", figure)
        print(f"wrote {DOCS / name}.png")


def build_tables():
    """Return the tables whose numbers are there, by name."""
    rows, carried = read("runs.csv"), read("transfer.csv")
    compared, studied = fully_compared(rows), fully_compared(rows, (*STUDIED, CONTROL), RESTARTS)
    built = {"rates": rates_table(rows), "chosen": chosen_table(rows), "cost": cost_table()}
    if compared:
        built |= {
            "compare": compare_table(compared),
            "against": against_table(compared),
            "rivals": rivals_table(compared),
            "steady": steady_table(compared),
            "each": each_table(compared),
        }
    if studied:
        built["ten"] = ten_table(studied)
    if carried:
        built["carry"] = carry_table(carried)
    if read("votes.csv"):
        built["hard"] = hard_table(case_study(), rows)
    apart = held_apart(rows)
    if apart:
        built |= {"why": why_table(apart), "apart": apart_table(apart)}
    return built


def build_figures():
    """Return the pictures whose numbers are there, by name."""
    from dpstune.report.casestudy_figure import proportions_figure
    from dpstune.report.profile_report import memory_figure

    compared, carried = fully_compared(read("runs.csv")), read("transfer.csv")
    built = {"results-cost": memory_figure(memories_measured()[-1])}
    if compared:
        built["results"] = draw(compared, "task")
    if carried:
        home = found_in(carried, "target")[0]
        built["results-carry"] = draw(carried, "target", {home: f"{home}, in-domain"})
    if read("votes.csv"):
        built["results-hard"] = proportions_figure(case_study())
    return built


# The numbers


def fully_compared(rows, methods=COMPARED, seeds=SEEDS):
    """Return the reported runs of the tasks of which each of some methods has all its seeds, as it was chosen."""
    best, wanted = chosen_points(rows), range(FIRST_SEED, FIRST_SEED + seeds)
    reported = [
        row for row in rows if row["method"] in methods and is_reported(row, best) and int(row["seed"]) in wanted
    ]
    counts = Counter((row["task"], row["method"]) for row in reported)
    return [row for row in reported if all(counts[row["task"], method] == seeds for method in methods)]


def held_apart(rows):
    """Return values and training losses by method, dropout and epochs; none before all seeds of all are there."""
    settings = chosen_points(rows).get((WHY, "dps-dense"))
    names = {
        (VANILLA, "0.1"): (VANILLA, ""),
        (VANILLA, "0"): (CONTROL, ""),
        ("dps-dense", "0.1"): ("dps-dense, dropout 0.1", settings),
        ("dps-dense", "0"): ("dps-dense", settings),
    }
    found = {}
    for place, (method, chosen) in names.items():
        for epochs in (EPOCHS, LONGER):
            wanted = {"task": WHY, "method": method, "settings": chosen, "epochs": str(epochs), "rate": str(RATE)}
            own = [row for row in rows if row["split"] != "held_out" and wanted.items() <= row.items()]
            own = [row for row in own if int(row["seed"]) < FIRST_SEED + SEEDS]
            if len(own) < SEEDS:
                return {}
            found[*place, epochs] = own
    return found


def values(rows, **wanted):
    """Return the values of the rows that have what is wanted, one a seed, by ascending seed."""
    kept = {int(row["seed"]): float(row["value"]) for row in rows if all(row[key] == wanted[key] for key in wanted)}
    return np.array([kept[seed] for seed in sorted(kept)])


def on_each_task(rows, method):
    return {task: values(rows, task=task, method=method) for task in found_in(rows, "task")}


def failures(rows):
    """Count the rows that are no better than the commonest label; a correlation, than 0."""
    return sum(float(row["value"]) <= float(row["majority"] or 0.0) for row in rows)


def differences(rows, method, base):
    """Return a method's values minus those of another with the same seed, by task."""
    own, other = on_each_task(rows, method), on_each_task(rows, base)
    return {task: own[task] - other[task] for task in own}


def deviations(rows, method):
    """Return how far a method's values are from their median, by task."""
    return {task: np.abs(found - np.median(found)) for task, found in on_each_task(rows, method).items()}


def scales(rows):
    """Return each task's standard deviation over seeds, pooled over methods: what tasks are made comparable by."""
    return {
        task: np.sqrt(np.mean([values(rows, task=task, method=method).var(ddof=1) for method in COMPARED]))
        for task in found_in(rows, "task")
    }


def found_in(rows, key):
    return list(dict.fromkeys(row[key] for row in rows))


def majority_of(rows):
    """Return what always answering the commonest label gets; None where there is nothing of the kind."""
    known = [float(row["majority"]) for row in rows if row["majority"]]
    return np.mean(known) if known else None


def case_study():
    from dpstune.studies.casestudy.sources import SourcesRequest, study_sources

    return study_sources(SourcesRequest(sources=(NUMBERS / "votes.csv",), output=NUMBERS))


def memories_measured():
    """Return the memory profiles that are there, the largest model's last."""
    return list(filter(None, map(tables.read, ("methods-minilm-cpu-memory", "methods-bert-large-cpu-memory"))))


# What is said of them


def p_over_tasks(by_task, scale=None):
    """Return p of a sign-flip test on all pairs, in points or each task's in its own standard deviations."""
    found = [each / (scale[task] or 1.0) if scale else each for task, each in by_task.items()]
    return p_of(np.concatenate(found))


def p_of(found):
    from dpstune.studies.statistics import paired_permutation_test

    return f"{paired_permutation_test(found, np.zeros_like(found)):.3f}"


def interval_over_tasks(by_task):
    """Return 95% of the mean over tasks, seeds resampled within each."""
    rng = np.random.default_rng(0)
    means = [found[rng.integers(len(found), size=(10_000, len(found)))].mean(axis=1) for found in by_task.values()]
    low, high = np.quantile(np.mean(means, axis=0), [0.025, 0.975])
    return f"{low:+.4f} to {high:+.4f}"


def against(rows, method, base, scale):
    """Return mean difference with interval, the tasks it is better on, p in points and p in standard deviations."""
    found = differences(rows, method, base)
    mean = np.mean([each.mean() for each in found.values()])
    better = sum(each.mean() > 1e-12 for each in found.values())  # equal counts of examples may differ by rounding
    tests = [p_over_tasks(found), p_over_tasks(found, scale)]
    return [f"{mean:+.4f} ({interval_over_tasks(found)})", f"{better} of {len(found)}", *tests]


def steadier(rows, method, base, scale):
    """Return a method's spread over another's, in scaled mean distances from the median, and p."""
    own, other = deviations(rows, method), deviations(rows, base)
    spreads = [sum(each[task].mean() / (scale[task] or 1.0) for task in scale) for each in (own, other)]
    return [f"{spreads[0] / spreads[1]:.2f}", p_over_tasks({task: own[task] - other[task] for task in scale}, scale)]


def sign_test(more, fewer):
    """Return the two-sided p of so uneven a split of changes by chance."""
    changes = more + fewer
    tail = sum(comb(changes, each) for each in range(min(more, fewer) + 1)) / 2**changes
    return min(1.0, 2 * tail)


def spread(found):
    return f"{found.mean():.4f} ± {found.std(ddof=1):.4f}" if len(found) > 1 else f"{found[0]:.4f}"


def number(value):
    return "" if value is None else f"{value:.4f}"


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
    tasks = [task for task in TASKS if (task, VANILLA) in best]
    lines = [
        [method, f"{len(points)}, {len(BEST_POINTS[method])}", *(chosen_cell(best, task, method) for task in tasks)]
        for method, points in POINTS.items()
        if method != VANILLA
    ]
    return markdown(["method", "points tried", *tasks], lines)


def chosen_cell(best, task, method):
    return best[task, method] + ("" if len(points_of(task)[method]) > 1 else " (carried over)")


def compare_table(rows):
    """A row a method: mean and standard deviation on each task, and the mean over tasks."""
    by_task = {task: [row for row in rows if row["task"] == task] for task in found_in(rows, "task")}
    lines = []
    for method in COMPARED:
        found = [values(own, method=method) for own in by_task.values()]
        lines.append([method, *map(spread, found), number(np.mean([each.mean() for each in found]))])
    lines.append([MAJORITY, *(number(majority_of(own)) for own in by_task.values()), ""])
    return markdown(["method", *(f"{task}, {own[0]['metric']}" for task, own in by_task.items()), "mean"], lines)


def against_table(rows):
    """A row a method: its difference from vanilla; of those without dropout, from vanilla without dropout too."""
    scale, lines = scales(rows), []
    for method in COMPARED:
        if method != VANILLA:
            fair = against(rows, method, CONTROL, scale) if method in WITHOUT_DROPOUT else [""] * 4
            lines.append([method, *against(rows, method, VANILLA, scale), *fair])
    tests = ["better on", "p, points", "p, deviations"]
    header = ["method", "minus vanilla (95%)", *tests, "minus vanilla without dropout (95%)", *tests]
    return markdown(header, lines)


def rivals_table(rows):
    """A row for each DPS: its difference from mixout, which mixes as often and selects nothing."""
    scale = scales(rows)
    lines = [[method, *against(rows, method, "mixout", scale)] for method in ("dps-dense", "dps-mix")]
    return markdown(["method", "minus mixout (95%)", "better on", "p, points", "p, deviations"], lines)


def steady_table(rows):
    """A row a method: failed restarts, and how far its seeds scatter beside vanilla's, with dropout and without."""
    scale, lines = scales(rows), []
    for method in COMPARED:
        own = [row for row in rows if row["method"] == method]
        usual = steadier(rows, method, VANILLA, scale) if method != VANILLA else ["", ""]
        fair = steadier(rows, method, CONTROL, scale) if method in WITHOUT_DROPOUT else ["", ""]
        lines.append([method, f"{failures(own)} of {len(own)}", *usual, *fair])
    header = ["method", "failed restarts", "spread over vanilla's", "p"]
    return markdown([*header, "over vanilla's without dropout", "p"], lines)


def ten_table(rows):
    """A row a task and method: its difference from vanilla with dropout and without, and its spread beside theirs."""
    methods, bases = (VANILLA, CONTROL, *STUDIED[1:]), (VANILLA, CONTROL)
    found = {method: on_each_task(rows, method) for method in methods}
    apart = {method: deviations(rows, method) for method in methods}
    lines = []
    for task in found_in(rows, "task"):
        for method in methods:
            cells = []
            for base in bases:
                if method in (VANILLA, base):
                    cells += [""] * 4
                    continue
                gained, scattered = (each[method][task] - each[base][task] for each in (found, apart))
                over = apart[method][task].mean() / apart[base][task].mean()
                cells += [f"{gained.mean():+.4f}", p_of(gained), f"{over:.2f}", p_of(scattered)]
            lines.append([task, method, spread(found[method][task]), *cells])
    header = [
        cell
        for base in ("vanilla", "vanilla without dropout")
        for cell in (f"minus {base}", "p", "spread over its", "p")
    ]
    return markdown(["task", "method", "mean, std", *header], lines)


def each_table(rows):
    """A row a task and method: what a sweep's report says of it, and the training loss at the end."""
    from dpstune.studies.statistics import bootstrap_interval, paired_permutation_test

    lines = []
    for task in found_in(rows, "task"):
        for method in COMPARED:
            runs = [row for row in rows if row["task"] == task and row["method"] == method]
            own = values(runs)
            low, high = bootstrap_interval(own)
            loss = "" if method in TWO_PASSES else f"{np.mean([float(row['train_loss']) for row in runs]):.3f}"
            compared = ["", ""]
            if method != VANILLA:
                base = values(rows, task=task, method=VANILLA)
                compared = [f"{(own - base).mean():+.4f}", f"{paired_permutation_test(own, base):.3f}"]
            numbers = [spread(own), number(own.max()), f"{low:.4f} to {high:.4f}", failures(runs), loss]
            lines.append([task, method, *numbers, *compared])
    header = ["task", "method", "mean, std", "best", "95% of the mean", "failed", "training loss"]
    return markdown([*header, "minus vanilla", "p"], lines)


def why_table(found):
    """A row a method and dropout: mean, deviation and training loss after each number of epochs."""
    lines = []
    for method, dropout in dict.fromkeys(place[:2] for place in found):
        cells = []
        for epochs in (EPOCHS, LONGER):
            rows = found[method, dropout, epochs]
            cells += [spread(values(rows)), f"{np.mean([float(row['train_loss']) for row in rows]):.3f}"]
        lines.append([method, dropout, *cells])
    header = [cell for epochs in (EPOCHS, LONGER) for cell in (f"{epochs} epochs", "training loss")]
    return markdown(["method", "dropout", *header], lines)


def apart_table(found):
    """A row a comparison: what a method, or leaving dropout out, brings after each number of epochs, and p."""
    pairs = {
        "DPS Dense minus vanilla, dropout 0.1": [("dps-dense", "0.1"), (VANILLA, "0.1")],
        "DPS Dense minus vanilla, dropout 0": [("dps-dense", "0"), (VANILLA, "0")],
        "vanilla, dropout 0 minus 0.1": [(VANILLA, "0"), (VANILLA, "0.1")],
        "DPS Dense, dropout 0 minus 0.1": [("dps-dense", "0"), ("dps-dense", "0.1")],
    }
    lines = []
    for name, sides in pairs.items():
        gained = [np.subtract(*(values(found[*side, epochs]) for side in sides)) for epochs in (EPOCHS, LONGER)]
        lines.append([name, *(cell for each in gained for cell in (f"{each.mean():+.4f}", p_of(each)))])
    header = [cell for epochs in (EPOCHS, LONGER) for cell in (f"{epochs} epochs", "p")]
    return markdown(["what", *header], lines)


def carry_table(rows):
    """A row a method: mean and standard deviation on each target; out of domain the mean, and it minus vanilla's."""
    home, *away = found_in(rows, "target")
    base, lines = mean_over(rows, VANILLA, away), []
    for method in COMPARED:
        found, own = (
            [values(rows, method=method, target=target) for target in (home, *away)],
            mean_over(rows, method, away),
        )
        compared = ["", ""]
        if method != VANILLA:
            compared = [f"{(own - base).mean():+.4f}", ", ".join(f"{each:+.3f}" for each in own - base)]
        lines.append([method, *map(spread, found), number(own.mean()), *compared])
    majorities = [majority_of([row for row in rows if row["target"] == target]) for target in (home, *away)]
    lines.append([MAJORITY, *map(number, majorities), number(np.mean(majorities[1:])), "", ""])
    header = ["method", f"{home} (in-domain)", *away, "mean out of domain", "minus vanilla", "seed by seed"]
    return markdown(header, lines)


def mean_over(rows, method, targets):
    """Return a method's mean over targets, one a seed."""
    return np.mean([values(rows, method=method, target=target) for target in targets], axis=0)


def hard_table(study, rows):
    """A row a method: accuracy, easy and hard examples, those it rescues from each vanilla and loses, and p."""
    best, fair = chosen_points(rows), replace(study, baseline=CONTROL)
    reported = [row for row in rows if row["task"] == HARD and is_reported(row, best)]
    lines = []
    for method in study.methods:
        counts, own = study.proportions(method), values(reported, method=method.name)
        shares = [f"{each} ({each / counts.examples:.1%})" for each in (counts.easy, counts.hard, counts.neither)]
        others = changes(fair.proportions(method) if method.name != VANILLA else None)
        lines.append([method.name, spread(own), *shares, *changes(counts), *others])
    changed = ["rescued, lost from vanilla", "p", "from vanilla without dropout", "p"]
    return markdown(["method", "accuracy", "easy", "hard", "neither", *changed], lines)


def changes(counts):
    """Return how many examples are rescued and lost, and p; nothing for what the others are compared with."""
    if counts is None or counts.rescued is None:
        return ["", ""]
    return [f"{counts.rescued}, {counts.lost}", f"{sign_test(counts.rescued, counts.lost):.3f}"]


def cost_table():
    """A row a method: its step, its memory with each model and batch size measured, and the paper's Table 3."""
    from dpstune.report.profile_report import TABLE_3, describe_peak

    times, measured = tables.read("methods-minilm-cpu"), memories_measured()
    sizes = [(each, size) for each in measured for size in dict.fromkeys(cost["batch_size"] for cost in each["costs"])]
    lines = []
    for method in TABLE_3[BATCH]:
        timed, beyond = tables.cost(times, method, BATCH), [tables.cost(each, method, BATCH) for each in measured]
        weights = [f"{each['bytes_a_linear_weight']:.2f}" for each in beyond if method not in TWO_PASSES]
        peaks = [describe_peak(tables.cost(each, method, size)) for each, size in sizes]
        paper = [f"{table[method]} G, {table[method] / table[VANILLA]:.2f}x" for table in TABLE_3.values()]
        step = tables.spread(timed["ratio"], timed["ratio_quartiles"])
        lines.append([method, step, *peaks, ", ".join(weights), *paper])
    peaks = [f"peak over vanilla's, {short(each)}, batch {size}" for each, size in sizes]
    paper = [f"Table 3, batch {size}" for size in TABLE_3]
    sources = [("Time", times), *((f"Memory, {short(each)}", each) for each in measured)]
    told = [f"{name}: {tables.measured_on(each).strip()}" for name, each in sources]
    weights = f"bytes a linear weight, {', '.join(map(short, measured))}"
    header = ["method", f"step over vanilla, {short(times)}", *peaks, weights, *paper]
    return markdown(header, lines) + "\n" + " ".join(told) + "\n"


def short(outcome):
    return Path(outcome["model"]).name


def draw(rows, panel, titles=MappingProxyType({})):
    """Draw each method's seeds and mean (diamond), a panel a task or target; vanilla's mean is dashed."""
    from matplotlib.figure import Figure

    from dpstune.report.figures import method_colour

    names, methods = found_in(rows, panel), list(COMPARED)
    figure = Figure(figsize=(2.0 * len(names) + 1.8, 4.2), layout="constrained", facecolor="white")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        own = [row for row in rows if row[panel] == name]
        axes.axvline(values(own, method=VANILLA).mean(), color="#555555", linestyle="--", linewidth=1)
        majority = majority_of(own)
        if majority is not None:
            axes.axvline(majority, color="#cccccc", linewidth=4, zorder=0)
        for position, method in enumerate(reversed(methods)):
            found, colour = values(own, method=method), method_colour(method.partition(",")[0])
            axes.scatter(found, np.full(len(found), position - 0.2), s=16, color=colour, alpha=0.6, linewidths=0)
            axes.scatter(found.mean(), position + 0.15, s=45, color=colour, marker="D")
        axes.set_title(titles.get(name, name), fontsize=13, loc="left")
        axes.set_xlabel(own[0]["metric"], fontsize=11)
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="x", nbins=3)
    labels = [f"{method} *" if method in (*WITHOUT_DROPOUT, CONTROL) else method for method in methods]
    figure.axes[0].set_yticks(range(len(methods)), labels[::-1], fontsize=12)
    told = "* without dropout; dots: seeds; diamonds: means; dashed: vanilla; grey: the commonest label"
    figure.supxlabel(told, fontsize=11)
    return figure


if __name__ == "__main__":
    main()
