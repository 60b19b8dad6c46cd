import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from dpstune.data.examples import Examples
from dpstune.data.labels import map_labels
from dpstune.data.reading import TaskData
from dpstune.errors import RunError
from dpstune.evaluation.scoring import evaluate_split
from dpstune.report.page import Facts
from dpstune.report.run_figures import reliability_figure
from dpstune.report.run_report import MOST_LABELS_DRAWN, write_evaluation_page, write_run_page
from tests.report.test_sweep_report import assert_whole
from tests.tiny import some


def answered(count, names, kind="classification", metrics=("accuracy", "log_loss"), seed=0, splits=("validation",)):
    """A task of random examples, and evaluations whose answers are right most of the time."""
    rng = np.random.default_rng(seed)
    parts, scores = {}, {}
    for split in splits:
        if kind == "regression":
            labels = rng.uniform(0, 5, count).tolist()
            scores[split] = torch.tensor(labels)[:, None] + torch.tensor(rng.normal(0, 1, (count, 1)))
        elif kind == "multilabel":
            labels = [tuple(row) for row in rng.integers(0, 2, (count, len(names))).tolist()]
            logits = rng.normal(0, 1, (count, len(names))) + 2 * np.array(labels) - 1
            scores[split] = torch.tensor(logits, dtype=torch.float32)
        else:
            labels = rng.integers(0, len(names), count).tolist()
            logits = rng.normal(0, 1, (count, len(names)))
            logits[np.arange(count), labels] += 2
            scores[split] = torch.tensor(logits, dtype=torch.float32)
        texts = [(f"<b>text {i}</b>, with more", "and | more") for i in range(count)]
        parts[split] = Examples([f"ex{i}" for i in range(count)], texts, labels)
    task = TaskData("mine", kind, tuple(names), metrics[0], parts, (), more_metrics=tuple(metrics[1:]))
    return task, {split: evaluate_split(task, split, scores[split]) for split in splits}


def write(folder, task, evaluations, **more):
    page = write_evaluation_page(folder, "A model", Facts([]), task, evaluations, **more)
    assert page == folder / "report.html"
    assert_whole(folder)
    return (folder / "report.md").read_text()


def table_after(markdown, heading):
    """The rows of the first table below a heading, header first."""
    lines = markdown.partition(f"## {heading}\n")[2].splitlines()
    rows = [
        line for line in lines[: next((i for i, line in enumerate(lines) if line[:2] == "##"), None)] if line[:1] == "|"
    ]
    return [
        [cell.strip(" *") for cell in line.strip("|").split(" | ")] for line in rows if not re.match(r"\|[:-]+\|", line)
    ]


@pytest.mark.parametrize("labels", some([6], of=[2, 6, MOST_LABELS_DRAWN]))
def test_each_label_and_what_it_is_taken_for(tmp_path, labels):
    names = [f"label {number}" for number in range(labels)]
    task, evaluations = answered(200, names)
    markdown = write(tmp_path, task, evaluations)
    assert {path.name for path in tmp_path.glob("*.png")} == {"confusion.png", "reliability.png"}
    each = evaluations["validation"]
    rows = table_after(markdown, "validation: each label")[1:]
    for label, row in enumerate(rows[:labels]):
        gold, given = np.array(each.gold) == label, np.array(each.predictions) == label
        right = (gold & given).sum()
        shares = (right / given.sum(), right / gold.sum(), 2 * right / (gold.sum() + given.sum()))
        expected = [f"{share:.4f}" for share in shares]
        assert row == [names[label], *expected, str(gold.sum()), str(given.sum())]
    assert [row[0] for row in rows[labels:]] == ["mean", "mean, weighted by examples"]
    accuracy = each.metrics["accuracy"]
    assert table_after(markdown, "Metrics")[1][:2] == ["validation", f"{accuracy:.4f}"]
    assert float(rows[-1][2]) == pytest.approx(accuracy, abs=1e-4)  # recall weighted by examples


def test_of_many_labels_the_largest_confusions_are_listed(tmp_path):
    names = [f"intent {number}" for number in range(MOST_LABELS_DRAWN + 5)]
    task, evaluations = answered(300, names)
    markdown = write(tmp_path, task, evaluations)
    assert {path.name for path in tmp_path.glob("*.png")} == {"reliability.png"}
    rows = table_after(markdown, "validation: what is taken for what")[1:]
    counts = [int(row[2]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    each = evaluations["validation"]
    gold, answer = names.index(rows[0][0]), names.index(rows[0][1])
    pairs = list(zip(each.gold, each.predictions, strict=True))
    assert (
        counts[0] == pairs.count((gold, answer)) == max(pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1])
    )


def test_a_label_that_nothing_has_and_nobody_answers_is_no_part_of_the_mean(tmp_path):
    examples = Examples(["a", "b", "c"], [("x",)] * 3, [0, 1, 1])
    task = TaskData("mine", "classification", ("no", "yes", "never"), "macro_f1", {"validation": examples}, ())
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 2.0, -1.0], [2.0, 0.0, -1.0]])
    markdown = write(tmp_path, task, {"validation": evaluate_split(task, "validation", logits)})
    rows = {row[0]: row[1:] for row in table_after(markdown, "validation: each label")}
    assert rows["never"] == ["", "", "", "0", "0"]
    (found,) = (row[1] for row in table_after(markdown, "Metrics") if row[0] == "validation")
    assert rows["mean"][2] == found


def test_the_surest_mistakes_come_first_with_their_texts(tmp_path):
    task, evaluations = answered(80, ["no", "yes"], seed=3)
    markdown = write(tmp_path, task, evaluations)
    rows = table_after(markdown, "validation: the surest mistakes")[1:]
    sure = [float(row[-1]) for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert all(row[-3] != row[-2] for row in rows)
    assert "&lt;b&gt;text" in (tmp_path / "report.html").read_text()


def test_every_split_has_its_table_and_the_headlines_has_figures(tmp_path):
    task, evaluations = answered(60, ["no", "yes"], splits=("validation", "test"))
    markdown = write(tmp_path, task, evaluations)
    assert len(table_after(markdown, "test: each label")) == 5
    assert "test: what is taken for what" not in markdown
    assert [row[0] for row in table_after(markdown, "Metrics")[1:]] == [
        "validation",
        "validation: one answer to all",
        "test",
        "test: one answer to all",
    ]


def test_what_one_answer_to_all_gets_is_told_by_the_training_labels(tmp_path):
    task, evaluations = answered(60, ["no", "yes"])
    train = Examples(["t"] * 4, [("x",)] * 4, [0, 1, 1, 1])
    task = TaskData(**{**vars(task), "splits": {"train": train, **task.splits}})
    row = table_after(write(tmp_path, task, evaluations), "Metrics")[2]
    share = np.mean(evaluations["validation"].gold)
    assert row[1] == f"{share:.4f}"
    assert float(row[2]) == pytest.approx(-(share * np.log(0.75) + (1 - share) * np.log(0.25)), abs=1e-3)


def test_of_two_labels_it_is_told_of_which_a_metric_is(tmp_path):
    task, evaluations = answered(40, ["legit", "fraud"], metrics=("accuracy", "f1"))
    assert "f1 is that of the label 'fraud'." in write(tmp_path, task, evaluations)
    task, evaluations = answered(40, ["legit", "fraud", "odd"], metrics=("accuracy", "f1"))
    assert "is that of the label" not in write(tmp_path / "three", task, evaluations)


def test_a_split_without_labels_is_named_alone(tmp_path):
    task, evaluations = answered(60, ["no", "yes"], splits=("validation", "test"))
    task.splits["test"] = Examples(task.splits["test"].ids, task.splits["test"].texts, None)
    evaluations["test"] = evaluate_split(task, "test", torch.zeros(60, 2))
    markdown = write(tmp_path, task, evaluations)
    assert table_after(markdown, "Metrics")[-1] == ["test", "", "", "60"]
    assert "test: each label" not in markdown


def test_of_regression_the_values_and_how_far_they_lie_apart(tmp_path):
    task, evaluations = answered(100, [], kind="regression", metrics=("rmse", "mae", "spearman"))
    markdown = write(tmp_path, task, evaluations)
    assert {path.name for path in tmp_path.glob("*.png")} == {"scatter.png"}
    rows = table_after(markdown, "validation: residuals")[1:]
    assert [row[2] for row in rows] == ["20"] * 5 + ["100"]
    each = evaluations["validation"]
    residuals = np.array(each.predictions) - np.array(each.gold)
    assert rows[-1][4:] == [f"{residuals.mean():+.4f}", f"{each.metrics['mae']:.4f}"]
    largest = table_after(markdown, "validation: the largest residuals")[1:]
    assert float(largest[0][-1]) == pytest.approx(residuals[np.abs(residuals).argmax()], abs=1e-4)
    one_answer = table_after(markdown, "Metrics")[2]
    assert one_answer[1] == f"{np.std(each.gold):.4f}"
    assert one_answer[3] == ""  # a constant has no correlation


def test_one_example_is_enough(tmp_path):
    task, evaluations = answered(1, ["no", "yes"], metrics=("accuracy", "roc_auc"))
    assert table_after(write(tmp_path / "labels", task, evaluations), "Metrics")[1][2] == "undefined"
    task, evaluations = answered(1, [], kind="regression", metrics=("spearman",))
    assert table_after(write(tmp_path / "values", task, evaluations), "Metrics")[1][1] == "undefined"


@pytest.fixture
def finished(tiny_run, tmp_path):
    """A copy of the finished tiny run, and its task as a run of the command reads it."""
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_run_recipe

    folder = tmp_path / tiny_run.name
    shutil.copytree(tiny_run, folder)
    for file in (folder / "report.html", folder / "report.md"):
        file.unlink(missing_ok=True)
    return folder, Inputs().task(load_run_recipe(folder / "recipe.yaml"))


def test_a_run_gets_its_page_from_its_predictions_alone(finished, tmp_path):
    folder, task = finished
    shutil.rmtree(folder / "model")
    kept = (folder / "result.json").read_bytes()
    write_run_page(folder, task, "dpstune train --recipe tiny.yaml")
    assert_whole(folder)
    markdown = (folder / "report.md").read_text()
    result = json.loads(kept)
    assert f"accuracy on validation: {result['value']:.4f}" in markdown
    assert "`dpstune train --recipe tiny.yaml`" in markdown
    assert (folder / "training.png").exists()
    assert (folder / "result.json").read_bytes() == kept


@pytest.mark.parametrize("lost", ["predictions/validation.parquet", "metrics.jsonl", "result.json"])
def test_a_run_that_lost_its_files_is_told_in_one_line(finished, lost):
    folder, task = finished
    (folder / lost).unlink()
    with pytest.raises(RunError, match="no predictions to make a page of"):
        write_run_page(folder, task)
    assert not (folder / "report.html").exists()


def test_the_command_writes_the_page_and_makes_up_for_one_that_is_missing(zygote, tiny_task, tmp_path):
    def train(*more):
        run = zygote.run("train", "--recipe", tiny_task, "--set", "training.steps=2", "--output", tmp_path, *more)
        assert run.code == 0, run.stderr
        return run.stderr

    assert "report: " in train()
    (page,) = tmp_path.glob("*/*/*/report.html")
    first = page.read_bytes()
    assert "report: " not in train()
    page.unlink()
    assert f"report: {page}" in train()
    assert page.read_bytes() == first


def test_a_page_that_cannot_be_made_costs_nothing_of_the_run(run, tiny_task, tmp_path, monkeypatch):
    def fail(*arguments):
        raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")

    monkeypatch.setattr("dpstune.report.run_report.write_run_page", fail)
    code, out, err = run("train", "--recipe", tiny_task, "--set", "training.steps=1", "--output", tmp_path, "--json")
    assert code == 0, err
    assert json.loads(out)["steps"] == 1
    assert "no report: unexpected UnicodeEncodeError: 'utf-8' codec can't encode" in err


def test_eval_writes_a_page_with_the_metrics_that_are_asked_for(zygote, tiny_run, tmp_path):
    run = zygote.run("eval", tiny_run, "--metric", "log_loss,roc_auc", "--report", tmp_path / "page", "--json")
    assert run.code == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["metric"], list(told["metrics"]["validation"])) == ("log_loss", ["log_loss", "roc_auc"])
    assert told["report"] == str(tmp_path / "page" / "report.html")
    assert_whole(tmp_path / "page")
    assert f"--report {tmp_path / 'page'}`" in (tmp_path / "page" / "report.md").read_text()


def test_eval_overwrites_no_report_and_no_runs_page_unless_it_is_told_to(zygote, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "report.html").unlink()
    (run / "report.md").unlink()
    for place, file, told in (
        (tmp_path / "page", "report.html", "it holds a report; choose another folder, or overwrite it with --force"),
        (tmp_path / "text", "report.md", "it holds a report"),
        (tmp_path / "pictures", "confusion.png", "it holds a confusion.png; choose another folder, or have it"),
        (run, "notes.md", "it is a run's folder; choose another folder, or overwrite its page with --force"),
    ):
        place.mkdir(exist_ok=True)
        (place / file).write_text("mine")
        refused = zygote.run("eval", run, "--report", place)
        assert (refused.code, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert refused.stderr.startswith(f"error: --report {place}: {told}")
        assert (place / file).read_text() == "mine"
    forced = zygote.run("eval", run, "--report", tmp_path / "page", "--force")
    assert forced.code == 0, forced.stderr
    assert_whole(tmp_path / "page")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("rmse", "does not suit a classification task"),
        ("log_los", "did you mean 'log_loss'?"),
        (",", "names no metric"),
    ],
)
def test_eval_refuses_metrics_in_one_line(zygote, tiny_run, asked, told):
    run = zygote.run("eval", tiny_run, "--metric", asked)
    assert (run.code, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert run.stderr.startswith(f"error: --metric {asked}: ")
    assert told in run.stderr


def test_matplotlib_is_imported_where_a_page_is_written():
    code = "import sys, dpstune.report.run_report as _; assert not {'matplotlib', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_where_the_targets_labels_are_finer_probabilities_are_left_out(tmp_path):
    """Also what one answer to all would get, which there is nothing to compare with."""
    names = ("entailment", "neutral", "contradiction")
    task, _ = answered(40, names, metrics=("accuracy", "log_loss"))
    model = ("entailment", "not_entailment")
    logits = torch.tensor(np.random.default_rng(0).normal(0, 1, (40, 2)), dtype=torch.float32)
    evaluation = evaluate_split(task, "validation", logits, map_labels(model, names))
    rows = table_after(write(tmp_path, task, {"validation": evaluation}), "Metrics")
    assert (rows[1][2], rows[2][2]) == ("undefined", "")
    assert {path.name for path in tmp_path.glob("*.png")} == {"confusion.png"}


def test_where_the_targets_labels_are_coarser_the_page_is_about_the_answers(tmp_path, monkeypatch):
    """An answer is the likeliest of the model's own labels, which is not always the likeliest of the folded ones."""
    model, names = ("entailment", "neutral", "contradiction"), ("not_entailment", "entailment")
    examples = Examples([f"ex{i}" for i in range(4)], [("x", "y")] * 4, [1, 1, 1, 0])
    metrics = {"metric": "accuracy", "more_metrics": ("calibration_error",)}
    task = TaskData("mine", "classification", names, splits={"validation": examples}, notes=(), **metrics)
    logits = torch.tensor([[0.4, 0.3, 0.3]] * 4).log()
    evaluation = evaluate_split(task, "validation", logits, map_labels(model, names))
    assert evaluation.metrics == pytest.approx({"accuracy": 0.75, "calibration_error": 0.35})
    titles = []
    monkeypatch.setattr(
        "dpstune.report.run_report.reliability_figure",
        lambda *given: titles.append((figure := reliability_figure(*given)).axes[0].get_title("left")) or figure,
    )
    markdown = write(tmp_path, task, {"validation": evaluation})
    assert "calibration error 0.3500" in titles[0]
    (mistake,) = table_after(markdown, "validation: the surest mistakes")[1:]
    assert mistake[-3:] == ["not_entailment", "entailment", "0.4000"]


@pytest.mark.parametrize("count", [1, 3])
def test_of_several_labels_an_example_each_label_has_its_row(tmp_path, count):
    names = ["angry", "loud", "sad"][:count]
    task, evaluations = answered(60, names, kind="multilabel", metrics=("micro_f1",), splits=("validation", "test"))
    markdown = write(tmp_path, task, evaluations)
    assert not list(tmp_path.glob("*.png"))
    for split, each in evaluations.items():
        rows = table_after(markdown, f"{split}: each label")[1:]
        gold, given = np.array(each.gold), np.array(each.predictions)
        for label, row in enumerate(rows[:count]):
            right = (gold[:, label] & given[:, label]).sum()
            sums = given[:, label].sum(), gold[:, label].sum()
            expected = [f"{value:.4f}" for value in (right / sums[0], right / sums[1], 2 * right / sum(sums))]
            assert row == [names[label], *expected, str(sums[1]), str(sums[0])]
        assert float(rows[count][3]) == pytest.approx(each.metrics["macro_f1"], abs=1e-4)
    metrics = table_after(markdown, "Metrics")
    assert metrics[0][1:4] == ["micro_f1", "macro_f1", "subset_accuracy"]
    assert metrics[1][1] == f"{evaluations['validation'].metrics['micro_f1']:.4f}"


def test_where_no_example_has_a_label_there_is_nothing_to_weigh_by(tmp_path):
    examples = Examples(["a", "b"], [("x",)] * 2, [(0, 0), (0, 0)])
    task = TaskData("mine", "multilabel", ("angry", "sad"), "micro_f1", {"validation": examples}, ())
    evaluation = evaluate_split(task, "validation", torch.tensor([[-1.0, 1.0], [-1.0, -1.0]]))
    rows = table_after(write(tmp_path, task, {"validation": evaluation}), "validation: each label")
    assert rows[-1][1:] == ["", "", "", "0", "1"]
