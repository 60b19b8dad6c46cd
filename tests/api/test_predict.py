"""``dpstune.predict`` and ``dpstune.evaluate`` with the tiny run."""

import re

import pandas as pd
import pytest

import dpstune
from dpstune.errors import RequestError

PAIR = ("the cat", "a man")


def test_rows_in_every_form_have_the_same_prediction(tiny_run):
    frame = pd.DataFrame([PAIR], columns=["first", "second"])
    forms = [[PAIR], [list(PAIR)], [{"first": PAIR[0], "second": PAIR[1]}], frame]
    found = [dpstune.predict(tiny_run, rows)[["prediction", "score_yes", "score_no"]] for rows in forms]
    assert all(each.equals(found[0]) for each in found)
    assert len(found[0]) == 1


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a cat", "rows='a cat': should be a data frame or a list"),
        ({"first": ["a"], "second": ["b"]}, "should be a data frame or a list"),
        (7, "rows=7: should be a data frame or a list"),
        ([PAIR, ("a", "b", "c")], "rows:1 is ('a', 'b', 'c'); it should be a text, a pair of texts"),
        ([1, 2], "rows:0 is 1; it should be a text"),
        ([None], "rows:0 is None"),
    ],
)
def test_rows_that_are_none_are_refused_in_one_line(tiny_run, rows, told):
    with pytest.raises(RequestError, match=re.escape(told)):
        dpstune.predict(tiny_run, rows)


@pytest.mark.parametrize("text", [[], ["first", "second", "label"], 1])
def test_text_columns_are_one_or_two(tiny_run, text):
    with pytest.raises(RequestError, match="should name one column, or two of a pair"):
        dpstune.predict(tiny_run, [PAIR], text=text)


@pytest.mark.parametrize("function", [lambda model: dpstune.predict(model, [PAIR]), dpstune.evaluate])
def test_what_is_no_model_is_refused(function):
    with pytest.raises(RequestError, match="a model is a folder, or what train or fit returned, not 5"):
        function(5)
