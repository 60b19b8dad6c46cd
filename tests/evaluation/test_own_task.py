"""A run's own task whose files have changed since: no row that it was trained on is scored as one that was not."""

import json
import re
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


@pytest.mark.parametrize(
    "edit",
    [
        ("validation: 0.25", "validation: 0.5"),
        ("label: label", "label: label, split_seed: 1"),
        ("validation: 0.25", "validation: train.csv"),
    ],
    ids=["share", "split_seed", "file"],
)
def test_rows_that_an_edited_recipe_draws_of_those_trained_on_are_told(zygote, trained, edit):
    run, folder = trained("validation: 0.25")
    assert not any("same text" in note for note in dpstune.evaluate(run, folder / "tiny.yaml").notes)
    edited = folder / "edited.yaml"
    edited.write_text((folder / "tiny.yaml").read_text().replace(*edit))
    found = dpstune.evaluate(run, edited)
    told = found.notes[-1]
    seen, scored = re.fullmatch(r"(\d+) of (\d+) rows: the training rows have the same text, .*", told).groups()
    assert 0 < int(seen) <= int(scored) == found.rows[0]["examples"]
    assert told in zygote.run("eval", run, "--task", edited).stderr


def test_rows_that_an_edited_recipe_draws_anew_of_others_are_not_scored(trained):
    run, folder = trained("validation: 0.25")
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("validation: 0.25", "validation: 0.5"))
    add_rows(folder / "train.csv")
    with pytest.raises(RequestError, match="have changed since it was trained"):
        dpstune.evaluate(run, recipe)


def test_what_cannot_be_compared_with_the_training_rows_says_so(trained):
    run, folder = trained("validation: validation.csv")
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("validation: validation.csv", "validation: 0.5"))
    (folder / "validation.csv").unlink()
    with pytest.raises(RequestError, match=r"cannot be compared with those: .*validation\.csv"):
        dpstune.evaluate(run, recipe)


def test_a_task_of_another_metric_has_the_same_rows(trained):
    run, folder = trained("validation: 0.25, test: test.csv")
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("label: label", "label: label, metric: macro_f1"))
    assert not any("same text" in note for note in dpstune.evaluate(run, recipe).notes)
    add_rows(folder / "train.csv")
    changed = f"tiny: the data have changed since {run} was trained"
    assert dpstune.evaluate(run, recipe, split="test").notes[-1] == changed


def test_rows_that_were_moved_are_read_where_they_are_said_to_be(zygote, trained, tmp_path):
    run, folder = trained("validation: 0.25")
    new = folder.rename(tmp_path / "new")
    refused = zygote.run("eval", run)
    assert (refused.code, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert f"there is no file {folder / 'train.csv'}; where it was moved, --data-dir names" in refused.stderr
    with pytest.raises(RequestError, match=r"where it was moved, data_dir names the folder that holds it"):
        dpstune.evaluate(run)
    value = json.loads((run / "result.json").read_text())["value"]
    assert dpstune.evaluate(run, data_dir=new, quiet=True).value == value
    scored = zygote.run("eval", run, "--data-dir", new, "--json")
    assert scored.code == 0, scored.stderr
    assert json.loads(scored.stdout)["metrics"]["validation"]["accuracy"] == value
    add_rows(new / "train.csv")
    refused = zygote.run("eval", run, "--data-dir", new)
    assert "the rows of tiny have changed since it was trained" in refused.stderr
