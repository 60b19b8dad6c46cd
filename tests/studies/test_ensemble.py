"""Restarts put together: their probabilities, and their weights as one model."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from safetensors.torch import load, load_file, save_file

from dpstune.runs.folder import read_predictions
from tests.training.test_engine import full_after


@pytest.fixture(scope="module")
def restarts(zygote, tiny_task, tmp_path_factory):
    """The folders of three finished restarts of the tiny task."""
    output = tmp_path_factory.mktemp("restarts")
    run = zygote.run("train", "--recipe", tiny_task, "--seeds", 3, "--output", output)
    assert run.code == 0, run.stderr
    return sorted(result.parent for result in output.glob("*/*/*/result.json"))


def together(zygote, output, *arguments):
    run = zygote.run("ensemble", *arguments, "--output", output, "--json")
    assert run.code == 0, run.stderr
    return json.loads(run.stdout)


def test_probabilities_are_averaged_and_scored(zygote, restarts, tmp_path):
    told = together(zygote, tmp_path, *restarts)
    singles = [json.loads((run / "result.json").read_text())["value"] for run in restarts]
    assert [each["value"] for each in told["restarts"]] == pytest.approx(singles)
    assert told["gain"] == pytest.approx(told["value"] - sum(singles) / 3)
    assert told["low"] <= told["value"] <= told["high"]
    assert told["model"] is None

    (file,) = tmp_path.glob("*/ensemble-*/predictions/validation.parquet")
    mine = read_predictions(file)
    theirs = [read_predictions(run / "predictions" / "validation.parquet") for run in restarts]
    mean = np.mean([each["scores"] for each in theirs], axis=0)
    assert np.allclose(mine["scores"], mean)
    assert mine["prediction"] == [["no", "yes"][index] for index in mean.argmax(1)]
    right = np.mean([one == other for one, other in zip(mine["prediction"], mine["label"], strict=True)])
    assert told["value"] == pytest.approx(right)
    assert "Weights were kept" not in (file.parent.parent / "report.md").read_text()


def copy_as_seed(seed, run, place):
    """Copy a run as if another seed had come to the same weights."""
    shutil.copytree(run, place)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (place / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "seed": seed}))
    result = json.loads((run / "result.json").read_text())
    (place / "result.json").write_text(json.dumps({**result, "seed": seed}))
    return place


def test_the_mean_of_a_runs_weights_with_themselves_is_that_run_and_is_kept(zygote, restarts, tmp_path):
    twin = copy_as_seed(7, restarts[0], tmp_path / "twin")
    told = together(zygote, tmp_path, restarts[0], twin, "--weights")
    mean, single = (load_file(f"{model}/model.safetensors") for model in (told["model"], restarts[0] / "model"))
    assert all(np.array_equal(mean[key], single[key]) for key in single)
    assert told["gain"] == 0
    page = Path(told["report"]).with_suffix(".md").read_text()
    assert "of weights that are kept, score and gain are a little optimistic" in page

    from transformers import pipeline

    assert pipeline("text-classification", model=told["model"])("the cat")[0]["label"] in ("yes", "no")


def test_a_gain_is_above_0_where_it_is_better_also_where_lower_is(zygote, tiny_task, tmp_path):
    changes = ["--set", "task.metric=log_loss", "--set", "training.keep=best"]
    run = zygote.run("train", "--recipe", tiny_task, "--seeds", 2, "--output", tmp_path, *changes)
    assert run.code == 0, run.stderr
    folders = sorted(result.parent for result in tmp_path.glob("*/*/*/result.json"))
    told = together(zygote, tmp_path, *folders)
    singles = [each["value"] for each in told["restarts"]]
    assert told["value"] < sum(singles) / 2  # the mean of probabilities never has a larger log loss
    assert told["gain"] == pytest.approx(sum(singles) / 2 - told["value"])
    assert told["gain_low"] <= told["gain"] <= told["gain_high"]
    assert any("chosen on validation: scores there are optimistic" in note for note in told["notes"])


def spoil(run):
    """Make a run's head answer the other way round, three times as loudly: a mean with it is worse than the run."""
    file = run / "model" / "model.safetensors"
    turned = {key: each * -3 if key.startswith("classifier") else each for key, each in load_file(file).items()}
    save_file(turned, file, {"format": "pt"})


def test_a_mean_of_weights_that_scores_less_than_the_best_restart_is_not_kept_and_an_earlier_one_gives_way(
    zygote, restarts, tmp_path
):
    other = copy_as_seed(7, restarts[0], tmp_path / "other")
    kept = together(zygote, tmp_path, restarts[0], other, "--weights")
    assert Path(kept["model"]).is_dir()
    spoil(other)
    told = together(zygote, tmp_path, restarts[0], other, "--weights")
    assert told["report"] == kept["report"]
    assert told["model"] is None
    assert "not kept" in told["notes"][0]
    assert not Path(kept["model"]).exists()
    assert not list(tmp_path.glob("*/.ensemble-*.soup*"))


def test_a_full_disk_is_told_in_one_line_and_nothing_is_left(run, restarts, tmp_path):
    with full_after(10_000):
        code, _, err = run("ensemble", *restarts, "--weights", "--output", tmp_path)
    assert code == 1
    assert re.fullmatch(r"error: writing to .*\.soup failed: File too large; .* make room and .*\n", err)
    assert not list(tmp_path.rglob("*soup*"))


def test_what_lies_in_folders_of_a_model_and_its_card_do_not_become_the_means(zygote, restarts, tmp_path):
    runs = [copy_as_seed(seed, restarts[0], tmp_path / str(seed)) for seed in (1, 2)]
    for run in runs:
        (run / "model" / "onnx").mkdir()
        (run / "model" / "onnx" / "model.onnx").write_text("of this run")
    told = together(zygote, tmp_path, *runs, "--weights")
    there = {file.name for file in (runs[0] / "model").iterdir()}
    assert {file.name for file in Path(told["model"]).iterdir()} == there - {"onnx", "README.md"}


def test_rows_of_one_group_are_drawn_together(zygote, restarts, tmp_path):
    for number, run in enumerate(restarts):
        shutil.copytree(run, tmp_path / f"seed-{number}")
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        recipe["task"]["group"] = "second"  # the same in all rows
        (tmp_path / f"seed-{number}" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    alone, grouped = (together(zygote, tmp_path / "out", *runs) for runs in (restarts, tmp_path.glob("seed-*")))
    assert alone["value"] == grouped["value"]
    assert alone["low"] < alone["high"]
    assert grouped["low"] == grouped["value"] == grouped["high"]
    assert (alone["groups"], grouped["groups"]) == (None, 1)


def test_two_processes_are_not_at_one_ensemble(zygote, restarts, tmp_path):
    told = together(zygote, tmp_path, *restarts)
    folder = Path(told["report"]).parent
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        run = zygote.run("ensemble", *restarts, "--output", tmp_path)
    assert run.code == 1
    assert f"another process is at {folder}" in run.stderr


def test_runs_whose_rows_have_changed_since_are_refused_in_one_line(zygote, tiny_task, tmp_path):
    shutil.copytree(tiny_task.parent, tmp_path / "task")
    table = tmp_path / "task" / "train.csv"
    recipe = (tmp_path / "task" / "tiny.yaml").read_text().replace("validation: validation.csv", "validation: 0.25")
    (tmp_path / "task" / "tiny.yaml").write_text(recipe)
    asked = ["--recipe", tmp_path / "task" / "tiny.yaml", "--seeds", 2, "--set", "training.steps=2"]
    trained = zygote.run("train", *asked, "--output", tmp_path / "runs")
    assert trained.code == 0, trained.stderr
    runs = sorted(result.parent for result in (tmp_path / "runs").glob("*/*/*/result.json"))
    assert together(zygote, tmp_path / "out", *runs)["restarts"]
    kept = table.read_text()
    table.write_text(kept + 'the man in the house,"a man, in a house",yes\n' * 20)
    refused = zygote.run("ensemble", *runs, "--output", tmp_path / "out")
    assert (refused.code, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "the rows of tiny have changed since the runs were trained; put them back" in refused.stderr
    table.write_text(kept)
    assert together(zygote, tmp_path / "out", *runs)["restarts"]


def test_rows_that_were_moved_are_read_where_they_are_said_to_be(zygote, restarts, tiny_task, tmp_path):
    runs = [shutil.copytree(run, tmp_path / str(number)) for number, run in enumerate(restarts)]
    for run in runs:
        text = (run / "recipe.yaml").read_text().replace(str(tiny_task.parent), "/old/disk")
        (run / "recipe.yaml").write_text(text)
    refused = zygote.run("ensemble", *runs, "--output", tmp_path / "out")
    assert refused.code == 2
    assert "there is no file /old/disk/train.csv; where it was moved, --data-dir names" in refused.stderr
    told = together(zygote, tmp_path / "out", *runs, "--data-dir", tiny_task.parent)
    assert told["value"] == together(zygote, tmp_path / "out", *restarts)["value"]


def test_wrong_requests_are_one_line(zygote, restarts, tiny_run, tmp_path):
    def refused(*arguments):
        run = zygote.run("ensemble", *arguments, "--output", tmp_path)
        assert run.code == 2, run.stderr
        (line,) = run.stderr.strip().splitlines()
        return line

    assert "two runs or more" in refused(restarts[0])
    assert "there is no folder" in refused(restarts[0], tmp_path / "nothing")
    assert "no finished run" in refused(restarts[0], tmp_path)
    assert "were scored on validation" in refused(*restarts, "--split", "test")
    bare = tmp_path / "bare"
    shutil.copytree(restarts[1], bare)
    weights = bare / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:5000])
    assert f"{weights} is damaged" in refused(restarts[0], bare, "--weights")
    save_file({key: each for key, each in load(content).items() if "classifier" not in key}, weights)
    assert "has other weights than" in refused(restarts[0], bare, "--weights")
    weights.rename(weights.with_name("model-00001-of-00002.safetensors"))
    assert "holds no model.safetensors; to be averaged" in refused(restarts[0], bare, "--weights")
    weights.with_name("model.safetensors.index.json").write_text("{}")
    assert "its weights are split into several files" in refused(restarts[0], bare, "--weights")
    shutil.rmtree(bare / "model")
    assert f"{bare} holds no model; a sweep with --no-models keeps none" in refused(restarts[0], bare, "--weights")
    assert "is there twice" in refused(restarts[0], restarts[1], restarts[0].parent / "." / restarts[0].name)
    (tmp_path / "link").symlink_to(restarts[0])
    assert "is there twice" in refused(restarts[0], tmp_path / "link")
    earlier = tmp_path / f"{restarts[0].name}.earlier-1"
    shutil.copytree(restarts[0], earlier)
    twice = refused(*restarts, earlier)
    assert f"{earlier} is the same restart as {restarts[0]}; leave one out" in twice
    assert not list(tmp_path.glob("*/ensemble-*"))
    other = tmp_path / "other"
    shutil.copytree(restarts[1], other)
    result = json.loads((other / "result.json").read_text())
    (other / "result.json").write_text(json.dumps({**result, "task": "another"}))
    assert "an ensemble is of runs on one task" in refused(restarts[0], other)
