"""``dpstune.sweep`` on the tiny task."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpstune
from dpstune.api.arguments import as_grid
from dpstune.errors import RequestError, RunError
from dpstune.studies.grid import widen

FEW = {"training": {"steps": 2, "warmup_steps": 0}, "data": {"max_length": 16, "train_size": 12}}
RATES = {
    "training.learning_rate": [0.001, 1.0, 1e30]
}  # the second one spoils what there is, with the third none trains


@pytest.fixture(scope="module")
def study(tiny_task, tmp_path_factory):
    """Of a metric that is better when lower."""
    changes = {**FEW, "task.metric": "log_loss", "output": tmp_path_factory.mktemp("study"), "quiet": True}
    return dpstune.sweep(tiny_task, methods=["vanilla"], seeds=2, grid=RATES, **changes)


def test_the_model_is_that_of_the_best_run_also_where_lower_is_better(study):
    values = {run: json.loads((run / "result.json").read_text())["value"] for run in study.runs}
    rows = study.table.to_dict("records")
    assert len({row["mean"] for row in rows}) == 3
    rows = rows[:2]  # without the one that diverged
    assert all(values[Path(row["best_run"])] == row["best"] == min(row["best"], row["mean"]) for row in rows)
    top = min(rows, key=lambda row: row["mean"])
    assert study.model == Path(top["best_run"]) / "model"
    assert study.best_run == study.model.parent


def test_a_run_of_another_kind_of_machine_is_not_trained_again(tiny_task, tmp_path):
    asked = {**FEW, "output": tmp_path, "quiet": True}
    (run,) = dpstune.sweep(tiny_task, methods=["vanilla"], seeds=1, **asked).runs
    other = run.rename(run.with_name("seed-42-0123456789"))
    environment = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps({**environment, "device": "NVIDIA H200"}))
    assert dpstune.sweep(tiny_task, methods=["vanilla"], seeds=1, **asked).runs == [other]
    mixed = dpstune.sweep(tiny_task, methods=["vanilla"], seeds=2, **asked)
    assert other in mixed.runs
    assert "device NVIDIA H200 (1 of vanilla) and cpu (1 of vanilla)" in " ".join(mixed.notes)


def test_what_fails_is_named_and_the_rest_reported(study):
    assert len(study.runs) == 4
    assert len(study.failed) == 2
    for (job, error), seed in zip(study.failed.items(), (42, 43), strict=True):
        assert "1e+30" in job
        assert str(seed) in job
        assert "the loss of step 2 is nan" in error
    assert study.report.is_file()
    assert "failed: vanilla" in (study.report.with_suffix(".md")).read_text()


def test_restarts_that_diverge_count_as_restarts_that_learned_nothing(study):
    *_, diverged = study.table.to_dict("records")
    (always,) = {json.loads((run / "result.json").read_text())["majority"] for run in study.runs}
    assert diverged["training.learning_rate"] == 1e30
    assert (diverged["seeds"], diverged["failed"], diverged["mean"]) == (2, 2, pytest.approx(always))
    text = study.report.with_suffix(".md").read_text()
    assert "2 restarts diverged and left no model." in text
    assert "2/2 (2 diverged)" in text
    assert "they count as always answering the shares of the training labels, and as failed" in text
    assert re.search(r"failed restarts: [2-6] of 6", text)
    with study.report.with_name("runs.csv").open() as file:
        assert [row["value"] == "" for row in csv.DictReader(file)] == [False] * 4 + [True] * 2


def test_the_commands_report_counts_what_diverged_too(study, tiny_task, zygote):
    grid = ",".join(map(str, RATES["training.learning_rate"]))
    few = [f"--set={key}.{below}={value}" for key, values in FEW.items() for below, value in values.items()]
    same = [
        "--method",
        "vanilla",
        "--seeds",
        2,
        "--grid",
        f"training.learning_rate={grid}",
        "--set=task.metric=log_loss",
    ]
    before = study.report.with_name("points.csv").read_text()
    run = zygote.run("sweep", "--recipe", tiny_task, *same, *few, "--output", study.folder.parent.parent, "--report")
    assert run.code == 0, run.stderr
    assert study.report.with_name("points.csv").read_text() == before
    assert "still to be done" not in study.report.with_suffix(".md").read_text()


def test_a_sweep_of_which_nothing_can_be_finished_is_an_error(tiny_task, tmp_path):
    grid = {"training.learning_rate": [1e30]}
    with pytest.raises(RunError, match="1 of 1 runs failed; the first with: "):
        dpstune.sweep(tiny_task, methods="vanilla", seeds=1, grid=grid, output=tmp_path, quiet=True, **FEW)


def test_a_sweep_without_a_score_is_refused(tiny_task, tmp_path):
    file = str(tiny_task.with_name("train.csv"))
    task = {"files": {"train": file, "validation": 0}, "text": ["first", "second"], "label": "label"}
    recipe = {"model": {"name": str(tiny_task.parent)}, "task": task}
    with pytest.raises(RequestError, match="is evaluated, so that there is nothing to compare by"):
        dpstune.sweep(recipe, methods="vanilla", output=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"method.p": 0.35}, "grid: method.p is 0.35; it should be a list of values"),
        ({"method.p": "0.1,0.2"}, "grid: method.p is '0.1,0.2'; it should be a list"),
        ({"method": {"p": [0.1]}}, "grid: method is {'p': [0.1]}; it should be a list"),
        ({"method.p": np.array(0.1)}, "grid: method.p is 0.1; it should be a list"),
        ({"method.p": b"ab"}, "grid: method.p is b'ab'; it should be a list"),
        ({"method.p": pd.DataFrame({"p": [0.1]})}, "it should be a list"),
        ({"method.p": []}, "should be KEY=VALUE,VALUE"),
        (["method.p=0.1"], "should be keys with their values"),
    ],
)
def test_a_grid_that_is_none_is_refused(tiny_task, tmp_path, grid, told):
    with pytest.raises(RequestError, match=re.escape(told)):
        dpstune.sweep(tiny_task, methods=["mixout"], grid=grid, output=tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


def test_every_value_of_a_grid_is_a_point():
    grid = {"training.scheduler": ("linear", "constant"), "training.learning_rate": [np.float32(0.25), np.int64(1)]}
    grid |= {"training.warmup_steps": range(2), "training.batch_size": np.array([4, 8])}
    assert widen({}, "vanilla", as_grid(grid)) == {key: list(values) for key, values in grid.items()}
    assert as_grid(None) == ()


def test_a_methods_name_by_itself_is_one_method(tiny_task, tmp_path):
    for function in (dpstune.sweep, dpstune.casestudy):
        with pytest.raises(RequestError, match="unknown method 'mixuot'"):
            function(tiny_task, methods="mixuot", output=tmp_path, quiet=True)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_fewer_restarts_than_one_are_refused(tiny_task, tmp_path, number):
    told = re.escape(f"={number!r}: should be a whole number, 1 or more")
    with pytest.raises(RequestError, match=f"seeds{told}"):
        dpstune.sweep(tiny_task, seeds=number, output=tmp_path)
    with pytest.raises(RequestError, match=f"jobs{told}"):
        dpstune.sweep(tiny_task, jobs=number, output=tmp_path)
    with pytest.raises(RequestError, match=f"restarts{told}"):
        dpstune.casestudy(tiny_task, restarts=number, output=tmp_path)


@pytest.mark.parametrize("function", [dpstune.train, dpstune.sweep, dpstune.casestudy])
def test_what_is_no_recipe_is_refused(function, tmp_path):
    with pytest.raises(RequestError, match=r"a recipe is a name, a file or a mapping of sections, not \["):
        function(["demo"], output=tmp_path)
