"""`training.standardise`: values far from 0 are learned as well as those near it, and given back as they are."""

import csv
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dpstune.common.interruption import Interrupted
from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_predictions
from dpstune.training import engine
from dpstune.training.values import TrainedValues
from tests.tiny import some
from tests.training.stopping import stop_within_an_evaluation

METHODS = ["vanilla", "dps-dense", "dps-mix", "ema", "lp-ft", "lora"]


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory):
    """Load a recipe whose values are 0 to 2 by what the text says, times ``scale`` and more by ``offset``."""
    folder = tmp_path_factory.mktemp("values")

    def recipe(*overrides, scale=1.0, offset=0.0, method="vanilla"):
        name = f"{scale}-{offset}"
        draw = random.Random(1)
        for split, rows in (("train", 48), ("validation", 20)):
            with (folder / f"{name}-{split}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["text", "value"])
                for _ in range(rows):
                    number = draw.randrange(3)
                    words = ("the cat sleeps", "a man eats", "the dog runs")[number]
                    table.writerow([f"{words} {draw.randrange(9)}", number * scale + offset])
        (folder / f"{name}.yaml").write_text(
            f"model: {{name: {tiny_model}, dropout: 0}}\n"
            f"task: {{name: values, files: {{train: {name}-train.csv, validation: {name}-validation.csv}}, text: text, "
            "label: value, kind: regression, metric: [spearman, rmse]}\n"
            "data: {max_length: 24}\n"
            "training: {batch_size: 6, learning_rate: 0.003, epochs: 3, precision: fp32}\n"
        )
        return load_recipe(str(folder / f"{name}.yaml"), method=method, overrides=overrides)

    return recipe


def predicted(run):
    return np.array(read_predictions(run.folder / "predictions" / "validation.parquet")["prediction"])


class WithoutFloat64(torch.Tensor):
    """A tensor as on Apple's GPUs, which have no float64."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        if function is torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        result = super().__torch_function__(function, types, arguments, keywords)
        return result.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else result


def weights(run):
    return load_file(run.folder / "model" / "model.safetensors")


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_an_output_layer_gives_values_in_their_own_units_and_is_put_back_to_the_bit(mean, deviation, seed):
    torch.manual_seed(seed)
    layer, features = torch.nn.Linear(5, 1), torch.randn(4, 5)
    before, kept = layer(features), [each.clone() for each in layer.parameters()]
    values = TrainedValues(mean, deviation)
    values.attach(layer, layer)
    expected = before * deviation + mean
    close = {"rtol": 1e-5, "atol": 1e-5 * (abs(mean) + deviation)}
    with values.as_detached():
        torch.testing.assert_close(layer(features), expected, **close)
    assert all(torch.equal(one, other) for one, other in zip(layer.parameters(), kept, strict=True))
    values.detach()
    values.detach()
    with values.as_detached():
        torch.testing.assert_close(layer(features), expected, **close)


def test_a_device_needs_no_float64():
    layer, features = torch.nn.Linear(5, 1), torch.randn(4, 5)
    before = layer(features).detach()
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, torch.nn.Parameter(parameter.detach().as_subclass(WithoutFloat64)))
    values = TrainedValues(2.0, 3.0)
    values.attach(layer, layer)
    values.detach()
    torch.testing.assert_close(layer(features).detach().as_subclass(torch.Tensor), before * 3 + 2)


@pytest.mark.parametrize("method", some(["vanilla", "ema"], of=METHODS))
def test_the_unit_of_the_values_does_not_matter(recipe, tmp_path, method):
    """A run on 0 to 2 and one on 400 to 600 are one run, whose values are then 100 times as far apart, plus 400."""
    asked = "training.standardise=true"
    near = engine.train(recipe(asked, method=method), output=tmp_path / "near")
    far = engine.train(recipe(asked, method=method, scale=100.0, offset=400.0), output=tmp_path / "far")
    np.testing.assert_allclose(predicted(far), predicted(near) * 100 + 400, rtol=1e-3)
    assert weights(far).keys() == weights(near).keys()
    plain = engine.train(recipe(method=method, scale=100.0, offset=400.0), output=tmp_path / "plain")
    ours, theirs = (run.result["last"]["metrics"]["validation"]["rmse"] for run in (far, plain))
    assert ours < (1.01 if method == "lp-ft" else 0.5) * theirs  # lp-ft solves the output layer, for any values


def test_the_finished_model_is_a_plain_one_that_gives_the_values(recipe, tmp_path):
    from transformers import pipeline

    loaded = recipe("training.standardise=true", scale=100.0, offset=400.0)
    run = engine.train(loaded, output=tmp_path)
    texts = [text for (text,) in Inputs().task(loaded.recipe).splits["validation"].texts]
    answers = pipeline("text-classification", model=str(run.folder / "model"))(texts)
    np.testing.assert_allclose([answer["score"] for answer in answers], predicted(run), rtol=1e-4)


def test_the_best_weights_give_the_values_too(recipe, tmp_path):
    asked = ["training.standardise=true", "training.keep=best", "training.eval_every=2"]
    loaded = recipe(*asked, "training.learning_rate=0.03", scale=100.0, offset=400.0)
    run = engine.train(loaded, output=tmp_path)
    assert run.result["kept"]["step"] == run.result["best"]["step"] < run.result["steps"]
    assert run.result["kept"]["metrics"] == run.result["best"]["metrics"]


@pytest.mark.parametrize("method", some(["vanilla"], of=METHODS))
def test_a_run_that_is_stopped_within_an_evaluation_goes_on_to_the_same_bits(recipe, tmp_path, monkeypatch, method):
    loaded = recipe("training.standardise=true", "training.eval_every=4", scale=100.0, offset=400.0, method=method)
    whole = engine.train(loaded, output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_within_an_evaluation(patch, after_step=8)
        with pytest.raises(Interrupted):
            engine.train(loaded, output=tmp_path / "stopped")
    resumed = engine.train(loaded, output=tmp_path / "stopped")
    assert resumed.result["value"] == whole.result["value"]
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(resumed).items())


def test_values_that_are_all_equal_are_moved_alone():
    found = TrainedValues.standardised(SimpleNamespace(splits={"train": SimpleNamespace(labels=[7.0, 7.0])}))
    assert (found.mean, found.deviation) == (7.0, 1.0)


def test_half_precision_leaves_the_values_their_digits(recipe, tmp_path):
    """bf16 itself knows no number between 400 and 402."""
    asked = ["training.standardise=true", "training.precision=bf16"]
    run = engine.train(recipe(*asked, scale=10.0, offset=400.0), output=tmp_path)
    assert len(set(predicted(run))) > len(set(torch.tensor(predicted(run)).bfloat16().tolist()))


class TestRefusals:
    def test_labels_have_no_mean(self, tiny_task):
        with pytest.raises(RequestError, match="standardise is for regression, and the task has labels"):
            load_recipe(str(tiny_task), overrides=["training.standardise=true"])

    def test_a_layer_without_a_bias_cannot_hold_the_mean(self):
        values, layer = TrainedValues(3.0, 2.0), torch.nn.Linear(4, 1, bias=False)
        with pytest.raises(RequestError, match="Linear has no linear output layer with a bias"):
            values.attach(layer, layer)
        TrainedValues().attach(layer, layer)


def test_values_far_from_0_are_told_of_once_and_not_where_they_are_standardised(recipe, tmp_path, zygote):
    far, near = recipe(scale=100.0, offset=400.0).source, recipe().source
    asked = ["--set", "training.steps=2", "--set", "training.warmup_steps=0", "--output", tmp_path]
    line = "the values lie far from 0 or far apart: mean "
    assert zygote.run("train", "--recipe", far, *asked).stderr.count(line) == 1
    for quiet in (["--recipe", near], ["--recipe", far, "--set", "training.standardise=true"]):
        assert line not in zygote.run("train", *quiet, *asked).stderr
    assert line in " ".join(zygote.run("check", far).stderr.split())
    standardised = tmp_path / "standardised.yaml"
    standardised.write_text(far.read_text().replace("training: {", "training: {standardise: true, "))
    assert "far-values" not in zygote.run("check", standardised).stderr
