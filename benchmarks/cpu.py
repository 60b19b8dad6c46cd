"""Settings of a CPU process: threads, precision, what the allocator does with freed memory, kernels that are kept.

Each is a process of its own, since they cannot be changed in one; they are started in turn, three times each. A process
takes the steps of an epoch of MiniLM on RTE; what counts is the least time of its processes, and the CPU time, which
others on the machine disturb less.

    python benchmarks/cpu.py          writes results/cpu.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from common import GLUE, SETTINGS, new_loop, save

CORES = os.cpu_count() or 1
VARIANTS = {
    "as dpstune sets it": {},
    "freed memory returned": {"BENCH_RETURN": "1"},
    "1024 kernels kept": {"LRU_CACHE_CAPACITY": "1024", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"},
    "fp32": {"BENCH_PRECISION": "fp32"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    f"{CORES} threads": {"OMP_NUM_THREADS": str(CORES)},
    f"{2 * CORES} threads": {"OMP_NUM_THREADS": str(2 * CORES)},
}
ROUNDS = 3
STEPS = 12


def child():
    """Take the steps and print what they took."""
    import torch

    from dpstune.data.inputs import Inputs
    from dpstune.device import hardware
    from dpstune.recipe.recipe import load_recipe

    if os.environ.get("BENCH_RETURN"):
        hardware.keep_freed_memory = lambda: None
    precision = os.environ.get("BENCH_PRECISION", "auto")
    overrides = [*SETTINGS, f"training.precision={precision}"]
    loaded = load_recipe("minilm-rte", method="vanilla", data_dir=GLUE.absolute(), overrides=overrides)
    with tempfile.TemporaryDirectory() as folder:
        loop = new_loop(loaded, folder, Inputs())
        loop.optimizer_step(1)
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for step in range(2, STEPS + 2):
            loop.optimizer_step(step)
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": round(seconds, 2),
                "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
                "page_faults": after.ru_minflt - before.ru_minflt,
                "peak_bytes": hardware.peak_memory_bytes(torch.device("cpu")),
                "threads": torch.get_num_threads(),
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", action="store_true")
    if parser.parse_args().child:
        child()
        return
    found = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, changes in VARIANTS.items():
            command = [sys.executable, __file__, "--child"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **changes})
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, found[name][-1])
    best = {name: {key: min(each[key] for each in runs) for key in runs[0]} for name, runs in found.items()}
    save("cpu", {"steps": STEPS, "rounds": ROUNDS, "least": best})


if __name__ == "__main__":
    main()
