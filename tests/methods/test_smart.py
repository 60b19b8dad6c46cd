"""SMART against its algorithm, written out with torch alone; and what must hold of every perturbation it finds."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical, kl_divergence

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods import smart, twin
from dpstune.methods.criterion import Criterion
from tests.methods.test_published import LOGITS, SEED, as_it_is, assert_same, lively, outcome
from tests.methods.test_twin import batch, one_noise_for_all
from tests.tiny import tiny_classifier

SIGMA, ETA, EPSILON, WEIGHT = 0.1, 0.2, 0.15, 2.0  # so that some elements are clipped and others are not
SETTINGS = {"name": "smart", "sigma": SIGMA, "eta": ETA, "epsilon": EPSILON, "lambda": WEIGHT}
SEVERAL = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1]])


@pytest.fixture(params=["activations are kept", "activations are computed again"])
def passes(request, monkeypatch):
    if request.param.endswith("again"):
        monkeypatch.setattr(twin, "TWIN_TOKENS", 0)


def both_ways(first, second):
    p, q = Categorical(logits=first), Categorical(logits=second)
    return kl_divergence(p, q) + kl_divergence(q, p)


def compare(first, second, several=False):
    """Return the divergence of each example."""
    if first.shape[1] == 1:
        return (first - second).square()[:, 0]
    if several:  # each label is yes or no
        yes_or_no = [torch.stack([logits, torch.zeros_like(logits)], -1) for logits in (first, second)]
        return both_ways(*yes_or_no).mean(1)
    return both_ways(first, second)


def clean_loss(logits, labels):
    if logits.shape[1] == 1:
        return F.mse_loss(logits[:, 0], labels)
    return (
        F.binary_cross_entropy_with_logits(logits, labels.to(logits))
        if labels.ndim > 1
        else F.cross_entropy(logits, labels)
    )


def written_out(model, examples, steps=1, family="bert"):
    """Projected gradient ascent from noise, one example's maximum at a time; no dropout."""
    model.zero_grad()
    torch.manual_seed(SEED)
    several = examples["labels"].ndim > 1
    embedded = []
    clean = LOGITS[family](model, examples, lambda words: embedded.append(words.detach()) or words)
    perturbations = [torch.empty_like(words).normal_(0.0, SIGMA) for words in embedded]

    def perturbed():
        left = iter(perturbations)
        return LOGITS[family](model, examples, lambda words: words + next(left))

    for _ in range(steps):
        perturbations = [each.detach().requires_grad_() for each in perturbations]
        total = compare(perturbed(), clean.detach(), several).mean()
        for each, gradient in zip(perturbations, torch.autograd.grad(total, perturbations), strict=True):
            for row in range(len(each)):
                largest = gradient[row].abs().max()
                each.data[row] = (each.data[row] + ETA * gradient[row] / largest).clamp(-EPSILON, EPSILON)
    perturbations = [each.detach() for each in perturbations]
    assert 0.05 < torch.cat([each.abs().eq(EPSILON).flatten() for each in perturbations]).double().mean() < 0.95
    loss = clean_loss(clean, examples["labels"]) + WEIGHT * compare(perturbed(), clean, several).mean()
    loss.backward()
    return outcome(model, loss)


def by_dpstune(model, examples, criterion=None, **changes):
    model.zero_grad()
    method = build_method({**SETTINGS, **changes})
    method.attach(model, total_steps=10, criterion=criterion)
    torch.manual_seed(SEED)
    loss = method.loss(model, examples)
    loss.backward()
    method.detach()
    return outcome(model, loss)


class TestFormula:
    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("family", LOGITS)
    def test_gradients_of_every_parameter(self, family, steps, passes):
        model = lively(family)
        assert_same(by_dpstune(model, batch(), steps=steps), written_out(model, batch(), steps, family))

    def test_regression(self, passes):
        model, examples = lively(regression=True), batch(regression=True)
        assert_same(by_dpstune(model, examples), written_out(model, examples))

    def test_several_labels(self, passes):
        model, examples = lively(), {**batch(), "labels": SEVERAL}
        assert_same(by_dpstune(model, examples), written_out(model, examples))
        assert_same(by_dpstune(model, examples, Criterion(multilabel=True)), written_out(model, examples))

    def test_one_label_that_an_example_may_have_is_no_value(self):
        model = lively(regression=True)
        model.config.problem_type = "multi_label_classification"
        examples = {**batch(), "labels": SEVERAL[:, :1]}
        logits = model(**{**batch(), "labels": None}).logits
        expected = F.binary_cross_entropy_with_logits(logits, SEVERAL[:, :1].double())
        torch.testing.assert_close(by_dpstune(model, examples, **{"lambda": 0.0})["loss"], expected.detach())

    def test_the_clean_pass_alone_where_lambda_is_0(self, passes):
        model = lively()
        loss = F.cross_entropy(LOGITS["bert"](model, batch(), as_it_is), batch()["labels"])
        loss.backward()
        expected = outcome(model, loss)
        assert_same(by_dpstune(model, batch(), **{"lambda": 0.0}), expected)

    def test_a_criterion_takes_cross_entropys_place(self):
        model = lively()
        plain, smoothed = (by_dpstune(model, batch(), each)["loss"] for each in (None, Criterion(label_smoothing=0.3)))
        logits = model(**{**batch(), "labels": None}).logits.detach()
        difference = F.cross_entropy(logits, batch()["labels"], label_smoothing=0.3) - clean_loss(
            logits, batch()["labels"]
        )
        torch.testing.assert_close(smoothed - plain, difference)


def passes_of(model, examples, **changes):
    """Return what the word embeddings gave in each forward pass, and the logits of each."""
    method = build_method({**SETTINGS, **changes})
    method.attach(model, total_steps=10)
    words, logits = [], []
    handles = [
        model.get_input_embeddings().register_forward_hook(lambda module, given, out: words.append(out.detach())),
        model.register_forward_hook(lambda module, given, out: logits.append(out.logits.detach())),
    ]
    method.loss(model, examples).backward()
    for handle in handles:
        handle.remove()
    method.detach()
    return words, logits


class TestPerturbation:
    @settings(max_examples=15, deadline=None)
    @given(sigma=st.floats(1e-6, 1.0), eta=st.floats(1e-6, 1.0), epsilon=st.floats(1e-6, 1.0), steps=st.integers(1, 3))
    def test_no_element_exceeds_epsilon(self, sigma, eta, epsilon, steps):
        words, _ = passes_of(lively(), batch(), sigma=sigma, eta=eta, epsilon=epsilon, steps=steps)
        assert len(words) == steps + 2
        assert (words[-1] - words[0]).abs().max() <= epsilon * (1 + 1e-6)

    def test_it_moves_the_output_more_than_random_ones_of_its_size(self):
        model = lively()
        small = {"sigma": 1e-4, "eta": 1.0, "epsilon": 1e-3}
        words, logits = passes_of(model, batch(), steps=2, **small)
        found = compare(logits[-1], logits[0])
        generator = torch.Generator().manual_seed(1)
        for _ in range(10):
            signs = torch.randint(0, 2, words[0].shape, generator=generator) * 2.0 - 1.0
            embeds = words[0] + signs * 1e-3
            other = model(inputs_embeds=embeds, attention_mask=batch()["attention_mask"]).logits
            assert (compare(other, logits[0]) < found).all()

    def test_an_example_has_the_same_one_in_every_batch(self):
        model = lively()
        with one_noise_for_all():
            whole, _ = passes_of(model, batch())
            for rows in (slice(0, 2), slice(2, 6)):
                part, _ = passes_of(model, {key: value[rows] for key, value in batch().items()})
                torch.testing.assert_close(part[-1], whole[-1][rows], rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
    def test_it_is_float32_under_autocast_and_its_gradient_does_not_vanish(self, half):
        model = tiny_classifier(num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8.0 if parameter.ndim > 1 else 1.0)
        defaults = {"sigma": 1e-2, "eta": 10.0, "epsilon": 1e-2}  # what half precision sees
        with torch.autocast("cpu", half):
            words, _ = passes_of(model, batch(), **defaults)
        assert words[-1].dtype == torch.float32
        seen = batch()["attention_mask"].bool()
        found = (words[-1] - words[0])[seen].abs()
        assert (found > 0.99e-2).double().mean() > 0.9

    def test_weights_in_half_precision_train(self):
        model = lively().bfloat16()
        method = build_method(SETTINGS)
        method.attach(model, total_steps=10)
        loss = method.loss(model, batch())
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in model.parameters())

    def test_where_the_output_does_not_move_it_stays_the_noise(self):
        model = lively()
        with torch.no_grad():
            model.classifier.weight.zero_()
        words, _ = passes_of(model, batch(), epsilon=10.0)
        assert torch.equal(words[1], words[2])

    def test_gradients_of_weights_come_from_the_loss_alone(self):
        """The search leaves none behind."""
        model = lively()
        method = build_method(SETTINGS)
        method.attach(model, total_steps=10)
        method.loss(model, batch())
        assert all(parameter.grad is None for parameter in model.parameters())


class TestModel:
    def test_detached_it_perturbs_nothing(self):
        model = lively()
        expected = model(**batch()).logits
        by_dpstune(model, batch())
        torch.testing.assert_close(model(**batch()).logits, expected)

    def test_a_pass_that_fails_leaves_plain_embeddings(self):
        model = lively()
        expected = model(**batch()).logits
        method = build_method(SETTINGS)
        method.attach(model, total_steps=10)
        with pytest.raises(ValueError, match="batch"):
            method.loss(model, {**batch(), "labels": torch.tensor([0])})
        torch.testing.assert_close(model(**batch()).logits, expected)

    def test_an_example_whose_search_overflows_keeps_its_noise(self):
        given = torch.tensor([[2.0, -4.0], [float("inf"), 1.0], [float("nan"), 1.0], [0.0, 0.0]])
        assert smart._by_largest(given).tolist() == [[0.5, -1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]

    def test_a_model_without_word_embeddings_is_refused(self):
        with pytest.raises(RequestError, match="Linear has no word embeddings"):
            build_method({"name": "smart"}).attach(nn.Linear(2, 2), total_steps=1)

    @pytest.mark.parametrize(
        ("own", "words"),
        [
            ({"lambda": -1}, "lambda: should be greater than or equal to 0"),
            ({"sigma": 0}, "sigma: should be greater than 0"),
            ({"eta": 0}, "eta: should be greater than 0"),
            ({"epsilon": -1e-5}, "epsilon: should be greater than 0"),
            ({"steps": 0}, "steps: should be greater than or equal to 1"),
            ({"step": 1}, "did you mean 'steps'"),
            ({"epsilon": float("nan")}, "epsilon: "),
        ],
    )
    def test_bad_settings_are_one_line(self, own, words):
        with pytest.raises(RequestError) as caught:
            build_method({"name": "smart", **own})
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
