"""`dpstune eval`: a run's own numbers again, to the last bit, and those of any model folder on any task that fits."""

import json
import shutil

import pytest
import torch

from dpstune.errors import RequestError
from dpstune.evaluation import scoring
from dpstune.evaluation.trained import LENGTH_KEY, TrainedModel, find_trained
from dpstune.models.precision import model_precision
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_predictions
from dpstune.settings.sections import ModelSection
from dpstune.training import engine


def test_a_run_is_scored_to_the_bits_it_reported(zygote, tiny_run):
    result = json.loads((tiny_run / "result.json").read_text())
    for place in (tiny_run, tiny_run / "model"):
        scored = zygote.run("eval", place, "--json")
        assert scored.code == 0, scored.stderr
        assert json.loads(scored.stdout)["metrics"] == result["last"]["metrics"]
        assert "the same labels" in scored.stderr


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is of a CPU's precisions")
@pytest.mark.parametrize(
    ("recorded", "used"),
    [
        ({"precision": "bf16", "device": "cpu"}, "bf16"),
        ({"precision": "fp32", "device": "A GPU"}, "fp32"),
        ({"precision": "fp16", "device": "cpu"}, "fp16"),
        ({"precision": "fp16", "device": "A GPU"}, None),
        ({"precision": []}, None),
        ({"precision": "fp64", "device": "cpu"}, None),
        ([], None),
    ],
)
def test_it_is_scored_in_the_precision_it_was_trained_in_where_that_can_be(tiny_run, tmp_path, recorded, used):
    """A CPU computes every precision that it was trained in, and emulates none that a GPU was trained in."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "environment.json").write_text(json.dumps(recorded))
    model = TrainedModel(find_trained(run))
    assert model.precision == (used or model_precision("auto", ModelSection(name=str(run / "model")), "cpu"))


def test_the_kernels_of_a_gpus_run_are_not_asked_of_a_cpu(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "environment.json").write_text(json.dumps({"precision": "fp32", "determinism": "strict"}))
    model = TrainedModel(find_trained(run))
    asked = []
    model.model.register_forward_hook(lambda *_: asked.append(torch.are_deterministic_algorithms_enabled()))
    model.score_texts([("a cat", "a man")])
    assert asked == [False]


def test_a_model_below_a_path_that_is_no_text_is_refused(tiny_run, tmp_path):
    place = tmp_path / "m\udcff"
    place.symlink_to(tiny_run)
    with pytest.raises(RequestError, match="its name is no UTF-8 text, and no model is read from there; rename it"):
        find_trained(place)


def test_a_fit_whose_model_is_gone_is_refused(tiny_run, tmp_path):
    shutil.copy(tiny_run / "recipe.yaml", tmp_path)
    (tmp_path / "fit.json").write_text("{}")
    with pytest.raises(RequestError, match=f"{tmp_path} holds no model; the same fit command makes it again"):
        find_trained(tmp_path)


@pytest.mark.slow
def test_a_run_in_fp16_is_scored_to_the_bits_it_reported(zygote, tiny_task, tmp_path):
    half = ["--set", "training.precision=fp16", "--output", tmp_path]
    assert zygote.run("train", "--recipe", tiny_task, *half).code == 0
    (result,) = tmp_path.glob("*/*/*/result.json")
    scored = zygote.run("eval", result.parent, "--json")
    answer = json.loads(scored.stdout)
    assert (answer["precision"], answer["metrics"]) == (
        "fp16",
        json.loads(result.read_text())["last"]["metrics"],
    )


def test_its_scores_are_those_of_its_predictions(tiny_run, tiny_task):
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe

    recipe = load_recipe(str(tiny_task)).recipe
    task = Inputs().task(recipe)
    model = TrainedModel(find_trained(tiny_run))
    scores = model.score_texts(task.splits["validation"].texts).softmax(-1)
    kept = read_predictions(tiny_run / "predictions" / "validation.parquet")
    assert scores.argmax(-1).tolist() == [model.label_names.index(label) for label in kept["prediction"]]
    assert scores.tolist() == [pytest.approx(row, abs=1e-6) for row in kept["scores"]]


def test_a_model_folder_is_scored_on_a_recipes_task_at_its_runs_length(zygote, tiny_run, tiny_task, tmp_path):
    folder = shutil.copytree(tiny_run / "model", tmp_path / "somewhere" / "model")
    assert TrainedModel(find_trained(folder)).max_length == 24
    scored = zygote.run("eval", folder, "--task", tiny_task, "--json")
    assert scored.code == 0, scored.stderr
    result = json.loads((tiny_run / "result.json").read_text())
    metrics = json.loads(scored.stdout)["metrics"]
    assert metrics["validation"]["accuracy"] == pytest.approx(result["value"])


@pytest.mark.parametrize("told", [None, "24", True, 3, 24.0])
def test_a_folder_that_tells_no_length_is_read_at_the_usual_one(tiny_run, tmp_path, told):
    folder = shutil.copytree(tiny_run / "model", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, LENGTH_KEY: told}))
    assert find_trained(folder).data.max_length == 128


def test_a_constant_output_warns_and_is_null_in_json(zygote, tiny_model, tmp_path):
    """A head of zeros gives every example the same value: no correlation."""

    from dpstune.models.loading import load_classifier
    from dpstune.settings.sections import ModelSection
    from tests.tiny import tiny_tokenizer

    section = ModelSection(name=str(tiny_model))
    model = load_classifier(section, label_names=(), kind="regression", dropout=None, seed=0)
    torch.nn.init.zeros_(model.classifier.weight)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    folder = tmp_path / "data" / "stsb"
    folder.mkdir(parents=True)
    rows = [{"id": n, "sentence1": "a cat", "sentence2": "a dog", "label": n} for n in range(4)]
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scored = zygote.run("eval", tmp_path / "model", "--task", "stsb", "--data-dir", tmp_path / "data", "--json")
    assert scored.code == 0, scored.stderr
    assert "validation: spearman is undefined: the model gives every example the same" in scored.stderr
    assert json.loads(scored.stdout)["metrics"] == {"validation": {"spearman": None, "pearson": None}}


def no_such_folder(run, tmp_path):
    return [tmp_path / "nowhere"], "there is no folder"


def neither_run_nor_model(run, tmp_path):
    return [tmp_path], "is neither a run's folder (no recipe.yaml) nor a model folder (no config.json)"


def unfinished(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    return [tmp_path / "run"], "is a run that is not finished"


def no_task(run, tmp_path):
    shutil.copytree(run / "model", tmp_path / "model")
    return [tmp_path / "model"], "names no task; name one, or a file of labelled rows"


def no_weights(run, tmp_path):
    shutil.copytree(run / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    return [tmp_path / "model", "--task", "toy-rte"], "has no weights: expected model.safetensors"


def unknown_task(run, tmp_path):
    return [run, "--task", "rtee"], "unknown task 'rtee'; did you mean 'rte'?"


def unknown_split(run, tmp_path):
    return [run, "--split", "tset"], "has no split 'tset'"


def labels_that_do_not_match(run, tmp_path):
    return [run, "--task", "toy-nli"], "a model with the labels no, yes cannot be evaluated on a task with the labels"


def a_classifier_on_regression(run, tmp_path):
    return [run, "--task", "toy-sts"], "does classification, but task toy-sts is regression"


def no_glue_task(run, tmp_path):
    return [run, "--submission", tmp_path / "x.tsv"], "is a task of your own; the GLUE server takes only its own"


@pytest.mark.parametrize(
    "request_of",
    [
        no_such_folder,
        neither_run_nor_model,
        unfinished,
        no_task,
        no_weights,
        unknown_task,
        unknown_split,
        labels_that_do_not_match,
        a_classifier_on_regression,
        no_glue_task,
    ],
    ids=lambda each: each.__name__,
)
def test_a_wrong_request_is_one_line(zygote, tiny_run, tmp_path, request_of):
    arguments, message = request_of(tiny_run, tmp_path)
    run = zygote.run("eval", *arguments)
    assert run.code == 2, run.stderr
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_pretrained_encoder_is_no_trained_classifier(zygote, tiny_model):
    run = zygote.run("eval", tiny_model, "--task", "toy-nli")
    assert run.code == 2
    assert "its weights lack classifier.bias; is it a classifier that was trained?" in run.stderr


def test_a_run_and_its_model_are_scored_at_the_same_widths(tiny_task, tmp_path, monkeypatch):
    """Where the processor wants few shapes; else texts are padded to the longest of a batch."""
    for module in ("dpstune.device.hardware", "dpstune.training.pass_cost"):
        monkeypatch.setattr(f"{module}.has_matrix_units", lambda precision: precision == "fp32" or precision == "no")
    longest = []
    score = scoring.score
    monkeypatch.setattr(
        scoring, "score", lambda *given, **named: (longest.append(named["longest"]), score(*given, **named))[1]
    )
    recipe = load_recipe(str(tiny_task), overrides=["training.steps=1", "training.precision=fp32"])
    run = engine.train(recipe, output=tmp_path)
    TrainedModel(find_trained(run.folder)).score_texts([("one",), ("two words",)])
    assert longest == [recipe.recipe.data.max_length] * len(longest)
    assert len(longest) == 2
