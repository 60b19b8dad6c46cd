"""A task to evaluate on: which splits are meant, and what is not there is refused, not replaced."""

import json

import pytest

from dpstune.errors import RequestError
from dpstune.evaluation.targets import Target, read_target, target_of
from dpstune.evaluation.trained import TrainedPlace
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    """A data folder with one validation file for both halves of mnli."""
    (tmp_path / "mnli").mkdir()
    rows = [{"premise": "a", "hypothesis": "b", "label": name} for name in ("neutral", "entailment", "contradiction")]
    (tmp_path / "mnli" / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.mark.parametrize(
    ("task", "split", "splits"),
    [
        ("mnli", "validation", ("validation_matched", "validation_mismatched")),
        ("mnli", "test", ("test_matched", "test_mismatched")),
        ("mnli", "validation_mismatched", ("validation_mismatched",)),
        ("rte", "validation", ("validation",)),
        ("rte", "nonsense", ("nonsense",)),
    ],
)
def test_mnlis_halves_are_meant_together_or_alone(task, split, splits):
    assert Target(task, split).splits == splits


def test_one_file_for_both_halves_is_read_once(folder):
    assert list(Target("mnli", "validation", folder).read().splits) == ["validation"]
    assert list(Target("mnli", "validation_matched", folder).read().splits) == ["validation"]


def test_the_half_that_is_not_there_is_not_replaced_by_the_other(folder):
    with pytest.raises(RequestError, match="has no split 'validation_mismatched'"):
        Target("mnli", "validation_mismatched", folder).read()


def test_both_halves_where_both_are_there(folder):
    (folder / "mnli" / "validation.jsonl").rename(folder / "mnli" / "validation_matched.jsonl")
    text = (folder / "mnli" / "validation_matched.jsonl").read_text()
    (folder / "mnli" / "validation_mismatched.jsonl").write_text(text.splitlines()[0] + "\n" + text)
    task = Target("mnli", "validation", folder).read()
    assert {split: len(examples) for split, examples in task.splits.items()} == {
        "validation_matched": 3,
        "validation_mismatched": 4,
    }


def test_a_recipe_file_names_its_own_task(tiny_task):
    task = read_target(str(tiny_task), "validation", None).read()
    assert list(task.splits) == ["validation"]
    assert task.label_names == ("no", "yes")


def test_the_fingerprint_is_that_of_the_examples(folder):
    before = Target("mnli", "validation", folder).read().fingerprint
    file = folder / "mnli" / "validation.jsonl"
    assert Target("mnli", "validation", folder).read().fingerprint == before
    file.write_text(file.read_text().replace('"neutral"', '"entailment"'))
    assert Target("mnli", "validation", folder).read().fingerprint != before


def test_a_task_of_the_table_is_looked_for_where_the_runs_own_data_lie(folder, tmp_path):
    recipe = load_recipe("demo", data_dir=folder).recipe
    place = TrainedPlace("a run", tmp_path, RunFolder(tmp_path), recipe)
    assert target_of(place, "mnli", "validation", None) == Target("mnli", "validation", folder)
    assert target_of(place, "mnli", "validation", tmp_path) == Target("mnli", "validation", tmp_path)
    assert target_of(place, "sst2", "validation", None) == Target("sst2", "validation", None)
    assert target_of(place, None, "validation", None) == Target("toy-nli", "validation", folder)
