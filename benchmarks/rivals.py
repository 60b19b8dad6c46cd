"""`dpstune fit` beside what people would do instead, on 500 labelled rows each.

    python benchmarks/rivals.py --seeds 1 2        goes on where it was; writes results/rivals.json
    python benchmarks/rivals.py --seeds 1 --ways tfidf embeddings --threads 1
    python benchmarks/rivals.py --table            writes the table of docs/fit.md, from results/rivals.json

An outer seed draws 500 training rows and 1,500 test rows, which no way sees before it is scored on them. Of the
training labels of `sources` 5% are replaced by another one; test labels are as they were.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import GLUE, RESULTS, about
from tables import markdown, replace_tables

from dpstune.errors import counted

TRAIN, TEST = 500, 1500
WRONG = 0.05  # of the training labels of `sources`
MINUTES = 20
WAYS = {
    "fit": "`dpstune fit`",
    "train": "`dpstune train`, defaults",
    "embeddings": "MiniLM embeddings + logistic regression",
    "tfidf": "TF-IDF + logistic regression",
}
TITLES = {
    "sources": "which of six corpora a sentence is from (STS-B's), 5% of the training labels wrong",
    "mrpc": "MRPC: is it a paraphrase",
    "sick": "SICK: entailment, neutral, contradiction",
}
FILE = RESULTS / "rivals.json"
PAGE = Path(__file__).parent.parent / "docs" / "fit.md"
PENALTIES = [0.01, 0.1, 1.0, 10.0, 100.0]


@dataclass
class Data:
    """The rows of one outer seed."""

    train: list[tuple[tuple[str, ...], str]]
    test: list[tuple[tuple[str, ...], str]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--tasks", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        replace_tables(PAGE, {"rivals": rivals_table(read())})
        return
    if asked.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(asked.threads)
        import torch

        torch.set_num_threads(asked.threads)
    for seed in asked.seeds:
        for task in asked.tasks:
            for way in asked.ways:
                if not any((row["task"], row["seed"], row["way"]) == (task, seed, way) for row in read()):
                    add({"task": task, "seed": seed, "way": way, **measure(task, seed, way, asked.minutes)})


def read():
    """Return what was measured so far, a row each."""
    return json.loads(FILE.read_text()) if FILE.exists() else []


def add(row):
    """Keep a row at once: the next one takes twenty minutes."""
    from filelock import FileLock

    print(row, flush=True)
    found = about()
    row["about"] = found
    with FileLock(tempfile.gettempdir() + "/rivals.lock"):
        rows = sorted([*read(), row], key=lambda each: (each["task"], each["seed"], each["way"]))
        FILE.write_text(json.dumps(rows, indent=1) + "\n")


def measure(task, seed, way, minutes):
    data = draw(task, seed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        answers, more = {
            "fit": lambda: by_fit(data, Path(folder), minutes),
            "train": lambda: by_train(data, Path(folder)),
            "embeddings": lambda: (by_classifier(data, embed), {}),
            "tfidf": lambda: (by_classifier(data, count_words), {}),
        }[way]()
    return {**score(data, answers), "seconds": round(time.perf_counter() - started, 1), **more}


def score(data, answers):
    from sklearn.metrics import accuracy_score, f1_score

    gold = [label for _, label in data.test]
    return {
        "accuracy": round(accuracy_score(gold, answers), 4),
        "macro_f1": round(f1_score(gold, answers, average="macro"), 4),
    }


def draw(task, seed):
    """Draw the rows of an outer seed; no text of the test rows is among the training rows."""
    rng = np.random.default_rng(seed)
    rows = list(dict(READERS[task]()).items())  # a text once
    order = rng.permutation(len(rows))
    chosen = [rows[row] for row in order[: TRAIN + TEST]]
    train, test = chosen[:TRAIN], chosen[TRAIN:]
    if task == "sources":
        names = sorted({label for _, label in rows})
        for row in rng.choice(TRAIN, round(WRONG * TRAIN), replace=False):
            text, label = train[row]
            train[row] = text, str(rng.choice([name for name in names if name != label]))
    return Data(train, test)


def read_sources():
    with (GLUE / "STS-B" / "train.tsv").open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split("\t")
        for line in file:
            row = dict(zip(header, line.rstrip("\n").split("\t"), strict=False))
            yield (row["sentence1"],), row["filename"]


def read_mrpc():
    with (GLUE / "MRPC" / "train.tsv").open(encoding="utf-8-sig") as file:
        next(file)
        for line in file:
            label, _, _, first, second = line.rstrip("\n").split("\t")
            yield (first, second), "yes" if label == "1" else "no"


def read_sick():
    with (GLUE.parent / "nli" / "sick" / "train.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield (row["premise"], row["hypothesis"]), row["label"]


READERS = {"sources": read_sources, "mrpc": read_mrpc, "sick": read_sick}


def by_fit(data, folder, minutes):
    columns = write(folder / "rows.csv", data.train)
    command = ["fit", folder / "rows.csv", *columns, "--minutes", minutes, "--output", folder / "runs", "--json"]
    found = json.loads(dpstune(*command))
    told = found["score"]
    winner = found["winner"]
    more = {
        "chosen": {key: winner[key] for key in ("method", "settings")},
        "told": {key: told[key] for key in ("value", "low", "high")},
    }
    return answers_of(next(folder.glob("runs/rows/fit-*/model")), data, folder), more


def by_train(data, folder):
    columns = write(folder / "train.csv", data.train)
    recipe = folder / "recipe.yaml"
    dpstune("init", folder / "train.csv", *columns, "--output", recipe)
    found = json.loads(dpstune("train", "--recipe", recipe, "--output", folder / "runs", "--json"))
    return answers_of(Path(found["run"]), data, folder), {}


def answers_of(model, data, folder):
    """Return what a model answers to the test rows, by `dpstune predict`."""
    columns = write(folder / "test.csv", data.test)
    done = dpstune("predict", model, folder / "test.csv", "--text", ",".join(columns[1:-2:2]))
    return [row["prediction"] for row in csv.DictReader(done.splitlines())]


def write(file, rows):
    """Write rows as a table; return the flags that name its columns."""
    texts = ["text"] if len(rows[0][0]) == 1 else ["first", "second"]
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow([*texts, "label"])
        writer.writerows([*text, label] for text, label in rows)
    flags = [word for flag, text in zip(("--text", "--text2"), texts, strict=False) for word in (flag, text)]
    return [*flags, "--label", "label"]


def dpstune(*arguments):
    command = [sys.executable, "-m", "dpstune", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def by_classifier(data, features):
    """Fit a logistic regression, its penalty chosen by cross-validation, as scikit-learn's users do."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline

    before, train, test = features(data)
    model = make_pipeline(*before, LogisticRegressionCV(Cs=PENALTIES, cv=5, max_iter=2000))
    return list(model.fit(train, [label for _, label in data.train]).predict(test))


def count_words(data):
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1)
    return [words], *([" / ".join(texts) for texts, _ in rows] for rows in (data.train, data.test))


def embed(data):
    """Mean token embeddings of unit length; of a pair u and v, their distance and their product beside them."""
    import torch
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel

    from dpstune.models.loading import find_model, load_tokenizer
    from dpstune.settings.sections import ModelSection

    tokenizer = load_tokenizer(ModelSection(name="minilm"))
    model = AutoModel.from_pretrained(find_model("minilm").place, dtype=torch.float32).eval()

    def of(texts):
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), 32):
                some = texts[start : start + 32]
                batch = tokenizer(some, padding=True, truncation=True, max_length=128, return_tensors="pt")
                mask = batch["attention_mask"][..., None]
                means = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
                found.append(torch.nn.functional.normalize(means, dim=1))
        return torch.cat(found).numpy()

    def rows_of(rows):
        sides = [of(list(texts)) for texts in zip(*(texts for texts, _ in rows), strict=True)]
        if len(sides) == 1:
            return sides[0]
        first, second = sides
        return np.hstack([first, second, np.abs(first - second), first * second])

    return [StandardScaler()], rows_of(data.train), rows_of(data.test)


def rivals_table(rows):
    header = ["rows", "way", "outer seeds", "accuracy", "macro F1", "minutes"]
    lines = []
    for task, title in TITLES.items():
        measured = [{row["seed"] for row in rows if (row["task"], row["way"]) == (task, way)} for way in WAYS]
        every = set.intersection(*(seeds for seeds in measured if seeds))  # only what compares like with like
        for way, name in WAYS.items():
            mine = [row for row in rows if (row["task"], row["way"]) == (task, way) and row["seed"] in every]
            if mine:
                scores = [f"{mean(mine, key):.3f}{deviation(mine, key)}" for key in ("accuracy", "macro_f1")]
                minutes = f"{mean(mine, 'seconds') / 60:.1f}"
                lines.append([title, name, str(len(mine)), *scores, minutes])
                title = ""
    return markdown(header, lines) + told(rows) + "\n" + "".join(dict.fromkeys(f"{where(row)}\n" for row in rows))


def told(rows):
    """Say what fit itself said of its models, which it had to say without the test rows.

    Not where labels are wrong: fit is scored by them, the test rows by the right ones.
    """
    fits = [row for row in rows if row["way"] == "fit" and row["task"] != "sources"]
    if not fits:
        return ""
    said = statistics.mean(row["told"]["value"] for row in fits)
    held = sum(row["told"]["low"] <= row["accuracy"] <= row["told"]["high"] for row in fits)
    return (
        f"\nOf its {counted(len(fits), 'model')} for MRPC and SICK, fit said {said:.3f} on average where "
        f"{mean(fits, 'accuracy'):.3f} is true; {held} of the intervals hold the accuracy on the test rows.\n"
    )


def where(row):
    found = row["about"]
    versions = f"torch {found['packages']['torch']}, transformers {found['packages']['transformers']}"
    threads = counted(found["threads"], "thread")
    return f"{found['processor']}, {threads}, {found['precision']}; {versions}; {found['date']}."


def mean(rows, key):
    return statistics.mean(row[key] for row in rows)


def deviation(rows, key):
    return f" ± {statistics.stdev(row[key] for row in rows):.3f}" if len(rows) > 1 else ""


if __name__ == "__main__":
    main()
