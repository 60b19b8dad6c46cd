"""Vanilla by dpstune and by transformers' Trainer: BERT-large on padded batches of 16, speed and utilisation.

A process a side. same: dpstune's precision, padding to the longest of the batch. usual: fp32, all padded to 128.
"""

from contextlib import ExitStack

from common import ratio, spread
from sides import Side, bursts_in_turn

TRAINERS = {"same": {"half": True, "padding": "longest"}, "usual": {"half": False, "padding": "max_length"}}
BURST, ROUNDS = 5, 20
# Floating point operations a second of dense half-precision matrix products, as the vendors' data sheets have them.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
    "T4": 65e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def run(stage):
    steps = BURST * (ROUNDS + 1)
    recipe = stage.write_recipe("google-bert/bert-large-cased", steps=steps)
    job = {"recipe": recipe, "overrides": ["training.epochs=1"], "generated": steps}
    size = 4 if stage.rehearse else 16
    burst, rounds = (2, 2) if stage.rehearse else (BURST, ROUNDS)
    with ExitStack() as stack:
        sides = {"dpstune": stack.enter_context(Side(kind="dpstune", **job))}
        for name, settings in TRAINERS.items():
            sides[name] = stack.enter_context(Side(kind="trainer", **job, **settings))
        for side in sides.values():
            side.ready()
        seconds = bursts_in_turn(sides, burst, rounds, lambda: stage.left > 5)
        taken = len(seconds["dpstune"])
        flops = sum(sides["dpstune"].ask("flops")[burst : burst * (taken + 1)])
        peaks = {name: side.ask("peak") for name, side in sides.items()}
    a_second = flops / sum(seconds["dpstune"])
    peak = peak_of(device_name())
    stage.note(
        examples_a_second={
            name: spread([burst * size / value for value in values], 2) for name, values in seconds.items()
        },
        over_trainer={name: ratio(seconds, name, "dpstune") for name in TRAINERS},
        peak_bytes=peaks,
        flops_a_second=a_second,
        peak_flops_a_second=peak,
        utilisation=None if peak is None else a_second / peak,
    )
    stage.say(str(stage.found))


def device_name():
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"


def peak_of(name):
    """Return a GPU's peak in half precision, None where it is not in the table.

    >>> peak_of("NVIDIA H100 80GB HBM3"), peak_of("NVIDIA L40S"), peak_of("a CPU")
    (989000000000000.0, 362000000000000.0, None)
    """
    words = name.replace("-", " ").split()
    return next((peak for known, peak in PEAKS.items() if all(word in words for word in known.split())), None)
