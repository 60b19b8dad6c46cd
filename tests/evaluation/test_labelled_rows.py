"""Labelled rows that no recipe names, scored with a trained model: files on the command line, data frames in Python."""

import csv
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

import dpstune
from dpstune.errors import RequestError
from dpstune.runs.folder import read_predictions


@pytest.fixture
def rows(tiny_task):
    """The validation rows of the tiny task."""
    return pd.read_csv(tiny_task.parent / "validation.csv")


@pytest.fixture
def accuracy(tiny_run):
    return json.loads((tiny_run / "result.json").read_text())["last"]["metrics"]["validation"]["accuracy"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz"])
def test_a_file_has_the_score_of_the_same_rows_in_a_task(run, tiny_run, rows, accuracy, tmp_path, ending):
    file = tmp_path / f"new.{ending}"
    write = {
        "tsv": lambda: rows.to_csv(file, sep="\t", index=False),
        "jsonl": lambda: rows.to_json(file, orient="records", lines=True),
        "json": lambda: rows.to_json(file, orient="records"),
        "parquet": lambda: rows.to_parquet(file),
    }
    write.get(ending, lambda: rows.to_csv(file, index=False))()
    code, out, err = run("eval", tiny_run, "--task", file, "--json")
    assert code == 0, err
    scored = json.loads(out)
    assert scored["metrics"] == {"rows": {"accuracy": accuracy}}
    assert scored["examples"] == {"rows": len(rows)}
    low, high = scored["intervals"]["rows"]
    assert low <= accuracy <= high
    assert f"rows: accuracy {accuracy:.4f} (95% interval {low:.4f} to {high:.4f})" in err


def test_a_pattern_stands_for_its_files(run, tiny_run, rows, accuracy, tmp_path):
    rows[:7].to_csv(tmp_path / "part-1.csv", index=False)
    rows[7:].to_csv(tmp_path / "part-2.csv", index=False)
    code, out, err = run("eval", tiny_run, "--task", tmp_path / "part-*.csv", "--json")
    assert (code, json.loads(out)["metrics"]) == (0, {"rows": {"accuracy": accuracy}}), err


def test_other_columns_are_named(run, tiny_run, rows, accuracy, tmp_path):
    file = tmp_path / "new.csv"
    rows.rename(columns={"first": "one", "second": "other", "label": "gold"}).to_csv(file, index=False)
    unnamed = run("eval", tiny_run, "--task", file)
    assert unnamed[0] == 2
    assert "no column 'label', where the model's task has its labels; say which one holds them" in unnamed[2]
    unnamed = run("eval", tiny_run, "--task", file, "--label", "gold")
    assert unnamed[0] == 2
    assert "which columns hold the text?" in unnamed[2]
    code, out, err = run("eval", tiny_run, "--task", file, "--label", "gold", "--text", "one,other", "--json")
    assert (code, json.loads(out)["metrics"]) == (0, {"rows": {"accuracy": accuracy}}), err


def test_a_file_in_another_encoding_is_read_on_request(run, tiny_run, rows, tmp_path):
    file = tmp_path / "new.csv"
    rows["first"] += " café"
    rows.to_csv(file, index=False, encoding="latin-1")
    code, _, err = run("eval", tiny_run, "--task", file)
    assert code == 2
    assert "such as --encoding latin-1" in err
    code, out, err = run("eval", tiny_run, "--task", file, "--encoding", "latin-1", "--json")
    assert code == 0, err
    value = dpstune.evaluate(tiny_run, rows).value
    assert json.loads(out)["metrics"] == {"rows": {"accuracy": value}}
    assert dpstune.evaluate(tiny_run, file, encoding="latin-1").value == value


def test_a_data_frame_has_the_score_of_its_file(tiny_run, rows, accuracy):
    found = dpstune.evaluate(tiny_run, rows.sample(frac=1, random_state=1))
    assert found.value == accuracy
    low, high = found.interval
    assert low < accuracy < high
    assert found.table.to_dict("records") == [{"split": "rows", "accuracy": accuracy, "examples": len(rows)}]
    renamed = rows.rename(columns={"first": "one", "second": "other", "label": "gold"})
    assert dpstune.evaluate(tiny_run, renamed, text=["one", "other"], label="gold").value == accuracy


def test_a_metric_is_measured_as_the_command_does(run, tiny_run, rows, tmp_path):
    rows.to_csv(tmp_path / "new.csv", index=False)
    code, out, err = run("eval", tiny_run, "--task", tmp_path / "new.csv", "--metric", "macro_f1,log_loss", "--json")
    assert code == 0, err
    scored = json.loads(out)
    for task in (rows, tmp_path / "new.csv"):
        found = dpstune.evaluate(tiny_run, task, metric=["macro_f1", "log_loss"])
        assert found.metric == "macro_f1"
        [row] = found.table.to_dict("records")
        assert {name: row[name] for name in ("macro_f1", "log_loss")} == scored["metrics"]["rows"]
        assert [*found.interval] == scored["intervals"]["rows"]
    assert dpstune.evaluate(tiny_run, metric="log_loss").metric == "log_loss"


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        (7, r"metric=7: should be a list of names"),
        ([], r"metric=\[\]: names no metric"),
        ("accurracy", r"metric='accurracy': unknown metric 'accurracy'; did you mean 'accuracy'"),
        (["f1", "rmse"], r"metric rmse does not suit a classification task"),
    ],
)
def test_a_metric_that_is_none_is_one_line(tiny_run, rows, metric, why):
    with pytest.raises(RequestError, match=why):
        dpstune.evaluate(tiny_run, rows, metric=metric)


def test_the_score_is_that_of_the_answers(tiny_run, rows):
    part = rows[:9]
    answers = dpstune.predict(tiny_run, part).prediction
    assert dpstune.evaluate(tiny_run, part).value == (answers == part.label).mean()


def test_rows_of_one_label_are_scored_by_the_models_labels(tiny_run, rows, accuracy):
    frame = pd.DataFrame(read_predictions(tiny_run / "predictions" / "validation.parquet"))
    for label in ("yes", "no"):
        of_label = frame[frame.label == label]
        found = dpstune.evaluate(tiny_run, rows[rows.label == label])
        assert found.value == pytest.approx((of_label.prediction == label).mean())


def test_labels_in_another_case_are_the_models(tiny_run, rows, accuracy):
    found = dpstune.evaluate(tiny_run, rows.assign(label=rows.label.str.upper()))
    assert (found.value, found.labels) == (accuracy, "predictions: no -> NO, yes -> YES")


def test_f1_is_of_the_same_label_however_its_case_sorts(tiny_run, rows):
    expected = dpstune.evaluate(tiny_run, rows, metric=["f1", "roc_auc"])
    found = dpstune.evaluate(tiny_run, rows.replace({"label": {"yes": "YES"}}), metric=["f1", "roc_auc"])
    assert found.rows == expected.rows
    assert found.labels == "predictions: yes -> YES"


def test_rows_of_one_group_are_drawn_together_for_the_interval(tiny_run, rows, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    recipe["task"]["group"] = "author"
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows["first"] += [f" {'dog ' * number}" for number in range(len(rows))]  # no two are equal
    alone = dpstune.evaluate(tiny_run, rows).interval
    assert dpstune.evaluate(tmp_path / "run", rows).interval == alone
    assert dpstune.evaluate(tmp_path / "run", rows.assign(author=[None] * len(rows))).interval == alone
    by_two = dpstune.evaluate(tmp_path / "run", rows.assign(author=["ann"] * 15 + ["bob"] * 15)).interval
    scores = [dpstune.evaluate(tiny_run, part).value for part in (rows[:15], rows[15:])]
    assert by_two == pytest.approx([min(scores), max(scores)])


@pytest.mark.parametrize("gap", ["", None, np.nan, pd.NA])
def test_rows_without_a_label_are_left_out_and_counted(tiny_run, rows, gap):
    frame = rows.astype(object)
    frame.loc[[0, 4], "label"] = gap
    found = dpstune.evaluate(tiny_run, frame)
    assert found.value == dpstune.evaluate(tiny_run, rows.drop([0, 4])).value
    assert "the data frame: dropped 2 of 30 examples: no gold label" in found.notes


def test_rows_that_are_cut_are_told(run, tiny_run, rows, tmp_path):
    rows.loc[:4, "first"] = "a dog " * 20
    said = "5 of 30 rows are longer than 24 tokens and are cut; the longest has "
    assert dpstune.evaluate(tiny_run, rows, quiet=True).notes[-1].startswith(said)
    assert not any("are cut" in note for note in dpstune.evaluate(tiny_run, rows, max_length=64, quiet=True).notes)
    rows.to_csv(tmp_path / "new.csv", index=False)
    code, _, err = run("eval", tiny_run, "--task", tmp_path / "new.csv", "--report", tmp_path / "page")
    assert (code, err.count(said)) == (0, 1)
    assert said in (tmp_path / "page" / "report.md").read_text()
    code, out, err = run("predict", tiny_run, tmp_path / "new.csv")
    assert (code, err.count(said), len(out.splitlines())) == (0, 1, 31)


def test_rows_that_the_model_was_trained_on_are_told(run, tiny_run, tiny_task, rows, tmp_path):
    rows["first"] += [f" {'dog ' * number}" for number in range(10, 10 + len(rows))]
    assert dpstune.evaluate(tiny_run, rows, max_length=64).notes == []
    seen = pd.read_csv(tiny_task.parent / "train.csv")[:5]
    seen["first"] = seen["first"].str.upper() + " "
    both = pd.concat([rows, seen])
    said = "5 of 35 rows: the training rows have the same text, so the score counts what was learned by heart"
    assert dpstune.evaluate(tiny_run, both, max_length=64).notes == [said]
    both.to_csv(tmp_path / "both.csv", index=False)
    code, _, err = run("eval", tiny_run, "--task", tmp_path / "both.csv", "--report", tmp_path / "page")
    assert code == 0
    assert said in err
    assert f"{said}." in (tmp_path / "page" / "report.md").read_text()


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("{dataset: ./rte, splits: {train: train, validation: validation}, text: [a, b], label: label}", ["a", "b"]),
        ("rte", ["sentence1", "sentence2"]),
    ],
)
def test_rows_of_a_dataset_or_known_task_on_this_machine_that_it_was_trained_on_are_told(
    zygote, tiny_task, tmp_path, task, columns
):
    (tmp_path / "rte").mkdir()
    for name in ("train", "validation"):
        table = pd.read_csv(tiny_task.parent / f"{name}.csv").set_axis([*columns, "label"], axis=1)
        table["label"] = table.label.map({"yes": "entailment", "no": "not_entailment"})
        table.to_json(tmp_path / "rte" / f"{name}.jsonl", orient="records", lines=True)
    model = next(line for line in tiny_task.read_text().splitlines() if line.startswith("model:"))
    (tmp_path / "own.yaml").write_text(
        f"{model}\ntask: {task}\ndata: {{dir: ., max_length: 24}}\nmethod: {{name: vanilla}}\n"
        "training: {batch_size: 6, steps: 1, precision: fp32}\n"
    )
    done = zygote.run("train", "--recipe", tmp_path / "own.yaml", "--output", tmp_path / "runs")
    assert done.code == 0, done.stderr
    (result,) = (tmp_path / "runs").glob("*/*/*/result.json")
    seen = pd.read_json(tmp_path / "rte" / "train.jsonl", lines=True)[:5]
    assert dpstune.evaluate(result.parent, seen).notes[-1].startswith("5 of 5 rows: the training rows have the same")
    assert dpstune.evaluate(result.parent, seen.assign(**{columns[0]: "the house"})).notes == []


def test_rows_that_this_run_drew_none_of_are_not_told(zygote, tiny_task, rows, tmp_path):
    short = ["--set", "training.steps=1", "--set", "data.train_size=6", "--output", tmp_path / "runs"]
    done = zygote.run("train", "--recipe", tiny_task, *short)
    assert done.code == 0, done.stderr
    (result,) = (tmp_path / "runs").glob("*/*/*/result.json")
    train = pd.read_csv(tiny_task.parent / "train.csv").drop_duplicates(["first", "second"])
    (told,) = dpstune.evaluate(result.parent, train).notes
    assert int(told.split()[0]) <= 6


def test_the_training_rows_may_be_gone(zygote, tiny_task, rows, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny_task.read_text())
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text((tiny_task.parent / name).read_text())
    done = zygote.run("train", "--recipe", recipe, "--set", "training.steps=1", "--output", tmp_path / "runs")
    assert done.code == 0, done.stderr
    (result,) = (tmp_path / "runs").glob("*/*/*/result.json")
    (tmp_path / "train.csv").unlink()
    assert dpstune.evaluate(result.parent, rows).notes == []


def test_a_models_metrics_are_its_tasks_or_others(zygote, run, tiny_task, rows, tmp_path):
    arguments = ("--set", "task.metric=[macro_f1, log_loss]", "--set", "training.steps=2", "--output", tmp_path)
    done = zygote.run("train", "--recipe", tiny_task, *arguments)
    assert done.code == 0, done.stderr
    (result,) = tmp_path.glob("*/*/*/result.json")
    found = dpstune.evaluate(result.parent, rows)
    assert found.metric == "macro_f1"
    assert found.rows[0].keys() == {"split", "macro_f1", "log_loss", "examples"}
    rows.to_csv(tmp_path / "new.csv", index=False)
    code, out, _ = run("eval", result.parent, "--task", tmp_path / "new.csv", "--metric", "matthews", "--json")
    assert (code, json.loads(out)["metric"]) == (0, "matthews")


def test_a_model_without_a_run_is_scored(tiny_run, rows, accuracy, tmp_path):
    copy = shutil.copytree(tiny_run / "model", tmp_path / "copy")
    assert dpstune.evaluate(copy, rows, text=["first", "second"], max_length=24).value == accuracy


def test_the_demos_columns_are_the_tasks_own(zygote, tmp_path):
    done = zygote.run("train", "--recipe", "demo", "--set", "training.steps=1", "--output", tmp_path / "runs")
    assert done.code == 0, done.stderr
    (result,) = (tmp_path / "runs").glob("*/*/*/result.json")
    row = {"sentence1": "A cat sleeps.", "sentence2": "An animal sleeps.", "label": "entailment"}
    assert dpstune.evaluate(result.parent, pd.DataFrame([row])).table.examples.tolist() == [1]


class TestOtherKinds:
    """Values, and several labels an example."""

    @staticmethod
    def trained(zygote, tiny_task, folder, kind, labels):
        model = next(line for line in tiny_task.read_text().splitlines() if line.startswith("model:"))
        for name, count in (("train", 24), ("validation", 8)):
            with (folder / f"{name}.csv").open("w", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(["first", "gold"])
                for number in range(count):
                    writer.writerow([f"the man {'in a' if number % 2 else 'the'} house", labels[number % len(labels)]])
        recipe = folder / "own.yaml"
        recipe.write_text(
            f"{model}\ndata: {{max_length: 24}}\nmethod: {{name: vanilla}}\n"
            "task: {files: {train: train.csv, validation: validation.csv}, text: first, label: gold, "
            f"kind: {kind}}}\ntraining: {{batch_size: 6, learning_rate: 0.003, steps: 4, precision: fp32}}\n"
        )
        done = zygote.run("train", "--recipe", recipe, "--output", folder / "runs")
        assert done.code == 0, done.stderr
        (result,) = (folder / "runs").glob("*/*/*/result.json")
        return result.parent

    @pytest.mark.parametrize(
        ("kind", "labels"),
        [("regression", ["0.5", "1.5", "-2"]), ("multilabel", ["cat", "dog; man", "", "man"])],
    )
    def test_the_score_is_that_of_the_task(self, zygote, tiny_task, tmp_path, kind, labels):
        trained = self.trained(zygote, tiny_task, tmp_path, kind, labels)
        result = json.loads((trained / "result.json").read_text())
        frame = pd.read_csv(tmp_path / "validation.csv", keep_default_na=False)
        found = dpstune.evaluate(trained, frame)
        assert found.value == result["last"]["metrics"]["validation"][result["metric"]]
        assert found.metric == result["metric"]
        if kind == "multilabel":
            lists = frame.assign(gold=[np.array([each for each in text.split("; ") if each]) for text in frame.gold])
            assert dpstune.evaluate(trained, lists).value == found.value

    def test_a_label_that_is_no_value_is_refused(self, zygote, tiny_task, tmp_path):
        trained = self.trained(zygote, tiny_task, tmp_path, "regression", ["0.5", "1.5"])
        with pytest.raises(RequestError, match="the data frame:1: a regression label should be a finite float32"):
            dpstune.evaluate(trained, pd.DataFrame({"first": ["a man", "a cat"], "gold": ["1", "much"]}))


@pytest.mark.parametrize(
    ("change", "named", "told"),
    [
        (
            lambda rows: rows.assign(label="maybe"),
            {},
            "the data frame:0: unknown label 'maybe'; the labels are no, yes",
        ),
        (lambda rows: rows.assign(label=None), {}, "split rows has no labels: the data frame"),
        (lambda rows: rows.assign(second=" "), {}, "the data frame: column 'second' has no text in any row"),
        (lambda rows: rows[:0], {}, "the data frame: there are no rows"),
        (lambda rows: rows, {"label": "gold"}, "the data frame: no column 'gold'"),
        (lambda rows: rows, {"label": 3}, "label=3: should be the name of a column"),
        (
            lambda rows: rows,
            {"text": ["first", "label"]},
            "text and label should be different columns, not first, label",
        ),
        (lambda _: "a\0.csv", {}, "a path holds no zero byte"),
        (lambda rows: rows, {"text": "body"}, "the data frame: no column 'body'"),
        (
            lambda rows: rows,
            {"text": "first"},
            "text first: the model was trained on two texts; say text COLUMN,COLUMN",
        ),
        (
            lambda rows: rows.rename(columns={"first": "text"}),
            {},
            "the data frame: which columns hold the text? The model was trained on two texts: say text COLUMN,COLUMN",
        ),
        (lambda rows: rows, {"split": "test"}, "split='test': all rows are scored; leave it out"),
        (lambda rows: rows, {"data_dir": "."}, "data_dir='.': all rows are scored; leave it out"),
        (lambda _: None, {"label": "label"}, "label='label': a task has its own; leave it out"),
        (lambda _: None, {"encoding": "latin-1"}, "encoding='latin-1': a task has its own; leave it out"),
        (lambda rows: rows, {"encoding": "latin-1"}, "encoding='latin-1': a data frame has none; leave it out"),
        (lambda _: "new.csv", {"encoding": 8}, "encoding=8: should be the name of an encoding, such as latin-1"),
        (lambda _: "new.csv", {"encoding": "latn-1"}, "unknown encoding 'latn-1'; did you mean 'latin-1'?"),
        (lambda rows: rows.set_axis(["first", "first", "label"], axis=1), {}, "two columns are called 'first'"),
        (lambda _: "nowhere.csv", {}, "nowhere.csv"),
        (lambda _: "new-*.csv", {}, "no file matches new-*.csv"),
        (lambda _: "rt", {}, "unknown task 'rt'; did you mean 'rte'?"),
    ],
)
def test_what_cannot_be_scored_is_one_line(tiny_run, rows, change, named, told):
    rows = rows[["first", "second", "label"]]
    with pytest.raises(RequestError, match=re.escape(told)) as refused:
        dpstune.evaluate(tiny_run, change(rows), **named)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--task", "new.csv", "--split", "test"], "--split: --task new.csv is a file, all of whose rows are scored"),
        (["--task", "new.csv", "--data-dir", "."], "--data-dir: --task new.csv is a file"),
        (["--task", "new.csv", "--submission", "x.tsv"], "--submission: --task new.csv is a file"),
        (["--label", "x"], "--label: tells how a file of rows is read; say which file with --task FILE"),
        (["--task", "rte", "--text", "x"], "--text: tells how a file of rows is read"),
        (["--task", "rte", "--encoding", "latin-1"], "--encoding: tells how a file of rows is read"),
        (["--task", "new.csv", "--text", "a,b,c"], "--text a,b,c: should name one column, or two"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(run, tiny_run, rows, tmp_path, monkeypatch, flags, told):
    monkeypatch.chdir(tmp_path)
    rows.to_csv("new.csv", index=False)
    code, _, err = run("eval", tiny_run, *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_a_fits_own_rows_are_all_trained_on(zygote, tiny_task, rows, tmp_path):
    model = re.search(r"name: ([^}]*)}", tiny_task.read_text())[1]
    flags = [
        "--runs",
        1,
        "--folds",
        2,
        "--method",
        "vanilla",
        "--model",
        model,
        "--set",
        "training.steps=1",
        "--set",
        "data.max_length=24",
    ]
    columns = ["--text", "first", "--text2", "second", "--label", "label"]
    done = zygote.run("fit", tiny_task.parent / "train.csv", *columns, *flags, "--output", tmp_path)
    assert done.code == 0, done.stderr
    (report,) = tmp_path.glob("*/*/report.html")
    with pytest.raises(RequestError, match="is trained on all of its rows, its score is in its report"):
        dpstune.evaluate(report.parent)
    assert dpstune.evaluate(report.parent, rows).table.examples.tolist() == [len(rows)]
