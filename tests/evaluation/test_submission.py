"""Predictions as the GLUE server wants them."""

import pytest
import torch

from dpstune.data.examples import Examples
from dpstune.data.reading import TaskData
from dpstune.errors import RequestError
from dpstune.evaluation.scoring import evaluate_split
from dpstune.evaluation.submission import FILES, refuse_no_submission, write_submission
from dpstune.evaluation.targets import Target
from dpstune.settings.sections import FilesSection, OwnTask
from dpstune.settings.tasks import TASKS


def answered(name, split, count=6, ids=None):
    """A task whose test examples a model answered with each label in turn; STS-B with values beyond its range."""
    known = TASKS[name]
    examples = Examples(ids or [str(n) for n in range(count)], [("a", "b")] * count, None)
    task = TaskData(name, known.kind, known.labels, known.metric, {split: examples}, ())
    if known.kind == "regression":
        logits = torch.linspace(-1.0, 6.0, count).unsqueeze(-1)
    else:
        logits = torch.eye(len(known.labels))[[n % len(known.labels) for n in range(count)]]
    return task, evaluate_split(task, split, logits)


EXPECTED = {
    "cola": ["0", "1"],
    "sst2": ["0", "1"],
    "mrpc": ["0", "1"],
    "qqp": ["0", "1"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
}


@pytest.mark.parametrize(("name", "split"), FILES)
def test_a_file_a_test_set_by_the_servers_rules(tmp_path, name, split):
    file = write_submission(tmp_path, *answered(name, split))
    assert file.name == FILES[name, split]
    header, *rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert header == ["index", "prediction"]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    answers = [row[1] for row in rows]
    if name == "stsb":
        assert answers == ["0.000", "0.400", "1.800", "3.200", "4.600", "5.000"]
    else:
        labels = EXPECTED[name]
        assert answers == [labels[n % len(labels)] for n in range(6)]


def test_it_is_written_where_it_is_asked_for(tmp_path):
    assert write_submission(tmp_path / "mine.tsv", *answered("rte", "test")).read_text().startswith("index\t")


def test_ids_with_a_gap_are_refused(tmp_path):
    with pytest.raises(RequestError, match="are not numbered 0 to 2"):
        write_submission(tmp_path, *answered("rte", "test", 3, ["0", "1", "3"]))


FILES_OF_RTE = FilesSection(train="rte/train.csv", validation="rte/dev.csv")
OWN = OwnTask(files=FILES_OF_RTE, text="a", label="b")


@pytest.mark.parametrize(
    ("task", "split", "message"),
    [
        ("rte", "validation", "takes no validation of rte; it takes --task rte --split test"),
        ("mnli", "validation", "it takes --task mnli --split test_matched"),
        ("snli", "test", "its tasks are cola, sst2"),
        (OWN, "test", "rte is a task of your own"),
    ],
)
def test_what_the_server_does_not_take_is_refused(task, split, message):
    with pytest.raises(RequestError, match=message):
        refuse_no_submission(Target(task, split))


def test_what_it_takes_is_not():
    refuse_no_submission(Target("mnli", "test"))


def save_rte_model(folder):
    """Write a model of RTE's labels, and RTE's layout with a test file of five examples without labels."""
    from dpstune.models.loading import load_classifier
    from dpstune.settings.sections import ModelSection
    from tests.tiny import save_tiny_model, tiny_tokenizer

    save_tiny_model(folder / "encoder")
    section, names = ModelSection(name=str(folder / "encoder")), TASKS["rte"].labels
    model = load_classifier(section, label_names=names, kind="classification", dropout=None, seed=0)
    model.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "RTE").mkdir()
    rows = [f"{n}\tThe cat sleeps.\tA dog runs." for n in range(5)]
    (folder / "RTE" / "test.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *rows]) + "\n")


def test_eval_writes_it(zygote, tmp_path):
    save_rte_model(tmp_path)
    asked = ["--task", "rte", "--split", "test", "--data-dir", tmp_path, "--max-length", "32"]
    run = zygote.run("eval", tmp_path / "model", *asked, "--submission", tmp_path / "RTE.tsv")
    assert run.code == 0, run.stderr
    assert "test has no labels: there is nothing to score" in run.stderr
    lines = (tmp_path / "RTE.tsv").read_text().splitlines()
    assert len(lines) == 6
    assert {line.split("\t")[1] for line in lines[1:]} <= set(TASKS["rte"].labels)
    for place in (tmp_path, tmp_path / "RTE.tsv", tmp_path / "RTE" / "test.tsv"):
        kept = zygote.run("eval", tmp_path / "model", *asked, "--submission", place)
        assert kept.code == 2
        assert "exists; choose another place, or overwrite it with --force" in kept.stderr
    assert (tmp_path / "RTE" / "test.tsv").read_text().startswith("index\tsentence1")
    forced = zygote.run("eval", tmp_path / "model", *asked, "--submission", tmp_path, "--force")
    assert forced.code == 0, forced.stderr
    for more, message in (
        (["--submission", "/dev/null", "--force"], "--submission /dev/null: is not a file; choose another place"),
        (["--force"], "--force: overwrites what is there; add --report FOLDER or --submission FILE"),
    ):
        refused = zygote.run("eval", tmp_path / "model", *asked, *more)
        assert (refused.code, refused.stderr.splitlines()) == (2, [f"error: {message}"])
    refused = zygote.run("eval", tmp_path / "model", *asked, "--submission", tmp_path / "RTE.tsv" / "x.tsv")
    assert refused.code == 2
    assert refused.stderr.splitlines() == [
        f"error: cannot write to {tmp_path / 'RTE.tsv'}: File exists; choose another folder with --submission"
    ], "nothing was scored"


def test_a_tilde_is_the_home_folder_also_after_an_equals_sign(tmp_path, monkeypatch):
    from dpstune import cli

    save_rte_model(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = ["--task", "rte", "--split", "test", "--data-dir=~", "--submission=~/mine.tsv", "--max-length", "32"]
    assert cli.run(["eval", "~/model", *asked]) == 0
    assert (tmp_path / "mine.tsv").is_file()


def test_a_model_that_lacks_the_servers_labels_is_refused(zygote, tmp_path):
    save_rte_model(tmp_path)
    (tmp_path / "mnli").mkdir()
    (tmp_path / "mnli" / "test_matched.jsonl").write_text('{"premise": "a", "hypothesis": "b"}\n')
    asked = ["--task", "mnli", "--split", "test_matched", "--data-dir", tmp_path, "--max-length", "32"]
    run = zygote.run("eval", tmp_path / "model", *asked, "--submission", tmp_path / "m.tsv")
    assert run.code == 2
    assert "entailment, not_entailment cannot answer with those of mnli" in run.stderr
    assert not (tmp_path / "m.tsv").exists()
