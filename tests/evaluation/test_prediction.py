"""`dpstune predict`: a user's own rows, labelled as they come, whatever form they have."""

import csv
import datetime
import io
import json
import math
import os
import subprocess
import sys
import time

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.common.textfile import csv_line
from dpstune.data.tables import SEPARATORS, Header
from dpstune.errors import RequestError, RunError
from dpstune.evaluation.prediction import LineReader, Prediction, Writer, choose_text_columns, predict_rows, read_rows
from dpstune.evaluation.trained import TrainedModel, TrainedPlace, find_trained
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_predictions


class Pieces(io.RawIOBase):
    """A stream that hands out what was written to it piece by piece, as a pipe does."""

    def __init__(self, pieces):
        self._pieces = [piece for piece in pieces if piece]

    def read1(self, size):
        return self._pieces.pop(0) if self._pieces else b""


@given(st.lists(st.text(alphabet="ab\n\té\r", max_size=8), max_size=8))
def test_lines_are_those_of_the_whole_however_it_is_cut(pieces):
    whole = "".join(pieces)
    encoded = [piece.encode() for piece in pieces]
    cut = [encoded[n][: len(encoded[n]) // 2] for n in range(len(encoded))]
    rest = [encoded[n][len(encoded[n]) // 2 :] for n in range(len(encoded))]
    stream = Pieces([part for pair in zip(cut, rest, strict=True) for part in pair])
    expected = io.StringIO(whole, newline="").readlines()
    assert list(LineReader(stream, "stdin")) == expected


def test_a_reader_waits_only_where_no_whole_line_was_read():
    reader = LineReader(Pieces([b"one\ntwo\nth", b"ree\n"]), "stdin")
    lines = iter(reader)
    assert (next(lines), reader.waiting) == ("one\n", False)
    assert (next(lines), reader.waiting) == ("two\n", True)
    assert (next(lines), reader.waiting) == ("three\n", True)


def test_a_lone_carriage_return_ends_a_line_once_no_newline_can_follow():
    reader = LineReader(Pieces([b"one\rtwo\r", b"\nthree\r", b"four\r"]), "stdin")
    lines = iter(reader)
    assert (next(lines), reader.waiting) == ("one\r", True)
    assert list(lines) == ["two\r\n", "three\r", "four\r"]


def test_a_long_line_takes_as_long_as_many_short_ones():
    pieces = [b"word " * 800] * 2000
    started = time.process_time()
    (line,) = LineReader(Pieces(pieces), "stdin")
    assert len(line) == 8_000_000
    assert time.process_time() - started < 1, "to copy the line for each piece takes many seconds"


def test_a_line_that_is_no_utf8_is_named():
    with pytest.raises(RequestError, match="stdin:2: not UTF-8 text"):
        list(LineReader(Pieces([b"fine\n\xff\n"]), "stdin"))


def test_plain_lines_hold_one_text_or_two():
    for line, row in ((b"a cat\n", {"text": "a cat"}), (b"b\tc\n", {"text1": "b", "text2": "c"})):
        assert [each for _, each in read_rows(LineReader(Pieces([line]), "stdin"), "stdin", "lines")] == [row]
    with pytest.raises(RequestError, match="stdin:3: two texts, where the first had one text"):
        list(read_rows(LineReader(Pieces([b"a cat\n\nb\tc\n"]), "stdin"), "stdin", "lines"))
    with pytest.raises(RequestError, match="stdin:1: 3 texts"):
        list(read_rows(LineReader(Pieces([b"a\tb\tc\n"]), "stdin"), "stdin", "lines"))


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_table_reads_back_whatever_its_cells_hold(form):
    row = {"text": "one\rtwo\r\nthree\nfour", "more": 'a,b\t"c"'}
    writer = Writer(form, ["no", "yes"], "stdin")
    writer.begin(Header(list(row), SEPARATORS[form]))
    printed = writer.line(Prediction(row, "no", {"no": 0.75, "yes": 0.25})) + "\n"
    (found,) = (each for _, each in read_rows(LineReader(Pieces([printed.encode()]), "stdin"), "stdin", form))
    assert found == {**row, "prediction": "no", "score_no": "0.75", "score_yes": "0.25"}


@pytest.fixture(scope="module")
def expected(tiny_run):
    """The run's own predictions on its validation split."""
    return read_predictions(tiny_run / "predictions" / "validation.parquet")


def rows_of(tiny_task):
    with (tiny_task.parent / "validation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_stays_one_and_gains_prediction_and_scores(zygote, tiny_run, tiny_task, expected):
    run = zygote.run("predict", tiny_run, tiny_task.parent / "validation.csv")
    assert run.code == 0, run.stderr
    table = list(csv.DictReader(io.StringIO(run.stdout)))
    assert [row["prediction"] for row in table] == expected["prediction"]
    assert list(table[0]) == ["first", "second", "label", "prediction", "score_no", "score_yes"]
    assert [[float(row["score_no"]), float(row["score_yes"])] for row in table] == [
        pytest.approx(scores, abs=2e-6) for scores in expected["scores"]
    ]
    assert [row["first"] for row in table] == [row["first"] for row in rows_of(tiny_task)]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_json_lines_and_parquet_become_json_lines(zygote, tiny_run, tiny_task, expected, tmp_path, form):
    rows = rows_of(tiny_task)
    file = tmp_path / f"rows.{form}"
    if form == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    run = zygote.run("predict", tiny_run, file)
    assert run.code == 0, run.stderr
    objects = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["prediction"] for each in objects] == expected["prediction"]
    assert set(objects[0]["scores"]) == {"no", "yes"}


def test_a_pair_may_have_an_empty_text_in_every_format(zygote, tiny_run, tmp_path):
    table = zygote.run("predict", tiny_run, write(tmp_path, "x.csv", "first,second\na cat,\n"))
    lines = zygote.run("predict", tiny_run, write(tmp_path, "x.jsonl", '{"first": "a cat", "second": null}'))
    assert (table.code, lines.code) == (0, 0), table.stderr + lines.stderr
    (row,) = csv.DictReader(io.StringIO(table.stdout))
    scores = json.loads(lines.stdout)["scores"]
    assert [float(row[f"score_{label}"]) for label in scores] == pytest.approx(list(scores.values()), abs=2e-6)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_a_csv_keeps_its_separator_and_may_be_packed(
    zygote, tiny_run, tiny_task, expected, tmp_path, separator, packing
):
    rows = rows_of(tiny_task)
    lines = [csv_line(row, separator) + "\n" for row in (rows[0], *(row.values() for row in rows))]
    content = "".join(lines).encode()
    if packing:
        content = pa.compress(content, {".gz": "gzip", ".zst": "zstd"}[packing], asbytes=True)
    run = zygote.run("predict", tiny_run, write(tmp_path, f"x.csv{packing}", content))
    assert run.code == 0, run.stderr
    table = list(csv.DictReader(io.StringIO(run.stdout), delimiter=separator))
    assert [row["prediction"] for row in table] == expected["prediction"]


def test_a_json_array_and_an_excel_sheet_become_json_lines(zygote, tiny_run, tiny_task, expected, tmp_path):
    rows = rows_of(tiny_task)
    book = openpyxl.Workbook()
    for row in (list(rows[0]), *(list(row.values()) for row in rows)):
        book.active.append(row)
    book.save(tmp_path / "x.xlsx")
    for file in (write(tmp_path, "x.json", json.dumps(rows)), tmp_path / "x.xlsx"):
        run = zygote.run("predict", tiny_run, file)
        assert run.code == 0, run.stderr
        assert [json.loads(line)["prediction"] for line in run.stdout.splitlines()] == expected["prediction"]


@pytest.mark.parametrize(
    ("encoding", "flags"), [("utf-16", []), ("utf-32", []), ("latin-1", ["--encoding", "latin-1"])]
)
def test_other_encodings_are_read_by_their_mark_or_on_request(zygote, tiny_run, tmp_path, encoding, flags):
    file = write(tmp_path, "x.csv", "first,second\nun café,a dog\n".encode(encoding))
    run = zygote.run("predict", tiny_run, file, *flags)
    assert run.code == 0, run.stderr
    assert next(csv.DictReader(io.StringIO(run.stdout)))["first"] == "un café"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
@given(whole=st.text(alphabet="ab\n\té\r", max_size=12), size=st.integers(1, 5))
def test_lines_are_those_of_the_whole_in_any_encoding_however_it_is_cut(encoding, whole, size):
    encoded = whole.encode(encoding)
    stream = Pieces([encoded[at : at + size] for at in range(0, len(encoded), size)])
    assert list(LineReader(stream, "stdin", encoding)) == io.StringIO(whole, newline="").readlines()


def test_the_lines_before_a_wrong_one_are_read_in_any_encoding():
    lines = iter(LineReader(Pieces(["fine\n".encode("utf-16"), b"\x00\xd8a\x00"]), "stdin"))
    assert next(lines) == "fine\n"
    with pytest.raises(RequestError, match="stdin:2: not UTF-16 text"):
        next(lines)


@pytest.mark.slow
def test_a_pipe_is_answered_line_by_line(tiny_run, tiny_task, expected):
    """Each line is answered before the next one is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dpstune", "predict", str(tiny_run), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    for row, label in list(zip(rows_of(tiny_task), expected["prediction"], strict=True))[:3]:
        process.stdin.write(f"{row['first']}\t{row['second']}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["prediction"] == label
    process.communicate(timeout=300)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_failure(tiny_run, tiny_task):
    file = tiny_task.parent / "validation.csv"
    pipeline = f"'{sys.executable}' -m dpstune predict '{tiny_run}' '{file}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout.splitlines()[1:], done.stderr) == (["0"], "")


def write(tmp_path, name, text):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text", "more", "message"),
    [
        ("x.csv", "a,b\n1,2\n", [], "which columns hold the text? The model was trained on two texts: say --text COL"),
        (
            "x.csv",
            "sentence,label\na,b\n",
            [],
            "The model was trained on two texts: say --text COLUMN,COLUMN, or in plain",
        ),
        ("x.csv", "first,second\na,b\n", ["--text", "first"], "--text first: the model was trained on two texts; say"),
        ("x.txt", "a cat\n", [], "x.txt: which columns hold the text? The model was trained on two texts"),
        ("x.csv", "a,b\n1,2\n", ["--text", "aa"], "no column 'aa'; its columns are a, b; did you mean 'a'?"),
        ("x.csv", f"{','.join(map(str, range(99)))}\n" * 2, [], "there are 0, 1, 2, 3, 4, 5, 6, 7, ... (99 in all)"),
        ("x.csv", "first,second\nthe cat,\n1\n", [], "x.csv:3: 1 columns where there should be 2"),
        ("x.jsonl", '{"first": "a", "second": "b"}\n{"second"\n', [], "x.jsonl:2: not valid JSON"),
        ("x.jsonl", '{"first": null, "second": ""}\n', [], "x.jsonl:1: no text in first and second"),
        ("x.jsonl", '{"first": "a", "second": "b"}\n{"second": "b"}\n', [], "x.jsonl:2: column 'first' is missing"),
        ("x.csv", b"first,second\n\xff\xfe,b\n", [], "x.csv:2: not UTF-8 text"),
        ("x.csv", b"first,second\n\xff\xfe,b\n", [], "such as --encoding latin-1, cp1252 or utf-16-le"),
        (
            "x.csv",
            "first,second\n".encode("utf-16-le"),
            [],
            "x.csv:1: not UTF-8 text (every other byte is 0, as in UTF-16)",
        ),
        ("x.csv", "first,second\n", ["--encoding", "latn-1"], "unknown encoding 'latn-1'; did you mean 'latin-1'?"),
        ("x.csv.gz", "first,second\na,b\n", [], "x.csv.gz: zlib inflate failed"),
        ("x.json", '{"first": "a"}', [], "x.json: holds an object where there should be an array of objects"),
        ("x.json", b'[{"first": "\xe9"}]', [], "such as --encoding latin-1"),
        ("x.xlsx", "first", [], "x.xlsx as Excel: File is not a zip file"),
        ("x.dat", "a\n", [], "cannot tell its format; say --format csv, tsv, jsonl, json, parquet, xlsx or lines"),
        ("x.csv", "first,second\na,b\n", ["--text", "a,b,c"], "should name one column, or two"),
        ("x.parquet", "no parquet", [], "cannot read"),
        ("x.csv", "first,second\na,b\n,\n", [], "x.csv:3: no text in first and second"),
        ("x.csv", "first,second,score_no\na,b,1\n", [], "x.csv: a column is called 'score_no', but predict adds"),
        ("x.csv", "first,second,prediction\n", [], "x.csv: a column is called 'prediction', but predict adds"),
        ("x.csv", "", [], "x.csv is empty: a csv file begins with the names of its columns"),
        ("x.tsv", "\n\n", [], "x.tsv is empty: a tsv file begins with the names of its columns"),
        ("x.jsonl", '{"first": "a", "second": "b", "scores": 1}\n', [], "x.jsonl: a column is called 'scores'"),
    ],
)
def test_wrong_input_is_one_line(zygote, tiny_run, tmp_path, name, text, more, message):
    run = zygote.run("predict", tiny_run, write(tmp_path, name, text), *more)
    assert run.code == 2, run.stderr
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("task", "row", "expected"),
    [
        ("{files: {train: a.csv, validation: b.csv}, text: body, label: x}", ["premise", "hypothesis", "text"], "text"),
        ("{files: {train: a.csv, validation: b.csv}, text: body, label: x}", ["text1", "text2"], None),
        ("cola", ["text1", "text2", "text"], "text"),
        ("cola", ["text1", "text2"], None),
        ("rte", ["text", "premise", "hypothesis"], "premise,hypothesis"),
        ("toy-nli", ["text", "sentence1", "sentence2"], "sentence1,sentence2"),
        ("toy-nli", ["text"], None),
        ("{name: rte, text: [one, other]}", ["one", "other", "text1", "text2"], "one,other"),
    ],
)
def test_a_model_is_given_as_many_texts_as_it_was_trained_on(tmp_path, task, row, expected):
    (tmp_path / "own.yaml").write_text(f"model: {{name: minilm}}\ntask: {task}\n")
    place = TrainedPlace("run", tmp_path, None, load_recipe(str(tmp_path / "own.yaml")).recipe)
    if expected is not None:
        assert ",".join(choose_text_columns(place, None, dict.fromkeys(row, "a"), "stdin")) == expected
        return
    with pytest.raises(RequestError, match=r"which columns hold the text\? The model was trained on (one|two) text"):
        choose_text_columns(place, None, dict.fromkeys(row, "a"), "stdin")
    assert choose_text_columns(place, None, dict.fromkeys(row, "a"), "stdin", any_number=True)


@pytest.mark.parametrize("columns", [("question", "answer"), ("sentence_A", "sentence_B"), ("review",), ("message",)])
def test_what_init_takes_for_text_is_so_of_a_model_without_a_run(tmp_path, columns):
    place = TrainedPlace("model", tmp_path, None, None)
    assert choose_text_columns(place, None, dict.fromkeys(["label", *columns], "a"), "new.csv") == columns
    with_text = dict.fromkeys(["label", *columns, "text"], "a")
    assert choose_text_columns(place, None, with_text, "new.csv") == ("text",)  # which is the usual one of a model


def test_rows_before_a_wrong_one_are_answered(zygote, tiny_run, tmp_path):
    lines = ['{"first": "a cat", "second": "a dog"}', '{"first": "a cat"}']
    run = zygote.run("predict", tiny_run, write(tmp_path, "x.jsonl", "\n".join(lines)))
    assert run.code == 2
    assert run.stderr == f"error: {tmp_path}/x.jsonl:2: column 'second' is missing\n"
    assert [json.loads(line)["second"] for line in run.stdout.splitlines()] == ["a dog"]


@pytest.fixture
def model(tiny_run):
    return TrainedModel(find_trained(tiny_run))


def numbered(count):
    return ((number, {"text": f"a cat and {number} dogs", "more": "a man"}) for number in range(1, count + 1))


def test_rows_are_computed_together_the_more_the_longer_it_goes_on(model, monkeypatch):
    sizes = []
    score_texts = model.score_texts
    monkeypatch.setattr(model, "score_texts", lambda texts: (sizes.append(len(texts)), score_texts(texts))[1])
    model.batch_size = 2
    answered = list(predict_rows(model, numbered(70), "rows", ["text", "more"]))
    assert [each.row["text"] for each in answered] == [row["text"] for _, row in numbered(70)]
    assert sizes == [2, 4, 8, 16, 32, 8]


def test_rows_before_one_without_an_answer_are_answered(model, monkeypatch):
    score_texts = model.score_texts

    def spoilt(texts):
        logits = score_texts(texts)
        logits[[text == ("a cat and 7 dogs", "a man") for text in texts]] = float("nan")
        return logits

    monkeypatch.setattr(model, "score_texts", spoilt)
    for_each = predict_rows(model, numbered(20), "rows", ["text", "more"])
    assert [next(for_each).row["text"] for _ in range(6)] == [row["text"] for _, row in numbered(6)]
    with pytest.raises(RunError, match="not finite"):
        next(for_each)


def test_a_column_that_this_form_does_not_add_stays(zygote, tiny_run, tmp_path):
    run = zygote.run("predict", tiny_run, write(tmp_path, "x.csv", "first,second,scores\na,b,mine\n"))
    assert run.code == 0, run.stderr
    assert next(csv.DictReader(io.StringIO(run.stdout)))["scores"] == "mine"


def test_dates_and_gaps_of_a_parquet_file_become_json(zygote, tiny_run, tmp_path):
    row = {"first": "a cat", "second": "a dog", "when": datetime.date(2026, 1, 2), "gap": math.nan, "tags": [1.5, None]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    run = zygote.run("predict", tiny_run, tmp_path / "rows.parquet")
    assert run.code == 0, run.stderr
    told = json.loads(run.stdout, parse_constant=pytest.fail)
    assert (told["when"], told["gap"], told["tags"]) == ("2026-01-02", None, [1.5, None])


def test_a_file_that_is_not_there_is_one_line(zygote, tiny_run, tmp_path):
    for name in ("x.csv", "x.parquet"):
        run = zygote.run("predict", tiny_run, tmp_path / name)
        assert run.code == 2
        assert name in run.stderr
        assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "header"),
    [
        ("x.csv", "first,second\r\n", "first,second,prediction,score_no,score_yes\n"),
        ("x.tsv", "first\tsecond", "first\tsecond\tprediction\tscore_no\tscore_yes\n"),
        ("x.jsonl", "", ""),
        ("x.txt", "\n", ""),
    ],
)
def test_where_there_are_no_rows_a_table_keeps_its_header_and_it_is_said(
    zygote, tiny_run, tmp_path, name, text, header
):
    file = write(tmp_path, name, text)
    run = zygote.run("predict", tiny_run, file)
    assert (run.code, run.stdout) == (0, header), run.stderr
    assert run.stderr == f"{file} holds no rows; there is nothing to label\n"


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_line_ends_of_old_are_read_as_train_reads_them(zygote, tiny_run, tiny_task, tmp_path, form):
    rows = rows_of(tiny_task)[:3]
    if form == "jsonl":
        lines = list(map(json.dumps, rows))
    else:
        lines = [csv_line(row, SEPARATORS[form]) for row in (rows[0], *(row.values() for row in rows))]
    told = []
    for end in ("\n", "\r"):
        run = zygote.run("predict", tiny_run, write(tmp_path, f"x.{form}", end.join(lines) + end))
        assert run.code == 0, run.stderr
        told.append(run.stdout)
    assert told[0] == told[1]
    assert len(told[0].splitlines()) == len(lines)
