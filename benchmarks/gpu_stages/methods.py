"""All methods in fp16 and bf16: the same bits twice and after a resume, overflows, and weights beside a CPU's in fp32.

For the bits the models have their own dropout. Beside the CPU they have none, since each device draws its own, AdamW's
epsilon is large, so that a gradient's rounding is not made a whole step, and CHILD-TUNING-F keeps every gradient.
"""

import subprocess
import sys
import tempfile

from common import HERE
from rig import child_environment, different, flat_weights, free_memory, methods, precisions, state_of, take_steps

STEPS, STOPPED_AFTER = 8, 5
OVERFLOWS = (2, 3)  # steps, in Stage I of DPS and after one whose gradients were accumulated
TOO_LARGE = 2.0**60  # whatever is scaled by it overflows
STILL = ("model.dropout=0.0", "training.learning_rate=0.01", "training.adam_epsilon=0.1")
OWN = {"r-drop": ("method.dropout=0.0",), "child-tuning-f": ("method.p=0.999999",)}
# The distance from the CPU's weights after 8 steps, over the way they went. A CPU's own fp16 lies 0.001 from its fp32,
# its bf16 0.007. Rounding decides between scores that are almost equal: methods that select are allowed more.
TOLERANCE = {"fp16": 0.01, "bf16": 0.05}
TOLERANCE_WHERE_SELECTED = {"fp16": 0.05, "bf16": 0.15}
SELECTING = ("dps-dense", "dps-mix", "child-tuning-d")


def run(stage):
    import torch

    from dpstune.device.hardware import device_type

    recipe = stage.write_recipe("small", length=64, steps=STEPS)
    path = stage.folder / "reference.pt"
    other = None
    if device_type() == "cpu":
        write_reference(recipe, path)
    else:
        code = "import sys; from gpu_stages.methods import write_reference; write_reference(*sys.argv[1:])"
        environment = child_environment(HERE.parent) | {"CUDA_VISIBLE_DEVICES": ""}
        environment["PYTHONPATH"] += f":{HERE}"
        other = subprocess.Popen([sys.executable, "-c", code, recipe, str(path)], env=environment)
    rows, weights = [], {}
    for precision in precisions():
        for method in methods():
            row = {"method": method, "precision": precision, **check_bits(stage, recipe, method, precision)}
            if precision == "fp16":
                row["overflow"] = check_overflow(stage, recipe, method)
            weights[method, precision] = still_weights(stage, recipe, method, precision)
            rows.append(row)
            stage.note(rows=rows)
            stage.say(f"{method}, {precision}: {row}")
            free_memory()
    if other is not None and other.wait(timeout=max(1.0, stage.left)) != 0:
        raise RuntimeError("the run on the CPU failed")
    reference = torch.load(path)
    for row in rows:
        row["beside_the_cpu"] = compare(row, weights[row["method"], row["precision"]], *reference[row["method"]])
        stage.say(f"{row['method']}, {row['precision']}: {row['beside_the_cpu']}")
    stage.note(rows=rows)


def check_bits(stage, recipe, method, precision):
    """Train twice, and once more with a stop between; return how many numbers differ."""
    loaded = stage.load(recipe, method, precision)
    ends = []
    for _ in range(2):
        loop = stage.new_loop(loaded)
        take_steps(loop, STEPS)
        ends.append(state_of(loop))
    place = tempfile.mkdtemp(dir=stage.folder)
    loop = stage.new_loop(loaded, folder=place)
    take_steps(loop, STOPPED_AFTER)
    loop.save()
    loop = stage.new_loop(loaded, folder=place)
    loop.resume()
    take_steps(loop, STEPS)
    return {
        "determinism": loop.determinism,
        "different_on_repeat": different(ends[0], ends[1]),
        "different_on_resume": different(ends[0], state_of(loop)),
    }


def check_overflow(stage, recipe, method):
    """Train with a loss scale under which steps overflow; return what they changed."""
    loop = stage.new_loop(stage.load(recipe, method, "fp16"))
    take_steps(loop, OVERFLOWS[0] - 1)
    scaler = loop.accelerator.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": TOO_LARGE})
    before, rate = state_of(loop), loop.scheduler.get_last_lr()
    take_steps(loop, OVERFLOWS[-1])
    after = state_of(loop)
    counters = ("step", "begun")  # the method's own: a step that overflows is a step
    for state in (before, after):
        state["method"] = {key: value for key, value in state["method"].items() if key not in counters}
    scale = scaler.get_scale()
    scaler.load_state_dict({**scaler.state_dict(), "scale": 1024.0})
    take_steps(loop, STEPS)
    return {
        "different": {part: different(before[part], after[part]) for part in ("weights", "moments", "method")},
        "scale": [TOO_LARGE, scale],
        "halved_each_time": scale == TOO_LARGE / 2 ** len(OVERFLOWS),
        "schedule_moved": rate != loop.scheduler.get_last_lr(),
        "trains_on": different(after["weights"], state_of(loop)["weights"]) > 0,
    }


def still_weights(stage, recipe, method, precision):
    loop = stage.new_loop(stage.load(recipe, method, precision, *STILL, *OWN.get(method, ())))
    take_steps(loop, STEPS)
    return flat_weights(loop)


def write_reference(recipe, path):
    """Train every method on a CPU in fp32, and write each one's weights before and after."""
    import torch
    from rig import Stage

    stage, found = Stage("/dev/null", 0, rehearse=False), {}
    for method in methods():
        loop = stage.new_loop(stage.load(recipe, method, "fp32", *STILL, *OWN.get(method, ())))
        start = flat_weights(loop)
        take_steps(loop, STEPS)
        found[method] = (start, flat_weights(loop))
    torch.save(found, path)


def compare(row, weights, start, end):
    """Return how far weights are from a CPU's, over the way those went, and whether that is within the tolerance."""
    table = TOLERANCE_WHERE_SELECTED if row["method"] in SELECTING else TOLERANCE
    apart = float((weights - end).norm() / (end - start).norm())
    return {
        "apart": round(apart, 5),
        "tolerance": table[row["precision"]],
        "within": apart <= table[row["precision"]],
    }
