"""DPS beyond the paper: what Stage II does, what is selected from, and by which score; each beside its formula."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods.subnetwork import draw_selections
from dpstune.models.loading import set_dropout
from dpstune.models.structure import encoder_linears
from tests.methods.test_hooks import UsesAWeightAlone, examples, take_step
from tests.tiny import tiny_classifier

P, STAGE, STEPS = 0.4, 4, 16  # two cycles
LAYERS = ("0", "2")
RATE = 0.1


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def stage(step):
    return 1 if math.ceil(step / STAGE) % 2 else 2


def opens(step):
    return (step - 1) % STAGE == 0


def masks(step):
    """Column masks for DPS Mix, the same for both sides of a comparison."""
    generator = torch.Generator().manual_seed(1000 + step)
    return {name: (torch.rand(width, generator=generator) > P).double() for name, width in (("0", 6), ("2", 8))}


def settings_of(method, **more):
    return {"name": method, "p": P, "update_ratio": STAGE / STEPS, **more}


def train(settings, seed=7):
    """Train with plain gradient descent; return the weights after each step, and what each step's gradients were."""
    model = network()
    method = build_method(settings)
    method.attach(model, total_steps=STEPS, seed=seed, mask_source=lambda name, step: masks(step)[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    steps, gradients = [], []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        inputs, labels = examples(step)
        F.cross_entropy(model(inputs.double()), labels).backward()
        method.before_clip()
        gradients.append({name: model.get_parameter(f"{name}.weight").grad.clone() for name in LAYERS})
        method.before_update()
        optimizer.step()
        method.after_update()
        steps.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
    method.detach()
    return steps, gradients


def selected_by_hand(score):
    k = math.ceil(score.numel() * (1 - P))
    return (score >= score.flatten().sort(descending=True).values[k - 1]).double()


def part_of_score(kind, gradient, weight):
    return {"squared": gradient**2, "absolute": gradient.abs(), "movement": -gradient * weight}[kind]


def by_hand(method, score="squared", stage2="select", drawn=None):
    """Train as ``train`` does, without dpstune: the formulas of dps-dense and dps-mix, written out.

    Args:
        method: ``dps-dense`` or ``dps-mix``.
        score: ``squared``, ``absolute`` or ``movement``.
        stage2: ``select`` or ``prune``.
        drawn: The selections of each opening step, by layer, in the place of scores.
    """
    weights = {name: weight.detach().clone() for name, weight in network().named_parameters()}
    pretrained = {name: weights[f"{name}.weight"].clone() for name in LAYERS}
    scores, counts, selected, target = {}, {}, {}, {}
    steps, gradients = [], []
    for step in range(1, STEPS + 1):
        columns, first = masks(step), opens(step)
        if stage(step) == 1 and first:
            scores = {name: torch.zeros_like(pretrained[name]) for name in LAYERS}
            counts = {name: torch.zeros(pretrained[name].shape[1], dtype=torch.double) for name in LAYERS}
        if stage(step) == 2 and first:
            for name in LAYERS:
                frequency = counts[name].clamp(min=1) if method == "dps-mix" else 1.0
                selected[name] = selected_by_hand(scores[name] / frequency) if drawn is None else drawn[step][name]
                target[name] = weights[f"{name}.weight"].clone() * (0.0 if stage2 == "prune" else 1.0)
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        used, factor = {}, {}
        for name in LAYERS:
            weight = leaves[f"{name}.weight"]
            factor[name] = torch.ones_like(weight)
            used[name] = weight
            if method == "dps-mix":
                mask = columns[name].expand_as(weight) if stage(step) == 1 else selected[name]
                to = pretrained[name] if stage(step) == 1 else target[name]
                used[name] = ((1 - mask) * to + mask * weight - P * to) / (1 - P)
                factor[name] = mask
            elif stage(step) == 2:
                factor[name] = selected[name]
                if stage2 == "prune":
                    used[name] = weight * selected[name]
        inputs, labels = examples(step)
        for each in used.values():
            each.retain_grad()
        hidden = torch.tanh(F.linear(inputs.double(), used["0"], leaves["0.bias"]))
        F.cross_entropy(F.linear(hidden, used["2"], leaves["2.bias"]), labels).backward()
        masked = {name: used[name].grad * factor[name] for name in LAYERS}
        gradients.append(masked)
        for name in LAYERS:
            if stage(step) == 1:
                scores[name] += part_of_score(score, masked[name], weights[f"{name}.weight"])
                counts[name] += columns[name]
        for key in weights:
            layer, _, kind = key.partition(".")
            weights[key] = weights[key] - RATE * (masked[layer] if kind == "weight" else leaves[key].grad)
        steps.append(dict(weights))
    return steps, gradients


def assert_alike(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stage2", ["select", "prune"])
@pytest.mark.parametrize("score", ["squared", "absolute", "movement"])
@pytest.mark.parametrize("method", ["dps-dense", "dps-mix"])
def test_each_step_is_that_of_the_formula(method, score, stage2):
    steps, gradients = train(settings_of(method, score=score, stage2=stage2))
    expected_steps, expected_gradients = by_hand(method, score, stage2)
    assert_alike(steps, expected_steps)
    assert_alike(gradients, expected_gradients)


@pytest.mark.parametrize("stage2", ["select", "prune"])
@pytest.mark.parametrize("method", ["dps-dense", "dps-mix"])
def test_a_drawn_selection_takes_the_place_of_the_scores(method, stage2):
    shapes = [network().get_parameter(f"{name}.weight") for name in LAYERS]
    drawn = {
        step: dict(zip(LAYERS, (mask.double() for mask in draw_selections(shapes, P, seed=7, step=step)), strict=True))
        for step in range(1, STEPS + 1)
    }
    steps, gradients = train(settings_of(method, score="random", stage2=stage2))
    expected_steps, expected_gradients = by_hand(method, stage2=stage2, drawn=drawn)
    assert_alike(steps, expected_steps)
    assert_alike(gradients, expected_gradients)


def test_the_settings_differ_from_each_other():
    ends = {}
    for method in ("dps-dense", "dps-mix"):
        for score in ("squared", "absolute", "movement", "random"):
            for stage2 in ("select", "prune", "none"):
                ends[method, score, stage2] = train(settings_of(method, score=score, stage2=stage2))[0][-1]["0.weight"]
    distinct = {weight.numpy().tobytes() for weight in ends.values()}
    assert len(distinct) == 2 * (4 * 2 + 1), "without a Stage II the score is nothing to the run"


@pytest.mark.parametrize(("method", "other"), [("dps-dense", {"name": "vanilla"}), ("dps-mix", {"name": "mixout"})])
def test_without_stage_two_a_run_is_another_methods_to_the_bit(method, other):
    steps, _ = train(settings_of(method, stage2="none"))
    expected, _ = train({**other, "p": P} if method == "dps-mix" else other)
    for ours, theirs in zip(steps, expected, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("method", "bytes_a_column"), [("dps-dense", 0), ("dps-mix", 64 * 4 + 5)])  # W0 and masks
def test_without_stage_two_nothing_is_kept_for_it(method, bytes_a_column):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    chosen = build_method({"name": method, "stage2": "none"})
    chosen.attach(model, total_steps=9)
    assert chosen.held_bytes() == bytes_a_column * 2 * 64


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.999])
def test_a_drawn_selection_has_exactly_its_share_and_depends_on_seed_and_step_alone(p):
    weights = [torch.zeros(shape) for shape in ((7, 11), (1, 1), (32, 16))]

    def drawn(seed, step):
        return list(draw_selections(weights, p, seed=seed, step=step))

    for weight, mask in zip(weights, drawn(1, 4), strict=True):
        assert (mask.shape, mask.dtype) == (weight.shape, torch.bool)
        assert mask.sum() == math.ceil(weight.numel() * (1 - p))
    assert all(map(torch.equal, drawn(1, 4), drawn(1, 4)))
    if 0 < p < 0.9:
        assert not all(map(torch.equal, drawn(1, 4), drawn(1, 5)))
        assert not all(map(torch.equal, drawn(1, 4), drawn(2, 4)))


def test_a_drawn_selection_takes_every_weight_equally_often():
    weight = [torch.zeros(6, 5)]
    often = sum(next(draw_selections(weight, 0.3, seed=seed, step=1)).float() for seed in range(2000)) / 2000
    assert often.min() > 0.65
    assert often.max() < 0.75


def test_equal_numbers_are_told_apart_by_their_place():
    from dpstune.methods.subnetwork import _largest

    assert _largest(np.zeros(9, dtype=np.uint64), 4).sum() == 4


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_pruned_weights_count_as_zero_in_train_mode_alone(half, compiled):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    method = build_method(settings_of("dps-dense", stage2="prune"))
    method.attach(model, total_steps=STEPS, seed=7)
    wrapped = torch.compile(model, backend="eager") if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for step in range(1, STEPS + 1):
        method.begin_step()
        x, labels = examples(step)
        plain = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = wrapped(x)
            pruned = dict(plain)
            if stage(step) == 2:
                pruned |= {f"{name}.weight": plain[f"{name}.weight"] * method.gam[name] for name in LAYERS}
                assert (method.gam["0"] == 0).sum() == math.floor(48 * P)
            expected = torch.func.functional_call(network().float(), pruned, (x,))
            assert torch.equal(output, expected)
            assert torch.equal(model.eval()(x), torch.func.functional_call(network().float(), plain, (x,)))
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(output.float(), labels).backward()
        method.before_clip()
        if stage(step) == 2:
            assert all((model.get_parameter(f"{n}.weight").grad[method.gam[n] == 0] == 0).all() for n in LAYERS)
        assert all(torch.equal(weight, plain[name]) for name, weight in model.named_parameters())
        optimizer.step()
        method.after_update()


@pytest.mark.parametrize("method", ["dps-dense", "dps-mix"])
def test_a_model_that_is_detached_while_it_is_pruned_is_whole(method):
    model = network().float()
    chosen = build_method(settings_of(method, stage2="prune"))
    chosen.attach(model, total_steps=STEPS, seed=7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for step in range(1, STAGE + 2):
        take_step(model, chosen, optimizer, step)
    x = examples(99)[0]
    whole = model.eval()(x)
    pruned = model.train()(x)
    chosen.detach()
    assert not torch.equal(pruned, whole)
    assert torch.equal(model(x), whole)
    assert not any("forward" in vars(layer) for layer in model)


def test_a_weight_that_is_used_without_its_layer_cannot_be_pruned():
    model = UsesAWeightAlone()
    method = build_method(settings_of("dps-dense", stage2="prune"))
    method.attach(model, total_steps=STEPS)
    model(torch.randn(2, 4)).sum().backward()
    with pytest.raises(RequestError, match="dps-dense cannot prune 'b'"):
        method.before_clip()
    method.detach()
    model.a.forward = lambda x: x
    with pytest.raises(RequestError, match="forward is replaced already"):
        method.attach(model, total_steps=STEPS)


@pytest.mark.parametrize("family", ["bert", "electra", "bart", "deberta", "albert"])
@pytest.mark.parametrize(
    "settings", [{}, {"stage2": "prune"}, {"score": "random"}], ids=lambda s: "-".join(s.values()) or "paper"
)
@pytest.mark.parametrize("method", ["dps-dense", "dps-mix"])
def test_outside_the_encoder_all_trains_as_usual(method, settings, family):
    model = tiny_classifier(family)
    set_dropout(model, 0.0)
    chosen = build_method(settings_of(method, scope="encoder", **settings))
    chosen.attach(model, total_steps=STEPS, seed=7)
    inside = set(encoder_linears(model))
    assert inside
    ids = torch.randint(5, 30, (4, 7))
    ids[:, -1] = 3  # BART looks for it
    batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 0, 1])}
    seen = set()
    for step in range(1, 2 * STAGE + 1):
        model.zero_grad()
        chosen.loss(model.train(), batch).backward()
        chosen.before_clip()
        chosen.after_update()
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and layer.weight.grad is not None and (layer.weight.grad == 0).any():
                seen.add((name, stage(step)))
    assert {name for name, _ in seen} <= inside
    assert {name for name, number in seen if number == 2}
    patched = {name for name, layer in model.named_modules() if "forward" in vars(layer)}
    assert patched == (inside if method == "dps-mix" or settings.get("stage2") == "prune" else set())
    assert set(chosen.linears) <= inside


@pytest.mark.parametrize("method", ["dps-dense", "dps-mix"])
def test_a_network_without_layers_has_no_encoder_to_select_from(method):
    with pytest.raises(
        RequestError, match=r"^method.scope encoder: Sequential has no stack of layers .*; take scope all$"
    ):
        build_method({"name": method, "scope": "encoder"}).attach(network(), total_steps=STEPS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stage2": "freeze"}, "stage2: should be 'select', 'prune' or 'none', not 'freeze'"),
        ({"stage2": None}, "stage2: should be 'select', 'prune' or 'none', not null"),
        ({"scope": "head"}, "scope: should be 'all' or 'encoder', not 'head'"),
        ({"score": "l1"}, "score: should be 'squared', 'absolute', 'movement' or 'random', not 'l1'"),
    ],
)
@pytest.mark.parametrize("method", ["dps-dense", "dps-mix"])
def test_other_values_are_refused_in_one_line(method, settings, words):
    with pytest.raises(RequestError) as caught:
        build_method({"name": method, **settings})
    assert words in str(caught.value)
