"""SAM against its formula, written out with torch alone, and what must hold between its two rounds."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods import groups
from tests.methods.rounds import backward

RHO = 0.3


def network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def examples(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(12, 6, generator=generator, dtype=torch.float64), torch.randint(3, (12,), generator=generator)


def loss_of(model, step=1):
    inputs, labels = examples(step)
    return F.cross_entropy(model(inputs.to(next(model.parameters()).dtype)), labels)


def attached(model, **settings):
    method = build_method({"name": "sam", "rho": RHO} | settings)
    method.attach(model, total_steps=10)
    return method


def weights_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def move(model, method, step=1):
    """Take the first round of a step and return how far each weight was moved."""
    before = weights_of(model)
    loss_of(model, step).backward()
    method.after_round(1)
    return [parameter.detach() - weight for parameter, weight in zip(model.parameters(), before, strict=True)]


def written_out(model, step, rate):
    """A step of gradient descent, clipped to norm 0.5: gradients at w, at w + eps, and the update of w by the second.

    The norm is that of all gradients, end to end in one vector.
    """
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss_of(model, step), parameters)
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    eps = [RHO * gradient / whole.square().sum().sqrt() for gradient in gradients]
    w = weights_of(model)
    with torch.no_grad():
        for parameter, each in zip(parameters, eps, strict=True):
            parameter += each
    second = torch.autograd.grad(loss_of(model, step), parameters)
    size = torch.cat([gradient.flatten() for gradient in second]).square().sum().sqrt()
    scale = min(1.0, 0.5 / (size.item() + 1e-6))
    with torch.no_grad():
        for parameter, weight, gradient in zip(parameters, w, second, strict=True):
            parameter.copy_(weight - rate * scale * gradient)


def test_steps_are_those_of_the_formula():
    model, expected = network(), network()
    method = attached(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    for step in range(1, 6):
        written_out(expected, step, rate=0.4)
        optimizer.zero_grad()
        backward(model, method, lambda step=step: [loss_of(model, step)])
        method.before_clip()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        method.before_update()
        optimizer.step()
        method.after_update()
        torch.testing.assert_close(weights_of(model), weights_of(expected), rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(1e-6, 1e3), st.integers(-30, 30))
def test_the_weights_get_back_every_bit(seed, rho, exponent):
    """Also where they are so small, or so large, that adding and subtracting eps would round them."""
    model = network(seed, torch.float32)
    with torch.no_grad():
        model[0].weight.mul_(10.0**exponent)
    before = weights_of(model)
    method = attached(model, rho=rho)
    backward(model, method, lambda: [loss_of(model)])
    method.before_clip()
    assert all(torch.equal(*pair) for pair in zip(weights_of(model), before, strict=True))
    assert method.held_bytes() == 0
    assert not any(isinstance(value, list) and value for value in vars(method).values()), "nothing is kept"


@pytest.mark.parametrize("seed", range(5))
def test_the_weights_are_moved_by_rho_in_all_uphill(seed):
    model = network(seed)
    at_w = loss_of(model).item()
    eps = move(model, attached(model, rho=1e-3))
    assert torch.cat([each.flatten() for each in eps]).norm().item() == pytest.approx(1e-3)
    slope = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
    assert loss_of(model).item() - at_w == pytest.approx(1e-3 * slope, rel=0.05), "as steeply as any way leads"


def test_the_nearer_the_point_the_nearer_the_gradient_is_to_plain_fine_tunings():
    def gradient(rho):
        model = network()
        method = attached(model, rho=rho)
        backward(model, method, lambda: [loss_of(model)])
        method.before_clip()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    plain = network()
    loss_of(plain).backward()
    exact = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    far, near, nearest = ((gradient(rho) - exact).norm().item() for rho in (1e-2, 1e-3, 1e-20))
    assert near == pytest.approx(far / 10, rel=0.1)
    assert nearest < 1e-12


def test_a_loss_scale_changes_no_bit_of_eps():
    moved = []
    for scale in (1.0, 2.0**24, 2.0**-20):
        model = network(dtype=torch.float32)
        (loss_of(model) * scale).backward()
        attached(model).after_round(1)
        moved.append(weights_of(model))
    for other in moved[1:]:
        assert all(torch.equal(*pair) for pair in zip(moved[0], other, strict=True))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spoil", [math.inf, -math.inf, math.nan, 0.0])
def test_no_weight_moves_where_the_gradients_give_no_direction(monkeypatch, gpu, dtype, spoil):
    """One that is not finite, or none but zeros."""
    if gpu:
        monkeypatch.setattr(groups, "on_cpu", lambda tensor: False)
    model = network(dtype=dtype)
    method = attached(model)
    before = weights_of(model)
    loss_of(model).backward()
    for parameter in model.parameters():
        parameter.grad.mul_(0.0 if spoil == 0.0 else 1.0)
    model[3].bias.grad[1] = spoil
    method.after_round(1)
    assert all(torch.equal(*pair) for pair in zip(weights_of(model), before, strict=True))


def test_what_does_not_train_or_has_no_gradient_is_left_alone():
    model = network()
    model[1].requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    method = attached(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss_of(model).backward()
    method.after_round(1)
    apart = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert apart == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_a_step_without_gradients_moves_nothing():
    model = network()
    method = attached(model)
    method.after_round(1)
    method.before_clip()
    assert all(torch.equal(*pair) for pair in zip(weights_of(model), weights_of(network()), strict=True))


def test_a_step_that_is_broken_off_between_the_rounds_leaves_the_model_as_it_was():
    model = network()
    method = attached(model)
    assert any(each.any() for each in move(model, method))
    method.detach()
    assert all(torch.equal(*pair) for pair in zip(weights_of(model), weights_of(network()), strict=True))


def test_a_loop_of_one_round_is_told():
    """Else it would train as plain fine-tuning does, in silence."""
    model = network()
    method = attached(model)
    loss_of(model).backward()
    with pytest.raises(RequestError, match=r"sam needs a loop .* in two rounds: method.rounds"):
        method.before_clip()


def test_bad_settings_are_one_line():
    with pytest.raises(RequestError, match="rho: should be greater than 0"):
        build_method({"name": "sam", "rho": 0})
