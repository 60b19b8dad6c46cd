"""Methods that freeze: what trains in five families, what is left alone to the bit, and what frozen weights take."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.models.loading import load_classifier, recompute_activations
from dpstune.models.structure import pooler
from dpstune.models.vocabulary import UsedWords, narrow
from dpstune.settings.sections import ModelSection, TrainingSection
from dpstune.training.optim import build_optimizer, parameter_groups
from tests.methods.test_twin import batch
from tests.tiny import FAMILIES, LAYERS, save_tiny_masked_lm, tiny_classifier

BITFIT = {"name": "bitfit"}
FREEZING = [BITFIT, {"name": "top-layers", "layers": 0}, {"name": "top-layers", "layers": 2}]
# What lies above the pre-trained part; BERT's pooler does not.
HEADS = {
    "bert": ("classifier.",),
    "roberta": ("classifier.",),
    "electra": ("classifier.",),
    "bart": ("classification_head.",),
    "deberta": ("pooler.", "classifier."),
    "distilbert": ("pre_classifier.", "classifier."),
    "albert": ("classifier.",),
}


def attached(settings, family="bert", **changes):
    model = tiny_classifier(family, num_labels=3, **changes).train()
    method = build_method(settings)
    method.attach(model, total_steps=10)
    return model, method


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names(model):
    return {name for name, _ in model.named_parameters()}


def by_settings(settings):
    return "-".join(map(str, settings.values()))


def steps_of(model, method, optimizer, count=3, examples=None):
    for _ in range(count):
        method.loss(model, examples or batch()).backward()
        method.before_clip()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        method.before_update()
        optimizer.step()
        optimizer.zero_grad()
        method.after_update()


def check_recomputed_gradients(model, method):
    """Gradients with activations kept, and with activations computed again, are those of what trains, and equal."""
    gradients = []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(0)
        method.loss(model, batch()).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        recompute_activations(model)
    assert gradients[0].keys() == gradients[1].keys() == trainable(model)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", ["bert", "albert", "gte"])
@pytest.mark.parametrize("method", ["bitfit", "lora"])
def test_a_pooler_that_the_checkpoint_lacks_trains_with_the_head(tmp_path, family, method):
    """A masked language model has none: the drawn one would stay random."""
    save_tiny_masked_lm(tmp_path, family)
    section = ModelSection(name=str(tmp_path))
    model = load_classifier(section, label_names=("a", "b"), kind="classification", dropout=None, seed=1)
    build_method({"name": method}).attach(model, total_steps=10)
    assert all(parameter.requires_grad for parameter in pooler(model).parameters())
    assert not model.get_input_embeddings().weight.requires_grad


class TestBitFit:
    @pytest.mark.parametrize("family", HEADS)
    def test_biases_and_the_head_train(self, family):
        model, _ = attached(BITFIT, family)
        head = HEADS[family]
        expected = {name for name in names(model) if name.endswith("bias") or name.startswith(head)}
        assert trainable(model) == expected
        assert any(name.endswith("weight") for name in expected)

    def test_of_berts_pooler_the_bias_trains_as_in_the_authors_code(self):
        model, _ = attached(BITFIT)
        assert {name for name in trainable(model) if "pooler" in name} == {"bert.pooler.dense.bias"}

    def test_debertas_biases_of_query_and_value_train(self):
        model, _ = attached(BITFIT, "deberta")
        assert {name.rpartition(".")[2] for name in trainable(model)} == {"weight", "bias", "q_bias", "v_bias"}

    def test_a_step_is_that_of_an_optimizer_over_these_parameters_alone(self):
        """Written out with torch: the same model, AdamW over the biases and the classifier, nothing frozen."""
        model, method = attached(BITFIT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        plain = copy.deepcopy(model).requires_grad_(True)
        chosen = [p for name, p in plain.named_parameters() if name.endswith("bias") or name.startswith("classifier")]
        other = torch.optim.AdamW(chosen, lr=0.01)
        trained = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        for _ in range(3):
            F.cross_entropy(plain(**{**batch(), "labels": None}).logits, batch()["labels"]).backward()
            nn.utils.clip_grad_norm_(chosen, 1.0)
            other.step()
            plain.zero_grad()
        steps_of(model, method, trained)
        for (name, one), two in zip(model.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8, msg=name)

    @pytest.mark.parametrize("family", ["modernbert"])
    def test_a_model_without_biases_is_refused_and_left_as_it_was(self, family):
        model = tiny_classifier(family)
        method = build_method(BITFIT)
        with pytest.raises(RequestError, match=r"^bitfit trains biases, and ModernBertFor\S+ has none below") as caught:
            method.attach(model, total_steps=1)
        assert "\n" not in str(caught.value)
        assert trainable(model) == names(model)

    def test_a_model_whose_biases_are_frozen_is_refused(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        model[0].bias.requires_grad_(False)
        with pytest.raises(RequestError, match="bitfit trains biases, and Sequential has none"):
            build_method(BITFIT).attach(model, total_steps=1)

    def test_nothing_can_be_set(self):
        with pytest.raises(RequestError, match="unknown key 'layers'"):
            build_method({"name": "bitfit", "layers": 2})


# Each family's layers from bottom to top, and what else lies above them.
LAYERS_OF = {
    "bert": ([f"bert.encoder.layer.{n}." for n in range(LAYERS)], ("bert.pooler.",)),
    "roberta": ([f"roberta.encoder.layer.{n}." for n in range(LAYERS)], ()),
    "electra": ([f"electra.encoder.layer.{n}." for n in range(LAYERS)], ()),
    "bart": ([f"model.{side}.layers.{n}." for side in ("encoder", "decoder") for n in range(LAYERS)], ()),
    "deberta": ([f"deberta.encoder.layer.{n}." for n in range(LAYERS)], ()),
    "distilbert": ([f"distilbert.transformer.layer.{n}." for n in range(LAYERS)], ()),
    "albert": (["albert.encoder.albert_layer_groups."], ("albert.pooler.",)),
}


class TestTopLayers:
    @pytest.mark.parametrize("family", ["gte", "nomic_bert"])
    def test_a_pooler_trains_also_where_it_is_declared_before_the_layers(self, family):
        model, _ = attached({"name": "top-layers", "layers": 1}, family)
        assert all(parameter.requires_grad for parameter in pooler(model).parameters())

    @pytest.mark.parametrize("family", LAYERS_OF)
    def test_the_top_layers_and_what_is_above_them_train(self, family):
        layers, above = LAYERS_OF[family]
        for count in range(len(layers) + 1):
            model, method = attached({"name": "top-layers", "layers": count}, family)
            top = tuple(layers[len(layers) - count :])
            expected = {name for name in names(model) if name.startswith((*top, *above, *HEADS[family]))}
            assert trainable(model) == expected, count
            method.detach()

    def test_modernberts_last_norm_trains(self):
        model, _ = attached({"name": "top-layers", "layers": 0}, "modernbert")
        assert {name.split(".")[0] for name in trainable(model)} == {"model", "head", "classifier"}
        assert {name for name in trainable(model) if name.startswith("model.")} == {"model.final_norm.weight"}

    @pytest.mark.parametrize("checkpointing", [False, True])
    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_below_the_trained_layers_there_is_no_graph(self, count, checkpointing):
        model, method = attached({"name": "top-layers", "layers": count})
        if checkpointing:
            recompute_activations(model)
        graphs = []
        for layer in model.bert.encoder.layer:
            layer.register_forward_hook(lambda module, inputs, output: graphs.append(output.requires_grad))
        method.loss(model, batch())
        assert graphs[:LAYERS] == [False] * (LAYERS - count) + [True] * count

    @pytest.mark.parametrize(
        ("value", "words"),
        [(-1, "layers: should be greater than or equal to 0"), (1.5, "layers: should be a valid integer")],
    )
    def test_bad_settings_are_one_line(self, value, words):
        with pytest.raises(RequestError, match=words) as caught:
            build_method({"name": "top-layers", "layers": value})
        assert "\n" not in str(caught.value)

    def test_more_layers_than_there_are(self):
        model = tiny_classifier()
        method = build_method({"name": "top-layers", "layers": 4})
        with pytest.raises(RequestError, match=r"^method.layers: 4 is more than the 3 layers of BertFor\w+$"):
            method.attach(model, total_steps=10)
        assert trainable(model) == names(model)

    def test_a_model_without_layers_is_refused(self):
        with pytest.raises(RequestError, match="Linear has no stack of layers"):
            build_method({"name": "top-layers"}).attach(nn.Linear(2, 2), total_steps=1)


@pytest.mark.parametrize("method_settings", FREEZING, ids=by_settings)
class TestFreezing:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_frozen_weights_keep_every_bit_and_the_others_move(self, method_settings, family):
        model, method = attached(method_settings, family)
        before = copy.deepcopy(model.state_dict())
        optimizer = build_optimizer(model, TrainingSection(learning_rate=0.05, weight_decay=0.1))
        steps_of(model, method, optimizer)
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        unused = {name for name in trainable(model) if name.endswith("key.bias") or name.endswith("k_proj.bias")}
        assert moved <= trainable(model)
        assert trainable(model) - moved <= unused, "a bias of all keys changes no attention"

    @pytest.mark.parametrize("family", FAMILIES)
    def test_frozen_weights_have_no_gradients_and_no_moments(self, method_settings, family):
        model, method = attached(method_settings, family)
        groups = parameter_groups(model, TrainingSection())
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
        optimizer = build_optimizer(model, TrainingSection())
        method.loss(model, batch()).backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} == trainable(model)
        optimizer.step()
        assert {id(parameter) for parameter in optimizer.state} <= set(grouped)
        moments = sum(state["exp_avg"].numel() for state in optimizer.state.values())
        assert moments == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert method.held_bytes() == 0

    @settings(max_examples=15)
    @given(data=st.data())
    def test_detaching_gives_back_what_required_gradients_before(self, method_settings, data):
        model = tiny_classifier(num_labels=3)
        for parameter in model.parameters():
            parameter.requires_grad_(data.draw(st.booleans()))
        model.bert.encoder.layer[2].output.dense.bias.requires_grad_(True)
        before = trainable(model)
        method = build_method(method_settings)
        method.attach(model, total_steps=3)
        during = trainable(model)
        assert during < before or during == before
        method.freeze(model)
        assert trainable(model) == during
        method.detach()
        assert trainable(model) == before
        method.detach()
        assert trainable(model) == before

    def test_what_is_frozen_for_a_loop_that_never_attaches_is_given_back(self, method_settings):
        model = tiny_classifier()
        method = build_method(method_settings)
        method.freeze(model)
        assert trainable(model) < names(model)
        method.detach()
        assert trainable(model) == names(model)

    def test_gradient_checkpointing_gives_the_same_gradients(self, method_settings):
        """The first layer's input requires no gradient; its biases still get theirs."""
        check_recomputed_gradients(*attached(method_settings))

    def test_frozen_word_embeddings_are_not_narrowed(self, method_settings):
        model, method = attached(method_settings, vocab_size=400)
        assert not isinstance(narrow(model, torch.arange(5, 20)), UsedWords)
        method.detach()
        assert isinstance(narrow(model, torch.arange(5, 20)), UsedWords)
