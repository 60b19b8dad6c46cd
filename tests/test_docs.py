"""The pages in docs/ hold what they say: their code runs."""

import importlib
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from dpstune import build_method
from dpstune.methods import REGISTRY

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_method_that_the_page_adds_works(monkeypatch):
    code, registration = blocks("adding-a-method.md")
    module = types.ModuleType("dpstune.methods.gradient_noise")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "gradient_noise.py", "exec"), vars(module))
    monkeypatch.setattr("dpstune.methods.REGISTRY", dict(REGISTRY))
    exec(registration, {"REGISTRY": sys.modules["dpstune.methods"].REGISTRY})

    def noise(step, **settings):
        model = torch.nn.Linear(100, 50)
        method = build_method({"name": "gradient-noise", **settings})
        method.attach(model, total_steps=9, seed=1)
        method.step = step
        model(torch.ones(1, 100)).sum().backward()
        method.before_clip()
        method.before_update()
        return model.weight.grad - 1.0

    assert noise(1).std().item() == pytest.approx(0.1, rel=0.05)
    assert noise(4, eta=1.0).std().item() == pytest.approx(4**-0.275, rel=0.05)
    assert torch.equal(noise(3), noise(3))
    assert not torch.equal(noise(3), noise(4))


def test_the_page_names_every_hook():
    from dpstune.methods.base import Method

    page = (DOCS / "adding-a-method.md").read_text()
    hooks = {name for name in vars(Method) if not name.startswith("_") and callable(vars(Method)[name])}
    assert [hook for hook in hooks if f"`{hook}" not in page] == []


def test_the_trainer_page_trains(tiny_model, tmp_path):
    from transformers import TrainingArguments

    from dpstune.models import load_classifier
    from dpstune.recipe import ModelSection

    section = ModelSection(name=str(tiny_model))
    model = load_classifier(section, label_names=("a", "b"), kind="classification", dropout=None, seed=0)
    before = model.bert.pooler.dense.weight.clone()
    arguments = TrainingArguments(str(tmp_path), max_steps=3, report_to="none", use_cpu=True, save_strategy="no")
    dataset = [{"input_ids": [2, 8 + n % 2, 3], "labels": n % 2} for n in range(32)]
    (program,) = blocks("trainer.md")
    exec(compile(program, "trainer.md", "exec"), {"model": model, "arguments": arguments, "dataset": dataset})
    assert not torch.equal(model.bert.pooler.dense.weight, before)


def test_the_cluster_pages_commands_are_read(zygote):
    """Each is planned, not run: the workers' own tests run them on a server."""
    commands = [line for block in blocks("cluster.md", "console") for line in block.splitlines()]
    install, sweep = commands
    assert "postgres" in install
    (zygote.folder / "glue" / "MRPC").mkdir(parents=True, exist_ok=True)
    for file in ("train.tsv", "dev.tsv"):
        rows = "0\tA cat.\tA dog.\n1\tA cat.\tThe cat.\n"
        (zygote.folder / "glue" / "MRPC" / file).write_text(f"Quality\t#1 String\t#2 String\n{rows}")
    program, *arguments = sweep.split()
    assert program == "dpstune"
    run = zygote.run(*arguments, "--plan")
    assert run.code == 0, run.stderr
    assert "75 of 75 runs to do" in run.stdout


def test_the_case_study_pages_commands_are_run(zygote, tiny_task):
    """On the tiny task, with one restart."""
    for block in blocks("casestudy.md", "csv"):
        (zygote.folder / ("counts.csv" if block.startswith("id,method,correct") else "votes.csv")).write_text(block)
    swapped = {"demo": str(tiny_task), "10": "1", "runs/demo": "runs/tiny"}
    for line in (line for block in blocks("casestudy.md", "console") for line in block.splitlines()):
        program, *arguments = line.split()
        assert program == "dpstune"
        arguments = [swapped.get(argument, argument) for argument in arguments]
        if "--recipe" in arguments:
            arguments += ["--set", "training.steps=2", "--set", "training.warmup_steps=1"]
        run = zygote.run(*arguments)
        assert run.code == 0, f"{line}: {run.stderr}"
        assert "report.html" in run.stderr


def test_the_transfer_pages_generated_tasks_are_run_by_the_readmes_test():
    """What is on real corpora carries the date it was last run."""
    readme = (DOCS.parent / "README.md").read_text()
    generated, real, evaluated = [line for block in blocks("transfer.md", "console") for line in block.splitlines()]
    assert generated in readme
    assert evaluated.replace("vanilla", "dps-dense") in readme
    assert real.split()[1:4] == ["transfer", "--recipe", "transfer-mnli"]
    assert re.search(r"last run \d{4}-\d\d-\d\d", (DOCS / "transfer.md").read_text())


def test_the_paper_pages_sweeps_are_as_large_as_it_says():
    from dpstune.optim import plan_steps
    from dpstune.recipe import load_recipe
    from dpstune.studies.sweep import Sweep, SweepRequest

    (block,) = blocks("paper.md", "bash")
    first = block[: block.index("done")]
    methods = tuple(re.findall(r"--method (\S+)", first))
    rows = re.findall(
        r"^\| ([\w-]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$",
        (DOCS / "paper.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 4
    for task, *numbers in rows:
        examples, steps, runs, all_steps = (int(number.replace(",", "")) for number in numbers)
        name = f"bert-{task.lower().replace('-', '')}"
        assert name.removeprefix("bert-") in first
        assert len(Sweep(SweepRequest(name, methods, 10, Path("runs"))).jobs) == runs
        training = load_recipe(name).recipe.training
        assert plan_steps(training, -(-examples // training.batch_size))[0] == steps
        assert steps * runs == all_steps


def test_the_results_page_says_what_its_numbers_say(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    answers = importlib.import_module("answers")
    page = (DOCS / "results.md").read_text()
    tables = answers.build_tables()
    assert {"rates", "chosen", "compare", "against", "steady", "each", "cost"} <= tables.keys()
    for name, table in tables.items():
        assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in page, name


def test_the_numbers_hold_no_text_of_a_corpus():
    allowed = {
        "runs.csv": "task,method,settings,rate,epochs,seed,split,metric,value,majority,train_loss",
        "transfer.csv": "method,settings,seed,target,split,metric,value,majority,examples,labels",
        "votes.csv": "id,method,correct,restarts",
    }
    for path in (DOCS / "results").iterdir():
        assert path.read_text().splitlines()[0] == allowed[path.name]
