import json
import os
from pathlib import Path

import pytest

from dpstune.errors import RequestError
from dpstune.recipe import dump_recipe, load_recipe
from dpstune.studies.records import Point, RunRecord, group_points, model_names, newest_of_each, read_runs, task_names
from dpstune.studies.summary import best_points, compare_with_baseline, summarize_points

RESULT = {
    "recipe": "demo",
    "task": "toy-nli",
    "split": "validation",
    "metric": "accuracy",
    "majority": 0.34,
    "seconds": 3.5,
    "last": {"step": 300, "epoch": 2.4, "metrics": {}},
    "examples": {"train": 2000, "validation": 500},
}


def make_run(folder, method="vanilla", seed=1, value=0.5, overrides=(), **result):
    """Write a finished run; other keys of its result can be given."""
    recipe = load_recipe("demo", method=method, overrides=overrides, seed=seed).recipe
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    (folder / "result.json").write_text(json.dumps({**RESULT, "seed": seed, "value": value, **result}))
    return folder


def record(method="vanilla", seed=1, value=0.5, overrides=(), **result):
    recipe = load_recipe("demo", method=method, overrides=overrides, seed=seed).recipe
    return RunRecord(Path("runs") / method / f"seed-{seed}", recipe, {**RESULT, "seed": seed, "value": value, **result})


def test_runs_are_found_at_any_depth_and_read_back(tmp_path):
    make_run(tmp_path / "demo" / "vanilla" / "seed-1-a", seed=1, value=0.5)
    make_run(tmp_path / "deep" / "er" / "demo" / "mixout" / "seed-2-b", "mixout", seed=2, value=0.25)
    make_run(tmp_path / "demo" / "other", seed=3)  # no run's name
    records, notes = read_runs(tmp_path)
    assert notes == []
    assert [(each.method, each.seed, each.value, each.failed) for each in records] == [
        ("mixout", 2, 0.25, True),
        ("vanilla", 1, 0.5, False),
    ]
    assert records[1].recipe == load_recipe("demo", method="vanilla", seed=1).recipe
    assert (records[1].metric, records[1].majority, records[1].seconds) == ("accuracy", 0.34, 3.5)
    assert len(read_runs(tmp_path / "demo" / "vanilla" / "seed-1-a")[0]) == 1


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
    assert model_names(records) == ["/here/m of content m1", "/here/m of content m2"]


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


def test_of_runs_with_one_key_the_newest_counts(tmp_path):
    folders = [make_run(tmp_path / f"seed-1-{name}") for name in "ab"]
    os.utime(folders[1] / "result.json", (1, 1))
    records, _ = read_runs(tmp_path)
    assert [each.folder for each in records] == folders[:1]
    both = [record(), record()]
    both = [RunRecord(folder, each.recipe, each.result) for folder, each in zip(folders, both, strict=True)]
    assert newest_of_each(both, ["x", "x"]) == {"x": both[0]}


def test_a_recipes_name_may_begin_as_a_runs(tmp_path):
    run = make_run(tmp_path / "seed-1-mine" / "vanilla" / "seed-1-a")
    (tmp_path / "seed-1-mine" / "vanilla" / "seed-2-b" / "checkpoints").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "seed-1-mine"):
        records, notes = read_runs(folder)
        assert [each.folder for each in records] == [run]
        assert [note.rpartition("/")[2] for note in notes] == ["seed-2-b"]


def test_what_is_skipped_is_named_with_its_reason(tmp_path):
    make_run(tmp_path / "seed-1-good")
    make_run(tmp_path / "seed-1-good.earlier-1", seed=7)
    (make_run(tmp_path / "seed-2-torn", seed=2) / "result.json").write_text('{"value": 0.')
    (make_run(tmp_path / "seed-3-recipe", seed=3) / "recipe.yaml").write_text("model: [")
    (make_run(tmp_path / "seed-4-none", seed=4) / "recipe.yaml").unlink()
    make_run(tmp_path / "seed-5-nan", seed=5, value=float("nan"))
    (make_run(tmp_path / "seed-6-list", seed=6) / "result.json").write_text("[]")
    make_run(tmp_path / "seed-8-seed", seed=8, metric="accuracy", value="high")
    make_run(tmp_path / "seed-9-other", seed=9, **{"seconds": None})
    (make_run(tmp_path / "seed-10-open", seed=10) / "result.json").unlink()
    text = (make_run(tmp_path / "seed-11-lacks", seed=11) / "result.json").read_text()
    (tmp_path / "seed-11-lacks" / "result.json").write_text(text.replace('"majority"', '"minority"'))
    text = (tmp_path / "seed-1-good" / "result.json").read_text()
    make_run(tmp_path / "seed-12-mixed", seed=12)
    (tmp_path / "seed-12-mixed" / "result.json").write_text(text)
    records, notes = read_runs(tmp_path)
    assert [each.folder.name for each in records] == ["seed-1-good"]
    found = dict(note.split(": ", 1) for note in notes)
    assert found.pop("runs without a result yet") == "1: seed-10-open"
    assert "set aside" in found.pop("seed-1-good.earlier-1")
    assert found.pop("seed-11-lacks") == "skipped: damaged: result.json lacks majority"
    assert "seed 1, recipe.yaml of seed 12" in found.pop("seed-12-mixed")
    assert "NaN, no finite number" in found.pop("seed-5-nan")
    assert sorted(found) == [
        "seed-2-torn", "seed-3-recipe", "seed-4-none", "seed-6-list", "seed-8-seed", "seed-9-other"
    ]  # fmt: skip
    assert all("skipped: damaged: " in note and "\n" not in note for note in found.values())


def test_of_the_same_restart_the_newer_counts(tmp_path):
    old = make_run(tmp_path / "a" / "seed-1-x", value=0.4, overrides=["data.dir=/here"])
    new = make_run(tmp_path / "b" / "seed-1-y", value=0.6, overrides=["data.dir=/there"])
    os.utime(old / "result.json", (1000, 1000))
    records, notes = read_runs(tmp_path)
    assert [each.folder for each in records] == [new]
    assert notes == ["a/seed-1-x: skipped: the same restart as b/seed-1-y, which is newer"]


def test_a_folder_that_is_not_there_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="is no folder"):
        read_runs(tmp_path / "runs")
    assert read_runs(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("value", "majority", "failed"),
    [
        (0.5, 0.5, True),
        (0.51, 0.5, False),
        (0.4, 0.5, True),
        (None, None, True),
        (0.0, None, True),
        (0.1, None, False),
        (-0.1, None, True),
        (0.01, 0.0, False),
    ],
)
def test_a_restart_fails_at_or_below_the_majority_class(value, majority, failed):
    assert record(value=value, majority=majority).failed is failed


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


def test_one_lucky_restart_is_not_the_best_point():
    records = [record("mixout", seed, 0.6, ["method.p=0.1"]) for seed in (1, 2, 3, 4)]
    records += [record("mixout", seed, 0.7, ["method.p=0.2"]) for seed in (1, 2)]
    records += [record("mixout", 1, 0.9, ["method.p=0.3"])]
    best = best_points(summarize_points(records))
    assert best["mixout"].point.label == "p 0.2"


def test_the_comparison_is_over_shared_seeds():
    records = [record("vanilla", seed, value) for seed, value in ((1, 0.5), (2, 0.6), (3, 0.9))]
    records += [record("mixout", seed, value) for seed, value in ((1, 0.7), (2, 0.7), (9, 0.1))]
    records += [record("reinit", 5, 0.6)]
    mixout, reinit = compare_with_baseline(best_points(summarize_points(records)))
    assert mixout.seeds == (1, 2)
    assert mixout.difference == pytest.approx(0.15)
    assert (mixout.p_value, mixout.smallest) == (0.5, 0.5)
    assert (reinit.seeds, reinit.difference, reinit.p_value) == ((), None, None)
    assert compare_with_baseline(best_points(summarize_points(records[3:]))) == []


def test_an_undefined_value_makes_a_point_worse_not_better():
    (summary,) = summarize_points([record(seed=1, value=0.8, majority=None), record(seed=2, value=None, majority=None)])
    assert (summary.mean, summary.maximum, summary.undefined, summary.failed) == (0.4, 0.8, 1, 1)
