from pathlib import Path

from dpstune.report.tables import print_result

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


def test_regression_has_no_majority(capsys):
    print_result(Path("runs"), {**RESULT, "majority": None})
    assert "commonest" not in capsys.readouterr().err
