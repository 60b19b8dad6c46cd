"""A program for ``accelerate launch``: train recipes one after the other and leave every rank's weights behind.

ranks.py FOLDER RECIPE...
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_model

from dpstune.device import hardware
from dpstune.device.hardware import part_from_the_other_ranks
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from tests.loss_scale import LARGE, scaling_from

torch.set_num_threads(1)
folder, recipes = Path(sys.argv[1]), sys.argv[2:]
finish = engine.Loop.finish


def finish_and_keep(loop, *arguments, **settings):
    name = f"{loop.recipe.method.name}-{loop.recipe.training.precision}"
    save_model(loop.model, folder / f"{name}-rank{os.environ['RANK']}.safetensors")
    return finish(loop, *arguments, **settings)


engine.Loop.finish = finish_and_keep
hardware.compute_in_fp16_on_cpu = scaling_from(LARGE)
for recipe in recipes:
    engine.train(load_recipe(recipe), output=folder / "runs")
part_from_the_other_ranks()
threads = []
for task in Path("/proc/self/task").glob("*"):
    with suppress(OSError):  # another thread may end at any time
        threads.append((task / "comm").read_text())
assert not any("gloo" in name for name in threads), threads  # one that frees a tensor while Python ends aborts it
