"""Parameter groups, layer-wise rates, AdamW, schedules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dpstune.errors import RequestError
from dpstune.models.structure import parameter_depths
from dpstune.settings.sections import TrainingSection

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def parameter_groups(model: nn.Module, training: TrainingSection) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups.

    Biases and normalisation weights (all parameters of one dimension) are not decayed. With ``layerwise_lr_decay`` d
    and n layers a parameter of depth k learns at learning_rate * d^(n + 2 - k); see ``parameter_depths``.

    Raises:
        RequestError: Layer-wise rates are asked for and the model has no stack of layers.

    >>> from torch import nn
    >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), TrainingSection())]
    [1, 1]
    """
    depths: dict[str, int] = {}
    head = 0
    if training.layerwise_lr_decay is not None:
        depths, head = parameter_depths(model)
    decay = training.layerwise_lr_decay or 1.0
    members: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = training.learning_rate * decay ** (head - depths.get(name, head))
            members[rate, training.weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decayed} for (rate, decayed), params in members.items()]


def build_optimizer(model: nn.Module, training: TrainingSection) -> torch.optim.AdamW:
    """Return fused AdamW over ``parameter_groups``; the model must be on its device."""
    import torch

    return torch.optim.AdamW(
        parameter_groups(model, training),
        lr=training.learning_rate,
        betas=training.adam_betas,
        eps=training.adam_epsilon,
        fused=True,
    )


def build_scheduler(
    optimizer: torch.optim.Optimizer, training: TrainingSection, *, total_steps: int, warmup_steps: int
) -> LRScheduler:
    """Return the schedule of every group's rate: linear warmup from 0, then linear or cosine to 0, or constant."""
    from transformers import get_scheduler

    schedule: LRScheduler = get_scheduler(
        _SCHEDULES[training.schedule], optimizer, num_warmup_steps=warmup_steps, num_training_steps=total_steps
    )
    return schedule


def plan_steps(training: TrainingSection, steps_per_epoch: int) -> tuple[int, int]:
    """Return the optimizer steps of a run, and how many of them are warmup.

    Warmup that is given as a share leaves the last step: a run whose only step is warmup learns nothing.

    Raises:
        RequestError: Warmup is longer than the run.

    >>> plan_steps(TrainingSection(epochs=3, warmup_ratio=0.1), steps_per_epoch=156)
    (468, 47)
    >>> plan_steps(TrainingSection(steps=1, warmup_ratio=0.1), steps_per_epoch=156)
    (1, 0)
    """
    total = training.steps if training.steps is not None else max(1, _round_up(training.epochs, steps_per_epoch))
    if training.warmup_steps is None:
        return total, min(_round_up(training.warmup_ratio, total), total - 1)
    if training.warmup_steps > total:
        raise RequestError(f"training.warmup_steps: {training.warmup_steps} is more than the run's {total} steps")
    return total, training.warmup_steps


def plan_evaluations(training: TrainingSection, total_steps: int, steps_per_epoch: int) -> tuple[int, int]:
    """Return the steps from one evaluation to the next, and how many evaluations there are: the last step has one.

    >>> plan_evaluations(TrainingSection(eval_every=100), total_steps=468, steps_per_epoch=156)
    (100, 5)
    """
    interval = training.eval_every or steps_per_epoch
    return interval, math.ceil(total_steps / interval)


def told_of_warmup(total_steps: int, warmup_steps: int) -> Iterator[str]:
    """Say that warmup takes the whole run, where it does.

    >>> list(told_of_warmup(8, 8))
    ['training.warmup_steps: all 8 steps are warmup, so the rate never reaches training.learning_rate']
    """
    if warmup_steps == total_steps:
        steps = "the only step is" if total_steps == 1 else f"all {total_steps} steps are"
        yield f"training.warmup_steps: {steps} warmup, so the rate never reaches training.learning_rate"


def _round_up(share: float | None, steps: int) -> int:
    """Return a share of some steps, rounded up; float error is removed first, or 1.1 of 10 would be 12."""
    assert share is not None  # the recipe's check makes sure of one of each pair
    return math.ceil(round(share * steps, 6))
