import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.data.written_forms import label_form, number, text_form

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


WHOLE = st.integers(-(10**30), 10**30)


@given(WHOLE, st.one_of(WHOLE, st.integers(-3, 3)), st.booleans())
def test_two_whole_numbers_are_two(one, other, near):
    other = one + other if near else other
    assert (label_form(str(one)) == label_form(str(other))) == (one == other)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_two_numbers_are_two(one, other):
    assert (label_form(repr(one)) == label_form(repr(other))) == (one == other)


@given(st.integers(-(10**15), 10**15), st.integers(0, 6))
def test_a_number_is_written_with_an_exponent_or_without(digits, places):
    decimal = f"{digits / 10**places:.{places}f}"
    assert label_form(f"{digits}e-{places}") == label_form(f"{digits}E-{places:03}")
    if float(decimal) == digits / 10**places:
        assert label_form(f"{digits}e-{places}") == label_form(decimal) == label_form(decimal + "0" * (places > 0))


@given(st.from_regex(r"\s?[+-]?[0-9_.]{1,6}(e[+-]?[0-9_]{1,2})?\s?", fullmatch=True))
def test_a_number_is_what_python_reads_as_one_without_underscores(label):
    try:
        expected = None if "_" in label else float(label.strip())
    except ValueError:
        expected = None
    assert number(label) == expected


@pytest.mark.parametrize("label", ["nan", "inf", "-Infinity", "1e999", "1_0", "0x1", "", " ", ".", "e3", "1e", "1 0"])
def test_what_is_no_finite_decimal_is_no_number(label):
    assert number(label) is None


def test_digits_of_other_scripts_are_digits():
    assert (number("٣٫٥".replace("٫", ".")), number("１２")) == (3.5, 12.0)
    assert label_form("٠٣") == label_form("3.0") == label_form("３")


@pytest.mark.parametrize(
    ("one", "other"),
    [("yes", "no"), ("nan", "inf"), ("naïve", "naive"), ("1", "1%"), ("1_1", "11"), ("-1", "1")],
)
def test_what_differs_in_more_stays_two(one, other):
    assert label_form(one) != label_form(other)
