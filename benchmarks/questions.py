"""The paper's questions on a 22M encoder with few examples: runs what docs/results.md reports.

    python benchmarks/questions.py rate [TASK ...]      the learning rate that all methods share
    python benchmarks/questions.py choose [TASK ...]    each method's own settings, on training data held out
    python benchmarks/questions.py compare [TASK ...]   five seeds of each method as chosen, on the validation split
    python benchmarks/questions.py carry                mnli -> snli, sick, rte
    python benchmarks/questions.py hard                 ten restarts of each method on sick, example by example
    python benchmarks/questions.py collect              copies the numbers of all finished runs into docs/results/

Each of the first five is commands of dpstune, which it prints; interrupted, it goes on where it was. DPSTUNE_GLUE and
DPSTUNE_NLI are folders with the corpora, DPSTUNE_RUNS is where the runs go. `methods.py` measures what a method costs;
`answers.py` writes the tables and pictures.
"""

import argparse
import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

from common import GLUE, HERE

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
HARD, RESTARTS = "sick", 10  # as many as in the paper's Appendix A

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
    for_tasks = {"rate": rate, "choose": choose, "compare": compare}
    once = {"carry": carry, "hard": hard, "collect": collect}
    parser.add_argument("what", choices=(*for_tasks, *once))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    asked = parser.parse_args()
    unknown = set(asked.tasks) - set(TASKS)
    if unknown:
        parser.error(f"no task here is called {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    if asked.what in once:
        once[asked.what]()
        return
    for task in asked.tasks or TASKS:
        for_tasks[asked.what](task)


# What is run


def rate(task):
    sweep(task, ["vanilla"], 2, [HELD_OUT], "--grid", f"training.learning_rate={','.join(RATES)}")


def choose(task):
    methods = [named(method, settings) for method, points in POINTS.items() for settings in points]
    sweep(task, methods, 1, [HELD_OUT, AT_RATE])


def compare(task, seeds=SEEDS):
    sweep(task, methods_chosen_for(task), seeds, [AT_RATE])
    sweep(task, ["vanilla"], seeds, [AT_RATE, NO_DROPOUT])


def methods_chosen_for(task):
    collect()
    best = chosen_points(read("runs.csv"))
    missing = [method for method in POINTS if (task, method) not in best]
    if missing:
        sys.exit(f"nothing is chosen yet for {', '.join(missing)}; first: python benchmarks/questions.py choose {task}")
    return [named(method, best[task, method]) for method in POINTS]


def carry():
    few = ("model.name=minilm", "data.train_size=1000", "training.steps=200", *FEW[1:], AT_RATE)
    where = ("--data-dir", NLI, "--data-dir", GLUE, "--targets", "mnli,snli,sick,rte", "--seeds", 2)
    for methods, settings in ((methods_chosen_for("mnli"), few), (["vanilla"], (*few, NO_DROPOUT))):
        asked = (*repeated("--method", methods), *repeated("--set", settings))
        dpstune("transfer", "--recipe", "transfer-mnli", *where, *asked, "--jobs", 2)


def hard():
    compare(HARD, RESTARTS)
    collect()
    best = chosen_points(read("runs.csv"))
    folders = [record.folder for row, record in runs_of(HARD) if is_reported(row, best)]
    dpstune("casestudy", *repeated("--from", folders))


def sweep(task, methods, seeds, overrides, *more):
    flags = [
        "--no-models",
        *repeated("--method", methods),
        *repeated("--set", (*FEW, *overrides)),
        "--seeds",
        seeds,
        *more,
        "--jobs",
        2,
    ]
    dpstune("sweep", "--recipe", f"minilm-{task}", "--data-dir", TASKS[task], *flags)


def dpstune(command, *arguments):
    line = ["dpstune", command, *map(str, arguments), "--output", str(RUNS)]
    print(shlex.join(line), flush=True)
    subprocess.run([sys.executable, "-m", *line], check=True)


def repeated(flag, values):
    return [part for value in values for part in (flag, value)]


def named(method, settings):
    return f"{method}:{settings}" if settings else method


# The numbers


def collect():
    """Copy the numbers of all finished runs, and of both studies, into docs/results/; other tasks' rows stay."""
    rows = []
    for task in TASKS:
        if (RUNS / f"minilm-{task}").is_dir():
            rows += sorted([row[column] for column in COLUMNS] for row, _ in runs_of(task))
        else:
            rows += [list(row.values()) for row in read("runs.csv") if row["task"] == task]
    if not rows:
        sys.exit(f"there are no finished runs in {RUNS}; DPSTUNE_RUNS says where they are")
    write_numbers("runs.csv", [COLUMNS, *rows])
    for name, found in (("transfer.csv", carried()), ("votes.csv", votes())):
        if len(found) > 1:
            write_numbers(name, found)


def runs_of(task):
    """Return the numbers of a task's runs of this comparison, each with its run; each restart once."""
    from dpstune.studies.records import read_runs

    records = [record for record in read_runs(RUNS / f"minilm-{task}")[0] if is_of_these(record)]
    found = [(numbers_of(task, record), record) for record in records]
    return list({tuple(row[column] for column in COLUMNS[:7]): (row, record) for row, record in found}.values())


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
    rate, outcome = record.recipe.training.learning_rate, (record.split, record.metric, record.score, record.majority)
    row = (task, name_of(record), written, rate, record.seed, *outcome, record.seconds)
    return dict(zip(COLUMNS, row, strict=True))


def name_of(record):
    dropout = record.recipe.model.dropout
    return record.method if dropout is None else f"{record.method}, dropout {dropout:g}"


def carried():
    """Return header and rows of both transfers, of the newest where there are more, without their runs' folders."""
    from dpstune.studies.records import read_run

    rows = {}
    for path in newest_last("transfer-mnli/transfer-*/transfer.csv"):
        for row in csv.DictReader(path.read_text().splitlines()):
            row["method"] = name_of(read_run(Path(row.pop("folder"))))
            rows[row["method"], row["seed"], row["target"]] = row
    return [list(row) for row in list(rows.values())[:1]] + [list(row.values()) for row in rows.values()]


def votes():
    """Return header and rows of the newest case study, as `dpstune casestudy --from` reads them: counts, no texts."""
    rows = [["id", "method", "correct", "restarts"]]
    for path in newest_last("casestudy-*/examples.csv")[-1:]:
        for example in csv.DictReader(path.read_text().splitlines()):
            names = [column.removeprefix("correct_") for column in example if column.startswith("correct_")]
            rows += [
                [example["id"], named_as_here(name), example[f"correct_{name}"], example[f"restarts_{name}"]]
                for name in names
            ]
    return rows


def named_as_here(name):
    """Return what a study calls vanilla without dropout as it is called here; other names stay."""
    return name.replace(" model.dropout 0", ", dropout 0")


def newest_last(pattern):
    return sorted(RUNS.glob(pattern), key=lambda path: path.stat().st_mtime)


def write_numbers(name, rows):
    from dpstune.report.tables import csv_text
    from dpstune.runs import write_text

    write_text(NUMBERS / name, csv_text(rows))
    print(f"wrote {NUMBERS / name}: {len(rows) - 1} rows")


def read(name):
    path = NUMBERS / name
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


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


def is_reported(row, best):
    """Tell whether a run is of its method as it was chosen, on the split that is reported."""
    chosen = best.get((row["task"], row["method"]), "")  # vanilla has nothing to choose
    return row["split"] != "held_out" and float(row["rate"]) == RATE and row["settings"] == chosen


if __name__ == "__main__":
    main()
