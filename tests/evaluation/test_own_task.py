"""A run's own task whose files have changed since: no row that it was trained on is scored as one that was not."""

import json
import shutil

import pytest

import dpstune
from dpstune.errors import RequestError

ROWS = 'the man in the house,"a man, in a house",yes\n' * 20


@pytest.fixture
def trained(zygote, tiny_task, tmp_path):
    """Train two steps on a copy of the tiny task with other files; return the run's folder and the files'."""

    def train(files):
        folder = shutil.copytree(tiny_task.parent, tmp_path / "task")
        shutil.copy(folder / "validation.csv", folder / "test.csv")
        recipe = folder / "tiny.yaml"
        recipe.write_text(recipe.read_text().replace("validation: validation.csv", files))
        done = zygote.run(
            "train", "--recipe", recipe, "--set", "training.steps=2", "--output", tmp_path / "runs", "--json"
        )
        assert done.code == 0, done.stderr
        (result,) = (tmp_path / "runs").glob("*/*/*/result.json")
        return result.parent, folder

    return train


def add_rows(file):
    file.write_text(file.read_text() + ROWS)


@pytest.mark.parametrize("files", ["validation: 0.25", "folds: 3"])
def test_a_share_of_rows_that_have_changed_is_not_scored(zygote, trained, files):
    run, folder = trained(files)
    kept = (folder / "train.csv").read_text()
    add_rows(folder / "train.csv")
    for asked in ([run], [run / "model"], [run, "--task", folder / "tiny.yaml"]):
        refused = zygote.run("eval", *asked)
        assert (refused.code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
        assert "the rows of tiny have changed since it was trained" in refused.stderr
        assert "train it again, or put the rows back as they were" in refused.stderr
    with pytest.raises(RequestError, match="have changed since it was trained"):
        dpstune.evaluate(run)

    (folder / "train.csv").write_text(kept)
    scored = zygote.run("eval", run, "--json")
    assert scored.code == 0, scored.stderr
    assert "have changed" not in scored.stderr
    assert json.loads(scored.stdout)["metrics"] == json.loads((run / "result.json").read_text())["last"]["metrics"]


def test_a_file_of_its_own_is_scored_with_a_note(zygote, trained, tmp_path):
    run, folder = trained("validation: 0.25, test: test.csv")
    add_rows(folder / "train.csv")
    note = f"tiny: the data have changed since {run} was trained"
    scored = zygote.run("eval", run, "--split", "test", "--report", tmp_path / "page")
    assert scored.code == 0, scored.stderr
    assert note in scored.stderr
    assert f"{note}." in (tmp_path / "page" / "report.md").read_text()
    assert dpstune.evaluate(run, split="test").notes[-1] == note


def test_what_is_not_evaluated_may_be_gone_where_nothing_is_drawn(zygote, trained):
    run, folder = trained("validation: validation.csv, test: test.csv")
    (folder / "test.csv").unlink()
    scored = zygote.run("eval", run)
    assert scored.code == 0, scored.stderr
    assert "have changed" not in scored.stderr


def test_a_run_that_does_not_say_what_it_was_trained_with_is_scored(zygote, trained):
    run, folder = trained("validation: 0.25")
    result = json.loads((run / "result.json").read_text())
    del result["fingerprints"]
    (run / "result.json").write_text(json.dumps(result))
    add_rows(folder / "train.csv")
    assert zygote.run("eval", run).code == 0
