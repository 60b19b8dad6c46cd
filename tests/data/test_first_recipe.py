"""A first recipe is one that trains: it loads, says what was found, and its comments are its defaults."""

import csv
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpstune.data.first_recipe import first_recipe
from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe


def write(path, header=("text", "label"), count=40):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows((f"this is sentence number {n}", ("yes", "no")[n % 2]) for n in range(count))
    return path


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path / f"{split}.csv")
    return tmp_path


def load(folder, text, name="first.yaml"):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return load_recipe(str(folder / name)).recipe


def test_it_reads_the_files_beside_the_table_from_wherever_it_lies(folder):
    recipe = load(folder, first_recipe(folder / "train.csv", folder / "below" / "first.yaml"), "below/first.yaml")
    task = Inputs().task(recipe)
    assert [(split, len(examples)) for split, examples in task.splits.items()] == [
        ("train", 40),
        ("validation", 40),
        ("test", 40),
    ]
    assert (recipe.task.text, recipe.task.label, task.label_names) == (("text",), "label", ("no", "yes"))
    assert recipe.training.epochs == 10


def test_the_share_that_is_kept_for_validation_is_not_among_the_rows_of_its_steps(tmp_path):
    table = write(tmp_path / "rows of mine.csv", count=1000)
    text = first_recipe(table, tmp_path / "first one.yaml")
    recipe = load(tmp_path, text)
    steps = recipe.training.epochs * len(Inputs().task(recipe).splits["train"]) / recipe.training.batch_size
    assert f"# about {steps:.0f} steps" in text
    assert "#   dpstune train --recipe 'first one.yaml'" in text


def test_its_comments_are_its_defaults(folder):
    text = first_recipe(folder / "train.csv", folder / "first.yaml")
    every_key = re.sub(r"^( *)# (\w+: )", r"\1\2", text, flags=re.MULTILINE)
    keys = len(re.findall(r"^ *\w+:", every_key, flags=re.MULTILINE))
    assert keys > len(re.findall(r"^ *\w+:", text, flags=re.MULTILINE)) + 25
    assert load(folder, every_key) == load(folder, text)
    assert max(map(len, text.splitlines()[1:])) <= 120


def test_the_same_table_gives_the_same_recipe(folder):
    again = first_recipe(folder / "train.csv", folder / "first.yaml")
    assert again == first_recipe(folder / "train.csv", folder / "first.yaml")


def test_without_a_second_file_it_takes_a_share(tmp_path):
    recipe = load(tmp_path, first_recipe(write(tmp_path / "reviews.csv"), tmp_path / "first.yaml"))
    task = Inputs().task(recipe)
    assert [len(examples) for examples in task.splits.values()] == [32, 8]


def test_a_line_break_in_its_name_ends_no_comment(folder):
    text = first_recipe(folder / "train.csv", folder / "a\nb.yaml")
    assert text.splitlines()[1:3] == [f"#   dpstune {what} 'a\\nb.yaml'" for what in ("check", "train --recipe")]


def test_json_lines_and_files_named_after_their_split(tmp_path):
    for split in ("train", "valid"):
        rows = [{"body": f"some words here {n}", "grade": n * 0.25, "tags": ["x"]} for n in range(50)]
        (tmp_path / f"essays_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load(tmp_path, first_recipe(tmp_path / "essays_train.jsonl", tmp_path / "first.yaml"))
    assert (recipe.task.text, recipe.task.label, recipe.task.kind) == (("body",), "grade", "regression")
    assert recipe.training.standardise
    assert recipe.task.files.validation == tmp_path / "essays_valid.jsonl"


def test_lists_of_labels_are_several_labels_and_the_recipe_reads_them(tmp_path):
    rows = [{"text": f"some words here {n}", "tags": [["a", "b"], ["b"], []][n % 3]} for n in range(30)]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = load(tmp_path, first_recipe(tmp_path / "posts.jsonl", tmp_path / "first.yaml"))
    assert (recipe.task.text, recipe.task.label, recipe.task.kind) == (("text",), "tags", "multilabel")
    assert Inputs().task(recipe).label_names == ("a", "b")


def test_another_encoding_is_read_and_written_into_the_recipe(tmp_path):
    file = tmp_path / "old.csv"
    rows = "".join(f"un café noir {n},oui\nune tasse de thé {n},non\n" for n in range(20))
    file.write_bytes(f"text,label\n{rows}".encode("latin-1"))
    recipe = load(tmp_path, first_recipe(file, tmp_path / "first.yaml", encoding="latin-1"))
    assert Inputs().task(recipe).splits["train"].texts[0][0].startswith("un café noir")


@pytest.mark.parametrize("empty", ["text", "label"])
def test_an_empty_column_is_refused(tmp_path, empty):
    file = tmp_path / "gaps.csv"
    file.write_text("text,label,other\n" + {"text": ",yes,a b\n", "label": "a b c,,a\n"}[empty] * 3)
    with pytest.raises(RequestError, match=f"column '{empty}' is empty in the 3 rows looked at"):
        first_recipe(file, tmp_path / "first.yaml", text="text", label="label")


def test_one_usual_name_of_a_text_is_taken_alone(tmp_path):
    file = tmp_path / "tickets.csv"
    file.write_text(
        "notes,text,label\n" + "a long note on what was done here,the screen is black again,a\n" * 9 + "x,y,b\n"
    )
    assert load(tmp_path, first_recipe(file, tmp_path / "first.yaml")).task.text == ("text",)


@pytest.mark.parametrize(
    "names", [("ข้อความ นี้", "ป้าย"), ("जानकारी दी", "श्रेणी"), ("متن می\u200cشود", "برچسب‌ها"), ("文 字", "标签")]
)
def test_columns_of_any_script_are_written_as_they_are_read(folder, names):
    for split in ("train", "dev", "test"):
        write(folder / f"{split}.csv", names)
    text = first_recipe(folder / "train.csv", folder / "first.yaml", text=names[0], label=names[1])
    assert "\\" not in text
    recipe = load(folder, text)
    assert (recipe.task.text, recipe.task.label) == (names[:1], names[1])


# What a column may be called: words YAML reads as something else, signs it reads, letters outside ASCII, line breaks.
NAMES = st.one_of(
    st.sampled_from(
        ["null", "yes", "1.5", "a: b", "# x", "- x", "{", "a, b", "'", '"', "\\", "%x", "a\nb", "\x85", "é", "~"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=8),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=NAMES, label=NAMES)
def test_whatever_the_columns_are_called(folder, text, label):
    if text == label or text.startswith("\ufeff") or "\n" in text + label:
        return
    for split in ("train", "dev", "test"):
        write(folder / f"{split}.csv", (text, label))
    recipe = load(folder, first_recipe(folder / "train.csv", folder / "first.yaml", text=text, label=label))
    assert (recipe.task.text, recipe.task.label) == ((text,), label)
