"""How time, memory and the predictions file grow with the number of examples and of labels.

A user's own table, a tiny model (so that what grows is dpstune's own work), one step, then the evaluation of a fifth of
the rows: each size in a process of its own.

    python benchmarks/growth.py             writes results/growth.json
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import GLUE, save
from steps import save_tiny_model

EXAMPLES = [(500, 2), (5_000, 2), (20_000, 2), (100_000, 2)]
LABELS = [(20_000, 10), (20_000, 100), (20_000, 1_000)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(train(asked.child)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny_model(folder / "tiny")
        for examples, labels in [*EXAMPLES, *LABELS]:
            recipe = write_task(folder, examples, labels)
            done = subprocess.run(
                [sys.executable, __file__, "--child", recipe], check=True, capture_output=True, text=True
            )
            rows.append({"examples": examples, "labels": labels, **json.loads(done.stdout.splitlines()[-1])})
            print(rows[-1], flush=True)
    save("growth", {"rows": rows})


def write_task(folder, examples, labels):
    """Write a table of sentences of SICK, each a little different, and its recipe."""
    sentences = [json.loads(line)["premise"] for line in (GLUE.parent / "nli" / "sick" / "train.jsonl").open()]
    draw = random.Random(examples + labels)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(examples):
            words = draw.choice(sentences).split() + draw.choice(sentences).split()
            writer.writerow([" ".join(draw.sample(words, k=len(words))), f"label {number % labels}"])
    recipe = folder / "growth.yaml"
    recipe.write_text(
        f"model: {{name: {folder / 'tiny'}}}\n"
        "task: {files: {train: rows.csv, validation: 0.2}, text: text, label: label, kind: classification}\n"
        "training: {batch_size: 16, steps: 1}\n"
    )
    return recipe


def train(recipe):
    """Train as the command line does; return seconds, MiB and bytes."""
    started = time.perf_counter()
    from dpstune.recipe.recipe import load_recipe
    from dpstune.training import engine
    from dpstune.training.loop import Loop

    marks = []
    take = Loop.optimizer_step

    def first(loop, step):
        marks.append(time.perf_counter() - started)
        take(loop, step)

    Loop.optimizer_step = first
    run = engine.train(load_recipe(str(recipe), method="vanilla"), output=recipe.parent / "runs", check_data=True)
    whole = time.perf_counter() - started
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    predictions = list((run.folder / "predictions").iterdir())
    return {
        "first_step": round(marks[0], 1),
        "seconds": round(whole, 1),
        "peak_mib": int(peak.split()[1]) // 1024,
        "predictions_mib": round(sum(file.stat().st_size for file in predictions) / 2**20, 1),
    }


if __name__ == "__main__":
    main()
