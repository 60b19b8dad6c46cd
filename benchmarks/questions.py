"""The paper's questions on a 22M encoder with few examples: runs what docs/results.md reports.

    python benchmarks/questions.py rate [TASK ...]      the learning rate that all methods share
    python benchmarks/questions.py choose [TASK ...]    each method's own settings, on training data held out
    python benchmarks/questions.py compare [TASK ...]   five seeds of each method as chosen, on the validation split
    python benchmarks/questions.py steady               ten restarts of vanilla, mixout and DPS on stsb and sick
    python benchmarks/questions.py carry                mnli -> snli, sick, rte
    python benchmarks/questions.py hard                 those on sick, example by example
    python benchmarks/questions.py why                  dropout and the length of a run apart, on stsb
    python benchmarks/questions.py collect              copies the numbers of all finished runs into docs/results/

Each of the first seven is commands of dpstune, which it prints; interrupted, it goes on where it was. DPSTUNE_GLUE and
DPSTUNE_NLI are folders with the corpora, DPSTUNE_RUNS is where the runs go. `methods.py` measures what a method costs;
`answers.py` writes the tables and pictures.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from common import GLUE, HERE

NLI = Path(os.environ.get("DPSTUNE_NLI", GLUE.parent / "nli"))
RUNS = Path(os.environ.get("DPSTUNE_RUNS", "runs"))
DOCS = HERE.parent / "docs"
NUMBERS = DOCS / "results"

TASKS = {"rte": GLUE, "mrpc": GLUE, "stsb": GLUE, "sick": NLI, "mnli": NLI}
FEW, AT_THE_END = ("data.train_size=500", "training.batching=bucketed"), "training.eval_every=1000"
HELD_OUT = "data.held_out=500"
RATES = ("1e-4", "2e-4", "5e-4")
RATE = 1e-4  # see docs/results.md
AT_RATE = f"training.learning_rate={RATE:g}"
EPOCHS, LONGER = 3, 10
SEEDS, FIRST_SEED = 5, 42
HARD, RESTARTS = "sick", 10  # as many as in the paper's Appendix A
LEARNED = ("stsb", "sick")  # where these examples teach the model most
STUDIED = ("vanilla", "mixout", "dps-dense", "dps-mix")  # and CONTROL
WHY = "stsb"  # after 3 epochs its runs have learned least
CARRIED = ("model.name=minilm", "data.train_size=2000", "training.steps=250", "training.batching=bucketed", AT_RATE)
TARGETS, CARRIED_SEEDS = ("mnli", "snli", "sick", "rte"), 3

# Points of the Appendix D grids, 3 to 6 a method. CHILD-TUNING-D's learning rates are BERT-large's: it takes RATE.
POINTS = {
    "vanilla": [""],
    "mixout": [f"p={p}" for p in (0.2, 0.4, 0.6, 0.8)],
    "r3f": [f"noise=normal,sigma=1e-05,lambda={weight:g},detach=False" for weight in (0.1, 0.5, 1.0, 5.0)],
    "r-drop": [f"alpha={alpha:g},dropout=0.1" for alpha in (0.1, 0.5, 1.0, 3.0, 5.0)],
    "reinit": [f"layers={layers}" for layers in (1, 2, 3, 4)],
    "child-tuning-d": [f"p={p}" for p in (0.1, 0.2, 0.3)],
    "child-tuning-f": [f"p={p}" for p in (0.2, 0.3, 0.4)],
    "dps-dense": [f"p={p},update_ratio={ratio}" for p in (0.1, 0.3, 0.5) for ratio in (0.05, 0.2)],
    "dps-mix": [f"p={p},update_ratio={ratio}" for p in (0.1, 0.3, 0.5) for ratio in (0.05, 0.2)],
}
# On the other tasks, whose runs take longer, it is between what was best on either of two.
FULLY_TRIED = ("stsb", "sick")
BEST_POINTS = {
    "vanilla": [""],
    "mixout": ["p=0.2"],
    "r3f": [f"noise=normal,sigma=1e-05,lambda={weight:g},detach=False" for weight in (0.1, 0.5)],
    "r-drop": ["alpha=0.1,dropout=0.1", "alpha=3,dropout=0.1"],
    "reinit": ["layers=2"],
    "child-tuning-d": ["p=0.3"],
    "child-tuning-f": ["p=0.3", "p=0.4"],
    "dps-dense": ["p=0.1,update_ratio=0.05", "p=0.3,update_ratio=0.2"],
    "dps-mix": ["p=0.1,update_ratio=0.2", "p=0.3,update_ratio=0.2"],
}
# Several methods ask for no dropout; what that alone does, plain fine-tuning without it says.
CONTROL, NO_DROPOUT, DROPOUT = "vanilla, dropout 0", "model.dropout=0.0", "model.dropout=0.1"
COMPARED = (*POINTS, CONTROL)
COLUMNS = (
    *("task", "method", "settings", "rate", "epochs", "seed", "split"),  # which run it is
    *("metric", "value", "majority", "train_loss", "precision"),
)
LAST_STEPS = 20  # that the training loss is the mean of

# What runs of the comparison may differ in; the last changes no number.
FREE = ("learning_rate", "epochs", "dropout", "held_out", "eval_every")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for_tasks = {"rate": rate, "choose": choose, "compare": compare}
    once = {"steady": steady, "carry": carry, "hard": hard, "why": why, "collect": collect}
    parser.add_argument("what", choices=(*for_tasks, *once))
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    asked = parser.parse_args()
    unknown = set(asked.tasks) - set(TASKS)
    if unknown:
        parser.error(f"no task here is called {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    if asked.what in once:
        if asked.tasks:
            parser.error(f"{asked.what} takes no task")
        once[asked.what]()
        return
    for task in asked.tasks or TASKS:
        for_tasks[asked.what](task)


# What is run


def rate(task):
    sweep(task, ["vanilla"], 2, [HELD_OUT], "--grid", f"training.learning_rate={','.join(RATES)}")


def choose(task):
    tried = [named(method, settings) for method, points in points_of(task).items() for settings in several(points)]
    sweep(task, tried, 1, [HELD_OUT, AT_RATE, AT_THE_END])


def compare(task, methods=tuple(POINTS), seeds=SEEDS):
    sweep(task, chosen_for(task, *methods), seeds, [AT_RATE, AT_THE_END])
    sweep(task, ["vanilla"], seeds, [AT_RATE, AT_THE_END, NO_DROPOUT])


def carry():
    where = ("--data-dir", NLI, "--data-dir", GLUE, "--targets", ",".join(TARGETS), "--seeds", CARRIED_SEEDS)
    for methods, settings in ((chosen_for("mnli", *POINTS), ()), (["vanilla"], (NO_DROPOUT,))):
        asked = (*repeated("--method", methods), *repeated("--set", (*CARRIED, AT_THE_END, *settings)))
        dpstune("transfer", "--recipe", "transfer-mnli", *where, *asked, "--jobs", 2)


def steady():
    for task in LEARNED:
        compare(task, STUDIED, RESTARTS)


def hard():
    compare(HARD, STUDIED, RESTARTS)
    dpstune("casestudy", *repeated("--from", [record.folder for record in restarts_studied(all_numbers())]))


def why():
    """Vanilla and DPS Dense, each with dropout and without, for 3 epochs and for 10."""
    dense = chosen_for(WHY, "dps-dense")
    for methods, dropout in ((["vanilla", *dense], ()), (["vanilla"], (NO_DROPOUT,)), (dense, (DROPOUT,))):
        for epochs in (EPOCHS, LONGER):
            sweep(WHY, methods, SEEDS, [AT_RATE, AT_THE_END, f"training.epochs={epochs}", *dropout])


def chosen_for(task, *methods):
    """Return methods with the settings that are best on what was held out of a task."""
    best = chosen_points(all_numbers())
    if (task, "dps-mix") not in best:
        sys.exit(f"{task}: nothing is chosen yet; first: python benchmarks/questions.py choose {task}")
    return [named(method, best[task, method]) for method in methods]


def sweep(task, methods, seeds, overrides, *more):
    asked = (*repeated("--method", methods), *repeated("--set", (*FEW, *overrides)), "--seeds", seeds, *more)
    where = ["--data-dir", TASKS[task], "--no-models", "--jobs", 2]
    if not {NO_DROPOUT, DROPOUT}.intersection(overrides):
        where += ["--dropout", "own"]  # one for all would be another experiment
    dpstune("sweep", "--recipe", f"minilm-{task}", *where, *asked)


def dpstune(command, *arguments):
    line = ["dpstune", command, *map(str, arguments), "--output", str(RUNS)]
    print(shlex.join(line), flush=True)
    subprocess.run([sys.executable, "-m", *line], check=True)


def repeated(flag, values):
    return [part for value in values for part in (flag, value)]


def points_of(task):
    return POINTS if task in FULLY_TRIED else BEST_POINTS


def several(points):
    """Return points to choose between; there is nothing to run for one alone."""
    return points if len(points) > 1 else []


def named(method, settings):
    return f"{method}:{settings}" if settings else method


# The numbers


def collect():
    """Copy the numbers of all finished runs, and of both studies, into docs/results/; rows without a run stay."""
    rows = all_numbers()
    if not rows:
        sys.exit(f"there are no finished runs in {RUNS}; DPSTUNE_RUNS says where they are")
    for name, found in (("runs.csv", rows), ("transfer.csv", carried()), ("votes.csv", votes(rows))):
        if found:
            write_numbers(name, found)


def all_numbers():
    """Return a row a restart: those in docs/results/, and those of the runs that are there in their place."""
    rows = {key_of(row): row for row in read("runs.csv")}
    for task in TASKS:
        rows |= {key_of(row): row for row, _ in runs_of(task)}
    return sorted(rows.values(), key=lambda row: (list(TASKS).index(row["task"]), key_of(row)))


def key_of(row):
    return tuple(row[column] for column in COLUMNS[: COLUMNS.index("metric")])


def runs_of(task):
    """Return the numbers of a task's runs of this comparison, each with its run."""
    from dpstune.studies.points import read_runs

    folder = RUNS / f"minilm-{task}"
    records = read_runs(folder)[0] if folder.is_dir() else []
    return [(numbers_of(task, record), record) for record in records if follows(record, f"minilm-{task}", FEW)]


def follows(record, recipe, overrides):
    """Tell whether a run is the recipe, overridden so, but for its method and what is FREE."""
    asked = protocol(recipe, overrides)
    return all(
        record.settings.get(key) == value
        for key, value in asked.items()
        if not key.startswith("method.") and key.rpartition(".")[2] not in FREE
    )


@cache
def protocol(recipe, overrides):
    from dpstune.recipe.recipe import load_recipe
    from dpstune.studies.records import RunRecord

    return RunRecord(Path(), load_recipe(recipe, overrides=overrides).recipe, {}).settings


def numbers_of(task, record):
    """Return a run's row, as a CSV file gives it back."""
    from dpstune.methods import without_newer_keys

    settings = without_newer_keys(record.recipe.method.model_dump(by_alias=True))
    del settings["name"]
    written = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in settings.items()
    )
    training = record.recipe.training
    asked = (task, name_of(record), written, training.learning_rate, f"{training.epochs:g}", record.seed, record.split)
    precision = json.loads((record.folder / "environment.json").read_text())["precision"]
    row = (*asked, record.metric, record.score, record.majority, round(last_losses(record.folder), 4), precision)
    return {column: "" if value is None else str(value) for column, value in zip(COLUMNS, row, strict=True)}


def name_of(record):
    dropout = record.recipe.model.dropout
    return record.method if dropout is None else f"{record.method}, dropout {dropout:g}"


def last_losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return float(np.mean([line["loss"] for line in lines if "loss" in line][-LAST_STEPS:]))


def carried():
    """Return a row a run and target of both transfers, without their runs' folders; none before both are done."""
    from dpstune.studies.records import read_run

    rows = {}
    for path in sorted(RUNS.glob("transfer-mnli/transfer-*/transfer.csv"), key=lambda path: path.stat().st_mtime):
        for row in csv.DictReader(path.read_text().splitlines()):
            record = read_run(Path(row.pop("folder")))
            if follows(record, "transfer-mnli", CARRIED):
                row["method"] = name_of(record)
                rows[row["method"], row["seed"], row["target"]] = row
    counts = Counter((method, target) for method, _, target in rows)
    whole = all(counts[method, target] == CARRIED_SEEDS for method in COMPARED for target in TARGETS)
    return list(rows.values()) if whole else []


def votes(rows):
    """Return a row an example and method: how many restarts are right, as `dpstune casestudy --from` reads it."""
    from dpstune.studies.casestudy.sources import SourcesRequest, study_sources

    records = restarts_studied(rows)
    counts = Counter(map(name_of, records))
    if any(counts[method] != RESTARTS for method in (*STUDIED, CONTROL)):
        return []
    study = study_sources(SourcesRequest(tuple(record.folder for record in records), RUNS))
    names = {method.name: method.name.replace(" model.dropout 0", ", dropout 0") for method in study.methods}
    return [
        {"id": example.id, "method": names[method.name], "correct": correct, "restarts": method.restarts}
        for method in study.methods
        for example, correct in zip(study.examples, method.correct, strict=True)
    ]


def restarts_studied(rows):
    """Return the runs of the case study."""
    best = chosen_points(rows)
    wanted = (*STUDIED, CONTROL)
    return [record for row, record in runs_of(HARD) if row["method"] in wanted and is_reported(row, best)]


def write_numbers(name, rows):
    from dpstune.common.writing import write_text
    from dpstune.report.tables import csv_text

    write_text(NUMBERS / name, csv_text([list(rows[0]), *(list(row.values()) for row in rows)]))
    print(f"wrote {NUMBERS / name}: {len(rows)} rows")


def read(name):
    path = NUMBERS / name
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def chosen_points(rows):
    """Return the settings with the best value on what was held out, by task and method; of equals the first.

    A task counts once all its points are there.
    """
    tried = {
        (row["task"], row["method"], row["settings"]): float(row["value"])
        for row in rows
        if row["split"] == "held_out" and int(row["seed"]) == FIRST_SEED and is_of_the_length(row)
    }
    best = {}
    for task in TASKS:
        points = points_of(task)
        if all((task, method, settings) in tried for method in points for settings in several(points[method])):
            for method, own in points.items():
                best[task, method] = max(own, key=lambda settings, at=(task, method): tried.get((*at, settings), 0.0))
    return best


def is_of_the_length(row):
    return float(row["rate"]) == RATE and float(row["epochs"]) == EPOCHS


def is_reported(row, best):
    """Tell whether a run is of its method as it was chosen, on the split that is reported."""
    chosen = best.get((row["task"], row["method"].partition(",")[0]), "")
    return row["split"] != "held_out" and is_of_the_length(row) and row["settings"] == chosen


if __name__ == "__main__":
    main()
