"""Two passes over a batch: computed as one of twice its size, or in the memory of one; the same loss and gradients."""

import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from unittest import mock

import pytest
import torch

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods import twin
from dpstune.models.loading import _mend_half_precision, recompute_activations
from tests.tiny import FAMILIES, some, tiny_classifier

RATES = ("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
SETTINGS = [
    {"name": "r-drop", "alpha": 2.0},
    {"name": "r3f", "sigma": 0.3, "lambda": 2.0},
    {"name": "smart", "sigma": 0.3, "eta": 0.3, "epsilon": 0.3, "lambda": 2.0},
    {"name": "r3f", "sigma": 0.3, "noise": "uniform"},
    {"name": "r3f", "sigma": 0.3, "detach": False},
]
OF_TWO_RANKS = {
    "r-drop": {"name": "r-drop"},
    "r3f": {"name": "r3f", "sigma": 0.3, "lambda": 20.0},
    "r3f-not-detached": {"name": "r3f", "sigma": 0.3, "lambda": 20.0, "detach": False},
    "smart": {"name": "smart", "sigma": 0.3, "eta": 0.3, "epsilon": 0.3, "lambda": 20.0, "steps": 2},
}


def batch(regression=False, size=6, length=12):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(7, 40, (size, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[::2, length - 4 :] = 0
    ids[:, -1] = 3  # BART reads a sentence where it ends
    labels = torch.rand(size, generator=generator) if regression else torch.randint(3, (size,), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def classifier(family="bert", dropout=0.0, regression=False):
    head = {"num_labels": 1, "problem_type": "regression"} if regression else {"num_labels": 3}
    return _mend_half_precision(tiny_classifier(family, **dict.fromkeys(RATES, dropout), **head)).train()


def loss_and_gradients(model, settings, examples, autocast=False):
    model.zero_grad()
    method = build_method(settings)
    method.attach(model, total_steps=10)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        loss = method.loss(model, examples)
    loss.backward()
    method.detach()
    return {"loss": loss.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def assert_same(one, other, **tolerances):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerances)


@contextmanager
def one_noise_for_all():
    """Have every example get the same noise, however a batch is cut."""

    def pattern(self, mean, scale):
        wave = torch.sin(torch.arange(self.shape[1:].numel(), dtype=self.dtype)).view(self.shape[1:])
        return self.copy_((mean + scale * wave).expand_as(self))

    with mock.patch.object(torch.Tensor, "normal_", pattern):
        yield


@pytest.fixture
def two_passes(monkeypatch):
    """Have every batch count as large."""
    return lambda: monkeypatch.setattr(twin, "TWIN_TOKENS", 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_both_ways_give_the_same_where_no_dropout_is_drawn(settings, family, two_passes):
    """Noise is drawn in both, from the same generator."""
    model = classifier(family)
    doubled = loss_and_gradients(model, settings, batch())
    two_passes()
    assert_same(loss_and_gradients(model, settings, batch()), doubled, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=lambda s: s["name"])
def test_regression(settings, two_passes):
    model = classifier(regression=True)
    doubled = loss_and_gradients(model, settings, batch(regression=True))
    two_passes()
    assert_same(loss_and_gradients(model, settings, batch(regression=True)), doubled, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("autocast", some([True], of=[False, True]))
@pytest.mark.parametrize("family", some(["bert", "bart"], of=FAMILIES))
@pytest.mark.parametrize("settings", SETTINGS[:3], ids=lambda s: s["name"])
def test_what_is_computed_anew_has_the_same_dropout(settings, family, autocast, two_passes, monkeypatch):
    two_passes()
    model = classifier(family, dropout=0.3)
    recomputed = loss_and_gradients(model, settings, batch(), autocast)
    monkeypatch.setattr(twin, "checkpoint", lambda function, *values, use_reentrant, context_fn: function(*values))
    kept = loss_and_gradients(model, settings, batch(), autocast)
    assert_same(recomputed, kept, rtol=0, atol=0)


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=lambda s: s["name"])
def test_layers_that_keep_no_activations_of_their_own_accord(settings, two_passes):
    model = classifier(dropout=0.3)
    two_passes()
    plain = loss_and_gradients(model, settings, batch())
    recompute_activations(model)
    assert_same(loss_and_gradients(model, settings, batch()), plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("size", "length", "passes"), [(16, 128, 1), (17, 128, 2), (32, 64, 1)])
def test_a_batch_of_more_than_2048_tokens_is_large(size, length, passes):
    sizes = []

    class Model(torch.nn.Module):
        def forward(self, input_ids):
            from types import SimpleNamespace

            sizes.append(len(input_ids))
            return SimpleNamespace(logits=torch.zeros(len(input_ids), 2))

    first, second = twin.twin_logits(Model(), {"input_ids": torch.ones(size, length), "labels": None})
    assert sizes == ([2 * size] if passes == 1 else [size, size])
    assert first.shape == second.shape == (size, 2)


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_their_batches(tmp_path):
    """Gloo, two micro-batches of which the first is not synchronised; against one process with all the examples."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "tests.methods.twin_ranks", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=1000,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    words = []
    for name, settings in OF_TWO_RANKS.items():
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
        model = classifier()
        with one_noise_for_all():
            expected = loss_and_gradients(model, settings, batch(size=8))
        expected.pop("loss")
        assert_same(first, second, rtol=0, atol=0)
        assert_same(first, expected, rtol=1e-4, atol=1e-6)
        words.append(expected["bert.embeddings.word_embeddings.weight"])
    assert not torch.allclose(words[1], words[2], rtol=1e-3, atol=1e-5), "the noisy pass counts"


@pytest.mark.parametrize("name", ["r3f", "r-drop"])
def test_several_labels_an_example_are_refused(name):
    method = build_method({"name": name})
    model = tiny_classifier(num_labels=3)
    method.attach(model, total_steps=1)
    batch = {"input_ids": torch.randint(5, 30, (4, 6)), "labels": torch.ones(4, 3)}
    with pytest.raises(RequestError, match="an example has several labels"):
        method.loss(model, batch)


@pytest.mark.parametrize("name", ["r3f", "r-drop"])
def test_one_output_that_is_a_yes_or_no_is_refused_too(name):
    method = build_method({"name": name})
    model = tiny_classifier(num_labels=1, problem_type="multi_label_classification")
    method.attach(model, total_steps=1)
    batch = {"input_ids": torch.randint(5, 30, (4, 6)), "labels": torch.ones(4, 1)}
    with pytest.raises(RequestError, match="an example has several labels"):
        method.loss(model, batch)


@pytest.mark.parametrize(
    ("outputs", "labels"), [(1, torch.ones(4)), (3, torch.tensor([0, 1, 2, 0])), (3, torch.ones(4, 3))]
)
@pytest.mark.parametrize("name", ["r3f", "r-drop", "smart"])
def test_the_configuration_says_what_transformers_would_have_it_say(name, outputs, labels):
    """A pipeline reads it: of one output it would take the sigmoid where nothing says that it is a value."""
    if labels.ndim > 1 and name != "smart":
        pytest.skip("it takes one label an example")
    batch = {"input_ids": torch.randint(5, 30, (4, 6)), "labels": labels}
    model, twin = (tiny_classifier(num_labels=outputs) for _ in range(2))
    method = build_method({"name": name})
    method.attach(model, total_steps=1)
    method.loss(model, batch)
    twin(**batch)
    assert model.config.problem_type == twin.config.problem_type is not None


@pytest.mark.parametrize("name", ["r3f", "r-drop", "smart"])
def test_one_output_is_regression_whatever_type_labels_have(name):
    losses = []
    for labels in (torch.tensor([0, 1, 2, 3]), torch.tensor([0.0, 1.0, 2.0, 3.0])):
        method = build_method({"name": name})
        model = tiny_classifier(num_labels=1)
        method.attach(model, total_steps=1)
        torch.manual_seed(0)
        losses.append(method.loss(model, {"input_ids": torch.arange(5, 29).view(4, 6), "labels": labels}).item())
    assert losses[0] == losses[1] > 0.5
