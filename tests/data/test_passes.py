"""Chunks are cut into the cheapest forward passes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune.data.passes import NEVER_CUT, PassCost, cut_into_passes, rounded_width

LENGTHS = st.lists(st.integers(1, 128), min_size=1, max_size=6)
MOST = st.one_of(st.just(float("inf")), st.integers(1, 400))


def total(passes, cost):
    return sum(cost.tokens + len(taken.indices) * taken.width for taken in passes)


def partitions(items):
    """Every way to put items into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in partitions(rest):
        yield [[first], *groups]
        for number, group in enumerate(groups):
            yield [*groups[:number], [first, *group], *groups[number + 1 :]]


@settings(max_examples=40)
@given(lengths=LENGTHS, pass_tokens=st.integers(0, 300), most_tokens=MOST)
def test_no_cut_is_cheaper(lengths, pass_tokens, most_tokens):
    cost = PassCost(pass_tokens)

    def fits(groups):
        return all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= most_tokens for g in groups)

    def price(groups):
        return sum(pass_tokens + len(part) * max(lengths[i] for i in part) for part in groups)

    passes = cut_into_passes(range(len(lengths)), lengths, cost, longest=128, most_tokens=most_tokens)
    assert sorted(index for taken in passes for index in taken.indices) == list(range(len(lengths)))
    assert fits([taken.indices for taken in passes])
    cheapest = min(price(g) for g in partitions(list(range(len(lengths)))) if fits(g))
    assert total(passes, cost) == cheapest


@given(
    lengths=st.lists(st.integers(1, 128), min_size=1, max_size=48),
    pass_tokens=st.integers(0, 600),
    most_tokens=st.one_of(st.just(float("inf")), st.integers(1, 4096)),
    longest=st.integers(128, 140),
)
def test_few_shapes_occur_and_every_example_fits(lengths, pass_tokens, most_tokens, longest):
    cost = PassCost(pass_tokens, few_shapes=True)
    passes = cut_into_passes(range(len(lengths)), lengths, cost, longest=longest, most_tokens=most_tokens)
    assert sorted(index for taken in passes for index in taken.indices) == list(range(len(lengths)))
    for taken in passes:
        assert max(lengths[index] for index in taken.indices) <= taken.width <= longest
        assert taken.width in (*range(8, 65, 8), 80, 96, 112, 128, longest)
        assert len(taken.indices) == 1 or len(taken.indices) * taken.width <= most_tokens
    if most_tokens >= 4 * longest:
        assert all(len(taken.indices) % 4 == 0 for taken in passes[:-1])


def test_where_a_pass_costs_much_there_are_as_few_as_can_be():
    lengths = [1 + i * 31 % 97 for i in range(48)]
    assert len(cut_into_passes(range(48), lengths, NEVER_CUT, longest=128)) == 1
    assert len(cut_into_passes(range(48), [128] * 48, NEVER_CUT, longest=128, most_tokens=2048)) == 3


@pytest.mark.parametrize(("longest", "width"), [(1, 8), (32, 32), (33, 40), (128, 128), (129, 160), (300, 320)])
def test_wider_passes_are_rounded_to_wider_multiples(longest, width):
    assert rounded_width(longest, most=512) == width
