"""The grids of Appendix D, and how --grid changes them."""

import pytest

from dpstune.errors import RequestError
from dpstune.methods import REGISTRY
from dpstune.recipe.recipe import load_recipe
from dpstune.studies.grid import as_overrides, grid_files, load_first, method_grid, parse_method, points, widen

SIZES = {
    "vanilla": 1,
    "dps-dense": 15,
    "dps-mix": 15,
    "mixout": 8,
    "r3f": 8,
    "r-drop": 5,
    "sam": 6,
    "reinit": 7,
    "linear-probe": 5,
    "lp-ft": 3,
    "child-tuning-d": 15,
    "child-tuning-f": 3,
    "bitfit": 4,
    "top-layers": 6,
    "noisytune": 4,
    "smart": 3,
    "ema": 3,
    "lora": 9,
}


def test_every_method_has_a_grid_and_every_grid_a_method():
    assert set(grid_files()) == set(REGISTRY) == set(SIZES)


@pytest.mark.parametrize("method", REGISTRY)
def test_every_point_of_every_grid_is_a_recipe(method):
    every = points(method_grid(method))
    assert len(every) == SIZES[method]
    recipes = [load_recipe("demo", method=method, overrides=as_overrides(point)).recipe for point in every]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(every)


def test_a_replaced_key_is_tried_at_its_new_values_and_a_new_one_is_added():
    grid = widen(method_grid("mixout"), "mixout", ["method.p=0.5,0.6", "training.learning_rate=1e-5"])
    assert grid == {"method.p": [0.5, 0.6], "training.learning_rate": [1e-5]}


def test_a_key_of_another_method_leaves_a_grid_alone():
    assert widen(method_grid("reinit"), "reinit", ["method.p=0.5"]) == method_grid("reinit")


def test_spaces_around_a_key_are_no_part_of_it():
    assert widen({"method.p": [0.1]}, "mixout", [" method.p =0.5"]) == {"method.p": [0.5]}
    assert parse_method("mixout: p =0.5") == ("mixout", ["method.p=0.5"])


def test_a_methods_own_keys_do_not_make_it_another_method():
    with pytest.raises(RequestError, match=r"^--method mixout:name=vanilla: the method's name stands before the colon"):
        parse_method("mixout:name=vanilla")


@pytest.mark.parametrize("replacement", ["method.p", "method.p=", "=1", "method.p=[1"])
def test_what_is_no_replacement_is_refused(replacement):
    with pytest.raises(RequestError, match="--grid"):
        widen({}, "mixout", [replacement])


def test_keys_of_a_wrapped_method_wait_for_the_point_that_says_which_it_is():
    loaded = load_first("demo", ["ema:of=dps-dense"], ["method.of.p=0.4", "training.steps=9"])
    assert (loaded.recipe.method.name, loaded.recipe.training.steps) == ("ema", 9)


def test_a_method_without_a_grid_is_tried_where_grid_says(tmp_path, monkeypatch):
    monkeypatch.setattr("dpstune.studies.grid.grid_files", dict)
    assert method_grid("mixout") == {}
    assert widen(method_grid("mixout"), "mixout", ["method.p=0.5,0.6"]) == {"method.p": [0.5, 0.6]}
