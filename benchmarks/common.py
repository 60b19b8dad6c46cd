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


def in_turn(sides, rounds):
    """Call every function of a mapping ``rounds`` times, in turn and in changing order; return the seconds of each."""
    seconds = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name in sorted(sides, reverse=number % 2 == 1):
            started = time.perf_counter()
            sides[name]()
            if number >= 0:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds, name, base):
    """Return the median over rounds of one side's time over another's, with its quartiles."""
    ratios = sorted(mine / other for mine, other in zip(seconds[name], seconds[base], strict=True))
    return {
        "median": round(statistics.median(ratios), 4),
        "quartiles": [round(ratios[len(ratios) // 4], 4), round(ratios[-1 - len(ratios) // 4], 4)],
        "rounds": len(ratios),
    }


def save(name, content):
    """Write one benchmark's result, with machine, versions, date and how busy the machine was."""
    import torch

    from dpstune.hardware import choose_precision, describe_environment

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    environment = describe_environment(device, choose_precision("auto", device.type), 1)
    about = {
        **environment,
        "processor": processor(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "date": date.today().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"about": about, **content}, indent=2) + "\n")
    print(f"wrote {path}")


def processor():
    """Return the processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def new_loop(loaded, folder, inputs):
    """Put a run together, as the engine does, without running it."""
    from dpstune.engine import Loop
    from dpstune.hardware import choose_precision, device_type, new_accelerator
    from dpstune.interruption import InterruptionWatch
    from dpstune.progress import SilentProgress
    from dpstune.runlog import RunLog
    from dpstune.runs import RunFolder

    accelerator = new_accelerator(choose_precision(loaded.recipe.training.precision, device_type()))
    loop = Loop(loaded.recipe, inputs, RunFolder(Path(folder)), accelerator, InterruptionWatch(), SilentProgress())
    loop.log = RunLog(None, SilentProgress(), steps_per_epoch=1, size=0, after_step=0)
    return loop
