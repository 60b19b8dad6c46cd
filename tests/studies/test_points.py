import os

import pytest

from dpstune.studies.points import Point, group_points, model_names, read_runs, task_names
from tests.studies.test_records import make_run, record


def of_files(folder, fingerprint, seed, **more):
    """A run of a user's own task and model, which lie in a folder."""
    files = f"{{train: {folder}/train.csv, validation: {folder}/validation.csv}}"
    overrides = [f"task={{files: {files}, text: a, label: b}}", f"model.name={folder}/m", *more.pop("overrides", ())]
    fingerprints = {"model": f"m{fingerprint}", "task": f"t{fingerprint}"}
    return record(seed=seed, overrides=overrides, task=folder.strip("/"), fingerprints=fingerprints, **more)


def test_runs_of_the_same_model_and_data_are_one_point_wherever_they_lay():
    records = [of_files("/here", 1, 1), of_files("/there", 1, 2), of_files("/there", 1, 2)]
    ((point, runs),) = group_points(records)
    assert (point.name, list(runs)) == ("vanilla", [1, 2])
    assert task_names(records) == ["here"]
    faster = of_files("/there", 1, 1, overrides=["training.learning_rate=0.1"])
    assert [point.label for point, _ in group_points([*records, faster])] == [
        "training.learning_rate 0.0002", "training.learning_rate 0.1"
    ]  # fmt: skip


def test_runs_of_several_processes_are_another_point(tmp_path):
    """Each step of theirs held several batches."""
    alone, together = record(seed=1), record(seed=1, processes=4)
    made_earlier = make_run(tmp_path / "seed-2-a", seed=2)
    (made_earlier / "environment.json").write_text('{"processes": 4}')
    (single, _), (several, runs) = group_points([alone, together, *read_runs(tmp_path)[0]])
    assert (single.label, several.label, list(runs)) == ("", "processes 4", [1, 2])


def test_runs_of_other_data_are_other_points_and_say_where_it_lay():
    records = [of_files("/here", 1, 1), of_files("/there", 2, 1)]
    assert [dict(point.settings)["model.name"] for point, _ in group_points(records)] == ["/here/m", "/there/m"]
    assert task_names(records) == ["here", "there"]


def test_runs_of_what_changed_in_place_are_told_apart_by_content():
    records = [of_files("/here", 1, 1), of_files("/here", 1, 2), of_files("/here", 2, 1), of_files("/copy", 1, 3)]
    old, new = group_points(records)
    assert (old[0].label, list(old[1])) == ("model.content m1, task.content t1", [1, 2, 3])
    assert (new[0].label, list(new[1])) == ("model.content m2, task.content t2", [1])
    assert task_names(records) == ["here of content t1", "here of content t2"]
    assert model_names(records) == ["m of content m1", "m of content m2"]


def named(name, folder, fingerprint, seed, *, told=True):
    """A run of a user's own task of a name; an earlier dpstune told neither the name nor the fingerprint."""
    fingerprints = {"model": "m", "task": fingerprint} if told else {}
    called = f"name: {name}, " if told else ""
    files = f"{{train: {folder}/train.csv, validation: {folder}/validation.csv}}"
    overrides = [f"task={{{called}files: {files}, text: a, label: b}}"]
    return record(seed=seed, overrides=overrides, task=name, fingerprints=fingerprints)


def test_a_task_is_the_same_whatever_it_is_called():
    records = [named("ux", "/ux", "t1", 1, told=False), named("old", "/ux", "t1", 2), named("new", "/copy", "t1", 3)]
    ((point, runs),) = group_points(records)
    assert (point.name, list(runs)) == ("vanilla", [1, 2, 3])
    assert task_names(records) == ["ux"]


def test_tasks_of_one_name_are_told_apart_by_what_they_hold():
    records = [named("reviews", "/a", "t1", 1), named("reviews", "/b", "t2", 1), named("reviews", "/c", "t1", 2)]
    assert task_names(records) == ["reviews of content t1", "reviews of content t2"]


def test_models_in_folders_are_called_by_what_tells_them_apart():
    places = ["/models/tiny", "/other/tiny", "/models/small", "google/electra"]
    records = [record(seed=1, overrides=[f"model.name={place}"]) for place in places]
    assert model_names(records) == ["models/tiny", "other/tiny", "small", "google/electra"]
    points = [point for point, _ in group_points(records)]
    assert sorted(point.label for point in points) == [f"model.name {name}" for name in sorted(model_names(records))]
    assert sorted(dict(point.settings)["model.name"] for point in points) == sorted(places), "programs read it in full"


def test_a_restart_of_changed_data_is_not_the_same_restart(tmp_path):
    for name, content in (("a", "old"), ("b", "new")):
        make_run(tmp_path / f"seed-1-{name}", fingerprints={"model": "m", "task": content})
    records, notes = read_runs(tmp_path)
    assert (len(records), notes) == (2, [])


def test_runs_that_hold_other_examples_back_are_of_one_task():
    prints = ({"model": "m", "task": "whole"}, {"model": "m", "task": "less"})
    records = [
        record(fingerprints=held, overrides=overrides)
        for held, overrides in zip(prints, ((), ("data.held_out=100",)), strict=True)
    ]
    assert task_names(records) == ["toy-nli"]
    assert [point.label for point, _ in group_points(records)] == ["", "data.held_out 100"]


@pytest.mark.parametrize("damaged", [["m"], {"model": ["m"], "task": None}, {"training": "t"}])
def test_fingerprints_that_are_none_count_as_missing(damaged):
    ((_, runs),) = group_points([record(seed=1, fingerprints=damaged), record(seed=2)])
    assert list(runs) == [1, 2]


def test_of_the_same_restart_the_newer_counts(tmp_path):
    old = make_run(tmp_path / "a" / "seed-1-x", value=0.4, overrides=["data.dir=/here"])
    new = make_run(tmp_path / "b" / "seed-1-y", value=0.6, overrides=["data.dir=/there"])
    os.utime(old / "result.json", (1000, 1000))
    records, notes = read_runs(tmp_path)
    assert [each.folder for each in records] == [new]
    assert notes == ["a/seed-1-x: skipped: the same restart as b/seed-1-y, which is newer"]


def test_points_are_settings_that_differ_within_a_method():
    records = [
        record(method, seed, 0.5, overrides)
        for method, overrides in (
            ("mixout", ["method.p=0.5"]),
            ("dps-dense", ["method.p=0.4", "training.learning_rate=1e-5"]),
            ("dps-dense", ["method.p=0.4", "training.learning_rate=2e-6"]),
            ("dps-dense", ["method.p=0.10", "training.learning_rate=2e-6"]),
            ("vanilla", []),
        )
        for seed in (3, 1)
    ]
    points = group_points(records)
    assert [point for point, _ in points] == [
        Point("vanilla"),
        Point("dps-dense", (("method.p", 0.1), ("training.learning_rate", 2e-6))),
        Point("dps-dense", (("method.p", 0.4), ("training.learning_rate", 2e-6))),
        Point("dps-dense", (("method.p", 0.4), ("training.learning_rate", 1e-5))),
        Point("mixout"),
    ]
    assert all(list(runs) == [1, 3] for _, runs in points)
    assert points[1][0].label == "p 0.1, training.learning_rate 2e-06"
    assert group_points([]) == []


def test_settings_of_other_kinds_have_an_order_and_yaml_names():
    records = [
        record("r3f", overrides=overrides)
        for overrides in (
            ["method.lambda=5", "method.noise=uniform"],
            ["method.lambda=0.5", "method.noise=uniform", "model.dropout=0.1"],
            ["method.lambda=0.5", "method.noise=normal", "training.adam_betas=[0.9, 0.98]"],
        )
    ]
    labels = [point.label for point, _ in group_points(records)]
    assert labels == [
        "noise normal, lambda 0.5, training.adam_betas 0.9 0.98",
        "noise uniform, lambda 5, training.adam_betas 0.9 0.999",
        "model.dropout 0.1, noise uniform, lambda 0.5, training.adam_betas 0.9 0.999",
    ]


def test_steps_and_epochs_are_settings_of_which_one_is_given():
    records = [record(overrides=["training.steps=30"]), record(overrides=["training.epochs=2"])]
    assert [point.label for point, _ in group_points(records)] == ["training.epochs 2", "training.steps 30"]
