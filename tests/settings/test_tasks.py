import csv
from pathlib import Path

import pytest

from dpstune.errors import RequestError
from dpstune.settings.base import check_settings
from dpstune.settings.sections import OwnTask, TableTask
from dpstune.settings.tasks import TASKS, get_task

GLUE = Path(__file__).parents[3] / "shared" / "data" / "glue"
NLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("name", "labels", "metric"),
    [
        ("rte", ("entailment", "not_entailment"), "accuracy"),
        ("mrpc", ("not_equivalent", "equivalent"), "f1"),
        ("stsb", (), "spearman"),
        ("cola", ("unacceptable", "acceptable"), "matthews"),
        ("sst2", ("negative", "positive"), "accuracy"),
        ("qnli", ("entailment", "not_entailment"), "accuracy"),
        ("qqp", ("not_duplicate", "duplicate"), "accuracy"),
        ("mnli", NLI, "accuracy"),
        ("snli", NLI, "accuracy"),
        ("sick", NLI, "accuracy"),
        ("scitail", ("entails", "neutral"), "accuracy"),
        ("hans", ("entailment", "non-entailment"), "accuracy"),
        ("toy-nli", NLI, "accuracy"),
        ("toy-rte", ("entailment", "not_entailment"), "accuracy"),
        ("toy-sts", (), "spearman"),
    ],
)
def test_labels_and_metrics_are_the_papers(name, labels, metric):
    task = get_task(name)
    assert (task.labels, task.metric) == (labels, metric)
    assert task.kind == ("classification" if labels else "regression")


def test_glue_has_its_eight_tasks_on_the_hub_and_in_folders():
    glue = [task.name for task in TASKS.values() if task.glue and task.hub and task.hub.id == "nyu-mll/glue"]
    assert glue == ["rte", "mrpc", "stsb", "cola", "sst2", "qnli", "qqp", "mnli"]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_source_serves_every_split(task):
    sources = [files for files in (task.hub and task.hub.splits, task.glue and task.glue.files) if files]
    assert bool(sources) != task.toy
    assert all(set(source) == set(task.splits) for source in sources)
    assert task.splits[0] == "train"
    assert task.validation_splits


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_raw_labels_lead_to_labels(task):
    if task.glue is not None and task.glue.names:
        assert tuple(task.glue.names.values()) == task.labels


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("toy-") and name.endswith("-shift")])
def test_a_shifted_task_asks_the_same_question(name):
    shifted, plain = get_task(name), get_task(name.removesuffix("-shift"))
    assert (shifted.labels, shifted.metric, shifted.kind) == (plain.labels, plain.metric, plain.kind)


def test_mnli_reports_the_matched_split_first():
    assert get_task("mnli").validation_splits == ("validation_matched", "validation_mismatched")


def test_an_unknown_task_is_offered_the_nearest():
    with pytest.raises(RequestError, match="unknown task 'mprc'; did you mean 'mrpc'"):
        get_task("mprc")


@pytest.mark.skipif(not GLUE.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize("name", ["rte", "mrpc", "stsb"])
def test_columns_and_labels_are_those_of_the_distributed_files(name):
    layout = get_task(name).glue
    with (GLUE / layout.folder / layout.files["train"]).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        assert {*layout.text, layout.label} <= set(rows.fieldnames)
        seen = {row[layout.label] for row in rows}
    if get_task(name).labels:
        assert {layout.names.get(raw, raw) for raw in seen} == set(get_task(name).labels)


OWN = {"files": {"train": "a.csv", "validation": "b.csv"}, "text": "text", "label": "label"}


@pytest.mark.parametrize(
    ("asked", "kept"), [("f1", "f1"), (["f1"], "f1"), (["f1", "log_loss"], ("f1", "log_loss")), (None, None)]
)
def test_a_task_names_one_metric_or_several(asked, kept):
    assert check_settings(OwnTask, {**OWN, "metric": asked}, place="task").metric == kept
    assert check_settings(TableTask, {"name": "rte", "metric": asked}, place="task").metric == kept


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (OwnTask, {**OWN, "metric": "acuracy"}, "task: metric: unknown metric 'acuracy'; did you mean 'accuracy'?"),
        (OwnTask, {**OWN, "metric": ["f1", "f1"]}, "metric f1 is there twice"),
        (OwnTask, {**OWN, "metric": []}, "names no metric"),
        (OwnTask, {**OWN, "metric": 3}, "should be a metric, or a list of them, not 3"),
        (OwnTask, {**OWN, "metric": ["f1", "rmse"]}, "rmse does not suit a classification task; those that do are acc"),
        (OwnTask, {**OWN, "kind": "regression", "metric": "f1"}, "those that do are spearman, pearson, rmse, mae"),
        (TableTask, {"name": "stsb", "metric": "log_loss"}, "log_loss does not suit a regression task"),
    ],
)
def test_a_wrong_metric_is_told_with_those_that_are_right(schema, values, message):
    with pytest.raises(RequestError) as caught:
        check_settings(schema, values, place="task")
    assert message in str(caught.value)
