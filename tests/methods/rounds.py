"""Several rounds of gradients in a step: a loop of one's own that takes them, and a method that only notes them."""

import sys
import types
from typing import Literal

import torch

from dpstune.methods import REGISTRY
from dpstune.methods.base import Method, MethodConfig


def backward(model, method, losses):
    """Compute a step's gradients in every round of a method.

    Args:
        model: The attached model.
        method: The method.
        losses: Gives, each time it is called, the loss of every micro-batch of the step.
    """
    for number in range(method.rounds):
        if number:
            method.after_round(number)
            model.zero_grad()
        for loss in losses():
            loss.backward()


class AgainConfig(MethodConfig):
    """Settings of the method below."""

    name: Literal["again"] = "again"
    share: bool = True


class Again(Method[AgainConfig]):
    """Plain fine-tuning that computes all gradients three times, uses the last ones, and notes what it sees.

    Attributes:
        passes: For each round so far, the token ids and the loss of every forward pass.
        gradients: For each round so far, the gradients by name.
        newest: The method that was attached last.
    """

    config_class = AgainConfig
    newest = None

    def __init__(self, config):
        super().__init__(config)
        self.rounds_share_dropout = config.share

    def acquire(self, model):
        Again.newest = self
        self.passes, self.gradients = [[]], []
        self._hook = model.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, model, inputs, named, output):
        if model.training:
            self.passes[-1].append((named["input_ids"].tolist(), output.loss.item()))

    @property
    def rounds(self):
        return 3

    def after_round(self, number):
        assert number == 1 + (len(self.passes) - 1) % 3
        self._end_round()

    def before_clip(self):
        self._end_round()

    def _end_round(self):
        self.gradients.append({n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None})
        self.passes.append([])

    def release(self):
        self._hook.remove()


def register(monkeypatch):
    """Add the method above to the registry for the time of a test."""
    module = types.ModuleType("dpstune.methods.again")
    module.Again = Again
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(REGISTRY, "again", "again:Again")


def check_first_step(method):
    """Check what each round of the first step saw: the same micro-batches, with dropout as the method declares it."""
    first, *further = method.passes[:3]
    assert len(first) > 1, "several micro-batches"
    for ids in ([[ids for ids, _ in each] for each in (first, other)] for other in further):
        assert ids[0] == ids[1]
    losses = {tuple(loss for _, loss in each) for each in (first, *further)}
    gradients = method.gradients[:3]
    same = [all(torch.equal(gradients[0][name], other[name]) for name in other) for other in gradients[1:]]
    if method.config.share:
        assert len(losses) == 1
        assert all(same)
    else:
        assert len(losses) == 3
        assert not any(same)
