import base64
import csv
import io
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dpstune.errors import RequestError
from dpstune.report.page import Bullets, Paragraph, Table, render_html, render_markdown
from dpstune.report.sweep_report import write_sweep_report
from dpstune.studies.points import read_runs
from tests.studies.test_records import make_run, record

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers text, images and cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.texts, self.rows = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_is_a_picture(content):
    image = Image.open(io.BytesIO(content)).convert("RGB")
    assert min(image.size) > 300
    assert len(set(image.get_flattened_data() if hasattr(image, "get_flattened_data") else image.getdata())) > 20


def assert_whole(folder):
    """The report's files agree with one another; return the page."""
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    pictures = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    embedded = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.images]
    assert sorted(embedded) == sorted(pictures.values())
    assert all(image["alt"] for image in page.images)
    for content in embedded:
        assert_is_a_picture(content)
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in markdown for name in pictures)
    assert not list(folder.glob(".*"))
    return page


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A dps-dense grid of 2 x 2, mixout at 3 points, vanilla; 4 seeds each, written to disk and reported on."""
    folder = tmp_path_factory.mktemp("sweep")
    rng = np.random.default_rng(0)
    values = {}
    for seed in range(1, 5):
        points = [
            ("vanilla", {}),
            *(("mixout", {"method.p": p}) for p in (0.1, 0.5, 0.7)),
            *(("dps-dense", {"method.p": p, "method.update_ratio": u}) for p in (0.1, 0.3) for u in (0.05, 0.2)),
        ]
        for place, (method, settings) in enumerate(points):
            value = float(rng.normal({"vanilla": 0.5, "mixout": 0.55, "dps-dense": 0.6}[method], 0.03))
            values.setdefault((method, *settings.values()), []).append(value)
            overrides = [f"{key}={value}" for key, value in settings.items()]
            make_run(folder / "runs" / method / f"seed-{seed}-{place}", method, seed, value, overrides)
    records, notes = read_runs(folder)
    page = write_sweep_report(folder, records, notes=[*notes, "trial 3 failed: loss <nan> | a_b"])
    assert page == folder / "report.html"
    return folder, values


def test_csv_numbers_are_those_of_numpy(sweep):
    folder, values = sweep
    rows = read_csv(folder / "points.csv")
    assert len(rows) == len(values) == 8
    for row in rows:
        settings = [float(row[key]) for key in ("method.p", "method.update_ratio") if row[key]]
        given = np.array(values[(row["method"], *settings)])
        assert int(row["seeds"]) == 4
        assert float(row["mean"]) == pytest.approx(given.mean(), abs=1e-15)
        assert float(row["std"]) == pytest.approx(given.std(ddof=1), abs=1e-15)
        assert float(row["max"]) == given.max()
        assert given.min() <= float(row["low"]) <= float(row["mean"]) <= float(row["high"]) <= given.max()
        assert int(row["failed"]) == np.sum(given <= 0.34)
        assert float(row["mean_seconds"]) == 3.5
    runs = read_csv(folder / "runs.csv")
    assert len(runs) == 32
    assert sorted(float(row["value"]) for row in runs) == sorted(value for each in values.values() for value in each)
    assert all((folder / row["folder"] / "result.json").exists() for row in runs)


def test_values_of_weights_that_the_split_chose_are_said_to_be_optimistic(tmp_path):
    chosen = {"kept": {"step": 2, "chosen_by": "validation"}, "steps": 9, "stopped_early_at": None}
    write_sweep_report(tmp_path / "last", [record()])
    write_sweep_report(tmp_path / "best", [record(**chosen)])
    last, best = (" ".join((tmp_path / name / "report.md").read_text().split()) for name in ("last", "best"))
    assert "after the last step." in last
    assert "after the last step" not in best
    assert "chosen on it, so that the values are optimistic" in best


def test_page_and_markdown_hold_the_same_tables(sweep):
    folder, values = sweep
    page = assert_whole(folder)
    markdown = (folder / "report.md").read_text()
    lines = [line for line in markdown.splitlines() if line.startswith("|") and not line.startswith("|:")]
    cells = [[cell.strip(" *").replace("\\", "") for cell in line.strip("|").split(" | ")] for line in lines]
    assert cells == [[cell.strip() for cell in row] for row in page.rows]
    best = max((key for key in values if key[0] == "dps-dense"), key=lambda key: np.mean(values[key]))
    row = next(row for row in page.rows if row[0] == "dps-dense")
    assert row[1] == f"p {best[1]:g}, update_ratio {best[2]:g}"
    difference = np.mean(values[best]) - np.mean(values["vanilla",])
    assert row[-5:] == ["4", f"{difference:+.4f}", "0.1250", "0.2500", "0.1250"]


def test_text_says_what_was_run_and_what_to_beware_of(sweep):
    text = " ".join(Page((sweep[0] / "report.html").read_text()).texts)
    for expected in (
        "minilm on toy-nli: 32 runs of 8 points (3 methods: vanilla, dps-dense, mixout), seeds 1 to 4.",
        "accuracy on validation (500 examples; 2000 to train on)",
        "gets accuracy 0.3400",
        "its mean is optimistic",
        "The smallest p that can be reached is 0.1250 with 4 shared seeds: with so few seeds no difference, however",
        "trial 3 failed: loss <nan> | a_b",
    ):
        assert expected in text


def test_too_few_seeds_for_several_methods_are_told_beside_a_method_that_shares_fewer(tmp_path):
    methods = {"vanilla": 6, "mixout": 6, "dps-mix": 6, "r3f": 2}
    records = [record(name, seed, 0.5 + seed / 100) for name, count in methods.items() for seed in range(1, count + 1)]
    write_sweep_report(tmp_path, records)
    text = " ".join(assert_whole(tmp_path).texts)
    assert "The smallest p that can be reached is 0.5000 with 2 shared seeds" in text
    assert "Corrected for 3 methods, the smallest p that can be reached is 0.0938" in text


def test_the_same_runs_give_the_same_bytes(sweep, tmp_path):
    folder, _ = sweep
    records, notes = read_runs(folder)
    write_sweep_report(tmp_path, records[::-1], notes=[*notes, "trial 3 failed: loss <nan> | a_b"])
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_one_run_alone(tmp_path):
    make_run(tmp_path / "seed-1-a", "mixout")
    write_sweep_report(tmp_path, read_runs(tmp_path)[0])
    page = assert_whole(tmp_path)
    (row,) = read_csv(tmp_path / "points.csv")
    assert (row["method"], row["seeds"], row["mean"], row["std"]) == ("mixout", "1", "0.5", "")
    assert (row["low"], row["high"]) == ("", "")
    text = " ".join(page.texts)
    assert "1 run of 1 point (1 method: mixout), seed 1." in text
    assert "There are no runs of vanilla" in text
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["best-points.png", "expected-best.png"]


def test_vanilla_alone_is_compared_with_nothing(tmp_path):
    write_sweep_report(tmp_path, [record(seed=seed, value=0.1 * seed) for seed in (1, 2)])
    text = " ".join(assert_whole(tmp_path).texts)
    assert "smallest p" not in text
    assert "no runs of vanilla" not in text


def test_regression_with_undefined_values(tmp_path):
    task = {"task": "toy-sts", "metric": "spearman", "majority": None}
    records = [record("mixout", seed, value, **task) for seed, value in ((1, None), (2, 0.8), (3, -0.1))]
    records += [record("vanilla", seed, None, **task) for seed in (4, 5)]
    write_sweep_report(tmp_path, records)
    text = " ".join(assert_whole(tmp_path).texts)
    assert "3 values undefined" in text
    assert "In regression there is no commonest label" in text
    assert "A method that shares no seed with vanilla is not compared." in text
    vanilla, mixout = read_csv(tmp_path / "points.csv")
    assert (vanilla["undefined"], vanilla["failed"], vanilla["mean"]) == ("2", "2", "0.0")
    assert (mixout["undefined"], mixout["failed"], float(mixout["max"])) == ("1", "2", 0.8)
    assert [row["value"] for row in read_csv(tmp_path / "runs.csv")] == ["", "", "", "0.8", "-0.1"]


@pytest.mark.parametrize(
    ("method", "grid"),
    [
        ("r3f", [[f"method.noise={noise}", f"method.lambda={each}"] for noise in ("normal", "uniform")
                 for each in (0.1, 5)]),
        ("vanilla", [["model.name=a$b$c"], ["model.name=$d"]]),
        *(pytest.param(*shape, marks=pytest.mark.slow) for shape in [
            ("r3f", [["method.noise=normal"], ["method.noise=uniform"]]),
            ("r-drop", [[f"method.alpha={alpha}"] for alpha in (0.1, 0.5, 1, 3, 5)]),
            ("dps-mix", [[f"method.p={p / 100}", f"method.update_ratio={p / 1000}"] for p in range(2, 30)]),
            ("dps-mix", [["method.p=0.1", "method.update_ratio=0.1"], ["method.p=0.2", "method.update_ratio=0.2"]]),
            ("dps-mix", [[f"method.p={p}", f"training.learning_rate={rate}", f"data.max_length={tokens}"]
                         for p in (0.1, 0.2) for rate in (1e-5, 2e-5) for tokens in (32, 64)]),
            ("vanilla", [["training.steps=20"], ["training.epochs=2"]]),
        ]),
    ],
)  # fmt: skip
def test_figures_of_every_shape_of_grid(tmp_path, method, grid):
    records = [
        record(method, seed, 0.5 + 0.01 * (place % 7) * seed, overrides)
        for place, overrides in enumerate(grid)
        for seed in (1, 2)
    ]
    write_sweep_report(tmp_path, records)
    assert_whole(tmp_path)
    assert (tmp_path / f"settings-{method}.png").exists()


@pytest.mark.parametrize(("one", "other"), [({}, {"task": "toy-rte"}), ({"metric": "f1"}, {}), ({"split": "test"}, {})])
def test_runs_that_cannot_be_compared_are_refused(tmp_path, one, other):
    with pytest.raises(RequestError, match="report on one at a time"):
        write_sweep_report(tmp_path, [record(**one), record(**other)])
    assert list(tmp_path.iterdir()) == []


def test_no_runs_are_refused(tmp_path):
    with pytest.raises(RequestError, match="no finished run"):
        write_sweep_report(tmp_path, [])


@pytest.mark.slow
def test_a_thousand_runs_take_seconds(tmp_path):
    records = [
        record("dps-dense", seed, 0.4 + 0.001 * seed, [f"method.p={p / 100}", f"method.update_ratio={u / 100}"])
        for p in range(5, 55, 5)
        for u in range(1, 21)
        for seed in range(5)
    ]
    started = time.process_time()
    write_sweep_report(tmp_path, records)
    assert time.process_time() - started < 20  # 3 s on a quiet core
    assert len(read_csv(tmp_path / "runs.csv")) == 1000


def test_nothing_in_a_text_is_markup():
    nasty = '<script>"x"</script> *a* _b_ `c` [d](e) | f_g\nnext'
    blocks = [Paragraph(nasty), Bullets([nasty]), Table([nasty, "n"], [[nasty, "1"]], strong=frozenset({0}))]
    page = Page(render_html(nasty, blocks))
    assert "script" not in page.open
    assert page.texts.count(nasty) == 6  # title, heading, paragraph, item, header cell, cell
    markdown = render_markdown(nasty, blocks)
    assert "<script>" not in markdown.replace("\\<", "")
    assert len(markdown.splitlines()) == 9
    assert r"\*a\* \_b\_ \`c\` \[d\](e) \| f_g next" in markdown


def test_a_report_on_what_is_better_when_lower_says_so(tmp_path):
    lower = {"metric": "log_loss", "majority": 0.69}
    for seed in (1, 2, 3):
        make_run(tmp_path / f"seed-{seed}-v", "vanilla", seed, 0.6 + seed / 100, **lower)
        for p in (0.1, 0.5):
            make_run(tmp_path / f"seed-{seed}-{p}", "mixout", seed, p + seed / 100, [f"method.p={p}"], **lower)
    write_sweep_report(tmp_path / "report", read_runs(tmp_path)[0])
    page = assert_whole(tmp_path / "report")
    text = " ".join(page.texts)
    assert "log_loss (lower is better) on validation" in text
    assert "a restart has failed where it gets no less; failed restarts: 0 of 9" in text
    assert "the one with the lowest mean" in text
    assert page.rows[0][6] == "min"
    (mixout,) = (row for row in page.rows if row[0] == "mixout" and row[1].startswith("p 0.1") and len(row) > 10)
    assert mixout[6] == "0.1100"
    assert "min" in read_csv(tmp_path / "report" / "points.csv")[0]
