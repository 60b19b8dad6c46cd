"""One run, end to end: what it writes, what it equals, what it refuses."""

import csv
import json
import os
import re
import resource
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpstune.common.interruption import Interrupted
from dpstune.common.progress import SilentProgress
from dpstune.device.determinism import ask_for_the_same_bits
from dpstune.errors import DivergedError, RequestError, RunError
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_metrics, read_predictions
from dpstune.studies.records import read_divergence
from dpstune.training import checkpoints, engine, model_card
from dpstune.training.loop import Loop
from dpstune.training.losses import LossReadings
from dpstune.training.optim import build_optimizer
from tests.tiny import METHODS, some

FOUNDATION = ["vanilla", "dps-dense", "dps-mix"]
FULL_PRECISION = ["model.dropout=0", "training.adam_epsilon=1.0", "training.learning_rate=0.3"]  # no division by noise


@pytest.fixture
def train(tiny_task, tmp_path):
    def train(*overrides, output="runs", recipe=tiny_task, **options):
        loaded = load_recipe(str(recipe), overrides=[f"{override}" for override in overrides], **options)
        return engine.train(loaded, output=tmp_path / output)

    return train


def weights(run):
    return load_file(run.folder / "model" / "model.safetensors")


def same_bits(first, second):
    return all(torch.equal(weights(first)[name], tensor) for name, tensor in weights(second).items())


def write_task(folder, rows, suffix, *, kind="classification", text="[text]", model):
    """Write the rows as training and validation file of a task of its own, and its recipe."""
    for split in ("train", "validation"):
        path = folder / f"{split}{suffix}"
        if suffix in (".csv", ".tsv"):
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="," if suffix == ".csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
    recipe = folder / "own.yaml"
    recipe.write_text(
        f"model: {{name: {model}}}\n"
        f"task: {{files: {{train: train{suffix}, validation: validation{suffix}}}, text: {text}, label: label, "
        f"kind: {kind}}}\n"
        "data: {max_length: 24}\n"
        "training: {batch_size: 8, steps: 4, warmup_steps: 1}\n"
    )
    return recipe


@pytest.fixture(scope="module")
def run(tiny_task, tmp_path_factory):
    """A finished run, to look at."""
    loaded = load_recipe(str(tiny_task), method="dps-mix", overrides=["training.eval_every=10"])
    return engine.train(loaded, output=tmp_path_factory.mktemp("runs"))


class TestFolder:
    """What a finished run leaves behind."""

    def test_its_name_says_recipe_method_and_seed(self, run):
        assert run.folder.parts[-3:-1] == ("tiny", "dps-mix")
        assert run.folder.name.startswith("seed-42-")

    def test_its_files(self, run):
        there = {path.name for path in run.folder.iterdir()}
        expected = {"recipe.yaml", "environment.json", "metrics.jsonl", "result.json", "predictions", "model"}
        assert expected <= there
        assert there <= expected | {"tensorboard", ".lock"}

    def test_checkpoints_that_a_kill_left_are_dropped_when_the_finished_run_is_found(self, run, tiny_task):
        left = run.folder / "checkpoints" / "step-00000024"
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"large")
        loaded = load_recipe(str(tiny_task), method="dps-mix", overrides=["training.eval_every=10"])
        found = engine.train(loaded, output=run.folder.parents[2])
        assert (found.folder, found.trained) == (run.folder, False)
        assert not left.parent.exists()

    def test_its_weights_need_not_be_written(self, tiny_task, tmp_path):
        loaded = load_recipe(str(tiny_task), method="vanilla", overrides=["training.epochs=1"])
        run = engine.train(loaded, output=tmp_path, keep_model=False)
        assert {path.name for path in run.folder.iterdir()}.isdisjoint({"model", "checkpoints"})
        assert (run.folder / "predictions" / "validation.parquet").is_file()

    def test_what_an_earlier_training_left_is_kept_apart_where_its_result_is_gone(self, tiny_task, tmp_path):
        loaded = load_recipe(str(tiny_task), method="vanilla", overrides=["training.steps=2"])
        folder = engine.train(loaded, output=tmp_path).folder
        (folder / "transfer").mkdir()
        (folder / "transfer" / "rte.json").write_text("{}")
        (folder / "result.json").unlink()
        notes = Notes()
        again = engine.train(loaded, output=tmp_path, keep_model=False, progress=notes)
        assert again.folder == folder
        assert {path.name for path in folder.iterdir()}.isdisjoint({"model", "transfer"})
        earlier = folder.with_name(f"{folder.name}.earlier-1")
        assert (earlier / "model").is_dir()
        assert (earlier / "transfer" / "rte.json").is_file()
        assert f"what an earlier training left is kept as {earlier}" in notes.told

    def test_its_recipe_is_the_run(self, run, tmp_path):
        again = engine.train(load_recipe(str(run.folder / "recipe.yaml")), output=tmp_path)
        assert again.folder.name == run.folder.name
        assert same_bits(again, run)

    def test_the_result(self, run):
        result = json.loads((run.folder / "result.json").read_text())
        assert result == run.result
        assert (result["split"], result["metric"], result["steps"]) == ("validation", "accuracy", 24)
        assert result["value"] == result["last"]["metrics"]["validation"]["accuracy"]
        assert result["last"]["step"] == 24
        assert result["best"]["metrics"]["validation"]["accuracy"] >= result["value"]
        assert result["examples"] == {"train": 72, "validation": 30}
        assert 0.4 < result["majority"] < 0.7
        assert result["seconds"] > 0
        assert result["tokens_per_second"] > 0
        assert result["peak_memory_bytes"] > 50_000_000

    def test_the_log_has_a_line_a_step_and_one_an_evaluation(self, run):
        lines = read_metrics(run.folder / "metrics.jsonl")
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
        assert [line["step"] for line in lines if "accuracy" in line] == [10, 20, 24]
        rates = [line["learning_rate"] for line in lines if "loss" in line]
        assert rates[0] == 0.0
        assert max(rates) == 0.003

    def test_predictions_are_those_of_the_model_folder_in_plain_transformers(self, run, tiny_task):
        from transformers import pipeline

        saved = read_predictions(run.folder / "predictions" / "validation.parquet")
        assert set(saved) == {"id", "label", "prediction", "scores"}
        with (tiny_task.parent / "validation.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert saved["label"] == [row["label"] for row in rows]
        classify = pipeline("text-classification", model=str(run.folder / "model"), top_k=None)
        answers = classify([{"text": row["first"], "text_pair": row["second"]} for row in rows])
        for answer, prediction, scores in zip(answers, saved["prediction"], saved["scores"], strict=True):
            assert answer[0]["label"] == prediction
            assert {entry["label"]: entry["score"] for entry in answer} == pytest.approx(
                dict(zip(("no", "yes"), scores, strict=True)), abs=1e-5
            )

    def test_no_weight_is_pickled(self, run):
        assert {path.suffix for path in (run.folder / "model").iterdir()} <= {".safetensors", ".json", ".md", ".txt"}

    def test_the_model_card_says_what_was_done(self, run):
        card = (run.folder / "model" / "README.md").read_text()
        assert all(word in card for word in ("dps-mix", "p 0.3", "seed 42", "no, yes", "library_name: transformers"))

    def test_the_model_cards_example_runs(self, run):
        card = (run.folder / "model" / "README.md").read_text()
        (program,) = re.findall(r"^```python\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
        assert "text_pair" in program  # the model was trained on pairs
        exec(program.replace("PATH_OF_THIS_FOLDER", str(run.folder / "model")), {})

    def test_tensorboard_events(self, run):
        pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.folder / "tensorboard"))
        events.Reload()
        losses = {line["step"]: line["loss"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line}
        assert {event.step: event.value for event in events.Scalars("train/loss")} == pytest.approx(losses)
        assert [event.step for event in events.Scalars("validation/accuracy")] == [10, 20, 24]


@pytest.mark.parametrize("method", some(["dps-mix"], of=FOUNDATION))
def test_same_seed_same_bits_other_seed_others(train, method):
    options = {"method": method}
    first, again = train(**options, output="first"), train(**options, output="again")
    assert first.folder.name == again.folder.name
    assert same_bits(first, again)
    assert not same_bits(first, train(**options, seed=43))


@pytest.mark.parametrize("method", some(["dps-mix"], of=FOUNDATION))
def test_accumulated_batches_equal_one_large_batch(train, tiny_model, method):
    settings = [*FULL_PRECISION, *(["method.update_ratio=0.2"] if method != "vanilla" else [])]
    large = train("training.batch_size=6", *settings, method=method)
    split = train("training.batch_size=2", "training.gradient_accumulation=3", *settings, method=method)
    first = load_file(tiny_model / "model.safetensors")
    moved = torch.cat([(weights(large)[f"bert.{name}"] - tensor).flatten() for name, tensor in first.items()])
    apart = torch.cat([(weights(split)[name] - tensor).flatten() for name, tensor in weights(large).items()])
    # With two labels the head's rows have gradients that are each other's negatives: scores tie but for float noise,
    # and which of two is selected may differ.
    assert apart.norm() < (1e-4 if method == "vanilla" else 2e-2) * moved.norm()
    whole, parts = (
        [line["loss"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line]
        for run in (large, split)
    )
    assert parts == pytest.approx(whole, rel=1e-4)


def test_recomputed_activations_change_nothing(train):
    assert same_bits(train("training.gradient_checkpointing=true"), train())


def test_bucketed_batches_learn_from_every_example_with_less_padding(train):
    run = train("training.batching=bucketed", "training.epochs=1")
    assert run.result["steps"] == 12


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precision_on_the_cpu(train, precision):
    run = train(f"training.precision={precision}", "training.steps=6")
    assert json.loads((run.folder / "environment.json").read_text())["precision"] == precision
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}


def test_what_is_held_out_is_what_is_reported(train):
    run = train("data.held_out=20", "data.train_size=40", "training.steps=2", "training.warmup_steps=1")
    assert (run.result["split"], run.result["examples"]) == ("held_out", {"train": 40, "held_out": 20})
    assert len(read_predictions(run.folder / "predictions" / "held_out.parquet")["id"]) == 20
    assert run.result["other_seconds"] > 0


def test_what_a_method_holds_is_reported(train):
    def held(method):
        run = train("training.steps=4", method=method)
        return run.result["method_bytes"], [
            tensor for name, tensor in weights(run).items() if tensor.ndim == 2 and "embeddings" not in name
        ]

    assert held("vanilla")[0] == 0
    found, linear = held("dps-dense")
    assert found == sum(4 * weight.numel() for weight in linear)
    found, linear = held("dps-mix")
    # A weight: two floats and a bit. A column, of which a tiny model has many: its count, its mask as bool and float.
    a_weight = sum(8 * weight.numel() + -(-weight.numel() // 8) for weight in linear)
    assert found == a_weight + sum((4 + 1 + 4) * weight.shape[1] for weight in linear)


@pytest.mark.slow
def test_a_process_can_train_many_runs_and_each_is_as_if_alone(train, tmp_path):
    alone = train(method="dps-mix", output="alone")
    train(method="vanilla", output="between", seed=1)
    assert same_bits(train(method="dps-mix", output="later"), alone)


class TestOwnFiles:
    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
    def test_every_format_gives_the_same_run(self, train, tiny_model, tmp_path, suffix):
        words = ["cat", "dog"]
        rows = [{"text": f'the {words[n % 2]}, "{n}"', "label": ["good", "bad"][n % 2]} for n in range(16)]
        run = train(recipe=write_task(tmp_path, rows, suffix, model=tiny_model))
        saved = read_predictions(run.folder / "predictions" / "validation.parquet")
        assert saved["label"] == ["good", "bad"] * 8
        config = json.loads((run.folder / "model" / "config.json").read_text())
        assert config["id2label"] == {"0": "bad", "1": "good"}

    def test_regression(self, train, tiny_model, tmp_path):
        rows = [{"a": "the cat", "b": "a dog" if n % 2 else "a man", "label": n / 4} for n in range(16)]
        recipe = write_task(tmp_path, rows, ".jsonl", kind="regression", text="[a, b]", model=tiny_model)
        run = train(recipe=recipe)
        assert run.result["metric"] == "spearman"
        assert list(run.result["last"]["metrics"]["validation"]) == ["spearman", "pearson"]
        assert run.result["majority"] is None
        saved = read_predictions(run.folder / "predictions" / "validation.parquet")
        assert saved["label"] == [n / 4 for n in range(16)]
        assert saved["prediction"] == [scores[0] for scores in saved["scores"]]

    def test_a_test_file_without_labels_is_predicted(self, train, tiny_task, tmp_path):
        folder = shutil.copytree(tiny_task.parent, tmp_path / "task")
        (folder / "test.csv").write_text("first,second\nthe cat,a dog\na cat,a dog\n")
        run = train("training.steps=3", f"task.files.test={folder}/test.csv", recipe=folder / "tiny.yaml")
        saved = read_predictions(run.folder / "predictions" / "test.parquet")
        assert saved["label"] == [None, None]
        assert set(saved["prediction"]) <= {"yes", "no"}
        assert list(run.result["last"]["metrics"]) == ["validation", "test"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes fp16 natively")
def test_a_precision_that_the_device_emulates_is_said_to_be_slow(tiny_task, tmp_path):
    notes = Notes()
    loaded = load_recipe(str(tiny_task), overrides=["training.precision=fp16", "training.steps=2"])
    run = engine.train(loaded, output=tmp_path, progress=notes)
    assert "fp16 is slow on this CPU; training.precision=auto takes what it computes natively" in notes.told
    environment = json.loads((run.folder / "environment.json").read_text())
    assert (environment["precision"], environment["determinism"]) == ("fp16", None)


def test_a_model_that_needs_other_kernels_trains_and_its_run_says_so(tiny_task, tmp_path, monkeypatch):
    """On a GPU; here the trial is made on a CPU, where `put_` is an operation that strict mode refuses."""
    settle_on_a_gpu, run_the_loop, asked = Loop._settle_determinism, Loop.run, []

    def run_and_note(loop):
        asked.append(torch.is_deterministic_algorithms_warn_only_enabled())
        return run_the_loop(loop)

    def settle_here(loop):
        class Gpu:
            type = "cuda"

        def put(module, inputs, output):
            return output + torch.zeros_like(output).put_(torch.tensor([0]), torch.tensor([0.0]))

        loop.model.classifier.register_forward_hook(put)
        with monkeypatch.context() as patch:
            patch.setattr(type(loop.accelerator), "device", Gpu())
            patch.setattr(loop.forward, "batch", lambda taken: loop.datasets["train"].collate(*taken))
            ask_for_the_same_bits()
            return settle_on_a_gpu(loop)

    monkeypatch.setattr(Loop, "_settle_determinism", settle_here)
    monkeypatch.setattr(Loop, "run", run_and_note)
    run = engine.train(load_recipe(str(tiny_task), overrides=["training.steps=2"]), output=tmp_path)
    assert asked == [True]
    assert not torch.are_deterministic_algorithms_enabled(), "as it was"
    determinism = json.loads((run.folder / "environment.json").read_text())["determinism"]
    assert determinism.startswith("warn_only: put_ does not have a deterministic implementation")


def test_a_run_that_goes_on_says_where_it_was_before_and_its_highest_peak(train, tmp_path, monkeypatch):
    steps = ["training.steps=4", "training.save_every=2"]
    with monkeypatch.context() as patch:
        patch.setattr("dpstune.device.hardware.peak_memory_bytes", lambda device: 10**15)
        end_evaluations_with(patch, RunError("the disk is full"))
        with pytest.raises(RunError):
            train(*steps)
    (file,) = tmp_path.glob("runs/*/*/*/environment.json")
    begun = json.loads(file.read_text())
    begun["packages"]["torch"] = "1.0.0"
    file.write_text(json.dumps(begun))
    run = train(*steps)
    environment = json.loads(file.read_text())
    assert environment.pop("earlier") == [begun]
    assert environment["packages"]["torch"] == torch.__version__
    assert run.result["peak_memory_bytes"] == 10**15
    assert "earlier" not in json.loads((train("training.steps=4", seed=7).folder / "environment.json").read_text())


def test_losses_are_read_before_an_evaluation_so_that_its_time_is_its_own(tiny_task, tmp_path, monkeypatch):
    """On a GPU steps are still under way when the host has queued them; reading their losses waits for them."""
    evaluate = Loop.evaluate
    kept = []

    def note_and_evaluate(loop):
        kept.append((loop.state.step, len(loop.losses.read())))
        return evaluate(loop)

    monkeypatch.setattr(Loop, "evaluate", note_and_evaluate)
    monkeypatch.setattr(LossReadings, "at_reading_point", lambda readings, step: step % 10 == 0)
    run = engine.train(load_recipe(str(tiny_task), overrides=["training.eval_every=7"]), output=tmp_path)
    assert kept == [(7, 0), (14, 0), (21, 0), (24, 0)]
    steps = [line["step"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, 25))


def end_evaluations_with(patch, error):
    def end(loop):
        raise error

    patch.setattr(Loop, "evaluate", end)


class TestFailures:
    def test_a_loss_that_is_not_finite_stops_the_run(self, train):
        with pytest.raises(RunError, match=r"the loss of step \d+ is (nan|inf); try a lower training.learning_rate"):
            train("training.learning_rate=1e30", "training.max_grad_norm=1e30", "training.warmup_steps=0")

    def test_a_model_that_the_last_steps_destroyed_is_not_a_result(self, train, tmp_path):
        with pytest.raises(RunError, match="outputs for split validation are not finite: training has diverged"):
            train("training.learning_rate=1e38", "training.warmup_steps=0", "training.steps=1")
        assert not list(tmp_path.glob("runs/*/*/*/result.json"))

    def test_what_diverged_is_kept_until_the_run_is_finished(self, train, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            end_evaluations_with(patch, DivergedError("no"))
            with pytest.raises(DivergedError):
                train("training.steps=4", "training.save_every=2")
        (kept,) = tmp_path.glob("runs/*/*/*/diverged.json")
        assert not list(kept.parent.glob("checkpoints/*"))
        diverged = read_divergence(kept.parent)
        assert (diverged.diverged, diverged.value, diverged.failed) == (True, None, True)
        assert (diverged.score, diverged.result["error"]) == (diverged.majority, "no")
        finished = train("training.steps=4", "training.save_every=2")
        assert finished.folder == kept.parent
        assert (diverged.majority, diverged.digest) == (finished.result["majority"], finished.result["digest"])
        assert not kept.exists()
        assert read_divergence(finished.folder) is None

    def test_another_error_after_it_is_no_divergence(self, train, tmp_path, monkeypatch):
        for error in (DivergedError("no"), RunError("the disk is full")):
            end_evaluations_with(monkeypatch, error)
            with pytest.raises(RunError, match=str(error)):
                train("training.steps=4")
        assert not list(tmp_path.glob("runs/*/*/*/diverged.json"))

    def test_a_checkpoint_of_other_weights_is_refused_and_kept(self, train, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            end_evaluations_with(patch, RunError("the disk is full"))
            with pytest.raises(RunError, match="full"):
                train("training.steps=4", "training.save_every=2")
        (kept,) = tmp_path.glob("runs/*/*/*/checkpoints/step-*2")

        def with_one_more(model, training):
            optimizer = build_optimizer(model, training)
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
            return optimizer

        monkeypatch.setattr("dpstune.training.optim.build_optimizer", with_one_more)
        with pytest.raises(RunError, match="begun by an earlier dpstune, which trains other weights"):
            train("training.steps=4", "training.save_every=2")
        assert kept.is_dir()

    def test_weights_that_are_not_finite_are_not_saved(self, train, tmp_path):
        settings = ["training.learning_rate=1e38", "training.warmup_steps=0", "training.steps=2"]
        with pytest.raises(RunError, match="weights are not finite after step 1; try a lower"):
            train(*settings, "training.save_every=1", "training.max_grad_norm=1e30")
        assert not list(tmp_path.glob("runs/*/*/*/checkpoints/*"))

    def test_a_signal_while_results_are_written_ends_what_comes_after(self, train, tmp_path, monkeypatch):
        save = model_card.save_model_folder

        def save_and_signal(*arguments):
            os.kill(os.getpid(), signal.SIGINT)
            save(*arguments)

        monkeypatch.setattr(model_card, "save_model_folder", save_and_signal)
        with pytest.raises(Interrupted, match="all of it is saved") as caught:
            train("training.steps=3")
        assert caught.value.exit_code == 130
        assert len(list(tmp_path.glob("runs/*/*/*/result.json"))) == 1

    def test_more_tokens_than_the_model_takes(self, train):
        with pytest.raises(RequestError, match=r"data.max_length: 100 is more than the model's 64 tokens"):
            train("data.max_length=100")

    def test_an_output_folder_that_cannot_be_made(self, train, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(
            RequestError, match=r"cannot write to .*Not a directory; choose another folder with --output"
        ):
            train(output="file/runs")

    def test_a_disk_that_fills_up_loses_nothing_that_was_saved(self, train, tiny_task, tmp_path, monkeypatch):
        every = ["training.save_every=8", "training.eval_every=100"]
        save = checkpoints.Checkpoints.save

        def save_once(*arguments):
            save(*arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        with full_after(1_000_000), monkeypatch.context() as patch:
            patch.setattr(checkpoints.Checkpoints, "save", save_once)
            with pytest.raises(RunError, match="what was saved before is untouched"):
                train(*every)
        (saved,) = tmp_path.glob("runs/*/*/*/checkpoints/step-*")
        assert saved.name == "step-00000008"
        notes = Notes()
        loaded = load_recipe(str(tiny_task), overrides=every)
        continued = engine.train(loaded, output=tmp_path / "runs", progress=notes)
        assert notes.told == ["continuing after step 8 of 24"]
        assert same_bits(continued, train(*every, output="whole"))

    def test_a_run_that_has_room_for_its_model_but_no_last_checkpoint_is_finished(self, train, tiny_task, tmp_path):
        whole = train("training.steps=4")
        notes, room = Notes(), 1.5 * (whole.folder / "model" / "model.safetensors").stat().st_size
        with full_after(int(room)):
            loaded = load_recipe(str(tiny_task), overrides=["training.steps=4"])
            finished = engine.train(loaded, output=tmp_path / "full", progress=notes)
        assert same_bits(finished, whole)
        told = (
            "no checkpoint was written after the last step, and a finished run needs none ([Errno 27] File too large)"
        )
        assert notes.told == [told]

    def test_two_processes_in_one_folder(self, train, zygote, tiny_task, tmp_path):
        from dpstune.runs.folder import RunFolder

        run = train("training.steps=3")
        (run.folder / "result.json").unlink()
        with RunFolder(run.folder).lock():
            other = zygote.run(
                "train", "--recipe", tiny_task, "--set", "training.steps=3", "--output", tmp_path / "runs"
            )
        assert other.code == 1
        assert "another process" in other.stderr


class Notes(SilentProgress):
    """Keeps what a person would be told."""

    def __init__(self):
        self.told = []

    def note(self, text):
        self.told.append(text)


@contextmanager
def full_after(size):
    """Let no file grow past ``size`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_method_trained_twice_differs_from_the_others(train):
    """As many models as methods: none of them is another under a new name."""
    settings = ["training.steps=6", "training.warmup_steps=0", "model.dropout=0.1"]
    runs = {
        name: train(*settings, *(["method.layers=1"] if name in ("reinit", "top-layers") else []), method=name)
        for name in METHODS
    }
    vectors = {name: np.concatenate([t.flatten().numpy() for t in weights(run).values()]) for name, run in runs.items()}
    names = list(vectors)
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            assert not np.array_equal(vectors[name], vectors[other]), (name, other)


def test_runs_lie_where_asked(train, tmp_path):
    assert train("training.steps=2", output="here").folder.is_relative_to(Path(tmp_path / "here"))


def test_where_lower_is_better_the_lowest_evaluation_is_the_best(train):
    run = train("task.metric=[log_loss, accuracy]", "training.steps=12", "training.eval_every=2")
    lines = [line for line in read_metrics(run.folder / "metrics.jsonl") if "split" in line]
    values = {line["step"]: line["log_loss"] for line in lines}
    result = run.result
    assert (result["metric"], result["value"]) == ("log_loss", values[12])
    assert result["best"]["metrics"]["validation"]["log_loss"] == min(values.values())
    assert result["best"]["step"] == min(values, key=values.get)
    assert list(result["last"]["metrics"]["validation"]) == ["log_loss", "accuracy"]
    assert 0.6 < result["majority"] < 0.75  # what the shares of two labels, about as many, are worth
