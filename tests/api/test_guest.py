"""What the functions leave behind in their caller's process, and what they say of their own parameters."""

import logging
import pickle
import re
import signal
import subprocess
import sys
import threading

import accelerate
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.utils import logging as of_transformers

import dpstune
from dpstune.api.guest import guest, with_parameters
from dpstune.api.results import FitResult, SweepResult, TrainResult
from dpstune.common.interruption import Interrupted
from dpstune.errors import RequestError, RunError


@pytest.fixture
def fresh_accelerate():
    """No accelerator is set up before or after the test."""
    AcceleratorState._reset_state(reset_partial_state=False)
    yield
    AcceleratorState._reset_state(reset_partial_state=False)


def test_training_leaves_random_numbers_kernels_and_libraries_as_they_were(
    tiny_task, tmp_path, fresh_accelerate, monkeypatch
):
    mine = accelerate.Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=4)
    monkeypatch.setattr(logging.getLogger("transformers"), "level", logging.INFO)
    of_transformers.enable_progress_bar()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dpstune.train(tiny_task, output=tmp_path, quiet=True, training={"steps": 2, "precision": "bf16"})
    assert torch.equal(torch.rand(3), expected)
    assert mine.mixed_precision == "no"
    assert mine.gradient_accumulation_steps == 4
    assert accelerate.Accelerator(cpu=True).mixed_precision == "no"
    assert not torch.are_deterministic_algorithms_enabled()
    assert logging.getLogger("transformers").level == logging.INFO
    assert of_transformers.is_progress_bar_enabled()


def test_a_process_that_has_imported_nothing_else_is_refused_and_served(tiny_run):
    program = """
import sys, dpstune
from dpstune.errors import RequestError
for refused in (
    lambda: dpstune.train("nosuch"), lambda: dpstune.predict("nosuch", ["a"]), lambda: dpstune.evaluate("nosuch"),
    lambda: dpstune.fit("nosuch.csv", text="a", label="b"), lambda: dpstune.sweep("demo", methods="nosuch"),
    lambda: dpstune.casestudy("nosuch"), lambda: dpstune.probe("nosuch"),
):
    try:
        refused()
    except RequestError as error:
        print(error)
print(dpstune.predict(sys.argv[1], [("a cat", "a dog")]).columns.tolist())
from transformers.utils import logging
print("datasets" in sys.modules, logging.get_verbosity() == logging.WARNING, logging.is_progress_bar_enabled())
"""
    done = subprocess.run([sys.executable, "-c", program, str(tiny_run)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *refused, columns, libraries = done.stdout.splitlines()
    assert len(refused) == 7
    assert columns == "['text1', 'text2', 'prediction', 'score_no', 'score_yes']"
    assert libraries == "False True True"


def test_calls_of_several_threads_put_libraries_back_when_the_last_has_ended(monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "level", logging.WARNING)
    first_is_in, second_is_in = threading.Event(), threading.Event()

    @guest
    def first():
        first_is_in.set()
        of_transformers.set_verbosity_error()
        assert second_is_in.wait(60)

    @guest
    def second():
        second_is_in.set()
        one.join(60)
        assert of_transformers.get_verbosity() == of_transformers.ERROR, "still at work"

    one = threading.Thread(target=first)
    one.start()
    assert first_is_in.wait(60)
    second()
    assert of_transformers.get_verbosity() == of_transformers.WARNING


@pytest.mark.parametrize(
    ("told", "parameters", "expected"),
    [
        ("--text COLUMN is missing", ["text"], "text COLUMN is missing"),
        ('--set method="vanilla": here --method names them', ["methods"], 'method="vanilla": here methods names them'),
        ("sweep --no-models keeps none", ["keep_models"], "sweep --no-models keeps none"),
        ("no file x--text, with --text2", ["text"], "no file x--text, with text"),
        ("give another with --output, or --plan", ["output"], "give another with output, or --plan"),
        ("a -- b, and the same command goes on", [], "a -- b, and the same call goes on"),
    ],
)
def test_errors_name_parameters(told, parameters, expected):
    assert with_parameters(told, parameters) == expected


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda task: dpstune.fit(task.parent / "train.csv"), "text COLUMN is missing"),
        (lambda task: dpstune.sweep(task, method="vanilla"), 'method="vanilla": here methods names the methods'),
        (lambda task: dpstune.sweep(task, dropout=[0.1]), "dropout [0.1]: should be match, own, or a number"),
        (lambda task: dpstune.train(task, training={"steps": 0}), "training.steps=0"),
    ],
)
def test_requests_from_python_are_refused_in_its_words(tiny_task, call, told):
    with pytest.raises(RequestError, match=re.escape(told)) as refused:
        call(tiny_task)
    assert "--" not in str(refused.value)


def test_a_data_frame_in_a_recipe_is_refused_in_one_line(tiny_task):
    frame = pd.DataFrame({"text": ["a"] * 9, "label": ["b"] * 9})
    recipe = {"model": {"name": "minilm"}, "task": {"files": {"train": frame}, "text": "text", "label": "label"}}
    with pytest.raises(RequestError) as refused:
        dpstune.train(recipe)
    assert "\n" not in str(refused.value)


def test_memory_that_does_not_suffice_is_work_that_failed():
    @guest
    def hungry():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has none")

    with pytest.raises(RunError, match=r"^not enough memory \(CUDA out of memory"):
        hungry()


@pytest.mark.parametrize(("number", "caught"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_ctrl_c_is_a_keyboard_interrupt_and_goes_from_process_to_process(number, caught):
    @guest
    def stopped():
        raise Interrupted(number, "interrupted; the same command goes on")

    with pytest.raises(Interrupted, match="the same call goes on") as ended:
        stopped()
    assert isinstance(ended.value, KeyboardInterrupt) == caught
    again = pickle.loads(pickle.dumps(ended.value))
    assert (type(again), str(again), again.exit_code) == (type(ended.value), str(ended.value), 128 + number)


def test_results_say_their_score_and_what_they_answered(tiny_task, tmp_path):
    run = dpstune.train(tiny_task, output=tmp_path, quiet=True, training={"steps": 2})
    assert re.fullmatch(rf"TrainResult\(tiny, .*: accuracy {run.value:.4f}, folder='.*'\)", repr(run))
    assert {run: 1}[run] == 1
    answered = run.predictions
    assert answered.columns.tolist() == ["split", "id", "label", "prediction", "score_no", "score_yes"]
    assert (answered["label"] == answered["prediction"]).mean() == pytest.approx(run.value)
    scores = answered[["score_no", "score_yes"]].to_numpy()
    assert [("no", "yes")[best] for best in scores.argmax(1)] == answered["prediction"].tolist()
    scored = dpstune.evaluate(run, quiet=True)
    assert scored.predictions.drop(columns=["score_no", "score_yes"]).equals(
        answered[["split", "id", "label", "prediction"]]
    )
    assert repr(scored).startswith(f"EvaluateResult(accuracy {run.value:.4f} (95% interval ")


def test_notes_are_told_kept_and_shown(tiny_task, tmp_path, capsys):
    run = dpstune.train(tiny_task, output=tmp_path, quiet=True, training={"steps": 2})
    rows = pd.read_csv(tiny_task.parent / "train.csv")
    capsys.readouterr()
    found = dpstune.evaluate(run, rows)
    assert "rows: the training rows have the same text" in capsys.readouterr().err
    assert found.notes[-1] in found._repr_html_()
    dpstune.evaluate(run, rows, quiet=True)
    assert capsys.readouterr().err == ""


def test_a_probe_of_a_sweep_is_of_all_its_runs(tiny_task, tmp_path):
    asked = {"methods": ["vanilla"], "seeds": 2, "output": tmp_path, "quiet": True, "training": {"steps": 1}}
    swept = dpstune.sweep(tiny_task, **asked)
    assert repr(swept).startswith("SweepResult(2 runs, folder=")
    found = dpstune.probe(swept, rows=10, output=tmp_path, quiet=True)
    assert found.table["restarts"].tolist() == [2]
    bare = SweepResult(tmp_path, [], runs=[tmp_path])
    with pytest.raises(RequestError, match=r"kept no model \(keep_models=False\)"):
        dpstune.probe(bare)


def test_a_run_that_fails_does_not_end_a_sweep(tiny_task, tmp_path, monkeypatch, capsys):
    from dpstune.training import engine

    train = engine.train

    def sometimes(loaded, **options):
        if loaded.recipe.seed == 43:
            raise ZeroDivisionError("of one run")
        return train(loaded, **options)

    monkeypatch.setattr(engine, "train", sometimes)
    asked = {"methods": ["vanilla"], "seeds": 3, "output": tmp_path, "training": {"steps": 1}}
    swept = dpstune.sweep(tiny_task, **asked)
    assert len(swept.runs) == 2
    assert list(swept.failed.values()) == ["unexpected ZeroDivisionError: of one run"]
    assert "2 runs, 1 could not be finished (see .failed)" in swept._repr_html_()
    assert "3 runs, one after the other" in capsys.readouterr().err


def test_a_run_that_diverged_is_not_trained_again(tiny_task, tmp_path, capsys):
    asked = {"methods": ["vanilla"], "seeds": 1, "output": tmp_path, "training": {"steps": 4, "warmup_steps": 0}}
    grid = {"training.learning_rate": [1e30, 1e-3]}
    told = []
    for _ in range(2):
        dpstune.sweep(tiny_task, grid=grid, **asked)
        told.append(capsys.readouterr().err)
    assert "not trained again" not in told[0]
    assert "diverged; not trained again" in told[1]


def test_a_fits_result_keeps_to_its_own_model(tmp_path):
    (tmp_path / "fit.json").write_text('{"final_run": "second"}')
    first, second = (FitResult(tmp_path, [], {"final_run": name}) for name in ("first", "second"))
    assert str(first.model) == "first/model"
    assert second.model == tmp_path / "model"


def test_a_result_without_a_title_says_its_folder(tmp_path):
    assert repr(SweepResult(tmp_path, [])) == f"SweepResult(0 runs, folder='{tmp_path}')"
    assert "undefined" in repr(
        TrainResult(tmp_path, [], {"recipe": "r", "method": {"name": "m"}, "seed": 1, "metric": "f1", "value": None})
    )
