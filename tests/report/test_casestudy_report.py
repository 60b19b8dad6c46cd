"""What a case study writes: every file says the same, and the page holds any text unharmed."""

import csv
import io
import json
import random
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpstune.report.casestudy_page import page_data, render_page
from dpstune.report.casestudy_report import format_proportions, summarize, write_case_study
from dpstune.studies.casestudy.casestudy import CaseStudy, Example, MethodVotes, Restart

LABELS = ("entailment", "neutral", "contradiction")
HOSTILE = "</script><script>window.hacked = 1</script><!-- <img src=x onerror='window.hacked = 1'> & \"quotes\""


def make_study(count=60, methods=("vanilla", "mixout p 0.3", "dps-mix"), restarts=10, seed=0):
    """A study of random votes; the first example's text is hostile, the last method's restarts are only counted."""
    rng = random.Random(seed)
    phenomena = ("negation", "number", "time order")
    examples = [
        Example(f"id-{n}", rng.choice(LABELS), (f"Premise {n} of all.", f"Hypothesis {n}?"), phenomena[n % 3])
        for n in range(count)
    ]
    examples[0] = Example("id-0", "neutral", (HOSTILE, "שלום, עולם"), "negation")
    counted = []
    for name in methods:
        ease = [rng.random() for _ in examples]
        votes = []
        for restart in range(restarts):
            right = [rng.random() < each for each in ease]
            given_labels = [
                example.label if good else LABELS[(LABELS.index(example.label) + 1) % 3]
                for example, good in zip(examples, right, strict=True)
            ]
            votes.append(Restart(f"seed {42 + restart}", right, given_labels))
        correct = [sum(column) for column in zip(*(vote.right for vote in votes), strict=True)]
        kept = votes if name != methods[-1] else []
        counted.append(MethodVotes(name, name.split()[0], restarts, correct, kept))
    return CaseStudy("minilm on toy-nli, validation", examples, counted, "vanilla", ["a note with <b>"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    study = make_study()
    folder = tmp_path_factory.mktemp("casestudy")
    assert write_case_study(folder, study) == folder / "report.html"
    return folder, study


class Scripts(HTMLParser):
    """Gathers what stands in a page's scripts."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.outside = [], []
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._inside = tag == "script"

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        (self.scripts if self._inside else self.outside).append(data)


def embedded(study):
    """What a browser reads from the page."""
    page = Scripts(render_page(study, "title"))
    assert len(page.scripts) == 2
    return json.loads(page.scripts[0])


def read_csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_nothing_else_is_written_and_the_same_study_gives_the_same_bytes(written, tmp_path):
    folder, study = written
    names = [
        ".wrong_labels.csv.sha256",
        "examples.csv",
        "figure.png",
        "figure.svg",
        "proportions.csv",
        "report.html",
        "report.md",
        "wrong_labels.csv",
    ]
    assert sorted(path.name for path in folder.iterdir()) == names
    write_case_study(tmp_path, study)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_the_tables_are_those_of_the_study(written):
    folder, study = written
    rows = read_csv(folder / "examples.csv")
    assert [row["id"] for row in rows] == [example.id for example in study.examples]
    assert rows[0]["text1"] == HOSTILE
    for method in study.methods:
        assert [int(row[f"correct_{method.name}"]) for row in rows] == list(method.correct)
        assert [row[f"verdict_{method.name}"] for row in rows] == method.verdicts
        assert [row[f"change_{method.name}"] or None for row in rows] == study.changes(method)
    shares = {(row["method"], row["phenomenon"]): row for row in read_csv(folder / "proportions.csv")}
    for each in summarize(study)["methods"]:
        row = shares[each["method"], ""]
        assert [int(row[key]) for key in ("easy", "hard", "neither")] == [each[k] for k in ("easy", "hard", "neither")]
        assert float(row["easy_share"]) == each["easy"] / 60
        compared = each["method"] != "vanilla"
        assert row["rescued"] == (str(len(each["rescued"])) if compared else "")
        parts = [int(shares[each["method"], name]["easy"]) for name in study.phenomena]
        assert sum(parts) == each["easy"]
        assert {name: part["easy"] for name, part in each["phenomena"].items()} == dict(
            zip(study.phenomena, parts, strict=True)
        )


def test_the_figure_is_a_picture_twice(written):
    folder, _ = written
    image = Image.open(io.BytesIO((folder / "figure.png").read_bytes()))
    assert min(image.size) > 200
    assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert ElementTree.parse(folder / "figure.svg").getroot().tag.endswith("svg")


def test_the_text_names_what_was_rescued_and_lost(written):
    folder, study = written
    text = (folder / "report.md").read_text()
    rescued = study.changes(study.methods[1]).count("rescued")
    assert rescued > 0
    assert f"## Rescued by mixout p 0.3: {rescued}" in text
    assert "![" in text
    assert "(figure.png)" in text
    assert "a note with \\<b\\>" in text
    assert "mixout p 0.3" in format_proportions(study)


def test_a_study_without_texts_baseline_or_votes_is_written_too(tmp_path):
    bare = CaseStudy("counts.csv", [Example("1")], [MethodVotes("mine $x$", "mine $x$", 2, [1])], None)
    write_case_study(tmp_path, bare)
    assert "Rescued" not in (tmp_path / "report.md").read_text()
    assert read_csv(tmp_path / "examples.csv")[0]["id"] == "1"
    assert embedded(bare)["examples"] == [["1", [], None, None, [1], [None]]]


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["</script>", "<!--", "{{data}}", ""]))
def test_any_text_comes_back_from_the_page(text, trap):
    example = Example(text + trap, trap + text, (text + trap, trap), trap + "p")
    study = CaseStudy(text, [example], [MethodVotes(text, text, 1, [1])], None, [trap])
    assert embedded(study) == json.loads(json.dumps(page_data(study)))
    assert trap + "p" in embedded(study)["phenomena"]


def test_the_page_asks_for_nothing_elsewhere(written):
    page = (written[0] / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
