"""Choosing a subnetwork: the k-th largest score of each of BERT-large's matrices, and of CHILD-TUNING-D's one slice."""

import math

from common import in_turn, spread
from rig import first_line, free_memory

P = 0.3
LAYER = [(1024, 1024)] * 4 + [(4096, 1024), (1024, 4096)]
LAYERS = 24
SLICE = 302_309_376  # parameters of BERT-large's layers
SHARE_OF_SLICE = 0.2
ROUNDS = 5


def topk(scores, share):
    return scores.flatten().topk(math.ceil(scores.numel() * share), sorted=False).values.min()


def kthvalue(scores, share):
    n = scores.numel()
    return scores.flatten().kthvalue(n - math.ceil(n * share) + 1).values


def sort(scores, share):
    return scores.flatten().sort(descending=True).values[math.ceil(scores.numel() * share) - 1]


def a_matrix(scores, share):
    """As DPS chooses."""
    from dpstune.methods.subnetwork import kth_largest

    return kth_largest(scores, share)


def of_all(scores, share):
    """As CHILD-TUNING-D chooses among all weights: bit by bit."""
    from dpstune.methods.subnetwork import kth_largest_of

    return kth_largest_of([scores], share)


WAYS = {"dps": a_matrix, "child-tuning-d": of_all, "topk": topk, "sort": sort, "kthvalue": kthvalue}


def run(stage):
    import torch

    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes, slice_size = ([(32, 16)] * 2, 4096) if stage.rehearse else (LAYER, SLICE)
    layer = [torch.rand(shape, device=device).square() for shape in shapes]
    stage.note(layers=LAYERS, slice_elements=slice_size, one_layer={}, one_slice={})
    measure(stage, "one_layer", layer, 1 - P)
    del layer
    free_memory()
    measure(stage, "one_slice", [torch.rand(slice_size, device=device).square()], SHARE_OF_SLICE)


def measure(stage, part, tensors, share):
    """Note the seconds of each way, and whether all give the bits that sorting gives."""
    expected = [sort(scores, share) for scores in tensors]
    for name, way in WAYS.items():

        def choose(way=way):
            return [way(scores, share) for scores in tensors]

        if stage.left < 2:
            row = {"error": "no time left"}
        else:
            try:
                seconds = in_turn({name: choose}, ROUNDS, lambda: stage.left > 2)
                equal = all(bool(found == value) for found, value in zip(choose(), expected, strict=True))
                row = {"seconds": spread(seconds[name], 6), "equal": equal}
            except RuntimeError as error:  # without memory, or without a kernel
                row = {"error": first_line(error)}
        stage.note(**{part: stage.found[part] | {name: row}})
        stage.say(f"{part}, {name}: {row}")
