"""Hidden states of texts: the mean over their tokens, layer by layer, whatever the batches and the family."""

import pytest
import torch

from dpstune.data.examples import Examples
from dpstune.data.tokens import encode
from dpstune.evaluation.states import load_encoder, mean_states
from dpstune.models.loading import load_tokenizer
from dpstune.settings.sections import ModelSection
from tests.tiny import FAMILIES, LAYERS, save_tiny_model, some

TEXTS = ["the cat sleeps", "a", "the dog is not in the house", "man", "a cat runs in a house"]


@pytest.mark.parametrize(
    "family", some(["bert", "bart"], of=[*FAMILIES, "deberta-v2", "distilbert", "albert", "modernbert"])
)
def test_each_text_has_the_mean_of_its_tokens_in_each_layer(family, tmp_path):
    save_tiny_model(tmp_path, family)
    section = ModelSection(name=str(tmp_path))
    encoder = load_encoder(section)
    examples = Examples([str(n) for n in range(len(TEXTS))], [(text,) for text in TEXTS], None)
    tokens = encode(examples, load_tokenizer(section), 32)
    found = mean_states(encoder, tokens, batch_size=2)
    assert found.shape == (len(TEXTS), LAYERS + 1, 16)
    assert found.dtype == torch.float32
    for row in range(len(TEXTS)):
        inputs = tokens.collate([row])
        with torch.no_grad():
            alone = encoder(**inputs, output_hidden_states=True)
        for layer, states in enumerate(alone.hidden_states):
            torch.testing.assert_close(found[row, layer], states[0].mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found[row, -1], alone.last_hidden_state[0].mean(0), atol=1e-5, rtol=1e-4)
    last = mean_states(encoder, tokens, batch_size=5, last_only=True)
    torch.testing.assert_close(last, found[:, -1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_the_last_layers_states_are_those_a_head_is_given_and_the_others_are_not_kept(tied, tmp_path):
    """ModernBERT normalises once more after its layers; untied, its ``hidden_states`` end before that."""
    save_tiny_model(tmp_path, "modernbert", tie_last_hidden_states=tied)
    section = ModelSection(name=str(tmp_path))
    encoder = load_encoder(section)
    examples = Examples([str(n) for n in range(len(TEXTS))], [(text,) for text in TEXTS], None)
    tokens = encode(examples, load_tokenizer(section), 32)
    every = mean_states(encoder, tokens, batch_size=2)
    kept = []
    encoder.register_forward_hook(lambda module, inputs, outputs: kept.append(outputs.hidden_states))
    torch.testing.assert_close(mean_states(encoder, tokens, batch_size=2, last_only=True), every[:, -1:])
    assert kept == [None] * 3


def test_of_a_model_with_a_decoder_the_encoder_is_read(tmp_path):
    save_tiny_model(tmp_path, "bart")
    assert type(load_encoder(ModelSection(name=str(tmp_path)))).__name__ == "BartEncoder"
