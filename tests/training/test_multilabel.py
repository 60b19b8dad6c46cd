"""A task whose examples have any number of labels, end to end: read, trained, scored, predicted, carried on."""

import csv
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from dpstune.data.inputs import Inputs
from dpstune.data.reading import draw_training_part, read_task
from dpstune.errors import RequestError
from dpstune.methods import REGISTRY
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_predictions
from dpstune.training import engine
from dpstune.training.criterion import build_criterion
from dpstune.training.loop import Loop

NAMES = ("cat", "dog", "man")
SERVED = [name for name in REGISTRY if name not in ("r3f", "r-drop")]


def draw(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        labels = [name for name, share in zip(NAMES, (0.7, 0.4, 0.1), strict=True) if rng.random() < share]
        yield {"text": " ".join(["the house", *labels]), "labels": labels}


def write(path, rows):
    rows = list(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "labels"])
            writer.writeheader()
            writer.writerows({**row, "labels": "; ".join(row["labels"])} for row in rows)


def write_task(folder, model, suffix=".jsonl"):
    write(folder / f"train{suffix}", draw(60, seed=1))
    write(folder / f"validation{suffix}", draw(30, seed=2))
    recipe = folder / "several.yaml"
    recipe.write_text(
        f"model: {{name: {model}}}\n"
        f"task: {{files: {{train: train{suffix}, validation: validation{suffix}}}, text: text, label: labels, "
        "kind: multilabel}\n"
        "data: {max_length: 12}\n"
        "method: vanilla\n"
        "training: {batch_size: 10, learning_rate: 0.01, steps: 6, warmup_steps: 1, precision: fp32}\n"
    )
    return recipe


@pytest.fixture(scope="module")
def task_file(tiny_model, tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("several"), tiny_model)


@pytest.fixture(scope="module")
def run(task_file, tmp_path_factory):
    return engine.train(load_recipe(str(task_file)), output=tmp_path_factory.mktemp("runs"))


def weights(run):
    return (run.folder / "model" / "model.safetensors").read_bytes()


class TestReading:
    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_every_format_gives_the_same_task(self, task_file, tiny_model, tmp_path, suffix):
        first, other = (
            Inputs().task(load_recipe(str(recipe)).recipe)
            for recipe in (task_file, write_task(tmp_path, tiny_model, suffix))
        )
        assert first == other
        assert first.label_names == NAMES
        rows = [tuple(int(name in row["labels"]) for name in NAMES) for row in draw(60, seed=1)]
        assert first.splits["train"].labels == rows
        assert (0, 0, 0) in rows

    def test_a_label_that_is_not_in_the_training_file(self, task_file, tmp_path):
        write(tmp_path / "validation.jsonl", [{"text": "the man", "labels": ["cat", "woman"]}])
        asked = f"task.files.validation={tmp_path / 'validation.jsonl'}"
        with pytest.raises(
            RequestError, match=r"validation.jsonl:1: unknown label 'woman'; the labels are cat, dog, man"
        ):
            Inputs().task(load_recipe(str(task_file), overrides=[asked]).recipe)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["cat;dog"], "':?;' stands between labels; rename 'cat;dog'"),
            (["cat", ""], r"holds an empty label; an example without labels has \[\]"),
            (["cat", None], "holds an empty label"),
            ([["cat"]], "holds a list, not text"),
        ],
    )
    def test_lists_that_hold_no_labels(self, task_file, tmp_path, labels, message):
        write(tmp_path / "train.jsonl", [{"text": "the man", "labels": labels}])
        with pytest.raises(RequestError, match=rf"train.jsonl:1: column 'labels'.*{message}"):
            Inputs().task(load_recipe(str(task_file), overrides=[f"task.files.train={tmp_path}/train.jsonl"]).recipe)

    def test_a_list_in_another_kind_of_task_is_an_error_that_names_this_one(self, task_file):
        with pytest.raises(RequestError, match=r"train.jsonl:1: .* holds a list, not text; .* say kind: multilabel"):
            Inputs().task(load_recipe(str(task_file), overrides=["task.kind=classification"]).recipe)

    def test_a_gap_is_left_out_and_an_empty_list_is_not(self, task_file, tmp_path):
        rows = [
            {"text": "the cat", "labels": ["cat"]},
            {"text": "a house", "labels": []},
            {"text": "it", "labels": None},
        ]
        write(tmp_path / "train.jsonl", rows)
        write(tmp_path / "validation.jsonl", rows)
        own = [f"task.files.{split}={tmp_path}/{split}.jsonl" for split in ("train", "validation")]
        task = Inputs().task(load_recipe(str(task_file), overrides=own).recipe)
        assert task.splits["train"].labels == [(1,), (0,)]
        assert "dropped 1 of 3 examples: no gold label" in task.notes[0]

    @pytest.mark.parametrize("parts", [{"validation": 0.4, "test": 0.2}, {"validation": None, "folds": 5}])
    def test_parts_have_their_share_of_each_label(self, task_file, tmp_path, parts):
        rows = [{**row, "text": f"{row['text']} {number}"} for number, row in enumerate(draw(60, seed=1))]
        write(tmp_path / "train.jsonl", rows)  # equal texts would stay together
        whole = np.array([[name in row["labels"] for name in NAMES] for row in rows])
        own = [f"task.files.{key}={'null' if value is None else value}" for key, value in parts.items()]
        own.append(f"task.files.train={tmp_path}/train.jsonl")
        task = Inputs().task(load_recipe(str(task_file), overrides=own).recipe)
        labels = [np.array(examples.labels) for examples in task.splits.values()]
        assert sum(map(len, labels)) == len(whole)
        for part in labels:
            expected = whole.sum(axis=0) * len(part) / len(whole)
            np.testing.assert_allclose(part.sum(axis=0), expected, atol=2)

    def test_a_label_of_one_row_is_missing_in_a_part_and_named(self, task_file, tmp_path):
        rare = {"text": "the one", "labels": ["dog", "rare"]}
        write(tmp_path / "train.jsonl", [*draw(60, seed=1), rare])
        own = [f"task.files.train={tmp_path}/train.jsonl", "task.files.validation=0.2"]
        told = " ".join(Inputs().task(load_recipe(str(task_file), overrides=own).recipe).notes)
        assert "the label rare is not" in told

    def test_a_draw_keeps_the_share_of_each_common_set(self, task_file):
        recipe = load_recipe(str(task_file)).recipe
        task = read_task(recipe.task, recipe.data)
        drawn = draw_training_part(task, 30, seed=3).splits["train"].labels
        every = task.splits["train"].labels
        common = {labels for labels in every if every.count(labels) >= 5}
        assert len(common) >= 3
        assert all(abs(drawn.count(labels) - every.count(labels) / 2) <= 1 for labels in common)


class TestRun:
    def test_its_numbers(self, run):
        result = run.result
        assert result["metric"] == "micro_f1"
        assert list(result["last"]["metrics"]["validation"]) == ["micro_f1", "macro_f1", "subset_accuracy"]
        saved = read_predictions(run.folder / "predictions" / "validation.parquet")
        assert saved["label"] == [row["labels"] for row in draw(30, seed=2)]
        assert saved["prediction"] == [
            [name for name, score in zip(NAMES, scores, strict=True) if score >= 0.5] for scores in saved["scores"]
        ]
        gold, given = (
            np.array([[name in labels for name in NAMES] for labels in saved[column]])
            for column in ("label", "prediction")
        )
        assert result["value"] == pytest.approx(f1_score(gold, given, average="micro", zero_division=0.0))
        always = np.tile([True, False, False], (30, 1))  # cats are in 70% of the examples
        assert result["majority"] == pytest.approx(f1_score(gold, always, average="micro"))

    def test_another_headline(self, task_file, run, tmp_path):
        other = engine.train(load_recipe(str(task_file), overrides=["task.metric=macro_f1"]), output=tmp_path)
        last = run.result["last"]["metrics"]["validation"]
        assert other.result["last"]["metrics"]["validation"] == {"macro_f1": last["macro_f1"]}
        assert other.result["value"] == last["macro_f1"]
        with pytest.raises(RequestError, match="metric accuracy does not suit a multilabel task"):
            load_recipe(str(task_file), overrides=["task.metric=accuracy"])

    def test_several_metrics(self, task_file, run, tmp_path):
        asked = ["task.metric=[subset_accuracy, micro_f1]", "training.steps=1"]
        other = engine.train(load_recipe(str(task_file), overrides=asked), output=tmp_path)
        assert (other.result["metric"], other.result["best"]["step"]) == ("subset_accuracy", 1)
        found = other.result["last"]["metrics"]["validation"]
        assert list(found) == ["subset_accuracy", "micro_f1", "macro_f1"]
        assert other.folder.name.rpartition("-")[2] != run.folder.name.rpartition("-")[2]

    def test_its_page_and_what_is_said_of_it(self, task_file, zygote, tmp_path):
        more = ["training.keep=best", "training.patience=1", "training.eval_every=1", "training.learning_rate=1e-9"]
        sets = [part for each in more for part in ("--set", each)]
        told = zygote.run("train", "--recipe", task_file, *sets, "--output", tmp_path)
        assert told.code == 0, told.stderr
        (page,) = tmp_path.rglob("report.md")
        note = "raining stopped early after step 2; the weights are those of step 1, the best on validation"
        assert note in page.read_text()
        assert note in " ".join(told.stderr.split())
        (saved,) = tmp_path.rglob("validation.parquet")
        answered = [name for labels in read_predictions(saved)["prediction"] for name in labels]
        rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines()]
        assert {row[0]: int(row[-1]) for row in rows if row[0] in NAMES} == {
            name: answered.count(name) for name in NAMES
        }

    def test_plain_transformers_gives_the_same_scores(self, run):
        from transformers import pipeline

        config = json.loads((run.folder / "model" / "config.json").read_text())
        assert config["problem_type"] == "multi_label_classification"
        saved = read_predictions(run.folder / "predictions" / "validation.parquet")
        classify = pipeline("text-classification", model=str(run.folder / "model"), top_k=None)
        for answer, scores in zip(classify([row["text"] for row in draw(30, seed=2)]), saved["scores"], strict=True):
            assert {entry["label"]: entry["score"] for entry in answer} == pytest.approx(
                dict(zip(NAMES, scores, strict=True)), abs=1e-5
            )

    def test_predict_and_eval(self, run, zygote, tmp_path):
        write(tmp_path / "new.csv", draw(30, seed=2))
        saved = read_predictions(run.folder / "predictions" / "validation.parquet")
        told = zygote.run("predict", run.folder, tmp_path / "new.csv")
        assert told.code == 0, told.stderr
        rows = list(csv.DictReader(told.stdout.splitlines()))
        assert [row["prediction"] for row in rows] == [";".join(labels) for labels in saved["prediction"]]
        assert [float(row["score_dog"]) for row in rows] == pytest.approx(
            [scores[1] for scores in saved["scores"]], abs=1e-5
        )
        write(tmp_path / "new.jsonl", draw(2, seed=2))
        lines = zygote.run("predict", run.folder, tmp_path / "new.jsonl").stdout.splitlines()
        assert [json.loads(line)["prediction"] for line in lines] == saved["prediction"][:2]
        scored = zygote.run("eval", run.folder, "--json")
        assert json.loads(scored.stdout)["metrics"] == run.result["last"]["metrics"]

    @pytest.mark.parametrize(
        "method", [pytest.param(name, marks=[pytest.mark.slow] * (name != "dps-mix")) for name in SERVED]
    )
    def test_a_method_goes_on_from_its_checkpoint_with_the_same_bits(self, task_file, tmp_path, monkeypatch, method):
        from dpstune.common.interruption import Interrupted

        own = ["method.layers=1"] if method in ("reinit", "top-layers") else []
        loaded = load_recipe(str(task_file), method=method, overrides=[*own, "model.dropout=0.1"])
        whole = engine.train(loaded, output=tmp_path / "whole")
        take = Loop.optimizer_step

        def take_and_signal(loop, step):
            take(loop, step)
            if step == 3:
                loop.watch.received = 2

        with monkeypatch.context() as patch:
            patch.setattr(Loop, "optimizer_step", take_and_signal)
            with pytest.raises(Interrupted):
                engine.train(loaded, output=tmp_path / "parts")
        assert weights(engine.train(loaded, output=tmp_path / "parts")) == weights(whole)

    @pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
    def test_half_precision(self, task_file, tmp_path, precision):
        asked = ["training.class_weights=balanced", "training.label_smoothing=0.1", f"training.precision={precision}"]
        run = engine.train(load_recipe(str(task_file), overrides=asked), output=tmp_path)
        assert run.result["value"] is not None

    def test_balanced_weights_make_positives_count_what_negatives_do(self, task_file):
        recipe = load_recipe(str(task_file), overrides=["training.class_weights=balanced"]).recipe
        task = Inputs().task(recipe)
        shares = np.mean(task.splits["train"].labels, axis=0)
        weights = build_criterion(recipe.training, task).label_weights.numpy()
        np.testing.assert_allclose(weights, (1 - shares) / shares, rtol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize("method", ["r3f", "r-drop"])
    def test_methods_that_compare_one_distribution_an_example(self, task_file, method):
        with pytest.raises(RequestError, match=f"{method} compares one distribution an example"):
            load_recipe(str(task_file), method=method)

    def test_studies_that_need_one_label_an_example(self, task_file, zygote):
        for command in (["casestudy"], ["transfer", "--targets", "toy-nli"]):
            told = zygote.run(*command, "--recipe", task_file)
            assert told.code == 2
            assert "is multilabel" in told.stderr.splitlines()[-1]

    def test_fit_and_ensembles(self, task_file, run, zygote):
        for command, why in (
            (["fit", task_file], "fit compares one label a row"),
            (["ensemble", run.folder, run.folder], "gives several labels an example"),
        ):
            told = zygote.run(*command)
            assert told.code == 2
            assert why in told.stderr.splitlines()[-1]

    def test_a_task_with_one_label_an_example(self, run, zygote):
        told = zygote.run("eval", run.folder, "--task", "toy-nli")
        assert told.code == 2
        assert "does multilabel, but task toy-nli is classification" in told.stderr
