"""What the methods do on an accelerator, as far as a CPU can show it: the same numbers, and nobody waits."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from dpstune import build_method
from dpstune.methods import REGISTRY, groups
from dpstune.methods.groups import add_squares
from dpstune.methods.subnetwork import kth_largest, kth_largest_of, least_of_largest
from tests.tiny import tiny_classifier

STEPS = 12
WITHOUT_META = ("reinit", "child-tuning-f")  # they draw numbers, which no meta tensor holds and no generator gives
SETTINGS = [
    {"name": name} | ({"update_ratio": 0.25} if name.startswith("dps") else {})
    for name in REGISTRY
    if name not in ("r3f", "reinit")
]


@pytest.fixture
def away(monkeypatch):
    """Have the methods take tensors of the CPU for an accelerator's."""
    monkeypatch.setattr(groups, "on_cpu", lambda tensor: False)


def network():
    torch.manual_seed(0)
    shapes = [(6, 8), (8, 8), (8, 8), (8, 8), (8, 5), (5, 3)]
    return nn.Sequential(*(part for shape in shapes for part in (nn.Linear(*shape), nn.Tanh())))


def train(settings, steps=STEPS, spoilt=(), half=False):
    """Return weights and the method's state after some steps; in those that are spoilt a gradient is not finite."""
    model, method = network(), build_method(settings)
    method.attach(model, total_steps=STEPS, seed=7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for step in range(1, steps + 1):
        generator = torch.Generator().manual_seed(step)
        x, labels = torch.randn(12, 6, generator=generator), torch.randint(3, (12,), generator=generator)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=half):
            loss = F.cross_entropy(model(x)[:, :3].float(), labels)
        loss.backward()
        if step in spoilt:
            model[2].weight.grad[0, 0] = float("nan") if step % 2 else float("inf")
        method.before_clip()
        if step not in spoilt:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            method.before_update()
            optimizer.step()
        method.after_update()
    return copy.deepcopy((model.state_dict(), method.state_dict()))


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("spoilt", [(), (2, 3, 8)])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["name"])
def test_an_accelerators_way_gives_the_hosts_bits(settings, spoilt, half, monkeypatch, request):
    on_host = train(settings, spoilt=spoilt, half=half)
    request.getfixturevalue("away")
    monkeypatch.setattr(groups, "GROUP", 150)
    assert all(map(same, on_host, train(settings, spoilt=spoilt, half=half)))


@pytest.mark.parametrize("method", [name for name in REGISTRY if name not in WITHOUT_META])
def test_a_step_asks_an_accelerator_for_no_number(method, monkeypatch):
    """Meta tensors have a device of their own and no numbers: whoever asks for one, or mixes devices, gets an error."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind=None: False)  # which no one can ask of meta tensors
    model = tiny_classifier("bert", attention_probs_dropout_prob=0.0).to("meta").train()
    ids = torch.zeros(4, 9, dtype=torch.int64, device="meta")
    batch = {"input_ids": ids, "labels": torch.zeros(4, dtype=torch.int64, device="meta")}
    chosen = build_method({"name": method, **({"update_ratio": 0.25} if method.startswith("dps") else {})})
    chosen.attach(model, total_steps=STEPS)
    chosen.prepare(model, [[(batch, 1.0)]])
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(STEPS):
        chosen.loss(model, batch).backward()
        chosen.before_clip()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        chosen.before_update()
        optimizer.step()
        optimizer.zero_grad()
        chosen.after_update()
    chosen.detach()


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["name"])
def test_every_hook_runs_where_kernels_must_be_deterministic(settings):
    torch.use_deterministic_algorithms(True)
    try:
        train(settings)
    finally:
        torch.use_deterministic_algorithms(False)


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


def test_a_checkpoint_holds_each_buffer_once_and_one_without_shared_memory_is_read():
    settings = {"name": "dps-mix", "update_ratio": 0.5}
    _, state = train(settings, steps=3)
    file = io.BytesIO()
    method = build_method(settings)
    model = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    method.attach(model, total_steps=4)
    torch.save(method.state_dict(), file)
    assert file.tell() < method.held_bytes() + 10_000
    apart = {key: copy.deepcopy(value) for key, value in state.items()}
    for key in ("fam", "selected"):
        apart[key] = {name: buffer.clone() for name, buffer in state[key].items()}
    resumed = build_method(settings)
    resumed.attach(network(), total_steps=STEPS, seed=7)
    resumed.load_state_dict(apart)
    assert same(resumed.state_dict(), state)
