"""Each finding: a small table with the flaw has it, the clean one has none."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from dpstune.data.checking import check_task, told_before_training
from dpstune.data.columns import Column
from dpstune.data.gold_labels import UNLABELLED, WRITTEN_GAPS, gaps
from dpstune.data.lengths import token_lengths, word_lengths
from dpstune.data.reading import RawTask, read_raw
from dpstune.data.sources import RawSplit
from dpstune.recipe.recipe import load_recipe
from tests.conftest import write_table
from tests.tiny import tiny_tokenizer

WORDS = [f"{first}{second}er" for first in "bdklm" for second in ("in", "ol", "amp")]


def table(source, count, seed, labels=("yes", "no")):
    """Return a split with nothing wrong: different texts, labels in turns; the first row is line 2."""
    rng = random.Random(seed)
    texts = [(" ".join(rng.sample(WORDS, 8)),) for _ in range(count)]
    return RawSplit(
        source,
        [str(n) for n in range(count)],
        texts,
        [labels[n % len(labels)] for n in range(count)],
        list(range(2, count + 2)),
    )


@pytest.fixture
def raw():
    return {"train": table("a.csv", 40, seed=1), "validation": table("b.csv", 12, seed=2)}


def check_examples(raw, *, kind="classification", unlabelled=(*UNLABELLED, *WRITTEN_GAPS), groups=None, **options):
    """Return the findings on splits; ``options`` are those of ``RawTask`` and of ``check_task``."""
    if groups is not None:
        raw = {split: replace(part, groups=groups.get(split, [])) for split, part in raw.items()}
    of_task = {name: options.pop(name) for name in ("text", "label", "parts") if name in options}
    return check_task(RawTask(kind, raw, unlabelled, **of_task), **options)


def found(raw, **options):
    return {finding.name: finding for finding in check_examples(raw, **options)}


def test_nothing_is_wrong_with_a_clean_table(raw):
    assert check_examples(raw, text=("text",), label="label", lengths=word_lengths(raw, 128)) == []
    assert check_examples({"train": raw["train"]}, parts=5) == []


FLAWS = {}


def flaw(name, severity, places=None, **options):
    """Register what spoils the clean splits, and the finding that should come of it."""

    def register(spoil):
        FLAWS[spoil.__name__] = (spoil, name, severity, places, options)
        return spoil

    return register


@flaw("label-spellings", "error", ("a.csv:2",))
def another_case(raw):
    raw["train"].labels[0] = "YES "


@flaw("label-spellings", "error", ("a.csv:3", "b.csv:3"))
def another_number_form(raw):
    for split in raw.values():
        split.labels[:] = ["1" if label == "yes" else "2" for label in split.labels]
        split.labels[1] = "2.0"


@flaw("label-spellings", "error", ("a.csv:2",))
def another_unicode_form(raw):
    for split in raw.values():
        split.labels[:] = ["caf\u00e9" if label == "yes" else label for label in split.labels]
    raw["train"].labels[0] = "cafe\u0301"


@flaw("label-once", "warning", ("a.csv:2",))
def a_label_seen_once(raw):
    raw["train"].labels[0] = "perhaps"


@flaw("label-rare", "warning", ("a.csv:2", "a.csv:3", "a.csv:4"), parts=5)
def fewer_rows_than_folds(raw):
    del raw["validation"]
    raw["train"].labels[:4] = ["perhaps"] * 4


@flaw("label-of-its-own", "error", ())
def every_row_its_own_label(raw):
    raw["train"].labels[:] = [f"row {n}" for n in range(40)]


@flaw("numbers-as-labels", "warning", ())
def many_numbers(raw):
    raw["train"].labels[:] = [str(n % 21 / 4) for n in range(40)]


@flaw("numbers-as-labels", "warning", ())
def many_numbers_with_a_comma(raw):
    raw["train"].labels[:] = [f"{n % 21},5" for n in range(40)]


@flaw("numbers-as-labels", "error", ())
def numbers_that_are_all_different(raw):
    raw["train"].labels[:] = [str(n / 4) for n in range(40)]


@flaw("no-number", "error", ("a.csv:2", "b.csv:3"), kind="regression")
def no_number(raw):
    for split in raw.values():
        split.labels[:] = [str(n) for n in range(len(split.labels))]
    raw["train"].labels[0] = "high"
    raw["validation"].labels[1] = "inf"


@flaw("label-not-trained", "error", ("b.csv:6",))
def a_label_of_the_validation_split_alone(raw):
    raw["validation"].labels[4] = "perhaps"


@flaw("label-not-trained", "warning", ("b.csv:6",))
def a_label_that_the_dataset_knows_and_the_validation_split_alone_has(raw):
    raw["train"].label_names = ("no", "perhaps", "yes")
    raw["validation"].labels[4] = "perhaps"


@flaw("unlabelled", "note", ("a.csv:2", "a.csv:3"))
def a_few_rows_without_a_label(raw):
    raw["train"].labels[:2] = ["", None]


@flaw("unlabelled", "warning", ("a.csv:2", "a.csv:3", "a.csv:4"))
def many_rows_without_a_label(raw):
    raw["train"].labels[:10] = ["nan"] * 10


@flaw("label-or-none", "note", ("a.csv:2", "a.csv:3"))
def a_label_that_may_be_none(raw):
    raw["train"].labels[:2] = ["N/A"] * 2


@flaw("one-label", "error", ())
def one_label(raw):
    raw["train"].labels[:] = ["yes"] * 40


@flaw("one-label", "error", (), kind="regression")
def one_value(raw):
    for split in raw.values():
        split.labels[:] = ["1"] * len(split.labels)


@flaw("imbalance", "warning", ())
def one_label_nearly_everywhere(raw):
    raw["train"].labels[:] = ["yes"] * 37 + ["no"] * 3


@flaw("imbalance", "note", ())
def one_label_mostly(raw):
    raw["train"].labels[:] = ["yes"] * 32 + ["no"] * 8


@flaw("label-is-text", "error", (), text=("text", "label"), label="label")
def the_label_column_as_text(raw):
    for part in raw.values():
        part.texts[:] = [(text, label) for (text,), label in zip(part.texts, part.labels, strict=True)]


@flaw("label-in-text", "warning", ("a.csv:2", "a.csv:4", "a.csv:6"))
def the_label_in_the_text(raw):
    part = raw["train"]
    part.texts[:] = [(f"{text}. ({label.upper()})",) for (text,), label in zip(part.texts, part.labels, strict=True)]


@flaw("duplicates", "note", ("a.csv:11 = a.csv:4",))
def a_row_twice(raw):
    raw["train"].texts[9] = (f"  {raw['train'].texts[2][0].upper()}",)
    raw["train"].labels[9] = raw["train"].labels[2]


@flaw("duplicates", "warning", ("a.csv:11 = a.csv:4",), parts=5)
def a_row_twice_before_a_cut(raw):
    a_row_twice(raw)


@flaw("duplicates-across", "warning", ("b.csv:3 = a.csv:4",))
def a_row_in_two_splits(raw):
    raw["validation"].texts[1] = raw["train"].texts[2]
    raw["validation"].labels[1] = raw["train"].labels[2]


@flaw("duplicates-across", "error", ("b.csv:2 = a.csv:2", "b.csv:3 = a.csv:3", "b.csv:4 = a.csv:4"))
def a_split_of_training_rows(raw):
    raw["validation"].texts[:] = raw["train"].texts[:12]


@flaw("near-duplicates", "note", ("a.csv:11 ~ a.csv:4",))
def nearly_a_row_twice(raw):
    raw["train"].texts[9] = (f"{raw['train'].texts[2][0]} too",)


@flaw("near-duplicates-across", "warning", ("b.csv:3 ~ a.csv:4",))
def nearly_a_row_in_two_splits(raw):
    raw["validation"].texts[1] = (f"{raw['train'].texts[2][0]} too",)


@flaw("contradiction", "warning", ("b.csv:3 = a.csv:4",))
def two_labels_for_one_text(raw):
    raw["validation"].texts[1] = raw["train"].texts[2]
    raw["validation"].labels[1] = "no"


@flaw("empty-text", "warning", ("a.csv:2", "a.csv:3"))
def empty_texts(raw):
    raw["train"].texts[:2] = [("",), (" \t ",)]


@flaw("short-text", "note", ("a.csv:4",))
def a_short_text(raw):
    raw["train"].texts[2] = (" ok ",)


@flaw("misread-text", "warning", ("a.csv:2", "a.csv:3", "b.csv:4"))
def texts_read_in_another_encoding(raw):
    raw["train"].texts[0] = ("das Büro im Süden".encode().decode("latin-1"),)
    raw["train"].texts[1] = ("the boss\u2019s desk".encode().decode("cp1252"),)
    raw["validation"].texts[2] = ("a caf\ufffd",)


@flaw("control-characters", "note", ("a.csv:2",))
def a_control_character(raw):
    raw["train"].texts[0] = ("a bell\a rings in the tower",)


@flaw(
    "groups-across", "warning", ("b.csv:4",), groups={"train": ["ann", None] * 20, "validation": [None, "bob", "ann"]}
)
def a_group_in_two_splits(raw):
    pass


@flaw("few-groups", "warning", (), groups={"train": ["ann", "bob"] * 20}, parts=5)
def fewer_groups_than_folds(raw):
    del raw["validation"]


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_found(raw, name):
    spoil, expected, severity, places, options = FLAWS[name]
    spoil(raw)
    finding = found(raw, **options)[expected]
    assert (finding.severity, finding.places) == (severity, places)
    assert finding.count >= len(places)
    assert finding.remedy.endswith(".")
    assert all(finding.details)


def test_errors_come_first(raw):
    a_row_twice(raw)
    a_label_seen_once(raw)
    raw["train"].labels[3] = "NO"
    severities = [finding.severity for finding in check_examples(raw)]
    assert set(severities) == {"error", "warning", "note"}
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_words_that_texts_share_with_labels_are_no_leak(raw):
    part = raw["train"]
    part.texts[:] = [(f"{text}, answer yes or no",) for (text,) in part.texts]
    assert "label-in-text" not in found(raw)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("正面", "负面"), "这条评论是{}的"),
        (("肯定的", "否定的"), "これは{}レビュー"),
        (("ดี", "แย่"), "หนังเรื่องนี้{}มาก"),
        (("अच्छा", "बुरा"), "यह {} है"),
    ],
)
def test_a_label_in_the_text_is_found_in_any_script(raw, labels, said):
    for part in raw.values():
        part.labels[:] = [labels[label == "no"] for label in part.labels]
        part.texts[:] = [
            (f"{text} {said.format(label)}",) for (text,), label in zip(part.texts, part.labels, strict=True)
        ]
    assert "label-in-text" in found(raw)


def test_a_mark_ends_no_word(raw):
    part = raw["train"]
    part.labels[:] = [{"yes": "कि", "no": "no"}[label] for label in part.labels]
    says = {"कि": "की", "no": "no"}  # another vowel on the same letter
    part.texts[:] = [(f"{text} {says[label]}",) for (text,), label in zip(part.texts, part.labels, strict=True)]
    assert "label-in-text" not in found(raw)


def test_words_with_accents_are_not_misread(raw):
    for position, text in enumerate(["« CAFÉ »", "SÃO PAULO", "Ça va, à bientôt, Àèìòù", "PÂTÉ", "«IRMû", "Ålesund"]):
        raw["train"].texts[position] = (f"{text} {position}",)
    assert "misread-text" not in found(raw)


def test_pairs_are_the_same_where_both_texts_are(raw):
    for seed, part in enumerate(raw.values()):
        part.texts[:] = [("one and the same question", text) for (text,) in table("", len(part.texts), seed + 5).texts]
    assert not [name for name in found(raw) if "duplicates" in name]
    raw["validation"].texts[0] = raw["train"].texts[0]
    assert found(raw)["duplicates-across"].count == 1


def test_a_test_split_without_labels_is_no_flaw(raw):
    raw["test"] = replace(table("c.csv", 12, seed=3), labels=[None] * 12)
    assert check_examples(raw) == []
    gap = {**raw, "train": replace(raw["train"], labels=[None, *raw["train"].labels[1:]])}
    rows = sum(len(raw[split].labels) for split in ("train", "validation"))
    assert found(gap)["unlabelled"].details[0].startswith(f"no label: 1 of {rows} rows")
    raw["test"].labels[:6] = ["yes"] * 6
    assert found(raw)["unlabelled"].count == 6


def test_near_duplicates_say_how_many_have_another_label(raw):
    raw["train"].texts[9] = (f"{raw['train'].texts[2][0]} too",)
    raw["train"].labels[9] = "no"
    assert found(raw)["near-duplicates"].details[-1] == "1 of them has another label"
    assert "near-duplicates" not in found(raw, near=False)


def test_tokens_are_counted_as_training_counts_them(raw):
    raw["train"].texts[0] = ("the cat " * 20,)
    raw["train"].texts[1] = ("東京 大阪 cat",)
    lengths = token_lengths(raw, tiny_tokenizer(), "tiny", max_length=41)
    assert lengths.of["train", 0] == 42  # with [CLS] and [SEP]
    findings = found(raw, lengths=replace(lengths, of={row: n for row, n in lengths.of.items() if row == ("train", 0)}))
    assert findings["cut-text"].places == ("a.csv:2",)
    assert findings["unknown-tokens"].places == ("a.csv:3",)


def test_the_end_of_a_text_that_is_kept_is_no_finding(raw):
    raw["train"].texts[0] = ("the " * 200,)
    assert found(raw, lengths=word_lengths(raw, 200)) == {}
    finding = found(raw, lengths=word_lengths(raw, 199))["cut-text"]
    assert finding.count == 1
    assert "words (no tokenizer is at hand" in finding.details[0]
    assert finding.details[1].startswith("1-49")


def test_many_cut_texts_are_a_warning_with_the_length_that_keeps_them(raw):
    finding = found(raw, lengths=word_lengths(raw, 4))["cut-text"]
    assert (finding.severity, finding.count) == ("warning", 52)
    assert finding.remedy == "Set data.max_length to 32, at the price of time and memory."


def test_the_same_name_in_two_folders_is_told_apart(raw, tmp_path):
    for split in raw:
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.csv").touch()
        raw[split].source = str(tmp_path / split / "a.csv")
    a_row_in_two_splits(raw)
    folder = str(tmp_path)
    assert found(raw)["duplicates-across"].places == (f"{folder}/validation/a.csv:3 = {folder}/train/a.csv:4",)
    del raw["validation"]
    assert found({**raw, "train": replace(raw["train"], labels=["", *raw["train"].labels[1:]])})[
        "unlabelled"
    ].places == ("a.csv:2",)


def test_what_is_told_before_training_is_five_lines_at_most(tmp_path):
    for file in ("train.csv", "validation.csv"):
        write_table(tmp_path / file, 40, seed=1)
    with (tmp_path / "train.csv").open("a") as file:
        file.write(
            'the cat,"a man, in a house",YES\nx,,maybe\nx,,no\nx,,\n' + 'the café,"x",\n'.encode().decode("latin-1")
        )
    (tmp_path / "own.yaml").write_text(
        "model: {name: minilm}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: [first, second], label: label}\n"
    )
    loaded = load_recipe(str(tmp_path / "own.yaml"))
    raw = read_raw(loaded.recipe.task, loaded.recipe.data)
    assert raw.splits["train"].labels[-1] == ""
    wrong = [f for f in check_examples(raw.splits, text=raw.text, label=raw.label) if f.severity != "note"]
    lines = told_before_training(loaded.recipe.task, loaded.recipe.data, Path("my own.yaml"))
    assert len(wrong) > 5
    assert len(lines) == 5
    assert lines[0].startswith("error: labels that differ only in case")
    assert lines[-1] == f"{len(wrong) - 4} more findings; dpstune check 'my own.yaml' shows all"
    assert not any("\n" in line for line in lines)


def test_a_test_file_need_not_have_the_groups_and_what_cannot_be_checked_ends_no_run(tmp_path):
    write_table(tmp_path / "train.csv", 40, seed=1)
    write_table(tmp_path / "test.csv", 9, seed=2)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    grouped = "\n".join([f"{lines[0]},author", *(f"{line},{n % 9}" for n, line in enumerate(lines[1:]))])
    (tmp_path / "train.csv").write_text(grouped)
    (tmp_path / "own.yaml").write_text(
        "model: {name: minilm}\n"
        "task: {files: {train: train.csv, validation: 0.2, test: test.csv}, text: [first, second], label: label,\n"
        "  group: author}\n"
    )
    recipe = load_recipe(str(tmp_path / "own.yaml")).recipe
    assert {split: len(part.groups) for split, part in read_raw(recipe.task, recipe.data).splits.items()} == {
        "train": 40,
        "test": 0,
    }
    (tmp_path / "test.csv").unlink()
    (line,) = told_before_training(recipe.task, recipe.data, Path("own.yaml"))
    assert line.startswith("the data were not checked: there is no file")


def test_a_task_of_the_table_with_other_metrics_is_checked_like_any(tmp_path):
    (tmp_path / "toy.yaml").write_text("model: {name: minilm}\ntask: {name: toy-nli, metric: [accuracy, log_loss]}\n")
    recipe = load_recipe(str(tmp_path / "toy.yaml")).recipe
    assert set(read_raw(recipe.task, recipe.data).splits) == {"train", "validation"}


@pytest.mark.parametrize("recipe", ["demo", "minilm-stsb"])
def test_tasks_of_the_table_are_read_as_they_are_written(recipe, tmp_path):
    if recipe != "demo":
        (tmp_path / "stsb").mkdir()
        for split in ("train", "validation"):
            (tmp_path / "stsb" / f"{split}.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 2.5}\n')
    loaded = load_recipe(recipe, data_dir=tmp_path if recipe != "demo" else None).recipe
    raw = read_raw(loaded.task, loaded.data)
    assert list(raw.splits) == ["train", "validation"]
    assert raw.kind == ("classification" if recipe == "demo" else "regression")
    assert set(raw.splits["train"].labels) == (
        {"entailment", "neutral", "contradiction"} if recipe == "demo" else {"2.5"}
    )


def test_labels_with_a_decimal_comma_are_no_values_and_not_all_the_same(raw):
    raw["train"].labels[:] = ["1,5", "2,5", "3,0", "4,5"] * 10
    findings = found(raw, kind="regression")
    assert "with a point and no comma (1.5)" in findings["no-number"].remedy
    assert "one-label" not in findings
    raw["train"].labels[:20] = ["1.5", "2.5"] * 10
    assert "one-label" not in found(raw, kind="regression")
    raw["train"].labels[:20] = ["1.5"] * 20
    assert found(raw, kind="regression")["one-label"].details == ("every row that has a value has the same value",)


def test_a_text_column_that_is_empty_in_every_training_row_is_an_error(raw):
    raw["train"].texts[:] = [(text, " ") for (text,) in raw["train"].texts]
    raw["validation"].texts[:] = [(text, "more") for (text,) in raw["validation"].texts]
    empty = found(raw, text=("body", "title"))["no-text"]
    assert (empty.severity, empty.count) == ("error", len(raw["train"].texts))
    assert empty.details == ("column 'title' has no text in any training row",)
    raw["train"].texts[3] = ("a body", "a title")
    assert "no-text" not in found(raw, text=("body", "title"))


def test_numbers_with_a_comma_are_to_be_written_with_a_point(raw):
    many_numbers(raw)
    assert found(raw)["numbers-as-labels"].remedy == "Where they are values, say kind: regression in the task."
    many_numbers_with_a_comma(raw)
    assert found(raw)["numbers-as-labels"].remedy.endswith(
        "kind: regression in the task, and write them with a point (1.5)."
    )


def test_twenty_numbers_are_labels_to_all_that_ask(raw):
    raw["train"].labels[:] = [str(n) for n in range(20)] * 2
    assert "numbers-as-labels" not in found(raw)
    assert not Column("label", raw["train"].labels).seems_measured
    assert Column("label", [*raw["train"].labels, "20"]).seems_measured


class TestSharedTexts:
    @pytest.fixture
    def pairs(self):
        """Each premise beside three hypotheses."""
        part = table("a.csv", 180, seed=1)
        texts = [(f"{n // 3} {part.texts[n // 3][0].upper()}", f"{n} {part.texts[n][0]}") for n in range(180)]
        return {"train": replace(part, texts=texts)}

    def found(self, raw, **options):
        return found(raw, text=("premise", "hypothesis"), parts=5, **options).get("shared-text")

    def test_pairs_of_one_premise_may_come_into_different_parts(self, pairs):
        finding = self.found(pairs)
        assert (finding.severity, finding.count) == ("warning", 180)
        assert finding.details == ("a 'premise' that other rows have beside another text: 180 of 180 rows (100%)",)
        assert "group: premise in the task" in finding.remedy

    def test_the_second_text_may_be_the_one_that_is_shared(self, pairs):
        pairs["train"].texts[:] = [(second, first) for first, second in pairs["train"].texts]
        assert "a 'hypothesis' that" in self.found(pairs).details[0]

    def test_what_is_kept_together_is_not_told(self, pairs):
        assert self.found(pairs, groups={"train": [str(n // 3) for n in range(180)]}) is None
        pairs["train"].texts[:] = [(str(n // 3), str(n // 3)) for n in range(180)]  # which are duplicates
        assert self.found(pairs) is None

    def test_a_group_that_tears_them_apart_is(self, pairs):
        assert self.found(pairs, groups={"train": [str(n % 3) for n in range(180)]}).count == 180

    def test_a_category_is_no_text_to_keep_rows_together_by(self, pairs):
        of_aspects = [(first, ("price", "food", "staff")[n % 3]) for n, (first, _) in enumerate(pairs["train"].texts)]
        pairs["train"].texts[:] = of_aspects
        assert "a 'premise' that" in self.found(pairs).details[0]
        pairs["train"].texts[:] = [(f"{n}", aspect) for n, (_, aspect) in enumerate(of_aspects)]
        assert self.found(pairs) is None

    def test_where_no_parts_are_drawn_nothing_is_told(self, pairs):
        assert "shared-text" not in found(pairs, text=("premise", "hypothesis"))


class TestSeveralLabels:
    def of(self, *cells):
        part = table("a.jsonl", len(cells), seed=1)
        return {"train": replace(part, labels=list(cells))}

    def found(self, raw, **options):
        return found(raw, kind="multilabel", unlabelled=gaps("multilabel"), **options)

    def test_nothing_is_wrong_with_sets_of_labels(self):
        raw = self.of(*["a;b", "", "b", "b; a"] * 6)
        assert self.found(raw, text=("text",), label="label", parts=5) == {}

    def test_each_label_is_looked_at_by_itself(self):
        raw = self.of("a;b", "b", "A ;b", "a", "c", *["a;b"] * 6, None)
        findings = self.found(raw)
        assert findings["label-once"].details == ("1 label seen once: 'c'",)
        assert findings["label-spellings"].details[0].endswith("'a' (8) = 'A' (1)")
        assert findings["unlabelled"].count == 1

    def test_every_row_has_the_same_labels(self):
        assert self.found(self.of(*["b;a", "a;b"] * 4))["one-label"].details == (
            "every labelled row has the labels 'a; b'",
        )

    def test_a_label_that_no_training_row_has(self):
        raw = self.of(*["a;b", "b", ""] * 4) | {"validation": replace(table("b.jsonl", 2, seed=2), labels=["a;z", "b"])}
        finding = self.found(raw)["label-not-trained"]
        assert (finding.severity, finding.places) == ("error", ("b.jsonl:2",))
        raw["train"].label_names = ("a", "b", "z")
        assert self.found(raw)["label-not-trained"].severity == "warning"

    def test_equal_texts_with_the_same_labels_in_another_order_do_not_differ(self):
        raw = self.of(*["a;b", "b;a", "b", ""] * 4)
        part = raw["train"]
        part.texts[1] = part.texts[0]
        assert "contradiction" not in self.found(raw)
        part.texts[2] = part.texts[0]
        assert "contradiction" in self.found(raw)


def test_a_label_that_the_dataset_knows_is_told_apart_from_one_that_it_does_not(raw):
    raw["train"].label_names = ("no", "perhaps", "yes")
    raw["validation"].labels[2:5] = ["perhaps", "never", "Perhaps"]
    findings = [each for each in check_examples(raw) if each.name == "label-not-trained"]
    assert [(each.severity, each.count, each.places) for each in findings] == [
        ("error", 2, ("b.csv:5", "b.csv:6")),
        ("warning", 1, ("b.csv:4",)),
    ]
