"""A step with and without ``training.compile``, in turn: MiniLM's shape, full batches, three methods.

A rehearsal traces the model as it would be compiled and runs it uncompiled, since compiling takes minutes.
"""

import time
from functools import partial

from common import in_turn, ratio, spread
from rig import first_line, free_memory

METHODS = ("vanilla", "dps-dense", "dps-mix")
ROUNDS = 20


def run(stage):
    import torch

    from dpstune.studies.profile.generated import GeneratedInputs

    if stage.rehearse:
        torch.compile = partial(torch.compile, backend="eager")
    recipe = stage.write_recipe("minilm", steps=200)
    rows = {}
    for method in METHODS[-1:] if stage.rehearse else METHODS:
        if stage.left < 10 and rows and not stage.rehearse:
            rows[method] = {"error": "no time left"}
        else:
            rows[method] = measure(stage, recipe, method, GeneratedInputs())
        stage.note(rows=rows)
        stage.say(f"{method}: {rows[method]}")
        free_memory()


def measure(stage, recipe, method, inputs):
    loops = {
        name: stage.new_loop(stage.load(recipe, method, "auto", f"training.compile={value}"), inputs)
        for name, value in (("compiled", "true"), ("plain", "false"))
    }

    def step(name):
        loops[name].optimizer_step(loops[name].state.step + 1)

    started = time.perf_counter()
    try:
        step("compiled")
    except Exception as error:  # no compiler on the machine, or an operation it does not know: a finding, not a failure
        return {"error": first_line(error)}
    first = time.perf_counter() - started
    sides = {name: partial(step, name) for name in loops}
    seconds = in_turn(sides, 3 if stage.rehearse else ROUNDS, lambda: stage.left > 3)
    return {
        "seconds_of_the_first_step": round(first, 3),
        "seconds": {name: spread(values, 6) for name, values in seconds.items()},
        "compiled_over_plain": ratio(seconds, "compiled", "plain"),
    }
