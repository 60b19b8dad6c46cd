import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune.data.near_duplicates import ALIKE, _candidates, jaccard, near_pairs, shingle_set

WORDS = [f"{first}{second}{third}" for first in "bdklmst" for second in "aeiou" for third in "nprstx"]


def sentence(rng, length):
    return " ".join(rng.choices(WORDS, k=length))


def similarity(one, other):
    return min(jaccard(shingle_set(a), shingle_set(b)) for a, b in zip(one, other, strict=True))


def test_planted_near_duplicates_are_found():
    rng = random.Random(0)
    texts = [(sentence(rng, rng.randrange(8, 60)),) for _ in range(2000)]
    planted = []
    for position in range(0, 2000, 4):
        words = texts[position][0].split()
        for _ in range(1 + len(words) // 20):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts[position + 2] = (" ".join(words),)
        if similarity(texts[position], texts[position + 2]) >= ALIKE:
            planted.append((position, position + 2))
    found = {(pair.earlier, pair.later) for pair in near_pairs(texts, [0] * len(texts))}
    assert len(planted) > 100
    assert len(found.intersection(planted)) >= 0.99 * len(planted)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.text("ab ", max_size=14), st.text("cd é", max_size=14)), max_size=20),
    st.data(),
)
def test_what_is_found_is_that_alike_and_told_once(texts, data):
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)))
    pairs = near_pairs(texts, parts)
    for pair in pairs:
        assert pair.earlier < pair.later
        assert pair.similarity == similarity(texts[pair.earlier], texts[pair.later]) >= ALIKE
    partners = [(pair.later, parts[pair.earlier]) for pair in pairs]
    assert len(partners) == len(set(partners))


def test_both_texts_of_a_pair_must_be_alike():
    rng = random.Random(1)
    long, one, other = sentence(rng, 200), sentence(rng, 5), sentence(rng, 5)
    assert near_pairs([(long, one), (long, other)], [0, 0]) == []
    assert near_pairs([(one, other), (other, one)], [0, 0]) == []
    assert len(near_pairs([(long, one), (long + ".", one)], [0, 0])) == 1


def test_texts_shorter_than_a_shingle():
    pairs = near_pairs([("yes",), ("no",), ("yes",), ("",)], [0, 0, 0, 0])
    assert [(pair.earlier, pair.later) for pair in pairs] == [(0, 2)]


def alike(number):
    return (f"Dear customer, the ticket number {number} that you opened last week has been closed by us today.",)


def test_many_copies_of_one_pattern_cost_no_square():
    texts, parts = [alike(n) for n in range(5000)], [0] * 4000 + [1] * 1000
    candidates = sum(1 for _ in _candidates(texts, parts))
    assert candidates < 60 * len(texts)  # each with each would be 2,500 a text


def test_of_many_copies_of_one_pattern_each_is_found_in_each_part_before_it():
    texts, parts = [alike(n) for n in range(3000)], [0] * 2000 + [1] * 500 + [2] * 500
    found = {(pair.later, parts[pair.earlier]) for pair in near_pairs(texts, parts)}
    assert found == {
        (later, part)
        for later in range(1, 3000)
        for part in range(3)
        if later > parts.index(part) and part <= parts[later]
    }


def test_one_text_of_a_part_is_found_behind_many_of_another():
    texts = [alike("one"), *(alike(n) for n in range(200))]
    across = [pair.later for pair in near_pairs(texts, [0] + [1] * 200) if pair.earlier == 0]
    assert across == list(range(1, 201))
