"""The section of a report on likely wrong labels, and the list that a person fills in."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.common.textfile import read_cell, shown_cell
from dpstune.report.page import Heading, Paragraph
from dpstune.report.wrong_labels import write_wrong_labels, wrong_labels_section
from dpstune.studies.wrong_labels import Suspect

IDS = ["r1", "r2", "r3"]
TEXTS = [("a cat",), ("a, dog",), ("a man",)]


def suspects(*places):
    return [Suspect(place, "yes", "no", 0.1, 2) for place in places]


def right_labels(file):
    with file.open(newline="", encoding="utf-8-sig") as opened:
        return {row["id"]: row["right_label"] for row in csv.DictReader(opened)}


def fill_in(file, name, label):
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line}{label if line.startswith(f'{name},') else ''}\n" for line in lines))


def visible(folder):
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def test_what_a_person_filled_in_stays_when_the_list_is_written_again(tmp_path):
    file = write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)
    assert right_labels(file) == {"r1": "", "r2": ""}
    fill_in(file, "r2", "maybe")
    assert right_labels(write_wrong_labels(tmp_path, suspects(2, 1), IDS, TEXTS)) == {"r3": "", "r2": "maybe"}
    write_wrong_labels(tmp_path, suspects(1), IDS, TEXTS)
    assert visible(tmp_path) == [file]


@pytest.mark.parametrize("spoil", [lambda text: text, lambda text: text.replace(",", ";")])
def test_a_list_whose_answers_have_no_place_in_the_new_one_is_kept_beside_it(tmp_path, spoil):
    file = write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)
    fill_in(file, "r2", "maybe")
    file.write_text(spoil(file.read_text()))
    before = file.read_text()
    write_wrong_labels(tmp_path, suspects(0), IDS, TEXTS)
    assert right_labels(file) == {"r1": ""}
    assert (tmp_path / "wrong_labels.csv.earlier-1").read_text() == before


def test_a_list_that_could_not_be_written_again_is_still_there(tmp_path, monkeypatch):
    file = write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)
    fill_in(file, "r2", "maybe")

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dpstune.report.wrong_labels.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            write_wrong_labels(tmp_path, suspects(0), IDS, TEXTS)
    assert right_labels(write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)) == {"r1": "", "r2": "maybe"}
    assert (tmp_path / f"{file.name}.earlier-1").exists()


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("right_label\n", "right_label,comment\n"),
        ("r1,a cat,yes,no,0.1,2,", "r1,a cat,yes,no,0.1,2,,asked Anna"),
        ("r1,a cat,yes,no", "r1,a cat,yes,unclear"),
        ("r1,a cat", "r1,a black cat"),
        ("right_label\n", "right_label\nr9,a new one,yes,no,0.5,2,no\n"),
        ("r1,a cat,yes,no,0.1,2,\n", ""),
    ],
)
def test_a_list_in_which_a_person_changed_anything_else_is_kept_beside_the_new_one(tmp_path, written, changed):
    file = write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)
    fill_in(file, "r2", "maybe")
    assert written in file.read_text()
    file.write_text(edited := file.read_text().replace(written, changed))
    for _ in range(2):
        write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)
        assert right_labels(file) == {"r1": "", "r2": "maybe"}
        assert visible(tmp_path) == [file, tmp_path / "wrong_labels.csv.earlier-1"]
    assert (tmp_path / "wrong_labels.csv.earlier-1").read_text() == edited


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_what_a_person_filled_in_with_a_spreadsheet_stays(tmp_path, separator, encoding):
    file = write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)
    fill_in(file, "r2", "maybe")
    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.reader(opened))
    with file.open("w", newline="", encoding=encoding) as opened:
        csv.writer(opened, delimiter=separator).writerows(rows)
    assert right_labels(write_wrong_labels(tmp_path, suspects(0, 1), IDS, TEXTS)) == {"r1": "", "r2": "maybe"}
    assert visible(tmp_path) == [file]


def test_a_spreadsheet_knows_the_encoding_and_computes_nothing(tmp_path):
    texts = [("=HYPERLINK(1)",), ("-1",), ("@a", "\tb", "'+c")]
    found = [Suspect(0, "+yes", "=no", 0.1, 2), *suspects(1, 2)]
    file = write_wrong_labels(tmp_path, found, ["-r1", *IDS[1:]], texts)
    assert file.read_bytes().startswith("\ufeff".encode())
    _, *rows = csv.reader(file.read_text(encoding="utf-8-sig").splitlines())
    assert rows[0] == ["-r1", "'=HYPERLINK(1)", "", "", "'+yes", "'=no", "0.1", "2", ""]
    assert [rows[1][1], *rows[2][1:4]] == ["-1", "'@a", "'\tb", "''+c"]


@given(st.text(st.sampled_from("'=+-@\t\r1a")))
def test_what_is_written_for_a_spreadsheet_is_read_as_it_was(text):
    assert read_cell(shown_cell(text)) == text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("id,text,right_label\nr1,caf\xe9,no\n".encode("latin-1"), "wrong_labels.csv:2: not UTF-8 text"),
        (b"id;text;right\nr1;a cat;no\n", "wrong_labels.csv: no column 'right_label'; its columns are id, text, right"),
    ],
)
def test_a_list_that_cannot_be_read_is_told_with_where_it_is_now(tmp_path, content, why):
    told = []
    file = tmp_path / "wrong_labels.csv"
    file.write_bytes(content)
    for _ in range(2):
        write_wrong_labels(tmp_path, suspects(0), IDS, TEXTS, told.append)
    aside = tmp_path / "wrong_labels.csv.earlier-1"
    (line,) = told
    assert why in line
    assert f"it is kept as {aside}: mend it, rename it to wrong_labels.csv, and repeat the command" in line
    assert aside.read_bytes() == content


def test_those_left_out_are_counted_and_unknown_training_is_not_denied():
    def words(*arguments, **more):
        return wrong_labels_section(*arguments, **more)[1].text

    left = "Left out, since one answer to all is as good: 1 restart."
    assert words(suspects(0), IDS, TEXTS, 2, left_out=1).endswith(left)
    assert words([], IDS, TEXTS, 2, left_out=1).endswith(left)
    assert words([], IDS, TEXTS, 0, left_out=1).endswith(f"here there are those of 0 restarts. {left}")
    assert "none was trained on what it answers" in words(suspects(0), IDS, TEXTS, 2)
    foreign = words(suspects(0), IDS, TEXTS, 2, unseen=False)
    assert "whether one was trained on what it answers is not known here" in foreign
    assert "none was trained" not in foreign


@pytest.mark.parametrize(
    ("asked", "heading", "text"),
    [
        (0, "Likely wrong labels: not known", "here they are not known of all candidates."),
        (1, "Likely wrong labels: not known", "here there are those of 1 candidate."),
        (2, "Likely wrong labels: 0", "No example is answered alike, and against its label, by all candidates."),
    ],
)
def test_an_empty_list_says_whether_there_was_one_to_make(asked, heading, text):
    first, second = wrong_labels_section([], ["1"], [("a cat",)], asked, "candidate")
    assert isinstance(first, Heading)
    assert isinstance(second, Paragraph)
    assert first.text == heading
    assert second.text.endswith(text)
