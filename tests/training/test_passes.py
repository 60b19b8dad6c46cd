"""Batches that are cut into passes of similar length train the same model, in less time and memory."""

import pytest
import torch
from safetensors.torch import load_file

from dpstune.data.passes import NEVER_CUT, PassCost
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from dpstune.training.forward import ForwardPasses
from tests.tiny import LEARNING, some

STILL = ["model.dropout=0", "training.epochs=1", "training.learning_rate=0.05", "training.adam_epsilon=0.1"]


def train(task, folder, method, *overrides):
    """Train with the tiny task and return the losses, the weights and the sizes of the batches the model saw."""
    sizes = []
    collate = ForwardPasses.batch

    def batch(passes, taken):
        sizes.append([len(taken.indices), taken.width])
        return collate(passes, taken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForwardPasses, "batch", batch)
        run = engine.train(load_recipe(str(task), method=method, overrides=[*STILL, *overrides]), output=folder)
    return load_file(run.folder / "model" / "model.safetensors"), sizes


def set_cost(monkeypatch, cost):
    monkeypatch.setattr("dpstune.training.forward.pass_cost", lambda *of: cost)


@pytest.mark.parametrize(  # the noise of r3f and smart is drawn a pass
    "method", some(["dps-mix", "child-tuning-d"], of=[name for name in LEARNING if name not in ("r3f", "smart")])
)
@pytest.mark.parametrize("few_shapes", [False, True])
def test_cut_batches_give_the_same_weights(tiny_task, tiny_model, tmp_path, monkeypatch, method, few_shapes):
    own = {"r-drop": ["method.dropout=0"], "reinit": ["method.layers=1"], "top-layers": ["method.layers=1"]}.get(
        method, []
    )
    whole, uncut = train(tiny_task, tmp_path / "whole", method, *own)
    set_cost(monkeypatch, PassCost(1, few_shapes=few_shapes))
    parted, cut = train(tiny_task, tmp_path / "parted", method, *own)
    if few_shapes:
        assert {width % 8 for _, width in cut} == {0}
    else:
        assert len(cut) > len(uncut)
        assert sum(size * width for size, width in cut) < sum(size * width for size, width in uncut)
    start = load_file(tiny_model / "model.safetensors")
    way = torch.cat([(whole[f"bert.{name}"] - tensor).flatten() for name, tensor in start.items()]).norm()
    apart = torch.cat([(parted[name] - tensor).flatten() for name, tensor in whole.items()]).norm()
    # Where scores tie but for float noise, another weight may be selected.
    assert apart < (2e-2 if method.startswith(("dps", "child-tuning-d")) else 1e-4) * way


@pytest.mark.parametrize("method", ["r3f", "r-drop", "smart"])
def test_what_passes_twice_is_cut_where_its_batches_are_large(tiny_task, tmp_path, monkeypatch, method):
    from dpstune.methods import method_class

    monkeypatch.setattr(method_class(method), "most_tokens", 40)
    _, sizes = train(tiny_task, tmp_path, method)
    assert max(size * longest for size, longest in sizes) <= 40


def test_on_another_device_nothing_is_cut(tiny_task, tmp_path, monkeypatch):
    set_cost(monkeypatch, NEVER_CUT)
    _, sizes = train(tiny_task, tmp_path, "vanilla")
    assert {size for size, _ in sizes} == {6}
