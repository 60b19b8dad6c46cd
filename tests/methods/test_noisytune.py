"""NoisyTune against its formula: the noise of each parameter, what is left alone, and that it is added once."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpstune import build_method
from dpstune.common.interruption import Interrupted
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from dpstune.training.loop import Loop
from tests.tiny import FAMILIES, tiny_classifier

HEADS = ("classifier.", "classification_head.")


def shaken(model, seed=3, **method_settings):
    """Return the model's weights before and after, by name."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    build_method({"name": "noisytune", **method_settings}).attach(model, total_steps=10, seed=seed)
    return before, {name: parameter.detach() for name, parameter in model.named_parameters()}


def spread(model, seed=0):
    """Give every parameter values of its own, also the constant ones of a new model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.normal_(0.3, 0.1 + 0.02 * number, generator=generator)
    return model


def is_head(family, name):
    return name.startswith((*HEADS, *(["pooler."] if family == "deberta" else [])))


@pytest.mark.parametrize("width", [0.05, 0.15, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_uniform_within_half_of_lambda_standard_deviations(family, width):
    before, after = shaken(spread(tiny_classifier(family, hidden_size=32, d_model=32)), **{"lambda": width})
    drawn = []
    for name, weight in before.items():
        if is_head(family, name):
            assert torch.equal(after[name], weight), name
            continue
        noise = (after[name] - weight) / (width * weight.std())
        assert noise.abs().max() <= 0.5 + 1e-4, name
        drawn.append(noise.flatten())
    every = torch.cat(drawn).sort().values
    # A uniform distribution's quantiles; each is met to a few standard errors.
    expected = torch.linspace(-0.5, 0.5, len(every))
    assert (every - expected).abs().max() < 4 * 0.5 / len(every) ** 0.5
    assert torch.corrcoef(torch.stack([torch.cat(drawn)[:-1], torch.cat(drawn)[1:]]))[0, 1].abs() < 0.03


def test_each_parameter_has_noise_of_its_own():
    model = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5), "head": nn.Linear(5, 5)})
    model["b"].load_state_dict(model["a"].state_dict())
    before, after = shaken(model)
    assert not torch.equal(after["a.weight"], after["b.weight"])
    assert torch.equal(after["head.weight"], before["head.weight"])


@settings(max_examples=25)
@given(scale=st.floats(0.01, 100.0), seed=st.integers(0, 1000))
def test_weights_that_are_scaled_get_scaled_noise(scale, seed):
    """A std is in the weight's own unit, so the result is, too."""
    one = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)).double()
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[0].weight.mul_(scale)
    _, first = shaken(one, seed)
    _, second = shaken(other, seed)
    torch.testing.assert_close(second["0.weight"], scale * first["0.weight"], rtol=1e-9, atol=1e-12)


def test_the_seed_alone_decides_and_no_generator_moves():
    state = torch.get_rng_state()
    (_, one), (_, same), (_, other) = (shaken(tiny_classifier(), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["bert.pooler.dense.weight"], other["bert.pooler.dense.weight"])


def test_what_has_no_standard_deviation_or_none_but_0_is_left_alone():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([2.0]))
            self.number = nn.Parameter(torch.tensor(3.0))
            self.constant = nn.Parameter(torch.ones(4))
            self.pair = nn.Parameter(torch.tensor([1.0, 2.0]))
            self.head = nn.Linear(2, 2)

    before, after = shaken(Model())
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"pair"}
    assert all(weight.isfinite().all() for weight in after.values())


def test_half_precision_weights_get_their_noise_from_float32():
    model = spread(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2)))
    half = copy.deepcopy(model).bfloat16()
    exact = copy.deepcopy(half).float()
    _, after = shaken(half)
    _, expected = shaken(exact)
    assert torch.equal(after["0.weight"], expected["0.weight"].bfloat16())


def test_lambda_0_changes_nothing():
    before, after = shaken(tiny_classifier(), **{"lambda": 0.0})
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_continued_run_is_not_shaken_twice(tiny_task, tmp_path, monkeypatch):
    """At a rate of 0 the weights at the end are those before step 1."""
    asked = ["training.learning_rate=1e-30", "training.save_every=2", "training.steps=6", "training.warmup_steps=0"]
    loaded = load_recipe(str(tiny_task), method="noisytune", overrides=asked)
    start = []
    take = Loop.optimizer_step

    def take_and_stop(loop, step):
        start.append({name: tensor.clone() for name, tensor in loop.model.state_dict().items()})
        take(loop, step)
        if step == 3:
            loop.watch.received = 2

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "optimizer_step", take_and_stop)
        with pytest.raises(Interrupted):
            engine.train(loaded, output=tmp_path)
        engine.train(loaded, output=tmp_path)
    assert len(start) == 6
    for name, tensor in start[0].items():
        torch.testing.assert_close(start[-1][name], tensor, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"lambda": -0.1}, "lambda: should be greater than or equal to 0"),
        ({"lambda": float("nan")}, "lambda: "),
        ({"lamda": 0.1}, "did you mean 'lambda'"),
    ],
)
def test_bad_settings_are_one_line(own, words):
    with pytest.raises(RequestError) as caught:
        build_method({"name": "noisytune", **own})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
