"""What a pass costs follows from the processor and the model."""

import pytest
import torch
from torch import nn

from dpstune.data.passes import NEVER_CUT
from dpstune.training.pass_cost import pass_cost

CPU = torch.device("cpu")


def layers(count, width):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(count)))


@pytest.fixture(params=[True, False], ids=["tiles", "no tiles"])
def tiles(request, monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_amx_fp16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: request.param)
    return request.param


def test_few_shapes_are_wanted_where_kernels_are_made_for_one(tiles):
    assert [pass_cost(layers(2, 8), CPU, precision).few_shapes for precision in ("bf16", "fp16", "no")] == [
        tiles,
        tiles,
        False,
    ]


def test_what_computes_faster_makes_a_pass_dearer(tiles):
    model = layers(12, 384)
    assert pass_cost(model, CPU, "bf16").tokens > pass_cost(model, CPU, "no").tokens > 30


def test_a_small_model_is_hardly_ever_cut(tiles):
    assert pass_cost(layers(12, 16), CPU, "no").tokens > 10 * pass_cost(layers(12, 384), CPU, "no").tokens


def test_threads_do_not_change_it(monkeypatch):
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(pass_cost(layers(12, 384), CPU, "no"))
    assert found[0] == found[1]


def test_elsewhere_nothing_is_cut():
    assert pass_cost(layers(2, 8), torch.device("cuda"), "bf16") == NEVER_CUT
    assert pass_cost(nn.Sequential(), CPU, "no").tokens == NEVER_CUT.tokens
