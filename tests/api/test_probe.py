"""``dpstune.probe``."""

import pytest

import dpstune
from dpstune.errors import RequestError
from tests.tiny import LAYERS


def test_the_result_has_a_row_a_point_and_a_row_a_layer(tiny_run, tmp_path, capsys):
    few = {"rows": 12, "train_rows": 30, "scored_rows": 20}
    found = dpstune.probe(tiny_run, on="toy-rte", **few, output=tmp_path, quiet=True)
    (row,) = found.table.to_dict("records")
    assert (row["method"], row["restarts"]) == ("dps-dense", 1)
    assert 0 < row["cka"] <= 1
    assert {"toy-rte accuracy", "toy-rte minus pre-trained"} <= row.keys()
    assert found.layers["layer"].tolist() == list(range(LAYERS + 1))
    assert found.layers["cka"].mean() == pytest.approx(row["cka"])
    assert found.picture.is_file()
    assert found.report.is_file()
    assert capsys.readouterr().err == ""
    again = dpstune.probe([tiny_run], on=["toy-rte"], **few, output=tmp_path)
    assert again.folder == found.folder
    assert "pre-trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rows": 9}, "rows=9: should be a whole number, 10 or more"),
        ({"rows": "x"}, "rows='x': should be a whole number"),
        ({"rows": True}, "rows=True: should be a whole number"),
        ({"train_rows": 2.5}, "train_rows=2.5: should be a whole number"),
        ({"scored_rows": 2}, "scored_rows=2: should be a whole number, 10 or more"),
        ({"pretrained": 3}, "pretrained=3: should be a name or a path"),
        ({"pretrained": ""}, "pretrained='': should be a name or a path"),
        ({"texts": 3}, "texts=3: should be a name or a path"),
        ({"task": 3}, "task=3: should be a name or a path"),
        ({"on": 3}, "on=3: should be a list of names"),
        ({"on": {"a": 1}}, "on={'a': 1}: should be a list of names"),
        ({"text": ["a", "b", "c"], "texts": "x.csv"}, "should name one column, or two"),
        ({"runs": 5}, "a model is a folder"),
        ({"runs": []}, "name the folder of a run"),
    ],
)
def test_wrong_requests(tiny_run, tmp_path, given, message):
    with pytest.raises(RequestError, match=message):
        dpstune.probe(**{"runs": tiny_run, "output": tmp_path / "out", **given})
    assert not (tmp_path / "out").exists()
