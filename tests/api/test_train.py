"""``dpstune.train``."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import yaml

import dpstune
from dpstune.api.recipes import load
from dpstune.errors import RequestError
from dpstune.methods import without_newer_keys


@pytest.mark.parametrize("name", ["../mine", "a\\b", "..", "", 5])
def test_a_recipes_name_is_that_of_a_folder(name, tmp_path):
    with pytest.raises(RequestError, match="should be a name without slashes"):
        dpstune.train({"name": name, "model": {"name": "minilm"}, "task": "toy-nli"}, output=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("mixout", {}, {"name": "mixout", "p": 0.4}),
        ({"name": "mixout", "p": 0.7}, {}, {"name": "mixout", "p": 0.7}),
        ({"name": "mixout", "p": 0.7}, {"method.p": 0.6}, {"name": "mixout", "p": 0.6}),
        ({"p": 0.2}, {}, {"name": "dps-dense", "p": 0.2, "update_ratio": 0.2}),
    ],
)
def test_the_method_is_a_name_or_a_section(tiny_task, method, changes, expected):
    recipe = load(tiny_task, method=method, changes=changes).recipe
    assert without_newer_keys(recipe.method.model_dump()) == expected


def test_numbers_of_numpy_are_those_of_python(tiny_task):
    task = {**yaml.safe_load(tiny_task.read_text()), "name": "tiny"}
    task["training"] = {**task["training"], "epochs": np.int64(1), "learning_rate": np.float64(0.5)}
    task["task"] = {**task["task"], "files": {k: str(tiny_task.parent / v) for k, v in task["task"]["files"].items()}}
    found = [load(task, seed=seed, changes={}).recipe for seed in (3, np.int64(3))]
    assert found[0] == found[1]
    assert found[0].training.epochs == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": -1}, "seed=-1: should be a whole number, 0 or more"),
        ({"seed": "3"}, "seed='3': should be a whole number"),
        ({"data_dir": 3}, "data_dir=3: should be a name or a path"),
        ({"output": 3}, "output=3: should be a name or a path"),
        ({"training": {"steps": np.array([1, 2])}}, "training.steps: should be a valid integer, not [1, 2]"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(tiny_task, change, told):
    with pytest.raises(RequestError, match=re.escape(told)) as refused:
        dpstune.train(tiny_task, quiet=True, **change)
    assert "\n" not in str(refused.value)


def test_a_result_stays_where_it_is(tiny_task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = dpstune.train(tiny_task, quiet=True)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir("below")
    assert dpstune.evaluate(run).value == run.value


def test_runs_of_several_threads_are_what_they_are_alone(tiny_task, tmp_path):
    seeds = (11, 12, 13)

    def weights(place, seed):
        run = dpstune.train(tiny_task, seed=seed, output=tmp_path / place, quiet=True)
        return (run.model / "model.safetensors").read_bytes()

    with ThreadPoolExecutor(len(seeds)) as pool:
        together = list(pool.map(partial(weights, "together"), seeds))
    assert together == [weights("alone", seed) for seed in seeds]


def test_every_section_of_a_recipe_can_be_changed(tiny_task, tmp_path):
    few = {"training": {"steps": 1, "warmup_steps": 0}, "data": {"train_size": 6}, "model": {"dropout": 0.2}}
    run = dpstune.train(tiny_task, method={"p": 0.2}, **few, output=tmp_path, quiet=True)
    kept = load(run.folder / "recipe.yaml", changes={}).recipe
    assert (kept.method.p, kept.training.steps, kept.data.train_size, kept.model.dropout) == (0.2, 1, 6, 0.2)
    assert run.result["steps"] == 1


def test_a_finished_run_without_a_model_is_trained_anew_but_not_by_a_sweep(tiny_task, tmp_path):
    short = {"training": {"steps": 2}}
    asked = {"methods": ["vanilla"], "seeds": 1, "output": tmp_path, "quiet": True, **short}
    (swept,) = dpstune.sweep(tiny_task, keep_models=False, **asked).runs
    assert dpstune.sweep(tiny_task, **asked).runs == [swept]
    assert not (swept / "model").exists()
    run = dpstune.train(tiny_task, method="vanilla", output=tmp_path, quiet=True, **short)
    assert run.folder == swept
    assert (run.model / "config.json").is_file()
    assert swept.with_name(f"{swept.name}.earlier-1").is_dir()
