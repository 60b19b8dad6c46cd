"""From a table to a model: what fit leaves, that it goes on, that its score is of rows that did not choose."""

import csv
import json
import random
import shlex
from pathlib import Path

import numpy as np
import pytest

from dpstune.errors import BusyError, DivergedError, RequestError, RunError
from dpstune.studies.choice import judge_by_bootstrap
from dpstune.studies.fit.candidates import Candidate
from dpstune.studies.fit.fit import Fit
from dpstune.studies.fit.outcome import run_fit as run_fit_here
from dpstune.studies.fit.request import fit_request
from dpstune.training import engine
from tests.conftest import write_table

FAST = ["--set", "training.batch_size=6", "--set", "data.max_length=16", "--set", "training.precision=fp32"]
FEW_STEPS = ["--set", "training.steps=6", "--set", "training.learning_rate=0.003"]
COLUMNS = ["--text", "first", "--text2", "second", "--label", "label"]


def run_fit(zygote, rows, model, output, *more, columns=COLUMNS):
    return zygote.run("fit", rows, *columns, "--model", model, "--output", output, *FAST, *more, "--json")


@pytest.fixture(scope="module")
def fitted(zygote, rows, tiny_model, tmp_path_factory):
    """What a small fit printed, and where."""
    output = tmp_path_factory.mktemp("my runs")
    run = run_fit(zygote, rows, tiny_model, output, *FEW_STEPS, "--folds", 3, "--runs", 9, "--method", "mixout")
    assert run.code == 0, run.stderr
    return output, json.loads(run.stdout), run.stderr


def test_it_leaves_a_model_a_recipe_and_a_report(fitted, zygote):
    output, told, stderr = fitted
    from transformers import pipeline

    answer = pipeline("text-classification", model=told["model"])({"text": "the cat", "text_pair": "a man"})
    assert answer["label"] in ("yes", "no")
    folder = output / "rows"
    (place,) = folder.glob("fit-*")
    assert {each.name for each in place.iterdir()} >= {
        *("model", "recipe.yaml", "report.html", "report.md", "fit.json", "candidates.csv", "candidates.png"),
        *("wrong_labels.csv", "study.db", "confusion.png"),
    }
    assert "Chosen: " in stderr
    command = shlex.split(Path(told["recipe"]).read_text().splitlines()[1].removeprefix("#"))
    assert command == ["dpstune", "train", "--recipe", told["recipe"]]
    repeated = zygote.run(*command[1:], "--output", output, "--json")
    assert repeated.code == 0, repeated.stderr
    weights = (place / "model" / "model.safetensors").read_bytes()
    trained = Path(json.loads(repeated.stdout)["run"]) / "model" / "model.safetensors"
    assert trained.read_bytes() == weights


def test_texts_that_are_cut_are_told_once_and_in_the_report(zygote, rows, tiny_model, tmp_path):
    few = ["--set", "data.max_length=9", "--set", "training.steps=1", "--set", "training.warmup_steps=0"]
    run = run_fit(zygote, rows, tiny_model, tmp_path, *few, "--method", "vanilla", "--folds", 2, "--runs", 2)
    assert run.code == 0, run.stderr
    (note,) = [note for note in json.loads(run.stdout)["notes"] if note.endswith("tokens")]
    assert note.startswith("60 of 60 training rows are longer than data.max_length 9 and are cut; the longest has ")
    assert run.stderr.count(note) == 1
    (report,) = tmp_path.glob("rows/fit-*/report.md")
    assert note in report.read_text()


def test_plain_fine_tuning_is_tried_with_and_without_dropout_on_every_fold(fitted):
    _, told, _ = fitted
    first, second = told["tried"][:2]
    assert [each["settings"]["model.dropout"] for each in (first, second)] == [0.0, 0.1]
    for each in (first, second):
        assert (each["method"], each["state"], sorted(each["parts"])) == ("vanilla", "complete", ["1", "2", "3"])
    assert sum(len(each["parts"]) for each in told["tried"]) == 9


def test_every_row_is_answered_by_a_run_that_did_not_see_it(fitted, rows):
    from dpstune.runs.folder import read_predictions

    _, told, _ = fitted
    folds = [read_predictions(f"{run}/predictions/validation.parquet")["id"] for run in told["tried"][0]["runs"]]
    answered = [name for fold in folds for name in fold]
    with rows.open() as file:
        count = sum(1 for _ in csv.reader(file)) - 1
    assert sorted(answered, key=int) == [str(number) for number in range(count)]
    assert told["rows"] == told["score"]["rows"] == count


def bootstrapped(told, unit_of):
    """Work the score of the choice out again, from the predictions alone."""
    from dpstune.runs.folder import read_predictions

    complete = [each for each in told["tried"] if each["state"] == "complete"]
    right, names = [], []
    for each in complete:
        folds = [read_predictions(f"{run}/predictions/validation.parquet") for run in each["runs"]]
        names = [name for fold in folds for name in fold["id"]]
        pairs = [pair for fold in folds for pair in zip(fold["prediction"], fold["label"], strict=True)]
        right.append(np.array([answer == gold for answer, gold in pairs]))
    return judge_by_bootstrap(
        lambda candidate, rows: float(right[candidate][rows].mean()),
        range(len(complete)),
        [],
        list(map(unit_of, names)),
    )


def test_the_score_is_that_of_the_choice_repeated_and_equal_texts_count_together(fitted, rows):
    _, told, _ = fitted
    with rows.open() as file:
        texts = [(row["first"], row["second"]) for row in csv.DictReader(file)]
    assert len(set(texts)) < len(texts)
    score = told["score"]
    found = bootstrapped(told, lambda name: texts[int(name)])
    assert (score["value"], score["low"], score["high"]) == pytest.approx((found.value, found.low, found.high))
    assert told["winner"]["score"] == max(each["score"] for each in told["tried"] if each["score"] is not None)


def test_the_same_command_trains_nothing_anew_and_a_larger_budget_goes_on(fitted, zygote, rows, tiny_model):
    output, told, _ = fitted
    before = {path: path.stat().st_mtime_ns for path in output.glob("rows/*/*/result.json")}
    again = run_fit(zygote, rows, tiny_model, output, *FEW_STEPS, "--folds", 3, "--runs", 9, "--method", "mixout")
    assert again.code == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in output.glob("rows/*/*/result.json")} == before
    assert json.loads(again.stdout)["score"] == told["score"]
    more = run_fit(zygote, rows, tiny_model, output, *FEW_STEPS, "--folds", 3, "--runs", 10, "--method", "mixout")
    assert more.code == 0, more.stderr
    assert sum(len(each["parts"]) for each in json.loads(more.stdout)["tried"]) == 10


@pytest.mark.slow
def test_a_test_share_is_scored_and_chooses_nothing(zygote, rows, tiny_model, tmp_path):
    run = run_fit(
        zygote, rows, tiny_model, tmp_path, *FEW_STEPS, "--folds", 2, "--runs", 4, "--method", "vanilla", "--test", 0.3
    )
    assert run.code == 0, run.stderr
    told = json.loads(run.stdout)
    assert 14 <= told["score"]["rows"] <= 22
    assert "test rows" in run.stderr


def test_a_linear_probe_is_a_candidate_of_one_step(zygote, rows, tiny_model, tmp_path):
    few = ["--folds", 2, "--runs", 6, "--method", "linear-probe", "--set", "training.epochs=3"]
    few += ["--set", "training.warmup_steps=4"]
    run = run_fit(zygote, rows, tiny_model, tmp_path, *few)
    assert run.code == 0, run.stderr
    probes = [each for each in json.loads(run.stdout)["tried"] if each["method"] == "linear-probe"]
    assert probes[0]["settings"] == {"method.l2": 1.0}
    results = [json.loads(Path(folder, "result.json").read_text()) for folder in probes[0]["runs"]]
    assert [result["steps"] for result in results] == [1] * len(results) != []


@pytest.mark.slow
def test_rows_of_a_group_stand_together(zygote, tiny_model, tmp_path):
    rng = random.Random(0)
    file = tmp_path / "grouped.csv"
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["first", "label", "author"])
        for number in range(60):
            good = rng.random() < 0.5
            writer.writerow(
                [f"{'the' if good else 'a'} cat {number}", "yes" if good else "no", f"author {number % 12}"]
            )
    columns = ["--text", "first", "--label", "label", "--group", "author"]
    few = ["--folds", 3, "--runs", 6, "--method", "vanilla"]
    run = run_fit(zygote, file, tiny_model, tmp_path / "runs", *FEW_STEPS, *few, columns=columns)
    assert run.code == 0, run.stderr
    from dpstune.runs.folder import read_predictions

    folds = [
        {int(name) % 12 for name in read_predictions(f"{place}/predictions/validation.parquet")["id"]}
        for place in json.loads(run.stdout)["tried"][0]["runs"]
    ]
    assert sum(map(len, folds)) == 12, "no author is in two folds"
    score = json.loads(run.stdout)["score"]
    assert score["value"] == pytest.approx(bootstrapped(json.loads(run.stdout), lambda name: int(name) % 12).value)


def request(rows, model, output, *overrides, **more):
    fast = ("training.batch_size=6", "data.max_length=16", "training.precision=fp32", "training.steps=2")
    names = {"text": "first", "text2": "second", "label": "label", "model": str(model)}
    return fit_request(str(rows), output=output, overrides=[*fast, *overrides], **{**names, "folds": 2, **more})


def test_what_changes_what_is_tried_or_how_has_a_folder_of_its_own(tiny_model, tmp_path):
    table = tmp_path / "rows.csv"
    write_table(table, 30, seed=3)
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},author", *(f"{line},{n % 7}" for n, line in enumerate(lines[1:]))]))
    test = tmp_path / "test.csv"
    write_table(test, 9, seed=5)

    def folder(*overrides, **more):
        return Fit(request(table, tiny_model, tmp_path, *overrides, **more)).folder

    plain = folder()
    assert folder(runs=7) == folder(minutes=3) == folder(test=0) == plain
    assert folder("training.trackers=[]") == folder("training.save_every=7") == plain
    others = [
        folder(group="author"),
        folder("task.split_seed=5"),
        folder("method.p=0.3"),
        folder("training.learning_rate=2e-05"),
        folder(methods=["mixout"]),
        folder(folds=3),
        folder(metric="macro_f1"),
        folder(test=str(test)),
    ]
    write_table(test, 9, seed=6)
    others.append(folder(test=str(test)))
    assert len({plain, *others}) == 10


def test_what_is_shown_of_a_row_is_of_the_file_it_lies_in(tiny_model, tmp_path):
    for name, seed in (("train", 3), ("validation", 4)):
        write_table(tmp_path / f"{name}.csv", 12, seed=seed)
    (tmp_path / "own.yaml").write_text(
        f"model: {{name: {tiny_model}}}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: [first, second], label: label}\n"
        "data: {max_length: 16}\n"
    )
    fit = Fit(fit_request(str(tmp_path / "own.yaml"), output=tmp_path, test=0))
    with (tmp_path / "validation.csv").open() as file:
        rows = [(row["first"], row["second"]) for row in csv.DictReader(file)]
    assert [fit.texts("validation")[str(number)] for number in range(12)] == rows
    assert fit.parts.test is None


@pytest.mark.parametrize("by_flag", [False, True])
def test_values_are_standardised_unless_it_is_said_otherwise(tiny_model, tmp_path, by_flag):
    rows = "".join(f"text {number},{number}\n" for number in range(20))
    (tmp_path / "grades.csv").write_text(f"text,grade\n{rows}")
    asked = {"kind": "regression"} if not by_flag else {}
    settings = ["data.max_length=16", *(["task.kind=regression"] if by_flag else [])]

    def standardises(*more):
        columns = {"text": "text", "label": "grade", "model": str(tiny_model)}
        overrides = [*settings, *more]
        fit = Fit(fit_request(str(tmp_path / "grades.csv"), output=tmp_path, **columns, **asked, overrides=overrides))
        return fit.final_recipe(Candidate("vanilla")).recipe.training.standardise

    assert standardises()
    assert not standardises("training.standardise=false")


@pytest.mark.parametrize(("test", "known"), [("test.csv", 5), (0.3, 9)])
def test_test_rows_that_chose_or_trained_are_found(tiny_model, tmp_path, test, known):
    """A test file shares two rows with the training file and three with the validation file; or it is cut."""

    def write(name, numbers):
        lines = "".join(f"text {number},{'yn'[number % 2]}\n" for number in numbers)
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{lines}")

    write("train", range(40))
    write("validation", range(31, 60))
    write("test", [1, 2, 50, 51, 52, 70, 71])
    (tmp_path / "own.yaml").write_text(
        f"model: {{name: {tiny_model}}}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label}\n"
        "data: {max_length: 16}\n"
    )
    test = str(tmp_path / test) if isinstance(test, str) else test
    fit = Fit(fit_request(str(tmp_path / "own.yaml"), output=tmp_path, test=test))
    assert len(fit.seen_elsewhere("test")) == known  # of the training file, nine rows choose
    assert len(fit.seen_elsewhere("validation")) == 9


def test_groups_in_common_count_also_where_the_validation_file_has_none(tiny_model, tmp_path):
    for name, first, group in (("train", 0, "a{}"), ("validation", 100, None), ("test", 200, "a{}")):
        lines = [
            ",".join([f"text {number}", "yn"[number % 2], *([group.format(number % 100)] if group else [])])
            for number in range(first, first + (20 if name == "train" else 4))
        ]
        header = "text,label,who" if group else "text,label"
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]))
    (tmp_path / "own.yaml").write_text(
        f"model: {{name: {tiny_model}}}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label, group: who}\n"
        "data: {max_length: 16}\n"
    )
    fit = Fit(fit_request(str(tmp_path / "own.yaml"), output=tmp_path, test=str(tmp_path / "test.csv")))
    assert len(fit.seen_elsewhere("test")) == 4
    assert fit.seen_elsewhere("test", grouped=False) == set()


@pytest.mark.slow
def test_test_rows_that_training_has_are_not_scored(zygote, rows, tiny_model, tmp_path):
    lines = rows.read_text().splitlines()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([*lines[:11], "a dog,the house,yes", "the dog,a house,no"]))
    few = ["--folds", 2, "--runs", 2, "--method", "vanilla", "--test", test]
    run = run_fit(zygote, rows, tiny_model, tmp_path / "runs", *FEW_STEPS, *few)
    assert run.code == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["score"]["rows"] == 2
    assert "10 test rows with the texts or the group of a row that trains or chooses: not scored" in told["notes"]
    test.write_text("\n".join(lines[:11]))
    run = run_fit(zygote, rows, tiny_model, tmp_path / "runs", *FEW_STEPS, *few)
    assert run.code == 2
    assert "nothing is left to score by" in run.stderr


class TestFailures:
    @pytest.fixture
    def fit(self, rows, tiny_model, tmp_path):
        return Fit(request(rows, tiny_model, tmp_path, runs=12))

    def replaced(self, monkeypatch, fails):
        """Let a run fail where ``fails`` of its number returns an error; without training, so as not to take time."""
        train, count = engine.train, []

        def stand_in(*arguments, **options):
            count.append(1)
            if error := fails(len(count)):
                raise error
            return train(*arguments, **options)

        monkeypatch.setattr(engine, "train", stand_in)
        monkeypatch.setattr("dpstune.studies.fit.fit.WAIT_SECONDS", 0.0)
        return count

    def test_a_full_disk_is_no_candidates_fault_and_the_same_fit_goes_on(self, fit, monkeypatch):
        self.replaced(monkeypatch, lambda number: RunError("no space left") if number == 2 else None)
        with fit.lock(), pytest.raises(RunError, match="no space left"):
            fit.try_candidates(fit.search())
        assert [(trial.state, len(trial.values)) for trial in fit.search().trials()] == [("open", 1)]

    @pytest.mark.slow
    def test_candidates_that_cannot_be_trained_are_counted_and_after_some_no_more_are_tried(self, fit, monkeypatch):
        count = self.replaced(monkeypatch, lambda number: DivergedError("nan") if 2 < number < 8 else None)
        with fit.lock():
            outcome = run_fit_here(fit)
            assert len(count) == 8, "two parts, five failures, the last run"
            assert "the last 5 candidates could not be trained: no more were tried" in outcome.notes
            again = Fit(fit.request)
            assert run_fit_here(again).winner.trial == outcome.winner.trial
        assert len(count) == 8 + 3, "what was trained is found; what failed is not tried again"

    @pytest.mark.slow
    def test_where_none_is_trained_on_every_part_the_first_error_is_told(self, fit, monkeypatch):
        count = self.replaced(monkeypatch, lambda number: None if number % 2 else DivergedError(f"nan {number}"))
        with fit.lock(), pytest.raises(RunError, match=r"no candidate could be trained on every part.*nan 2"):
            run_fit_here(fit)
        assert len(count) == 10

    @pytest.mark.slow
    def test_a_wrong_request_is_a_candidates_fault_where_it_may_be(self, fit, monkeypatch):
        self.replaced(monkeypatch, lambda number: RequestError("too few layers") if number in (5, 7) else None)
        with fit.lock():
            search = fit.search()
            with pytest.raises(RequestError, match="too few layers"):
                fit.try_candidates(search)
        states = [(trial.state, trial.error) for trial in search.trials()]
        assert states[:3] == [("complete", None), ("complete", None), ("failed", "too few layers")]
        assert states[3][0] == "open", "it was trained on a part: the error is of something else"

    def test_a_plan_leaves_a_search_that_goes_on_as_it_is(self, fit, monkeypatch):
        with fit.lock():
            search = fit.search()
            trial = search.next()
            before = fit.folder.joinpath("study.db").read_bytes()
            Fit(fit.request).plan()
            assert fit.folder.joinpath("study.db").read_bytes() == before
            assert search.report(trial, 1, 0.5).state == "open"

    def test_a_run_that_another_process_trains_is_waited_for(self, fit, monkeypatch):
        self.replaced(monkeypatch, lambda number: BusyError("another process") if number in (1, 2) else None)
        told = []
        with fit.lock():
            fit.train(fit.search().next(), 1, tell=told.append)
        assert told == ["waiting: another process"]


def test_plan_trains_nothing(zygote, rows, tiny_model, tmp_path):
    run = zygote.run(
        "fit", rows, *COLUMNS, "--model", tiny_model, "--output", tmp_path, *FAST, "--minutes", 20, "--plan"
    )
    assert run.code == 0, run.stderr
    assert "60 rows, chosen by 5 folds" in run.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv", "--label", "label"], "--text COLUMN is missing"),
        (["rows.csv", "--text", "first"], "--label COLUMN is missing"),
        (["rows.csv", "--text", "first", "--label", "first"], "column 'first' is named twice"),
        (
            ["rows.csv", "--text", "first", "--label", "label", "--metric", "f1", "--set", "task.metric=accuracy"],
            "--metric f1 and --set task.metric=accuracy set the same key",
        ),
        (
            ["rows.csv", "--text", "first", "--label", "label", "--set", "model.name=other"],
            "model and --set model.name=other set the same key",
        ),
        (["rows.csv", "--text", "frist", "--label", "label"], "no column 'frist'"),
        (["nothing.csv", "--text", "a", "--label", "b"], "there is no file"),
        (["rows.csv", "--text", "first", "--label", "label", "--method", "mixuot"], "did you mean 'mixout'"),
        (["rows.csv", "--text", "first", "--label", "label", "--group", "autor"], "no column 'autor'"),
        (["rows.csv", "--text", "first", "--label", "label", "--test", "1.5"], "should be a share"),
        (["rows.csv", "--text", "first", "--label", "label", "--test", "no.csv"], "no file"),
        (["rows.csv", "--text", "first", "--label", "label", "--metric", "acuracy"], "did you mean 'accuracy'"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["rows.csv", "--text", "first", "--label", "label", "--folds", "70"], "cannot make 70 parts"),
        (["demo.yaml"], "no recipe and no file is called"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "training.keep=best"], "decides training.keep"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "data.held_out=9"], "decides data.held_out"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "method.nosuch=1"], "has a key 'nosuch'"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "method=mixout"], "name single keys of method"),
        (["rows.csv", "--text", "first", "--label", "label", "--set", "training={steps: 9}"], "name single keys"),
        (["rows.csv", "--text", "first", "--label", "label", "--minutes", "inf"], "give a number above 0"),
        (["rows.csv", "--text", "first", "--label", "label", "--minutes", "1e300"], "and at most 525,600"),
        (["rows.csv", "--text", "first", "--label", "label", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["task: {files: rows.csv, text: first, label: label}"], "should be a mapping"),
        (["task: {files: {}, text: first, label: label}"], "should be a mapping"),
        (["task: {dataset: a/b, text: first, label: label}"], "task.splits should be a mapping"),
        (["training: 5"], "training should be a mapping"),
        (["model: minilm"], "model should be a mapping"),
        (["model:"], "fit takes a table of your own"),
    ],
)
def test_a_wrong_request_is_one_line_and_nothing_is_written(zygote, rows, tiny_model, tmp_path, arguments, message):
    arguments = [str(rows) if word == "rows.csv" else word for word in arguments]
    if ":" in arguments[0]:
        (tmp_path / "own.yaml").write_text(arguments[0])
        arguments = [str(tmp_path / "own.yaml")]
    run = zygote.run("fit", *arguments, "--model", tiny_model, "--output", tmp_path / "runs", "--runs", 1, *FAST)
    assert run.code == 2, run.stderr
    (line,) = run.stderr.strip().splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()
