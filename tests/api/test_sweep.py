"""``dpstune.sweep`` on the tiny task."""

import json
from pathlib import Path

import pytest

import dpstune

FEW = {"training": {"steps": 2, "warmup_steps": 0}, "data": {"max_length": 16, "train_size": 12}}
RATES = {"training.learning_rate": [0.001, 1.0]}  # the second one spoils what there is


@pytest.fixture(scope="module")
def study(tiny_task, tmp_path_factory):
    """Of a metric that is better when lower."""
    changes = {**FEW, "task.metric": "log_loss", "output": tmp_path_factory.mktemp("study"), "quiet": True}
    return dpstune.sweep(tiny_task, methods=["vanilla"], seeds=2, grid=RATES, **changes)


def test_the_model_is_that_of_the_best_run_also_where_lower_is_better(study):
    values = {run: json.loads((run / "result.json").read_text())["value"] for run in study.runs}
    rows = study.table.to_dict("records")
    assert len({row["mean"] for row in rows}) == 2
    assert all(values[Path(row["best_run"])] == row["best"] == min(row["best"], row["mean"]) for row in rows)
    top = min(rows, key=lambda row: row["mean"])
    assert study.model == Path(top["best_run"]) / "model"
    assert study.best_run == study.model.parent
