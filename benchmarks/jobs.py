"""Runs an hour of a sweep of short runs: one worker with all threads beside a worker on each core.

MiniLM on 500 sentences of about 12 tokens, 100 steps a run, vanilla from as many seeds as there are runs. The two ways
take halves of a sweep in turn, so that a slow hour of the machine slows both.

    python benchmarks/jobs.py [--runs 60]        writes this processor's part of results/jobs.json
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import save_part
from steps import short_task

ROUNDS = 2
SETTINGS = ("training.steps=100", "data.held_out=100")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    asked = parser.parse_args()
    cores = os.cpu_count()
    seconds = {1: 0.0, cores: 0.0}
    for number in range(ROUNDS):
        for jobs in sorted(seconds, reverse=number % 2 == 1):
            seconds[jobs] += sweep(asked.runs // ROUNDS, jobs)
            print(f"{jobs} workers: {seconds[jobs]:.0f} s", flush=True)
    rows = [
        {
            "jobs": jobs,
            "threads": cores // jobs,
            "runs": asked.runs,
            "seconds": round(found, 1),
            "runs_an_hour": round(3600 * asked.runs / found),
        }
        for jobs, found in seconds.items()
    ]
    save_part("jobs", rows=rows)


def sweep(runs, jobs):
    """Return the seconds that a sweep takes from its start to its report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dpstune", "sweep", "--recipe", short_task(Path(folder))]
        command += ["--method", "vanilla", *(part for setting in SETTINGS for part in ("--set", setting))]
        command += ["--seeds", str(runs), "--jobs", str(jobs), "--no-models", "--output", f"{folder}/runs"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
