"""How many of the labels that fit calls likely wrong are, and how many of the wrong ones it finds; cleanlab beside it.

    pip install cleanlab
    python benchmarks/wrong_labels.py              writes results/wrong_labels.json and the table of docs/fit.md
    python benchmarks/wrong_labels.py --table      the table alone

500 rows of a corpus, of whose labels 5% or 10% are replaced by another one. fit answers each row by runs that were not
trained on it; cleanlab gets the mean of their probabilities, and the same labels.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from common import RESULTS, about
from gpu_tables import measured_on
from rivals import READERS, TRAIN, dpstune, write
from tables import markdown, replace_tables

NAMES = {"sources": "six sources of sentences (STS-B)", "sick": "SICK"}
SHARES = (0.05, 0.1)
RUNS, FOLDS, EPOCHS = 10, 5, 5  # plain fine-tuning, without dropout and with it
FILE = RESULTS / "wrong_labels.json"
PAGE = Path(__file__).parent.parent / "docs" / "fit.md"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    if not parser.parse_args().table:
        found = read()
        for task in NAMES:
            for share in SHARES:
                if not any((row["task"], row["share"]) == (task, share) for row in found["rows"]):
                    found["rows"].append({"task": task, "share": share, **measure(task, share)})
                    print(found["rows"][-1], flush=True)
                    FILE.write_text(json.dumps({**found, "about": about()}, indent=1) + "\n")
    replace_tables(PAGE, {"wrong labels": wrong_labels_table(read())})


def read():
    return json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}


def measure(task, share, seed=1):
    rows, wrong = spoil(task, share, seed)
    with tempfile.TemporaryDirectory() as folder:
        columns = write(Path(folder) / "rows.csv", rows)
        budget = ["--runs", RUNS, "--folds", FOLDS, "--set", f"training.epochs={EPOCHS}"]
        told = json.loads(
            dpstune("fit", Path(folder) / "rows.csv", *columns, *budget, "--output", Path(folder) / "runs", "--json")
        )
        listed = next(Path(folder).glob("runs/rows/fit-*/wrong_labels.csv"))
        with listed.open(newline="", encoding="utf-8-sig") as file:
            ours = [int(row["id"]) for row in csv.DictReader(file)]
        probabilities = mean_probabilities(told)
    theirs = by_cleanlab(rows, told["labels"], probabilities)
    return {
        "wrong": len(wrong),
        "candidates": sum(each["state"] == "complete" for each in told["tried"]),
        "fit": compared(ours, wrong),
        "cleanlab": compared(theirs, wrong),
    }


def spoil(task, share, seed):
    """Return 500 rows, and the numbers of those whose label was replaced."""
    rng = np.random.default_rng(seed)
    every = list(dict(READERS[task]()).items())
    rows = [every[row] for row in rng.permutation(len(every))[:TRAIN]]
    names = sorted({label for _, label in rows})
    wrong = sorted(rng.choice(TRAIN, round(share * TRAIN), replace=False).tolist())
    for row in wrong:
        text, label = rows[row]
        rows[row] = text, str(rng.choice([name for name in names if name != label]))
    return rows, set(wrong)


def mean_probabilities(told):
    """Return the mean over candidates of what runs that were not trained on a row gave its labels: [rows, labels]."""
    from dpstune.runs.folder import read_predictions

    complete = [each for each in told["tried"] if each["state"] == "complete"]
    total = np.zeros((TRAIN, len(told["labels"])))
    for each in complete:
        for run in each["runs"]:
            columns = read_predictions(Path(run) / "predictions" / "validation.parquet")
            total[[int(name) for name in columns["id"]]] += np.array(columns["scores"], dtype=np.float64)
    return total / total.sum(1, keepdims=True)


def by_cleanlab(rows, names, probabilities):
    from cleanlab.filter import find_label_issues

    labels = np.array([names.index(label) for _, label in rows])
    found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return found.tolist()


def compared(listed, wrong):
    """Return how many rows a list has, its precision and recall, and the precision of its first rows."""
    found = len(set(listed) & wrong)
    first = listed[: len(wrong)]
    return {
        "listed": len(listed),
        "precision": round(found / max(1, len(listed)), 3),
        "recall": round(found / len(wrong), 3),
        "precision_of_the_first": round(len(set(first) & wrong) / max(1, len(first)), 3),
    }


def wrong_labels_table(found):
    header = ["rows", "labels replaced", "list", "rows listed", "precision", "recall", "precision of as many"]
    lines = []
    for row in found["rows"]:
        for way, name in (("fit", "fit's"), ("cleanlab", "cleanlab's")):
            mine = row[way]
            shares = [f"{mine[key]:.2f}" for key in ("precision", "recall", "precision_of_the_first")]
            lines.append([NAMES[row["task"]], f"{row['wrong']} of {TRAIN}", name, str(mine["listed"]), *shares])
    return markdown(header, lines) + measured_on(found)


if __name__ == "__main__":
    main()
