"""Restarts put together: their probabilities, and their weights as one model."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from dpstune.runs.folder import read_predictions


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
    assert (file.parent.parent / "report.html").is_file()


def test_the_mean_of_a_runs_weights_with_themselves_is_that_run_and_is_kept(zygote, restarts, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(restarts[0], twin)
    told = together(zygote, tmp_path, restarts[0], twin, "--weights")
    mean, single = (load_file(f"{model}/model.safetensors") for model in (told["model"], restarts[0] / "model"))
    assert all(np.array_equal(mean[key], single[key]) for key in single)
    assert told["gain"] == 0

    from transformers import pipeline

    assert pipeline("text-classification", model=told["model"])("the cat")[0]["label"] in ("yes", "no")


def test_a_mean_of_weights_that_scores_less_than_the_best_restart_is_not_kept(zygote, restarts, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(restarts[0], spoilt)
    weights = load_file(spoilt / "model" / "model.safetensors")
    from safetensors.torch import save_file

    # The head answers the other way round, three times as loudly: the mean is worse than the run itself.
    turned = {key: each * -3 if key.startswith("classifier") else each for key, each in weights.items()}
    save_file(turned, spoilt / "model" / "model.safetensors", {"format": "pt"})
    told = together(zygote, tmp_path, restarts[0], spoilt, "--weights")
    assert told["model"] is None
    assert "not kept" in told["notes"][0]
    assert not list(tmp_path.glob("*/ensemble-*/model"))
    assert not list(tmp_path.glob("*/ensemble-*/.soup-*"))


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
    shutil.rmtree(bare / "model")
    assert "no model.safetensors" in refused(restarts[0], bare, "--weights")
    other = tmp_path / "other"
    shutil.copytree(restarts[1], other)
    result = json.loads((other / "result.json").read_text())
    (other / "result.json").write_text(json.dumps({**result, "task": "another"}))
    assert "an ensemble is of runs on one task" in refused(restarts[0], other)
