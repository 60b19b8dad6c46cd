"""TPE proposes points in the grid's ranges and goes on after an interruption; hopeless points are given up."""

import csv
import json
import threading

import optuna
import pytest

from dpstune.studies.sweep.search import PointSearch, hopeless

GRID = {
    "method.p": [0.1, 0.5],
    "training.learning_rate": [1e-5, 1e-3],
    "method.noise": ["normal", "uniform"],
    "method.layers": [1, 2, 7],
    "method.sigma": [1e-5],
}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def test_points_lie_in_the_grids_ranges(url):
    search = PointSearch(url, "sweep", "any", GRID, budget=12)
    points = [search.propose() for _ in range(12)]
    assert search.propose() is None
    for point in points:
        assert 0.1 <= point["method.p"] <= 0.5
        assert 1e-5 <= point["training.learning_rate"] <= 1e-3
        assert point["method.noise"] in ("normal", "uniform")
        assert point["method.layers"] in range(1, 8)
        assert point["method.sigma"] == 1e-5
    assert len({point["method.p"] for point in points}) > 6
    assert min(point["training.learning_rate"] for point in points) < 1e-4, "by orders of magnitude"


def test_rounding_does_not_leave_the_range(url):
    search = PointSearch(url, "sweep", "any", {"method.p": [0.99985, 0.9999]}, budget=5)
    assert all(0.99985 <= search.propose()["method.p"] <= 0.9999 for _ in range(5))


def test_it_finds_the_better_end_of_a_range(url):
    search = PointSearch(url, "sweep", "any", {"method.p": [0.0, 1.0]}, budget=40)
    for _ in range(40):
        point = search.propose()
        search.tell(point, 1 - abs(point["method.p"] - 0.8))
    late = [point["method.p"] for point in search.points()[-10:]]
    assert sum(abs(p - 0.8) for p in late) / 10 < 0.2, "by chance it is 0.34"


def test_it_goes_on_with_what_was_proposed_and_told(url):
    first = PointSearch(url, "sweep", "any", GRID, budget=3)
    points = [first.propose(), first.propose()]
    first.tell(points[0], 0.5)
    again = PointSearch(url, "sweep", "any", GRID, budget=3)
    assert again.points() == points
    again.tell(points[0], 0.9)  # told already: nothing happens
    again.tell(points[1], None)
    assert again.propose() is not None
    assert again.propose() is None


def test_two_that_search_together_keep_to_the_budget_and_propose_different_points(url):
    first, second = (PointSearch(url, "sweep", "any", GRID, budget=2) for _ in range(2))
    first.propose()
    meanwhile, look = threading.Thread(target=second.propose), first._trials

    def look_slowly():
        found = look()
        if not meanwhile.ident:
            meanwhile.start()
            meanwhile.join(1)
        return found

    first._trials = look_slowly
    first.propose()
    meanwhile.join()
    points = second.points()
    assert len(points) == 2
    assert points[0] != points[1]


def test_what_two_tell_at_the_same_moment_is_what_was_told_first(url, monkeypatch):
    first, second = (PointSearch(url, "sweep", "any", GRID, budget=2) for _ in range(2))
    point, look = first.propose(), first._trials

    def look_slowly(*states):
        found = look(*states)
        second.tell(point, 0.5)
        return found

    monkeypatch.setattr(first, "_trials", look_slowly)
    first.tell(point, 0.6)
    (trial,) = optuna.load_study(study_name="sweep: any", storage=url).trials
    assert trial.value == 0.5


def test_what_is_hopeless():
    good = {name: [0.8, 0.9, 0.8] for name in "abcd"}
    assert hopeless({**good, "bad": [0.5, 0.5]}) == ["bad"]
    assert hopeless({**good, "young": [0.1]}) == [], "one seed says too little"
    assert hopeless({**good, "unlike": [None, 0.1, 0.1]}) == [], "its other seeds may be harder ones"
    assert hopeless({**good, "bad": [0.5, 0.5, None]}) == ["bad"]
    assert hopeless({"a": [0.8, 0.8], "b": [0.9, 0.9], "bad": [0.1, 0.1]}) == [], "too few to compare with"


@pytest.fixture
def recipe(tmp_path, tiny_model):
    """A task that is learned in a few steps, at a sane learning rate."""
    for split, count in (("train", 48), ("validation", 12)):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            rows = ((f"{('cat', 'dog')[n % 2]} " * (2 + n % 3), ("left", "right")[n % 2]) for n in range(count))
            csv.writer(file).writerows([("text", "label"), *rows])
    recipe = tmp_path / "easy.yaml"
    recipe.write_text(
        f"model: {{name: {tiny_model}}}\n"
        "task: {files: {train: train.csv, validation: validation.csv}, text: text, label: label}\n"
        "data: {max_length: 12}\nmethod: vanilla\n"
        "training: {batch_size: 8, learning_rate: 0.01, steps: 36, warmup_steps: 4, precision: fp32, eval_every: 36}\n"
    )
    return recipe


@pytest.fixture
def sweep(zygote, recipe):
    """Run a sweep's command line on the recipe and return what it says to programs."""

    def sweep(*arguments):
        done = zygote.run("sweep", "--recipe", recipe, "--output", recipe.parent / "runs", "--json", *arguments)
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)

    return sweep


@pytest.mark.slow
def test_a_search_runs_every_seed_of_as_many_points_as_its_budget(sweep):
    rates, chances = "training.learning_rate=0.005,0.02", "method.p=0.1,0.9"  # so many that no two points are one
    grid = ["--grid", rates, "--grid", chances]
    arguments = ["--method", "mixout", *grid, "--sampler", "tpe", "--budget", "3", "--seeds", "2"]
    outcome = sweep(*arguments, "--jobs", "2")
    assert (len(outcome["runs"]), outcome["left"]) == (6, 0)
    assert sorted(sweep(*arguments)["runs"]) == sorted(outcome["runs"])
    assert len(sweep(*arguments, "--budget", "4")["runs"]) == 8


def test_a_search_of_few_points_ends_with_the_last_of_them(url):
    search = PointSearch(url, "sweep", "any", {"method.layers": [1, 3], "method.noise": ["a", "b"]}, budget=99)
    points = []
    assert search.to_come(search.points()) == 6
    while (point := search.propose()) is not None:
        points.append(point)
    assert len({json.dumps(point) for point in points}) == 6
    assert search.to_come(search.points()) == 0
    assert points[-1] not in points[:-1]


def test_a_point_that_is_proposed_again_is_told_each_time(url):
    search = PointSearch(url, "sweep", "any", {"method.layers": [1, 2], "method.noise": ["a", "b"]}, budget=5)
    points = [search.propose() for _ in range(4)]
    for point in points:
        search.tell(point, float(point["method.layers"]))
    trials = optuna.load_study(study_name="sweep: any", storage=url).trials
    assert [(trial.state.name, trial.value) for trial in trials] == [
        ("COMPLETE", float(point["method.layers"])) for point in points
    ]


@pytest.mark.slow
def test_a_point_that_is_proposed_again_is_run_once(sweep, recipe):
    """Of three points in a range of two one may be; whether it is lies with the draw."""
    asked = ["--method", "reinit", "--grid", "method.layers=1,2", "--sampler", "tpe", "--budget", "3", "--seeds", "1"]
    outcome = sweep(*asked)
    (database,) = (recipe.parent / "runs").glob("*/sweep-*/study.db")
    storage = f"sqlite:///{database}"
    (name,) = (each for each in optuna.get_all_study_names(storage) if each.endswith(": reinit"))
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    values = {(trial.params["method.layers"], trial.value) for trial in trials}
    points = {layers for layers, _ in values}
    assert (len(values), len(outcome["runs"]), outcome["left"]) == (len(points), len(points), 0)
    assert sorted(sweep(*asked, "--report")["runs"]) == sorted(outcome["runs"])
    plan = sweep(*asked, "--plan")
    assert (plan["count"], plan["left"], plan["seconds"]) == (len(points), 0, 0)
    assert len(optuna.get_all_study_names(storage)) == 2, "to ask makes no other study"


@pytest.mark.slow
def test_pruning_gives_up_a_hopeless_point_and_says_so(sweep, recipe):
    rates = "training.learning_rate=0.008,0.009,0.01,0.011,0.012,1e-9"
    outcome = sweep("--method", "vanilla", "--grid", rates, "--seeds", "4", "--prune")
    assert outcome["left"] == 0
    hopeless = [run for run in outcome["dropped"] if "learning_rate=1e-09" in run]
    assert hopeless
    report = next(recipe.parent.glob("runs/easy/sweep-*/report.md")).read_text()
    assert "giving up was on" in report
    assert "given up early: vanilla training.learning_rate=1e-09" in report


def test_a_search_for_low_values_comes_near_the_lowest(url):
    grid = {"method.p": [0.0, 1.0]}
    search = PointSearch(url, "sweep", "any", grid, budget=30, direction="minimize")
    while (point := search.propose()) is not None:
        search.tell(point, abs(point["method.p"] - 0.8))
    study = optuna.load_study(study_name="sweep: any", storage=url)
    assert study.direction.name == "MINIMIZE"
    late = [trial.value for trial in study.trials[-10:]]
    assert sum(late) / len(late) < sum(trial.value for trial in study.trials[:10]) / 10
