"""From a table to a model: what fit leaves, that it goes on, that its score is of rows that did not choose."""

import csv
import json
import random
from pathlib import Path

import pytest

from tests.conftest import write_table

FAST = ["--set", "training.batch_size=6", "--set", "data.max_length=16", "--set", "training.precision=fp32"]
FEW_STEPS = ["--set", "training.steps=6", "--set", "training.learning_rate=0.003"]
COLUMNS = ["--text", "first", "--text2", "second", "--label", "label"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A table of 60 rows."""
    file = tmp_path_factory.mktemp("fit") / "rows.csv"
    write_table(file, 60, seed=3)
    return file


def run_fit(zygote, rows, model, output, *more, columns=COLUMNS):
    return zygote.run("fit", rows, *columns, "--model", model, "--output", output, *FAST, *more, "--json")


@pytest.fixture(scope="module")
def fitted(zygote, rows, tiny_model, tmp_path_factory):
    """What a small fit printed, and where."""
    output = tmp_path_factory.mktemp("runs")
    run = run_fit(zygote, rows, tiny_model, output, *FEW_STEPS, "--folds", 3, "--runs", 9, "--method", "mixout")
    assert run.code == 0, run.stderr
    return output, json.loads(run.stdout), run.stderr


def test_it_leaves_a_model_a_recipe_and_a_report(fitted, zygote):
    output, told, stderr = fitted
    from transformers import pipeline

    answer = pipeline("text-classification", model=told["model"])({"text": "the cat", "text_pair": "a man"})
    assert answer["label"] in ("yes", "no")
    folder = output / "rows"
    (place,) = folder.glob("fit-*")
    assert {each.name for each in place.iterdir()} >= {
        *("model", "recipe.yaml", "report.html", "report.md", "fit.json", "candidates.csv", "candidates.png"),
        *("wrong_labels.csv", "study.db"),
    }
    assert "Chosen: " in stderr
    repeated = zygote.run("train", "--recipe", told["recipe"], "--output", output, "--json")
    assert repeated.code == 0, repeated.stderr
    weights = (place / "model" / "model.safetensors").read_bytes()
    trained = Path(json.loads(repeated.stdout)["run"]) / "model" / "model.safetensors"
    assert trained.read_bytes() == weights


def test_plain_fine_tuning_is_tried_with_and_without_dropout_on_every_fold(fitted):
    _, told, _ = fitted
    first, second = told["tried"][:2]
    assert [each["settings"]["model.dropout"] for each in (first, second)] == [0.0, 0.1]
    for each in (first, second):
        assert (each["method"], each["state"], sorted(each["parts"])) == ("vanilla", "complete", ["1", "2", "3"])
    assert sum(len(each["parts"]) for each in told["tried"]) == 9


def test_every_row_is_answered_by_a_run_that_did_not_see_it(fitted, rows):
    from dpstune.runs.folder import read_predictions

    _, told, _ = fitted
    folds = [read_predictions(f"{run}/predictions/validation.parquet")["id"] for run in told["tried"][0]["runs"]]
    answered = [name for fold in folds for name in fold]
    with rows.open() as file:
        count = sum(1 for _ in csv.reader(file)) - 1
    assert sorted(answered, key=int) == [str(number) for number in range(count)]
    assert told["rows"] == told["score"]["rows"] == count


def test_the_score_is_not_the_winners_own_and_has_an_interval(fitted):
    _, told, _ = fitted
    score = told["score"]
    assert score["low"] <= score["value"] <= score["high"]
    assert told["winner"]["score"] == max(each["score"] for each in told["tried"] if each["score"] is not None)


def test_the_same_command_trains_nothing_anew_and_a_larger_budget_goes_on(fitted, zygote, rows, tiny_model):
    output, told, _ = fitted
    before = {path: path.stat().st_mtime_ns for path in output.glob("rows/*/*/result.json")}
    again = run_fit(zygote, rows, tiny_model, output, *FEW_STEPS, "--folds", 3, "--runs", 9, "--method", "mixout")
    assert again.code == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in output.glob("rows/*/*/result.json")} == before
    assert json.loads(again.stdout)["score"] == told["score"]
    more = run_fit(zygote, rows, tiny_model, output, *FEW_STEPS, "--folds", 3, "--runs", 10, "--method", "mixout")
    assert more.code == 0, more.stderr
    assert sum(len(each["parts"]) for each in json.loads(more.stdout)["tried"]) == 10


@pytest.mark.slow
def test_a_test_share_is_scored_and_chooses_nothing(zygote, rows, tiny_model, tmp_path):
    run = run_fit(
        zygote, rows, tiny_model, tmp_path, *FEW_STEPS, "--folds", 2, "--runs", 4, "--method", "vanilla", "--test", 0.3
    )
    assert run.code == 0, run.stderr
    told = json.loads(run.stdout)
    assert 14 <= told["score"]["rows"] <= 22
    assert "test rows" in run.stderr


@pytest.mark.slow
def test_rows_of_a_group_stand_together(zygote, tiny_model, tmp_path):
    rng = random.Random(0)
    file = tmp_path / "grouped.csv"
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["first", "label", "author"])
        for number in range(60):
            good = rng.random() < 0.5
            writer.writerow(
                [f"{'the' if good else 'a'} cat {number}", "yes" if good else "no", f"author {number % 12}"]
            )
    columns = ["--text", "first", "--label", "label", "--group", "author"]
    few = ["--folds", 3, "--runs", 6, "--method", "vanilla"]
    run = run_fit(zygote, file, tiny_model, tmp_path / "runs", *FEW_STEPS, *few, columns=columns)
    assert run.code == 0, run.stderr
    from dpstune.runs.folder import read_predictions

    folds = [
        {int(name) % 12 for name in read_predictions(f"{place}/predictions/validation.parquet")["id"]}
        for place in json.loads(run.stdout)["tried"][0]["runs"]
    ]
    assert sum(map(len, folds)) == 12, "no author is in two folds"


def test_plan_trains_nothing(zygote, rows, tiny_model, tmp_path):
    run = zygote.run(
        "fit", rows, *COLUMNS, "--model", tiny_model, "--output", tmp_path, *FAST, "--minutes", 20, "--plan"
    )
    assert run.code == 0, run.stderr
    assert "60 rows, chosen by 5 folds" in run.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv", "--label", "label"], "--text COLUMN is missing"),
        (["rows.csv", "--text", "first"], "--label COLUMN is missing"),
        (["rows.csv", "--text", "frist", "--label", "label"], "no column 'frist'"),
        (["nothing.csv", "--text", "a", "--label", "b"], "there is no file"),
        (["rows.csv", "--text", "first", "--label", "label", "--method", "mixuot"], "did you mean 'mixout'"),
        (["rows.csv", "--text", "first", "--label", "label", "--group", "autor"], "no column 'autor'"),
        (["rows.csv", "--text", "first", "--label", "label", "--test", "1.5"], "should be a share"),
        (["rows.csv", "--text", "first", "--label", "label", "--test", "no.csv"], "no file"),
        (["rows.csv", "--text", "first", "--label", "label", "--metric", "acuracy"], "did you mean 'accuracy'"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["rows.csv", "--text", "first", "--label", "label", "--folds", "70"], "cannot make 70 parts"),
        (["demo.yaml"], "no recipe and no file is called"),
    ],
)
def test_a_wrong_request_is_one_line_and_nothing_is_written(zygote, rows, tiny_model, tmp_path, arguments, message):
    arguments = [str(rows) if word == "rows.csv" else word for word in arguments]
    run = zygote.run("fit", *arguments, "--model", tiny_model, "--output", tmp_path / "runs", "--runs", 1, *FAST)
    assert run.code == 2, run.stderr
    (line,) = run.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()
