"""`training.keep` and `training.patience`: which weights a run ends with, and when; runs that are not evaluated."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import dpstune
from dpstune import cli
from dpstune.common.interruption import Interrupted
from dpstune.common.progress import SilentProgress
from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.evaluation.targets import target_of
from dpstune.evaluation.trained import find_trained
from dpstune.recipe.recipe import load_recipe
from dpstune.report.run_report import write_run_page
from dpstune.report.tables import print_result
from dpstune.runs.folder import read_metrics, read_predictions
from dpstune.studies.records import every_run
from dpstune.studies.sweep.coordinator import run_sweep
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from dpstune.training import checkpoints, engine
from dpstune.training.best import BestWeights
from dpstune.training.loop import Loop
from dpstune.training.results import choice_note, told_of_choice
from tests.training.stopping import stop_within_an_evaluation

EVERY = ["training.eval_every=2", "training.save_every=3"]
BEST = [*EVERY, "training.keep=best"]  # of the tiny task's dps-mix it is in the middle


class Notes(SilentProgress):
    """Keeps what a person would be told."""

    def __init__(self):
        self.told = []

    def note(self, text):
        self.told.append(text)


@pytest.fixture(scope="module")
def recipe(tiny_task):
    def recipe(*overrides, method="dps-mix"):
        return load_recipe(str(tiny_task), method=method, overrides=overrides)

    return recipe


@pytest.fixture(scope="module")
def best(recipe, tmp_path_factory):
    """A run that kept its best weights."""
    return engine.train(recipe(*BEST), output=tmp_path_factory.mktemp("best"))


def weights(run):
    return (run.folder / "model" / "model.safetensors").read_bytes()


def accuracies(run):
    return {line["step"]: line["accuracy"] for line in read_metrics(run.folder / "metrics.jsonl") if "accuracy" in line}


class TestTheBest:
    def test_is_what_the_run_ends_with(self, best):
        scores = accuracies(best)
        step = max(scores, key=scores.get)
        assert 2 < step < 24
        assert best.result["kept"]["step"] == best.result["best"]["step"] == step
        assert best.result["value"] == scores[step] > scores[24]
        assert (best.result["last"]["step"], best.result["last"]["metrics"]["validation"]["accuracy"]) == (
            24,
            scores[24],
        )
        saved = read_predictions(best.folder / "predictions" / "validation.parquet")
        right = sum(map(str.__eq__, saved["label"], saved["prediction"]))
        assert right / len(saved["label"]) == pytest.approx(scores[step])

    def test_is_the_model_that_was_there_after_that_step(self, best, recipe, tmp_path, monkeypatch):
        there = {}
        save = BestWeights.save

        def note_and_save(self, step, model):
            there[step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            save(self, step, model)

        monkeypatch.setattr(BestWeights, "save", note_and_save)
        again = engine.train(recipe(*BEST), output=tmp_path)
        assert weights(again) == weights(best)
        kept = load_file(again.folder / "model" / "model.safetensors")
        expected = there[again.result["kept"]["step"]]
        assert all(torch.equal(expected[name], tensor) for name, tensor in kept.items())

    def test_takes_little_room_while_each_evaluation_is_better(self, recipe, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr("dpstune.training.loop.better", lambda *_: True)
        take = Loop.optimizer_step

        def note_and_take(loop, step):
            kept.append(sorted(path.name for path in loop.folder.checkpoints.glob("best-*")))
            take(loop, step)

        monkeypatch.setattr(Loop, "optimizer_step", note_and_take)
        engine.train(recipe("training.eval_every=1", "training.save_every=100", "training.keep=best"), output=tmp_path)
        assert kept == [[], *([f"best-{step:08d}"] for step in range(1, 24))]

    def test_leaves_no_checkpoint(self, best):
        assert not (best.folder / "checkpoints").exists()

    def test_is_said_to_be_optimistic(self, best, capsys):
        said = f"the weights are those of step {best.result['kept']['step']}, the best on validation, so that the score"
        print_result(best.folder, best.result)
        assert said in capsys.readouterr().err
        assert said[1:] in (best.folder / "model" / "README.md").read_text()

    def test_is_said_to_be_optimistic_where_it_is_evaluated_on_the_split_that_chose_it(self, best, capsys):
        place = find_trained(best.folder)
        target = target_of(place, None, "validation", None)
        said = choice_note(best.result)
        assert told_of_choice(place, target, ["validation"]) == said
        assert told_of_choice(place, target, ["test"]) is None
        assert told_of_choice(place, replace(target, task="toy-rte"), ["validation"]) is None
        otherwise_scored = target.task.model_copy(update={"metric": "macro_f1"})
        assert told_of_choice(place, replace(target, task=otherwise_scored), ["validation"]) == said
        assert told_of_choice(find_trained(best.folder / "model"), target, ["validation"]) == said
        assert cli.run(["eval", str(best.folder)]) == 0
        assert said in capsys.readouterr().err
        assert said in dpstune.evaluate(best.folder, quiet=True).notes

    def test_is_another_run_than_the_last_with_the_same_training(self, best, recipe, tmp_path):
        last = engine.train(recipe(*EVERY), output=tmp_path)
        assert last.folder.name != best.folder.name
        assert accuracies(last) == accuracies(best)
        assert last.result["value"] == last.result["last"]["metrics"]["validation"]["accuracy"]
        assert last.result["kept"]["chosen_by"] is None
        assert "optimistic" not in (last.folder / "model" / "README.md").read_text()

    def test_on_held_out_examples(self, recipe, tmp_path):
        run = engine.train(recipe(*BEST, "data.held_out=20", "training.steps=4"), output=tmp_path)
        assert (run.result["split"], run.result["kept"]["chosen_by"]) == ("held_out", "held_out")

    def test_is_not_said_to_be_chosen_where_the_headline_is_always_undefined(self, tiny_model, tmp_path):
        for split, values in {"train": [0, 1, 2] * 4, "validation": [1] * 6}.items():
            rows = [f"the cat {number},{value}\n" for number, value in enumerate(values)]
            (tmp_path / f"{split}.csv").write_text("text,value\n" + "".join(rows))
        (tmp_path / "values.yaml").write_text(
            f"model: {{name: {tiny_model}}}\n"
            "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: value, "
            "kind: regression}\n"
            "data: {max_length: 24}\n"
            "method: vanilla\n"
            "training: {batch_size: 6, epochs: 2, precision: fp32, keep: best}\n"
        )
        run = engine.train(load_recipe(str(tmp_path / "values.yaml")), output=tmp_path / "runs")
        assert (run.result["value"], run.result["best"]) == (None, None)
        assert (run.result["kept"]["step"], run.result["kept"]["chosen_by"]) == (run.result["steps"], None)
        assert "optimistic" not in (run.folder / "model" / "README.md").read_text()


class TestPatience:
    def test_ends_a_run_that_gets_no_better(self, recipe, best, tmp_path):
        notes = Notes()
        run = engine.train(recipe(*EVERY, "training.patience=3"), output=tmp_path, progress=notes)
        assert run.result["steps"] == run.result["stopped_early_at"] == run.result["last"]["step"] == 8
        assert run.result["kept"]["step"] == 8
        assert accuracies(run) == {step: value for step, value in accuracies(best).items() if step <= 8}
        assert [line["step"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line][-1] == 8
        (told,) = notes.told
        assert told.startswith(
            "stopped early after step 8 of 24: no better accuracy on validation since step 2 (0.4667)"
        )

    def test_keeps_the_best_where_that_is_asked_for(self, recipe, best, tmp_path):
        run = engine.train(recipe(*BEST, "training.patience=5"), output=tmp_path)
        assert (run.result["stopped_early_at"], run.result["kept"]["step"]) == (20, 10)
        assert weights(run) == weights(best)

    def test_that_ends_with_the_last_step_stopped_nothing(self, recipe, tmp_path):
        run = engine.train(recipe(*EVERY, "training.steps=8", "training.patience=3"), output=tmp_path)
        assert (run.result["steps"], run.result["stopped_early_at"]) == (8, None)

    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            (["patience=2"], "training.patience: 2 ends no run that is evaluated 2 times"),
            (["patience=1"], "training.patience: 1 ends no run that is evaluated 2 times"),
            (["eval_every=2", "keep=best"], "training.keep: best is the last of a run that is evaluated once"),
            (["warmup_steps=2"], "training.warmup_steps: all 2 steps are warmup"),
            (["steps=3", "patience=1", "keep=best"], None),
        ],
    )
    def test_of_settings_that_can_make_no_difference_it_is_said(self, recipe, tmp_path, asked, told):
        notes = Notes()
        few = ["training.steps=2", "training.eval_every=1", *(f"training.{each}" for each in asked)]
        engine.train(recipe(*few), output=tmp_path, progress=notes)
        before = [note for note in notes.told if not note.startswith("stopped early")]
        assert [note[: len(told or "")] for note in before] == [told] * (told is not None)


class Killed(BaseException):
    """Stands for SIGKILL: nothing below the command catches it."""


def die(*_, **__):
    raise Killed


def train_and_die(loaded, output, monkeypatch, number, *, written):
    """Train until the folder of the given number is to be written, or was; return whether it came to that."""
    write, count = checkpoints.write_folder, []

    def write_and_die(path, fill):
        count.append(path)
        if len(count) == number and not written:
            raise Killed
        write(path, fill)
        if len(count) == number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_folder", write_and_die)
        try:
            engine.train(loaded, output=output)
        except Killed:
            return True
    return False


class TestResume:
    @pytest.mark.parametrize(
        ("numbers", "written", "patience"),
        [
            ([6], False, []),  # the best of step 10 is there, the checkpoint of step 12 is not
            ([5], True, []),
            pytest.param(range(1, 20), False, ["training.patience=5"], marks=pytest.mark.slow),
            pytest.param(range(1, 20), True, ["training.patience=5"], marks=pytest.mark.slow),
        ],
    )
    def test_a_run_that_dies_at_a_write_ends_bit_identical(
        self, recipe, best, tmp_path, monkeypatch, numbers, written, patience
    ):
        """The writes are the best of step 2, checkpoints 3, 6 and 9, the best of step 10, checkpoint 12 and so on."""
        loaded = recipe(*BEST, *patience)
        for number in numbers:
            output = tmp_path / f"{number}"
            if not train_and_die(loaded, output, monkeypatch, number, written=written):
                assert number > 8
                break
            again = engine.train(loaded, output=output)
            assert weights(again) == weights(best)
            assert accuracies(again).items() <= accuracies(best).items()
            assert again.result["kept"] == best.result["kept"]

    @pytest.mark.slow
    def test_a_run_may_die_many_times(self, recipe, best, tmp_path, monkeypatch):
        deaths = 0
        while train_and_die(recipe(*BEST), tmp_path, monkeypatch, 2, written=True):
            deaths += 1
        (run,) = tmp_path.glob("*/*/*/result.json")
        assert deaths >= 4
        assert (run.parent / "model" / "model.safetensors").read_bytes() == weights(best)

    def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(self, recipe, best, tmp_path, monkeypatch):
        assert train_and_die(recipe(*BEST), tmp_path, monkeypatch, 6, written=True)  # step 12
        (folder,) = tmp_path.glob("*/*/*/checkpoints")
        names = {path.name for path in folder.iterdir()}
        assert names >= {"best-00000002", "best-00000010", "step-00000009", "step-00000012"}
        (folder / "best-00000010" / "model.safetensors").write_bytes(b"")
        notes = Notes()
        run = engine.train(recipe(*BEST), output=tmp_path, progress=notes)
        assert "continuing after step 9 of 24" in notes.told
        assert weights(run) == weights(best)

    @pytest.mark.parametrize("step", [8, 24])
    def test_a_checkpoint_that_a_signal_made_before_an_evaluation_keeps_its_best(
        self, recipe, tmp_path, monkeypatch, step
    ):
        loaded = recipe("training.eval_every=4", "training.keep=best")
        monkeypatch.setattr("dpstune.training.loop.better", lambda *_: True)
        whole = engine.train(loaded, output=tmp_path / "whole")
        with monkeypatch.context() as patch:
            stop_within_an_evaluation(patch, step)
            with pytest.raises(Interrupted):
                engine.train(loaded, output=tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(Loop, "optimizer_step", die)
            patch.setattr(Loop, "finish", die)
            with pytest.raises(Killed):
                engine.train(loaded, output=tmp_path)
        notes = Notes()
        again = engine.train(loaded, output=tmp_path, progress=notes)
        assert f"continuing after step {step} of 24" in notes.told
        assert weights(again) == weights(whole)
        assert again.result["kept"] == whole.result["kept"]


class Unevaluated(Inputs):
    """A task with training examples alone."""

    def task(self, recipe):
        task = super().task(recipe)
        return replace(task, splits={"train": task.splits["train"]})


class TestNothingEvaluated:
    def test_a_run_trains_and_says_that_it_has_no_score(self, recipe, tmp_path, capsys):
        run = engine.train(recipe("training.steps=4"), output=tmp_path, inputs=Unevaluated())
        assert (run.result["split"], run.result["metric"], run.result["value"]) == (None, "accuracy", None)
        assert (run.result["majority"], run.result["best"], run.result["last"]["metrics"]) == (None, None, {})
        assert run.result["examples"] == {"train": 72}
        assert run.result == json.loads((run.folder / "result.json").read_text())
        assert {path.name for path in run.folder.iterdir()} >= {"model", "metrics.jsonl", "result.json"}
        assert not (run.folder / "predictions").exists()
        assert "It was not evaluated" in (run.folder / "model" / "README.md").read_text()
        print_result(run.folder, run.result)
        assert "nothing was evaluated" in capsys.readouterr().err
        page = write_run_page(run.folder, Unevaluated().task(recipe().recipe)).with_suffix(".md").read_text()
        assert "Nothing was evaluated" in page
        assert "## Metrics" not in page
        assert engine.train(recipe("training.steps=4"), output=tmp_path, inputs=Unevaluated()).trained is False

    def test_its_weights_are_those_of_a_run_that_is_evaluated(self, recipe, tmp_path):
        alone = engine.train(recipe("training.steps=4"), output=tmp_path / "alone", inputs=Unevaluated())
        assert weights(alone) == weights(engine.train(recipe("training.steps=4"), output=tmp_path / "whole"))

    @pytest.mark.parametrize("asked", ["keep=best", "patience=2", "eval_every=2"])
    def test_what_asks_for_evaluations_is_refused(self, recipe, tmp_path, asked):
        key = asked.replace("keep=", "keep: ").partition("=")[0]
        with pytest.raises(RequestError, match=f"training.{key}: nothing of tiny is evaluated; give .* data.held_out"):
            engine.train(recipe(f"training.{asked}"), output=tmp_path, inputs=Unevaluated())
        assert not list(tmp_path.glob("*/*/*/recipe.yaml"))

    def test_a_test_split_chooses_nothing(self, recipe, tmp_path):
        class TestAlone(Inputs):
            def task(self, recipe):
                task = super().task(recipe)
                return replace(task, splits={"train": task.splits["train"], "test": task.splits["validation"]})

        run = engine.train(recipe("training.steps=2"), output=tmp_path, inputs=TestAlone())
        assert run.result["split"] == "test"
        with pytest.raises(RequestError, match="keep: best: of tiny the test split alone is evaluated"):
            engine.train(recipe("training.keep=best"), output=tmp_path, inputs=TestAlone())

    def test_a_study_of_its_folder_leaves_it_out(self, recipe, best, tmp_path):
        engine.train(recipe("training.steps=4"), output=tmp_path, inputs=Unevaluated())
        shutil.copytree(best.folder, tmp_path / "tiny" / "dps-mix" / best.folder.name)
        records, notes = every_run(tmp_path)
        assert [record.value for record in records] == [best.result["value"]]
        assert "nothing was evaluated, so that there is nothing to compare by" in notes[0]

    def test_a_sweep_is_refused_before_its_first_run(self, tiny_task, tmp_path):
        sweep = Sweep(SweepRequest(str(tiny_task), ("vanilla",), 2, tmp_path))
        sweep.inputs = Unevaluated()
        with pytest.raises(RequestError, match="nothing of tiny is evaluated, so that there is nothing to compare by"):
            run_sweep(sweep, 1)
        assert not list(tmp_path.rglob("*"))
