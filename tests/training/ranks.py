"""A program for ``accelerate launch``: train recipes one after the other and leave every rank's weights behind.

ranks.py FOLDER RECIPE...
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_model

from dpstune.device import hardware
from dpstune.device.hardware import part_from_the_other_ranks
from dpstune.recipe.recipe import load_recipe
from dpstune.training import checkpoints, engine
from dpstune.training.loop import Loop
from tests.loss_scale import LARGE, scaling_from

torch.set_num_threads(1)
folder, recipes = Path(sys.argv[1]), sys.argv[2:]
finish = Loop.finish


write, written = checkpoints.write_folder, []


def write_and_die(path, fill):
    """Kill this process before the write of the number that is asked for."""
    written.append(path)
    if str(len(written)) == os.environ.get("KILLED_AT_WRITE"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, fill)


def finish_and_keep(loop, *arguments, **settings):
    name = f"{loop.recipe.method.name}-{loop.recipe.training.precision}"
    if loop.recipe.training.keep == "best":
        name = f"chosen-{name}"
    save_model(loop.model, folder / f"{name}-rank{os.environ['RANK']}.safetensors")
    return finish(loop, *arguments, **settings)


Loop.finish = finish_and_keep
checkpoints.write_folder = write_and_die
hardware.compute_in_fp16_on_cpu = scaling_from(LARGE)
for recipe in recipes:
    engine.train(load_recipe(recipe), output=folder / "runs")
part_from_the_other_ranks()
threads = []
for task in Path("/proc/self/task").glob("*"):
    with suppress(OSError):  # another thread may end at any time
        threads.append((task / "comm").read_text())
assert not any("gloo" in name for name in threads), threads  # one that frees a tensor while Python ends aborts it
