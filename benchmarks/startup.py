"""Time from the start of a process to step 1, time before step 1 of the runs that follow, CPU time of ``--help``.

All with the files in the page cache. The first is set against the time that the usual imports of such a program take,
the CPU time of ``dpstune --help`` against that of ``import typer, rich, yaml``. The runs that follow are those of one
process, as a sweep's worker has them.

python benchmarks/startup.py          writes this processor's part of results/startup.json
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import GLUE, clock, ratio, save_part, spread

ROUNDS = 7
SHORT = ["data.train_size=500", "training.steps=1", "training.warmup_steps=0"]
SAY_WHEN = """
import os, time

def say_when(*_):
    os.write(1, str(time.time()).encode())
    os._exit(0)
"""
# Like `python -m dpstune`, but the process ends where its first step begins, and says when.
UNTIL_STEP_1 = f"""{SAY_WHEN}
from dpstune.cli import main
from dpstune.training import engine

Loop.optimizer_step = say_when
main()
"""
# What a program that trains MiniLM by transformers usually imports.
UNTIL_IMPORTED = f"""{SAY_WHEN}
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast, get_scheduler

say_when()
"""


def main():
    in_one = in_one_process()  # first: it warms the page cache, too
    fresh = from_process_start()
    cpu = cpu_in_turn({"help": ["-m", "dpstune", "--help"], "imports": ["-c", "import typer, rich, yaml"]})
    found = {
        "seconds_before_step_1": in_one,
        "seconds_to_step_1": {name: spread(seconds) for name, seconds in fresh.items()},
        "step_1_over_imports": ratio(fresh, "dpstune", "imports"),
        "cpu_seconds": {name: spread(seconds) for name, seconds in cpu.items()},
        "help_over_imports": ratio(cpu, "help", "imports"),
    }
    print(found)
    save_part("startup", **found)


def in_one_process():
    """Return the seconds before step 1 of the first, second and third run of this process."""
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe
    from dpstune.training import engine
    from dpstune.training.loop import Loop

    seconds = []
    first_step = Loop.optimizer_step

    def noting_step(loop, step):
        if step == 1:
            seconds.append(round(clock() - started, 3))
        first_step(loop, step)

    Loop.optimizer_step = noting_step
    inputs = Inputs()
    short = [*SHORT, "training.batch_size=2"]
    for seed in (1, 2, 3):
        loaded = load_recipe("minilm-rte", method="dps-mix", seed=seed, data_dir=GLUE.absolute(), overrides=short)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()  # importing torch counts, the first time
            engine.train(loaded, output=Path(folder), inputs=inputs)
    return seconds


def from_process_start():
    """Return the seconds from the start of ``dpstune train`` to its first step, and those of the imports, in turn."""
    settings = [word for setting in SHORT for word in ("--set", setting)]
    seconds = {"dpstune": [], "imports": []}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            where = ["--data-dir", GLUE.absolute(), "--output", folder]
            sides = {
                "dpstune": [UNTIL_STEP_1, "train", "--recipe", "minilm-rte", *where, *settings],
                "imports": [UNTIL_IMPORTED],
            }
            for name, arguments in sides.items():
                started = time.time()
                seconds[name].append(float(python("-c", *arguments)) - started)
    return seconds


def cpu_in_turn(sides):
    """Run Python with the arguments of each side, in turn; return the seconds of CPU time, user and system, of each."""
    seconds = {name: [] for name in sides}
    for number in range(-1, 3 * ROUNDS):  # the first round warms up
        for name, arguments in sides.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            python(*arguments)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if number >= 0:
                seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds


def python(*arguments):
    """Run Python and return what it prints; it may keep what it compiles, as an installed dpstune does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    main()
