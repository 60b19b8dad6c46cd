"""Where the time of a step goes: BERT-large, kernels and waits for the device of three methods, and what modes cost.

Modes: deterministic kernels alone or any, new tensors filled or not. A trace of one step of each method counts kernels,
what the device was busy, and the calls that wait for it; torch's own warnings say where in the code those are.
"""

import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

from common import in_turn, ratio, spread, synchronize
from rig import built_on_the_device, free_memory

STEPS = 10
AS_SET = (True, False)  # deterministic kernels alone, new tensors not filled: what dpstune sets
METHODS = ("vanilla", "dps-dense", "dps-mix")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")


def run(stage):
    recipe = stage.write_recipe("google-bert/bert-large-cased", steps=1000)
    for method in METHODS:
        if method != METHODS[0] and stage.left < 8:
            break
        with built_on_the_device():
            loop = stage.new_loop(stage.load(recipe, method))
        for _ in range(3):
            step_in_mode(loop, *AS_SET)
        stage.note(**{method: trace(partial(step_in_mode, loop, *AS_SET))})
        stage.say(f"{method}: {stage.found[method]['counts']}")
        if method == METHODS[0]:
            stage.note(modes=time_modes(stage, loop))
            stage.say(f"modes: {stage.found['modes']}")
        del loop
        free_memory()


def step_in_mode(loop, strict, fill):
    """Take a step with deterministic kernels alone or any, and with new tensors filled or not."""
    import torch

    torch.use_deterministic_algorithms(strict)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    loop.optimizer_step(loop.state.step + 1)


def time_modes(stage, loop):
    """Take steps in every mode, in turn; return the times, and the ratio to the mode that dpstune sets."""
    modes = [(strict, fill) for strict in (True, False) for fill in (True, False)]
    sides = {name_of(*mode): partial(step_in_mode, loop, *mode) for mode in modes}
    seconds = in_turn(sides, 2 if stage.rehearse else STEPS, lambda: stage.left > 15)
    return {
        name: {"seconds": spread(values, 6), "over_as_set": ratio(seconds, name, name_of(*AS_SET))}
        for name, values in seconds.items()
    }


def name_of(strict, fill):
    return f"{'deterministic' if strict else 'any'} kernels, new tensors {'filled' if fill else 'not filled'}"


def trace(step):
    """Profile one step; return counts, times and the longest kernels."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    places = waits_of(step) if on_gpu else {}
    synchronize()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        started = time.perf_counter()
        step()
        told = time.perf_counter() - started
        synchronize()
        done = time.perf_counter() - started
    names, kernels, busy = Counter(), Counter(), Counter()
    for event in profiler.events():
        if event.is_user_annotation:  # such as the optimizer's step, over the kernels that are in it
            continue
        if event.device_type == DeviceType.CUDA:
            kernels[event.name] += 1
            busy[event.name] += event.time_range.elapsed_us()
        else:
            names[event.name] += 1
    copies = sum(count for name, count in kernels.items() if name.startswith(("Memcpy", "Memset")))
    return {
        "counts": {
            "kernels": kernels.total() - copies,
            "copies_and_fills": copies,
            "launches": sum(count for name, count in names.items() if "LaunchKernel" in name),
            "operations": sum(count for name, count in names.items() if name.startswith("aten::")),
            "waits": {name: names[name] for name in WAITS},
        },
        "seconds_until_told": told,
        "seconds_until_done": done,
        "seconds_busy": busy.total() / 1e6,
        "waits_in_the_code": places,
        "longest": [
            {"name": name[:120], "count": kernels[name], "seconds": micro / 1e6} for name, micro in busy.most_common(12)
        ],
    }


def waits_of(step):
    """Take a step in which torch warns of each wait; return how often each line of code waited."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "called a synchronizing" in str(each.message)]
    return dict(Counter(f"{'/'.join(Path(each.filename).parts[-3:])}:{each.lineno}" for each in waits))
