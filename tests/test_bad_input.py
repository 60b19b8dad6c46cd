"""Wrong input at the command line: exit 2 (or 1 where the work failed), one line with place and remedy."""

import csv
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def task(tiny_task, tmp_path):
    """A copy of the tiny task's folder, to spoil."""
    folder = shutil.copytree(tiny_task.parent, tmp_path / "task")
    return folder


def spoil(folder, old, new):
    recipe = folder / "tiny.yaml"
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))


def write_rows(path, rows, columns=("first", "second", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


SPOILED = {}


def wrong(spoil):
    """Register what spoils a recipe or what it names, and returns what the message must say."""
    SPOILED[spoil.__name__] = spoil
    return spoil


@wrong
def unknown_key(folder):
    spoil(folder, "batch_size: 6", "batchsize: 6")
    return f"{folder}/tiny.yaml:5: training.batchsize: unknown key 'batchsize'; did you mean 'batch_size'?"


@wrong
def p_of_one(folder):
    spoil(folder, "p: 0.4", "p: 1.0")
    return f"{folder}/tiny.yaml:4: method.p: should be less than 1, not 1.0"


@wrong
def p_below_zero(folder):
    spoil(folder, "p: 0.4", "p: -0.1")
    return "method.p: should be greater than or equal to 0, not -0.1"


@wrong
def update_ratio_of_zero(folder):
    spoil(folder, "update_ratio: 0.2", "update_ratio: 0")
    return "method.update_ratio: should be greater than 0, not 0"


@wrong
def update_ratio_above_one(folder):
    spoil(folder, "update_ratio: 0.2", "update_ratio: 1.1")
    return "method.update_ratio: should be less than or equal to 1, not 1.1"


@wrong
def steps_and_epochs(folder):
    spoil(folder, "epochs: 2", "epochs: 2, steps: 5")
    return f"{folder}/tiny.yaml:5: training.epochs: steps and epochs are both given; keep one"


@wrong
def a_missing_column(folder):
    spoil(folder, "text: [first, second]", "text: [frist, second]")
    return f"{folder}/train.csv: no column 'frist'; its columns are first, second, label; did you mean 'first'?"


@wrong
def a_missing_file(folder):
    (folder / "validation.csv").unlink()
    return f"there is no file {folder}/validation.csv"


@wrong
def an_id_that_is_half_a_character(folder):
    row = {"first": "a", "second": "b", "label": "yes", "id": "\ud800"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    spoil(folder, "train: train.csv", "train: train.jsonl")
    return f"{folder}/train.jsonl:1: column 'id' does not hold text: 'utf-8' codec can't encode character"


@wrong
def a_path_with_a_zero_byte(folder):
    spoil(folder, "train: train.csv", 'train: "a\\0.csv"')
    return r"'a\x00.csv': a path holds no zero byte"


@wrong
def an_unknown_label(folder):
    write_rows(folder / "validation.csv", [("a", "b", "yes"), ("a", "b", "yess")])
    return f"{folder}/validation.csv:3: unknown label 'yess'; the labels are no, yes; did you mean 'yes'?"


@wrong
def text_columns_that_are_too_many(folder):
    spoil(folder, "text: [first, second]", "text: [first, second, third]")
    return "task.text: should be at most 2 values, not ['first', 'second', 'third']"


@wrong
def a_blank_model_name(folder):
    model = next(line for line in (folder / "tiny.yaml").read_text().splitlines() if line.startswith("model:"))
    spoil(folder, model, "model: {name: ' '}")
    return "model.name: there is no folder ' '"


@wrong
def an_empty_split(folder):
    write_rows(folder / "validation.csv", [])
    return f"split validation is empty: {folder}/validation.csv holds no examples"


@wrong
def one_class_only(folder):
    write_rows(folder / "train.csv", [("a", "b", "yes")] * 3)
    write_rows(folder / "validation.csv", [("a", "b", "yes")] * 3)
    return "every training example of tiny has the label 'yes'; there is nothing to learn"


@wrong
def no_utf8(folder):
    (folder / "train.csv").write_bytes(b"first,second,label\na,b,yes\nCaf\xe9,b,no\n")
    return f"{folder}/train.csv:3: not UTF-8 text"


@wrong
def a_recipe_that_is_no_utf8(folder):
    (folder / "tiny.yaml").write_bytes(b"model: {name: minilm}\n# Caf\xe9\n")
    return f"{folder}/tiny.yaml:2: not UTF-8 text"


@wrong
def a_recipe_that_is_no_yaml(folder):
    (folder / "tiny.yaml").write_text("model: {name: minilm\n")
    return f"{folder}/tiny.yaml:2: not valid YAML"


@wrong
def a_model_folder_without_weights(folder):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "bert"}')
    model = next(line for line in (folder / "tiny.yaml").read_text().splitlines() if line.startswith("model:"))
    spoil(folder, model, f"model: {{name: {folder}/model}}")
    return str(folder / "model")


@wrong
def more_examples_than_there_are(folder):
    spoil(folder, "max_length: 24", "max_length: 24, train_size: 1000")
    return "data.train_size: 1000 is more than the 72 training examples"


@wrong
def text_where_a_number_belongs(folder):
    spoil(folder, "label: label", "label: label, kind: regression")
    return f"{folder}/train.csv:2: "


@wrong
def warmup_longer_than_the_run(folder):
    spoil(folder, "epochs: 2", "epochs: 2, warmup_steps: 100")
    return "training.warmup_steps: 100 is more than the run's 24 steps"


@pytest.mark.parametrize("name", SPOILED)
def test_a_wrong_request_is_one_line_and_exit_2(zygote, task, tmp_path, name):
    expected = SPOILED[name](task)
    run = zygote.run("train", "--recipe", task / "tiny.yaml", "--output", tmp_path / "out")
    assert run.code == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("error: ")
    assert expected in run.stderr
    assert not list(tmp_path.glob("out/*/*/*/result.json"))


def test_an_unknown_recipe_offers_the_nearest(zygote):
    run = zygote.run("train", "--recipe", "minilm-mprc")
    assert (run.code, run.stderr) == (
        2,
        "error: no recipe and no file is called 'minilm-mprc'; did you mean 'minilm-mrpc'?\n",
    )


@pytest.mark.parametrize("output", ["/proc/runs", "/dev/null/runs"])
def test_an_output_folder_that_takes_nothing(zygote, task, output):
    run = zygote.run("train", "--recipe", task / "tiny.yaml", "--output", output)
    assert run.code == 2
    assert run.stderr.startswith(f"error: cannot write to {output}")
    assert "--output" in run.stderr


def test_a_nan_loss_is_work_that_failed(zygote, task, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    run = zygote.run(
        "train", "--recipe", task / "tiny.yaml", "--set", f"model.name={model}", "--output", tmp_path / "out"
    )
    assert run.code == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("error: the loss of step 1 is nan; try ")
    assert "Traceback" not in run.stderr
