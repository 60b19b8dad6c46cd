"""Methods that compute the gradients of a step several times, in the engine."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from dpstune.common.interruption import Interrupted
from dpstune.methods.sam import Sam
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_metrics
from dpstune.training import engine
from tests.methods.rounds import Again, check_first_step, register

STEPS = 6


@pytest.fixture
def train(tiny_task, tmp_path):
    """Train the tiny task for a few steps of two micro-batches, with dropout."""

    def train(method, *overrides, output="runs"):
        settings = [
            *("model.dropout=0.3", "training.epochs=null", f"training.steps={STEPS}", "training.warmup_steps=1"),
            *("training.batch_size=3", "training.gradient_accumulation=2", *overrides),
        ]
        return engine.train(
            load_recipe(str(tiny_task), method=method, overrides=settings), output=tmp_path / output
        ).folder

    return train


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def same_bits(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def losses(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("share", [True, False])
def test_each_round_sees_all_micro_batches_and_dropout_is_as_declared(train, monkeypatch, share):
    register(monkeypatch)
    plain = train("vanilla")
    folder = train("again", f"method.share={str(share).lower()}")
    check_first_step(Again.newest)
    assert len(Again.newest.gradients) == 3 * STEPS
    assert losses(folder)[0] == losses(plain)[0], "the first round's"
    if share:
        assert losses(folder) == losses(plain)
    assert same_bits(weights(folder), weights(plain)) == share


def test_the_loss_of_a_step_of_sam_is_that_at_the_weights_themselves(train):
    plain, moved = losses(train("vanilla")), losses(train("sam", "method.rho=0.5"))
    assert moved[0] == plain[0]
    assert moved != plain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_the_rounds_of_sam_saves_no_moved_weight(train, monkeypatch, number):
    """The step goes on to its end, and the run to the same bits as one that never stopped."""
    whole = weights(train("sam", output="whole"))
    passes, loss = [], Sam.loss

    def stop_in_the_second_round(method, *arguments):
        if method.step == 3 and method._moved and number not in passes:
            passes.append(number)
            os.kill(os.getpid(), number)
        return loss(method, *arguments)

    monkeypatch.setattr(Sam, "loss", stop_in_the_second_round)
    with pytest.raises(Interrupted):
        train("sam")
    assert passes == [number]
    assert same_bits(weights(train("sam")), whole)


def test_sam_recomputes_activations_to_the_same_bits(train):
    plain, again = (train("sam", f"training.gradient_checkpointing={on}", output=on) for on in ("false", "true"))
    assert same_bits(weights(plain), weights(again))
