"""Attention and dropout on a CPU are torch's functions, from other operations."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from dpstune.device.cpu_kernels import CpuKernels, alike_again, attention, dropout
from tests.tiny import tiny_classifier

MANY = 200_000


@settings(max_examples=20, deadline=None)
@given(
    p=st.floats(0.001, 0.999),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0),
)
def test_dropout_drops_its_share_and_keeps_the_mean(p, dtype, seed):
    torch.manual_seed(seed % 2**63)
    ones = torch.ones(MANY, dtype=dtype)
    found = dropout(ones, p)
    dropped = 1 - found.count_nonzero().item() / MANY
    assert abs(dropped - p) < 6 * (p * (1 - p) / MANY) ** 0.5 + 2**-16
    values = found[found != 0].unique()
    assert found.dtype == dtype
    assert len(values) == 1
    # float16 ends at 65,504, and p is a multiple of 1 / 65,536.
    torch.testing.assert_close(values[0].double(), torch.tensor(1 / (1 - p)).double(), rtol=2e-2, atol=0)


def test_dropout_is_independent_of_place():
    torch.manual_seed(1)
    kept = dropout(torch.ones(1000, 1000), 0.5).ne(0).double()
    assert abs(float((kept[:, 1:] - 0.5).mul(kept[:, :-1] - 0.5).mean())) < 1e-3
    assert abs(float((kept[1:] - 0.5).mul(kept[:-1] - 0.5).mean())) < 1e-3


def test_the_gradient_goes_where_the_value_went():
    values = torch.randn(100, 100, requires_grad=True)
    found = dropout(values, 0.3)
    found.sum().backward()
    torch.testing.assert_close(values.grad * values.detach(), found.detach())


def test_bits_are_a_function_of_torchs_generator():
    def draw(seed):
        torch.manual_seed(seed)
        return [dropout(torch.ones(10_000), 0.1) for _ in range(2)]

    first, again, other = draw(1), draw(1), draw(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_what_is_computed_again_draws_the_same():
    values = torch.randn(100, 100, requires_grad=True)
    with CpuKernels():
        found = checkpoint(lambda x: F.dropout(x, 0.5) * x, values, use_reentrant=False, context_fn=alike_again)
    found.sum().backward()
    kept = (found != 0).float() * 2
    torch.testing.assert_close(values.grad, 2 * kept * values.detach())


@pytest.mark.parametrize("case", [{"training": False}, {"p": 0.0}, {"p": 1.0}, {"inplace": True}])
def test_what_it_does_not_replace_is_torchs(case):
    values = torch.ones(10_000)
    torch.manual_seed(0)
    expected = F.dropout(values.clone(), **{"p": 0.1, **case})
    torch.manual_seed(0)
    assert torch.equal(dropout(values.clone(), **{"p": 0.1, **case}), expected)


def masks(batch, length):
    seen = torch.arange(length) < torch.tensor([length, *range(2, batch + 1)])[:, None]
    padding = seen[:, None, None, :]
    return {
        "none": None,
        "padding": padding,
        "each query's": padding.expand(-1, 1, length, -1),
        "added": torch.zeros(padding.shape).masked_fill(~padding, torch.finfo(torch.float32).min),
    }


@pytest.mark.parametrize("mask", ["none", "padding", "each query's", "added"])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_as_accurate_as_torchs(mask, causal):
    if causal and mask != "none":
        pytest.skip("torch takes one of the two")
    torch.manual_seed(0)
    three = [(2 * torch.randn(4, 2, 19, 8)).bfloat16().requires_grad_() for _ in range(3)]
    weights = torch.randn(4, 2, 19, 8)
    given_mask = masks(4, 19)[mask]

    def of(function, dtype):
        inputs = [each.detach().to(dtype).requires_grad_() for each in three]
        own = given_mask.to(dtype) if mask == "added" else given_mask
        found = function(*inputs, own, is_causal=causal)
        (found * weights.to(dtype)).sum().backward()
        return [found.detach().double(), *(each.grad.double() for each in inputs)]

    exact = of(F.scaled_dot_product_attention, torch.float64)
    ours, torchs = of(attention, torch.bfloat16), of(F.scaled_dot_product_attention, torch.bfloat16)
    for mine, others, true in zip(ours, torchs, exact, strict=True):
        assert (mine - true).norm() < max(1.5 * (others - true).norm(), 4e-3 * true.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_weights(dtype):
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 64, 8, dtype=dtype), torch.randn(2, 3, 64, 8, dtype=dtype)
    each = torch.eye(64, dtype=dtype).expand(2, 3, 64, 64)  # so that the result is the weights themselves
    whole = F.scaled_dot_product_attention(query, key, each)
    found = attention(query, key, each, dropout_p=0.25)
    dropped = found == 0
    assert abs(dropped.double().mean() - 0.25) < 0.01
    torch.testing.assert_close(found[~dropped], whole[~dropped] / 0.75, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "bart", "modernbert"])
def test_a_model_trains_as_it_does_without(family):
    # Long enough that dropout would be replaced, which is 0 here: what is left is float error.
    config = {"attention_dropout": 0.0} if family in ("bart", "modernbert") else {"attention_probs_dropout_prob": 0.0}
    model = tiny_classifier(family, **config).train()
    for module in model.modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids = torch.randint(5, 40, (12, 30))
    ids[:, -1] = 3
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(12, dtype=torch.long)}
    batch["attention_mask"][3, 20:] = 0

    def gradients(kernels):
        model.zero_grad()
        with kernels, torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    plain, ours = gradients(nullcontext()), gradients(CpuKernels())
    assert (plain - ours).norm() < 0.05 * plain.norm()


def test_a_model_that_predicts_is_not_changed():
    model = tiny_classifier().eval()
    ids = torch.randint(5, 40, (12, 30))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = model(ids).logits
        with CpuKernels():
            assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16])
def test_a_query_that_sees_nothing_is_left_to_torch(dtype):
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 2, :] = False
    if dtype != torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -torch.inf)
    three = [torch.randn(1, 2, 5, 8).bfloat16().requires_grad_() for _ in range(3)]
    given_mask = mask if dtype == torch.bool else mask.bfloat16()
    assert torch.equal(
        attention(*three, attn_mask=given_mask), F.scaled_dot_product_attention(*three, attn_mask=given_mask)
    )


def test_long_attention_without_dropout_is_left_to_torch():
    three = [torch.randn(1, 1, 300, 8).bfloat16().requires_grad_() for _ in range(3)]
    assert torch.equal(attention(*three), F.scaled_dot_product_attention(*three))
