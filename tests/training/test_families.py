"""Five families of models by all methods, end to end, on tiny models of the real classes."""

import csv
import math

import pytest
import torch
from safetensors.torch import load_file

from dpstune.errors import RequestError
from dpstune.methods import REGISTRY, method_class
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_metrics, read_predictions
from dpstune.training import engine
from dpstune.training.loop import Loop
from tests.tiny import FAMILIES, FREEZING, LEARNING, LIVELY, pairs, save_tiny_model, some, tiny_classifier

STEPS, STOPPED_AT = 40, 23
OTHERS = ["distilbert", "albert", "modernbert", "deberta-v2"]
# Their checkpoints hold queries, keys and values as one matrix, and their models have three.
FUSED = [("gte", "vanilla"), ("nomic_bert", "dps-mix"), ("jina_embeddings_v3", "lora")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task that a tiny model learns: which of two words a sentence is full of."""
    folder = tmp_path_factory.mktemp("families")
    for split, count in (("train", 48), ("validation", 12)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = ((f"{('cat', 'dog')[n % 2]} " * (2 + n % 3), ("left", "right")[n % 2]) for n in range(count))
            csv.writer(file).writerows([("text", "label"), *rows])
    return folder


@pytest.fixture
def train(folder, tmp_path):
    def train(family, method, *overrides):
        lively = method in FREEZING
        model = folder / (f"lively-{family}" if lively else family)
        if not model.exists():
            save_tiny_model(model, family, **(LIVELY if lively else {}))
        recipe = folder / f"{model.name}.yaml"
        recipe.write_text(
            f"model: {{name: {model}}}\n"
            "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label}\n"
            "data: {max_length: 12}\n"
            f"training: {{batch_size: 8, learning_rate: 0.01, steps: {STEPS}, warmup_steps: 4, eval_every: {STEPS}}}\n"
        )
        if method in ("reinit", "top-layers"):
            overrides = ["method.layers=1", *overrides]
        if method.startswith("child-tuning"):
            overrides = ["method.p=0.5", *overrides]
        if lively:
            overrides = ["model.dropout=0", "training.learning_rate=0.03", *overrides]
        if method.startswith("dps"):
            overrides = ["method.update_ratio=0.2", *overrides]
        if method == "sam":  # the weights of so small a model are not far from 0
            overrides = ["method.rho=0.005", *overrides]
        loaded = load_recipe(str(recipe), method=method, overrides=overrides)
        return engine.train(loaded, output=tmp_path / "runs")

    return train


def losses(run):
    return [line["loss"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize(("family", "method"), [*pairs(FAMILIES, REGISTRY), *FUSED])
def test_every_method_trains_every_family(train, folder, monkeypatch, family, method):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    class StopError(Exception):
        pass

    take_step = Loop.optimizer_step

    def stop_halfway(loop, step):
        if step == STOPPED_AT:
            raise StopError
        take_step(loop, step)

    settings = ["training.precision=fp32", "training.save_every=10"]
    whole = train(family, method, *settings)
    untrained = sum(losses(whole)[:6]) if method_class(method).learns_by_steps else 6 * math.log(2)
    assert sum(losses(whole)[-6:]) < 0.7 * untrained, "the loss falls"

    weights = load_file(whole.folder / "model" / "model.safetensors")
    assert weights.keys() == load_untouched_keys(family), "no state-dict key is another"

    model = AutoModelForSequenceClassification.from_pretrained(whole.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(whole.folder / "model")
    saved = read_predictions(whole.folder / "predictions" / "validation.parquet")
    with (folder / "validation.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(logits.softmax(-1), torch.tensor(saved["scores"]), rtol=1e-4, atol=1e-5)
    assert [model.config.id2label[index] for index in logits.argmax(-1).tolist()] == saved["prediction"]

    (whole.folder / "result.json").rename(whole.folder / "whole.json")
    whole.folder.rename(whole.folder.with_name("whole"))
    monkeypatch.setattr(Loop, "optimizer_step", stop_halfway)
    with pytest.raises(StopError):
        train(family, method, *settings)
    monkeypatch.setattr(Loop, "optimizer_step", take_step)
    resumed = load_file(train(family, method, *settings).folder / "model" / "model.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items()), "resume is bit-exact"


def load_untouched_keys(family):
    """The keys transformers itself saves."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tiny_classifier(family).save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors").keys()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), pairs(FAMILIES, LEARNING, parts=[0, 1]))  # fp16: test_fp16.py
def test_every_method_trains_families_in_bf16(train, family, method):
    run = train(family, method, "training.precision=bf16")
    assert sum(losses(run)[-6:]) < 0.8 * sum(losses(run)[:6])
    weights = load_file(run.folder / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize(("family", "method"), pairs(OTHERS, REGISTRY, parts=[0, 1, 2]))
def test_other_families_train(train, family, method):
    if (family, method) == ("modernbert", "bitfit"):
        pytest.skip("it has no biases: the next test")
    run = train(family, method, "training.precision=fp32", "training.steps=12")
    assert all(torch.tensor(losses(run)).isfinite())


def test_a_model_without_biases_is_refused_by_bitfit(train):
    with pytest.raises(RequestError, match="bitfit trains biases, and ModernBertFor"):
        train("modernbert", "bitfit")


@pytest.mark.parametrize("method", ["reinit", "top-layers"])
def test_albert_has_one_layer(train, method):
    with pytest.raises(RequestError, match=r"method.layers: 2 is more than the 1 layers of AlbertFor"):
        train("albert", method, "method.layers=2")


@pytest.mark.parametrize("method", some(["dps-mix", "r3f"], of=LEARNING))
def test_regression(train, folder, method):
    for split, count in (("train", 48), ("validation", 12)):
        with (folder / f"values-{split}.csv").open("w", newline="") as file:
            rows = ((f"{('cat', 'dog')[n % 2]} " * (2 + n % 3), (0.5, 2.0)[n % 2]) for n in range(count))
            csv.writer(file).writerows([("text", "label"), *rows])
    files = [f"task.files.{split}={folder}/values-{split}.csv" for split in ("train", "validation")]
    run = train("bert", method, *files, "task.kind=regression", "training.precision=fp32")
    assert sum(losses(run)[-6:]) < 0.7 * sum(losses(run)[:6])
    assert run.result["metric"] == "spearman"
