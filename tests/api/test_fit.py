"""``dpstune.fit`` on tables of two kinds of sentences."""

import re
import stat

import numpy as np
import pandas as pd
import pytest

import dpstune
from dpstune.api.frames import write_frame
from dpstune.api.results import CaseStudyResult, FitResult
from dpstune.data.sources import Columns, read_files
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.report.wrong_labels import write_wrong_labels
from dpstune.studies.wrong_labels import Suspect

FEW = {"training": {"steps": 2, "warmup_steps": 0}, "runs": 2, "folds": 2, "quiet": True}


@pytest.fixture
def rows():
    """Forty rows, with columns that a fit has no use for."""
    return pd.DataFrame(
        {
            "message": [f"{('the', 'a')[n % 2]} cat {chr(97 + n % 26)} {chr(97 + n // 26)}" for n in range(40)],
            "topic": ["yes", "no"] * 20,
            "of lists": [[n] for n in range(40)],
            "mixed": ["text", 1, None, [2]] * 10,
        }
    )


def written(frame, place, text=("text",), label="label", **more):
    first, *others = text
    file = write_frame(frame, {"text": first, "label": label}, [*others, *more.values()], place)
    return read_files([file], Columns(text, label))


def test_a_frame_is_written_with_the_columns_that_are_read(rows, tmp_path):
    found = written(rows, tmp_path, ("message",), "topic")
    assert [text for (text,) in found.texts] == rows["message"].tolist()
    assert found.labels == rows["topic"].tolist()
    again = rows.drop(columns=["of lists", "mixed"])
    assert written(again, tmp_path, ("message",), "topic").source == found.source
    assert written(again[::-1], tmp_path, ("message",), "topic").source != found.source


@pytest.mark.parametrize("earlier", [None, 0o755])
def test_nobody_else_can_read_a_frame_that_was_written(rows, tmp_path, earlier):
    place = tmp_path / "runs" / ".tables"
    if earlier is not None:
        place.mkdir(parents=True)
        place.chmod(earlier)
    written(rows, place, ("message",), "topic")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_cells_of_several_kinds_are_read_as_those_of_a_file_are(tmp_path):
    frame = pd.DataFrame(
        {"text": ["a", 2, 2.0, 0.5], "label": ["yes", 1.0, None, np.nan], "pairID": ["p", 7, None, [1]]}
    )
    found = written(frame, tmp_path)
    assert found.texts == [("a",), ("2",), ("2",), ("0.5",)]
    assert found.labels == ["yes", "1", None, None]
    assert found.ids == ["p", "7", "2", "[1]"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pd.cut(np.array([1, 5]), [0, 3, 6]), ["(0, 3]", "(3, 6]"]),
        (pd.PeriodIndex(["2020-01", "2021-01"], freq="M"), ["2020-01", "2021-01"]),
        (pd.Categorical([2.0, None]), ["2", None]),
        (pd.Categorical(["no", "yes"]), ["no", "yes"]),
    ],
    ids=["intervals", "periods", "categories of numbers", "categories"],
)
def test_labels_of_pandas_own_kinds_are_as_they_are_written(tmp_path, labels, expected):
    assert written(pd.DataFrame({"text": ["a", "b"], "label": labels}), tmp_path).labels == expected


@pytest.mark.parametrize(
    ("index", "ids"),
    [
        (None, ["0", "1"]),
        (["T7", "T2"], ["T7", "T2"]),
        ([5, 3], ["5", "3"]),
        ([1, 1], ["0", "1"]),
        (pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), ["('a', 1)", "('b', 2)"]),
        ([1, None], ["0", "1"]),
        (pd.Index(["\ud800", "b"], dtype=object), ["?", "b"]),
    ],
)
def test_an_index_that_names_rows_is_their_ids(tmp_path, index, ids):
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["yes", "no"]}, index=index)
    assert written(frame, tmp_path).ids == ids
    assert written(frame.assign(id=["p", "q"]), tmp_path).ids == ["p", "q"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"runs": "2"}, "runs='2': should be a whole number, 1 or more"),
        ({"folds": 1}, "folds=1: should be a whole number, 2 or more"),
        ({"minutes": pd.Timedelta("1min")}, "minutes=Timedelta('0 days 00:01:00'): should be a number"),
        ({"label": pd.Series(["yes"])}, "label=0 yes dtype: str: should be the name of a column"),
        ({"group": 3}, "group=3: should be the name of a column"),
        ({"output": None}, "output=None: should be a path"),
        ({"model": {"dropout": pd.DataFrame({"a": [1]})}}, "a setting is a number, a text, or a list"),
        ({"text": []}, "text=[]: should name one column, or two of a pair"),
        ({"text": ["message", "topic", "mixed"]}, "should name one column, or two of a pair"),
        ({"text": 3}, "text=3: should name one column"),
        ({"text": None}, "text= is missing: which column of the data frame holds the texts? there are message, topic"),
        ({"label": None}, "label= is missing"),
        ({"text": "massage"}, "no column 'massage'; its columns are message, topic, of lists, mixed; did you mean"),
        ({"group": "customer"}, "the data frame: no column 'customer'"),
        ({"text": "mixed"}, "the data frame, row 3: column 'mixed' holds a list, not text"),
        ({"jobs": 0}, "jobs=0: should be a whole number, 1 or more"),
        ({"methods": "mixuot"}, "unknown method 'mixuot'"),
        ({"name": "../topics"}, "name='../topics': should be a name without slashes"),
        ({"test": ["a.csv"]}, "test=['a.csv']: should be a share of the rows, such as 0.2, or a file"),
        ({"data": {"max_lenght": 64}}, "did you mean 'max_length'?"),
        ({"model": {"name": "minilm", "dropuot": 0.1}}, "did you mean 'dropout'?"),
        ({"methods": [1]}, "methods=[1]: should be a list of names"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(rows, tmp_path, change, told):
    with pytest.raises(RequestError, match=re.escape(told)) as refused:
        dpstune.fit(rows, **{"text": "message", "label": "topic", "output": tmp_path, **FEW, **change})
    assert "\n" not in str(refused.value)


def test_wrong_labels_are_named_as_they_were(tmp_path):
    suspects = [Suspect(1, "01", "@True", 0.125, 2)]
    write_wrong_labels(tmp_path, suspects, ["006", "007"], [("1",), ("=NA()",)])
    found = FitResult(tmp_path, []).wrong_labels
    assert found.iloc[0].tolist() == ["007", "=NA()", "01", "@True", 0.125, 2, ""]
    assert CaseStudyResult(tmp_path, []).wrong_labels.equals(found)
    assert FitResult(tmp_path / "of values", []).wrong_labels is None


@pytest.mark.parametrize("table", [[{"message": "a", "topic": 1}], {"message": ["a"], "topic": [1]}, None, 5])
def test_what_is_no_table_is_refused(table, tmp_path):
    with pytest.raises(RequestError, match=r"a fit takes a file's name or a pandas data frame, not "):
        dpstune.fit(table, text="message", label="topic", output=tmp_path)


def test_two_columns_of_one_name_are_refused(rows, tmp_path):
    twice = rows.rename(columns={"mixed": "topic"})
    with pytest.raises(RequestError, match="two columns are called 'topic'"):
        dpstune.fit(twice, text="message", label="topic", output=tmp_path)


@pytest.mark.slow
def test_a_frame_is_fitted(rows, tiny_model, tmp_path):
    changes = {**FEW, "methods": "vanilla", "model": {"name": str(tiny_model), "dropout": 0.2}, "output": tmp_path}
    found = dpstune.fit(rows, text="message", label="topic", data={"max_length": 16}, **changes)
    recipe = load_recipe(str(found.recipe)).recipe
    assert (recipe.model.dropout, recipe.data.max_length, recipe.training.steps) == (0.2, 16, 2)
    assert found.table["method"].tolist() == ["vanilla"]
    assert (found.model / "config.json").is_file()
    assert len(dpstune.predict(found, rows)) == 40
    (table,) = tmp_path.glob(".tables/*/table.parquet")
    assert found.notes[-1] == f"a copy of the rows is kept in {table.parent}; delete it when you are done"
