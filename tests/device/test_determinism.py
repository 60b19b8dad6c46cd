"""Deterministic kernels, as far as a CPU has operations that strict mode refuses."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from dpstune.device.determinism import ask_for_the_same_bits, fix_workspaces, kernels_for_the_same_bits, settle


class Counting(nn.Module):
    """A layer with a buffer that every forward pass changes."""

    def __init__(self, unsteady):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("calls", torch.zeros(()))
        self.unsteady = unsteady

    def forward(self, x):
        self.calls += 1
        y = self.weight * x
        # Of values put to one place the last one wins, whichever that is.
        return y.clone().put_(torch.tensor([0]), torch.tensor([1.0])) if self.unsteady else y


@pytest.fixture
def strict():
    ask_for_the_same_bits()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("unsteady", [False, True])
def test_strict_mode_stays_where_the_model_can_train_in_it_and_the_model_is_left_as_it_was(unsteady):
    model = Counting(unsteady)
    said = settle(model, lambda: model(torch.ones(3)).sum())
    assert said.partition(":")[0] == ("warn_only" if unsteady else "strict")
    assert torch.is_deterministic_algorithms_warn_only_enabled() == unsteady
    assert model.weight.grad is None
    assert model.calls == 0
    model(torch.ones(3)).sum().backward()


@pytest.mark.usefixtures("strict")
def test_another_error_of_the_model_is_its_own():
    model = Counting(False)
    with pytest.raises(RuntimeError, match="must match"):
        settle(model, lambda: model(torch.ones(2)).sum())
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("strict")
def test_new_tensors_are_not_filled():
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("how", ["strict", "warn_only: put_ has none", None])
def test_inside_a_block_kernels_are_those_of_a_run_and_outside_what_they_were(how):
    with kernels_for_the_same_bits(how):
        assert torch.are_deterministic_algorithms_enabled() == (how is not None)
        assert torch.is_deterministic_algorithms_warn_only_enabled() == (how == "warn_only: put_ has none")
        assert torch.utils.deterministic.fill_uninitialized_memory == (how is None)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_workspaces_are_fixed_before_the_device_is_looked_for(monkeypatch):
    code = """
import os
import accelerate
state = accelerate.PartialState
def look(*arguments, **settings):
    print(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    return state(*arguments, **settings)
accelerate.PartialState = look
from dpstune.device.hardware import device_type
device_type()
"""
    environment = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert child.stdout.strip() == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    fix_workspaces()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
