"""What is evaluated, kept as the best and saved at the end are the weights that ``detach`` leaves; and no others are.

A stand-in method leaves a model whose head has other biases than it trained with.
"""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from dpstune.common.interruption import Interrupted
from dpstune.evaluation import scoring
from dpstune.methods.vanilla import Vanilla
from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine
from dpstune.training.best import BestWeights
from dpstune.training.checkpoints import Checkpoints
from tests.tiny import save_tiny_model
from tests.training.stopping import stop_within_an_evaluation

SHIFT = torch.tensor([3.0, -3.0])
OFTEN = ["training.eval_every=2", "training.save_every=5", "training.precision=fp32", "training.steps=12"]


@pytest.fixture
def recipe(tiny_task, tmp_path):
    """The tiny task with a model of many words, so that the engine narrows its word embeddings."""
    save_tiny_model(tmp_path / "words", vocab_size=900)

    def recipe(*overrides):
        model = f"model.name={tmp_path / 'words'}"
        return load_recipe(str(tiny_task), method="vanilla", overrides=[*OFTEN, model, *overrides])

    return recipe


@pytest.fixture
def shifted(monkeypatch):
    """Have vanilla leave a model whose biases are shifted."""

    @contextmanager
    def as_detached(method):
        bias = None if method.model is None else method.model.classifier.bias
        if bias is None:
            yield
            return
        raw = bias.data
        bias.data = raw + SHIFT
        try:
            yield
        finally:
            bias.data = raw

    def release(method):
        method.model.classifier.bias.data += SHIFT

    monkeypatch.setattr(Vanilla, "as_detached", as_detached)
    monkeypatch.setattr(Vanilla, "release", release)


@pytest.fixture
def biases(monkeypatch):
    """Note the biases of the head of what is scored, saved as the best, and saved to continue from."""
    found = {"scored": [], "best": [], "saved": []}
    score, best, save = scoring.score, BestWeights.save, Checkpoints.save

    def note(what, model):
        found[what].append(model.classifier.bias.detach().clone())

    def note_and_score(model, *args, **kwargs):
        note("scored", model)
        return score(model, *args, **kwargs)

    monkeypatch.setattr(scoring, "score", note_and_score)
    monkeypatch.setattr(BestWeights, "save", lambda self, step, model: (note("best", model), best(self, step, model)))
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, step, model, state: (note("saved", model), save(self, step, model, state))
    )
    return found


def weights(run):
    return load_file(run.folder / "model" / "model.safetensors")


def is_shifted(bias):
    """Tell it by the difference of the two, which training changes by far less."""
    return bool(bias[0] - bias[1] > 3)


def test_evaluations_and_the_best_see_what_detaching_leaves_and_checkpoints_do_not(recipe, shifted, biases, tmp_path):
    run = engine.train(recipe("training.keep=best"), output=tmp_path / "out")
    assert len(biases["scored"]) >= 6
    assert all(map(is_shifted, biases["scored"] + biases["best"]))
    assert biases["saved"]
    assert not any(map(is_shifted, biases["saved"]))
    assert any(torch.equal(weights(run)["classifier.bias"], best) for best in biases["best"])


def test_what_is_trained_does_not_depend_on_evaluations(recipe, shifted, tmp_path):
    often, once = (
        engine.train(recipe(f"training.eval_every={every}"), output=tmp_path / str(every)) for every in (2, 12)
    )
    assert all(torch.equal(weights(once)[name], tensor) for name, tensor in weights(often).items())


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_that_is_stopped_within_an_evaluation_goes_on_with_the_same_bits(
    recipe, shifted, biases, tmp_path, monkeypatch, keep
):
    loaded = recipe(f"training.keep={keep}")
    straight = engine.train(loaded, output=tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_within_an_evaluation(patch, after_step=4)
        with pytest.raises(Interrupted, match="interrupted after step 4 of 12; a checkpoint was written"):
            engine.train(loaded, output=tmp_path / "stopped")
    assert not any(map(is_shifted, biases["saved"]))
    continued = engine.train(loaded, output=tmp_path / "stopped")
    assert all(torch.equal(weights(continued)[name], tensor) for name, tensor in weights(straight).items())
    assert continued.result["kept"] == straight.result["kept"]
