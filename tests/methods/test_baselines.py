"""The baselines against their formulas, written out anew: no line of theirs is called to say what they should do."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpstune import build_method
from dpstune.errors import RequestError
from tests.tiny import FAMILIES, LAYERS, tiny_classifier

IDS = torch.tensor([[2, 8, 9, 10, 3], [2, 7, 11, 3, 0], [2, 9, 9, 3, 0], [2, 12, 13, 14, 3]])
MASK = (IDS != 0).long()
CLASSES, VALUES = torch.tensor([0, 1, 2, 1]), torch.tensor([0.5, 1.0, 4.0, 2.0])


def batch(labels=CLASSES):
    return {"input_ids": IDS, "attention_mask": MASK, "labels": labels}


def classifier(labels=CLASSES, dropout=0.0, family="bert", **changes):
    kind = {"num_labels": 1, "problem_type": "regression"} if labels is VALUES else {"num_labels": 3}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return tiny_classifier(family, **kind, **(rates if family == "bert" else {}), **changes).train()


def record_logits(model):
    """Return a list that collects the logits of every pass."""
    logits = []
    model.register_forward_hook(lambda module, inputs, output: logits.append(output.logits.detach().clone()))
    return logits


def kl(p_logits, q_logits):
    """KL(P, Q), summed over classes, averaged over the batch."""
    p, q = F.softmax(p_logits, -1), F.softmax(q_logits, -1)
    return (p * (p.log() - q.log())).sum(-1).mean()


class TestR3F:
    @pytest.mark.parametrize("noise", ["normal", "uniform"])
    @pytest.mark.parametrize("weight", [0.5, 5.0])
    def test_loss_on_the_recorded_logits(self, noise, weight):
        model = classifier()
        method = build_method({"name": "r3f", "noise": noise, "sigma": 0.3, "lambda": weight})
        method.attach(model, total_steps=10)
        logits = record_logits(model)
        loss = method.loss(model, batch())
        clean, noisy = torch.cat(logits).chunk(2)
        assert (clean - noisy).abs().max() > 1e-3
        expected = F.cross_entropy(clean, CLASSES) + weight * (kl(noisy, clean) + kl(clean, noisy))
        torch.testing.assert_close(loss.detach(), expected)

    def test_regression_takes_the_squared_difference(self):
        model = classifier(VALUES)
        method = build_method({"name": "r3f", "sigma": 0.3, "lambda": 2.0})
        method.attach(model, total_steps=10)
        logits = record_logits(model)
        loss = method.loss(model, batch(VALUES))
        clean, noisy = torch.cat(logits).chunk(2)
        expected = (clean[:, 0] - VALUES).square().mean() + 2.0 * (clean - noisy).square().mean()
        torch.testing.assert_close(loss.detach(), expected)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_clean_pass_is_clean_and_the_noise_is_on_the_word_embeddings(self, family):
        rates = ("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")
        model = tiny_classifier(family, num_labels=3, **dict.fromkeys(rates, 0.0)).train()
        expected = model(**batch()).logits
        method = build_method({"name": "r3f", "sigma": 0.2})
        method.attach(model, total_steps=10)
        logits = record_logits(model)
        method.loss(model, batch()).backward()
        clean, noisy = torch.cat(logits).chunk(2)
        torch.testing.assert_close(clean, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(noisy, expected, atol=1e-4)

    @pytest.mark.parametrize(("noise", "spread"), [("normal", lambda n: n.std()), ("uniform", lambda n: n.abs().max())])
    def test_noise_has_the_scale_it_is_given(self, noise, spread):
        model = classifier(hidden_size=64, num_attention_heads=2)
        seen = []
        method = build_method({"name": "r3f", "noise": noise, "sigma": 0.05})
        method.attach(model, total_steps=10)
        model.bert.embeddings.word_embeddings.register_forward_hook(lambda m, i, output: seen.append(output.detach()))
        method.loss(model, batch())
        clean, noisy = seen[0].chunk(2)
        assert spread(noisy - clean) == pytest.approx(0.05, rel=0.1)
        assert (noisy - clean).mean().abs() < 0.01

    def test_a_model_without_word_embeddings_is_refused(self):
        with pytest.raises(RequestError, match="Linear has no word embeddings"):
            build_method({"name": "r3f"}).attach(nn.Linear(2, 2), total_steps=1)

    def test_detached_it_adds_no_noise(self):
        model = classifier()
        method = build_method({"name": "r3f", "sigma": 1.0})
        method.attach(model, total_steps=10)
        method.loss(model, batch())
        method.detach()
        torch.testing.assert_close(model(**batch()).logits, model.eval()(**batch()).logits)


class TestRDrop:
    @pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
    def test_loss_on_the_recorded_logits(self, alpha):
        model = classifier(dropout=0.3)
        method = build_method({"name": "r-drop", "alpha": alpha})
        method.attach(model, total_steps=10)
        logits = record_logits(model)
        loss = method.loss(model, batch())
        first, second = torch.cat(logits).chunk(2)
        assert (first - second).abs().max() > 1e-3, "two passes, two draws of dropout"
        expected = F.cross_entropy(first, CLASSES) + F.cross_entropy(second, CLASSES)
        expected = expected + alpha * (kl(first, second) + kl(second, first)) / 2
        torch.testing.assert_close(loss.detach(), expected)

    def test_regression_takes_squared_differences(self):
        model = classifier(VALUES, dropout=0.3)
        method = build_method({"name": "r-drop", "alpha": 3.0})
        method.attach(model, total_steps=10)
        logits = record_logits(model)
        loss = method.loss(model, batch(VALUES))
        first, second = (each[:, 0] for each in torch.cat(logits).chunk(2))
        expected = (first - VALUES).square().mean() + (second - VALUES).square().mean()
        expected = expected + 3.0 * (first - second).square().mean()
        torch.testing.assert_close(loss.detach(), expected)


class TestMixout:
    def test_each_column_mixes_with_its_pretrained_weight_every_step(self):
        torch.manual_seed(0)
        model = nn.Linear(6, 4, bias=False)
        method = build_method({"name": "mixout", "p": 0.25})
        columns = torch.tensor([1.0, 0, 1, 0, 0, 1])
        method.attach(model, total_steps=3, mask_source=lambda name, step: columns)
        pretrained = model.weight.detach().clone()
        with torch.no_grad():
            model.weight.add_(torch.randn(4, 6))
        mixed = ((1 - columns) * pretrained + columns * model.weight.detach() - 0.25 * pretrained) / 0.75
        x = torch.randn(5, 6)
        torch.testing.assert_close(model(x).detach(), x @ mixed.T)
        model(x).square().sum().backward()
        reference = mixed.clone().requires_grad_()
        (x @ reference.T).square().sum().backward()
        torch.testing.assert_close(model.weight.grad, reference.grad * columns)


class TestReinit:
    @pytest.mark.parametrize("layers", [1, 2, LAYERS])
    def test_what_changes_and_what_does_not(self, layers):
        model = classifier()
        before = copy.deepcopy(model.state_dict())
        method = build_method({"name": "reinit", "layers": layers})
        method.attach(model, total_steps=10, seed=3)
        top = [f"bert.encoder.layer.{LAYERS - 1 - number}." for number in range(layers)]
        for name, tensor in model.state_dict().items():
            drawn = name.endswith("weight") and "LayerNorm" not in name  # biases and norms start as constants
            anew = any(name.startswith(prefix) for prefix in [*top, "bert.pooler."])
            assert torch.equal(tensor, before[name]) == (not (anew and drawn)), name

    @pytest.mark.parametrize("family", FAMILIES)
    def test_constants_are_those_of_new_layers_and_draws_have_their_spread(self, family):
        from dpstune.models.structure import encoder_layers

        model = classifier(family=family)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3.0).add_(0.5)
        build_method({"name": "reinit", "layers": 1}).attach(model, total_steps=10)
        for layer in [encoder_layers(model)[-1]]:
            for name, parameter in layer.named_parameters():
                if parameter.ndim > 1:
                    assert parameter.std().item() == pytest.approx(0.02, rel=0.3), name
                else:
                    constant = float("norm" in name.lower() and name.endswith("weight"))
                    assert torch.equal(parameter, torch.full_like(parameter, constant)), name

    def test_the_seed_decides_the_draw(self):
        def drawn(seed):
            model = classifier()
            build_method({"name": "reinit", "layers": 1}).attach(model, total_steps=10, seed=seed)
            return model.bert.pooler.dense.weight

        assert torch.equal(drawn(1), drawn(1))
        assert not torch.equal(drawn(1), drawn(2))

    def test_more_layers_than_there_are(self):
        method = build_method({"name": "reinit", "layers": 4})
        with pytest.raises(RequestError, match=r"method.layers: 4 is more than the 3 layers of BertFor"):
            method.attach(classifier(), total_steps=10)


class Small(nn.Module):
    """A network of two linear layers that returns a loss as a transformers model does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.top = nn.Linear(4, 3), nn.Linear(3, 3)  # two outputs would have gradients that tie

    def forward(self, x, labels):
        from types import SimpleNamespace

        return SimpleNamespace(loss=F.cross_entropy(self.top(torch.tanh(self.body(x))), labels))


class TestChildTuningD:
    def test_an_encoder_that_is_frozen_is_refused(self):
        with pytest.raises(RequestError, match="among the encoder's weights, and all of them are frozen"):
            build_method({"name": "child-tuning-d"}).attach(Small().requires_grad_(False), total_steps=10)

    def by_hand(self, model, batches, p):
        """Fisher by hand: squared gradients, each tensor's clipped to norm 1; one threshold over all."""
        fisher = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
        for each in batches:
            gradients = torch.autograd.grad(model(**each).loss, list(model.parameters()))
            for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
                scale = min(1.0, 1.0 / (gradient.norm().item() + 1e-6))
                fisher[name] += (gradient * scale) ** 2 / len(batches)
        every = sorted((value for tensor in fisher.values() for value in tensor.flatten().tolist()), reverse=True)
        threshold = every[math.ceil(len(every) * p) - 1]
        return {name: tensor >= threshold for name, tensor in fisher.items()}

    @pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
    def test_one_threshold_over_all_parameters(self, p):
        model = Small()
        with torch.no_grad():
            model.top.weight.mul_(8.0)  # gradients of very different size
        generator = torch.Generator().manual_seed(2)
        batches = [
            {"x": 5 * torch.randn(6, 4, generator=generator), "labels": torch.randint(3, (6,), generator=generator)}
            for _ in range(5)
        ]
        expected = self.by_hand(model, batches, p)
        method = build_method({"name": "child-tuning-d", "p": p})
        method.attach(model, total_steps=10)
        method.prepare(model, [[(each, 1.0)] for each in batches])
        assert all(parameter.grad is None for parameter in model.parameters())
        shares = {name: mask.float().mean().item() for name, mask in expected.items()}
        assert len({round(share, 3) for share in shares.values()}) > 1, "one threshold gives each tensor its own share"
        model(**batches[0]).loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        method.before_clip()
        assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters()), "after clipping only"
        method.before_update()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter.grad, gradients[name] * expected[name]), name

    def test_a_batch_whose_gradients_are_not_finite_is_left_out(self):
        generator = torch.Generator().manual_seed(3)
        good = [
            {"x": torch.randn(6, 4, generator=generator), "labels": torch.randint(3, (6,), generator=generator)}
            for _ in range(3)
        ]
        bad = {**good[0], "x": torch.full((6, 4), float("nan"))}
        masks = []
        for batches in (good, [good[0], bad, *good[1:]]):
            method = build_method({"name": "child-tuning-d", "p": 0.3})
            method.attach(Small(), total_steps=10)
            method.prepare(method.model, [[(each, 1.0)] for each in batches])
            masks.append(method.masks)
        assert any(mask.any() for mask in masks[0].values())
        assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])

    def test_embeddings_pooler_and_head_train_as_usual(self):
        model = classifier()
        method = build_method({"name": "child-tuning-d", "p": 0.1})
        method.attach(model, total_steps=10)
        method.prepare(model, [[(batch(), 0.5), (batch(), 0.5)]] * 2)
        method.loss(model, batch()).backward()
        before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        method.before_update()
        kept = total = 0
        for name, gradient in before.items():
            after = model.get_parameter(name).grad
            if name.startswith("bert.encoder.layer."):
                kept += method.masks[name].sum().item()
                total += after.numel()
            else:
                assert torch.equal(after, gradient), name
        assert kept == math.ceil(total * 0.1)
        assert method.held_bytes() == total

    def test_the_child_network_survives_a_resume(self):
        model, other = classifier(), classifier()
        methods = [build_method({"name": "child-tuning-d", "p": 0.2}) for _ in range(2)]
        for method, each in zip(methods, (model, other), strict=True):
            method.attach(each, total_steps=10)
        methods[0].prepare(model, [[(batch(), 1.0)]])
        methods[1].load_state_dict(methods[0].state_dict())
        assert all(torch.equal(methods[0].masks[name], methods[1].masks[name]) for name in methods[0].masks)


class TestChildTuningF:
    def test_each_element_is_kept_with_probability_p_and_divided_by_p(self):
        model = nn.Linear(200, 100)
        method = build_method({"name": "child-tuning-f", "p": 0.3})
        method.attach(model, total_steps=10, seed=1)
        kept = []
        for step in (1, 2):
            model.zero_grad()
            model(torch.ones(1, 200)).sum().backward()
            method.before_clip()
            assert bool((model.weight.grad == 1).all()), "after clipping only"
            method.before_update()
            values = model.weight.grad.unique()
            torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.3]))
            assert (model.weight.grad != 0).float().mean() == pytest.approx(0.3, abs=0.02)
            kept.append(model.weight.grad != 0)
            method.after_update()
            assert method.step == step + 1
        assert not torch.equal(*kept), "another child each step"

    def test_the_same_seed_and_step_keep_the_same(self):
        def child(seed):
            model = nn.Linear(50, 4)
            method = build_method({"name": "child-tuning-f"})
            method.attach(model, total_steps=10, seed=seed)
            model(torch.ones(1, 50)).sum().backward()
            method.before_update()
            return model.weight.grad

        assert torch.equal(child(1), child(1))
        assert not torch.equal(child(1), child(2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "mixout", "p": 1.0}, "p: should be less than 1"),
        ({"name": "child-tuning-d", "p": 1.0}, "p: should be less than 1"),
        ({"name": "child-tuning-d", "p": 0}, "p: should be greater than 0"),
        ({"name": "child-tuning-f", "p": 1}, "p: should be less than 1"),
        ({"name": "r-drop", "alpha": -1}, "alpha: should be greater than or equal to 0"),
        ({"name": "r-drop", "dropout": 1.0}, "dropout: should be less than 1"),
        ({"name": "r3f", "lambda": -0.1}, "lambda: should be greater than or equal to 0"),
        ({"name": "r3f", "sigma": 0}, "sigma: should be greater than 0"),
        ({"name": "r3f", "noise": "gauss"}, "noise: should be 'normal' or 'uniform'"),
        ({"name": "r3f", "lamda": 1}, "did you mean 'lambda'"),
        ({"name": "reinit", "layers": 0}, "layers: should be greater than or equal to 1"),
    ],
)
def test_bad_settings_are_one_line(settings, words):
    with pytest.raises(RequestError) as caught:
        build_method(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
