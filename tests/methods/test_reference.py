"""The methods replay trajectories recorded from the authors' own code."""

import pytest
import torch

from dpstune.methods.subnetwork import octets, unpack_bytes
from tests.methods.replay import load_trajectory, replay

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


@pytest.mark.parametrize("name", ["dps-dense", "dps-mix", "dps-mix-long", "mixout"])
def test_every_loss_gradient_mask_and_parameter_is_reproduced(name):
    steps = 0
    for recorded, loss, gradients, parameters, method in replay(load_trajectory(name)):
        assert loss == pytest.approx(recorded["loss"], rel=0, abs=1e-5)
        for layer, expected in recorded["gradients"].items():
            torch.testing.assert_close(gradients[layer], torch.tensor(expected), **TOLERANCE)
        for key, expected in recorded["parameters"].items():
            torch.testing.assert_close(parameters[key].detach(), torch.tensor(expected), **TOLERANCE)
        for layer, expected in recorded.get("selected", {}).items():
            assert selection(method, layer).tolist() == torch.tensor(expected).bool().tolist()
        steps += 1
    assert steps == len(load_trajectory(name)["steps"])


def selection(method, layer):
    if method.config.name == "dps-dense":
        return method.gam[layer].bool()
    weight, packed = method.linears[layer].weight, method.selected[layer]
    return unpack_bytes(packed, octets(packed.device))[: weight.numel()].view(weight.shape)


def test_the_recordings_hold_both_stages():
    for name in ("dps-dense", "dps-mix", "dps-mix-long"):
        trajectory = load_trajectory(name)
        assert {step["stage"] for step in trajectory["steps"]} == {"I", "II"}
        assert any("selected" in step for step in trajectory["steps"])
