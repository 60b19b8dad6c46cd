"""What every report opens with, and that it fits its page."""

import json
import os
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpstune.commands.options import command_to_repeat
from dpstune.report.header import profile_header, report_header, runs_header
from dpstune.report.page import Facts, Table, render_html, render_markdown
from dpstune.report.sweep_report import write_sweep_report
from dpstune.studies.points import read_runs
from tests.browser import Browser
from tests.report.test_sweep_report import Page
from tests.studies.test_records import make_run, record

ENVIRONMENT = {
    "python": "3.12.1",
    "platform": "Linux-6.1",
    "machine": "x86_64",
    "cpus": 8,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "processes": 1,
    "packages": {"dpstune": "0.1.0", "torch": "2.9.0", "datasets": None},
}
FOLDER = "/home/someone/models/with/a/rather/long/path/to/tiny-bert"


def end(run, day, **environment):
    """Give a run an environment, and the day on which it ended."""
    (run / "environment.json").write_text(json.dumps({**ENVIRONMENT, **environment}))
    moment = datetime.fromisoformat(f"{day}T12:00").timestamp()
    os.utime(run / "result.json", (moment, moment))


@pytest.fixture(scope="module")
def long_sweep(tmp_path_factory):
    """A report on points with many settings, of a model in a folder, trained on two machines."""
    folder = tmp_path_factory.mktemp("long")
    for seed in (1, 2):
        for method, keys in (("vanilla", []), ("child-tuning-d", ["method.p=0.25"]), ("dps-dense", ["method.p=0.15"])):
            for rate in (0.000123, 0.000456):
                more = [f"training.learning_rate={rate}", f"training.weight_decay={rate}", "data.max_length=64"]
                more += [f"model.name={FOLDER}", f"training.layerwise_lr_decay={1 - rate}", *keys]
                run = make_run(folder / "runs" / f"seed-{seed}-{method}-{rate}", method, seed, 0.5 + rate, more)
                where = {"device": "NVIDIA H100", "precision": "bf16"} if seed == 2 else {}
                end(run, f"2026-03-0{seed}", **where)
    records, notes = read_runs(folder)
    write_sweep_report(folder, records, notes=notes, command="dpstune sweep --recipe my.yaml")
    return folder


def told(header):
    return {item.label: item.text for item in header.items}


def test_a_header_says_what_was_run_where_and_when(long_sweep):
    records, _ = read_runs(long_sweep)
    header = runs_header(records, "dpstune sweep --recipe my.yaml")
    assert told(header) == {
        "Recipe": "demo",
        "Model": "tiny-bert",
        "Task": "toy-nli",
        "Machine": "cpu (x86_64, 1 thread of 8 cores), fp32; NVIDIA H100, bf16",
        "Date": "2026-03-01 to 2026-03-02",
        "Command": "dpstune sweep --recipe my.yaml",
    }
    details = {item.label: item.details for item in header.items}
    assert details["Model"] == FOLDER
    assert details["Machine"] == "Linux-6.1, Python 3.12.1, dpstune 0.1.0, torch 2.9.0"
    for name in ("report.html", "report.md"):
        text = (long_sweep / name).read_text()
        for expected in (*told(header).values(), *details.values()):
            assert expected in text.replace("\\", "").replace("</span> <span>", " "), expected


def test_software_that_changed_on_one_machine_is_told_of_in_full():
    newer = {**ENVIRONMENT, "packages": {"torch": "2.10.0"}}
    (machine,) = report_header(environments=[ENVIRONMENT, newer, ENVIRONMENT]).items
    assert machine.text == "cpu (x86_64, 1 thread of 8 cores), fp32"
    software = "Linux-6.1, Python 3.12.1, dpstune 0.1.0, torch 2.9.0; Linux-6.1, Python 3.12.1, torch 2.10.0"
    assert machine.details == software


def test_what_is_not_known_is_left_out():
    assert told(runs_header([record()], None)) == {"Recipe": "demo", "Model": "minilm", "Task": "toy-nli"}
    assert runs_header([], None) == Facts([])


def test_a_profile_has_the_same_header():
    outcome = {"recipe": "demo", "model": "/a/b", "environment": ENVIRONMENT, "date": "2026-03-04"}
    header = told(profile_header(outcome, "dpstune profile --recipe demo"))
    assert list(header) == ["Recipe", "Model", "Machine", "Date", "Command"]
    assert (header["Model"], header["Date"]) == ("b", "2026-03-04")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["sweep", "--recipe", "my file.yaml", "--json"], "dpstune sweep --recipe 'my file.yaml'"),
        (["sweep", "--recipe", "demo", "--report"], "dpstune sweep --recipe demo"),
        (["sweep", "--storage", "postgresql://me:se:c@ret@host/db"], "dpstune sweep --storage 'postgresql://me:***@host/db'"),
        (["sweep", "--storage=mysql://host/db?user=me&password=secret&ssl=1"],
         "dpstune sweep '--storage=mysql://host/db?user=me&password=***&ssl=1'"),
        (["sweep", "--storage", "postgresql://h/db?sslpassword=abc&PassWord=of/me"],
         "dpstune sweep --storage 'postgresql://h/db?sslpassword=***&PassWord=***'"),
        (["sweep", "--storage", "sqlite:////tmp/a@b.db"], "dpstune sweep --storage sqlite:////tmp/a@b.db"),
        (["train", "--data-dir", "d\udcff"], r"dpstune train --data-dir 'd\udcff'"),
    ],
)  # fmt: skip
def test_the_command_is_what_was_typed_but_for_passwords(typed, expected):
    context = SimpleNamespace(find_root=lambda: SimpleNamespace(obj=typed))
    assert command_to_repeat(context) == expected


def test_the_command_reaches_the_page_from_the_command_line(zygote, tmp_path):
    (tmp_path / "votes.csv").write_text("id,method,correct,restarts\na,vanilla,1,3\na,mixout,2,3\n")
    run = zygote.run("casestudy", "--from", tmp_path / "votes.csv", "--output", tmp_path / "runs", "--json")
    assert run.code == 0, run.stderr
    page = Page(next(tmp_path.glob("runs/*/report.html")).read_text())
    assert f"--from {tmp_path}/votes.csv" in page.texts
    assert f"--output {tmp_path}/runs" in page.texts
    assert "--json" not in " ".join(page.texts)
    assert "Date" in page.texts


@pytest.mark.slow
def test_a_task_that_is_renamed_keeps_its_runs_and_its_sweep(zygote, tiny_task, tmp_path):
    text = tiny_task.read_text().replace("train: train", f"train: {tiny_task.parent}/train")
    text = text.replace("validation: validation", f"validation: {tiny_task.parent}/validation")
    recipe = tmp_path / "reviews.yaml"
    short = ["--set", "training.steps=2", "--set", "training.warmup_steps=1", "--no-models"]
    asked = ["sweep", "--recipe", recipe, "--method", "vanilla", "--seeds", "1", *short, "--output", tmp_path / "runs"]
    pages = []
    for name in ("", "name: product reviews, "):
        recipe.write_text(text.replace("files:", f"{name}files:"))
        run = zygote.run(*asked, "--json")
        assert run.code == 0, run.stderr
        pages.append(json.loads(run.stdout)["report"])
    assert pages[0] == pages[1]
    (result,) = tmp_path.glob("runs/reviews/*/*/result.json")
    assert json.loads(result.read_text())["task"] == "reviews", "as it was called when it was trained"
    texts = Page(Path(pages[0]).read_text()).texts
    for expected in ("dpstune sweep", "--no-models", "reviews", "model"):
        assert expected in texts


def test_a_command_stays_one_in_markdown():
    header = report_header(command="dpstune sweep --set 'a=`b` <c> *d*'")
    assert "- Command: `` dpstune sweep --set 'a=`b` <c> *d*' ``" in render_markdown("t", [header])
    assert "a=`b` &lt;c&gt; *d*" in render_html("t", [header])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


class TestInABrowser:
    WIDE = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth).length"

    def test_nothing_scrolls_sideways_at_1200(self, browser, long_sweep):
        browser.screen(1200, 900)
        browser.open((long_sweep / "report.html").as_uri())
        assert browser.run("document.querySelectorAll('.scroll').length") == 2
        assert browser.run(self.WIDE) == 0
        assert browser.run("document.documentElement.scrollWidth") <= 1200

    def test_a_table_of_seven_targets_fits_too(self, browser, tmp_path):
        cell = "0.8123 ± 0.0123 (-0.0234)"
        header = ["method", "seeds", "mnli (in-domain)", *("mnli-mm", "snli", "sick", "scitail", "rte", "hans"), "mean"]
        table = Table(header, [["dps-dense p 0.1, update_ratio 0.05", "10", *[cell] * 7, "0.8000"]])
        page = tmp_path / "wide.html"
        page.write_text(render_html("wide", [table]), encoding="utf-8")
        browser.screen(1200, 900)
        browser.open(page.as_uri())
        assert browser.run(self.WIDE) == 0

    def test_the_page_itself_never_scrolls_on_a_small_screen(self, browser, long_sweep):
        browser.screen(360, 800)
        browser.open((long_sweep / "report.html").as_uri())
        assert browser.run("document.documentElement.scrollWidth") <= 360

    def test_figures_are_sharp_on_a_screen_of_two_pixels_to_one(self, browser, long_sweep):
        browser.screen(1200, 900, scale=2)
        browser.open((long_sweep / "report.html").as_uri())
        sizes = browser.run(
            "[...document.images].map((each) => [each.naturalWidth, each.getBoundingClientRect().width])"
        )
        assert sizes
        assert all(pixels >= 2 * width - 1 for pixels, width in sizes), sizes
        assert (long_sweep / "report.html").stat().st_size < 1 << 20
