"""``dpstune probe``: fine-tuned models beside the pre-trained one."""

import csv
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dpstune.errors import RequestError
from dpstune.evaluation import states
from dpstune.report.probe_figure import BAND, layers_figure
from dpstune.report.probe_report import format_probe, points_as_rows, probe_as_json, write_probe_report
from dpstune.runs.folder import read_predictions
from dpstune.settings.sections import TrainingSection
from dpstune.studies.probe.probe import Probe
from dpstune.studies.probe.request import ProbeRequest
from tests.tiny import FAMILIES, LAYERS, save_tiny_model, some

WHOLE = list(range(LAYERS + 1))


@pytest.fixture(scope="module")
def restarts(zygote, tiny_task, tmp_path_factory):
    """The folders of two finished restarts of plain fine-tuning."""
    output = tmp_path_factory.mktemp("restarts")
    run = zygote.run("train", "--recipe", tiny_task, "--method", "vanilla", "--seeds", 2, "--output", output)
    assert run.code == 0, run.stderr
    return sorted(result.parent for result in output.glob("*/*/*/result.json"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of texts that fill two columns."""
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    words = ["cat", "dog", "man", "house", "runs", "sleeps"]
    rows = [
        f"the {words[n % 6]} is {words[n * n % 5]},a {words[n % 4]} " + "in the house " * (n % 3) for n in range(24)
    ]
    file.write_text("\n".join(["one,two", *rows]) + "\n")
    return file


def probe(zygote, output, *arguments):
    run = zygote.run("probe", *arguments, "--output", output, "--json")
    assert run.code == 0, run.stderr
    return json.loads(run.stdout)


def in_process(output, *runs, **request):
    return Probe(ProbeRequest(tuple(runs), output, **request)).run()


def changed(model, place, layer, change):
    """Write a copy of a model whose weights of one layer are changed."""
    shutil.copytree(model, place)
    file = place / "model.safetensors"
    weights = load_file(file)
    generator = torch.Generator().manual_seed(0)
    for key, weight in weights.items():
        if f".{layer}." in f".{key}" and weight.ndim == 2:
            weights[key] = change(weight, generator)
    save_file(weights, file, {"format": "pt"})
    return place


def drawn_anew(weight, generator):
    return torch.randn(weight.shape, generator=generator) * 0.5


def test_a_model_that_computes_no_numbers_is_refused(tiny_model, texts, tmp_path):
    broken = changed(tiny_model, tmp_path / "broken", 1, lambda weight, _: torch.full_like(weight, torch.nan))
    with pytest.raises(RequestError, match="broken: its hidden states are not finite"):
        in_process(tmp_path, broken, pretrained=str(tiny_model), texts=texts, text=("one", "two"))


def test_a_model_is_like_itself(tiny_model, texts, tmp_path):
    outcome = in_process(tmp_path, tiny_model, pretrained=str(tiny_model), texts=texts, text=("one", "two"))
    (point,) = outcome.points
    assert [point.mean("cka", layer) for layer in WHOLE] == pytest.approx([1.0] * len(WHOLE))
    assert [point.mean("cosine", layer) for layer in WHOLE] == pytest.approx([1.0] * len(WHOLE))
    assert (outcome.texts, outcome.count) == ("texts.csv", 24)


@pytest.mark.parametrize("family", some(["bert"], of=[*FAMILIES, "distilbert", "modernbert"]))
def test_a_layer_that_is_drawn_anew_shows_there_and_not_below(family, texts, tmp_path):
    save_tiny_model(tmp_path / "before", family)
    after = changed(tmp_path / "before", tmp_path / "after", "1", drawn_anew)
    outcome = in_process(tmp_path, after, pretrained=str(tmp_path / "before"), texts=texts, text=("one",))
    (point,) = outcome.points
    for measure in ("cka", "cosine"):
        values = [point.mean(measure, layer) for layer in WHOLE]
        assert values[:2] == pytest.approx([1.0, 1.0])
        assert values[2] < 0.999
        assert values[3] < 0.999


@pytest.mark.slow
def test_a_model_whose_layers_share_their_weights_has_as_many_layers_as_it_computes(texts, tmp_path):
    save_tiny_model(tmp_path / "before", "albert")
    outcome = in_process(tmp_path, tmp_path / "before", pretrained=str(tmp_path / "before"), texts=texts, text=("one",))
    assert outcome.points[0].layers == LAYERS + 1


@pytest.mark.slow
def test_restarts_are_grouped_and_shown(zygote, restarts, tiny_run, tmp_path):
    arguments = (*restarts, tiny_run, "--on", "toy-rte,toy-sts", "--train-rows", 60, "--scored-rows", 30)
    told = probe(zygote, tmp_path, *arguments)
    assert told["texts"] == "tiny validation"
    assert told["count"] == 30
    assert [(point["method"], point["seeds"]) for point in told["points"]] == [("vanilla", 2), ("dps-dense", 1)]
    vanilla, dense = told["points"]
    for measure in ("cka", "cosine"):
        runs = np.array([run[measure] for run in vanilla["runs"]])
        assert runs.shape == (2, LAYERS + 1)
        assert vanilla[measure] == pytest.approx(runs.mean(0))
        assert vanilla[f"{measure}_std"] == pytest.approx(runs.std(0, ddof=1))
        assert dense[f"{measure}_std"] == [None] * (LAYERS + 1)
    assert vanilla["cka"][-1] < 0.999  # training moved it
    for place, task in enumerate(("toy-rte", "toy-sts")):
        score = vanilla["scores"][place]
        own = [run["scores"][task] for run in vanilla["runs"]]
        assert score["mean"] == pytest.approx(np.mean(own))
        assert score["difference"] == pytest.approx(score["mean"] - score["pretrained"])
        assert score["pretrained"] == dense["scores"][place]["pretrained"]
    folder = Path(told["report"]).parent
    assert folder.parent == tmp_path / "tiny"
    kept = json.loads((folder / "probe.json").read_text())
    assert {**kept, "report": told["report"]} == told
    layers = list(csv.DictReader((folder / "layers.csv").open()))
    assert len(layers) == 3 * (LAYERS + 1)
    scores = list(csv.DictReader((folder / "scores.csv").open()))
    assert [(row["method"], row["task"]) for row in scores[:3]] == [("vanilla", "toy-rte")] * 2 + [
        ("vanilla", "toy-sts")
    ]
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == 1
    assert "minus pre-trained" in (folder / "report.md").read_text()
    assert (folder / "layers.svg").read_text().startswith("<?xml")
    assert json.dumps(told["points"]) == json.dumps(probe(zygote, tmp_path, *arguments)["points"])


def test_people_read_tables_on_stderr_and_programs_one_object_on_stdout(zygote, tiny_run, tmp_path):
    run = zygote.run("probe", tiny_run, "--rows", 10, "--output", tmp_path, "--json")
    assert run.code == 0, run.stderr
    assert "linear CKA, last layer" in run.stderr
    told = json.loads(run.stdout)
    assert f"report: {told['report']}" in run.stderr
    assert (told["count"], told["tasks"]) == (10, [])
    (point,) = told["points"]
    assert len(point["cka"]) == len(point["cosine"]) == LAYERS + 1
    assert not list(tmp_path.glob("*/*/scores.csv"))


@pytest.mark.slow
def test_a_probe_reads_off_what_the_model_was_trained_for(zygote, tiny_task, tmp_path):
    """The label is in the first word: what training brought to the last layer, a linear function finds."""
    long = ("--set", "training.epochs=12", "--set", "model.dropout=0")
    run = zygote.run("train", "--recipe", tiny_task, "--method", "vanilla", *long, "--output", tmp_path, "--json")
    assert run.code == 0, run.stderr
    folder = Path(json.loads(run.stdout)["run"])
    predictions = read_predictions(folder / "predictions" / "validation.parquet")
    right = np.mean([one == other for one, other in zip(predictions["label"], predictions["prediction"], strict=True)])
    assert right > 0.9
    told = probe(zygote, tmp_path, folder, "--on", tiny_task)
    (score,) = told["points"][0]["scores"]
    assert score["mean"] > 0.9
    assert told["tasks"][0]["task"] == "tiny"


def test_several_model_folders_are_points_by_themselves(tiny_model, texts, tmp_path):
    other = changed(tiny_model, tmp_path / "other", "0", drawn_anew)
    outcome = in_process(tmp_path, tiny_model, other, pretrained=str(tiny_model), texts=texts, text=("one",))
    assert [point.point.name for point in outcome.points] == [str(tiny_model), str(other)]
    assert outcome.folder.parent == tmp_path
    assert outcome.records == []


@pytest.mark.slow
def test_a_pretrained_model_that_has_changed_is_told(zygote, tiny_task, tiny_model, tmp_path):
    model, task = tmp_path / "model", tmp_path / "task"
    shutil.copytree(tiny_model, model)
    shutil.copytree(tiny_task.parent, task)
    recipe = task / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace(str(tiny_model), str(model)))
    run = zygote.run("train", "--recipe", recipe, "--set", "training.epochs=1", "--output", tmp_path, "--json")
    folder = json.loads(run.stdout)["run"]
    assert probe(zygote, tmp_path, folder)["notes"] == []
    shutil.rmtree(model)
    changed(tiny_model, model, "0", drawn_anew)
    assert probe(zygote, tmp_path, folder)["notes"] == [f"{model} has changed since it was fine-tuned"]


def copied(run, place, *changes):
    """Copy a run, with other texts in its recipe."""
    shutil.copytree(run, place)
    recipe = place / "recipe.yaml"
    for old, new in changes:
        assert old in recipe.read_text()
        recipe.write_text(recipe.read_text().replace(old, new))
    return place


def test_a_pretrained_model_that_is_given_texts_of_two_lengths_has_a_row_for_each(tiny_run, tiny_model, tmp_path):
    short = copied(tiny_run, tmp_path / "short", ("max_length: 24", "max_length: 4"))
    few = {"on": ("toy-rte",), "train_rows": 40, "scored_rows": 20}
    outcome = in_process(tmp_path, tiny_run, short, **few)
    assert [each.name for each in outcome.pretrained] == ["model, 24 tokens", "model, 4 tokens"]
    told = probe_as_json(outcome)
    for each in told["pretrained_models"]:
        (point,) = (point for point in told["points"] if point["pretrained_model"] == each["name"])
        assert each["scores"] == {"toy-rte": point["scores"][0]["pretrained"]}
        assert each["model"] == str(tiny_model)
    write_probe_report(outcome)
    rows = list(csv.DictReader((outcome.folder / "scores.csv").open()))
    assert {row["pretrained_model"] for row in rows} == {"model, 24 tokens", "model, 4 tokens"}
    assert "pre-trained model, 4 tokens" in format_probe(outcome)
    assert [each.name for each in in_process(tmp_path, tiny_run, **few).pretrained] == ["model"]


def test_scores_are_in_their_metric_whatever_a_task_is_called_and_where_there_are_none_it_is_said(tiny_run, tmp_path):
    (tmp_path / "both.csv").write_text("t,l\n" + "a cat,x\na man,y\nthe house,x\n" * 8)
    (tmp_path / "one.csv").write_text("t,l\n" + "a cat,x\nthe house,x\n" * 8)
    for name, metric, scored in (("cka", "log_loss", "both"), ("cosine", "roc_auc", "one")):
        (tmp_path / f"{name}.yaml").write_text(
            f"model: {{name: minilm}}\ntask: {{name: {name}, files: {{train: both.csv, validation: {scored}.csv}}, "
            f"text: t, label: l, metric: {metric}}}\n"
        )
    outcome = in_process(tmp_path, tiny_run, on=(f"{tmp_path}/cka.yaml", f"{tmp_path}/cosine.yaml"))
    (row,) = points_as_rows(outcome)
    assert 0.0 < row["cka"] <= 1.0
    before = outcome.pretrained[0].scores
    assert row["cka minus pre-trained"] == pytest.approx(row["cka log_loss"] - before["cka"])  # below 0 is better
    assert (row["cosine roc_auc"], row["cosine minus pre-trained"], before["cosine"]) == (None, None, None)
    header, pretrained, point, *_ = format_probe(outcome).split("\n\n")[1].splitlines()
    assert "cka, log_loss (lower is better)" in header
    assert f"{row['cka minus pre-trained']:+.4f} (" in point
    assert pretrained.endswith("undefined")
    assert point.count("undefined") == 2
    page = write_probe_report(outcome)
    (_, score) = csv.DictReader((page.parent / "scores.csv").open())
    assert (score["task"], score["value"]) == ("cosine", "")


def test_groups_are_counted_and_a_calibration_error_has_no_interval(tiny_run, tmp_path):
    rows = "".join(f"{('a cat', 'a man', 'the house')[n % 3]} {n},{'xyx'[n % 3]},{n % 5}\n" for n in range(24))
    (tmp_path / "rows.csv").write_text(f"t,l,g\n{rows}")
    (tmp_path / "sure.yaml").write_text(
        "model: {name: minilm}\ntask: {name: sure, files: {train: rows.csv, validation: rows.csv}, "
        "text: t, label: l, group: g, metric: calibration_error}\n"
    )
    outcome = in_process(tmp_path, tiny_run, on=(f"{tmp_path}/sure.yaml",))
    ((score,),) = (point.scores for point in outcome.points)
    assert (score.verdict.low, score.verdict.difference_low) == (None, None)
    assert f"{score.verdict.difference:+.4f}" in format_probe(outcome)
    page = write_probe_report(outcome).with_suffix(".md").read_text()
    assert "24 scored, drawn by 5 groups." in page


def test_a_probed_task_that_a_model_was_trained_on_is_told(tiny_run, tiny_task, tmp_path):
    asked = ProbeRequest((tiny_run,), tmp_path, on=("toy-rte", str(tiny_task)), train_rows=40, scored_rows=20)
    (note,) = Probe(asked).run().notes
    assert note.startswith("tiny: 1 model of 1 learned this very task")


def test_texts_that_have_changed_since_the_models_were_trained_are_told(tiny_run, tiny_task, tmp_path):
    task = shutil.copytree(tiny_task.parent, tmp_path / "task")
    run = copied(tiny_run, tmp_path / "run", (str(tiny_task.parent), str(task)))
    assert in_process(tmp_path, run, rows=10).notes == ()
    rows = task / "validation.csv"
    rows.write_text(rows.read_text().replace("cat", "dog"))
    (note,) = in_process(tmp_path, run, rows=10).notes
    assert note == "tiny: the examples read now are not those that the models were trained with"


def test_texts_that_were_moved_are_read_where_they_are_said_to_be(tiny_run, tiny_task, tmp_path):
    run = copied(tiny_run, tmp_path / "run", (str(tiny_task.parent), "/old/disk"))
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(RequestError, match=r"no file /old/disk/train\.csv; where it was moved, --data-dir names"):
        in_process(tmp_path, run, rows=10, data_dirs=(elsewhere,))
    assert in_process(tmp_path, run, rows=10, data_dirs=(elsewhere, tiny_task.parent)).notes == ()


def test_probes_of_other_data_have_other_folders(tmp_path):
    plain = ProbeRequest((tmp_path / "run",), tmp_path)
    assert plain.digest == replace(plain, data_dirs=()).digest
    folders = [(), (tmp_path / "one",), (tmp_path / "two",), (tmp_path / "two", tmp_path / "one")]
    assert len({replace(plain, data_dirs=each).digest for each in folders}) == len(folders)


def test_models_are_read_in_batches_of_their_runs_own_size(tiny_run, texts, tmp_path, monkeypatch):
    sizes, mean_states = [], states.mean_states

    def noted(*arguments, **named):
        sizes.append(named["batch_size"])
        return mean_states(*arguments, **named)

    monkeypatch.setattr(states, "mean_states", noted)
    usual = f"eval_batch_size: {TrainingSection().eval_batch_size}"
    run = copied(tiny_run, tmp_path / "run", (usual, "eval_batch_size: 7"))
    in_process(tmp_path, run, texts=texts, text=("one",))
    assert sizes == [7, 7]


def test_lines_can_be_told_apart_and_a_band_is_named_where_one_is_drawn(tiny_model, texts, tmp_path):
    folders = [shutil.copytree(tiny_model, tmp_path / name) for name in ("one", "two", "三")]
    outcome = in_process(tmp_path, *folders, pretrained=str(tiny_model), texts=texts, text=("one",))
    lines = layers_figure(outcome.points, "texts").axes[0].get_lines()
    assert (
        len({(line.get_color(), line.get_marker()) for line in lines}) == len({line.get_color() for line in lines}) == 3
    )
    assert [line.get_label() for line in lines] == ["one", "two", "三"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_probe_report(outcome)
    assert "±" not in (page.parent / "layers.svg").read_text() + page.read_text()
    several = [replace(outcome.points[0], restarts=tuple(point.restarts[0] for point in outcome.points))]
    figure = layers_figure(several, "texts")
    assert BAND in figure.axes[0].get_title("left")
    assert len(figure.axes[0].collections) == 1


@pytest.fixture
def refused(zygote, tmp_path):
    output = tmp_path / "out"

    def refused(*arguments):
        run = zygote.run("probe", *arguments, "--output", output)
        assert run.code == 2, run.stderr
        assert not output.exists()
        (line,) = run.stderr.strip().splitlines()
        return line

    return refused


def test_runs_that_cannot_be_probed_are_one_line(refused, zygote, restarts, tiny_run, tiny_task, tiny_model, tmp_path):
    assert "there is no folder" in refused(tiny_run, tmp_path / "nothing")
    assert "is there twice" in refused(tiny_run, tiny_run)
    twin = tmp_path / "twin"
    shutil.copytree(restarts[0], twin)
    assert "is the same restart as another run" in refused(*restarts, twin)
    assert "does not say what it began as; add --pretrained" in refused(tiny_model)
    assert "is a model folder: say on which texts" in refused(tiny_model, "--pretrained", tiny_model)

    bare = tmp_path / "bare"
    shutil.copytree(tiny_run, bare)
    weights = bare / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "is damaged" in refused(restarts[0], bare)
    weights.unlink()
    assert "holds no weights" in refused(restarts[0], bare)
    (bare / "result.json").write_text('{"last": {}}')
    assert "is damaged: result.json lacks" in refused(bare)
    (bare / "result.json").unlink()
    assert "is a run that is not finished" in refused(bare)

    deeper = tmp_path / "deeper"
    save_tiny_model(deeper, num_hidden_layers=LAYERS + 1)
    assert f"has num_hidden_layers {LAYERS}, but {deeper}" in refused(tiny_run, "--pretrained", deeper)
    assert "there is no folder" in refused(tiny_run, "--pretrained", "./nothing")
    assert "--pretrained: the name is empty" in refused(tiny_run, "--pretrained", "")

    short = ("--set", "training.epochs=1", "--set", "model.init=random", "--output", tmp_path / "random", "--json")
    run = zygote.run("train", "--recipe", tiny_task, "--method", "vanilla", *short)
    assert run.code == 0, run.stderr
    assert "began with random weights (model.init)" in refused(json.loads(run.stdout)["run"])


def test_texts_and_tasks_that_cannot_be_had_are_one_line(refused, tiny_run, tmp_path, texts):
    assert "--text names columns of a file" in refused(tiny_run, "--text", "one")
    assert "keep one" in refused(tiny_run, "--texts", texts, "--task", "toy-nli")
    assert "no column 'three'" in refused(tiny_run, "--texts", texts, "--text", "three")
    assert "should name one column" in refused(tiny_run, "--texts", texts, "--text", "one,two,three")
    assert "there is no file" in refused(tiny_run, "--texts", tmp_path / "nothing.csv")
    assert "cannot tell its format" in refused(tiny_run, "--texts", texts.with_suffix(".xls"))
    single = tmp_path / "one.txt"
    single.write_text("a cat\n")
    assert "1 text cannot show" in refused(tiny_run, "--texts", single)
    single.write_text("")
    assert "holds no rows" in refused(tiny_run, "--texts", single)
    single.write_bytes(b"a cat\n\xff\n")
    assert "one.txt:2: not UTF-8 text" in (line := refused(tiny_run, "--texts", single))
    assert "--encoding" not in line
    assert "unknown task 'toy'" in refused(tiny_run, "--task", "toy")
    assert "unknown task 'toy'" in refused(tiny_run, "--on", "toy")
    assert "a task is there twice" in refused(tiny_run, "--on", "toy-rte,toy-rte")
    for option in ("--rows", "--train-rows", "--scored-rows"):
        assert "greater than or equal to 10" in refused(tiny_run, option, 9)
    assert "no task mrpc" in refused(tiny_run, "--on", "mrpc", "--data-dir", tmp_path)


def test_lines_and_tasks_are_texts_too(tiny_run, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\tthe dog\nthe house\ta man\na dog\tthe cat\n" * 4)
    assert in_process(tmp_path, tiny_run, texts=lines).count == 12
    outcome = in_process(tmp_path, tiny_run, task="toy-nli:test", rows=11)
    assert (outcome.texts, outcome.count) == ("toy-nli test", 11)


@pytest.mark.slow
def test_runs_on_different_tasks_need_texts_that_are_named(refused, zygote, tiny_run, tiny_task, texts, tmp_path):
    recipe = tmp_path / "task" / "other.yaml"
    shutil.copytree(tiny_task.parent, recipe.parent)
    (recipe.parent / "tiny.yaml").rename(recipe)
    rows = (recipe.parent / "train.csv").read_text().splitlines()
    (recipe.parent / "train.csv").write_text("\n".join(rows[:40]) + "\n")
    run = zygote.run("train", "--recipe", recipe, "--set", "training.epochs=1", "--output", tmp_path, "--json")
    assert run.code == 0, run.stderr
    other = json.loads(run.stdout)["run"]
    assert "were evaluated on different examples" in refused(tiny_run, other)
    told = probe(zygote, tmp_path, tiny_run, other, "--texts", texts, "--text", "one")
    assert Path(told["report"]).parent.parent == tmp_path
