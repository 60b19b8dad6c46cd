"""One dropout for all methods that are compared, or each method's own: how it is settled, told and reported."""

import json
from pathlib import Path

import pytest
import yaml

import dpstune
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.studies.dropout import as_flag, found_dropout, planned_dropout, settle_dropout
from dpstune.studies.points import read_runs
from dpstune.studies.records import RunRecord
from dpstune.studies.sweep.storage import sqlite_url
from dpstune.studies.sweep.sweep import Sweep, SweepRequest

TWO = ("dps-dense:p=0.3,update_ratio=0.2", "mixout:p=0.3")
SHORT = ["training.steps=2", "training.warmup_steps=0"]


@pytest.fixture
def ask(tiny_task, tmp_path):
    """Return a function that makes a request of the tiny task, whose recipe may say a dropout."""

    def ask(*methods, dropout=None, **more):
        recipe = tiny_task
        if dropout is not None:
            recipe = tiny_task.parent / f"with-dropout-{dropout}.yaml"
            values = yaml.safe_load(tiny_task.read_text())
            recipe.write_text(yaml.safe_dump({**values, "model": {**values["model"], "dropout": dropout}}))
        return SweepRequest(str(recipe), methods, 2, tmp_path / "runs", **more)

    return ask


@pytest.mark.parametrize(
    ("methods", "own", "asked", "settled"),
    [
        (TWO, None, None, 0.0),
        (TWO, None, "match", 0.0),
        (TWO, None, "0.25", 0.25),
        (TWO, None, "own", None),
        (TWO[:1], None, None, None),
        ((TWO[0], "dps-dense:p=0.1"), None, None, None),
        (TWO[:1], None, "match", 0.0),
        (("vanilla",), None, "0", 0.0),
        (TWO, 0.2, None, None),
        (TWO, 0.2, "match", 0.2),
        (TWO, 0.2, "0.1", 0.1),
    ],
)
def test_the_dropout_is_settled_by_the_flag_then_the_recipe_then_how_many_methods_there_are(
    ask, methods, own, asked, settled
):
    request = settle_dropout(ask(*methods, dropout=own), asked)
    assert request.dropout == settled
    named = [*methods] if settled is None or "vanilla" in methods else [*methods, "vanilla"]
    assert list(request.methods) == named
    for job in Sweep(request).jobs:
        said = load_recipe(request.recipe, method=job.method, overrides=job.overrides).recipe.model.dropout
        assert said == (own if settled is None else settled)


def test_what_says_a_dropout_already_is_left_as_it_is(ask):
    for more in ({"overrides": ("model.dropout=0.1",)}, {"grid": ("model.dropout=0.0,0.1",)}):
        assert settle_dropout(ask(*TWO, **more), None) == ask(*TWO, **more)


def test_a_study_that_was_begun_by_each_methods_rule_is_gone_on_with(ask, tmp_path):
    request = ask(*TWO)
    Sweep(request).open_queue()
    assert settle_dropout(request, None) == request
    assert settle_dropout(request, "match").dropout == 0.0
    more = ask(*TWO, "reinit:layers=1")
    assert settle_dropout(more, None).dropout == 0.0, "another study"

    shared = ask(*TWO, "sam:rho=0.1", storage=sqlite_url(tmp_path / "shared.db"))
    assert settle_dropout(shared, None).dropout == 0.0
    Sweep(settle_dropout(shared, "match")).open_queue()
    assert settle_dropout(shared, None).dropout == 0.0, "that study is another"
    Sweep(shared).open_queue()
    assert settle_dropout(shared, None).dropout == 0.0, "both were begun, and the default is one dropout for all"

    elsewhere = ask(*TWO, storage=sqlite_url(tmp_path / "elsewhere.db"))
    Sweep(elsewhere).open_queue()
    assert settle_dropout(elsewhere, None) == elsewhere


def test_own_is_refused_where_the_recipe_says_a_dropout(ask):
    with pytest.raises(RequestError, match=r"--dropout own: recipe .* sets model.dropout 0.2 for every method"):
        settle_dropout(ask(*TWO, dropout=0.2), "own")
    assert as_flag(ask(*TWO, dropout=0.2)) is None


@pytest.mark.parametrize("section", ["{name: X, dropout: 0.1}", '{"dropout": 0.1}'])
def test_a_whole_section_can_say_the_dropout_too(ask, section):
    with pytest.raises(RequestError, match=r"--dropout 0.3: --set model=.* sets the dropout, too"):
        settle_dropout(ask(*TWO, overrides=(f"model={section}",)), "0.3")
    with pytest.raises(RequestError, match=r"--dropout 0.3: --grid model=.* sets the dropout, too"):
        settle_dropout(ask(*TWO, grid=(f"model={{name: X}},{section}",)), "0.3")


def test_what_wraps_different_methods_is_several_methods(ask):
    wrapped = [f"ema:decay=0.9,of.name={name}" for name in ("mixout", "vanilla")]
    assert settle_dropout(ask(*wrapped), None).dropout == 0.0
    assert settle_dropout(ask(wrapped[0], "ema:decay=0.8,of.name=mixout"), None).dropout is None


def test_a_matched_study_has_a_name_of_its_own_and_the_same_for_the_same_dropout(ask):
    folders = {asked: Sweep(settle_dropout(ask(*TWO), asked)).folder for asked in ("own", "match", "0", "0.0", "0.1")}
    assert folders["match"] == folders["0"] == folders["0.0"]
    assert len(set(folders.values())) == 3
    assert folders["own"] == Sweep(ask(*TWO)).folder


@pytest.mark.parametrize(
    "wrapped",
    [(), ("ema:decay=0.9,of.name=r-drop",), ("ema:decay=0.9,of.name=mixout",)],
    ids=["", "of r-drop", "of mixout"],
)
@pytest.mark.parametrize("own", [None, 0.2])
def test_a_loss_that_needs_dropout_keeps_its_own(ask, own, wrapped):
    sweep = Sweep(settle_dropout(ask("r-drop:alpha=1", *wrapped, dropout=own), "0.3"))
    keeping = ["r-drop", "ema"] if wrapped and "r-drop" in wrapped[0] else ["r-drop"]
    for job in sweep.jobs:
        recipe = sweep.request.load(job).recipe
        assert recipe.model.dropout == (None if job.method in keeping else 0.3)
    told = planned_dropout(sweep)
    names = " and ".join(keeping).replace("ema", "ema of r-drop")
    assert told == f"dropout 0.3 for every method, but for {names}: the loss needs dropout, which method.dropout sets"


@pytest.mark.parametrize("flag", ["--set", "--grid"])
@pytest.mark.parametrize("asked", ["match", "own", "0.1"])
def test_two_flags_that_say_a_dropout_are_refused_in_one_line(run, tiny_task, tmp_path, asked, flag):
    given = ["--recipe", tiny_task, "--output", tmp_path, "--method", "vanilla", flag, "model.dropout=0.2"]
    code, out, err = run("sweep", *given, "--dropout", asked)
    told = f"error: --dropout {asked}: {flag} model.dropout=0.2 sets the dropout, too; leave out one of the two\n"
    assert (code, out, err) == (2, "", told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked", ["1", "-0.1", "nan", "half", "", "inf"])
@pytest.mark.parametrize("command", ["sweep", "transfer", "casestudy"])
def test_what_is_no_dropout_is_refused_in_one_line(run, tiny_task, tmp_path, command, asked):
    given = ["--recipe", tiny_task, "--output", tmp_path, "--method", "vanilla", f"--dropout={asked}"]
    targets = ["--targets", tiny_task] if command == "transfer" else []
    code, _, err = run(command, *given, *targets)
    assert code == 2
    assert err.endswith(f"error: --dropout {asked}: should be match, own, or a number from 0 to below 1\n")


def test_without_training_there_is_no_dropout_to_set(run, tmp_path):
    told = "error: --dropout: nothing is trained with --from; leave it out\n"
    assert run("casestudy", "--from", tmp_path, "--dropout", "match") == (2, "", told)


@pytest.mark.parametrize(
    ("asked", "settled", "flag"),
    [
        ({"methods": TWO}, None, "0.0"),
        ({"methods": TWO}, "own", "own"),
        ({"methods": TWO[:1]}, None, None),
        ({"methods": TWO, "overrides": ("model.dropout=0.1",)}, None, None),
    ],
)
def test_the_flag_that_gives_the_same_study(ask, asked, settled, flag):
    request = settle_dropout(ask(*asked["methods"], overrides=asked.get("overrides", ())), settled)
    assert as_flag(request) == flag
    given = ask(*request.methods, overrides=asked.get("overrides", ()))
    assert settle_dropout(given, flag) == request


@pytest.mark.slow
def test_methods_are_matched_told_of_and_reported(zygote, tiny_task, tmp_path):
    given = ["--recipe", tiny_task, "--output", tmp_path, "--seeds", "1", "--json"]
    given += [word for each in SHORT for word in ("--set", each)]
    given += ["--method", TWO[0], "--method", "r-drop:alpha=1"]
    done = zygote.run("sweep", *given)
    assert done.code == 0, done.stderr
    told = "ropout 0 for every method, but for r-drop: the loss needs dropout, which method.dropout sets"
    assert f"d{told}\n" in done.stderr
    report = json.loads(done.stdout)["report"].replace(".html", ".md")
    with open(report) as file:
        assert f"D{told}." in file.read()
    records, _ = read_runs(tmp_path)
    assert {record.method: record.recipe.model.dropout for record in records} == {
        "vanilla": 0.0,
        "dps-dense": 0.0,
        "r-drop": None,
    }

    done = zygote.run("sweep", *given, "--method", "vanilla", "--dropout", "own")
    assert done.code == 0, done.stderr
    assert (
        "dropout: each method's own rule, which the report names; --dropout match gives every method the same\n"
        in done.stderr
    )
    with open(json.loads(done.stdout)["report"].replace(".html", ".md")) as file:
        text = file.read()
    each = "vanilla the model's own; dps-dense 0; r-drop 0.1"
    assert f"Dropout is not the same for every method: {each}." in text.replace("\\", "")


def test_the_rule_of_a_run_that_ended_early_is_that_of_its_planned_steps(tiny_task, tmp_path):
    change = {"training.epochs": 400, "training.eval_every": 1, "training.patience": 1, "training.learning_rate": 1e-9}
    run = dpstune.train(tiny_task, method="dps-dense", **change, output=tmp_path, quiet=True)
    result = run.result
    assert result["stopped_early_at"] < 10
    records, _ = read_runs(tmp_path)
    dpstune.train(
        tiny_task, method="mixout", **{"training.steps": 2, "training.warmup_steps": 0}, output=tmp_path, quiet=True
    )
    records, _ = read_runs(tmp_path)
    assert "dps-dense the model's own; mixout 0." in found_dropout(records)


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ([("r-drop", []), ("ema", ["method.of.name=r-drop"])], "Dropout 0.1 for every method."),
        (
            [(name, [f"model.dropout={value}"]) for name in ("vanilla", "dps-dense") for value in (0.0, 0.1)],
            "Dropout 0 or 0.1 for every method.",
        ),
        (
            [("vanilla", ["model.dropout=0.1"]), ("r-drop", ["model.dropout=0.2"])],
            "Dropout is not the same for every method: vanilla 0.1; r-drop 0.2. So the table compares dropouts, too.",
        ),
        (
            [("ema", ["method.of.name=mixout"]), ("ema", ["method.of.name=r-drop"])],
            "Dropout 0 for every method, but for ema of r-drop: the loss needs dropout, which method.dropout sets.",
        ),
        ([("vanilla", []), ("vanilla", ["model.dropout=0.1"])], None),
    ],
)
def test_the_report_says_which_dropout_the_runs_had(tiny_task, runs, told):
    recipes = [
        load_recipe(str(tiny_task), method=method, overrides=["training.steps=4", *own]).recipe for method, own in runs
    ]
    assert found_dropout([RunRecord(Path(), recipe, {}) for recipe in recipes]) == told


def test_the_functions_take_it_too(tiny_task, tmp_path, capsys):
    few = {"training": {"steps": 2, "warmup_steps": 0}, "data": {"max_length": 16, "train_size": 12}}
    study = dpstune.sweep(tiny_task, methods=["mixout:p=0.3"], seeds=1, dropout=0.1, output=tmp_path, **few)
    assert sorted(study.table["method"]) == ["mixout", "vanilla"]
    assert "dropout 0.1 for every method\n" in capsys.readouterr().err
    records, _ = read_runs(tmp_path)
    assert {record.recipe.model.dropout for record in records} == {0.1}
    with pytest.raises(RequestError, match="dropout True: should be match, own, or a number"):
        dpstune.sweep(tiny_task, methods=["mixout"], dropout=True, output=tmp_path)
    found = dpstune.casestudy(
        tiny_task, methods=["vanilla", "mixout:p=0.3"], restarts=1, dropout="match", output=tmp_path, quiet=True, **few
    )
    assert "Dropout 0 for every method." in found.report.with_suffix(".md").read_text()
