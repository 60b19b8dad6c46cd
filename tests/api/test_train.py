"""``dpstune.train``."""

import pytest

import dpstune
from dpstune.errors import RequestError


@pytest.mark.parametrize("name", ["../mine", "a\\b", "..", "", 5])
def test_a_recipes_name_is_that_of_a_folder(name, tmp_path):
    with pytest.raises(RequestError, match="should be a name without slashes"):
        dpstune.train({"name": name, "model": {"name": "minilm"}, "task": "toy-nli"}, output=tmp_path)
    assert not list(tmp_path.iterdir())
