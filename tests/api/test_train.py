"""``dpstune.train``."""

import pytest

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


def test_every_section_of_a_recipe_can_be_changed(tiny_task, tmp_path):
    few = {"training": {"steps": 1, "warmup_steps": 0}, "data": {"train_size": 6}, "model": {"dropout": 0.2}}
    run = dpstune.train(tiny_task, method={"p": 0.2}, **few, output=tmp_path, quiet=True)
    kept = load(run.folder / "recipe.yaml", changes={}).recipe
    assert (kept.method.p, kept.training.steps, kept.data.train_size, kept.model.dropout) == (0.2, 1, 6, 0.2)
    assert run.result["steps"] == 1
