"""A run's own data that were moved: looked for as they lay beside each other."""

import pytest

from dpstune.data.moved import lies_there, reading_from, refuse_lost_data
from dpstune.errors import RequestError
from dpstune.recipe.recipe import build_recipe


def own(files, **data):
    files = {split: place if isinstance(place, float) else str(place) for split, place in files.items()}
    task = {"files": files, "text": "text", "label": "label"}
    return build_recipe({"model": {"name": "minilm"}, "task": task, "data": data}, name="mine").recipe


def places(recipe):
    return [str(recipe.task.files.place(split)) for split in ("train", "validation")]


@pytest.mark.parametrize(
    ("files", "data", "moved"),
    [
        (("/old/train.csv", "/old/dev.csv"), {}, ["/new/train.csv", "/new/dev.csv"]),
        (("/old/a/rows.csv", "/old/b/rows.csv"), {}, ["/new/a/rows.csv", "/new/b/rows.csv"]),
        (("/old/a/rows.csv", "/old/a/dev.csv"), {"dir": "/old"}, ["/new/a/rows.csv", "/new/a/dev.csv"]),
        (("/old/a/../rows.csv", "/old/b/dev.csv"), {"dir": "/else"}, ["/new/rows.csv", "/new/b/dev.csv"]),
        (("/old/*/part-?.csv", "/old/x/dev.csv"), {}, ["/new/*/part-?.csv", "/new/x/dev.csv"]),
        (("/old/*/part-?.csv", "/old/*/dev.csv"), {}, ["/new/*/part-?.csv", "/new/*/dev.csv"]),
    ],
)
def test_files_keep_their_places_beside_each_other(tmp_path, files, data, moved):
    recipe = own(dict(zip(("train", "validation"), files, strict=True)), **data)
    assert reading_from(recipe, None) is recipe
    found = reading_from(recipe, tmp_path)
    assert places(found) == [place.replace("/new", str(tmp_path)) for place in moved]
    assert found.data.dir == tmp_path
    assert reading_from(found, tmp_path) == found


def test_a_folder_whose_name_looks_like_a_pattern_is_one_of_the_places_looked_in(tmp_path):
    recipe = own({"train": "/home/data [v2]/train.csv", "validation": "/home/data [v2]/dev.csv"})
    (tmp_path / "train.csv").touch()
    assert places(reading_from(recipe, tmp_path)) == [str(tmp_path / "train.csv"), str(tmp_path / "dev.csv")]


def test_a_share_of_the_rows_stays_a_share(tmp_path):
    files = reading_from(own({"train": "/old/rows.csv", "validation": 0.25}), tmp_path).task.files
    assert (files.train, files.validation) == (tmp_path / "rows.csv", 0.25)


@pytest.mark.parametrize(("dataset", "moved"), [("/old/reviews", "{}/reviews"), ("me/reviews", "me/reviews")])
def test_a_dataset_moves_where_it_is_a_folder(tmp_path, dataset, moved):
    splits = {"train": "train", "validation": 0.2}
    task = {"dataset": dataset, "splits": splits, "text": "text", "label": "label"}
    recipe = build_recipe({"model": {"name": "minilm"}, "task": task}, name="mine").recipe
    assert reading_from(recipe, tmp_path).task.dataset == moved.format(tmp_path)
    assert lies_there(recipe.task) == (dataset == "me/reviews")


def test_rows_that_are_gone_are_told_of_with_the_remedy(tmp_path):
    for name in ("rows.csv", "part-*.csv"):
        recipe = own({"train": tmp_path / name, "validation": tmp_path / "dev.csv"})
        with pytest.raises(RequestError) as caught:
            refuse_lost_data(recipe.task)
        assert str(caught.value) == (
            f"there is no file {tmp_path / name}; where it was moved, --data-dir names the folder that holds it"
        )
        (tmp_path / name.replace("*", "1")).touch()
        refuse_lost_data(recipe.task)
    refuse_lost_data("rte")
