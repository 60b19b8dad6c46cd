"""The paper's questions on a 22M encoder with few examples: runs what docs/results.md reports, and writes its tables.

    python benchmarks/questions.py rate [TASK ...]      the learning rate that all methods share
    python benchmarks/questions.py choose [TASK ...]    each method's own settings, on training data held out
    python benchmarks/questions.py compare [TASK ...]   five seeds of each method as chosen, on the validation split
    python benchmarks/questions.py carry                mnli -> snli, sick, rte
    python benchmarks/questions.py collect              copies the numbers of all finished runs into docs/results/
    python benchmarks/questions.py write                the tables and the picture, from docs/results/ alone

Each of the first four is commands of dpstune, which it prints; interrupted, it goes on where it was. DPSTUNE_GLUE and
DPSTUNE_NLI are folders with the corpora, DPSTUNE_RUNS is where the runs go.
"""

import argparse
import csv
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from common import GLUE, HERE
from tables import markdown, replace_tables

NLI = Path(os.environ.get("DPSTUNE_NLI", GLUE.parent / "nli"))
RUNS = Path(os.environ.get("DPSTUNE_RUNS", "runs"))
DOCS = HERE.parent / "docs"
NUMBERS = DOCS / "results"

TASKS = {"rte": GLUE, "mrpc": GLUE, "stsb": GLUE, "sick": NLI, "mnli": NLI}
FEW = ("data.train_size=500", "training.batching=bucketed", "training.eval_every=1000")
HELD_OUT = "data.held_out=500"
RATES = ("1e-4", "2e-4", "5e-4")
RATE = 1e-4  # the best mean over the five tasks, see docs/results.md
AT_RATE = f"training.learning_rate={RATE:g}"
SEEDS, FIRST_SEED = 5, 42

# Points of the Appendix D grids, 3 to 6 a method. CHILD-TUNING-D's learning rates are BERT-large's: it takes RATE.
POINTS = {
    "vanilla": [""],
    "mixout": [f"p={p}" for p in (0.2, 0.4, 0.6, 0.8)],
    "r3f": [f"noise=normal,sigma=1e-5,lambda={weight}" for weight in (0.1, 0.5, 1.0, 5.0)],
    "r-drop": [f"dropout=0.1,alpha={alpha}" for alpha in (0.1, 0.5, 1.0, 3.0, 5.0)],
    "reinit": [f"layers={layers}" for layers in (1, 2, 3, 4)],
    "child-tuning-d": [f"p={p}" for p in (0.1, 0.2, 0.3)],
    "child-tuning-f": [f"p={p}" for p in (0.2, 0.3, 0.4)],
    "dps-dense": [f"p={p},update_ratio={ratio}" for p in (0.1, 0.3, 0.5) for ratio in (0.05, 0.2)],
    "dps-mix": [f"p={p},update_ratio={ratio}" for p in (0.1, 0.3, 0.5) for ratio in (0.05, 0.2)],
}
# Several methods ask for no dropout; what that alone does, plain fine-tuning without it says.
CONTROL, NO_DROPOUT = "vanilla, dropout 0", "model.dropout=0.0"
COMPARED = (*POINTS, CONTROL)
COLUMNS = ("task", "method", "settings", "rate", "seed", "split", "metric", "value", "majority", "seconds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rate", "choose", "compare", "carry", "collect", "write"))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    asked = parser.parse_args()
    unknown = set(asked.tasks) - set(TASKS)
    if unknown:
        parser.error(f"no task here is called {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    if asked.what in ("carry", "collect", "write"):
        {"carry": carry, "collect": collect, "write": write}[asked.what]()
        return
    for task in asked.tasks or TASKS:
        {"rate": rate, "choose": choose, "compare": compare}[asked.what](task)


# What is run


def rate(task):
    sweep(task, ["vanilla"], 2, [HELD_OUT], "--grid", f"training.learning_rate={','.join(RATES)}")


def choose(task):
    methods = [named(method, settings) for method, points in POINTS.items() for settings in points]
    sweep(task, methods, 1, [HELD_OUT, AT_RATE])


def compare(task):
    sweep(task, methods_chosen_for(task), SEEDS, [AT_RATE])
    sweep(task, ["vanilla"], SEEDS, [AT_RATE, NO_DROPOUT])


def methods_chosen_for(task):
    collect()
    best = chosen_points(read("runs.csv"))
    missing = [method for method in POINTS if (task, method) not in best]
    if missing:
        sys.exit(f"nothing is chosen yet for {', '.join(missing)}; first: python benchmarks/questions.py choose {task}")
    return [named(method, best[task, method]) for method in POINTS]


def carry():
    methods = repeated("--method", methods_chosen_for("mnli"))
    few = ("model.name=minilm", "data.train_size=1000", "training.steps=200", *FEW[1:], AT_RATE)
    where = ["--data-dir", NLI, "--data-dir", GLUE, "--targets", "mnli,snli,sick,rte"]
    dpstune("transfer", "--recipe", "transfer-mnli", *where, *methods, "--seeds", 2, *repeated("--set", few))


def sweep(task, methods, seeds, overrides, *more):
    flags = [
        "--no-models",
        *repeated("--method", methods),
        *repeated("--set", (*FEW, *overrides)),
        "--seeds",
        seeds,
        *more,
    ]
    dpstune("sweep", "--recipe", f"minilm-{task}", "--data-dir", TASKS[task], *flags)


def dpstune(command, *arguments):
    line = ["dpstune", command, *map(str, arguments), "--jobs", "2", "--output", str(RUNS)]
    print(shlex.join(line), flush=True)
    subprocess.run([sys.executable, "-m", *line], check=True)


def repeated(flag, values):
    return [part for value in values for part in (flag, value)]


def named(method, settings):
    return f"{method}:{settings}" if settings else method


# The numbers


def collect():
    """Copy the numbers of all finished runs, and of the transfer, into docs/results/; other tasks' rows stay."""
    from dpstune.studies.records import read_runs

    rows = []
    for task in TASKS:
        if (RUNS / f"minilm-{task}").is_dir():
            records = [record for record in read_runs(RUNS / f"minilm-{task}")[0] if is_of_these(record)]
            rows += sorted({found[:-4]: found for found in (numbers_of(task, each) for each in records)}.values())
        else:
            rows += [list(row.values()) for row in read("runs.csv") if row["task"] == task]
    if not rows:
        sys.exit(f"there are no finished runs in {RUNS}; DPSTUNE_RUNS says where they are")
    write_numbers("runs.csv", [COLUMNS, *rows])
    newest_last = sorted(RUNS.glob("transfer-mnli/transfer-*/transfer.csv"), key=lambda path: path.stat().st_mtime)
    for found in newest_last[-1:]:
        header, *table = list(csv.reader(found.read_text().splitlines()))
        write_numbers("transfer.csv", [row[: header.index("folder")] for row in (header, *table)])


def is_of_these(record):
    """Tell whether a run is of this comparison; how often it was evaluated changes no number."""
    data, training = record.recipe.data, record.recipe.training
    length = (training.batching, training.batch_size, training.epochs)
    return (data.train_size, data.held_out) in ((500, None), (500, 500)) and length == ("bucketed", 16, 3)


def numbers_of(task, record):
    settings = record.recipe.method.model_dump(exclude={"name"}, by_alias=True)
    written = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in settings.items()
    )
    dropout = record.recipe.model.dropout
    method = record.method if dropout is None else f"{record.method}, dropout {dropout:g}"
    outcome = (record.split, record.metric, record.score, record.majority, record.seconds)
    return (task, method, written, record.recipe.training.learning_rate, record.seed, *outcome)


def write_numbers(name, rows):
    from dpstune.report.tables import csv_text
    from dpstune.runs import write_text

    write_text(NUMBERS / name, csv_text(rows))
    print(f"wrote {NUMBERS / name}: {len(rows) - 1} rows")


def read(name):
    path = NUMBERS / name
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def values(rows, **wanted):
    """Return the values of the rows that have what is wanted, one a seed, by ascending seed."""
    kept = {int(row["seed"]): float(row["value"]) for row in rows if all(row[key] == wanted[key] for key in wanted)}
    return np.array([kept[seed] for seed in sorted(kept)])


def chosen_points(rows):
    """Return the settings with the best value on what was held out, by task and method; of equals the first.

    A task counts once all its points are there.
    """
    tried = {}
    for row in rows:
        if row["split"] == "held_out" and int(row["seed"]) == FIRST_SEED and float(row["rate"]) == RATE:
            tried.setdefault((row["task"], row["method"]), {})[row["settings"]] = float(row["value"])
    whole = [task for task in TASKS if all(len(tried.get((task, m), ())) >= len(POINTS[m]) for m in POINTS)]
    return {place: max(points, key=points.get) for place, points in tried.items() if place[0] in whole}


# The tables


def write():
    """Write the tables of docs/results.md, and its picture, from the numbers in docs/results/ alone."""
    replace_tables(DOCS / "results.md", build_tables())
    compared = fully_compared(read("runs.csv"))
    if compared:
        draw(compared, DOCS / "results.png")


def build_tables():
    """Return the tables whose numbers are there, by name."""
    rows = read("runs.csv")
    tables = {"rates": rates_table(rows), "chosen": chosen_table(rows)}
    compared = fully_compared(rows)
    if compared:
        tables |= {"compare": compare_table(compared), "steady": steady_table(compared), "each": each_table(compared)}
    if read("transfer.csv"):
        tables["carry"] = carry_table(read("transfer.csv"))
    return tables


def fully_compared(rows):
    """Return the reported runs of the tasks of which every method has all its seeds, as it was chosen."""
    best = chosen_points(rows)
    reported = [
        row
        for row in rows
        if row["split"] != "held_out"
        and float(row["rate"]) == RATE
        and row["settings"] == best.get((row["task"], row["method"]), "")
    ]
    counts = Counter(row["task"] for row in reported)
    return [row for row in reported if counts[row["task"]] == len(COMPARED) * SEEDS]


def rates_table(rows):
    held = [row for row in rows if row["split"] == "held_out" and row["method"] == "vanilla"]
    lines, means = [], {float(rate): [] for rate in RATES}
    for task in tasks_in(held):
        found = {rate: values([row for row in held if float(row["rate"]) == rate], task=task) for rate in means}
        if all(len(each) == 2 for each in found.values()):
            lines.append([task, metric_of(held, task), *(spread(each) for each in found.values())])
            for rate, each in found.items():
                means[rate].append(each.mean())
    lines.append(["mean", "", *(f"{np.mean(each):.4f}" for each in means.values())])
    return markdown(["task", "metric", *(f"rate {rate:g}" for rate in means)], lines)


def chosen_table(rows):
    best = chosen_points(rows)
    tasks = [task for task in TASKS if any(place[0] == task for place in best)]
    lines = [
        [method, len(points), *(best.get((task, method), "") for task in tasks)] for method, points in POINTS.items()
    ]
    return markdown(["method", "points", *tasks], [line for line in lines if line[0] != "vanilla"])


def compare_table(rows):
    """A row a method: mean and standard deviation on each task, and the difference from vanilla over all pairs."""
    from dpstune.studies.statistics import bootstrap_interval

    lines = []
    for method in COMPARED:
        by_task = [values(rows, task=task, method=method) for task in tasks_in(rows)]
        differences = np.concatenate([difference_from_vanilla(rows, task, method) for task in tasks_in(rows)])
        cells = ["", ""]
        if method != "vanilla":
            low, high = bootstrap_interval(differences)
            cells = [f"{differences.mean():+.4f} ({low:+.4f} to {high:+.4f})", p_value(differences)]
        lines.append([method, *map(spread, by_task), f"{np.mean([each.mean() for each in by_task]):.4f}", *cells])
    tasks = [f"{task}, {metric_of(rows, task)}" for task in tasks_in(rows)]
    return markdown(["method", *tasks, "mean", "minus vanilla, all pairs", "p"], lines)


def steady_table(rows):
    """A row a method: failed restarts, and the mean over tasks of the standard deviation over seeds."""
    lines = []
    for method in COMPARED:
        own = [row for row in rows if row["method"] == method]
        failed = [float(row["value"]) <= float(row["majority"] or 0.0) for row in own]
        stds = [values(own, task=task).std(ddof=1) for task in tasks_in(rows)]
        worst = [values(own, task=task).min() for task in tasks_in(rows)]
        lines.append([method, f"{sum(failed)} of {len(failed)}", f"{np.mean(stds):.4f}", f"{np.mean(worst):.4f}"])
    return markdown(["method", "failed restarts", "standard deviation", "worst seed"], lines)


def each_table(rows):
    """A row a task and method: all that a sweep's report says of it."""
    from dpstune.studies.statistics import bootstrap_interval

    lines = []
    for task in tasks_in(rows):
        for method in COMPARED:
            own = values(rows, task=task, method=method)
            low, high = bootstrap_interval(own)
            compared = ["", ""]
            if method != "vanilla":
                difference = difference_from_vanilla(rows, task, method)
                compared = [f"{difference.mean():+.4f}", p_value(difference)]
            lines.append([task, method, spread(own), f"{own.max():.4f}", f"{low:.4f} to {high:.4f}", *compared])
    return markdown(["task", "method", "mean, std", "best", "95% of the mean", "minus vanilla", "p"], lines)


def carry_table(rows):
    """A row a method: mean and standard deviation on each target, and what is lost on average."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    lines = []
    for method in POINTS:
        found = [values(rows, method=method, target=target) for target in targets]
        lost = np.mean([(found[0] - each).mean() for each in found[1:]])
        lines.append([method, *map(spread, found), f"{lost:.4f}"])
    return markdown(["method", *targets, f"mean lost against {targets[0]}"], lines)


def difference_from_vanilla(rows, task, method):
    """Return a method's values on a task minus vanilla's with the same seed."""
    return values(rows, task=task, method=method) - values(rows, task=task, method="vanilla")


def p_value(differences):
    from dpstune.studies.statistics import paired_permutation_test

    return f"{paired_permutation_test(differences, np.zeros_like(differences)):.3f}"


def tasks_in(rows):
    return [task for task in TASKS if any(row["task"] == task for row in rows)]


def metric_of(rows, task):
    return next(row["metric"] for row in rows if row["task"] == task)


def spread(found):
    return f"{found.mean():.4f} ± {found.std(ddof=1):.4f}" if len(found) > 1 else f"{found[0]:.4f}"


def draw(rows, path):
    """Draw each method's seeds and mean on each task, beside vanilla's mean."""
    from matplotlib.figure import Figure

    from dpstune.report.figures import method_colour, write_figure

    tasks, methods = tasks_in(rows), list(COMPARED)
    figure = Figure(figsize=(2.6 * len(tasks) + 1.4, 4.0), layout="constrained", facecolor="white")
    panels = np.atleast_1d(figure.subplots(1, len(tasks), sharey=True))
    for axes, task in zip(panels, tasks, strict=True):
        axes.axvline(values(rows, task=task, method="vanilla").mean(), color="#555555", linestyle="--", linewidth=1)
        for position, method in enumerate(reversed(methods)):
            own, colour = values(rows, task=task, method=method), method_colour(method.partition(",")[0])
            axes.scatter(own, np.full(len(own), position), s=16, color=colour, alpha=0.45, linewidths=0)
            axes.scatter(own.mean(), position, s=70, color=colour, marker="D", edgecolors="white", zorder=3)
        axes.set_title(f"{task}, {metric_of(rows, task)}", fontsize=12, loc="left")
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(methods)), methods[::-1], fontsize=12)
    write_figure(path, figure)


if __name__ == "__main__":
    main()
