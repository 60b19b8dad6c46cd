"""What every benchmark shares: pairs of timings taken in turn, and results with the machine they come from."""

import json
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GLUE = Path(os.environ.get("DPSTUNE_GLUE", HERE.parent.parent / "shared" / "data" / "glue"))
SETTINGS = ["data.train_size=500", "training.epochs=1"]  # RTE for a laptop


def synchronize():
    """Wait until a GPU, where there is one, has done what it was told: it is told much faster than it computes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clock():
    """Return the seconds of a clock, read when the device has nothing left to do."""
    synchronize()
    return time.perf_counter()


def in_turn(sides, rounds, more=lambda: True):
    """Call every function of a mapping ``rounds`` times, in turn and in changing order; return the seconds of each.

    The first round warms up. ``more`` is asked before each other one whether there is time for it.
    """
    seconds = {name: [] for name in sides}
    for number in range(-1, rounds):
        if number >= 1 and not more():
            break
        for name in sorted(sides, reverse=number % 2 == 1):
            started = clock()
            sides[name]()
            if number >= 0:
                seconds[name].append(clock() - started)
    return seconds


def ratio(seconds, name, base):
    """Return the median over rounds of one side's time over another's, with its quartiles."""
    ratios = [mine / other for mine, other in zip(seconds[name], seconds[base], strict=True)]
    found = spread(ratios)
    return {"median": found["median"], "quartiles": found["quartiles"], "rounds": len(ratios)}


def spread(values, digits=4):
    """Return median and quartiles of a list of numbers."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), digits),
        "quartiles": [round(ordered[len(ordered) // 4], digits), round(ordered[-1 - len(ordered) // 4], digits)],
    }


def save(name, content):
    """Write one benchmark's result, with machine, versions, date and how busy the machine was."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"about": about(), **content}, indent=2) + "\n")
    print(f"wrote {path}")


def save_part(name, **content):
    """Write this processor's part of a result, beside the other processors'."""
    path = RESULTS / f"{name}.json"
    every = json.loads(path.read_text()) if path.exists() else {}
    found = about()
    every[found["processor"]] = {**content, "about": found}
    path.write_text(json.dumps(every, indent=1) + "\n")


def about():
    """Return what a reader must know of the machine, its software and how busy it was."""
    import torch

    from dpstune.device.hardware import choose_precision, describe_environment

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        **describe_environment(device, choose_precision("auto", device.type), 1),
        "processor": processor(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "date": date.today().isoformat(),
    }


def processor():
    """Return the processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def new_loop(loaded, folder, inputs):
    """Put a run together, as the engine does, without running it."""
    from dpstune.common.interruption import InterruptionWatch
    from dpstune.common.progress import SilentProgress
    from dpstune.device.hardware import device_type, new_accelerator
    from dpstune.models.precision import model_precision
    from dpstune.runs.folder import RunFolder
    from dpstune.training.loop import Loop
    from dpstune.training.runlog import RunLog

    recipe = loaded.recipe
    accelerator = new_accelerator(model_precision(recipe.training.precision, recipe.model, device_type()))
    loop = Loop(loaded.recipe, inputs, RunFolder(Path(folder)), accelerator, InterruptionWatch(), SilentProgress())
    loop.log = RunLog(None, SilentProgress(), steps_per_epoch=1, size=0, after_step=0)
    return loop
