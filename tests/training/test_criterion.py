"""`training.label_smoothing` and `training.class_weights`, from the recipe to the weights that are trained."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight

from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.settings.sections import TrainingSection
from dpstune.training import engine
from dpstune.training.criterion import balanced_weights, build_criterion

STEADY = ["model.dropout=0", "training.adam_epsilon=1.0", "training.learning_rate=0.3", "training.steps=10"]


@pytest.fixture
def train(tiny_task, tmp_path):
    def train(*overrides, output="runs", method="vanilla"):
        loaded = load_recipe(str(tiny_task), method=method, overrides=overrides)
        return engine.train(loaded, output=tmp_path / output)

    return train


def flat(run):
    weights = load_file(run.folder / "model" / "model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


@given(st.lists(st.integers(0, 4), min_size=1))
def test_balanced_weights_give_every_label_the_same_share_and_an_example_1_on_average(labels):
    weights = balanced_weights(labels, 5)
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1.0)
    shares = {label: weights[label] * labels.count(label) for label in set(labels)}
    assert list(shares.values()) == pytest.approx([len(labels) / len(shares)] * len(shares))
    there = np.unique(labels)
    assert [weights[label] for label in there] == pytest.approx(
        compute_class_weight("balanced", classes=there, y=np.array(labels))
    )


def test_weights_are_of_the_examples_that_are_trained_on(tiny_task):
    recipe = load_recipe(
        str(tiny_task), overrides=["training.class_weights=balanced", "data.train_size=11", "data.held_out=20"]
    ).recipe
    task = Inputs().task(recipe)
    counts = np.bincount(task.splits["train"].labels)
    assert counts.sum() == 11
    assert build_criterion(recipe.training, task).label_weights.tolist() == pytest.approx(11 / (2 * counts))


def test_weights_by_name_go_to_their_labels(tiny_task):
    recipe = load_recipe(str(tiny_task), overrides=["training.class_weights={yes: 4}"]).recipe
    assert build_criterion(recipe.training, Inputs().task(recipe)).label_weights.tolist() == [1.0, 4.0]


def test_a_run_that_asks_for_nothing_has_the_models_own_loss(tiny_task):
    recipe = load_recipe(str(tiny_task)).recipe
    assert build_criterion(recipe.training, Inputs().task(recipe)) is None


@pytest.mark.parametrize("number", ["0", "'0'"])
def test_weights_are_given_to_labels_that_are_numbers(tiny_task, number):
    recipe = load_recipe(str(tiny_task), overrides=[f"training.class_weights={{{number}: 4, 1: 0.5}}"]).recipe
    assert recipe.training.class_weights == {"0": 4.0, "1": 0.5}


def test_in_python_labels_may_be_numbers_but_no_truth_values():
    assert TrainingSection(class_weights={0: 4, 1: 0.5}).class_weights == {"0": 4.0, "1": 0.5}
    with pytest.raises(ValueError, match="true is a truth value, not a label; put quotes around the label"):
        TrainingSection(class_weights={True: 2})


@pytest.mark.parametrize("asked", ["training.class_weights=balanced", "training.label_smoothing=0.3"])
def test_what_is_asked_for_changes_what_is_learned(train, asked):
    assert not torch.equal(flat(train("training.steps=6")), flat(train("training.steps=6", asked)))


@pytest.mark.parametrize("method", ["vanilla", pytest.param("dps-mix", marks=pytest.mark.slow)])
def test_accumulated_weighted_batches_equal_one_large_batch(train, method):
    asked = [*STEADY, "training.class_weights={no: 5, yes: 0.5}", "training.label_smoothing=0.1"]
    large = flat(train(*asked, "training.batch_size=6", method=method))
    split = flat(train(*asked, "training.batch_size=2", "training.gradient_accumulation=3", method=method))
    plain = flat(train(*STEADY, "training.batch_size=6", method=method))
    assert (split - large).norm() < 0.01 * (plain - large).norm()


class TestRefusals:
    def test_a_label_that_is_not_there(self, train, tmp_path):
        with pytest.raises(RequestError, match=r"class_weights: tiny has no label 'yess'.*did you mean 'yes'"):
            train("training.class_weights={yess: 2}")
        assert not list(tmp_path.glob("runs/*/*/*/recipe.yaml"))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("balance", "class_weights: should be balanced, or a mapping of labels to weights, not 'balance'"),
            ("{yes: 0}", "class_weights: the weight of 'yes' should be a number above 0, not 0"),
            ("{yes: heavy}", "class_weights: the weight of 'yes' should be a number above 0, not 'heavy'"),
            ("{true: 2}", 'class_weights.*: a key should be a word, not True; in quotes it is one: "true"'),
            ("[1, 2]", r"class_weights: should be balanced, or a mapping of labels to weights, not \[1, 2\]"),
        ],
    )
    def test_weights_that_are_none(self, tiny_task, value, message):
        with pytest.raises(RequestError, match=message):
            load_recipe(str(tiny_task), overrides=[f"training.class_weights={value}"])

    @pytest.mark.parametrize("asked", ["class_weights=balanced", "label_smoothing=0.1"])
    def test_values_have_no_labels_to_weigh_or_smooth(self, tiny_task, asked):
        with pytest.raises(RequestError, match=f"{asked.partition('=')[0]} is for labels, and the task is regression"):
            load_recipe(str(tiny_task), overrides=["task.kind=regression", f"training.{asked}"])
