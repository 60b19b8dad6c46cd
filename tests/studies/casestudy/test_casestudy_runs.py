"""A case study that trains its restarts: what is there is reused, what was interrupted goes on."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from dpstune.studies.casestudy.sources import SourcesRequest, study_sources

SHORT = ["--set", "training.steps=6", "--set", "training.warmup_steps=1"]
FILES = {"report.html", "report.md", "examples.csv", "proportions.csv", "figure.png", "figure.svg"}


def casestudy(zygote, recipe, output, *more):
    return zygote.run("casestudy", "--recipe", recipe, "--output", output, *SHORT, *more)


def results(output):
    """When each run was finished."""
    return {path: path.stat().st_mtime_ns for path in Path(output).glob("tiny/*/seed-*/result.json")}


@pytest.fixture(scope="module")
def swept(zygote, tiny_task, tmp_path_factory):
    """Two restarts of vanilla, trained by a sweep."""
    output = tmp_path_factory.mktemp("swept")
    command = ["sweep", "--recipe", tiny_task, "--method", "vanilla", "--seeds", "2", "--output", output, *SHORT]
    assert zygote.run(*command).code == 0
    return output


def test_a_restart_that_lies_in_two_sources_votes_once(swept, tmp_path):
    """As after the runs of two machines were copied to one."""
    for copied in shutil.copytree(swept, tmp_path / "copy").glob("tiny/*/seed-*/result.json"):
        result = json.loads(copied.read_text())
        copied.write_text(json.dumps({**result, "ended": "2020-01-01T00:00:00+00:00"}))
    first, *_ = results(swept)
    for sources in ((swept, tmp_path / "copy"), (tmp_path / "copy", swept, first.parent)):
        found = study_sources(SourcesRequest(sources, tmp_path))
        assert len(found.runs) == found.methods[0].restarts == 2
        assert all(swept in run.folder.parents for run in found.runs)
        assert sum("skipped: the same restart as " in note for note in found.notes) == 2


@pytest.mark.slow
def test_restarts_of_a_sweep_are_reused_and_the_others_trained(zygote, tiny_task, swept):
    before = results(swept)
    assert len(before) == 2
    run = casestudy(zygote, tiny_task, swept, "--restarts", "3", "--json")
    assert run.code == 0, run.stderr
    after = results(swept)
    assert {path: after[path] for path in before} == before
    told = json.loads(run.stdout)
    assert len(told["runs"]) == len(after) == 6
    assert [(each["method"], each["restarts"]) for each in told["methods"]] == [("vanilla", 3), ("dps-dense", 3)]
    assert (told["baseline"], told["examples"], told["failed"], told["left"]) == ("vanilla", 30, [], 0)
    for each in told["methods"]:
        assert each["easy"] + each["hard"] + each["neither"] == 30
        assert each["neither"] == 0, "of three restarts there is always a majority"
    page = Path(told["report"])
    assert {path.name for path in page.parent.iterdir()} >= FILES
    assert "a man, in a house" in page.read_text()

    again = casestudy(zygote, tiny_task, swept, "--restarts", "3", "--json")
    assert again.code == 0, again.stderr
    assert json.loads(again.stdout) == told
    assert results(swept) == after

    some = casestudy(zygote, tiny_task, swept, "--restarts", "3", "--set", "method.p=0.4", "--json")
    assert some.code == 0, some.stderr
    assert json.loads(some.stdout)["runs"] == told["runs"], "p is the recipe's, and vanilla has none"

    found = study_sources(SourcesRequest((swept,), swept, methods=("vanilla",)))
    assert list(found.methods[0].correct) == list(
        study_sources(SourcesRequest((page.parent / "examples.csv",), swept)).methods[0].correct
    )


def test_a_restart_that_fails_leaves_a_report_on_the_others_and_exit_code_1(zygote, tiny_task, swept):
    methods = ["--method", "vanilla", "--method", "reinit:layers=9"]
    run = casestudy(zygote, tiny_task, swept, "--restarts", "2", *methods, "--json")
    assert run.code == 1
    told = json.loads(run.stdout)
    assert [each["method"] for each in told["methods"]] == ["vanilla"]
    assert len(told["failed"]) == 2
    assert any("layers=9" in note for note in told["notes"])
    assert run.stderr.splitlines()[-1].startswith("error: 2 of 4 runs failed; the first with: method.layers: 9 is more")


@pytest.mark.slow
def test_an_interrupted_study_goes_on_where_it_was(zygote, tiny_task, tmp_path):
    more = ["--restarts", "1", "--set", "training.epochs=15"]

    def training():
        return any(log.stat().st_size > 500 for log in tmp_path.glob("tiny/*/*/metrics.jsonl"))

    command = ["casestudy", "--recipe", tiny_task, "--output", tmp_path, *more]
    interrupted = zygote.run(*command, when=training, send=signal.SIGINT)
    assert (interrupted.code, interrupted.stdout) == (130, "")
    assert "Traceback" not in interrupted.stderr
    assert not list(tmp_path.glob("tiny/casestudy-*/report.html"))
    run = zygote.run(*command)
    assert run.code == 0, run.stderr
    assert len(results(tmp_path)) == 2
    assert list(tmp_path.glob("tiny/casestudy-*/report.html"))
