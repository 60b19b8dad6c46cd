"""The loss with class weights and label smoothing: what it equals, and that it does not mind how a batch is cut."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune import build_method
from dpstune.methods import REGISTRY
from dpstune.methods.criterion import Criterion
from tests.tiny import tiny_classifier

WEIGHTS = torch.tensor([0.5, 1.0, 3.0])


def batch_of(count=6, seed=0):
    torch.manual_seed(seed)
    ids = torch.randint(7, 18, (count, 8))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(count) % 3}


def test_an_example_weighs_what_its_label_weighs():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    by_hand = -(logits.log_softmax(-1)[range(5), labels] * WEIGHTS[labels]).sum() / 5
    torch.testing.assert_close(Criterion(WEIGHTS)(logits, labels), by_hand)


def test_smoothing_is_that_of_torch():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(logits, labels)
    torch.testing.assert_close(Criterion(label_smoothing=0.2)(logits, labels), expected)


def test_with_smoothing_each_term_weighs_what_its_own_label_weighs():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    targets = 0.8 * torch.eye(3)[labels] + 0.2 / 3
    by_hand = -(logits.log_softmax(-1) * targets * WEIGHTS).sum() / 5
    torch.testing.assert_close(Criterion(WEIGHTS, 0.2)(logits, labels), by_hand)


@given(st.integers(1, 11), st.floats(0, 0.9), st.booleans())
@settings(max_examples=20)
def test_the_mean_over_a_batch_is_the_mean_over_its_parts(cut, smoothing, weighted):
    torch.manual_seed(cut)
    logits, labels = torch.randn(12, 3, dtype=torch.float64), torch.randint(0, 3, (12,))
    criterion = Criterion(WEIGHTS if weighted else None, smoothing)
    parts = criterion(logits[:cut], labels[:cut]) * cut + criterion(logits[cut:], labels[cut:]) * (12 - cut)
    torch.testing.assert_close(parts / 12, criterion(logits, labels))


def attached(method, criterion):
    model = tiny_classifier(num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    own = (
        {"layers": 1}
        if method in ("reinit", "top-layers")
        else {"r3f": {"sigma": 1e-9}, "smart": {"lambda": 0.0}}.get(method, {})
    )
    built = build_method({"name": method, **own})
    built.attach(model, total_steps=10, criterion=criterion)
    return built, model


@pytest.mark.parametrize("method", REGISTRY)
def test_a_criterion_that_asks_for_nothing_is_the_models_own_loss(method):
    torch.manual_seed(0)
    plain, model = attached(method, None)
    with_criterion, same = attached(method, Criterion())
    same.load_state_dict(model.state_dict())  # reinit and noisytune draw
    torch.testing.assert_close(with_criterion.loss(same, batch_of()), plain.loss(model, batch_of()))


@pytest.mark.parametrize("method", REGISTRY)
def test_every_method_trains_on_the_criterion(method):
    """Where one label alone weighs anything, the loss is that of its examples."""
    torch.manual_seed(0)
    only_last, model = attached(method, Criterion(torch.tensor([0.0, 0.0, 3.0])))
    plain, same = attached(method, None)
    same.load_state_dict(model.state_dict())
    batch = batch_of()
    last = {key: value[batch["labels"] == 2] for key, value in batch.items()}  # two of six
    torch.testing.assert_close(only_last.loss(model, batch), plain.loss(same, last))


def test_child_tuning_chooses_by_the_criterion():
    chosen = []
    for weights in (None, torch.tensor([0.0, 0.0, 9.0])):
        method, model = attached("child-tuning-d", None if weights is None else Criterion(weights))
        model.eval()
        method.prepare(model, [[(batch_of(), 1.0)]])
        chosen.append(copy.deepcopy(method.masks))
    assert any(not torch.equal(chosen[0][name], mask) for name, mask in chosen[1].items())
