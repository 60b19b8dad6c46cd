"""What stands behind docs/results.md: how numbers are merged, chosen and tested, and what counts as finished."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from dpstune.recipe.recipe import dump_recipe, load_recipe
from dpstune.studies.records import read_run
from tests.studies.test_records import RESULT

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """The two scripts, with folders of their own for runs and numbers."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("common", "tables", "questions", "answers")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    questions, answers = importlib.import_module("questions"), importlib.import_module("answers")
    monkeypatch.setattr(questions, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(questions, "NUMBERS", tmp_path / "numbers")
    yield questions, answers
    for name in names:
        sys.modules.pop(name, None)


def row(questions, task="sick", method="vanilla", settings="", seed=42, split="validation", value=0.5, **more):
    given = {"task": task, "method": method, "settings": settings, "rate": "0.0001", "epochs": "3", "seed": str(seed)}
    outcome = {"split": split, "metric": "accuracy", "value": str(value), "majority": "0.4", "train_loss": "0.5"}
    outcome["precision"] = "bf16"
    return {column: {**given, **outcome, **more}[column] for column in questions.COLUMNS}


def held_out(questions, task="sick"):
    """All points of a task; the last of each method is the best."""
    return [
        row(questions, task, method, settings, split="held_out", value=number / 10)
        for method, points in questions.points_of(task).items()
        for number, settings in enumerate(points)
    ]


def reported(questions, task="sick", seeds=range(42, 47)):
    best = {method: points[-1] for method, points in questions.points_of(task).items()}
    return [
        row(questions, task, method, best.get(method, ""), seed, value=seed / 100)
        for method in questions.COMPARED
        for seed in seeds
    ]


def make_run(folder, method, seed, value, *overrides, losses=(1.0, 0.5)):
    few = ("data.train_size=500", "training.batching=bucketed", "training.learning_rate=1e-4")
    recipe = load_recipe("minilm-sick", method=method, overrides=(*few, *overrides), seed=seed).recipe
    run = folder / f"seed-{seed}-{abs(hash((method, overrides)))}"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    (run / "result.json").write_text(json.dumps({**RESULT, "seed": seed, "value": value}))
    (run / "environment.json").write_text('{"precision": "fp32"}')
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    return run


def test_stored_rows_stay_beside_those_of_runs(scripts):
    questions, _ = scripts
    old = [row(questions, seed=42, value=0.1), row(questions, seed=43, value=0.2), row(questions, "rte", value=0.3)]
    questions.write_numbers("runs.csv", old)
    make_run(questions.RUNS / "minilm-sick" / "vanilla", "vanilla", 42, 0.75)
    make_run(questions.RUNS / "minilm-sick" / "vanilla", "vanilla", 44, 0.5, "model.dropout=0.0")
    make_run(questions.RUNS / "minilm-sick" / "vanilla", "vanilla", 45, 0.5, "training.batch_size=8")  # none of these
    questions.collect()
    found = [(each["task"], each["method"], each["seed"], each["value"]) for each in questions.read("runs.csv")]
    assert found == [
        ("rte", "vanilla", "42", "0.3"),
        ("sick", "vanilla", "42", "0.75"),
        ("sick", "vanilla", "43", "0.2"),
        ("sick", "vanilla, dropout 0", "44", "0.5"),
    ]
    assert questions.read("runs.csv")[1]["train_loss"] == "0.75"
    assert [each["precision"] for each in questions.read("runs.csv")] == ["bf16", "fp32", "bf16", "fp32"]


def test_settings_are_chosen_once_all_points_are_there(scripts):
    questions, _ = scripts
    rows = held_out(questions)
    stray = row(questions, method="mixout", settings="p=0.3", split="held_out", value=9)
    assert questions.chosen_points([*rows[:-1], stray]) == {}
    best = questions.chosen_points([*rows, stray])
    assert best["sick", "mixout"] == "p=0.8"
    assert {task for task, _ in best} == {"sick"}


def test_the_points_are_written_as_runs_write_theirs(scripts):
    questions, _ = scripts
    for method, points in questions.POINTS.items():
        for settings in points:
            overrides = [f"method.{each}" for each in settings.split(",") if each]
            run = make_run(questions.RUNS / settings, method, 42, 0.5, *overrides)
            assert questions.numbers_of("sick", read_run(run))["settings"] == settings


def test_a_task_is_reported_once_every_method_has_all_its_seeds(scripts):
    questions, answers = scripts
    rows = [*held_out(questions), *reported(questions)]
    other = row(questions, method="vanilla, dropout 0.1")
    assert len(answers.fully_compared([*rows, other])) == len(questions.COMPARED) * questions.SEEDS
    assert answers.fully_compared(rows[:-1]) == []
    assert len(answers.fully_compared([*rows, *reported(questions, seeds=[50])])) == len(reported(questions))


def test_the_tables_of_made_up_numbers_say_what_they_are(scripts):
    questions, answers = scripts
    rows = [*held_out(questions), *reported(questions), *held_out(questions, "rte"), *reported(questions, "rte")]
    for each in rows:
        if each["method"] == "dps-mix" and each["split"] == "validation":
            each["value"] = str(float(each["value"]) + 0.1)
    compared = answers.fully_compared(rows)
    assert "| dps-mix | 0.5400 ± 0.0158 | 0.5400 ± 0.0158 | 0.5400 |" in answers.compare_table(compared)
    line = next(each for each in answers.against_table(compared).splitlines() if each.startswith("| dps-mix"))
    assert line.split(" | ")[1:3] == ["+0.1000 (+0.1000 to +0.1000)", "2 of 2"]
    assert float(line.split(" | ")[3]) == pytest.approx(2 / 2**10, abs=5e-4)
    steady = next(each for each in answers.steady_table(compared).splitlines() if each.startswith("| dps-mix"))
    assert steady == "| dps-mix | 0 of 10 | 1.00 | 1.000 | 1.00 | 1.000 |"


def test_what_carries_is_the_mean_over_the_other_targets_seed_by_seed(scripts):
    questions, answers = scripts
    gains = {42: 0.3, 43: -0.06, 44: 0.06}
    rows = [
        {"method": method, "seed": str(seed), "target": target, "metric": "accuracy", "majority": "0.4", "value": value}
        for method in questions.COMPARED
        for target in questions.TARGETS
        for seed in gains
        for value in [0.5 + gains[seed] * (method == "mixout" and target == "rte")]
    ]
    lines = answers.carry_table(rows).splitlines()
    mixout = next(line for line in lines if line.startswith("| mixout"))
    assert mixout.split(" | ")[1:3] == ["0.5000 ± 0.0000", "0.5000 ± 0.0000"]
    assert mixout.split(" | ")[5:] == ["0.5333", "+0.0333", "+0.100, -0.020, +0.020 |"]


def test_ten_seeds_are_compared_with_both_vanillas_in_value_and_spread(scripts):
    questions, answers = scripts
    rows = [*held_out(questions), *reported(questions, seeds=range(42, 52))]
    for each in rows:
        if each["split"] == "validation" and each["method"] == "dps-mix":
            each["value"] = str(0.6 + (int(each["seed"]) - 46.5) / 200)  # half of what the others scatter
        if each["split"] == "validation" and each["method"] == questions.CONTROL:
            each["value"] = str(float(each["value"]) + 0.05)
    studied = answers.fully_compared(rows, (*questions.STUDIED, questions.CONTROL), questions.RESTARTS)
    lines = answers.ten_table(studied).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["vanilla", questions.CONTROL, "mixout", "dps-dense", "dps-mix"]
    assert lines[0].split(" | ")[3:] == [""] * 7 + [" |"]
    assert lines[-1].split(" | ")[2:] == [
        "0.6000 ± 0.0151",
        "+0.1350",
        "0.002",
        "0.50",
        "0.002",
        "+0.0850",
        "0.002",
        "0.50",
        "0.002 |",
    ]


def test_dropout_and_length_are_told_apart(scripts):
    questions, answers = scripts
    points = {("vanilla", "0.1"): 0.1, ("vanilla", "0"): 0.4, ("dps-dense", "0.1"): 0.1, ("dps-dense", "0"): 0.3}
    found = {
        (*place, epochs): [row(questions, seed=seed, value=value + seed / 100) for seed in range(42, 47)]
        for place, value in points.items()
        for epochs in (questions.EPOCHS, questions.LONGER)
    }
    lines = [line.split(" | ")[1:3] for line in answers.apart_table(found).splitlines()[2:]]
    assert lines == [["+0.0000", "1.000"], ["-0.1000", "0.062"], ["+0.3000", "0.062"], ["+0.2000", "0.062"]]


def test_changes_are_tested_by_their_signs(scripts):
    _, answers = scripts
    assert answers.sign_test(0, 0) == 1.0
    assert answers.sign_test(5, 0) == pytest.approx(2 / 2**5)
    assert answers.sign_test(21, 15) == pytest.approx(0.405, abs=1e-3)


def test_a_transfer_counts_once_it_is_whole(scripts, tmp_path):
    questions, _ = scripts
    folder = questions.RUNS / "transfer-mnli" / "transfer-1"
    folder.mkdir(parents=True)
    recipe = load_recipe("transfer-mnli", method="vanilla", overrides=questions.CARRIED, seed=42).recipe
    run = folder / "seed-42-1"
    run.mkdir()
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    (run / "result.json").write_text(json.dumps(RESULT | {"seed": 42, "value": 0.5}))
    header = "method,settings,seed,target,split,metric,value,majority,examples,labels,folder"
    (folder / "transfer.csv").write_text(f"{header}\nvanilla,,42,mnli,validation,accuracy,0.5,0.3,9,same,{run}\n")
    assert questions.carried() == []
    questions.TARGETS, questions.CARRIED_SEEDS, questions.COMPARED = ("mnli",), 1, ("vanilla",)
    (found,) = questions.carried()
    assert list(found) == header.split(",")[:-1]
