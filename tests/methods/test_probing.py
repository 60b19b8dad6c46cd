"""The probe beside scikit-learn's solvers, and LP-FT, which starts from it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods.criterion import Criterion
from dpstune.methods.probing import solve
from dpstune.models.structure import base_model, output_layer
from tests.tiny import FAMILIES, tiny_classifier, tiny_config

COUNT, WIDTH = 40, 5
IDS = torch.tensor([[2, 8, 9, 10, 3], [2, 7, 11, 3, 0], [2, 9, 9, 3, 0], [2, 12, 13, 14, 3]])
CLASSES, VALUES = torch.tensor([0, 1, 2, 1]), torch.tensor([0.5, 1.0, 4.0, 2.0])
SEVERAL = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]])


def draw(seed=0, outputs=3):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(COUNT, WIDTH, generator=generator, dtype=torch.float64) * torch.tensor([1, 5, 0.1, 1, 2])
    return features + 3.0, torch.randint(outputs, (COUNT,), generator=generator)


def outputs_of(found, features):
    weight, bias = found
    return (features @ weight.T + bias).numpy()


def squared_error(logits, values):
    return (logits[:, 0] - values).square().mean()


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_classes_are_solved_as_scikit_learn_does(l2):
    features, labels = draw()
    sure = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(features.numpy(), labels.numpy())
    found = torch.tensor(outputs_of(solve(features, labels, 3, l2=l2, loss=Criterion()), features)).softmax(1)
    same(found, sure.predict_proba(features.numpy()))


def test_label_weights_count():
    features, labels = draw()
    weights = torch.tensor([0.2, 1.0, 4.0])
    sure = LogisticRegression(class_weight=dict(enumerate(weights.tolist())), tol=1e-10, max_iter=10_000)
    sure.fit(features.numpy(), labels.numpy())
    found = solve(features, labels, 3, l2=1.0, loss=Criterion(weights))
    same(torch.tensor(outputs_of(found, features)).softmax(1), sure.predict_proba(features.numpy()))


def test_each_of_several_labels_is_a_question_of_its_own():
    features, _ = draw()
    labels = torch.stack([draw(seed, outputs=2)[1] for seed in (1, 2)], dim=1).float()
    found = torch.tensor(
        outputs_of(solve(features, labels, 2, l2=3.0, loss=Criterion(multilabel=True)), features)
    ).sigmoid()
    for column in range(2):
        sure = LogisticRegression(C=1 / 3.0, tol=1e-10, max_iter=10_000).fit(features.numpy(), labels[:, column])
        same(found[:, column], sure.predict_proba(features.numpy())[:, 1])


def test_values_are_solved_as_ridge_regression():
    features, _ = draw()
    values = torch.linspace(-3, 9, COUNT)
    sure = Ridge(alpha=2.0).fit(features.numpy(), values.numpy())
    same(
        outputs_of(solve(features, values, 1, l2=4.0, loss=squared_error), features)[:, 0],
        sure.predict(features.numpy()),
    )


def test_without_a_bias_nothing_is_moved():
    features, _ = draw()
    values = torch.linspace(-3, 9, COUNT)
    weight, bias = solve(features, values, 1, l2=1e-9, loss=squared_error, has_bias=False)
    assert bias.tolist() == [0.0]
    same(weight[0].numpy(), LinearRegression(fit_intercept=False).fit(features.numpy(), values.numpy()).coef_)


@hypothesis_settings(max_examples=15)
@given(st.integers(0, 10_000), st.permutations(range(COUNT)))
def test_the_order_of_the_examples_changes_nothing(seed, order):
    features, labels = draw(seed)
    one, other = (
        solve(features[rows], labels[rows], 3, l2=1.0, loss=Criterion()) for rows in (list(range(COUNT)), list(order))
    )
    same(outputs_of(one, features), outputs_of(other, features))


def batch(labels, rows=slice(None)):
    return {"input_ids": IDS[rows], "attention_mask": (IDS != 0).long()[rows], "labels": labels[rows]}


KINDS = {
    "classes": (CLASSES, {"num_labels": 3}),
    "values": (VALUES, {"num_labels": 1, "problem_type": "regression"}),
    "several": (SEVERAL, {"num_labels": 3, "problem_type": "multi_label_classification"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [*FAMILIES, "distilbert", "modernbert"])
def test_lp_ft_fits_the_head_first_and_leaves_the_rest(family, kind):
    labels, changes = KINDS[kind]
    model = tiny_classifier(family, **changes).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    method = build_method({"name": "lp-ft", "l2": 1e-9})
    method.attach(model, total_steps=10)
    first, second, third = (batch(labels, rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 4)))
    method.prepare(model, [[(first, 1.0)], [(second, 0.7), (third, 0.3)]])
    layer = output_layer(model)
    own = {id(layer.weight), id(layer.bias)}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in model.named_parameters() if id(p) in own}
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not layer._forward_hooks
    loss = model.eval()(**batch(labels)).loss.item()
    model.load_state_dict(before)
    assert loss < 0.3 * model(**batch(labels)).loss.item()
    assert method.held_bytes() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_layer_gives_the_logits(family):
    model = tiny_classifier(family, num_labels=3).eval()
    seen = []
    output_layer(model).register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(**batch(CLASSES)).logits
    assert torch.equal(seen[-1].reshape(logits.shape), logits)
    assert all(module is not output_layer(model) for module in base_model(model).modules())


def test_a_model_without_a_head_is_refused():
    method = build_method({"name": "lp-ft"})
    model = nn.Linear(2, 2)
    method.attach(model, total_steps=1)
    with pytest.raises(RequestError, match="Linear has no linear output layer"):
        method.prepare(model, [])


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        (VALUES[:, None], {"num_labels": 1}),
        (torch.stack([VALUES, -VALUES], dim=1), {"num_labels": 2, "problem_type": "regression"}),
        (SEVERAL, {"num_labels": 3}),
        (CLASSES, {"num_labels": 3}),
    ],
    ids=["values in a column", "two values", "several, by the labels", "classes, by the labels"],
)
def test_the_loss_is_the_one_the_model_would_choose(labels, changes):
    model = tiny_classifier("bert", **changes).eval()
    before = model(**batch(labels)).loss.item()
    method = build_method({"name": "lp-ft", "l2": 1e-9})
    method.attach(model, total_steps=10)
    model.config.problem_type = changes.get("problem_type")  # the call above has settled it
    method.prepare(model, [[(batch(labels), 1.0)]])
    assert model(**batch(labels)).loss.item() < 0.3 * before


def test_a_head_that_sees_every_token_is_refused():
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model("gpt2", n_embd=16, n_layer=1, n_head=2, vocab_size=50, num_labels=3, pad_token_id=0)
    )
    method = build_method({"name": "lp-ft"})
    method.attach(model, total_steps=10)
    with pytest.raises(RequestError, match="one vector an example; that of GPT2ForSequenceClassification does not"):
        method.prepare(model, [[(batch(CLASSES), 1.0)]])
    assert not output_layer(model)._forward_hooks


def test_a_classifier_of_tokens_is_refused():
    model = AutoModelForTokenClassification.from_config(tiny_config("bert", num_labels=3))
    method = build_method({"name": "lp-ft"})
    method.attach(model, total_steps=10)
    with pytest.raises(RequestError, match="one vector an example; that of BertForTokenClassification does not"):
        method.prepare(model, [[(batch(CLASSES), 1.0)]])


def test_where_there_are_no_examples_nothing_changes():
    """As on a rank of more than there are steps, where no other has one either."""
    model = tiny_classifier("bert", num_labels=3)
    before = output_layer(model).weight.clone()
    method = build_method({"name": "lp-ft"})
    method.attach(model, total_steps=10)
    method.prepare(model, [])
    assert torch.equal(output_layer(model).weight, before)


def test_after_the_probe_it_trains_as_vanilla():
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    models = [tiny_classifier("bert", num_labels=3, **rates).train() for _ in range(2)]
    methods = [build_method({"name": name}) for name in ("lp-ft", "vanilla")]
    for method, model in zip(methods, models, strict=True):
        method.attach(model, total_steps=10)
    methods[0].prepare(models[0], [[(batch(CLASSES), 1.0)]])
    models[1].load_state_dict(models[0].state_dict())
    for method, model in zip(methods, models, strict=True):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            method.loss(model, batch(CLASSES)).backward()
            method.before_clip()
            method.before_update()
            optimizer.step()
            method.after_update()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_linear_probe_is_the_solution_and_steps_leave_it_to_the_bit(family):
    models = [tiny_classifier(family, num_labels=3).train() for _ in range(2)]
    methods = [build_method({"name": name, "l2": 0.1}) for name in ("linear-probe", "lp-ft")]
    for method, model in zip(methods, models, strict=True):
        method.attach(model, total_steps=10)
        method.prepare(model, [[(batch(CLASSES), 1.0)]])
    model, solved = models[0], models[1].state_dict()
    layer = output_layer(model)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(layer.weight), id(layer.bias)}
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        methods[0].loss(model, batch(CLASSES)).backward()
        methods[0].before_clip()
        methods[0].before_update()
        optimizer.step()
        methods[0].after_update()
    methods[0].detach()
    assert all(torch.equal(tensor, solved[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
