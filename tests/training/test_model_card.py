"""What a model's card says of its numbers."""

import pytest

from dpstune.recipe.recipe import load_recipe
from dpstune.training import engine


@pytest.mark.parametrize(("more", "label"), [([], "yes"), (["task.positive=no"], "no")])
def test_of_which_label_f1_is(tiny_task, tmp_path, more, label):
    asked = ["task.metric=f1", "training.steps=1", *more]
    run = engine.train(load_recipe(str(tiny_task), method="vanilla", overrides=asked), output=tmp_path)
    card = (run.folder / "model" / "README.md").read_text()
    assert f"f1 is that of the label '{label}'." in card
