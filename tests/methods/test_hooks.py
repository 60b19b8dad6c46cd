"""What holds for every method: eval mode, state-dict keys, resume, accumulation, non-finite gradients, detach."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods import REGISTRY, method_class
from tests.methods.rounds import backward
from tests.tiny import tiny_classifier

STEPS = 12
NEED_AN_ENCODER = {"r3f", "reinit", "top-layers", "smart", "lora", "linear-probe"}
BEYOND_THE_PAPER = [
    {"name": name, "update_ratio": 0.25, **settings}
    for name in ("dps-dense", "dps-mix")
    for settings in (
        {"stage2": "prune"},
        {"stage2": "none"},
        {"score": "absolute"},
        {"score": "movement"},
        {"score": "random", "stage2": "prune"},
    )
]
SETTINGS = [
    {"name": name} | ({"update_ratio": 0.25} if name.startswith("dps") else {})
    for name in REGISTRY
    if name not in NEED_AN_ENCODER
] + BEYOND_THE_PAPER
BUFFERED = [
    settings for settings in SETTINGS if settings["name"].startswith(("dps", "mixout", "child-tuning-d", "ema"))
]


def called(settings):
    """A test's name for settings."""
    return "-".join([settings["name"], *(settings[key] for key in ("stage2", "score") if key in settings)])


OTHER_WEIGHTS_AT_THE_END = ("ema",)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


def examples(step, count=12):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)


def start(settings, **options):
    model = network()
    method = build_method(settings)
    method.attach(model, total_steps=STEPS, seed=7, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    return model, method, optimizer


class UsesAWeightAlone(nn.Module):
    """A network that uses the weight of its second layer without calling the layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.a(x) @ self.b.weight.t()


def take_step(model, method, optimizer, step, chunks=1, spoil=None):
    inputs, labels = examples(step)
    optimizer.zero_grad()
    cut = list(zip(inputs.chunk(chunks), labels.chunk(chunks), strict=True))
    backward(model, method, lambda: (F.cross_entropy(model(x), y) / chunks for x, y in cut))
    if spoil is not None:
        next(p.grad for p in model.parameters() if p.grad is not None).view(-1)[0] = spoil
    method.before_clip()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    if spoil is None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        method.before_update()
        optimizer.step()
    method.after_update()
    return gradients


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_eval_mode_sees_plain_weights_and_keys_do_not_change(settings):
    model, method, optimizer = start(settings)
    keys = list(model.state_dict())
    for step in range(1, STEPS + 1):
        take_step(model, method, optimizer, step)
        assert list(model.state_dict()) == keys
        twin = network()
        twin.load_state_dict(model.state_dict())
        x = examples(99)[0]
        assert torch.equal(model.eval()(x), twin.eval()(x))
        model.train()
    method.detach()
    if settings["name"] in OTHER_WEIGHTS_AT_THE_END:
        assert list(model.state_dict()) == keys
        twin.load_state_dict(model.state_dict())
    assert torch.equal(model(x), twin.train()(x))
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_a_method_that_resumes_at_any_step_goes_on_bit_for_bit(settings, tmp_path):
    model, method, optimizer = start(settings)
    for step in range(1, STEPS + 1):
        saved = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "method": method.state_dict(),
        }
        torch.save(saved, tmp_path / f"{step}.pt")
        take_step(model, method, optimizer, step)
    for stopped_before in range(1, STEPS + 1):
        resumed, resumed_method, resumed_optimizer = start(settings)
        saved = torch.load(tmp_path / f"{stopped_before}.pt", weights_only=True)
        resumed.load_state_dict(saved["model"])
        resumed_optimizer.load_state_dict(saved["optimizer"])
        resumed_method.load_state_dict(saved["method"])
        assert resumed_method.held_bytes() == method.held_bytes()
        for step in range(stopped_before, STEPS + 1):
            take_step(resumed, resumed_method, resumed_optimizer, step)
        for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_a_step_that_is_stopped_halfway_can_be_taken_again(settings):
    model, method, optimizer = start(settings)
    other, other_method, other_optimizer = start(settings)
    for step in range(1, STEPS + 1):
        F.cross_entropy(other(examples(step)[0]), examples(step)[1]).backward()
        state = copy.deepcopy((other.state_dict(), other_optimizer.state_dict(), other_method.state_dict()))
        other, other_method, other_optimizer = start(settings)
        other.load_state_dict(state[0])
        other_optimizer.load_state_dict(state[1])
        other_method.load_state_dict(state[2])
        take_step(model, method, optimizer, step)
        take_step(other, other_method, other_optimizer, step)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_accumulated_chunks_equal_one_batch(settings, chunks):
    whole, whole_method, whole_optimizer = start(settings)
    cut, cut_method, cut_optimizer = start(settings)
    for step in range(1, STEPS + 1):
        take_step(whole, whole_method, whole_optimizer, step)
        take_step(cut, cut_method, cut_optimizer, step, chunks=chunks)
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spoil", [float("inf"), float("nan")])
@pytest.mark.parametrize("settings", BUFFERED, ids=called)
def test_a_step_with_gradients_that_are_not_finite_changes_no_accumulator_and_counts(settings, spoil):
    model, method, optimizer = start(settings)
    take_step(model, method, optimizer, 1)
    before = copy.deepcopy(method.state_dict())
    take_step(model, method, optimizer, 2, spoil=spoil)
    after = method.state_dict()
    assert after["step"] == before["step"] + 1
    for key, buffers in before.items():
        if isinstance(buffers, dict):
            for name, buffer in buffers.items():
                assert torch.equal(buffer, after[key][name]), (key, name)


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_frozen_weights_are_left_alone(settings):
    model = network()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    method = build_method(settings)
    method.attach(model, total_steps=4)
    assert list(method.linears) == ["3"]
    backward(model, method, lambda: [model(examples(1)[0]).sum()])
    method.before_clip()
    assert model[0].weight.grad is None
    assert torch.equal(model[0].weight, frozen)


def test_dps_dense_masks_only_linear_weights_and_only_in_stage_two():
    model, method, optimizer = start({"name": "dps-dense", "p": 0.5, "update_ratio": 0.25})
    for step in range(1, STEPS + 1):
        gradients = take_step(model, method, optimizer, step)
        share = (gradients["0.weight"] == 0).float().mean().item()
        assert share == (0.0 if step in (1, 2, 3, 7, 8, 9) else 0.5)
        assert all((gradients[name] != 0).all() for name in ("0.bias", "1.weight", "1.bias", "3.bias"))


@pytest.mark.parametrize(
    ("settings", "bytes_a_weight"),
    [({"name": "vanilla"}, 0), ({"name": "dps-dense"}, 4), ({"name": "dps-mix"}, 8.2)],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_memory_beyond_vanilla(settings, bytes_a_weight):
    model = nn.Sequential(nn.Linear(384, 512), nn.Linear(512, 384))
    weights = sum(layer.weight.numel() for layer in model)
    method = build_method({**settings})
    method.attach(model, total_steps=4)
    for _ in range(4):
        model(torch.ones(2, 384)).sum().backward()
        method.before_clip()
        method.after_update()
        assert method.held_bytes() <= bytes_a_weight * weights
        tensors = [t for value in vars(method).values() if isinstance(value, dict) for t in value.values()]
        held = {t.data_ptr(): t.nbytes for t in tensors if isinstance(t, torch.Tensor)}
        assert sum(held.values()) == method.held_bytes()


@pytest.mark.parametrize(
    ("settings", "total", "dropout"),
    [("vanilla", 10, None), ("dps-dense", 1999, 0.0), ("dps-dense", 2000, None), ("dps-mix", 5000, 0.0)],
)
def test_dropout_rule(settings, total, dropout):
    assert build_method({"name": settings}).dropout(total) == dropout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "dps-dens"}, "did you mean 'dps-dense'"),
        ({}, "needs a name"),
        ("dps-dens", "did you mean 'dps-dense'"),
        (None, "needs a name, as in {'name': 'dps-mix'}"),
        ({"name": "dps-dense", "p": 1.0}, "p: should be less than 1"),
        ({"name": "dps-dense", "p": -0.1}, "p: should be greater than or equal to 0"),
        ({"name": "dps-mix", "update_ratio": 0}, "update_ratio: should be greater than 0"),
        ({"name": "dps-mix", "update_ratio": 1.5}, "update_ratio: should be less than or equal to 1"),
        ({"name": "dps-mix", "p": float("nan")}, "p: "),
        ({"name": "dps-mix", "update_ration": 0.5}, "did you mean 'update_ratio'"),
        ({"name": "vanilla", "p": 0.5}, "unknown key 'p'"),
    ],
)
def test_bad_settings_are_one_line(settings, words):
    with pytest.raises(RequestError) as caught:
        build_method(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_is_attached_once():
    model, method, _ = start({"name": "vanilla"})
    with pytest.raises(RequestError, match="attached"):
        method.attach(model, total_steps=3)
    method.detach()
    with pytest.raises(RequestError, match="at least 1 step"):
        method.attach(model, total_steps=0)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_method_documents_itself(name):
    cls = method_class(name)
    assert cls.config_class.model_fields["name"].default == name
    assert cls.__doc__
    assert cls.config_class.__doc__


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_models_of_another_precision_train(settings, dtype):
    model = network().to(dtype)
    method = build_method(settings)
    method.attach(model, total_steps=STEPS, seed=7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for step in range(1, STEPS + 1):
        inputs, labels = examples(step)
        optimizer.zero_grad()
        inputs = inputs.to(dtype)
        backward(model, method, lambda x=inputs, y=labels: [F.cross_entropy(model(x), y)])
        method.before_clip()
        method.before_update()
        optimizer.step()
        method.after_update()
    method.detach()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("settings", SETTINGS, ids=called)
def test_a_deep_copy_computes_with_its_own_weights(settings):
    model, method, optimizer = start(settings)
    take_step(model, method, optimizer, 1)
    twin = copy.deepcopy(model)
    x = examples(99)[0]
    expected = twin.eval()(x)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(twin(x), expected)


def test_two_methods_do_not_patch_one_model():
    model, _, _ = start({"name": "dps-mix"})
    with pytest.raises(RequestError, match="replaced already, by another method or library"):
        build_method({"name": "mixout"}).attach(model, total_steps=3)


def test_a_refused_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[2].forward = lambda x: x.new_zeros(len(x), 2)
    with pytest.raises(RequestError, match="replaced already"):
        build_method({"name": "mixout"}).attach(model, total_steps=3)
    assert model.train()(torch.ones(5, 3)).shape == (5, 2)
    assert "forward" not in vars(model[0])


def test_a_model_that_memory_does_not_suffice_for_is_left_as_it_was(monkeypatch):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    method = build_method({"name": "dps-mix"})
    monkeypatch.setattr("dpstune.methods.dps_mix.new_accumulator", lambda weight: bytearray(1 << 62))
    with pytest.raises(MemoryError):
        method.attach(model, total_steps=3)
    monkeypatch.undo()
    assert model.train()(torch.ones(5, 3)).shape == (5, 2)
    method.attach(model, total_steps=3)


@pytest.mark.parametrize("name", REGISTRY)
def test_detaching_what_is_not_attached_is_harmless(name):
    build_method({"name": name}).detach()


NORMS = (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm)


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.__module__)
@pytest.mark.parametrize("name", ["dps-dense", "dps-mix", "mixout"])
def test_a_weight_that_is_computed_is_refused(name, norm):
    """Its own gradient never comes: nothing could be selected, in silence."""
    model = nn.Sequential(nn.Linear(4, 4), norm(nn.Linear(4, 2)))
    method = build_method({"name": name})
    with pytest.raises(RequestError, match="the weight of layer 1 is computed from other"):
        method.attach(model, total_steps=STEPS)
    method.attach(nn.Sequential(nn.Linear(4, 4)), total_steps=STEPS)  # it holds nothing


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.__module__)
@pytest.mark.parametrize("name", ["vanilla", "sam", "ema", "child-tuning-f"])
def test_a_weight_that_is_computed_is_nothing_to_methods_that_do_not_select(name, norm):
    model = nn.Sequential(nn.Linear(4, 4), norm(nn.Linear(4, 2)))
    build_method({"name": name}).attach(model, total_steps=STEPS)


@pytest.mark.parametrize(("family", "kind"), [("gpt2", "Conv1D"), ("ibert", "QuantLinear"), ("squeezebert", "Conv1d")])
@pytest.mark.parametrize("name", ["dps-dense", "dps-mix", "mixout"])
def test_a_model_of_other_than_linear_layers_is_refused(name, family, kind):
    """The method would act on the head alone, in silence."""
    model = tiny_classifier(family, **({"embedding_size": 16} if family == "squeezebert" else {}))
    method = build_method({"name": name})
    with pytest.raises(RequestError, match=rf"^{name} works on nn.Linear layers, and most .* another kind \({kind}\)"):
        method.attach(model, total_steps=STEPS)


@pytest.mark.parametrize("name", ["dps-dense", "dps-mix", "mixout"])
def test_embeddings_and_frozen_weights_are_none_that_a_method_misses(name):
    """However large they are beside the linear layers that train."""
    model = nn.Sequential(nn.Embedding(500, 6), nn.RNN(6, 6), nn.Linear(6, 2))
    model[1].requires_grad_(False)
    build_method({"name": name}).attach(model, total_steps=STEPS)
