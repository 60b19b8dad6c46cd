import csv
import gzip
import io
import json
import logging
import sys
from collections import Counter
from pathlib import Path

import datasets
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune.data.files import file_rows, find_files
from dpstune.data.sources import Columns, read_files, read_glue, read_hub
from dpstune.errors import RequestError
from dpstune.settings.tasks import HubSource, get_task

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_corpora = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")

# Quotes, a delimiter, both kinds of line break, a letter outside ASCII: what a table's cell may hold.
AWKWARD = ['He said "no", twice.', "one\nline\r\nafter another", "tab\there", "Ærøskøbing — 東京", ""]


def refused(path, text=("premise", "hypothesis"), label="label", **options):
    """Return the one line that refuses a file."""
    with pytest.raises(RequestError) as error:
        read_file(path, text, label, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def read_file(path, text, label, **options):
    return read_files([path], Columns(text, label, **options))


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def write_jsonl(path, rows, encoding="utf-8"):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)


def write_awkward(path, encoding):
    rows = [{"id": f"ex{i}", "text": text, "label": f"l{i % 2}"} for i, text in enumerate(AWKWARD)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        write_jsonl(path, rows, encoding)
    else:
        table = [list(rows[0]), *(list(row.values()) for row in rows)]
        write_csv(path, table, "\t" if path.suffix == ".tsv" else ",", encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_every_format_gives_the_same_examples_with_and_without_a_byte_order_mark(tmp_path, name, encoding):
    write_awkward(tmp_path / name, encoding)
    split = read_file(tmp_path / name, ("text",), "label")
    assert split.texts == [(text,) for text in AWKWARD]
    assert split.labels == ["l0", "l1", "l0", "l1", "l0"]
    assert split.ids == ["ex0", "ex1", "ex2", "ex3", "ex4"]
    assert split.source == str(tmp_path / name)


def test_the_ending_counts_in_any_case(tmp_path):
    write_awkward(tmp_path / "A.CSV", "utf-8")
    write_awkward(tmp_path / "a.csv", "utf-8")
    upper, lower = (read_file(tmp_path / name, ("text",), "label") for name in ("A.CSV", "a.csv"))
    assert upper.texts == lower.texts


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=1, max_size=5),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl"]),
)
def test_what_was_written_is_what_is_read(tmp_path_factory, rows, suffix):
    def writable(text):
        return text.encode("utf-8", "ignore").decode().replace("\0", "")

    rows = [("a text", "x"), *((writable(first), "x" + writable(second)) for first, second in rows)]
    if suffix == ".tsv":  # which has no line break in its last column, or beside a tab
        rows = [(first.replace("\t", " "), " ".join(second.splitlines())) for first, second in rows]
    path = tmp_path_factory.mktemp("any") / f"a{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, [{"text": first, "label": second} for first, second in rows])
    else:
        write_csv(path, [("text", "label"), *rows], "\t" if suffix == ".tsv" else ",")
    split = read_file(path, ("text",), "label")
    assert list(zip(split.texts, split.labels, strict=True)) == [((first,), second) for first, second in rows]


def test_columns_are_found_by_name_and_keep_the_asked_order(tmp_path):
    write_csv(tmp_path / "a.csv", [("label", "hypothesis", "extra", "premise"), ("yes", "H", "E", "P")])
    split = read_file(tmp_path / "a.csv", ("premise", "hypothesis"), "label")
    assert (split.texts, split.labels) == ([("P", "H")], ["yes"])


@pytest.mark.parametrize("column", ["id", "idx", "index", "pairID"])
def test_ids_are_the_sources_own_where_it_has_some(tmp_path, column):
    write_jsonl(tmp_path / "a.jsonl", [{column: 17, "text": "x", "label": "y"}])
    assert read_file(tmp_path / "a.jsonl", ("text",), "label").ids == ["17"]


def test_ids_are_row_numbers_where_the_source_has_none(tmp_path):
    write_csv(tmp_path / "a.csv", [("text", "label"), ("x", "y"), ("x", "y")])
    assert read_file(tmp_path / "a.csv", ("text",), "label").ids == ["0", "1"]


def test_blank_lines_are_passed_over_but_counted(tmp_path):
    (tmp_path / "a.csv").write_text("\ntext,label\n\nx,1\n\ny,2\n\n")
    (tmp_path / "a.jsonl").write_text('\n{"text": "x", "label": 1}\n\n{"text": "y", "label": 2}\n')
    table, lines = (read_file(tmp_path / name, ("text",), "label") for name in ("a.csv", "a.jsonl"))
    assert table.texts == lines.texts == [("x",), ("y",)]
    assert (table.rows, lines.rows) == ([4, 6], [2, 4])


def test_numbers_and_truth_values_keep_their_type_as_labels(tmp_path):
    rows = [{"text": "x", "label": 2}, {"text": "y", "label": 0.5}, {"text": "z", "label": None}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read_file(tmp_path / "a.jsonl", ("text",), "label").labels == ["2", "0.5", None]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_a_missing_column_is_named_with_the_nearest_and_all_there_are(tmp_path, name):
    write_awkward(tmp_path / name, "utf-8")
    message = refused(tmp_path / name, ("txet",))
    assert message == f"{tmp_path / name}: no column 'txet'; its columns are id, text, label; did you mean 'text'?"


def test_of_many_columns_with_long_names_the_first_few_are_named(tmp_path):
    """A file without a header has its first row taken for one, texts and all."""
    write_csv(tmp_path / "a.csv", [["a" * 5000, *map(str, range(999))], range(1000)])
    named = f"{'a' * 39}…, 0, 1, 2, 3, 4, 5, 6, ... (1000 in all)"
    assert refused(tmp_path / "a.csv", ("text",)) == f"{tmp_path}/a.csv: no column 'text'; its columns are {named}"


def test_a_file_without_the_label_column_is_refused_only_where_labels_are_needed(tmp_path):
    write_csv(tmp_path / "a.csv", [("text", "lable"), ("x", "y")])
    assert "no column 'label'; its columns are text, lable; did you mean 'lable'?" in refused(
        tmp_path / "a.csv", ("text",)
    )
    split = read_file(tmp_path / "a.csv", ("text",), "label", label_required=False)
    assert (split.texts, split.labels) == ([("x",)], [])


def test_a_ragged_row_is_named_by_file_and_line(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one\nexample",1\nb,2,3\n')
    assert refused(tmp_path / "a.csv", ("text",)) == f"{tmp_path}/a.csv:4: 3 columns where there should be 2"
    (tmp_path / "a.tsv").write_text('label\ttext\n1\t"one\nexample"\n')
    assert refused(tmp_path / "a.tsv", ("text",)) == (
        f"{tmp_path}/a.tsv:3: 1 columns where there should be 2; save texts that hold tabs or line breaks as CSV"
    )


@pytest.mark.parametrize(
    ("name", "row", "line"),
    [("a.csv", '"open,1\nx,2\n', 3), ("a.csv", '"a" b,1\n', 3), ("a.tsv", '"open\nx\t2\ny\t1\n', 3)],
)
def test_quotes_that_do_not_close_are_refused_with_file_and_line(tmp_path, name, row, line):
    delimiter = "\t" if name == "a.tsv" else ","
    (tmp_path / name).write_text(f"text{delimiter}label\nfine{delimiter}1\n{row}")
    assert refused(tmp_path / name, ("text",)).startswith(f"{tmp_path / name}:{line}: ")


def test_a_row_that_swallows_others_is_named_by_the_line_it_began_on(tmp_path):
    rest = "".join(f"more,{n % 2}\n" for n in range(998))
    (tmp_path / "a.csv").write_text(f'text,label\n\n"open,1\n{rest}')
    assert refused(tmp_path / "a.csv", ("text",)).startswith(
        f"{tmp_path}/a.csv:3: unexpected end of data, in a row that goes on to line 1001; close the quote"
    )
    (tmp_path / "a.csv").write_text('text,label\nfine,0\n"open,1\nx,2\ny "quote",1\n')
    assert refused(tmp_path / "a.csv", ("text",)).startswith(f"{tmp_path}/a.csv:3: ',' expected after '\"', in a row ")
    (tmp_path / "a.csv").write_text('text,label\n"open,1\nx,2\n",1,2\n')
    what = "3 columns where there should be 2, in a row that goes on to line 4"
    assert refused(tmp_path / "a.csv", ("text",)) == f"{tmp_path}/a.csv:2: {what}"


def test_rows_are_named_by_the_line_they_begin_on(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"a\nb",0\n\nc,1\n')
    assert read_file(tmp_path / "a.csv", ("text",), "label").rows == [2, 5]
    (tmp_path / "a.csv").write_text('"te\nxt",label,"te\nxt"\n')
    assert refused(tmp_path / "a.csv", ("text",)).startswith(f"{tmp_path}/a.csv:1: two columns are called")


def test_in_a_tsv_quotes_that_are_none_of_csvs_are_plain_characters(tmp_path):
    """As in the files GLUE distributes; no row swallows another."""
    lines = [
        '"Yes, he said',
        'a "b" c',
        '"a" b',
        'she left"',
        '"plain"',
        '"two ""quotes"""',
        '"',
        "it's",
        '"with a\ttab"',
    ]
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(f"{line}\tx{n}\n" for n, line in enumerate(lines)))
    split = read_file(tmp_path / "a.tsv", ("text",), "label")
    expected = ['"Yes, he said', 'a "b" c', '"a" b', 'she left"', "plain", 'two "quotes"', '"', "it's", "with a\ttab"]
    assert split.texts == [(text,) for text in expected]
    assert split.labels == [f"x{n}" for n in range(len(lines))]
    assert split.rows == list(range(2, 2 + len(lines)))


@pytest.mark.parametrize("path", sorted(DATA.glob("glue/*/*.tsv")), ids=lambda path: f"{path.parent.name} {path.name}")
def test_glues_own_files_are_read_whole_as_a_users(path):
    rows = [row for _, row in file_rows(path)]
    with path.open(encoding="utf-8", newline="") as plain:
        assert len(rows) == sum(1 for _ in plain) - 1


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("lines_before", [0, 5000])
def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path, name, lines_before):
    good = {"a.csv": "text,label\n", "a.tsv": "text\tlabel\n", "a.jsonl": '{"text": "x", "label": 1}\n'}[name]
    (tmp_path / name).write_bytes(good.encode() * (lines_before + 1) + "caf\xe9,1\n".encode("latin-1"))
    message = refused(tmp_path / name, ("text",))
    assert message.startswith(f"{tmp_path / name}:{lines_before + 2}: not UTF-8 text")
    assert message.endswith("save it as UTF-8")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    assert refused(tmp_path / name) == f"there is no file {tmp_path / name}"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    assert refused(tmp_path / name) == f"cannot read {tmp_path / name}: Is a directory"


@pytest.mark.parametrize("name", ["a.txt", "a.parquet.gz", "a.zip", "a"])
def test_an_unknown_ending_is_refused_with_those_that_are_known(tmp_path, name):
    (tmp_path / name).touch()
    assert "name it .csv, .tsv, .jsonl, .json, .parquet or .xlsx" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "why"),
    [('{"text": "x", "label"', "not valid JSON"), ("[1, 2]", "should be a JSON object"), ("text", "not valid JSON")],
)
def test_a_broken_json_line_is_named_by_file_and_line(tmp_path, line, why):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "x", "label": 1}}\n\n{line}\n')
    message = refused(tmp_path / "a.jsonl", ("text",))
    assert message.startswith(f"{tmp_path}/a.jsonl:3: ")
    assert why in message


def test_what_only_calls_itself_parquet_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("text,label\n")
    assert refused(tmp_path / "a.parquet").startswith(f"cannot read {tmp_path}/a.parquet as Parquet: ")


def test_a_text_whose_key_is_missing_is_refused_with_its_place(tmp_path):
    rows = [{"premise": "P", "hypothesis": "H", "label": 1}, {"premise": "P", "label": 1}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert refused(tmp_path / "a.jsonl") == f"{tmp_path}/a.jsonl:2: column 'hypothesis' is missing"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.xlsx"])
def test_an_empty_cell_is_an_empty_text_in_every_format(tmp_path, name):
    rows = [{"text": "a", "label": "0"}, {"text": None, "label": "1"}]
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name == "a.xlsx":
        write_excel(path, [("text", "label"), *(tuple(row.values()) for row in rows)])
    elif name == "a.json":
        path.write_text(json.dumps(rows))
    elif name == "a.jsonl":
        write_jsonl(path, rows)
    else:
        table = [("text", "label"), *(tuple(row.values()) for row in rows)]
        write_csv(path, table, "\t" if name == "a.tsv" else ",")
    split = read_file(path, ("text",), "label")
    assert (split.texts, split.labels) == ([("a",), ("",)], ["0", "1"])


def test_a_gap_among_numbers_that_are_texts_is_an_empty_text(tmp_path):
    pq.write_table(pa.table({"text": [1.0, float("nan"), None], "label": [0, 1, 1]}), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet", ("text",), "label").texts == [("1",), ("",), ("",)]


@pytest.fixture
def glue(tmp_path):
    """Write one file of a GLUE task; return what its split reads as."""

    def write_and_read(name, split, content):
        layout = get_task(name).glue
        path = tmp_path / layout.folder / layout.files[split]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return read_glue(tmp_path, layout, split)

    return write_and_read


def test_quotes_in_glue_files_are_plain_characters(glue):
    split = glue("rte", "train", b'index\tsentence1\tsentence2\tlabel\n7\t"Open\tan "end"\tentailment\n')
    assert (split.ids, split.texts, split.labels) == (["7"], [('"Open', 'an "end"')], ["entailment"])


def test_cola_has_no_header_but_its_test_file_has(glue):
    train = glue("cola", "train", b"gj04\t1\t\tOne.\ngj04\t0\t*\tTwo it.\n")
    assert (train.texts, train.labels, train.ids) == ([("One.",), ("Two it.",)], ["1", "0"], ["0", "1"])
    test = glue("cola", "test", b"index\tsentence\n0\tThree.\n")
    assert (test.texts, test.labels) == ([("Three.",)], [])


def test_mrpc_opens_with_a_byte_order_mark_and_names_its_columns_oddly(glue):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n".encode()
    split = glue("mrpc", "validation", header + b"1\t10\t20\tFirst.\tSecond.\r\n")
    assert (split.texts, split.labels) == ([("First.", "Second.")], ["1"])


def test_stsb_has_its_score_in_the_last_of_ten_columns(glue):
    header = b"index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    split = glue("stsb", "train", header + b"0\tmain\tf\t2012\t1\tnone\tnone\tA.\tB.\t4.750\n")
    assert (split.texts, split.labels) == ([("A.", "B.")], ["4.750"])


@pytest.mark.parametrize(
    ("name", "header", "row", "texts", "label"),
    [
        ("sst2", "sentence\tlabel", "fine \t1", ("fine ",), "1"),
        ("qnli", "index\tquestion\tsentence\tlabel", "0\tQ?\tS.\tnot_entailment", ("Q?", "S."), "not_entailment"),
        ("qqp", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "5\t1\t2\tA?\tB?\t0", ("A?", "B?"), "0"),
        ("mnli", "index\tlabel1\tsentence1\tsentence2\tgold_label", "0\tneutral\tP\tH\tneutral", ("P", "H"), "neutral"),
        ("snli", "index\tpairID\tsentence1\tsentence2\tgold_label", "0\tx\tP\tH\t-", ("P", "H"), "-"),
    ],
)
def test_the_other_glue_layouts_are_read_by_their_column_names(glue, name, header, row, texts, label):
    split = glue(name, "train", f"{header}\n{row}\n".encode())
    assert (split.texts, split.labels) == ([texts], [label])


def test_ragged_glue_rows_are_left_out_and_counted(glue):
    rows = b"0\tA\tB\tentailment\n1\tA\tB\n2\tC\tD\tnot_entailment\n"
    split = glue("rte", "train", b"index\tsentence1\tsentence2\tlabel\n" + rows)
    assert (split.ids, split.labels, split.malformed) == (["0", "2"], ["entailment", "not_entailment"], 1)


@pytest.mark.parametrize("name", ["twice.csv", "twice.tsv"])
def test_two_columns_of_one_name_are_refused(tmp_path, name):
    (tmp_path / name).write_text("text,text,label\nA,B,1\n".replace(",", "," if name.endswith("csv") else "\t"))
    message = f"{tmp_path / name}:1: two columns are called 'text'; rename or remove one"
    assert refused(tmp_path / name, ("text",)) == message


def test_a_repeated_key_of_json_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 1, "text": "c"}\n')
    message = f"{tmp_path}/a.jsonl:2: two keys are called 'text'; rename or remove one"
    assert refused(tmp_path / "a.jsonl", ("text",)) == message


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], names=["text", "text", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    message = f"{tmp_path}/a.parquet: two columns are called 'text'; rename or remove one"
    assert refused(tmp_path / "a.parquet", ("text",)) == message


def test_a_missing_glue_file_is_named(tmp_path):
    with pytest.raises(RequestError, match=f"there is no file {tmp_path}/RTE/dev.tsv"):
        read_glue(tmp_path, get_task("rte").glue, "validation")


@needs_corpora
@pytest.mark.parametrize(
    ("name", "split", "count", "labels"),
    [
        ("rte", "train", 2490, {"entailment": 1249, "not_entailment": 1241}),
        ("rte", "validation", 277, {"entailment": 146, "not_entailment": 131}),
        ("rte", "test", 3000, {}),
        ("mrpc", "train", 3576, None),
        ("mrpc", "validation", 500, None),
        ("stsb", "train", 5749, None),
        ("stsb", "validation", 1500, None),
    ],
)
def test_real_glue_files_are_read_whole(name, split, count, labels):
    part = read_glue(DATA / "glue", get_task(name).glue, split)
    assert len(part.texts) == len(part.ids) == len(part.rows) == count
    assert {len(texts) for texts in part.texts} == {2}
    assert part.rows == list(range(2, count + 2))
    if labels is not None:
        assert Counter(part.labels) == labels


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Write a dataset as the hub holds one; return where it lies."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def write(labels, feature):
        features = datasets.Features(
            {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"), "label": feature}
        )
        columns = {"premise": [f"p{i}" for i in range(len(labels))], "hypothesis": ["h"] * len(labels), "label": labels}
        (tmp_path / "hub" / "data").mkdir(parents=True)
        rows = datasets.Dataset.from_dict(columns, features)
        rows.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
        return HubSource(str(tmp_path / "hub"), None, ("premise", "hypothesis"), {"train": "train", "test": "exam"})

    return write


@pytest.mark.parametrize(
    ("feature", "labels", "read"),
    [
        (datasets.ClassLabel(names=["neutral", "entailment"]), [1, 0, -1], ["entailment", "neutral", None]),
        (datasets.Value("string"), ["neutral", "entailment"], ["neutral", "entailment"]),
        (datasets.Value("float32"), [2.5, -1.0], ["2.5", None]),
    ],
)
def test_labels_of_a_hub_dataset_are_read_by_their_names(dataset, feature, labels, read):
    split = read_hub(dataset(labels, feature), "train")
    assert split.labels == read
    assert split.texts == [(f"p{i}", "h") for i in range(len(labels))]


@pytest.mark.parametrize("files", [{}, {"a.tar": b"no archive"}, {"a.csv": b"x,y\n1,2\n1,2,3\n"}])
def test_a_folder_that_is_no_dataset_is_said_to_be_none(tmp_path, files):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(RequestError, match=r"holds no dataset that can be read .*; name the file itself"):
        read_hub(HubSource(str(folder), None, ("x",), {"train": "train"}, "y"), "train")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("b.csv", b"x,y\n1,2\n1,2,3\n", r"b.csv' with error .*Expected 2 fields in line 3, saw 3"),
        ("b.csv", b"x,y\n\xff,2\n", r"b.csv' with error .*can't decode byte 0xff"),
        ("b.csv", b"x,z\n1,2\n", r"different.*x: int64 y: int64 vs x: int64 z: int64|b.csv.*cast"),
        ("b.zip", b"no archive", "not a zip file"),
        ("README.md", b"---\na: [\n---\n", "while parsing a flow node"),
        ("README.md", b"---\nconfigs: [{config_name: a, data_files: none.csv}]\n---\n", "none.csv"),
    ],
)
def test_why_a_folder_is_no_dataset_is_told_in_one_line(tmp_path, monkeypatch, capfd, caplog, name, content, why):
    handlers = list(logging.getLogger("datasets").handlers)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / name).write_bytes(content)
    with pytest.raises(RequestError, match=rf"can be read \(.*({why}).*\); name the file itself$") as error:
        read_hub(HubSource(str(folder), None, ("x",), {"train": "train"}, "y"), "train")
    assert len(str(error.value)) < len(str(folder)) + 400
    assert (capfd.readouterr().err, caplog.messages) == ("", [])
    assert logging.getLogger("datasets").handlers == handlers


@pytest.mark.parametrize("name", ["csv", "pandas", "hf://datasets/csv"])
def test_a_reader_of_files_is_no_dataset(tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\na text of the working directory,2\n")
    with pytest.raises(RequestError, match=f"dataset {name}: is the name of a reader of files, .* as ./(csv|pandas)$"):
        read_hub(HubSource(name, None, ("x",), {"train": "train"}, "y"), "train")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("x,y\na text,2\n")
    assert read_hub(HubSource("./csv", None, ("x",), {"train": "train"}, "y"), "train").texts == [("a text",)]


def test_images_beside_texts_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    (folder / "metadata.csv").write_text("file_name,x,y\na.png,a caption,1\n")
    assert read_hub(HubSource(str(folder), None, ("x",), {"train": "train"}, "y"), "train").texts == [("a caption",)]
    with pytest.raises(RequestError, match="no column 'z'; its columns are image, x, y"):
        read_hub(HubSource(str(folder), None, ("z",), {"train": "train"}, "z"), "train")
    monkeypatch.setattr("datasets.config.PIL_AVAILABLE", False)
    with pytest.raises(RequestError, match=r"can be read \(To support decoding images, .*'Pillow'\)$"):
        read_hub(HubSource(str(folder), None, ("image",), {"train": "train"}, "y"), "train")


def test_a_split_that_a_hub_dataset_lacks_is_named(dataset):
    hub = dataset([0], datasets.ClassLabel(names=["a"]))
    with pytest.raises(RequestError, match="exam") as error:
        read_hub(hub, "test")
    assert hub.id in str(error.value)


def test_a_column_that_a_hub_dataset_lacks_is_named_with_those_it_has(dataset):
    hub = dataset([0], datasets.ClassLabel(names=["a"]))
    wrong = HubSource(hub.id, None, ("premise", "hypotesis"), hub.splits)
    with pytest.raises(RequestError, match=r"its columns are premise, hypothesis, label; did you mean 'hypothesis'\?"):
        read_hub(wrong, "train")


# What people have


ROWS = [("Ærø, one", "x"), ("two; more", "y"), ("three\twords", "x")]


def written(rows=ROWS, separator=",", header=("text", "label")):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([header, *rows])
    return text.getvalue()


def write_excel(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


@pytest.mark.parametrize(("ending", "codec"), [("gz", "gzip"), ("zst", "zstd")])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_packed_text_is_read_as_the_text(tmp_path, name, ending, codec):
    write_awkward(tmp_path / name, "utf-8")
    if name == "a.json":
        rows = [{"id": f"ex{i}", "text": text, "label": f"l{i % 2}"} for i, text in enumerate(AWKWARD)]
        (tmp_path / name).write_text(json.dumps(rows))
    packed = tmp_path / f"{name}.{ending}"
    packed.write_bytes(pa.compress((tmp_path / name).read_bytes(), codec, asbytes=True))
    plain, unpacked = (read_file(path, ("text",), "label") for path in (tmp_path / name, packed))
    assert (plain.ids, plain.texts, plain.labels) == (unpacked.ids, unpacked.texts, unpacked.labels)
    assert plain.texts == [(text,) for text in AWKWARD]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv.gz", b"text,label\n", "as gzip: zlib inflate failed: incorrect header check"),
        ("a.csv.gz", gzip.compress(b"text,label\n", mtime=0)[:-9], "as gzip: Truncated compressed stream"),
        ("a.csv.zst", b"text,label\n", "as zstd: ZSTD decompress failed"),
        ("a.xlsx", b"text,label\n", "as Excel: File is not a zip file"),
    ],
)
def test_what_is_not_what_its_ending_says_is_refused(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    assert f"cannot read {tmp_path / name} {why}" in refused(tmp_path / name, ("text",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": []}', ": holds an object where there should be an array of objects: [{...}, {...}]"),
        ('"text"', ": holds a value where there should be an array"),
        ('[{"text": "a", "label": 1}, 3]', ": item 2 of the array should be a JSON object"),
        (
            '{"a": 1}\n{"a": 2}\n',
            ":2: not valid JSON: Extra data; where each line is an object of its own, name it .jsonl",
        ),
        ('[\n{"text": "a", "text": "b"}]', ": two keys are called 'text'"),
        ('[{"text": "a", "label": 1}, {"label": 1}]', ":2: column 'text' is missing"),
    ],
)
def test_json_that_is_no_array_of_objects_is_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    assert refused(tmp_path / "a.json", ("text",)).startswith(f"{tmp_path}/a.json{message}")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-32-be"])
def test_a_csv_is_read_whatever_separates_its_columns_and_marks_its_bytes(tmp_path, separator, encoding):
    marked = "" if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    (tmp_path / "a.csv").write_bytes((marked + written(separator=separator)).encode(encoding))
    split = read_file(tmp_path / "a.csv", ("text",), "label")
    assert list(zip(split.texts, split.labels, strict=True)) == [((text,), label) for text, label in ROWS]
    told = {",": [], ";": ["separated by ';'"], "\t": ["separated by tabs"]}[separator]
    assert split.notes == [f"{tmp_path}/a.csv: columns are {each}" for each in told]


def test_the_columns_that_are_asked_for_decide_what_separates_them(tmp_path):
    (tmp_path / "a.csv").write_text('"text;more",label;x;y\na;b,1;2;3\n')
    split = read_file(tmp_path / "a.csv", ("text;more",), "label;x;y")
    assert (split.texts, split.labels, split.notes) == ([("a;b",)], ["1;2;3"], [])
    (tmp_path / "b.csv").write_text("text;lable\na;1\n")
    told = "no column 'label'; its columns are text, lable; did you mean 'lable'?"
    assert refused(tmp_path / "b.csv", ("text",)) == f"{tmp_path}/b.csv: {told}"


def test_byte_order_marks_are_no_text_however_many(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbf" + written().encode())
    assert len(read_file(tmp_path / "a.csv", ("text",), "label").ids) == 3


def test_another_encoding_is_read_on_request_and_a_mark_says_more(tmp_path):
    columns = Columns(("text",), "label")
    for name, encoding in (("a.csv", "latin-1"), ("b.csv", "utf-16")):
        (tmp_path / name).write_bytes(written().encode(encoding))
    split = read_files([tmp_path / "a.csv", tmp_path / "b.csv"], columns, "cp1252")
    assert [text for (text,) in split.texts] == [text for text, _ in ROWS] * 2
    (tmp_path / "a.csv").write_bytes(b"text,label\na,x\n\x81,y\n")
    with pytest.raises(RequestError, match=r"a.csv:3: not cp1252 text"):
        read_files([tmp_path / "a.csv"], columns, "cp1252")
    (tmp_path / "a.csv").write_bytes(written(ROWS[1:]).encode("utf-16-le"))
    assert "every other byte is 0, as in UTF-16" in refused(tmp_path / "a.csv", ("text",))
    assert read_files([tmp_path / "a.csv"], columns, "utf-16-le").labels == ["y", "x"]


def test_an_excel_sheet_gives_the_same_examples(tmp_path):
    head = [(None, None, None), ("text", None, "label")]
    write_excel(tmp_path / "a.xlsx", [*head, ("a", "aside", 1), (None, None, None), ("b", None, 1.0), (7, 1, 0.5)])
    split = read_file(tmp_path / "a.xlsx", ("text",), "label")
    assert (split.texts, split.labels, split.rows) == ([("a",), ("b",), ("7",)], ["1", "1", "0.5"], [3, 5, 6])


def test_of_merged_excel_cells_the_first_has_the_value(tmp_path):
    book = openpyxl.Workbook()
    for row in [("text", "label"), ("a", "x"), ("b", "x"), ("c", "y")]:
        book.active.append(row)
    book.active.merge_cells("B2:B3")
    book.create_sheet("more").append(["another sheet"])
    book.save(tmp_path / "a.xlsx")
    assert read_file(tmp_path / "a.xlsx", ("text",), "label").labels == ["x", None, "y"]


def test_two_excel_columns_of_one_name_are_refused(tmp_path):
    write_excel(tmp_path / "a.xlsx", [("text", "text", "label"), ("a", "b", 1)])
    assert (
        refused(tmp_path / "a.xlsx", ("text",))
        == f"{tmp_path}/a.xlsx:1: two columns are called 'text'; rename or remove one"
    )


def test_without_openpyxl_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    write_excel(tmp_path / "a.xlsx", [("text", "label"), ("a", 1)])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert refused(tmp_path / "a.xlsx") == f"{tmp_path}/a.xlsx: Excel files need openpyxl: pip install 'dpstune[excel]'"


def test_several_files_are_read_as_one_and_errors_name_the_one(tmp_path):
    for name, rows in (("p-1.csv", ROWS[:1]), ("p-2.csv", []), ("p-3.csv", ROWS[1:])):
        (tmp_path / name).write_text(written(rows, ";"))
    files = find_files(tmp_path / "p-*.csv")
    assert [file.name for file in files] == ["p-1.csv", "p-2.csv", "p-3.csv"]
    split = read_files(files, Columns(("text",), "label"))
    assert (split.ids, split.labels) == (["0", "1", "2"], ["x", "y", "x"])
    assert [split.place(row) for row in range(3)] == [
        f"{tmp_path}/p-1.csv:2",
        f"{tmp_path}/p-3.csv:2",
        f"{tmp_path}/p-3.csv:3",
    ]
    assert split.notes == [f"{tmp_path}/p-1.csv and 2 more: columns are separated by ';'"]


def test_files_of_other_columns_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,id\na,x,1\n")
    (tmp_path / "b.tsv").write_text("label\ttext\tid\nx\tb\t2\n")
    (tmp_path / "c.csv").write_text("text,label\nc,x\n")
    columns = Columns(("text",), "label")
    assert read_files([tmp_path / "a.csv", tmp_path / "b.tsv"], columns).ids == ["1", "2"]
    with pytest.raises(RequestError) as error:
        read_files([tmp_path / "a.csv", tmp_path / "c.csv"], columns)
    assert str(error.value).startswith(
        f"{tmp_path}/c.csv: its columns are text, label, those of {tmp_path}/a.csv are text, label, id"
    )


def test_a_pattern_that_nothing_matches_is_refused_and_a_file_so_called_is_read(tmp_path):
    with pytest.raises(RequestError, match="no file matches"):
        find_files([tmp_path / "a[1].csv"])
    (tmp_path / "a[1].csv").touch()
    (tmp_path / "b.csv").touch()
    assert find_files([tmp_path / "a[1].csv", tmp_path / "*.csv"]) == [tmp_path / "a[1].csv", tmp_path / "b.csv"]


@pytest.mark.parametrize("first", ['{"text": "a", "label": "x", "who": "ann"}', '{"text": "a", "label": "x"}'])
def test_each_row_keeps_its_own_group_whichever_rows_and_files_have_none(tmp_path, first):
    (tmp_path / "a.jsonl").write_text(f'{first}\n{{"text": "b", "label": "y", "who": "bob"}}\n')
    columns = Columns(("text",), "label", "who", group_required=False)
    ann = "ann" if "who" in first else None
    assert read_files([tmp_path / "a.jsonl"], columns).groups == [ann, "bob"]
    for name, who in (("b", ""), ("c", ', "who": "cat"')):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "c", "label": "x"{who}}}\n')
    assert read_files([tmp_path / "b.jsonl"], columns).groups == []
    (tmp_path / "c.jsonl").write_text('{"text": "c", "label": "x", "who": "cat"}\n')
    (tmp_path / "d.jsonl").write_text('{"text": "d", "label": "x", "who": null}\n')
    assert read_files([tmp_path / "d.jsonl", tmp_path / "c.jsonl"], columns).groups == [None, "cat"]
