"""What the methods do on an accelerator, as far as a CPU can show it: the same numbers, and nobody waits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from dpstune import build_method
from dpstune.methods import REGISTRY, groups
from dpstune.methods.groups import add_squares
from dpstune.methods.subnetwork import kth_largest, kth_largest_of, least_of_largest
from tests.methods.rounds import backward
from tests.methods.test_hooks import BEYOND_THE_PAPER, called
from tests.tiny import some, tiny_classifier

STEPS = 12
WITHOUT_META = (
    "reinit",
    "child-tuning-f",
    "linear-probe",
    "lp-ft",
)  # they draw numbers, or solve for them before step 1


@pytest.fixture
def away(monkeypatch):
    """Have the methods take tensors of the CPU for an accelerator's."""
    monkeypatch.setattr(groups, "on_cpu", lambda tensor: False)


@pytest.mark.parametrize("method", some(["dps-mix", "r3f"], of=[name for name in REGISTRY if name not in WITHOUT_META]))
def test_a_step_asks_an_accelerator_for_no_number(method, monkeypatch):
    """Meta tensors have a device of their own and no numbers: whoever asks for one, or mixes devices, gets an error."""
    train_without_numbers({"name": method, **({"update_ratio": 0.25} if method.startswith("dps") else {})}, monkeypatch)


@pytest.mark.parametrize("settings", some(BEYOND_THE_PAPER[::4], of=BEYOND_THE_PAPER), ids=called)
def test_nor_does_one_of_dps_beyond_the_paper(settings, monkeypatch):
    train_without_numbers({**settings, "scope": "encoder"}, monkeypatch)


def train_without_numbers(settings, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind=None: False)  # which no one can ask of meta tensors
    model = tiny_classifier("bert", attention_probs_dropout_prob=0.0).to("meta").train()
    ids = torch.zeros(4, 9, dtype=torch.int64, device="meta")
    batch = {"input_ids": ids, "labels": torch.zeros(4, dtype=torch.int64, device="meta")}
    chosen = build_method(settings)
    chosen.attach(model, total_steps=STEPS)
    chosen.prepare(model, [[(batch, 1.0)]])
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(STEPS):
        backward(model, chosen, lambda: [chosen.loss(model, batch)])
        chosen.before_clip()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        chosen.before_update()
        optimizer.step()
        optimizer.zero_grad()
        chosen.after_update()
    chosen.detach()


scores = hnp.arrays(
    "float32", st.integers(1, 60), elements=st.sampled_from([0.0, 1e-45, 1e-30, 0.5, 1.0, 2.0, math.inf])
)


@given(scores, st.floats(0.0, 1.0, exclude_min=True))
def test_every_way_to_the_kth_largest_score_finds_the_same_bits(array, share):
    flat = torch.from_numpy(array)
    k = math.ceil(len(flat) * share)
    expected = flat.sort(descending=True).values[k - 1]
    for found in (kth_largest(flat, share), least_of_largest(flat, k), kth_largest_of([flat[:7], flat[7:]], share)):
        assert torch.equal(found, expected)
    assert torch.equal(kth_largest_of([flat.double()], share), expected.double())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("away")
def test_nothing_of_gradients_that_are_not_finite_is_added(value, dtype):
    sums = [torch.ones(3, dtype=dtype), torch.ones(2, dtype=dtype)]
    gradients = [torch.tensor([1.0, value, 2.0], dtype=dtype), torch.tensor([3.0, 4.0], dtype=dtype)]
    add_squares(sums, gradients, torch.tensor(False))
    assert [each.tolist() for each in sums] == [[1.0] * 3, [1.0] * 2]
    add_squares(sums[1:], gradients[1:], torch.tensor(True))
    assert sums[1].tolist() == [10.0, 17.0]
