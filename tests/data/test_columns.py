import csv

import pytest

from dpstune.data.columns import guess_columns, read_table, suggest_max_length
from dpstune.errors import RequestError


@pytest.fixture
def guess(tmp_path):
    """Write columns of equal length as a CSV, and guess."""

    def guess(columns, **told):
        return guess_columns(table(tmp_path, columns), **told)

    return guess


def table(folder, columns):
    path = folder / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return read_table(path)


REVIEWS = [f"This is review number {n} and it says a lot" for n in range(60)]
SHORT = [f"word{n} second{n}" for n in range(60)]
STARS = [str(n % 5 + 1) for n in range(60)]
YES_NO = [("yes", "no")[n % 2] for n in range(60)]
PRICES = [f"{n * 1.5}" for n in range(60)]
DATES = [f"2026-{n % 12 + 1:02}-{n // 12 + 1:02}" for n in range(60)]
NUMBERS = [str(n) for n in range(60)]


@pytest.mark.parametrize(
    ("columns", "text", "label", "kind"),
    [
        ({"review": REVIEWS, "stars": STARS}, ("review",), "stars", "classification"),
        ({"n": NUMBERS, "helpful": YES_NO, "review": REVIEWS}, ("review",), "helpful", "classification"),
        ({"review": REVIEWS, "price": PRICES}, ("review",), "price", "regression"),
        ({"price": PRICES, "answer": YES_NO, "review": REVIEWS}, ("review",), "answer", "classification"),
        ({"a": REVIEWS, "b": REVIEWS[::-1], "same": YES_NO}, ("a", "b"), "same", "classification"),
        ({"hypothesis": SHORT, "premise": REVIEWS, "label": YES_NO}, ("premise", "hypothesis"), "label", None),
        ({"question1": SHORT, "question2": REVIEWS, "label": YES_NO}, ("question1", "question2"), "label", None),
        ({"review": REVIEWS, "stars": STARS, "when": DATES}, ("review",), "stars", None),
        ({"author": SHORT, "review": REVIEWS, "mood": YES_NO}, ("review",), "mood", "classification"),
        ({"score": PRICES, "group": YES_NO, "review": REVIEWS}, ("review",), "score", "regression"),
        (
            {"topic": [f"topic {n % 30}" for n in range(600)], "r": [f"{n} is it not" for n in range(600)]},
            ("r",),
            "topic",
            None,
        ),
    ],
)
def test_what_is_guessed(guess, columns, text, label, kind):
    found = guess(columns)
    assert (found.text, found.label, found.kind) == (text, label, kind or "classification")


def test_numbers_with_a_comma_are_values_to_be_written_with_a_point(guess):
    prices = [price.replace(".", ",") for price in PRICES]
    found = guess({"review": REVIEWS, "price": prices})
    assert (found.label, found.why_label, found.kind) == ("price", "many numbers: 0 to 88.5", "regression")
    assert found.why_kind == "numbers with 60 different values; write them with a point and no comma"


def test_what_is_told_is_not_guessed(guess):
    columns = {"id": NUMBERS, "body": REVIEWS, "title": SHORT, "stars": STARS, "helpful": YES_NO}
    found = guess(columns, text="title", text2="body", label="helpful")
    assert (found.text, found.label) == (("title", "body"), "helpful")
    assert guess(columns, label="stars").why_label == "as --label says"
    assert "body" not in guess(columns, label="body").text


def test_columns_that_may_be_text_too_are_named(guess):
    found = guess({"a": REVIEWS, "b": [f"{text} more" for text in REVIEWS], "c": REVIEWS, "stars": STARS})
    assert found.text == ("b",)
    assert "'a', 'c' may be text, too: --text2 adds one" in found.why_text


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"label": "star"}, "no column 'star'; its columns are review, stars; did you mean 'stars'?"),
        ({"text": "revue"}, "did you mean 'review'?"),
        ({"text2": "review"}, "--text2 review: name the first text column, too"),
        ({"text": "review", "label": "review"}, "column 'review' is named twice"),
    ],
)
def test_what_is_told_wrong(guess, told, message):
    with pytest.raises(RequestError) as error:
        guess({"review": REVIEWS, "stars": STARS}, **told)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": NUMBERS, "b": STARS}, r"no column seems to hold text; say --text COLUMN \(its columns: a, b\)"),
        ({"review": REVIEWS, "id": NUMBERS}, r"no column seems to hold labels; say --label COLUMN"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(guess, columns, message):
    with pytest.raises(RequestError, match=message):
        guess(columns)


def test_a_table_without_rows(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\n")
    with pytest.raises(RequestError, match=r"train.csv holds no rows to look at"):
        read_table(tmp_path / "train.csv")


def test_the_suggested_length_holds_nearly_all_rows(tmp_path):
    rows = ["one two three"] * 98 + ["word " * 5000] * 2
    assert suggest_max_length(table(tmp_path, {"text": rows}), ["text"])[0] == 16
    assert suggest_max_length(table(tmp_path, {"text": rows[50:]}), ["text"])[0] == 512
    spaceless = table(tmp_path, {"text": ["東京は日本の首都である" * 4] * 9})
    assert suggest_max_length(spaceless, ["text"])[0] == 64
