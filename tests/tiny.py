"""Tiny models of the real classes, with random weights and a tokenizer of their own."""

import string
from importlib.util import find_spec

import pytest

from dpstune.methods import REGISTRY, method_class

FAMILIES = ["bert", "roberta", "electra", "bart", "deberta"]
WORDS = ["the", "a", "cat", "dog", "man", "house", "in", "is", "not", "sleeps", "runs"]
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ","),
    *WORDS,
    *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
]
LAYERS = 3
_SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "cls_token_id": 2,
    "bos_token_id": 2,
    "sep_token_id": 3,
    "eos_token_id": 3,
}
_OWN_KEYS = {
    "electra": {"embedding_size": 12},
    "albert": {"embedding_size": 12},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "bart": {
        "d_model": 16,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "decoder_start_token_id": 3,
    },
    "distilbert": {"dim": 16, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 32},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
}
WITHOUT_PEFT = find_spec("peft") is None
METHODS = [name for name in REGISTRY if not (WITHOUT_PEFT and name == "lora")]  # those that can be trained here
LEARNING = [name for name in REGISTRY if method_class(name).learns_by_steps]  # those whose steps change the model
FREEZING = ("bitfit", "top-layers", "linear-probe", "lora")  # methods under which layers stay as they were drawn
# For those: layers of small random weights would tell the layers above nothing of the words.
LIVELY = {"initializer_range": 0.6, "init_std": 0.6}


def pairs(families, methods, parts=None):
    """Return every family with every method; each family with one of them is quick, the rest slow.

    Args:
        families: Their names.
        methods: Likewise.
        parts: Of the five parts that the pairs are dealt into, those to return; all five without it. Each part has
            every method with a fifth of the families, and every family with a fifth of the methods.
    """
    last = len(methods) - 1
    dealt = range(5) if parts is None else parts
    return [
        pytest.param(family, method, marks=[] if is_quick else [pytest.mark.slow])
        for column, family in enumerate(families)
        for row, method in enumerate(methods)
        if (is_quick := row == (last - 2 * column) % len(methods)) or (row + column) % 5 in dealt
    ]


def some(quick, of):
    """Return all values, those that are not quick marked slow."""
    return [pytest.param(value, marks=[] if value in quick else [pytest.mark.slow]) for value in of]


def tiny_config(family="bert", **changes):
    """A configuration of a family's real class, three layers of 16 units."""
    from transformers import AutoConfig

    return AutoConfig.for_model(family, **{**_SHAPE, **_OWN_KEYS.get(family, {}), **changes})


def tiny_tokenizer():
    """A WordPiece tokenizer that knows a few words and every letter."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    index = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(index, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=64,
    )


def tiny_classifier(family="bert", seed=0, **changes):
    """A classifier of a family's real class with random weights."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(tiny_config(family, **changes))


def save_tiny_model(folder, family="bert", **changes):
    """Write a pre-trained encoder's folder: weights without a head, config, tokenizer."""
    tiny_classifier(family, **changes).base_model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def save_tiny_masked_lm(folder, family="bert", **changes):
    """Write the folder of a masked language model, which has a head of its own and may have no pooler; return it."""
    import torch
    from transformers import AutoModelForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(tiny_config(family, **changes))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model
