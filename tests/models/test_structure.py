"""Layers, pooler, embeddings and head of the real classes, found by structure."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig

from dpstune.errors import RequestError
from dpstune.models.structure import (
    configured_layers,
    encoder_layers,
    encoder_parameters,
    initialize_again,
    parameter_depths,
    pooler,
    value_layer,
    word_embeddings,
)
from tests.tiny import LAYERS, VOCABULARY, tiny_classifier, tiny_config

# Family: the layers' class, from bottom to top; the pooler's class; prefixes of what lies below the layers, of what
# lies above them in the base model, and of the head.
EXPECTED = {
    "bert": (["BertLayer"] * 3, "BertPooler", ["bert.embeddings"], ["bert.pooler"], ["classifier"]),
    "roberta": (["RobertaLayer"] * 3, None, ["roberta.embeddings"], [], ["classifier"]),
    "electra": (
        ["ElectraLayer"] * 3,
        None,
        ["electra.embeddings", "electra.embeddings_project"],
        [],
        ["classifier"],
    ),
    "bart": (
        ["BartEncoderLayer"] * 3 + ["BartDecoderLayer"] * 3,
        None,
        [
            "model.shared",
            *(f"model.{side}.{part}" for side in ("encoder", "decoder") for part in ("embed", "layernorm_embedding")),
        ],
        [],
        ["classification_head"],
    ),
    "deberta": (
        ["DebertaLayer"] * 3,
        "ContextPooler",
        ["deberta.embeddings", "deberta.encoder.rel_embeddings"],
        [],
        ["pooler", "classifier"],
    ),
    "deberta-v2": (
        ["DebertaV2Layer"] * 3,
        "ContextPooler",
        ["deberta.embeddings", "deberta.encoder.rel_embeddings", "deberta.encoder.LayerNorm"],
        [],
        ["pooler", "classifier"],
    ),
    "distilbert": (["TransformerBlock"] * 3, None, ["distilbert.embeddings"], [], ["pre_classifier", "classifier"]),
    "albert": (
        ["AlbertLayerGroup"],  # one layer, used three times
        "Linear",
        ["albert.embeddings", "albert.encoder.embedding_hidden_mapping_in"],
        ["albert.pooler"],
        ["classifier"],
    ),
    "modernbert": (
        ["ModernBertEncoderLayer"] * 3,
        None,
        ["model.embeddings"],
        ["model.final_norm"],
        ["head", "classifier"],
    ),
}
families = pytest.mark.parametrize("family", EXPECTED)


@families
def test_layers_from_bottom_to_top(family):
    model = tiny_classifier(family)
    layers = encoder_layers(model)
    assert [type(layer).__name__ for layer in layers] == EXPECTED[family][0]
    called = []
    for layer in layers:
        layer.register_forward_hook(lambda module, *_: called.append(module))
    model(input_ids=torch.tensor([[2, 8, 9, 3]]))
    assert list(dict.fromkeys(called)) == layers


@families
def test_the_configuration_says_how_many_layers_there_are(family):
    assert configured_layers(tiny_config(family)) == len(encoder_layers(tiny_classifier(family)))


def test_a_configuration_may_say_nothing_of_layers():
    assert configured_layers(PretrainedConfig()) is None


@families
def test_pooler_and_word_embeddings(family):
    model = tiny_classifier(family)
    found = pooler(model)
    assert (None if found is None else type(found).__name__) == EXPECTED[family][1]
    embeddings = word_embeddings(model)
    called = set()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == len(VOCABULARY):
            module.register_forward_hook(lambda module, *_: called.add(module))
    model(input_ids=torch.tensor([[2, 8, 9, 3]]))
    assert called
    assert called <= set(embeddings)


@families
def test_depths_of_layerwise_rates(family):
    """Clark et al. 2020: embeddings 0, layer i at i + 1, head n + 2; what stands between layers and head n + 1."""
    model = tiny_classifier(family)
    layers, _, below, above, head = EXPECTED[family]
    depths, head_depth = parameter_depths(model)
    assert head_depth == len(layers) + 2
    assert set(depths) == {name for name, _ in model.named_parameters()}
    names = {id(module): name for name, module in model.named_modules()}
    prefixes = {names[id(layer)]: number + 1 for number, layer in enumerate(encoder_layers(model))}
    prefixes |= dict.fromkeys(below, 0) | dict.fromkeys(above, len(layers) + 1) | dict.fromkeys(head, len(layers) + 2)
    for name, depth in depths.items():
        (expected,) = {prefixes[prefix] for prefix in prefixes if name.startswith(prefix)}
        assert depth == expected, name


@pytest.mark.parametrize(
    ("family", "above"),
    [
        ("gte", "gte.pooler.dense"),
        ("nomic_bert", "nomic_bert.pooler.dense"),
        ("t5", "transformer.decoder.final_layer_norm"),
        ("mbart", "model.decoder.layer_norm"),
        ("megatron-bert", "bert.encoder.ln"),
        ("xlm-roberta-xl", "roberta.encoder.LayerNorm"),
        ("esm", "esm.encoder.emb_layer_norm_after"),
    ],
)
def test_poolers_and_last_norms_are_above_the_layers_wherever_they_are_declared(family, above):
    depths, head = parameter_depths(tiny_classifier(family))
    assert depths[f"{above}.weight"] == head - 1


def test_the_embedding_of_relative_positions_is_not_above_the_layers():
    depths, _ = parameter_depths(tiny_classifier("mpnet"))
    assert depths["mpnet.encoder.relative_attention_bias.weight"] == 0


@families
def test_initialisation_again_is_the_models_own_and_touches_nothing_else(family):
    model = tiny_classifier(family, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
            parameter._is_hf_initialized = True  # as after from_pretrained
    top = encoder_layers(model)[-1]
    torch.manual_seed(5)
    expected_draw = torch.rand(2)
    torch.manual_seed(5)
    initialize_again(model, top, seed=1)
    assert torch.equal(torch.rand(2), expected_draw)
    fresh = encoder_layers(tiny_classifier(family, seed=4))[-1]
    inside = {id(parameter) for parameter in top.parameters()}
    for parameter in model.parameters():
        assert (id(parameter) in inside) or bool((parameter == 7.0).all())
    for parameter, new in zip(top.parameters(), fresh.parameters(), strict=True):
        if new.unique().numel() == 1:  # biases and norms start as constants
            assert torch.equal(parameter, new)
        else:
            assert abs(parameter.std() / new.std() - 1) < 0.5
    before = [parameter.clone() for parameter in top.parameters()]
    initialize_again(model, top, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(before, top.parameters(), strict=True))


def test_a_model_that_keeps_the_parts_of_its_layers_apart_is_refused():
    config = AutoConfig.for_model("xlm", vocab_size=40, emb_dim=16, n_layers=3, n_heads=2)
    with pytest.raises(RequestError, match="XLMForSequenceClassification has no stack of layers that dpstune could"):
        encoder_layers(AutoModelForSequenceClassification.from_config(config))


@pytest.mark.parametrize("activation", [None, "tanh"])
def test_a_layer_below_an_activation_gives_no_values(activation):
    shape = {"vocab_size": 40, "emb_dim": 16, "n_layers": 1, "n_heads": 2, "num_labels": 1}
    config = AutoConfig.for_model("xlm", **shape, summary_activation=activation)
    model = AutoModelForSequenceClassification.from_config(config)
    assert (value_layer(model, "regression") is None) == (activation == "tanh")
    assert value_layer(model, "classification") is None


def test_a_model_that_embeds_no_words_names_none():
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("canine", **shape))
    with pytest.raises(RequestError, match="CanineForSequenceClassification has no word embeddings"):
        word_embeddings(model)


def test_encoder_parameters_are_the_layers():
    names = encoder_parameters(tiny_classifier("bert"))
    assert all(name.startswith("bert.encoder.layer.") for name in names)
    assert len(names) == 16 * LAYERS


def test_a_bare_network_is_all_encoder():
    assert list(encoder_parameters(nn.Linear(2, 2))) == ["weight", "bias"]


@pytest.mark.parametrize("find", [encoder_layers, word_embeddings, parameter_depths])
def test_a_network_without_them_is_refused(find):
    with pytest.raises(RequestError, match="Linear has no"):
        find(nn.Linear(2, 2))
