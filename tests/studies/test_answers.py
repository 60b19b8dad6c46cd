"""What runs answered, read from their folders."""

import re

import pytest

from dpstune.data.reading import TaskData
from dpstune.errors import RunError
from dpstune.runs.folder import RunFolder, write_predictions
from dpstune.studies.answers import read_answers

TASK = TaskData("mine", "classification", ("no", "yes"), "accuracy", {}, ())
COLUMNS = {"id": ["a", "b"], "label": ["no", "yes"], "prediction": ["yes", "yes"], "scores": [[0.25, 0.75]] * 2}


def write(folder, **columns):
    file = RunFolder(folder).predictions("validation")
    write_predictions(file, {**COLUMNS, **columns})
    return file


def test_runs_follow_one_another(tmp_path):
    write(tmp_path / "1")
    write(tmp_path / "2", id=["c", "d"], label=["yes", "yes"])
    answers = read_answers([tmp_path / "1", tmp_path / "2"], "validation", TASK)
    assert answers.ids == ["a", "b", "c", "d"]
    assert (answers.gold.tolist(), answers.predictions.tolist()) == ([0, 1, 1, 1], [1, 1, 1, 1])
    assert answers.scores.tolist() == [[0.25, 0.75]] * 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:100]),
        lambda file: write_predictions(file, {key: each for key, each in COLUMNS.items() if key != "scores"}),
        lambda file: write_predictions(file, {**COLUMNS, "prediction": ["maybe", "yes"]}),
    ],
    ids=["gone", "torn", "without a column", "of other labels"],
)
def test_predictions_that_cannot_be_read_are_one_error_with_its_remedy(tmp_path, damage):
    write(tmp_path / "1")
    file = write(tmp_path / "2")
    damage(file)
    told = f"{re.escape(str(file))}: its predictions cannot be read .*; remove the run's folder and repeat the command"
    with pytest.raises(RunError, match=told):
        read_answers([tmp_path / "1", tmp_path / "2"], "validation", TASK)
