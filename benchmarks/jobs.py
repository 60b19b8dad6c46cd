"""Runs an hour of a sweep of short runs: one worker with all threads beside a worker on each core.

MiniLM on 500 sentences of about 12 tokens, 100 steps a run, vanilla from as many seeds as there are runs.

    python benchmarks/jobs.py [--runs 60]        writes this processor's part of results/jobs.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import RESULTS, about
from steps import short_task


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    asked = parser.parse_args()
    cores = os.cpu_count()
    rows = []
    for jobs in (1, cores):
        with tempfile.TemporaryDirectory() as folder:
            recipe = short_task(Path(folder))
            command = [sys.executable, "-m", "dpstune", "sweep", "--recipe", recipe, "--method", "vanilla"]
            command += [
                "--seeds",
                str(asked.runs),
                "--set",
                "training.steps=100",
                "--set",
                "data.held_out=100",
                "--jobs",
                str(jobs),
                "--no-models",
            ]
            started = time.perf_counter()
            subprocess.run([*command, "--output", Path(folder) / "runs"], check=True, capture_output=True)
            seconds = time.perf_counter() - started
        row = {"jobs": jobs, "threads": cores // jobs, "runs": asked.runs, "seconds": round(seconds, 1)}
        rows.append({**row, "runs_an_hour": round(3600 * asked.runs / seconds)})
        print(rows[-1], flush=True)
    file = RESULTS / "jobs.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    result = about()
    found[result["processor"]] = {"about": result, "rows": rows}
    file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
