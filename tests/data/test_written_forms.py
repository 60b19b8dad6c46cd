import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.data.written_forms import label_form, text_form

TEXTS = st.text(max_size=30)
SPACES = st.text(alphabet=" \t\n\u00a0\u3000", min_size=1, max_size=3)


@given(TEXTS)
def test_a_form_is_its_own_form(text):
    assert text_form(text_form(text)) == text_form(text)
    assert label_form(label_form(text)) == label_form(text)


@given(TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_unicode_forms_are_one(text, form):
    assert text_form(unicodedata.normalize(form, text)) == text_form(text)


@given(TEXTS)
def test_case_does_not_count(text):
    assert text_form(text.casefold()) == text_form(text)


@given(st.lists(st.text("abcÄß東", min_size=1), min_size=1), SPACES, SPACES)
def test_spaces_do_not_count(words, between, around):
    assert text_form(around + between.join(words) + around) == text_form(" ".join(words))


@given(st.integers(-(10**9), 10**9), st.integers(0, 3))
def test_a_number_is_written_one_way(value, zeros):
    sign, digits = ("-" if value < 0 else ""), str(abs(value))
    forms = {label_form(f"{sign}{'0' * zeros}{digits}{tail}") for tail in ("", ".0", ".00", " ")}
    assert forms == {label_form(str(value))}


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_two_numbers_are_two(one, other):
    assert (label_form(str(one)) == label_form(str(other))) == (one == other)


@pytest.mark.parametrize(("one", "other"), [("yes", "no"), ("nan", "inf"), ("naïve", "naive"), ("1", "1%")])
def test_what_differs_in_more_stays_two(one, other):
    assert label_form(one) != label_form(other)
