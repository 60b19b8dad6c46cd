import gc

import torch
from torch import nn

from dpstune.studies.profile.memory_meter import TensorMeter, tensor_bytes


def test_a_forward_and_a_backward_pass_by_hand():
    """50 rows through 100 -> 200 -> 10: ReLU keeps its output for the backward pass, its input is freed."""
    model = nn.Sequential(nn.Linear(100, 200, bias=False), nn.ReLU(), nn.Linear(200, 10, bias=False))
    inputs = torch.randn(50, 100)
    hidden, output, weights = 4 * 50 * 200, 4 * 50 * 10, 4 * (200 * 100 + 10 * 200)
    with TensorMeter() as meter:
        loss = model(inputs).sum()
        assert meter.held() == hidden + 4, "the output is summed and gone"
        assert meter.peak >= 2 * hidden
        loss.backward()
        del loss
        assert meter.held() == weights, "gradients"
        model.zero_grad()
        gc.collect()
        assert meter.held() == 0
    assert weights < meter.peak <= weights + 3 * hidden + output + 8


def test_views_of_what_was_there_before_are_not_new():
    weight = nn.Parameter(torch.ones(100, 100))
    with TensorMeter() as meter:
        turned = weight.t()
        part = turned[:10].reshape(-1)[:5]
    assert meter.held() == part.untyped_storage().nbytes() == 4 * 1000


def test_memory_that_is_freed_and_used_again_counts_each_time():
    with TensorMeter() as meter:
        for _ in range(5):
            torch.ones(1000)
            assert meter.held() == 0
    assert meter.peak == 4000


def test_shared_tensors_count_once():
    base = torch.zeros(10)
    assert tensor_bytes([base, base[2:], torch.zeros(1, dtype=torch.float64)]) == 48
