import csv
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import datasets
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpstune.data.reading import draw_training_part, read_raw, read_task
from dpstune.data.sources import no_column
from dpstune.errors import RequestError
from dpstune.evaluation.scoring import evaluate_split
from dpstune.settings.sections import DataSection, DatasetTask, FilesSection, OwnTask, TableTask

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_corpora = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
BALANCED = [("a", "yes"), ("b", "no"), ("c", "yes"), ("d", "no")]


def own_task(folder, train, validation=BALANCED, test=None, kind="classification", metric=None, suffix=".csv"):
    """Write rows of (text, label) to files; return the task made of them. A None label leaves the column out."""
    files = {}
    for split, rows in {"train": train, "validation": validation, "test": test}.items():
        if rows is None:
            continue
        files[split] = folder / f"{split}{suffix}"
        names = ("text", "label")[: 1 if rows and rows[0][1] is None else 2]
        if suffix == ".jsonl":
            lines = [json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows]
            files[split].write_text("".join(lines))
        else:
            with files[split].open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([names, *(row[: len(names)] for row in rows)])
    return OwnTask(files=FilesSection(**files), text="text", label="label", kind=kind, metric=metric)


def load(task, seed=0, splits=None, **data):
    section = DataSection(**data)
    return draw_training_part(read_task(task, section, splits=splits), section.train_size, seed=seed)


def refused(task, **options):
    """Return the one line that refuses a task."""
    with pytest.raises(RequestError) as error:
        load(task, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def named(task, split="train"):
    """Return (text, label name) of each example."""
    examples = task.splits[split]
    return [(texts[0], task.label_names[label]) for texts, label in zip(examples.texts, examples.labels, strict=True)]


# A user's own task


def test_labels_keep_their_names_whatever_the_order_of_the_rows(tmp_path):
    loaded = load(own_task(tmp_path, BALANCED))
    assert loaded.label_names == ("no", "yes")
    assert named(loaded) == BALANCED
    backwards = load(own_task(tmp_path, BALANCED[::-1], BALANCED[1:] + BALANCED[:1]))
    assert backwards.label_names == ("no", "yes")
    assert named(backwards) == BALANCED[::-1]
    assert named(backwards, "validation") == BALANCED[1:] + BALANCED[:1]


@pytest.mark.parametrize(
    ("suffix", "labels", "names"),
    [
        (".csv", ["b", "a", "B"], ("B", "a", "b")),
        (".csv", ["10", "9", "-2"], ("-2", "9", "10")),
        (".csv", ["10", "9", "x"], ("10", "9", "x")),
        (".jsonl", [10, 9, 2], ("2", "9", "10")),
        (".jsonl", [True, False], ("False", "True")),
    ],
)
def test_label_names_are_in_the_order_of_numbers_where_they_are_numbers(tmp_path, suffix, labels, names):
    rows = [(f"text {label}", label) for label in labels]
    loaded = load(own_task(tmp_path, rows, rows, suffix=suffix))
    assert loaded.label_names == names
    assert named(loaded) == [(text, str(label)) for text, label in rows]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_minus_one_is_a_label_like_another_where_the_training_file_has_it(tmp_path, suffix):
    rows = [("bad", -1), ("so so", 0), ("good", 1)]
    loaded = load(own_task(tmp_path, rows, rows, suffix=suffix))
    assert loaded.label_names == ("-1", "0", "1")
    assert loaded.splits["train"].labels == loaded.splits["validation"].labels == [0, 1, 2]
    assert loaded.notes == ()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_minus_one_is_a_value_like_another_in_regression(tmp_path, suffix):
    rows = [("bad", -1), ("so so", 0.25), ("good", 1)]
    loaded = load(own_task(tmp_path, rows, rows, kind="regression", suffix=suffix))
    assert loaded.splits["train"].labels == [-1.0, 0.25, 1.0]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("mark", ["nan", "NaN"])
def test_a_gap_that_became_text_is_no_class_and_the_note_names_it(tmp_path, mark, suffix):
    rows = [*BALANCED, ("e", mark), ("f", ""), ("g", "NA")]
    loaded = load(own_task(tmp_path, rows, suffix=suffix))
    assert loaded.label_names == ("NA", "no", "yes")
    assert named(loaded) == [*BALANCED, ("g", "NA")]
    why = f"no gold label ({mark!r} is read as missing; if it is a label, rename it)"
    assert loaded.notes == (f"{tmp_path}/train{suffix}: dropped 2 of 7 examples: {why}",)


@pytest.mark.parametrize("mark", ["", None])
def test_examples_without_a_gold_label_are_dropped_and_counted_and_their_mark_is_no_label(tmp_path, mark):
    rows = [*BALANCED, ("e", mark), ("f", mark)]
    loaded = load(own_task(tmp_path, rows, suffix=".jsonl"))
    assert loaded.label_names == ("no", "yes")
    assert named(loaded) == BALANCED
    assert loaded.splits["train"].ids == ["0", "1", "2", "3"]
    assert loaded.notes == (f"{tmp_path}/train.jsonl: dropped 2 of 6 examples: no gold label",)


def test_a_task_of_one_text_column_is_called_after_the_folder_of_its_train_file(tmp_path):
    loaded = load(own_task(tmp_path, BALANCED))
    assert (loaded.name, loaded.kind, loaded.metric) == (tmp_path.name, "classification", "accuracy")
    assert list(loaded.splits) == ["train", "validation"]
    assert loaded.splits["train"].texts == [("a",), ("b",), ("c",), ("d",)]


def test_a_task_of_two_text_columns_reads_pairs_in_the_asked_order(tmp_path):
    (tmp_path / "t.csv").write_text("b,label,a\nB1,x,A1\nB2,y,A2\n")
    files = FilesSection(train=tmp_path / "t.csv", validation=tmp_path / "t.csv")
    loaded = load(OwnTask(files=files, text=["a", "b"], label="label", metric="f1"))
    assert loaded.name == "t"
    assert loaded.splits["validation"].texts == [("A1", "B1"), ("A2", "B2")]
    assert loaded.metric == "f1"


@pytest.mark.parametrize("test", [[("e", None)], [("e", ""), ("f", "")]])
def test_a_test_file_may_come_without_labels(tmp_path, test):
    loaded = load(own_task(tmp_path, BALANCED, test=test))
    assert list(loaded.splits) == ["train", "validation", "test"]
    assert loaded.splits["test"].labels is None
    assert loaded.splits["test"].texts == [(text,) for text, _ in test]
    assert loaded.notes == ()


def test_a_test_file_with_labels_keeps_them(tmp_path):
    assert named(load(own_task(tmp_path, BALANCED, test=[("e", "yes")])), "test") == [("e", "yes")]


def test_an_unknown_label_is_refused_with_its_place_and_the_labels_there_are(tmp_path):
    message = refused(own_task(tmp_path, BALANCED, [("a", "yes"), ("b", "yess")]))
    assert message == (
        f"{tmp_path}/validation.csv:3: unknown label 'yess'; the labels are no, yes; did you mean 'yes'?"
    )


def test_a_label_or_column_in_another_unicode_form_is_told_apart(tmp_path):
    names = [("a", "café"), ("b", "thé")] * 2
    message = refused(own_task(tmp_path, names, [("a", "cafe\u0301")]))
    assert message.endswith("; 'cafe\\u0301' is another Unicode form of 'caf\\xe9': write it one way")
    told = str(no_column("a.csv", "texte re\u0301el", ["texte réel", "label"]))
    assert told.endswith("; 'texte re\\u0301el' is another Unicode form of 'texte r\\xe9el': write it one way")


@pytest.mark.parametrize(
    ("count", "label", "told"),
    [
        (9, "0.0055", "0.000, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, ... (9 in all); did you mean '0.005'?"),
        (
            3000,
            "0.8575",
            "0.000, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, ... (3000 in all); "
            "if they are values, not classes, set kind: regression",
        ),
    ],
)
def test_of_many_labels_the_first_few_are_named_and_many_numbers_may_be_values(tmp_path, count, label, told):
    train = [(str(n), f"{n / 1000:.3f}") for n in range(count)]
    message = refused(own_task(tmp_path, train, [("a", label)]))
    assert message == f"{tmp_path}/validation.csv:2: unknown label {label!r}; the labels are {told}"


def test_texts_that_are_taken_for_labels_are_cut(tmp_path):
    rows = [(str(n), f"{n} " + "word " * 1000) for n in range(50)]
    assert len(refused(own_task(tmp_path, rows, [("a", "word " * 1000)]))) < 700


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused(tmp_path, split):
    files = {"train": BALANCED, "validation": BALANCED, split: []}
    message = refused(own_task(tmp_path, **files))
    assert message == f"split {split} is empty: {tmp_path}/{split}.csv holds no examples"


def test_training_on_one_label_alone_is_refused(tmp_path):
    message = refused(own_task(tmp_path, [("a", "yes"), ("b", "yes")], [("a", "yes")]))
    assert f"every training example of {tmp_path.name} has the label 'yes'" in message
    message = refused(own_task(tmp_path, [("a", 2.5), ("b", 2.5)], [("a", 1.0)], kind="regression"))
    assert f"every training example of {tmp_path.name} has the label 2.5" in message


def test_a_text_column_without_any_text_to_train_on_is_refused(tmp_path):
    message = refused(own_task(tmp_path, [("", 0), (" ", 1)]))
    assert message == (
        f"{tmp_path}/train.csv: column 'text' has no text in any row; name another column, or leave it out"
    )
    assert read_task(own_task(tmp_path, BALANCED, [("", "no")]), DataSection()).splits["validation"].texts == [("",)]


@pytest.mark.parametrize("validation", [[("a", ""), ("b", "")]])
def test_a_validation_split_without_any_label_is_refused(tmp_path, validation):
    message = refused(own_task(tmp_path, BALANCED, validation))
    assert message == f"split validation has no labels: {tmp_path}/validation.csv"


def test_a_validation_file_without_the_label_column_is_refused(tmp_path):
    assert "validation.csv: no column 'label'" in refused(own_task(tmp_path, BALANCED, [("a", None)]))


@pytest.mark.parametrize("value", ["high", "nan", "inf", "1,5"])
def test_a_regression_label_that_is_no_finite_number_is_refused_with_its_place(tmp_path, value):
    message = refused(own_task(tmp_path, [("a", 1), ("b", 2), ("c", value)], kind="regression"))
    hint = "; write it with a point and no comma" if value == "1,5" else ""
    assert message == f"{tmp_path}/train.csv:4: a regression label should be a finite float32, not {value!r}{hint}"


def test_regression_reads_values_and_has_no_label_names(tmp_path):
    loaded = load(own_task(tmp_path, [("a", "1.5"), ("b", "-2e1")], [("c", 0)], kind="regression"))
    assert (loaded.label_names, loaded.metric) == ((), "spearman")
    assert loaded.splits["train"].labels == [1.5, -20.0]


@pytest.mark.parametrize("wanted", [["validation"], ["test"]])
def test_only_the_wanted_splits_are_read_beside_the_training_split_that_names_the_labels(tmp_path, wanted):
    task = own_task(tmp_path, BALANCED, test=[("e", "yes")])
    other = {"validation": "test", "test": "validation"}[wanted[0]]
    (tmp_path / f"{other}.csv").unlink()
    loaded = load(task, splits=wanted)
    assert list(loaded.splits) == ["train", *wanted]
    assert loaded.label_names == ("no", "yes")


# The subsample


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["classification", "regression"]),
)
def test_a_subsample_has_the_asked_size_and_each_labels_share(counts, share, seed, kind):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    size = max(2, round(share * len(labels)))
    assume(size * sorted(counts)[-2] >= len(labels))  # else one label may be all that is left, which is refused
    rows = [(f"t{i}", label if kind == "classification" else i) for i, label in enumerate(labels)]
    with tempfile.TemporaryDirectory() as folder:
        task = own_task(Path(folder), rows, rows, kind=kind)
        whole = load(task, seed).splits["train"]
        examples, again = (load(task, seed, train_size=size).splits["train"] for _ in range(2))
    assert examples == again
    assert len(examples) == len(set(examples.ids)) == size
    positions = [whole.ids.index(name) for name in examples.ids]
    assert positions == sorted(positions)
    assert examples == whole.take(positions)
    if kind == "classification":
        taken = Counter(examples.labels)
        shares = [size * count / len(labels) for count in counts]
        if min(shares) >= 1:
            assert all(abs(taken[label] - share) < 1 for label, share in enumerate(shares))
        elif size >= len(counts):
            assert len(taken) == len(counts), "no label is lost"


def test_other_seeds_draw_other_subsamples_and_leave_validation_alone(tmp_path):
    rows = [(f"t{i}", i % 2) for i in range(60)]
    task = own_task(tmp_path, rows, rows)
    draws = [load(task, seed, train_size=20) for seed in range(8)]
    assert len({tuple(draw.splits["train"].ids) for draw in draws}) == 8
    assert all(len(draw.splits["validation"]) == 60 for draw in draws)
    union = {name for draw in draws for name in draw.splits["train"].ids}
    assert len(union) > 50


def test_a_subsample_as_large_as_the_split_is_the_split(tmp_path):
    task = own_task(tmp_path, BALANCED)
    assert load(task, train_size=4) == load(task)


def test_more_training_examples_than_there_are_is_refused(tmp_path):
    message = refused(own_task(tmp_path, BALANCED), train_size=5)
    assert message == f"data.train_size: 5 is more than the 4 training examples of {tmp_path.name}"


def test_what_is_held_out_is_training_data_that_no_seed_trains_on(tmp_path):
    rows = [(f"t{i}", "no" if i % 4 else "yes") for i in range(80)]
    task = own_task(tmp_path, rows, BALANCED, BALANCED)
    draws = [load(task, seed, held_out=20, train_size=40) for seed in range(8)]
    assert all(list(draw.splits) == ["train", "held_out"] for draw in draws)
    assert all(draw.splits["held_out"] == draws[0].splits["held_out"] for draw in draws)
    kept = set(draws[0].splits["held_out"].ids)
    assert all(len(draw.splits["train"]) == 40 and kept.isdisjoint(draw.splits["train"].ids) for draw in draws)
    assert Counter(label for _, label in named(draws[0], "held_out")) == {"no": 15, "yes": 5}
    assert load(task, splits=["held_out"], held_out=20).splits["held_out"] == draws[0].splits["held_out"]
    assert list(load(task, splits=["validation"], held_out=20).splits) == list(load(task, splits=["validation"]).splits)


def test_a_label_of_spaces_is_no_label(tmp_path):
    task = load(own_task(tmp_path, [*BALANCED, ("blank", "  ")]))
    assert "blank" not in {text for text, _ in named(task)}
    assert all(name.strip() for name in task.label_names)


def test_texts_that_stand_there_twice_are_not_held_out(tmp_path):
    rows = [(f"t{i % 30}" if i < 60 else f"u{i}", "yn"[i % 2]) for i in range(90)]
    splits = load(own_task(tmp_path, rows), held_out=20).splits
    assert len(splits["held_out"]) == 20
    assert not {*splits["held_out"].texts} & {*splits["train"].texts}
    assert refused(own_task(tmp_path, rows), held_out=29).endswith(
        f"90 training examples of {tmp_path.name} (60 have the texts of another, and stay); at most 28"
    )


def test_a_label_with_one_example_is_trained_on(tmp_path):
    rows = [(f"t{i}", "rare" if i == 3 else "yn"[i % 2]) for i in range(20)]
    splits = load(own_task(tmp_path, rows), held_out=10).splits
    assert len(splits["held_out"]) == 10
    assert len(set(splits["train"].labels)) == 3


def test_to_hold_out_all_there_is_is_refused(tmp_path):
    message = refused(own_task(tmp_path, BALANCED), held_out=3)
    assert message.startswith("data.held_out: 3 leaves too few of the 4 training examples")
    assert message.endswith("at most 2")
    assert "data.train_size: 3 is more than the 2" in refused(own_task(tmp_path, BALANCED), held_out=2, train_size=3)


# The fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"train": [("a!", "yes"), *BALANCED[1:]]},
        {"train": [("a", "no"), *BALANCED[1:]]},
        {"train": BALANCED[::-1]},
        {"train": [*BALANCED, BALANCED[0]]},
        {"validation": BALANCED[:3]},
        {"validation": [("d", "no"), ("c", "yes"), ("b", "no"), ("a", "yes")]},
        {"test": BALANCED},
        {"test": [("a", None)]},
    ],
)
def test_the_fingerprint_changes_with_any_example(tmp_path, change):
    before = load(own_task(tmp_path, BALANCED))
    files = {"train": BALANCED, "validation": BALANCED, **change}
    after = load(own_task(tmp_path, **files))
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_depends_on_the_examples_not_on_where_or_how_they_are_kept(tmp_path):
    prints = set()
    for suffix in (".csv", ".jsonl"):
        (tmp_path / suffix).mkdir()
        prints.add(load(own_task(tmp_path / suffix, BALANCED, suffix=suffix)).fingerprint)
    assert len(prints) == 1


def test_the_fingerprint_tells_subsamples_apart(tmp_path):
    task = own_task(tmp_path, [(f"t{i}", i % 2) for i in range(40)], [("t", 0)])
    assert len({load(task, seed, train_size=10).fingerprint for seed in range(4)}) == 4


# Tasks of the table in a local folder


def write_nli(folder, name, **splits):
    (folder / name).mkdir(parents=True)
    for split, rows in splits.items():
        lines = [json.dumps({"premise": f"p{i}", "hypothesis": "h", "label": row}) for i, row in enumerate(rows)]
        (folder / name / f"{split}.jsonl").write_text("\n".join(lines))


def test_labels_of_a_known_task_have_the_tables_order_not_the_files(tmp_path):
    write_nli(tmp_path, "snli", train=["contradiction", "neutral", "entailment"], validation=["neutral"])
    loaded = load("snli", dir=tmp_path)
    assert loaded.label_names == ("entailment", "neutral", "contradiction")
    assert loaded.splits["train"].labels == [2, 1, 0]
    assert loaded.splits["validation"].labels == [1]


@pytest.mark.parametrize("mark", ["-", "-1", -1, "", None])
def test_pairs_without_a_gold_label_are_dropped_and_counted(tmp_path, mark):
    write_nli(tmp_path, "snli", train=["neutral", mark, "entailment"], validation=["neutral", mark, mark])
    loaded = load("snli", dir=tmp_path)
    assert loaded.splits["train"].texts == [("p0", "h"), ("p2", "h")]
    assert loaded.splits["validation"].labels == [1]
    assert loaded.notes == (
        f"{tmp_path}/snli/train.jsonl: dropped 1 of 3 examples: no gold label",
        f"{tmp_path}/snli/validation.jsonl: dropped 2 of 3 examples: no gold label",
    )


@pytest.mark.parametrize("position", [0, 2])
def test_a_label_given_by_its_position_is_refused(tmp_path, position):
    write_nli(tmp_path, "snli", train=["neutral", position], validation=["neutral"])
    message = refused("snli", dir=tmp_path)
    assert message.startswith(f"{tmp_path}/snli/train.jsonl:2: unknown label '{position}'")
    assert message.endswith("the labels are entailment, neutral, contradiction")


@pytest.mark.parametrize(
    "columns",
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("text1", "text2"), ("#1 String", "#2 String")],
)
@pytest.mark.parametrize("labels", [("equivalent", "not_equivalent"), ("1", "0"), (1, 0)])
def test_jsonl_may_use_any_of_a_tasks_usual_columns_and_raw_labels(tmp_path, columns, labels):
    (tmp_path / "mrpc").mkdir()
    lines = [json.dumps({columns[0]: "A", columns[1]: "B", "label": label}) for label in labels]
    for split in ("train", "validation"):
        (tmp_path / "mrpc" / f"{split}.jsonl").write_text("\n".join(lines))
    loaded = load("mrpc", dir=tmp_path)
    assert loaded.splits["train"].texts == [("A", "B"), ("A", "B")]
    assert [loaded.label_names[label] for label in loaded.splits["train"].labels] == ["equivalent", "not_equivalent"]


def test_jsonl_of_mnli_may_have_one_validation_file_or_two(tmp_path):
    write_nli(tmp_path / "one", "mnli", train=["neutral", "entailment"], validation=["neutral"])
    assert list(load("mnli", dir=tmp_path / "one").splits) == ["train", "validation"]
    two = {"validation_matched": ["neutral"], "validation_mismatched": ["entailment", "neutral"]}
    write_nli(tmp_path / "two", "mnli", train=["neutral", "entailment"], **two)
    splits = load("mnli", dir=tmp_path / "two").splits
    assert {split: len(examples) for split, examples in splits.items()} == {
        "train": 2,
        "validation_matched": 1,
        "validation_mismatched": 2,
    }


def test_raw_labels_of_glue_files_become_label_names(tmp_path):
    (tmp_path / "CoLA").mkdir()
    for file in ("train.tsv", "dev.tsv"):
        (tmp_path / "CoLA" / file).write_text("gj04\t0\t*\tThem is.\ngj04\t1\t\tThey are.\n")
    loaded = load("cola", dir=tmp_path)
    assert named(loaded) == [("Them is.", "unacceptable"), ("They are.", "acceptable")]


def test_a_data_folder_that_is_not_there_is_refused(tmp_path):
    message = refused("rte", dir=tmp_path / "nowhere")
    assert message.startswith(f"there is no folder {tmp_path}/nowhere; --data-dir names the folder that holds")


@pytest.mark.parametrize(
    ("name", "expected"), [("rte", "expected RTE/*.tsv or rte/*.jsonl there"), ("sick", "expected sick/*.jsonl there")]
)
def test_a_data_folder_without_the_task_is_refused_with_what_it_should_hold(tmp_path, name, expected):
    (tmp_path / "train.tsv").touch()
    message = refused(name, dir=tmp_path)
    assert message == f"no task {name} in {tmp_path}: {expected}"


def test_a_missing_jsonl_file_and_a_missing_column_are_named(tmp_path):
    write_nli(tmp_path, "snli", train=["neutral", "entailment"])
    assert refused("snli", dir=tmp_path) == f"there is no file {tmp_path}/snli/validation.jsonl"
    (tmp_path / "snli" / "train.jsonl").write_text('{"premis": "a", "hypothesis": "b", "label": "neutral"}\n')
    expected = "no column 'premise'; its columns are premis, hypothesis, label; did you mean 'premis'?"
    assert refused("snli", dir=tmp_path) == f"{tmp_path}/snli/train.jsonl: {expected}"


@pytest.mark.parametrize("local", [True, False])
def test_a_split_that_a_task_lacks_is_refused_with_those_it_has(tmp_path, local):
    write_nli(tmp_path, "hans", train=["entailment", "non-entailment"])
    message = refused("hans", splits=["test"], dir=tmp_path if local else None)
    assert message == "task hans has no split 'test'; it has train, validation"


def test_a_split_that_an_own_task_lacks_is_refused_with_those_it_has(tmp_path):
    message = refused(own_task(tmp_path, BALANCED), splits=["test"])
    assert message == f"task {tmp_path.name} has no split 'test'; it has train, validation"


def test_a_known_task_may_lie_elsewhere_on_the_hub_under_other_columns(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    text = datasets.Value("string")
    gold = datasets.ClassLabel(names=["contradiction", "entailment", "neutral"])  # another order than the table's
    features = datasets.Features({"first": text, "second": text, "gold": gold})
    rows = {"first": ["a", "b", "c"], "second": ["x", "y", "z"], "gold": [0, -1, 1]}
    (tmp_path / "hub").mkdir()
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "hub" / f"{split}.parquet")
    task = TableTask(name="snli", hub_id=str(tmp_path / "hub"), text=("first", "second"), label="gold")
    loaded = load(task)
    assert loaded.name == "snli"
    assert named(loaded) == named(loaded, "validation") == [("a", "contradiction"), ("c", "entailment")]
    assert loaded.splits["train"].labels == [2, 0]
    assert len(loaded.notes) == 2
    assert all("dropped 1 of 3 examples: no gold label" in note for note in loaded.notes)


def test_a_task_that_dpstune_makes_lies_nowhere_on_the_hub():
    assert "toy-nli is generated by dpstune" in refused(TableTask(name="toy-nli", hub_id="x"))


@needs_corpora
@pytest.mark.parametrize(
    ("name", "folder", "sizes", "train_labels"),
    [
        ("rte", "glue", (2490, 277), {"entailment": 1249, "not_entailment": 1241}),
        ("mrpc", "glue", (3576, 500), {"equivalent": 2407, "not_equivalent": 1169}),
        ("mnli", "nli", (8000, 1815), None),
        ("sick", "nli", (4500, 500), None),
    ],
)
def test_real_corpora_load_whole_with_their_label_names(name, folder, sizes, train_labels):
    loaded = load(name, dir=DATA / folder)
    assert tuple(len(examples) for examples in loaded.splits.values()) == sizes
    names = Counter(loaded.label_names[label] for label in loaded.splits["train"].labels)
    assert set(names) == set(loaded.label_names)
    assert train_labels is None or names == train_labels
    assert loaded.notes == ()


@needs_corpora
def test_real_stsb_has_values_from_0_to_5():
    loaded = load("stsb", dir=DATA / "glue")
    assert {split: len(examples) for split, examples in loaded.splits.items()} == {"train": 5749, "validation": 1500}
    values = [value for examples in loaded.splits.values() for value in examples.labels]
    assert (min(values), max(values)) == (0.0, 5.0)
    assert sum(values) / len(values) == pytest.approx(2.631246, abs=1e-6)


@needs_corpora
def test_real_test_files_are_read_with_and_without_labels():
    assert load("rte", dir=DATA / "glue", splits=["test"]).splits["test"].labels is None
    mrpc = load("mrpc", dir=DATA / "glue", splits=["test"])
    assert sum(mrpc.splits["test"].labels) == 1147


@needs_corpora
def test_real_snli_pairs_without_a_gold_label_are_dropped_and_counted():
    loaded = load("snli", dir=DATA / "nli", splits=["validation", "test"])
    assert {split: len(examples) for split, examples in loaded.splits.items()} == {"validation": 1273, "test": 1254}
    assert [note.partition(": ")[2] for note in loaded.notes] == [
        "dropped 16 of 1289 examples: no gold label",
        "dropped 23 of 1277 examples: no gold label",
    ]


def test_a_users_own_label_may_be_a_dash_or_minus_one(tmp_path):
    loaded = load(own_task(tmp_path, [("a", "+"), ("b", "-"), ("c", "-1")], [("a", "-1"), ("b", "-")]))
    assert loaded.label_names == ("+", "-", "-1")
    assert named(loaded, "validation") == [("a", "-1"), ("b", "-")]


def test_names_of_one_number_have_one_order_everywhere(tmp_path):
    loaded = load(own_task(tmp_path, [("a", "1.0"), ("b", "1"), ("c", "01"), ("d", "0")], [("a", "1")]))
    assert loaded.label_names == ("0", "01", "1", "1.0")
    assert load(own_task(tmp_path, [("a", "inf"), ("b", "2"), ("c", "10")], [("a", "2")])).label_names == (
        "10",
        "2",
        "inf",
    )


def write_jsonl(folder, train, validation):
    for split, rows in (("train", train), ("validation", validation)):
        lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    files = FilesSection(train=folder / "train.jsonl", validation=folder / "validation.jsonl")
    return OwnTask(files=files, text=["text"], label="label")


def test_whole_numbers_are_the_same_label_as_integers_and_as_floats(tmp_path):
    loaded = load(write_jsonl(tmp_path, [("a", 0), ("b", 1)], [("a", 0.0), ("b", 1.0), ("c", None), ("d", math.nan)]))
    assert named(loaded, "validation") == [("a", "0"), ("b", "1")]
    assert "dropped 2 of 4 examples" in loaded.notes[0]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (["a"], "holds a list, not text"),
        ({"a": 1}, "holds a mapping, not text"),
        (
            "\ud800",
            "does not hold text: 'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed",
        ),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path, value, why):
    task = write_jsonl(tmp_path, [("a", "x"), ("b", value)], [("a", "x")])
    hint = "; where an example may have several labels, say kind: multilabel" if isinstance(value, list) else ""
    assert refused(task) == f"{tmp_path}/train.jsonl:2: column 'label' {why}{hint}"
    task = write_jsonl(tmp_path, [("a", "x"), (value, "y")], [("a", "x")])
    assert refused(task) == f"{tmp_path}/train.jsonl:2: column 'text' {why}"


def test_values_beyond_float32_are_refused(tmp_path):
    message = refused(own_task(tmp_path, [("a", "1"), ("b", "1e39")], [("a", "1")], kind="regression"))
    assert message == f"{tmp_path}/train.csv:3: a regression label should be a finite float32, not '1e39'"


def test_ids_that_repeat_are_replaced_by_row_numbers(tmp_path):
    task = own_task(tmp_path, BALANCED)
    (tmp_path / "train.csv").write_text("id,text,label\n7,a,yes\n7,b,no\n")
    loaded = load(task)
    assert loaded.splits["train"].ids == ["0", "1"]
    assert "ids repeat" in loaded.notes[0]


def test_no_label_is_lost_from_a_subsample_that_has_room_for_all(tmp_path):
    rows = [(str(n), "common") for n in range(97)] + [("x", "rare"), ("y", "rarer"), ("z", "rarest")]
    loaded = load(own_task(tmp_path, rows, [("a", "common")]), train_size=4)
    assert sorted(label for _, label in named(loaded, "train")) == ["common", "rare", "rarer", "rarest"]


def test_a_file_in_another_encoding_is_read_on_request(tmp_path):
    task = own_task(tmp_path, [("café", "yes"), *BALANCED])
    (tmp_path / "train.csv").write_bytes((tmp_path / "train.csv").read_bytes().decode().encode("latin-1"))
    told = "save it as UTF-8, or say what it is by the task's key encoding: --set task.encoding=latin-1, cp1252 or "
    assert refused(task) == f"{tmp_path}/train.csv:2: not UTF-8 text (invalid continuation byte); {told}utf-16-le"
    assert named(load(task.model_copy(update={"encoding": "latin-1"})))[0] == ("café", "yes")


# Parts that are drawn from the training rows

MANY = [(f"text {n}", ("no", "yes", "yes")[n % 3]) for n in range(60)]


def drawn_task(folder, rows=MANY, header=("text", "label"), more=None, **parts):
    with (folder / "all.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return OwnTask(files={"train": folder / "all.csv", **parts}, text="text", label="label", **(more or {}))


def test_shares_are_drawn_from_the_training_rows_which_keep_their_numbers(tmp_path):
    loaded = load(drawn_task(tmp_path, validation=0.2, test=0.1))
    assert {split: len(part) for split, part in loaded.splits.items()} == {"train": 42, "validation": 12, "test": 6}
    assert sorted(int(each) for part in loaded.splits.values() for each in part.ids) == list(range(60))
    assert Counter(label for _, label in named(loaded, "validation")) == {"yes": 8, "no": 4}
    rows = [
        (int(each), *row)
        for split, part in loaded.splits.items()
        for each, row in zip(part.ids, named(loaded, split), strict=True)
    ]
    assert [row[1:] for row in sorted(rows)] == MANY
    assert loaded.notes == (f"{tmp_path}/all.csv: 60 rows are cut into 42 train, 12 validation, 6 test (split_seed 0)",)


def test_folds_cover_the_rows_that_the_test_share_leaves_whatever_the_seed(tmp_path):
    test = load(drawn_task(tmp_path, validation=0.2, test=0.1)).splits["test"]
    folds = [load(drawn_task(tmp_path, folds=3, fold=fold, test=0.1), seed=fold) for fold in (1, 2, 3)]
    assert all(fold.splits["test"] == test for fold in folds), "the test part is the same for shares and folds"
    validated = [each for fold in folds for each in fold.splits["validation"].ids]
    assert sorted(map(int, [*validated, *test.ids])) == list(range(60))
    assert all(set(fold.splits["train"].ids) == set(validated) - set(fold.splits["validation"].ids) for fold in folds)
    assert load(drawn_task(tmp_path, folds=3, test=0.1), seed=9).splits == folds[0].splits
    assert "18 validation, 6 test (fold 2 of 3, split_seed 0)" in folds[1].notes[-1]


def test_split_seed_draws_other_parts(tmp_path):
    first, other = (load(drawn_task(tmp_path, validation=0.2, more={"split_seed": seed})) for seed in (0, 1))
    assert first.splits["validation"] != other.splits["validation"]
    assert first.fingerprint != other.fingerprint


def test_groups_and_equal_texts_stand_on_one_side(tmp_path):
    rows = [
        (f"text {n % 20}" + " " * (n % 2), label, f"u{n % 5}" if n % 4 else "") for n, (_, label) in enumerate(MANY)
    ]
    task = drawn_task(tmp_path, rows, ("text", "label", "user"), validation=0.3, more={"group": "user"})
    sides = {
        split: {each for text, _ in named(load(task), split) for each in [text.strip()]}
        for split in ("train", "validation")
    }
    assert sides["train"].isdisjoint(sides["validation"])
    users = {split: {rows[int(each)][2] for each in load(task).splits[split].ids} - {""} for split in sides}
    assert users["train"].isdisjoint(users["validation"])
    assert "groups of 'user' kept together" in load(task).notes[-1]


def test_examples_keep_their_groups_in_every_split(tmp_path):
    rows = [("one", "yes", "ann"), ("two", "no", ""), ("three", "", "bob"), ("four", "no", "bob")]
    task = drawn_task(
        tmp_path, rows, ("text", "label", "user"), validation=tmp_path / "all.csv", more={"group": "user"}
    )
    loaded = load(task)
    for split in ("train", "validation"):
        assert loaded.splits[split].groups == ["ann", None, "bob"]
    assert loaded.splits["train"].take([2, 0]).groups == ["bob", "ann"]
    (tmp_path / "plain.csv").write_text("text,label\nfive,no\n")
    without = drawn_task(tmp_path, rows, ("text", "label", "user"), validation=tmp_path / "plain.csv")
    assert [each.groups for each in load(without).splits.values()] == [None, None]


def test_rows_without_a_label_are_left_out_before_parts_are_drawn(tmp_path):
    loaded = load(drawn_task(tmp_path, [*MANY, ("a", ""), ("b", "")], validation=0.2))
    assert sum(map(len, loaded.splits.values())) == 60


def test_nothing_is_evaluated_where_the_share_is_0(tmp_path):
    task = drawn_task(tmp_path, validation=0)
    assert list(load(task).splits) == ["train"]
    assert len(load(task).splits["train"]) == 60
    assert refused(task, splits=["validation"]) == "task all has no split 'validation'; it has train"


def test_a_share_and_a_file_go_together(tmp_path):
    own_task(tmp_path, BALANCED)
    loaded = load(drawn_task(tmp_path, validation=tmp_path / "validation.csv", test=0.1))
    assert {split: len(part) for split, part in loaded.splits.items()} == {"train": 54, "validation": 4, "test": 6}
    alone = load(drawn_task(tmp_path, validation=0.2, test=0.1), splits=["validation"])
    assert (list(alone.splits), len(alone.splits["train"])) == (["train", "validation"], 42)


def test_values_are_drawn_evenly(tmp_path):
    rows = [(f"t{n}", n / 10) for n in range(100)]
    values = load(drawn_task(tmp_path, rows, validation=0.2, more={"kind": "regression"})).splits["validation"].labels
    assert len(values) == 20
    assert sum(values) / 20 == pytest.approx(4.95, abs=0.5)


def test_held_out_examples_come_from_what_is_trained_on(tmp_path):
    whole = load(drawn_task(tmp_path, validation=0.2))
    held = load(drawn_task(tmp_path, validation=0.2), held_out=6)
    assert {*held.splits["train"].ids, *held.splits["held_out"].ids} == set(whole.splits["train"].ids)
    task = drawn_task(tmp_path, validation=0.2, more={"group": "text"})
    assert refused(task, held_out=6).startswith("data.held_out: 6 would tear groups of 'text' apart")


def test_labels_with_too_few_rows_are_named(tmp_path):
    loaded = load(drawn_task(tmp_path, [*MANY, ("a", "rare"), ("b", "rare")], folds=5))
    assert loaded.notes[-1].endswith("the label rare has fewer rows than there are folds (5): some hold none of it")
    rows = [(text, label, label if label == "no" else text) for text, label in MANY]
    loaded = load(drawn_task(tmp_path, rows, ("text", "label", "who"), validation=0.5, more={"group": "who"}))
    assert "the label no is not" in " ".join(loaded.notes)


@pytest.mark.parametrize(
    ("more", "parts", "message"),
    [
        ({}, {"validation": 0.001}, "validation: a share of 0.001 of 60 rows is no row"),
        ({}, {"folds": 61}, "60 rows cannot make 61 parts: there are 60 that may stand in different ones"),
        ({"group": "label"}, {"folds": 3}, "60 rows cannot make 3 parts: there are 2 that may stand in different ones"),
        ({"group": "lable"}, {"folds": 3}, "no column 'lable'; its columns are text, label; did you mean 'label'?"),
    ],
)
def test_parts_that_cannot_be_drawn_are_refused(tmp_path, more, parts, message):
    assert refused(drawn_task(tmp_path, more=more, **parts)).startswith(f"{tmp_path}/all.csv: {message}")


# Which of two labels counts


FRAUD = [("a", "fraud"), ("b", "legit"), ("c", "legit")]


def with_positive(task, label):
    return type(task).model_validate({**task.model_dump(), "positive": label})


def test_the_label_that_is_named_comes_second(tmp_path):
    task = own_task(tmp_path, FRAUD, FRAUD)
    assert load(task).label_names == ("fraud", "legit")
    loaded = load(with_positive(task, "fraud"))
    assert loaded.label_names == ("legit", "fraud")
    assert loaded.splits["validation"].labels == [1, 0, 0]
    assert named(loaded) == FRAUD


def test_a_label_that_is_a_number_may_be_named_as_one(tmp_path):
    task = own_task(tmp_path, [("a", "0"), ("b", "1")], [("a", "0")])
    assert load(with_positive(task, 0)).label_names == ("1", "0")


def test_f1_is_that_of_the_named_label(tmp_path):
    task = load(with_positive(own_task(tmp_path, FRAUD, FRAUD, metric="f1"), "fraud"))
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # one of two that are called fraud is
    assert evaluate_split(task, "validation", scores).metrics["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("rows", "label", "message"),
    [
        (FRAUD, "frau", "has no label 'frau'; its labels are fraud, legit; did you mean 'fraud'?"),
        ([*FRAUD, ("d", "other")], "fraud", "has 3 labels (fraud, legit, other); it names one of two"),
    ],
)
def test_a_label_that_is_not_one_of_two_is_refused(tmp_path, rows, label, message):
    task = with_positive(own_task(tmp_path, rows, rows), label)
    assert message in refused(task)
    with pytest.raises(RequestError, match=r"task\.positive"):  # as check reads it
        read_raw(task, DataSection())


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_only_classes_have_one_that_counts(tmp_path, kind):
    with pytest.raises(ValueError, match=f"one of the two labels of a classification task; this one is {kind}"):
        with_positive(own_task(tmp_path, FRAUD, FRAUD, kind=kind), "fraud")


# A dataset of the hub


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Write a dataset as the hub holds one, with the labels given by their indices; return a task on it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def write(labels, feature, kind="classification", more=None, **splits):
        columns = {
            "review": [f"r{n}" for n in range(len(labels))],
            "stars": labels,
            "user": [f"u{n % 7}" for n in range(len(labels))],
        }
        features = datasets.Features(
            {"review": datasets.Value("string"), "stars": feature, "user": datasets.Value("string")}
        )
        (tmp_path / "hub").mkdir()
        datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "hub" / "train.parquet")
        given = {"text": "review", "label": "stars", **(more or {})}
        return DatasetTask(dataset=str(tmp_path / "hub"), kind=kind, splits={"train": "train", **splits}, **given)

    return write


def test_a_dataset_of_the_hub_is_read_by_its_label_names_and_cut(dataset):
    names = datasets.ClassLabel(names=["poor", "good", "so so"])
    loaded = load(dataset([0, 1, 1, -1] * 20, names, more={"group": "user"}, validation=0.2))
    assert (loaded.name, loaded.label_names) == ("hub", ("good", "poor", "so so"))
    assert named(loaded, "train")[0][1] in ("poor", "good")
    assert len(loaded.splits["train"]) + len(loaded.splits["validation"]) == 60
    told = " ".join(loaded.notes)
    assert "dropped 20 of 80 examples: no gold label" in told
    assert "no example has the label so so, which the dataset knows" in told
    assert "groups of 'user' kept together" in told


def test_minus_one_is_a_value_of_a_dataset(dataset):
    loaded = load(dataset([-1.0, 0.5] * 5, datasets.Value("float32"), "regression", folds=2))
    assert sorted({*loaded.splits["train"].labels, *loaded.splits["validation"].labels}) == [-1.0, 0.5]


def test_minus_one_is_a_label_of_a_dataset_whose_numbers_have_no_names(dataset):
    task = dataset([-1, 1] * 5, datasets.Value("int64"), test="train", folds=2)
    loaded = load(task)
    assert loaded.label_names == ("-1", "1")
    assert sum(map(len, loaded.splits.values())) == 20
    assert not [note for note in loaded.notes if "dropped" in note]


def test_a_test_split_of_minus_ones_alone_has_no_labels(dataset):
    task = dataset([-1, 1] * 5, datasets.Value("int64"), test="test", folds=2)
    hidden = datasets.Dataset.from_dict({"review": ["r", "s"], "stars": [-1, -1], "user": ["u", "v"]})
    hidden.to_parquet(Path(task.dataset) / "test.parquet")
    assert load(task).splits["test"].labels is None


def test_labels_in_lists_have_the_datasets_names(dataset):
    names = datasets.List(datasets.ClassLabel(names=["sad", "glad", "calm"]))
    loaded = load(dataset([[0], [1, 0], []] * 10, names, "multilabel", validation="train"))
    assert loaded.label_names == ("calm", "glad", "sad")
    assert loaded.splits["validation"].labels == [(0, 0, 1), (0, 1, 1), (0, 0, 0)] * 10
    assert "no example has the label calm, which the dataset knows" in " ".join(loaded.notes)


@pytest.mark.parametrize(("names", "labels"), [(["sad", "glad"], ["glad", "sad"]), (["so; so", "glad"], ["0", "1"])])
def test_names_that_lists_cannot_hold_leave_the_numbers_and_minus_one_is_no_label(dataset, names, labels):
    feature = datasets.List(datasets.ClassLabel(names=names))
    rows = [[0], [1, 0], [*([-1] if "glad" in labels else [])]] * 10
    loaded = load(dataset(rows, feature, "multilabel", validation="train"))
    assert loaded.label_names == tuple(labels)
    assert loaded.splits["validation"].labels[2] == (0, 0)


@pytest.mark.parametrize(
    ("more", "splits", "message"),
    [
        (
            {},
            {"validation": "dev"},
            "Should be one of ['train']; where it has no validation split, a share of the training ",
        ),
        (
            {"text": "reviw"},
            {"folds": 2},
            "(train): no column 'reviw'; its columns are review, stars, user; did you mean 'review'",
        ),
        (
            {"label": "star"},
            {"folds": 2},
            "(train): no column 'star'; its columns are review, stars, user; did you mean 'stars'",
        ),
        (
            {"group": "usr"},
            {"folds": 2},
            "(train): no column 'usr'; its columns are review, stars, user; did you mean 'user'",
        ),
        ({"config": "other"}, {"folds": 2}, "(other): BuilderConfig 'other' not found"),
    ],
)
def test_what_a_dataset_lacks_is_named_with_what_it_has(dataset, more, splits, message):
    assert message in refused(dataset([0, 1] * 5, datasets.ClassLabel(names=["no", "yes"]), more=more, **splits))
