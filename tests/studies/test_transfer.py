"""Transfer: every model on every target, labels read by name, in-domain beside out-of-domain."""

import csv
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from dpstune.data.reading import TaskData
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.report.transfer_report import one_answer
from dpstune.runs.folder import read_predictions
from dpstune.studies.transfer import TargetScore, choose_targets, refuse_what_does_not_match, tabulate
from tests.studies.test_records import record

NLI = ("entailment", "neutral", "contradiction")


def write_jsonl(path, labels, count, seed):
    """Pairs whose first word tells the label: the, a, or is."""
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    words = dict(zip(NLI, ("the", "a", "is"), strict=True))
    rows = []
    for number in range(count):
        meaning = NLI[rng.randrange(3)]
        label = meaning if meaning in labels else labels[1]
        premise = f"{words[meaning]} cat {' '.join(rng.choices(['dog', 'man', 'house'], k=3))}"
        rows.append({"id": str(number), "premise": premise, "hypothesis": "a man", "label": label})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model):
    """A folder of NLI corpora, one of GLUE's RTE, and a recipe that trains the tiny model on mnli."""
    folder = tmp_path_factory.mktemp("transfer")
    for task, count in (("mnli", 96), ("snli", 24), ("sick", 24)):
        for split in ("train", "validation"):
            write_jsonl(folder / "nli" / task / f"{split}.jsonl", NLI, count, seed=f"{task}{split}")
    write_jsonl(folder / "glue" / "rte" / "validation.jsonl", ("entailment", "not_entailment"), 20, seed="rte")
    (folder / "mine.yaml").write_text(
        f"model: {{name: {tiny_model}}}\n"
        "task: {files: {train: mine.csv, validation: mine.csv}, text: [one, two], label: gold}\n"
    )
    (folder / "mine.csv").write_text("one,two,gold\nthe cat,a man,entails\na cat,a man,neutral\nis cat,a man,neutral\n")
    (folder / "tiny-mnli.yaml").write_text(
        f"model: {{name: {tiny_model}}}\ntask: mnli\ndata: {{max_length: 24}}\nmethod: {{name: dps-mix, p: 0.2}}\n"
        "training: {batch_size: 8, learning_rate: 0.005, steps: 120, precision: fp32}\n"
    )
    return folder


@pytest.fixture(scope="module")
def transfer(zygote, place):
    """Run a transfer's command line on what lies in the place."""
    asked = ["--recipe", place / "tiny-mnli.yaml", "--data-dir", place / "nli", "--data-dir", place / "glue"]
    return lambda output, *more: zygote.run("transfer", *asked, "--seeds", "2", "--output", output, *more)


@pytest.fixture(scope="module")
def done(transfer, tmp_path_factory):
    """Two methods, two seeds, all targets that are there; as JSON and as the report's folder."""
    output = tmp_path_factory.mktemp("out")
    run = transfer(output, "--json")
    assert run.code == 0, run.stderr
    (folder,) = output.glob("tiny-mnli/transfer-*")
    return json.loads(run.stdout), folder, output, run


def read_rows(folder):
    with (folder / "transfer.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_run_is_scored_on_each_target_that_is_there(done):
    table, folder, _, run = done
    rows = read_rows(folder)
    assert {(row["method"], row["seed"], row["target"]) for row in rows} == {
        (method, seed, target)
        for method in ("vanilla", "dps-mix")
        for seed in ("42", "43")
        for target in ("mnli", "snli", "sick", "rte")
    }
    for name in ("mnli-mm", "scitail", "hans"):
        assert f"target {name} is left out: it is not in" in run.stderr
    assert {entry["target"]: entry["seeds"] for entry in table["table"]} == dict.fromkeys(
        ("mnli", "snli", "sick", "rte"), 2
    )


def test_the_table_is_what_the_predictions_say(done):
    """Accuracies, means, deviations and drops, computed again from the predictions alone."""
    table, folder, _, _ = done
    accuracy = {}
    for row in read_rows(folder):
        kept = read_predictions(f"{row['folder']}/predictions/to-{row['target']}.parquet")
        right = [a == b for a, b in zip(kept["prediction"], kept["label"], strict=True)]
        assert float(row["value"]) == pytest.approx(sum(right) / len(right))
        commonest = max(map(kept["label"].count, kept["label"]))
        assert float(row["majority"]) == pytest.approx(commonest / len(right))
        accuracy[row["method"], row["target"], row["seed"]] = sum(right) / len(right)
    for entry in table["table"]:
        method, target = entry["method"], entry["target"]
        own = [accuracy[method, target, seed] for seed in ("42", "43")]
        assert entry["mean"] == pytest.approx(np.mean(own))
        assert entry["std"] == pytest.approx(np.std(own, ddof=1))
        home = [accuracy[method, "mnli", seed] for seed in ("42", "43")]
        expected = None if target == "mnli" else pytest.approx(np.mean(home) - np.mean(own))
        assert entry["drop"] == expected
    assert max(entry["mean"] for entry in table["table"] if entry["target"] == "snli") > 0.6, "the words carry over"


def test_in_domain_is_what_the_run_itself_reported(done):
    _, folder, _, _ = done
    for row in read_rows(folder):
        if row["target"] == "mnli":
            result = json.loads(Path(row["folder"], "result.json").read_text())
            assert float(row["value"]) == result["value"]


def test_three_labels_are_folded_onto_two_by_name(done):
    _, folder, _, _ = done
    row = next(row for row in read_rows(folder) if row["target"] == "rte")
    assert row["labels"] == "predictions: neutral -> not_entailment, contradiction -> not_entailment"
    kept = read_predictions(f"{row['folder']}/predictions/to-rte.parquet")
    for scores, prediction in zip(kept["scores"], kept["prediction"], strict=True):
        assert len(scores) == 3
        assert prediction == ("entailment" if np.argmax(scores) == 0 else "not_entailment")


@pytest.mark.slow
def test_the_commonest_label_is_that_of_the_labels_as_they_were_read(transfer, place, tmp_path):
    """A model of two labels on three: two of three gold labels are not_entailment."""
    recipe = place / "tiny-rte.yaml"
    recipe.write_text((place / "tiny-mnli.yaml").read_text().replace("task: mnli", "task: toy-rte"))
    short = ["--set", "training.steps=2", "--set", "data.train_size=40"]
    run = transfer(tmp_path, "--recipe", recipe, "--targets", "snli", "--method", "vanilla", *short, "--json")
    assert run.code == 0, run.stderr
    rows = [json.loads(line) for line in (place / "nli" / "snli" / "validation.jsonl").read_text().splitlines()]
    folded = ["entailment" if row["label"] == "entailment" else "other" for row in rows]
    expected = max(folded.count("entailment"), folded.count("other")) / len(folded)
    majority = {cell["target"]: cell["majority"] for cell in json.loads(run.stdout)["table"]}
    assert majority["snli"] == pytest.approx(expected)


def test_one_answer_to_all_is_called_what_it_is():
    def task(metric, kind):
        return TaskData("t", kind, (), metric, {}, ())

    tasks = [task("accuracy", "classification"), task("f1", "classification")]
    assert one_answer(tasks) == "always the commonest label"
    assert one_answer([task("log_loss", "classification")]) == "always the shares of the labels"
    assert one_answer([*tasks, task("rmse", "regression")]) == "always the commonest label or the mean label"
    assert one_answer([]) == "always the same answer"


def test_the_report_shows_it(done):
    _, folder, _, run = done
    page = (folder / "report.html").read_text()
    assert "in-domain" in page
    assert "dpstune transfer" in page, "the command that makes it again"
    assert "data:image/png" in page
    assert (folder / "transfer.svg").read_text().startswith("<?xml")
    assert "always the commonest label" in run.stderr
    assert json.loads((folder / "transfer.json").read_text())["recipe"] == "tiny-mnli"


def test_the_same_command_again_trains_and_scores_nothing(transfer, done):
    before, _, output, _ = done
    again = transfer(output, "--json")
    assert again.code == 0, again.stderr
    assert json.loads(again.stdout)["table"] == before["table"]
    assert "evaluating" not in again.stderr


def test_a_score_of_other_weights_is_not_taken_for_that_of_these(transfer, done, tmp_path):
    """As where runs of two machines are copied over each other; a score that does not say of which weights it is."""
    output = shutil.copytree(done[2], tmp_path / "out")
    mine, other = sorted(output.glob("tiny-mnli/vanilla/seed-*"))
    shutil.rmtree(mine / "model")
    shutil.copytree(other / "model", mine / "model")
    result = json.loads((mine / "result.json").read_text())
    (mine / "result.json").write_text(json.dumps({**result, "seconds": result["seconds"] + 1}))
    silent = other / "transfer" / "sick.json"
    score = json.loads(silent.read_text())
    del score["result"]
    silent.write_text(json.dumps(score))
    again = transfer(output, "--method", "vanilla", "--targets", "snli,sick")
    assert again.code == 0, again.stderr
    assert "trained anew" not in again.stderr
    for target in ("mnli", "snli", "sick"):
        assert f"evaluating vanilla seed 42 on {target}" in again.stderr
        assert (f"evaluating vanilla seed 43 on {target}" in again.stderr) == (target == "sick")
        ours, theirs = (json.loads((run / "transfer" / f"{target}.json").read_text()) for run in (mine, other))
        assert ours["metrics"] == theirs["metrics"]
    silent.write_text(json.dumps(score))
    shutil.rmtree(other / "model")
    without = transfer(output, "--method", "vanilla", "--targets", "snli,sick")
    assert without.code == 0, without.stderr
    assert "anew" not in without.stderr, "a score that says nothing of its weights is all that there is"


def test_finished_runs_without_a_model_are_trained_anew_where_a_score_is_missing(zygote, place, tmp_path):
    asked = ["--recipe", place / "tiny-mnli.yaml", "--data-dir", place / "nli", "--method", "vanilla"]
    asked += ["--seeds", "2", "--set", "training.steps=2", "--output", tmp_path, "--json"]
    swept = zygote.run("sweep", *asked, "--no-models")
    assert swept.code == 0, swept.stderr
    runs = sorted(map(Path, json.loads(swept.stdout)["runs"]))
    values = [json.loads((run / "result.json").read_text())["value"] for run in runs]

    carried = zygote.run("transfer", *asked, "--targets", "snli")
    assert carried.code == 0, carried.stderr
    assert "2 finished runs without a model, as sweep --no-models leaves them: trained anew" in carried.stderr
    assert sorted(map(Path, json.loads(carried.stdout)["runs"])) == runs
    assert [json.loads((run / "result.json").read_text())["value"] for run in runs] == values
    assert all((run / "model").is_dir() and run.with_name(f"{run.name}.earlier-1").is_dir() for run in runs)

    shutil.rmtree(runs[0] / "model")
    again = zygote.run("transfer", *asked, "--targets", "snli")
    assert again.code == 0, again.stderr
    assert "trained anew" not in again.stderr  # each score is there
    shared = ["--storage", f"sqlite:///{tmp_path / 'shared.db'}"]
    refused = zygote.run("transfer", *asked, "--targets", "snli,sick", *shared)
    assert refused.code == 2
    assert "the same command without --storage trains them anew" in refused.stderr
    more = zygote.run("transfer", *asked, "--targets", "snli,sick")
    assert more.code == 0, more.stderr
    assert "1 finished run without a model" in more.stderr
    assert len(list(tmp_path.glob("*/*/*.earlier-*"))) == 3


def test_a_users_own_files_are_a_target(transfer, place, done):
    """SciTail's labels: neutral stands for all that does not follow."""
    _, _, output, _ = done
    run = transfer(output, "--targets", f"{place / 'mine.yaml'},snli", "--method", "vanilla", "--json")
    assert run.code == 0, run.stderr
    assert "evaluating vanilla seed 42 on mine" in run.stderr
    assert "on snli" not in run.stderr, "what was scored before is kept"
    cells = {cell["target"]: cell for cell in json.loads(run.stdout)["table"]}
    assert list(cells) == ["mnli", "mine", "snli"], "in-domain comes first, asked for or not"
    assert cells["mine"]["drop"] == pytest.approx(cells["mnli"]["mean"] - cells["mine"]["mean"])


def test_a_users_own_task_carries_where_its_labels_match(zygote, place, tmp_path):
    asked = ["--recipe", place / "mine.yaml", "--data-dir", place / "nli", "--output", tmp_path / "out"]
    asked += ["--method", "vanilla", "--seeds", "1", "--set", "training.steps=2", "--set", "data.max_length=24"]
    run = zygote.run("transfer", *asked, "--targets", "snli", "--json")
    assert run.code == 0, run.stderr
    cells = {cell["target"]: cell for cell in json.loads(run.stdout)["table"]}
    assert list(cells) == ["mine", "snli"]
    assert cells["snli"]["drop"] == pytest.approx(cells["mine"]["mean"] - cells["snli"]["mean"])
    (place / "sentiment.csv").write_text("one,two,gold\na,b,good\nc,d,bad\n")
    (place / "sentiment.yaml").write_text((place / "mine.yaml").read_text().replace("mine.csv", "sentiment.csv"))
    refused = zygote.run("transfer", "--recipe", place / "sentiment.yaml", *asked[2:4], "--targets", "snli")
    assert refused.code == 2
    assert "a model with the labels bad, good cannot be evaluated on a task with" in refused.stderr


def test_a_transfer_of_which_every_run_fails_still_tells_programs(transfer, tmp_path):
    asked = ["--method", "reinit:layers=99", "--targets", "snli", "--seeds", "1", "--json"]
    run = transfer(tmp_path / "out", *asked)
    assert run.code == 1
    told = json.loads(run.stdout)
    assert (told["runs"], told["table"], told["report"], len(told["failed"])) == ([], [], None, 1)


def chosen(place, asked, task="mnli"):
    recipe = load_recipe(str(place / "tiny-mnli.yaml"), overrides=[f"task={task}"], data_dir=place / "nli").recipe
    return choose_targets(asked, recipe, [place / "nli", place / "glue"])[0]


def test_each_task_is_read_from_the_folder_that_has_it(place):
    folders = {each.name: each.target.data_dir for each in chosen(place, ["rte", "sick:train", "mnli"])}
    assert folders == {"mnli": place / "nli", "rte": place / "glue", "sick-train": place / "nli"}


def test_generated_tasks_carry_to_their_shifted_variant(place):
    assert [each.name for each in chosen(place, None, task="toy-rte")] == ["toy-rte", "toy-rte-shift"]


@pytest.fixture
def own(tmp_path):
    """Write a recipe of a user's own task, without its files, and return its place."""

    def own(file, name, train):
        recipe = tmp_path / file
        recipe.parent.mkdir(exist_ok=True)
        files = f"{{train: {train}, validation: {train}}}"
        recipe.write_text(
            f"model: {{name: minilm}}\ntask: {{name: {name}, files: {files}, text: [one, two], label: gold}}\n"
        )
        return str(recipe)

    return own


def carried(recipe, *asked):
    """Return name and training file of each target of a user's own task, whether it is in-domain, and its split."""
    named, _ = choose_targets(asked, load_recipe(recipe).recipe, [])
    return [(each.name, each.target.task.files.train.name, each.in_domain, each.target.split) for each in named]


def test_a_users_own_task_may_be_called_as_half_of_mnli(own):
    recipe = own("mnli-mm.yaml", "mnli-mm", "mine.csv")
    other = own("other.yaml", "other", "other.csv")
    assert carried(recipe, other) == [
        ("mnli-mm", "mine.csv", True, "validation"),
        ("other", "other.csv", False, "validation"),
    ]


def test_a_users_own_task_that_is_called_as_one_of_the_table_is_another(own, place):
    (home, other) = chosen(place, [own("mine.yaml", "mnli", "mine.csv")])
    assert (home.name, home.in_domain, other.name, other.in_domain) == ("mnli", True, "mine", False)


def test_users_own_tasks_of_one_name_are_called_by_their_recipe_files_or_else_by_their_training_files(own):
    recipe = own("reviews.yaml", "reviews", "new.csv")
    old, older = own("old.yaml", "reviews", "old.csv"), own("older.yaml", "reviews", "older.csv")
    assert [name for name, *_ in carried(recipe, old, f"{older}:test")] == ["reviews", "old", "reviews-test"]
    assert [name for name, *_ in carried(recipe, old, older)] == ["reviews", "old", "older"]
    assert carried(recipe, own("kept/reviews.yaml", "reviews", "kept.csv"), recipe) == [
        ("reviews", "new.csv", True, "validation"),
        ("kept", "kept.csv", False, "validation"),
    ]
    with pytest.raises(RequestError, match=r"--targets: old is given twice; where .* give one another task\.name"):
        carried(recipe, old, old)


@pytest.mark.parametrize(
    ("asked", "task", "message"),
    [
        (["snlii"], "mnli", "unknown task 'snlii'; did you mean 'snli'?"),
        (["snli", "snli"], "mnli", "--targets: snli is given twice"),
        (None, "mrpc", "mrpc is no entailment task and has no usual targets"),
    ],
)
def test_wrong_targets_are_refused(place, asked, task, message):
    with pytest.raises(RequestError) as caught:
        chosen(place, asked, task)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("mnli-mm", "has no split 'validation_mismatched'"),
        ("hans", "no task hans in"),
        ("toy-sts", "mnli is classification, toy-sts is regression"),
        ("mrpc", "no task mrpc in"),
        ("sick:test", "test.jsonl"),
        ("nowhere.yaml", "no recipe and no file is called"),
        (",", "names no task"),
    ],
)
def test_a_target_that_cannot_be_had_is_refused_before_training(zygote, place, tmp_path, targets, message):
    asked = ["--data-dir", place / "nli", "--output", tmp_path / "out", "--targets", targets]
    run = zygote.run("transfer", "--recipe", place / "tiny-mnli.yaml", *asked)
    assert run.code == 2, run.stderr
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("metric", "drop", "change"), [("accuracy", 0.2, -0.2), ("log_loss", -0.2, -0.2)])
def test_a_drop_is_what_is_lost_whichever_way_is_better(place, metric, drop, change):
    run = record(seed=1)
    targets = chosen(place, ["rte", "mnli"])
    values = {"mnli": 0.7, "rte": 0.5}
    scores = [TargetScore(run, name, "validation", metric, {metric: values[name]}, 9, None, None) for name in values]
    _, carried = tabulate(scores, targets)
    assert (carried.drop, carried.change) == (pytest.approx(drop), pytest.approx(change))


def test_probabilities_of_labels_that_a_model_does_not_tell_apart_are_refused(place):
    recipe = load_recipe(str(place / "tiny-mnli.yaml"), overrides=["task=rte"], data_dir=place / "glue").recipe
    fine = place / "fine.yaml"
    fine.write_text("model: {name: minilm}\ntask: {name: mnli, metric: log_loss}\ndata: {dir: nli}\n")
    targets, _ = choose_targets([str(fine)], recipe, [place / "glue"])
    with pytest.raises(RequestError, match="labels are finer than the models', so that log_loss"):
        refuse_what_does_not_match(targets, recipe)
