import json
import os
from pathlib import Path

import pytest

from dpstune.errors import RequestError
from dpstune.recipe.recipe import dump_recipe, load_recipe
from dpstune.studies.points import read_runs
from dpstune.studies.records import RunRecord, newest_of_each

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


def test_of_runs_with_one_key_the_newest_counts(tmp_path):
    folders = [make_run(tmp_path / f"seed-1-{name}") for name in "ab"]
    os.utime(folders[1] / "result.json", (1, 1))
    records, _ = read_runs(tmp_path)
    assert [each.folder for each in records] == folders[:1]
    both = [record(), record()]
    both = [RunRecord(folder, each.recipe, each.result) for folder, each in zip(folders, both, strict=True)]
    assert newest_of_each(both, ["x", "x"]) == {"x": both[0]}


def test_the_newest_is_the_one_that_ended_last_however_its_files_were_copied(tmp_path):
    first = make_run(tmp_path / "seed-1-a", ended="2026-03-02T09:00:00+09:00")
    last = make_run(tmp_path / "seed-1-b", ended="2026-03-02T00:30:00+00:00")
    os.utime(last / "result.json", (1, 1))
    records, notes = read_runs(tmp_path)
    assert [each.folder for each in records] == [last]
    assert notes == [f"{first.name}: skipped: the same restart as {last.name}, which is newer"]
    assert records[0].ended.date().isoformat() == "2026-03-02"


def test_runs_that_were_moved_and_linked_are_found_and_none_twice(tmp_path):
    kept, moved = make_run(tmp_path / "runs" / "seed-1-a"), make_run(tmp_path / "disk" / "seed-2-b", seed=2)
    (tmp_path / "runs" / moved.name).symlink_to(moved)
    (tmp_path / "runs" / "again").symlink_to(kept.parent)
    (tmp_path / "runs" / "all").symlink_to(tmp_path)
    (tmp_path / "runs" / "gone").symlink_to(tmp_path / "nowhere")
    records, notes = read_runs(tmp_path / "runs")
    assert sorted(each.seed for each in records) == [1, 2]
    assert notes == []


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
    (make_run(tmp_path / "seed-14-lost", seed=14) / "result.json").rename(tmp_path / "seed-14-lost" / "diverged.json")
    text = (make_run(tmp_path / "seed-11-lacks", seed=11) / "result.json").read_text()
    (tmp_path / "seed-11-lacks" / "result.json").write_text(text.replace('"majority"', '"minority"'))
    make_run(tmp_path / "seed-13-kept", seed=13, kept="last")
    make_run(tmp_path / "seed-15-away", seed=15, recipe="../away")
    text = (tmp_path / "seed-1-good" / "result.json").read_text()
    make_run(tmp_path / "seed-12-mixed", seed=12)
    (tmp_path / "seed-12-mixed" / "result.json").write_text(text)
    records, notes = read_runs(tmp_path)
    assert [each.folder.name for each in records] == ["seed-1-good"]
    found = dict(note.split(": ", 1) for note in notes)
    assert found.pop("runs without a result yet") == "1: seed-10-open"
    assert found.pop("1 run diverged") == "seed-14-lost"
    assert "set aside" in found.pop("seed-1-good.earlier-1")
    assert found.pop("seed-13-kept") == "skipped: damaged: kept in result.json holds no mapping"
    away = 'skipped: damaged: recipe in result.json is "../away"; it should be a name without slashes'
    assert found.pop("seed-15-away") == away
    assert found.pop("seed-11-lacks") == "skipped: damaged: result.json lacks majority"
    assert "seed 1, recipe.yaml of seed 12" in found.pop("seed-12-mixed")
    assert "NaN; it should be a finite number" in found.pop("seed-5-nan")
    assert sorted(found) == [
        "seed-2-torn", "seed-3-recipe", "seed-4-none", "seed-6-list", "seed-8-seed", "seed-9-other"
    ]  # fmt: skip
    assert all("skipped: damaged: " in note and "\n" not in note for note in found.values())


def test_a_folder_that_is_not_there_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="is not a folder"):
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


def test_an_r3f_run_from_before_detach_was_a_key_is_no_run_of_the_new_default(tmp_path):
    """Such a run let the gradient of the word embeddings come through the noisy pass; its recipe.yaml says nothing."""
    earlier = make_run(tmp_path / "seed-1-earlier", "r3f")
    text = (earlier / "recipe.yaml").read_text()
    assert "  detach: true\n" in text
    (earlier / "recipe.yaml").write_text(text.replace("  detach: true\n", ""))
    make_run(tmp_path / "seed-1-new", "r3f")
    make_run(tmp_path / "seed-2-asked", "r3f", seed=2, overrides=["method.detach=false"])
    found = {each.folder.name: each.settings for each in read_runs(tmp_path)[0]}
    assert found["seed-1-earlier"]["method.detach"] is False
    assert found["seed-1-earlier"] == found["seed-2-asked"] != found["seed-1-new"]
