"""Parameter groups, rates and schedules against their formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpstune.errors import RequestError
from dpstune.models.structure import parameter_depths
from dpstune.settings.sections import TrainingSection
from dpstune.training.optim import build_optimizer, build_scheduler, parameter_groups, plan_steps
from tests.tiny import FAMILIES, tiny_classifier


def by_name(model, training):
    """Each parameter's group, by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in parameter_groups(model, training) for p in group["params"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_norms_are_not_decayed_and_nothing_is_left_out(family):
    model = tiny_classifier(family)
    groups = by_name(model, TrainingSection(weight_decay=0.01))
    assert set(groups) == {name for name, _ in model.named_parameters()}
    for name, group in groups.items():
        exempt = name.endswith("bias") or "norm" in name.lower()
        assert group["weight_decay"] == (0.0 if exempt else 0.01), name


@pytest.mark.parametrize("family", FAMILIES)
def test_layerwise_rates_follow_the_formula(family):
    """rate = learning_rate * decay^(n + 2 - depth) (Clark et al. 2020)."""
    model = tiny_classifier(family)
    depths, head = parameter_depths(model)
    groups = by_name(model, TrainingSection(learning_rate=1e-3, layerwise_lr_decay=0.9))
    for name, group in groups.items():
        assert group["lr"] == pytest.approx(1e-3 * 0.9 ** (head - depths[name])), name
    assert max(group["lr"] for group in groups.values()) == 1e-3


def test_frozen_parameters_are_left_out():
    model = tiny_classifier()
    model.bert.embeddings.requires_grad_(False)
    assert not any("embeddings" in name for name in by_name(model, TrainingSection()))


def rates(training, total, warmup):
    optimizer = build_optimizer(torch.nn.Linear(2, 2), training)
    scheduler = build_scheduler(optimizer, training, total_steps=total, warmup_steps=warmup)
    seen = []
    for _ in range(total):
        seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("schedule", "after_warmup"),
    [
        ("linear", lambda share: 1 - share),
        ("cosine", lambda share: 0.5 * (1 + math.cos(math.pi * share))),
        ("constant", lambda share: 1.0),
    ],
)
def test_schedules_rise_from_zero_and_follow_their_name(schedule, after_warmup):
    seen = rates(TrainingSection(schedule=schedule, learning_rate=2.0), total=20, warmup=5)
    assert seen[:5] == pytest.approx([0.0, 0.4, 0.8, 1.2, 1.6])
    assert seen[5:] == pytest.approx([2.0 * after_warmup((step - 5) / 15) for step in range(5, 20)])


@given(steps=st.integers(1, 5000), ratio=st.floats(0, 1, exclude_max=True))
def test_warmup_ratio_is_a_share_of_all_steps(steps, ratio):
    total, warmup = plan_steps(TrainingSection(steps=steps, warmup_ratio=ratio), steps_per_epoch=7)
    assert total == steps
    assert warmup < steps
    assert warmup == steps - 1 or -1e-6 <= warmup - steps * ratio <= 1


@pytest.mark.parametrize(("epochs", "steps"), [(1.1, 11), (0.7, 7), (2.3, 23), (0.01, 1), (1e-9, 1), (1.11, 12)])
def test_part_of_an_epoch_is_rounded_up_as_it_is_written(epochs, steps):
    assert plan_steps(TrainingSection(epochs=epochs), steps_per_epoch=10)[0] == steps


def test_epochs_and_steps():
    assert plan_steps(TrainingSection(epochs=3), steps_per_epoch=156) == (468, 47)
    assert plan_steps(TrainingSection(epochs=0.5, warmup_steps=0), steps_per_epoch=5) == (3, 0)
    assert plan_steps(TrainingSection(steps=2036, warmup_steps=122), steps_per_epoch=156) == (2036, 122)


def test_a_run_of_one_step_has_the_whole_rate():
    model, training = tiny_classifier(), TrainingSection(steps=1, learning_rate=0.5)
    total, warmup = plan_steps(training, steps_per_epoch=5)
    scheduler = build_scheduler(build_optimizer(model, training), training, total_steps=total, warmup_steps=warmup)
    assert set(scheduler.get_last_lr()) == {0.5}


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(RequestError, match=r"training.warmup_steps: 30 is more than the run's 20 steps"):
        plan_steps(TrainingSection(steps=20, warmup_steps=30), steps_per_epoch=5)
