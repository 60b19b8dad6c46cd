"""Replay a recorded trajectory through a method's hooks, as a user's own training loop would call them."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dpstune import build_method

DATA = Path(__file__).parent.parent / "data"


def load_trajectory(name):
    return json.loads((DATA / f"{name}.json").read_text())


def build_network(initial):
    shapes = {key: torch.tensor(value) for key, value in initial.items()}
    hidden, inputs = shapes["0.weight"].shape
    network = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, len(initial["2.bias"])))
    network.load_state_dict(shapes)
    return network


def method_settings(trajectory):
    settings = {"name": trajectory["method"], "p": trajectory["p"]}
    if trajectory["update_ratio"] is not None:
        settings["update_ratio"] = trajectory["update_ratio"]
    return settings


def recorded_masks(trajectory):
    return lambda name, step: trajectory["steps"][step - 1]["column_masks"][name]


def replay(trajectory):
    """Yield (recorded step, loss, gradients, parameters, method) after every optimizer step."""
    network = build_network(trajectory["initial"])
    method = build_method(method_settings(trajectory))
    method.attach(network, total_steps=trajectory["total_steps"], mask_source=recorded_masks(trajectory))
    settings = trajectory["optimizer"]
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )
    for recorded, inputs, labels in zip(trajectory["steps"], trajectory["inputs"], trajectory["labels"], strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(torch.tensor(inputs)), torch.tensor(labels))
        loss.backward()
        method.before_clip()
        gradients = {name: network.get_parameter(f"{name}.weight").grad.clone() for name in ("0", "2")}
        method.before_update()
        optimizer.step()
        method.after_update()
        yield recorded, loss.item(), gradients, dict(network.named_parameters()), method
