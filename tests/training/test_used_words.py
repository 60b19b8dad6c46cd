"""A run that trains only the used words gives the model, the checkpoints and the scores that it gave before."""

import json

import pytest
import torch
from safetensors.torch import load_file

from dpstune.common.interruption import Interrupted
from dpstune.errors import RequestError
from dpstune.models.vocabulary import AllWords
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from dpstune.training.loop import Loop
from tests.tiny import save_tiny_model
from tests.training.stopping import stop_within_an_evaluation

SETTINGS = ["training.learning_rate=0.01", "training.weight_decay=0.1", "training.precision=fp32"]


@pytest.fixture(scope="module")
def own_task(tiny_task, tmp_path_factory):
    """The tiny task with a model whose vocabulary is much larger than what the task uses."""
    folder = tmp_path_factory.mktemp("words")
    save_tiny_model(folder / "model", vocab_size=900)
    return tiny_task, [*SETTINGS, f"model.name={folder / 'model'}"]


def train(own_task, output, *more):
    task, settings = own_task
    run = engine.train(load_recipe(str(task), method="dps-dense", overrides=[*settings, *more]), output=output)
    return run, load_file(run.folder / "model" / "model.safetensors")


def numbers(run):
    result = json.loads((run.folder / "result.json").read_text())
    return [result[key] for key in ("kept", "last", "best", "value")]


def stop_after(monkeypatch, step):
    take = Loop.optimizer_step

    def take_and_stop(loop, number):
        take(loop, number)
        if number == step:
            loop.watch.received = 15

    monkeypatch.setattr(Loop, "optimizer_step", take_and_stop)


def test_the_run_is_that_of_all_words(own_task, tmp_path, monkeypatch):
    narrowed, mine = train(own_task, tmp_path / "narrowed")
    monkeypatch.setattr(Loop, "_narrow_words", lambda loop: AllWords())
    whole, others = train(own_task, tmp_path / "whole")
    assert mine.keys() == others.keys()
    for name, tensor in others.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-3, atol=1e-5)
    assert numbers(narrowed) == numbers(whole)


@pytest.mark.parametrize("more", [[], ["training.keep=best", "training.eval_every=2"]])
def test_a_run_that_was_stopped_ends_with_the_same_bits(own_task, tmp_path, monkeypatch, more):
    straight, expected = train(own_task, tmp_path / "straight", *more)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(own_task, tmp_path / "stopped", *more)
    continued, found = train(own_task, tmp_path / "stopped", *more)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert numbers(continued) == numbers(straight)


def test_a_later_version_trains_the_words_that_the_run_began_with(own_task, tmp_path, monkeypatch):
    _, expected = train(own_task, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(own_task, tmp_path / "stopped")
    monkeypatch.setattr("dpstune.models.vocabulary.special_ids", lambda config: set())
    _, found = train(own_task, tmp_path / "stopped")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    monkeypatch.setattr("dpstune.models.vocabulary.special_ids", lambda config: {899})
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(own_task, tmp_path / "begun")
    checkpoints = next((tmp_path / "begun").rglob("step-*"))
    monkeypatch.setattr("dpstune.models.vocabulary.special_ids", lambda config: {898})
    with pytest.raises(RequestError, match="token id 898"):
        train(own_task, tmp_path / "begun")
    assert checkpoints.exists()


def test_a_checkpoint_from_before_goes_on_with_all_words(own_task, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_narrow_words", lambda loop: AllWords())
        straight, expected = train(own_task, tmp_path / "straight")
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(own_task, tmp_path / "stopped")
    continued, found = train(own_task, tmp_path / "stopped")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert numbers(continued) == numbers(straight)


def test_a_run_that_was_stopped_within_an_evaluation_ends_with_the_same_bits(own_task, tmp_path, monkeypatch):
    straight, expected = train(own_task, tmp_path / "straight", "training.eval_every=2")
    with monkeypatch.context() as patch:
        stop_within_an_evaluation(patch, after_step=4)
        with pytest.raises(Interrupted):
            train(own_task, tmp_path / "stopped", "training.eval_every=2")
    continued, found = train(own_task, tmp_path / "stopped", "training.eval_every=2")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert numbers(continued) == numbers(straight)


def test_activations_that_are_computed_again_change_nothing(own_task, tmp_path):
    wide = ["model.dropout=0.3", "training.batch_size=32", "training.eval_batch_size=32"]
    _, kept = train(own_task, tmp_path / "kept", *wide)
    _, again = train(own_task, tmp_path / "again", *wide, "training.gradient_checkpointing=true")
    for name, tensor in kept.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_run_goes_on_with_the_passes_it_began_with(own_task, tmp_path, monkeypatch):
    from dpstune.data.passes import NEVER_CUT, PassCost

    def costs(cost):
        monkeypatch.setattr("dpstune.training.forward.pass_cost", lambda *of: cost)

    dropout = "model.dropout=0.3"
    costs(PassCost(1))
    straight, expected = train(own_task, tmp_path / "straight", dropout)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            train(own_task, tmp_path / "stopped", dropout)
    costs(NEVER_CUT)
    continued, found = train(own_task, tmp_path / "stopped", dropout)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert numbers(continued) == numbers(straight)
