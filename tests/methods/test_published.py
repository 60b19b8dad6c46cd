"""What published code does, written out with torch alone, against what dpstune does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods import twin
from tests.methods.test_twin import batch, classifier
from tests.tiny import some

SIGMA, WEIGHT, SEED = 0.3, 2.0, 5


def lively(family="bert", **changes):
    """A model in float64, without dropout unless told, with weights so large that every gradient counts."""
    model = classifier(family, **changes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0 if parameter.ndim > 1 else 1.0)
    return model


@pytest.fixture(params=["one batch of twice the size", "two passes in the memory of one"])
def passes(request, monkeypatch):
    if request.param.startswith("two"):
        monkeypatch.setattr(twin, "TWIN_TOKENS", 0)


def draw(embedded, noise):
    drawn = torch.empty_like(embedded)
    return drawn.normal_(0.0, SIGMA) if noise == "normal" else drawn.uniform_(-SIGMA, SIGMA)


def as_it_is(embedded):
    return embedded


def noised(embedded, noise, detach):
    return (embedded.detach() if detach else embedded) + draw(embedded, noise)


def bert_logits(model, examples, change):
    embedded = change(model.get_input_embeddings()(examples["input_ids"]))
    return model(inputs_embeds=embedded, attention_mask=examples["attention_mask"]).logits


def bart_logits(model, examples, change):
    """Encoder and decoder embed with one weight; the decoder reads the same words, moved one to the right."""
    ids, mask = examples["input_ids"], examples["attention_mask"]
    encoder, decoder = model.model.encoder, model.model.decoder
    hidden = encoder(inputs_embeds=change(encoder.embed_tokens(ids)), attention_mask=mask).last_hidden_state
    moved = torch.cat([torch.full_like(ids[:, :1], model.config.decoder_start_token_id), ids[:, :-1]], dim=1)
    embedded = change(decoder.embed_tokens(moved))
    return model(ids, attention_mask=mask, encoder_outputs=(hidden,), decoder_inputs_embeds=embedded).logits


LOGITS = {"bert": bert_logits, "electra": bert_logits, "bart": bart_logits}


def divergence(noisy, clean):
    """Summed over classes and batch, divided by the examples, as fairseq's R3F has it."""
    p, q = F.log_softmax(noisy, -1), F.log_softmax(clean, -1)
    both = F.kl_div(p, q.exp(), reduction="sum") + F.kl_div(q, p.exp(), reduction="sum")
    return both / len(noisy)


def written_out(model, examples, noise, detach, family):
    """Two passes, one after the other; their loss and the gradient of every parameter."""
    model.zero_grad()
    torch.manual_seed(SEED)
    clean = LOGITS[family](model, examples, as_it_is)
    noisy = LOGITS[family](model, examples, lambda embedded: noised(embedded, noise, detach))
    if clean.shape[1] == 1:
        loss = (clean[:, 0] - examples["labels"]).square().mean() + WEIGHT * (noisy - clean).square().mean()
    else:
        loss = F.cross_entropy(clean, examples["labels"]) + WEIGHT * divergence(noisy, clean)
    loss.backward()
    return outcome(model, loss)


def by_dpstune(model, examples, noise, **settings):
    return by_method({"name": "r3f", "noise": noise, "sigma": SIGMA, "lambda": WEIGHT} | settings, model, examples)


def by_method(settings, model, examples):
    model.zero_grad()
    method = build_method(settings)
    method.attach(model, total_steps=10)
    torch.manual_seed(SEED)
    loss = method.loss(model, examples)
    loss.backward()
    method.detach()
    return outcome(model, loss)


def outcome(model, loss):
    return {
        "loss": loss.detach(),
        **{name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


class TestR3F:
    @pytest.mark.parametrize("detach", [True, False])
    @pytest.mark.parametrize("noise", some(["normal"], of=["normal", "uniform"]))
    @pytest.mark.parametrize("family", LOGITS)
    def test_gradients_of_every_parameter(self, family, noise, detach, passes):
        model = lively(family)
        expected = written_out(model, batch(), noise, detach, family)
        assert_same(by_dpstune(model, batch(), noise, detach=detach), expected)

    @pytest.mark.parametrize("detach", [True, False])
    def test_regression(self, detach, passes):
        model = lively(regression=True)
        expected = written_out(model, batch(regression=True), "normal", detach, "bert")
        assert_same(by_dpstune(model, batch(regression=True), "normal", detach=detach), expected)

    @pytest.mark.parametrize("detach", [True, False])
    def test_both_passes_draw_dropout(self, detach, monkeypatch):
        monkeypatch.setattr(twin, "TWIN_TOKENS", 0)  # draws in the order of two passes
        model = lively(dropout=0.3)
        expected = written_out(model, batch(), "normal", detach, "bert")
        assert_same(by_dpstune(model, batch(), "normal", detach=detach), expected)

    def test_the_published_way_is_the_default(self):
        model = lively()
        assert_same(by_dpstune(model, batch(), "normal"), by_dpstune(model, batch(), "normal", detach=True))

    @pytest.mark.parametrize("family", LOGITS)
    def test_the_setting_decides_on_the_word_embeddings_alone(self, family, passes):
        model = lively(family)
        published, other = (by_dpstune(model, batch(), "normal", detach=detach) for detach in (True, False))
        words = {name for name, p in model.named_parameters() if p is model.get_input_embeddings().weight}
        apart = {name for name in published if not torch.allclose(published[name], other[name], rtol=1e-8, atol=1e-12)}
        assert apart == words

    def test_the_clean_pass_alone_where_lambda_is_0(self, passes):
        model = lively()
        loss = F.cross_entropy(bert_logits(model, batch(), as_it_is), batch()["labels"])
        loss.backward()
        expected = outcome(model, loss)
        assert_same(by_dpstune(model, batch(), "normal", **{"lambda": 0.0}), expected)


class TestRDrop:
    @pytest.mark.parametrize("alpha", [1.0, 5.0])
    def test_gradients_of_every_parameter(self, alpha, monkeypatch):
        """The paper's loss, which the authors' fork of fairseq sums over a batch and divides by its examples."""
        monkeypatch.setattr(twin, "TWIN_TOKENS", 0)
        model = lively(dropout=0.3)
        torch.manual_seed(SEED)
        first, second = (bert_logits(model, batch(), as_it_is) for _ in range(2))
        labels = batch()["labels"]
        loss = F.cross_entropy(first, labels) + F.cross_entropy(second, labels) + alpha * divergence(first, second) / 2
        loss.backward()
        expected = outcome(model, loss)
        assert_same(by_method({"name": "r-drop", "alpha": alpha}, model, batch()), expected)


class TestChildTuningD:
    @given(
        st.lists(st.integers(0, 10**6), min_size=2, max_size=300, unique=True),
        st.floats(0.01, 0.99),
    )
    def test_the_interpolated_percentile_keeps_one_element_less_or_the_same(self, values, p):
        fisher = torch.tensor([values], dtype=torch.float32)
        method = build_method({"name": "child-tuning-d", "p": p})
        method.attach(torch.nn.Linear(len(values), 1, bias=False), total_steps=1)
        method.choose({"weight": fisher})
        published = fisher >= float(np.percentile(fisher.double().numpy(), (1 - p) * 100))
        assert not (published & ~method.masks["weight"]).any()
        assert method.masks["weight"].sum() - published.sum() in (0, 1)


def test_detach_is_true_or_false():
    with pytest.raises(RequestError, match="detach: should be a valid boolean"):
        build_method({"name": "r3f", "detach": "some"})
