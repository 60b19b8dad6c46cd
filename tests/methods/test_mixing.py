import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods.mixing import mix, mixed_linear
from tests.methods.test_hooks import UsesAWeightAlone


def test_mixing_is_the_formula_of_the_paper():
    weight, target = torch.randn(5, 4), torch.randn(5, 4)
    mask, p = torch.tensor([1.0, 0.0, 1.0, 0.0]), 0.3
    expected = ((1 - mask) * target + mask * weight - p * target) / (1 - p)
    torch.testing.assert_close(mix(weight, target, mask / (1 - p)), expected)


def test_mixing_is_unbiased():
    torch.manual_seed(0)
    weight, target = torch.randn(3, 50), torch.randn(3, 50)
    draws = torch.stack([mix(weight, target, (torch.rand(50) >= 0.4) / 0.6) for _ in range(20000)])
    torch.testing.assert_close(draws.mean(0), weight, atol=0.06, rtol=0)


@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 7, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_autograd_but_for_the_factor_of_the_weight(shape, bias):
    torch.manual_seed(0)
    layer, target = nn.Linear(4, 5, bias=bias).double(), torch.randn(5, 4, dtype=torch.double)
    mask, p = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.double), 0.3
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    weights = torch.randn((*shape[:-1], 5), dtype=torch.double)

    (mixed_linear(x, layer, target, lambda: mask / (1 - p), gate=mask) * weights).sum().backward()
    got = (x.grad, layer.weight.grad, layer.bias.grad if bias else None)

    x2, w2 = x.detach().requires_grad_(), layer.weight.detach().requires_grad_()
    b2 = layer.bias.detach().requires_grad_() if bias else None
    (F.linear(x2, mix(w2, target, mask / (1 - p)), b2) * weights).sum().backward()
    torch.testing.assert_close(got[0], x2.grad)
    torch.testing.assert_close(got[1], w2.grad * (1 - p))
    if bias:
        torch.testing.assert_close(got[2], b2.grad)


def test_autocast_computes_in_its_dtype_and_gradients_stay_float32():
    layer, target = nn.Linear(4, 5), torch.zeros(5, 4)
    x = torch.randn(3, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixed_linear(x, layer, target, lambda: torch.ones(4), gate=torch.ones(4))
        plain = layer(x)
    assert y.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(y, plain)
    y.sum().backward()
    assert x.grad.dtype == layer.weight.grad.dtype == layer.bias.grad.dtype == torch.float32


def test_no_mixed_weight_is_kept_for_the_backward_pass():
    layer, target = nn.Linear(64, 64), torch.zeros(64, 64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mixed_linear(torch.randn(2, 64), layer, target, lambda: torch.full((64,), 2.0))
    known = {layer.weight.data_ptr(), target.data_ptr()}
    assert sum(t.numel() for t in kept if t.data_ptr() not in known) == 2 * 64


def test_layers_that_share_a_weight_share_its_mask_and_keep_their_biases():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    method = build_method({"name": "dps-mix", "p": 0.5})
    method.attach(model, total_steps=10, mask_source=lambda name, step: [1, 0, 1, 0])
    assert list(method.linears) == ["0"]
    x, w = torch.randn(3, 4), first.weight.detach()
    expected = F.linear(F.linear(x, w, first.bias), w, second.bias)
    torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()
    assert (first.weight.grad[:, [1, 3]] == 0).all()
    method.detach()
    assert not any("forward" in vars(layer) for layer in model)


def test_a_weight_that_is_used_without_its_layer_is_refused():
    model = UsesAWeightAlone()
    method = build_method({"name": "dps-mix"})
    method.attach(model, total_steps=10)
    model(torch.randn(2, 4)).sum().backward()
    with pytest.raises(RequestError, match="cannot mix 'b'"):
        method.before_clip()


def test_masks_depend_on_seed_and_step_alone():
    def masks(seed, steps):
        torch.manual_seed(torch.randint(1000, ()).item())
        model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
        method = build_method({"name": "dps-mix", "p": 0.3, "update_ratio": 1.0})
        method.attach(model, total_steps=10, seed=seed)
        for _ in range(steps - 1):
            method.after_update()
        method.begin_step()
        return torch.cat(list(method.columns.values()))

    assert torch.equal(masks(1, 3), masks(1, 3))
    assert not torch.equal(masks(1, 3), masks(1, 4))
    assert not torch.equal(masks(1, 3), masks(2, 3))
    many = torch.stack([masks(seed, 1) for seed in range(200)]).float()
    assert abs(many.mean().item() - 0.7) < 0.02


def test_a_mask_source_may_leave_the_drawing_to_the_method_but_not_miss_a_column():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    method = build_method({"name": "dps-mix"})
    method.attach(model, total_steps=10, mask_source=lambda name, step: [0, 1, 0, 1] if name == "0" else None)
    method.begin_step()
    assert method.columns["0"].tolist() == [False, True, False, True]
    assert method.columns["1"].numel() == 3
    method.detach()
    method.attach(model, total_steps=10, mask_source=lambda name, step: [1])
    with pytest.raises(RequestError, match="1 columns for '0' at step 1; the layer has 4"):
        model(torch.randn(2, 4))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_compiled_models_mix_too(half):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    method = build_method({"name": "dps-mix", "update_ratio": 0.25})
    method.attach(model, total_steps=8, seed=3)
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(5, 4)

    def gradient(of):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = of(x)
        output.sum().backward()
        return output, model[0].weight.grad.clone()

    for _ in range(4):
        method.begin_step()
        torch.testing.assert_close(gradient(compiled), gradient(model))
        method.before_clip()
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.1 * p.grad)
        method.after_update()
