"""What is told of texts that are cut, or that the model does not know."""

import pytest

from dpstune.data.examples import Examples
from dpstune.data.lengths import CutTexts, told_of_tokens
from tests.tiny import tiny_tokenizer


def rows(*texts):
    return Examples([str(number) for number in range(len(texts))], list(texts), None)


def test_cut_texts_are_told_from_a_tenth_of_the_rows_on():
    long, short = ("the cat " * 20,), ("the cat",)
    told = "1 of 10 training rows are longer than data.max_length 41 and are cut; the longest has 42 tokens"
    assert told_of_tokens(rows(long, *[short] * 9), tiny_tokenizer(), 41) == [told]  # with [CLS] and [SEP]
    assert told_of_tokens(rows(long, *[short] * 10), tiny_tokenizer(), 41) == []
    assert told_of_tokens(rows(long), tiny_tokenizer(), 42) == []


def test_both_texts_of_a_pair_count():
    told = "1 of 1 training rows are longer than data.max_length 9 and are cut; the longest has 10 tokens"
    assert told_of_tokens(rows(("the cat sleeps", "a dog runs .")), tiny_tokenizer(), 9) == [told]


@pytest.mark.parametrize(
    ("count", "of"), [(2000, "2000 training rows"), (4001, "1334 training rows that were looked at")]
)
def test_of_many_rows_some_are_looked_at_from_the_first_to_the_last(count, of):
    texts = [("the cat",)] * (count - 600) + [("the cat sleeps",)] * 600  # sorted, as by a label
    assert f"of {of} are longer than data.max_length 4 " in told_of_tokens(rows(*texts), tiny_tokenizer(), 4)[0]


def test_a_script_that_the_model_does_not_know_is_told_from_a_hundredth_of_the_rows_on():
    thai, known = ("แมว นอน cat",), ("the cat",)
    (told,) = told_of_tokens(rows(thai, *[known] * 99), tiny_tokenizer(), 9)
    assert told.startswith("1 of 100 training rows are mostly one unknown token to the model. Choose a model that was ")
    assert told_of_tokens(rows(thai, *[known] * 100), tiny_tokenizer(), 9) == []
    assert told_of_tokens(rows(("แมว the cat",)), tiny_tokenizer(), 9) == []
    pair = rows(("แมว", "นอน cat"))  # of six tokens, three are [CLS] and [SEP]
    assert len(told_of_tokens(pair, tiny_tokenizer(), 9)) == 1


def test_cut_texts_are_counted_as_they_come():
    long, short, full = ("the cat " * 4,), ("the cat",), ("the cat " * 3,)
    cut = CutTexts(tiny_tokenizer(), 8)
    assert cut.told() is None
    cut.add([short] * 8, [4] * 8)
    cut.add([full], [8])
    assert cut.told() is None
    cut.add([long], [8])
    assert cut.told() == "1 of 10 rows are longer than 8 tokens and are cut; the longest has 10 tokens"
    cut.add([short], [4])
    assert cut.told() is None
