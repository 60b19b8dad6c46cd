"""Every method on 500 and on 1,000 examples of five tasks: runs what docs/comparison.md reports.

    python benchmarks/comparison.py run [--tasks sick ...] [--sizes 500 ...] [--jobs N] [--minutes M]
    python benchmarks/comparison.py tables      writes the tables and pictures of docs/comparison.md

`run` goes on from docs/results/comparison.csv, where each finished run is a row at once; `--minutes` says after how
long it begins no further run. For each task and size it first tries four settings a way on held-out training rows, one
seed each, then takes ten other seeds of the best one, evaluated on the validation split. A worker has one thread.
DPSTUNE_GLUE and DPSTUNE_NLI are folders with the corpora.
"""

import argparse
import csv
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common import GLUE, processor
from questions import NLI, NUMBERS

FILE = NUMBERS / "comparison.csv"
TASKS = {"sick": NLI, "mrpc": GLUE, "stsb": GLUE, "rte": GLUE, "mnli": NLI}
STEPS = {500: 120, 1000: 240}  # by the number of examples: about four epochs
CHOOSING_SEED, SEEDS = 41, range(42, 52)
HELD_OUT, REPORTED = "held_out", "validation"
COLUMNS = (
    *("task", "size", "way", "settings", "seed", "split"),  # which run it is
    *("metric", "value", "majority", "cpu_seconds", "processor", "precision"),
)

RATES = ("1e-4", "2e-4")
FOUR_RATES = ("5e-5", "1e-4", "2e-4", "4e-4")


@dataclass(frozen=True)
class Way:
    """What is compared: a method with its dropout, and the settings that are tried.

    ``dropout`` None leaves it to the method.
    """

    method: str
    tried: tuple[str, ...]
    dropout: float | None = 0.0
    fixed: tuple[str, ...] = ()


def pairs(first, second):
    """Return two of a method's settings, each at two rates."""
    return tuple(f"{own} training.learning_rate={rate}" for own in (first, second) for rate in RATES)


def each(key, values):
    return tuple(f"{key}={value}" for value in values)


CONTROL = "vanilla"
DPS = ("method.p=0.1 method.update_ratio=0.05", "method.p=0.3 method.update_ratio=0.2")
WAYS = {
    CONTROL: Way("vanilla", each("training.learning_rate", FOUR_RATES)),
    "vanilla, dropout 0.1": Way("vanilla", each("training.learning_rate", FOUR_RATES), dropout=0.1),
    "dps-dense": Way("dps-dense", pairs(*DPS)),
    "dps-mix": Way("dps-mix", pairs(*DPS)),
    "mixout": Way("mixout", pairs("method.p=0.2", "method.p=0.6")),
    "r3f": Way("r3f", pairs("method.lambda=0.1", "method.lambda=1")),
    "r-drop, dropout 0.1": Way("r-drop", pairs("method.alpha=0.5", "method.alpha=3"), dropout=None),
    "smart": Way("smart", pairs("method.epsilon=1e-5", "method.epsilon=1e-3")),
    "sam": Way("sam", pairs("method.rho=0.02", "method.rho=0.1")),
    "child-tuning-d": Way("child-tuning-d", pairs("method.p=0.1", "method.p=0.3")),
    "child-tuning-f": Way("child-tuning-f", pairs("method.p=0.2", "method.p=0.4")),
    "reinit": Way("reinit", pairs("method.layers=1", "method.layers=2")),
    "noisytune": Way("noisytune", pairs("method.lambda=0.05", "method.lambda=0.15")),
    "ema": Way("ema", each("training.learning_rate", FOUR_RATES)),
    "lp-ft": Way("lp-ft", pairs("method.l2=1", "method.l2=10")),
    "top-layers": Way("top-layers", pairs("method.layers=2", "method.layers=4")),
    "lora": Way("lora", each("training.learning_rate", ("5e-4", "1e-3", "2e-3", "5e-3"))),
    "bitfit": Way("bitfit", each("training.learning_rate", ("1e-3", "5e-3", "1e-2", "2e-2"))),
    "linear-probe": Way(
        "linear-probe",
        each("method.l2", ("0.001", "0.01", "0.1", "1")),
        fixed=("training.steps=1", "training.warmup_steps=0"),
    ),
}


@dataclass(frozen=True)
class Job:
    """One run."""

    task: str
    size: int
    way: str
    settings: str
    seed: int
    split: str


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "tables"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sizes", nargs="+", type=int, choices=STEPS, default=list(STEPS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=float("inf"))
    asked = parser.parse_args()
    if asked.what == "tables":
        from comparison_tables import write

        write(read())
        return
    ends = time.monotonic() + 60 * asked.minutes
    with begin_workers(asked.jobs) as workers:
        for size in asked.sizes:
            for task in asked.tasks:
                for wanted in (to_choose, to_report):
                    if not run_all(missing(wanted(task, size)), workers, asked.jobs, ends):
                        return


# Which runs


def to_choose(task, size):
    """Return the runs that choose each way's settings."""
    return [
        Job(task, size, name, settings, CHOOSING_SEED, HELD_OUT)
        for settings in zip(*(way.tried for way in WAYS.values()), strict=True)
        for name, settings in zip(WAYS, settings, strict=True)
    ]


def to_report(task, size):
    """Return the runs that are reported, a seed of every way after the other."""
    best = chosen(read())
    return [Job(task, size, name, best[task, size, name], seed, REPORTED) for seed in SEEDS for name in WAYS]


def chosen(rows):
    """Return the settings with the best value on what was held out, by task, size and way; of equals the first.

    Only of ways of which all settings were tried.
    """
    values = {job_of(row): value_of(row) for row in rows if row["split"] == HELD_OUT}
    best = {}
    for task, size in {(job.task, job.size) for job in values}:
        for name, way in WAYS.items():
            tried = [Job(task, size, name, settings, CHOOSING_SEED, HELD_OUT) for settings in way.tried]
            if all(job in values for job in tried):
                best[task, size, name] = max(tried, key=values.get).settings
    return best


def value_of(row):
    """Return a run's metric; an undefined correlation is 0, since such a run learned nothing."""
    return float(row["value"] or 0.0)


def job_of(row):
    return Job(row["task"], int(row["size"]), row["way"], row["settings"], int(row["seed"]), row["split"])


def missing(jobs):
    done = {job_of(row) for row in read()}
    return [job for job in jobs if job not in done]


def reported(rows):
    """Return the rows of the chosen settings, of each task and size of which every way has all its seeds."""
    best = chosen(rows)
    own = [
        row
        for row in rows
        if row["split"] == REPORTED
        and row["settings"] == best.get((row["task"], int(row["size"]), row["way"]))
        and int(row["seed"]) in SEEDS
    ]
    counts = Counter((row["task"], row["size"]) for row in own)
    return [row for row in own if counts[row["task"], row["size"]] == len(WAYS) * len(SEEDS)]


def read():
    """Return what was run so far, a row each."""
    if not FILE.exists():
        return []
    with FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The runs


def begin_workers(jobs):
    """Return processes of one thread each."""
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_the_parent)


def end_with_the_parent():
    """End this worker where the process that started it is killed."""

    def wait_and_end():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def run_all(jobs, workers, at_once, ends):
    """Run jobs, and keep each result as it comes; return False if the time was over before the last began."""
    waiting, running = list(jobs), set()
    while waiting or running:
        while waiting and len(running) < at_once and time.monotonic() < ends:
            running.add(workers.submit(run, waiting.pop(0)))
        if not running:
            return False
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            keep(future.result())
            print(f"{len(waiting) + len(running)} left: {future.result()}", flush=True)
    return True


def keep(row):
    """Add a row to the file, in its place; only one command at a time writes it."""
    from dpstune.common.writing import write_text
    from dpstune.report.tables import csv_text

    rows = sorted([*read(), row], key=place)
    write_text(FILE, csv_text([list(COLUMNS), *([own[column] for column in COLUMNS] for own in rows)]))


def place(row):
    """Return where a row stands in the file."""
    job = job_of(row)
    return list(TASKS).index(job.task), job.size, job.split, list(WAYS).index(job.way), job.settings, job.seed


KEPT = []  # what the runs of a worker share


def run(job):
    """Train one run in a worker; return its row, with the seconds that all its threads took."""
    from dpstune.data.inputs import Inputs
    from dpstune.errors import RunError
    from dpstune.recipe.recipe import load_recipe
    from dpstune.training import engine

    if not KEPT:
        KEPT.append(Inputs())
    started = time.process_time()
    loaded = load_recipe(
        f"minilm-{job.task}",
        method=WAYS[job.way].method,
        seed=job.seed,
        data_dir=TASKS[job.task].absolute(),
        overrides=overrides(job),
    )
    result, environment = {}, {}
    with tempfile.TemporaryDirectory() as folder, suppress(RunError):  # a loss that is not finite: it learned nothing
        done = engine.train(loaded, output=Path(folder), inputs=KEPT[0], keep_model=False)
        environment = json.loads((done.folder / "environment.json").read_text())
        result = done.result
        assert result["split"] == job.split, result["split"]
    took = time.process_time() - started
    found = {
        **{column: getattr(job, column) for column in COLUMNS if hasattr(job, column)},
        **{column: "" if result.get(column) is None else result[column] for column in ("metric", "value", "majority")},
        "cpu_seconds": round(took, 2),
        "processor": processor(),
        "precision": environment.get("precision", ""),
    }
    return {column: str(found[column]) for column in COLUMNS}


def overrides(job):
    """Return what a run's recipe differs in from that of its task."""
    way = WAYS[job.way]
    asked = [f"data.train_size={job.size}", f"training.steps={STEPS[job.size]}", "training.batching=bucketed"]
    asked += ["training.eval_every=100000"]  # at the end alone
    if job.split == HELD_OUT:
        asked += ["data.held_out=500"]
    if way.dropout is not None:
        asked += [f"model.dropout={way.dropout}"]
    return [*asked, *way.fixed, *job.settings.split()]


if __name__ == "__main__":
    sys.exit(main())
