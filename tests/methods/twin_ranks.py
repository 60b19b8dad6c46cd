"""A program for two ranks: gradients of R-Drop, R3F and SMART through DistributedDataParallel, half the examples each.

twin_ranks.py FOLDER

DistributedDataParallel looks for unused parameters, as under transformers' Trainer: it must find none.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from dpstune import build_method
from dpstune.device.hardware import device_type, part_from_the_other_ranks
from dpstune.methods import twin
from tests.methods.test_twin import OF_TWO_RANKS, batch, classifier, one_noise_for_all

device_type()  # the ranks meet here
rank = torch.distributed.get_rank()
twin.TWIN_TOKENS = 0
examples = batch(size=8)


def gradients(settings):
    model = classifier()
    method = build_method(settings)
    method.attach(model, total_steps=10)
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    for chunk in (0, 1):
        start = 4 * rank + 2 * chunk
        part = {key: value[start : start + 2] for key, value in examples.items()}
        with wrapped.no_sync() if chunk == 0 else nullcontext(), one_noise_for_all():
            (method.loss(wrapped, part) / 2).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


for name, settings in OF_TWO_RANKS.items():
    torch.save(gradients(settings), Path(sys.argv[1]) / f"{name}-{rank}.pt")
part_from_the_other_ranks()
