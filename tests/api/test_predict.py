"""``dpstune.predict`` and ``dpstune.evaluate`` with the tiny run."""

import re

import numpy as np
import pandas as pd
import pytest

import dpstune
from dpstune.api.results import SweepResult
from dpstune.errors import RequestError

PAIR = ("the cat", "a man")


def test_rows_in_every_form_have_the_same_prediction(tiny_run):
    frame = pd.DataFrame([PAIR], columns=["first", "second"])
    forms = [[PAIR], [list(PAIR)], [{"first": PAIR[0], "second": PAIR[1]}], frame]
    found = [dpstune.predict(tiny_run, rows)[["prediction", "score_yes", "score_no"]] for rows in forms]
    assert all(each.equals(found[0]) for each in found)
    assert len(found[0]) == 1


def test_a_data_frame_keeps_its_index_and_columns_and_a_series_its_index(tiny_run):
    frame = pd.DataFrame({"first": ["the cat", "a dog"], "second": "a man", 3: [1, 2]}, index=[7, 5])
    found = dpstune.predict(tiny_run, frame)
    assert found[frame.columns].equals(frame)
    assert found.columns.tolist()[3:] == ["prediction", "score_no", "score_yes"]
    assert found.loc[[5]].equals(dpstune.predict(tiny_run, frame.loc[[5]]))
    pairs = pd.Series([("the cat", "a man"), ("a dog", "a man")], [7, 5])
    assert dpstune.predict(tiny_run, pairs).prediction.equals(found.prediction)


def test_a_data_frame_without_rows_has_the_columns_too(tiny_run):
    found = dpstune.predict(tiny_run, pd.DataFrame({"first": [], "second": []}))
    assert found.columns.tolist() == ["first", "second", "prediction", "score_no", "score_yes"]
    assert found.empty


@pytest.mark.parametrize("gap", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT], ids=repr)
def test_a_missing_text_is_an_empty_one(tiny_run, gap):
    empty, given = ([{"first": "the cat", "second": second}] for second in ("", gap))
    assert dpstune.predict(tiny_run, given).score_yes.equals(dpstune.predict(tiny_run, empty).score_yes)
    with pytest.raises(RequestError, match="rows:0: no text in first and second"):
        dpstune.predict(tiny_run, pd.DataFrame({"first": [gap], "second": [gap]}))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (pd.DataFrame([["a", "b"]], columns=["first", "first"]), "two columns are called 'first'"),
        (pd.DataFrame([["a", "b"]], columns=["0", 0]), "two columns are called '0'"),
        (pd.DataFrame({"first": ["a"], "second": ["b"], "score_no": [1]}), "a column is called 'score_no'"),
        ([{"first": "a", "second": "b", "prediction": "no"}], "a column is called 'prediction'"),
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


def test_a_sweep_stands_for_its_best_run(tiny_run):
    swept = SweepResult(tiny_run.parent, [], best_run=tiny_run)
    assert dpstune.predict(swept, [PAIR]).equals(dpstune.predict(tiny_run, [PAIR]))


@pytest.mark.parametrize("given", [-1, 0, 3, "8", 8.0, True])
@pytest.mark.parametrize("function", [lambda *more, **named: dpstune.predict(*more, [PAIR], **named), dpstune.evaluate])
def test_a_max_length_is_a_whole_number_of_four_or_more(tiny_run, given, function):
    with pytest.raises(RequestError, match=re.escape(f"max_length={given!r}: should be a whole number, 4 or more")):
        function(tiny_run, max_length=given)


def test_a_task_is_a_name_a_path_or_a_data_frame(tiny_run):
    with pytest.raises(RequestError, match=r"7 should be a name, a path or a pandas data frame"):
        dpstune.evaluate(tiny_run, 7)


@pytest.mark.parametrize("text", [[], ["first", "second", "label"], 1])
def test_text_columns_are_one_or_two(tiny_run, text):
    with pytest.raises(RequestError, match="should name one column, or two of a pair"):
        dpstune.predict(tiny_run, [PAIR], text=text)


@pytest.mark.parametrize("function", [lambda model: dpstune.predict(model, [PAIR]), dpstune.evaluate])
def test_what_is_no_model_is_refused(function):
    with pytest.raises(RequestError, match="a model is a folder, or what train, fit or sweep returned, not 5"):
        function(5)
