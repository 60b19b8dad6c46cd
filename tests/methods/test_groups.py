"""The code that a GPU takes, run on a CPU: many tensors at once, nothing asked of the device."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpstune import build_method
from dpstune.methods import groups
from dpstune.methods.subnetwork import octets
from dpstune.models.loading import recompute_activations
from tests.methods.test_hooks import BUFFERED, SETTINGS, STEPS, called, network, start, take_step
from tests.tiny import tiny_classifier

HALF = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Return a function after whose call the methods take a GPU's code."""
    return lambda: monkeypatch.setattr(groups, "on_cpu", lambda tensor: False)


def run(settings, half, spoiled=5):
    """Train through both stages, one step of which overflows; return weights and the method's state."""
    model, method, optimizer = start(settings)
    if half:
        model.forward = HALF(model.forward)
    if settings["name"] == "child-tuning-d":
        scores = {name: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) for name, p in named(model)}
        method.choose(scores)
    for step in range(1, STEPS + 1):
        take_step(model, method, optimizer, step, chunks=2, spoil=float("inf") if step == spoiled else None)
    return dict(named(model)), method.state_dict()


def named(model):
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_many_at_once_gives_the_bits_of_one_by_one(settings, half, as_on_a_gpu):
    weights, state = run(settings, half)
    as_on_a_gpu()
    weights_at_once, state_at_once = run(settings, half)
    torch.testing.assert_close(weights_at_once, weights, rtol=0, atol=0)
    torch.testing.assert_close(state_at_once, state, rtol=0, atol=0)


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_groups_as_small_as_a_matrix_change_nothing(settings, monkeypatch, as_on_a_gpu):
    expected = run(settings, half=True)
    as_on_a_gpu()
    monkeypatch.setattr(groups, "GROUP", 50)
    torch.testing.assert_close(run(settings, half=True), expected, rtol=0, atol=0)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_no_method_needs_what_has_no_deterministic_form(settings, gpu, as_on_a_gpu):
    if gpu:
        as_on_a_gpu()
    torch.use_deterministic_algorithms(True)
    try:
        run(settings, half=True)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("on_a_gpu", [False, True])
def test_averages_that_move_by_nothing_are_not_spoilt(as_on_a_gpu, on_a_gpu):
    if on_a_gpu:
        as_on_a_gpu()
    averages = [torch.ones(3), torch.ones(2)]
    values = [torch.tensor([float("nan"), float("inf"), 1.0]), torch.zeros(2)]
    groups.move_toward(averages, values, torch.tensor(0.25), torch.tensor(False))
    assert all(torch.equal(average, torch.ones_like(average)) for average in averages)


def test_groups_hold_what_fits_and_one_dtype_and_device(monkeypatch):
    monkeypatch.setattr(groups, "GROUP", 10)
    sizes = [4, 4, 4, 30, 2, 2]
    tensors = [torch.empty(size, device="meta") for size in sizes]
    assert list(groups.groups(tensors)) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]
    tensors[5] = tensors[5].double()
    assert list(groups.groups(tensors))[-2:] == [slice(4, 5), slice(5, 6)]
    assert list(groups.groups([])) == []


@pytest.mark.parametrize("settings", BUFFERED, ids=called)
def test_a_saved_state_takes_its_tensors_and_no_more(settings):
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    method = build_method(settings)
    method.attach(model, total_steps=4)
    model(torch.ones(2, 64)).sum().backward()
    method.before_clip()
    state = method.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    tensors = [tensor for value in state.values() if isinstance(value, dict) for tensor in value.values()]
    assert file.tell() < sum(tensor.nbytes for tensor in tensors) + 400 * len(tensors) + 4000
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=True), state, rtol=0, atol=0)


@pytest.mark.parametrize("settings", BUFFERED, ids=called)
def test_a_state_whose_tensors_share_nothing_is_taken_up(settings):
    """As versions saved it in which each layer's selection was a tensor of its own."""
    model, method, optimizer = start(settings)
    for step in range(1, 5):
        take_step(model, method, optimizer, step)
    state = {
        key: {name: tensor.clone() for name, tensor in value.items()} if isinstance(value, dict) else value
        for key, value in method.state_dict().items()
    }
    twin = build_method(settings)
    twin.attach(copy_of(model), total_steps=STEPS, seed=7)
    twin.load_state_dict(state)
    torch.testing.assert_close(twin.state_dict(), state, rtol=0, atol=0)


def copy_of(model):
    twin = network()
    twin.load_state_dict(model.state_dict())
    return twin


class TestMixedWeightsInHalfPrecision:
    """Made once a step, they must not outlive what they were made of."""

    def mixed(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        method = build_method({"name": "mixout", "p": 0.5})
        method.attach(model, total_steps=10, mask_source=lambda name, step: [1, 0, 1, 0])
        return model, method

    def by_hand(self, model, method, x):
        for layer, target in zip(model, method.pretrained.values(), strict=True):
            mixed = torch.lerp(target, layer.weight.detach(), torch.tensor([2.0, 0.0, 2.0, 0.0]))
            x = F.linear(x.bfloat16(), mixed.bfloat16(), layer.bias.detach().bfloat16())
        return x

    def test_a_weight_that_changed_since_is_mixed_anew(self):
        model, method = self.mixed()
        x = torch.randn(3, 4)
        with HALF, torch.no_grad():
            for _ in range(3):
                assert torch.equal(model(x), self.by_hand(model, method, x))
                model[1].weight.add_(torch.randn(4, 4))
            method.before_clip()
            model[0].weight.mul_(2)
            assert torch.equal(model(x), self.by_hand(model, method, x))

    def test_a_deep_copy_mixes_its_own(self):
        model, method = self.mixed()
        x = torch.randn(3, 4)
        with HALF:
            model(x)
            twin = copy.deepcopy(model)
            with torch.no_grad():
                twin[0].weight.mul_(3)
            assert torch.equal(twin(x), self.by_hand(twin, method, x))
            assert torch.equal(model(x), self.by_hand(model, method, x))

    def test_another_precision_in_the_same_step(self):
        model, _ = self.mixed()
        x = torch.randn(3, 4)
        with HALF:
            expected = model(x)
        with torch.autocast("cpu", dtype=torch.float16):
            assert model(x).dtype == torch.float16
        with HALF:
            assert torch.equal(model(x), expected)
        with torch.inference_mode(), HALF:
            assert torch.equal(model(x), expected)

    def test_they_are_made_once_for_all_micro_batches_and_freed_before_the_update(self, monkeypatch):
        model, method = self.mixed()
        made = []
        mix_all = method._halves._mix_all
        monkeypatch.setattr(method._halves, "_mix_all", lambda names: made.extend(names) or mix_all(names))
        for _ in range(3):
            with HALF:
                loss = model(torch.randn(3, 4)).sum()
            loss.backward()
        assert made == ["0", "1"]
        method.before_clip()
        assert method._halves._made == {}

    def test_layers_that_recompute_their_activations(self):
        def gradients(recompute):
            model = tiny_classifier("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
            if recompute:
                recompute_activations(model)
            method = build_method({"name": "dps-mix"})
            method.attach(model, total_steps=100)
            with HALF:
                loss = method.loss(model, {"input_ids": torch.full((2, 5), 8), "labels": torch.tensor([0, 1])})
            loss.backward()
            return {name: parameter.grad for name, parameter in model.named_parameters()}

        torch.testing.assert_close(gradients(True), gradients(False), rtol=0, atol=0)


def test_the_selection_of_matrices_of_odd_sizes_is_unpacked_as_it_was_packed(as_on_a_gpu):
    as_on_a_gpu()
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 1))
    method = build_method({"name": "dps-mix", "p": 0.4, "update_ratio": 0.5})
    method.attach(model, total_steps=2)
    for _ in range(2):
        model.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        method.before_clip()
        method.after_update()
    table = octets(torch.device("cpu"))
    for name, layer in method.linears.items():
        bits = table[method.selected[name].int()].view(torch.bool)[: layer.weight.numel()].view(layer.weight.shape)
        assert bits.sum() >= 0.6 * bits.numel()
        assert ((layer.weight.grad != 0) <= bits).all()
