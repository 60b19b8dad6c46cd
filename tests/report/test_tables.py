from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dpstune.data.sources import file_rows
from dpstune.report.tables import csv_text, print_evaluations, print_result

RESULT = {
    "recipe": "minilm-mnli",
    "method": {"name": "dps-mix", "p": 0.3, "update_ratio": 0.05},
    "seed": 3,
    "metric": "accuracy",
    "majority": 0.3333,
    "last": {"metrics": {"validation_matched": {"accuracy": 0.75}, "validation_mismatched": {"accuracy": None}}},
    "examples": {"train": 10, "validation_matched": 4, "validation_mismatched": 6},
    "steps": 7,
    "seconds": 12.3,
}


def test_a_result_is_shown_on_stderr_with_its_folder_unbroken(capsys):
    folder = Path("runs") / ("long-" * 30) / "seed-3"
    print_result(folder, RESULT)
    out, err = capsys.readouterr()
    assert out == ""
    assert str(folder) in err
    for expected in ("minilm-mnli  dps-mix  seed 3", "0.7500", "undefined", "accuracy 0.3333", "7 steps in 12 s"):
        assert expected in err


def test_a_name_is_shown_as_it_is_also_where_it_looks_like_markup(capsys):
    for name in ("runs/x[/y]", "runs/my[v2]", "runs/a:dog:"):
        print_evaluations(f"{name} on rte", {}, name)
        print_result(Path(name), {**RESULT, "recipe": name})
        assert capsys.readouterr().err.count(name) == 4


def test_regression_has_no_majority(capsys):
    print_result(Path("runs"), {**RESULT, "majority": None})
    assert "commonest" not in capsys.readouterr().err


CELLS = st.text(alphabet="a \r\n\t\"',;\x85\u2028é", max_size=6)


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=4))
def test_csv_reads_back_whatever_its_cells_hold(rows, tmp_path_factory):
    file = tmp_path_factory.mktemp("csv") / "cells.csv"
    file.write_text(csv_text([("id", "text"), *rows]), encoding="utf-8", newline="")
    assert [tuple(row.values()) for _, row in file_rows(file)] == rows
