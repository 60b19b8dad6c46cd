"""Cutting rows into parts: nothing is lost, nothing stands on both sides, each label has its share."""

from collections import Counter, defaultdict

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from dpstune.data.splitting import split_rows
from dpstune.data.written_forms import text_form
from dpstune.errors import RequestError

# A label, a text of few, so that some are equal, and a group of few or none.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from("abcdefgh") | st.text(min_size=5),
        st.none() | st.integers(0, 9),
    ),
    min_size=1,
    max_size=60,
)
SHARES = st.sampled_from([[0.8, 0.2], [0.6, 0.2, 0.2], [0.1, 0.9], [1 / 3] * 3, [0.2] * 5])


def cut(rows, shares, seed=0, **options):
    labels, texts, groups = zip(*rows, strict=True)
    return split_rows(labels, [(text,) for text in texts], groups, shares=shares, seed=seed, **options)


@given(rows=ROWS, shares=SHARES, seed=st.integers(0, 99), values=st.booleans())
def test_every_row_is_in_one_part_and_what_belongs_together_in_the_same(rows, shares, seed, values):
    try:
        parts = cut(rows, shares, seed, values=values)
    except RequestError:  # fewer that may stand apart than parts
        reject()
    assert parts == cut(rows, shares, seed, values=values)
    assert sorted(row for part in parts for row in part) == list(range(len(rows)))
    assert all(part == sorted(part) for part in parts)
    seen = defaultdict(set)
    for number, part in enumerate(parts):
        for row in part:
            _, text, group = rows[row]
            seen["text", text_form(text)].add(number)
            seen["group", group].add(number)
    seen.pop(("group", None), None)
    assert all(len(found) == 1 for found in seen.values())


@given(labels=st.lists(st.integers(0, 3), min_size=10, max_size=80), shares=SHARES, seed=st.integers(0, 99))
def test_where_rows_stand_alone_each_part_has_its_share_of_every_label(labels, shares, seed):
    parts = split_rows(labels, [(str(row),) for row in range(len(labels))], shares=shares, seed=seed)
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - share * len(labels)) < 2
        counts = Counter(labels[row] for row in part)
        assert all(abs(counts[label] - share * count) < 1 for label, count in Counter(labels).items())


@given(rows=ROWS, folds=st.integers(2, 6))
def test_no_fold_is_empty(rows, folds):
    assume(len(rows) >= folds)
    labels = [label for label, *_ in rows]
    assert all(split_rows(labels, [(str(row),) for row in range(len(rows))], shares=[1 / folds] * folds))


def test_a_rare_label_is_in_every_fold_where_there_is_one_for_each():
    parts = split_rows([0] * 95 + [1] * 5, [(str(row),) for row in range(100)], shares=[0.2] * 5)
    assert [len(part) for part in parts] == [20] * 5
    assert [sum(row >= 95 for row in part) for part in parts] == [1] * 5


def test_groups_are_dealt_out_so_that_labels_keep_their_shares():
    rows = [(int(group % 4 == 0), f"{group} {row}", group) for group in range(40) for row in range(1 + group % 3)]
    _, held = cut(rows, [0.75, 0.25])
    share = Counter(label for label, *_ in rows)[1] / len(rows)
    assert len(held) == pytest.approx(len(rows) / 4, abs=2)
    assert sum(rows[row][0] for row in held) / len(held) == pytest.approx(share, abs=0.05)


def test_values_have_low_and_high_ones_in_every_part():
    values = [n / 100 for n in range(100)]
    parts = split_rows(values, [(str(n),) for n in range(100)], shares=[0.8, 0.2], values=True)
    assert [sum(values[row] < 0.5 for row in part) for part in parts] == [40, 10]


def test_a_row_may_have_several_labels():
    labels = [("a", "b"), ("a",), ("b",), ()] * 10
    first, second = split_rows(labels, [(str(n),) for n in range(40)], shares=[0.5, 0.5])
    assert [Counter(label for row in part for label in labels[row]) for part in (first, second)] == [
        Counter(a=10, b=10)
    ] * 2


def test_fewer_rows_that_may_stand_apart_than_parts_are_refused():
    with pytest.raises(RequestError, match="4 rows cannot make 3 parts: there are 2 that may stand in different ones"):
        split_rows([0, 1, 0, 1], [("a",), ("A",), ("b",), ("c",)], [None, None, 7, 7], shares=[1 / 3] * 3)


def test_another_seed_draws_other_parts():
    rows = [(n % 2, str(n), None) for n in range(40)]
    assert len({str(cut(rows, [0.8, 0.2], seed)) for seed in range(8)}) == 8


def test_the_parts_are_the_same_as_ever():
    """What was drawn once is drawn again by every later version: runs are found by it."""
    rows = [(n % 3, f"text {n}", f"g{n % 11}") for n in range(30)]
    assert cut(rows, [0.6, 0.2, 0.2])[1:] == RECORDED


RECORDED = [[2, 6, 13, 17, 24, 28], [5, 9, 10, 16, 20, 21, 27]]


@pytest.mark.parametrize("same", ["A  cat.", " a cat. ", "Ａ cat.", "a\tcat.\n"])
def test_texts_are_equal_whatever_their_case_forms_and_spaces(same):
    assert text_form(same) == "a cat."


def test_a_pair_is_equal_to_another_only_in_both_texts():
    texts = [("a", "b"), ("A", "B "), ("a", "c"), ("b", "a")]
    parts = split_rows([0, 0, 1, 1], texts, shares=[1 / 3] * 3)
    assert sorted(map(len, parts)) == [1, 1, 2]
    assert [0, 1] in parts
