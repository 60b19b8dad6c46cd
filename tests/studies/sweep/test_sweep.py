"""A sweep, as a user starts it: every run once, whatever is killed; a finished grid returns at once."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dpstune.commands.watched import tell_what_is_elsewhere
from dpstune.common.interruption import Interrupted
from dpstune.errors import RequestError, RunError
from dpstune.methods.r3f import R3F, R3FConfig
from dpstune.recipe.recipe import dump_recipe
from dpstune.runs.folder import RunFolder, read_metrics
from dpstune.studies.points import read_runs
from dpstune.studies.sweep import worker_names
from dpstune.studies.sweep.coordinator import _Coordinator, open_searches, run_sweep
from dpstune.studies.sweep.queue import Ended, Tally
from dpstune.studies.sweep.storage import DEATHS
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from dpstune.studies.sweep.workers import Workers
from tests.studies.test_records import make_run

GRID = ["--grid", "method.p=0.1,0.2,0.3,0.4,0.5", "--grid", "method.update_ratio=0.1,0.2,0.4"]
SHORT = ["--set", "training.steps=6", "--set", "training.warmup_steps=1", "--set", "training.save_every=2"]


def command(recipe, output, *more):
    return [sys.executable, "-m", "dpstune", "sweep", "--recipe", str(recipe), "--output", str(output), *more]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def sweep(zygote):
    """Run a sweep's command line, its workers forks of a warm process, too."""
    return lambda recipe, output, *more: zygote.run("sweep", "--recipe", recipe, "--output", output, *more)


def children(process):
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:  # it has ended, before or while this reads
        return []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the workers")
@pytest.mark.timeout(3000)  # of a busy machine
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_thirty_runs_survive_whatever_is_killed(zygote, sweep, tiny_task, tmp_path, database, request):
    """Four workers, killed one by one and all at once at random moments, until the sweep is done."""
    rng = random.Random(7)
    storage = ["--storage", request.getfixturevalue("server").url] if database == "postgresql" else []
    asked = ["--method", "dps-dense", *GRID, "--seeds", "2", "--jobs", "4", *SHORT, *storage]
    kills = starts = 0
    while True:
        starts += 1
        process = zygote.start("sweep", "--recipe", tiny_task, "--output", tmp_path, *asked)
        while process.alive and starts < 6:
            time.sleep(rng.uniform(0.5, 2.5))
            alive = children(process.pid)
            if rng.random() < 0.3:
                process.send_to_all(signal.SIGKILL)  # the whole machine
                kills += 1
            elif alive:
                with suppress(ProcessLookupError):  # it may have ended by itself
                    os.kill(rng.choice(alive), signal.SIGKILL)  # one worker, or what it started
                kills += 1
        done = process.wait()
        if done.code == 0:
            break
        assert starts < 8, done.stderr
    assert kills >= 3
    records, notes = read_runs(tmp_path / "tiny")
    assert len(records) == 30
    assert len({(record.recipe.model_dump_json()) for record in records}) == 30
    for record in records:
        steps = [line["step"] for line in read_metrics(record.folder / "metrics.jsonl") if "loss" in line]
        assert steps == list(range(1, 7)), "every step once"
    assert {record.seed for record in records} == {42, 43}
    assert notes == []

    results = [record.folder / "result.json" for record in records]
    written = [each.stat().st_mtime_ns for each in results]
    again = sweep(tiny_task, tmp_path, *asked, "--json")
    assert again.code == 0, again.stderr
    assert [each.stat().st_mtime_ns for each in results] == written, "nothing is run again"
    outcome = json.loads(again.stdout)
    assert (len(outcome["runs"]), outcome["failed"], outcome["left"]) == (30, [], 0)
    assert Path(outcome["report"]).exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the workers")
def test_a_killed_worker_is_replaced_and_a_killed_command_leaves_no_worker(tiny_task, tmp_path):
    arguments = ["--method", "vanilla", "--seeds", "1", "--set", "training.epochs=200"]
    process = subprocess.Popen(command(tiny_task, tmp_path, *arguments), env=environment(), stderr=subprocess.DEVNULL)
    while not any(log.stat().st_size for log in tmp_path.glob("tiny/*/*/metrics.jsonl")):
        time.sleep(0.1)
    (first,) = workers(process.pid)
    os.kill(first, signal.SIGKILL)
    while workers(process.pid) in ([], [first]):
        time.sleep(0.1)
    (second,) = workers(process.pid)
    os.kill(second, signal.SIGTERM)
    while workers(process.pid) in ([], [second]):
        time.sleep(0.1)
    (second,) = workers(process.pid)
    process.kill()
    process.wait()
    while Path(f"/proc/{second}").exists():
        time.sleep(0.1)
    assert not list(tmp_path.glob("tiny/*/*/result.json"))


def workers(process):
    """The processes that train; beside them lives the one that tracks what they share."""
    return [child for child in children(process) if "spawn_main" in command_line(child)]


def command_line(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:  # it has ended, before or while this reads
        return ""


def test_a_run_that_fails_is_recorded_and_the_sweep_goes_on(sweep, tiny_task, tmp_path):
    grid = ["--method", "reinit", "--grid", "method.layers=1,9", "--seeds", "1", *SHORT]
    done = sweep(tiny_task, tmp_path, *grid, "--json")
    assert done.code == 1
    outcome = json.loads(done.stdout)
    assert (len(outcome["runs"]), outcome["left"]) == (1, 0)
    (failed,) = outcome["failed"]
    assert "method.layers=9" in failed["run"]
    assert failed["error"].startswith("method.layers: 9 is more than the 3 layers of BertFor")
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 2 runs failed; the first with: method.layers")
    assert "method.layers: 9 is more than" in next(tmp_path.glob("tiny/sweep-*/report.md")).read_text()


def test_a_damaged_storage_that_is_moved_away_loses_no_run(sweep, tiny_task, tmp_path):
    asked = ["--method", "vanilla", "--sampler", "tpe", "--budget", "1", "--seeds", "1", *SHORT]
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    (storage,) = tmp_path.glob("tiny/sweep-*/study.db")
    storage.write_text("no database")
    done = sweep(tiny_task, tmp_path, *asked)
    assert (done.code, done.stderr.splitlines()[-1]) == (
        1,
        f"error: {storage}: file is not a database; no finished run is lost: move the file away, and the same command "
        "goes on",
    )
    storage.rename(tmp_path / "moved.db")
    (result,) = tmp_path.glob("tiny/vanilla/*/result.json")
    before = result.stat().st_mtime_ns
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    assert [each.stat().st_mtime_ns for each in tmp_path.glob("tiny/vanilla/*/result.json")] == [before]


def test_a_finished_run_whose_files_are_damaged_is_told_of_and_its_recipe_written_again(sweep, tiny_task, tmp_path):
    asked = ["--method", "vanilla", "--seeds", "1", "--set", "training.steps=2"]
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    (result,) = tmp_path.glob("tiny/vanilla/*/result.json")
    recipe, told = result.with_name("recipe.yaml"), "put back what it held, or remove the folder"
    text, numbers = recipe.read_text(), result.read_text()
    recipe.unlink()
    report = sweep(tiny_task, tmp_path, *asked, "--report")
    assert report.code == 2
    assert f"{result.parent}: skipped: damaged: there is no file {recipe}; {told}" in report.stderr.splitlines()[-1]
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    assert (recipe.read_text(), result.read_text()) == (text, numbers)
    recipe.write_text("task: [")
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    assert (recipe.read_text(), recipe.with_name("recipe.yaml.earlier-1").read_text()) == (text, "task: [")
    result.write_text(json.dumps({key: value for key, value in json.loads(numbers).items() if key != "majority"}))
    again = sweep(tiny_task, tmp_path, *asked)
    assert again.code == 1
    assert again.stderr.splitlines()[-1].startswith(
        f"error: 1 of 1 runs are left: {result.parent}: skipped: damaged: result.json lacks majority; {told}"
    )
    other = shutil.copytree(result.parent, result.parent.with_name("seed-42-0123456789"))
    (other / "result.json").write_text(numbers)
    taken = sweep(tiny_task, tmp_path, *asked)
    assert (taken.code, "damaged" in taken.stderr) == (0, False), "another machine's copy is whole"


def test_a_damaged_run_that_a_shared_storage_calls_done_is_told_of(tiny_task, tmp_path):
    request = SweepRequest(str(tiny_task), ("vanilla",), 1, tmp_path, storage="postgresql://somewhere/db")
    shared = Sweep(request)
    (job,) = shared.jobs
    folder = make_run(shared._folder_of(job), seed=job.seed)
    (folder / "recipe.yaml").unlink()
    outcome = shared.outcome(Tally(done={job.identity: Ended(0.5, folder)}))
    assert (outcome.elsewhere, outcome.left) == (0, 1)
    with pytest.raises(RunError, match=r"recipe.yaml; put back .* the same command without --storage trains the run"):
        outcome.refuse_what_is_missing()


@pytest.mark.parametrize("budget", [None, 1])
def test_a_run_that_diverged_is_not_trained_again(tiny_task, tmp_path, monkeypatch, budget):
    """Whether the storage knows of it or not."""
    asked = SweepRequest(str(tiny_task), ("vanilla",), 1, tmp_path, overrides=("training.steps=2",), budget=budget)
    a_sweep = Sweep(asked)
    queue = a_sweep.open_queue()
    for search in open_searches(a_sweep):
        a_sweep.plan([(search.method, search.propose())])
    (job,) = a_sweep.jobs
    run = RunFolder(a_sweep._folder_of(job))
    run.create()
    run.recipe.write_text(dump_recipe(a_sweep.request.load(job).recipe))
    told = {"recipe": "tiny", "task": "tiny", "seed": job.seed, "split": "validation", "metric": "accuracy"}
    told |= {"value": None, "majority": 0.5, "seconds": 1.0, "error": "training has diverged"}
    run.diverged.write_text(json.dumps(told))
    monkeypatch.setattr(Workers, "start", lambda workers: pytest.fail("it is trained") if workers.count else None)
    outcome = a_sweep.outcome(run_sweep(a_sweep, 1))
    assert (outcome.failed, outcome.left) == ({job: "training has diverged"}, 0)
    assert queue.tally().waiting == 0


def test_a_command_tries_a_run_again_whose_workers_were_all_killed_with_the_commands_before(sweep, tiny_task, tmp_path):
    request = SweepRequest(str(tiny_task), ("vanilla",), 1, tmp_path, overrides=("training.steps=2",))
    killed = Sweep(request)
    queue = killed.open_queue()
    queue.add(killed.jobs)
    for _ in range(DEATHS):
        queue.take_over_the_dead()
        assert queue.take(f"0 here 999999999 1 {worker_names._machine()}") is not None
    done = sweep(tiny_task, tmp_path, "--method", "vanilla", "--seeds", "1", "--set", "training.steps=2", "--json")
    assert done.code == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_stops_every_worker_and_the_same_command_goes_on(zygote, tiny_task, tmp_path, number, group):
    """Sent to the command as a user does, or to the whole group as a scheduler does."""
    arguments = ["sweep", "--recipe", tiny_task, "--output", tmp_path, "--method", "vanilla", "--seeds", "2"]
    arguments += ["--jobs", "2", "--set", "training.epochs=30"]
    process = zygote.start(*arguments)
    while not any(log.stat().st_size > 500 for log in tmp_path.glob("tiny/*/*/metrics.jsonl")):
        time.sleep(0.1)
    (process.send_to_all if group else process.send)(number)
    done = process.wait()
    assert done.code == 128 + number
    assert "Traceback" not in done.stderr
    assert "error: interrupted; " in done.stderr.splitlines()[-1]
    saved = list(tmp_path.glob("tiny/vanilla/*/checkpoints/step-*"))
    assert saved
    done = zygote.run(*arguments)
    assert done.code == 0, done.stderr
    assert len(list(tmp_path.glob("tiny/vanilla/*/result.json"))) == 2


def test_a_plan_runs_nothing(sweep, tiny_task, tmp_path):
    done = sweep(
        tiny_task, tmp_path, "--method", "mixout", "--method", "vanilla", "--seeds", "2", "--dropout", "own", "--plan"
    )
    assert done.code == 0
    assert done.stdout.count("to do  mixout method.p=") == 16
    assert done.stdout.count("to do  vanilla seed") == 2
    assert re.search(r"^18 of 18 runs to do; about 0:\d\d:\d\d with 1 worker$", done.stdout, re.MULTILINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_plan_for_programs(sweep, tiny_task, tmp_path):
    asked = ["--method", "vanilla", "--seeds", "2", *SHORT]
    assert sweep(tiny_task, tmp_path, *asked[:3], "1", *SHORT).code == 0
    plan = json.loads(sweep(tiny_task, tmp_path, *asked, "--plan", "--json").stdout)
    assert [(run["run"].split()[-1], run["done"]) for run in plan["runs"]] == [("42", True), ("43", False)]
    assert (plan["count"], plan["left"]) == (2, 1)
    assert plan["seconds"] > 0
    searched = json.loads(sweep(tiny_task, tmp_path, *asked, "--sampler", "tpe", "--plan", "--json").stdout)
    assert (searched["runs"], searched["budget"], searched["count"]) == ([], 20, 2), "vanilla has one point"


@pytest.mark.slow
def test_a_report_is_made_again_from_the_runs_alone(sweep, tiny_task, tmp_path):
    asked = ["--method", "vanilla", "--grid", "training.learning_rate=1e-3,1e-2", "--seeds", "2", *SHORT]
    nothing = sweep(tiny_task, tmp_path, *asked, "--report")
    assert (nothing.code, nothing.stdout) == (2, "")
    assert "none of the sweep's runs is finished" in nothing.stderr
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    (folder,) = tmp_path.glob("tiny/sweep-*")
    table = (folder / "runs.csv").read_text()
    shutil.rmtree(folder)
    again = sweep(tiny_task, tmp_path, *asked, "--report", "--json")
    assert again.code == 0, again.stderr
    assert (folder / "runs.csv").read_text() == table
    assert not list(folder.glob("study.db*")), "no storage is asked"
    first, *_ = map(Path, json.loads(again.stdout)["runs"])
    other = first.rename(first.with_name("seed-42-0123456789"))  # as one of another kind of device
    found = json.loads(sweep(tiny_task, tmp_path, *asked, "--report", "--json").stdout)
    assert (str(other) in found["runs"], found["left"]) == (True, 0)
    planned = json.loads(sweep(tiny_task, tmp_path, *asked, "--plan", "--json").stdout)
    assert (planned["count"], planned["left"]) == (4, 0)
    assert str(other) in json.loads(sweep(tiny_task, tmp_path, *asked, "--json").stdout)["runs"]
    assert not first.exists(), "it was not trained again"
    shutil.rmtree(other)
    part = sweep(tiny_task, tmp_path, *asked, "--report", "--json")
    assert (part.code, json.loads(part.stdout)["left"]) == (0, 1)
    assert sweep(tiny_task, tmp_path, *asked).code == 0
    shutil.rmtree(Path(json.loads(again.stdout)["runs"][-1]))  # gone, whatever the storage says
    assert json.loads(sweep(tiny_task, tmp_path, *asked, "--report", "--json").stdout)["left"] == 1
    assert "1 of 4 runs are still to be done" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_weights_need_not_be_kept_but_those_that_were_there_stay(zygote, sweep, tiny_task, tmp_path):
    asked = ["--method", "vanilla", *SHORT, "--json"]
    (kept,) = json.loads(sweep(tiny_task, tmp_path, *asked, "--seeds", "1").stdout)["runs"]
    runs = json.loads(sweep(tiny_task, tmp_path, *asked, "--seeds", "2", "--no-models").stdout)["runs"]
    assert [(Path(run) / "model").is_dir() for run in runs] == [run == kept for run in runs]
    assert all((Path(run) / "predictions" / "validation.parquet").is_file() for run in runs)
    (without,) = set(runs) - {kept}
    refused = zygote.run("eval", without)
    assert (refused.code, refused.stdout) == (2, "")
    assert "holds no model (a sweep with --no-models keeps none)" in refused.stderr


@pytest.mark.slow
def test_runs_that_another_kind_of_machine_trained_are_found_where_the_storage_says(sweep, tiny_task, tmp_path):
    storage = f"sqlite:///{tmp_path}/shared.db"
    asked = ["--method", "vanilla", "--seeds", "1", "--storage", storage, *SHORT, "--json"]
    (run,) = json.loads(sweep(tiny_task, tmp_path, *asked).stdout)["runs"]
    other = Path(run).rename(Path(run).with_name("seed-42-0123456789"))  # as one of another device or precision
    engine = sqlite3.connect(tmp_path / "shared.db")
    engine.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'run'", (json.dumps(str(other)),))
    engine.commit()
    done = sweep(tiny_task, tmp_path, *asked)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == [str(other)]
    assert "they are missing here" not in done.stderr


def test_runs_that_are_done_but_not_here_are_told_of(tiny_task, tmp_path, capsys):
    asked = SweepRequest(str(tiny_task), ("vanilla",), 2, tmp_path, storage=f"sqlite:///{tmp_path}/shared.db")
    a_sweep = Sweep(asked)
    queue = a_sweep.open_queue()
    queue.add(a_sweep.jobs)
    queue.finish(queue.take("0 elsewhere 1 1 m"), 0.5, tmp_path / "gone")
    outcome = a_sweep.outcome(queue.tally())
    told = f"1 of 2 runs are finished, but not in {tmp_path / 'tiny'}: they are missing here. Copy them into "
    assert [note for note in outcome.notes if note.startswith(told)]
    tell_what_is_elsewhere(a_sweep, outcome)
    assert told in capsys.readouterr().err


def test_a_point_that_is_no_recipe_is_refused_before_anything_runs(tiny_task, tmp_path):
    request = SweepRequest(str(tiny_task), ("mixout",), 1, tmp_path, grid=("method.p=0.5,1.0",))
    with pytest.raises(RequestError, match=r"^--grid method\.p=1\.0: method\.p: should be less than 1, not 1\.0"):
        Sweep(request)
    fixed = SweepRequest(str(tiny_task), ("mixout:p=0.5", "vanilla"), 1, tmp_path, grid=("method.p=0.3,0.7",))
    with pytest.raises(RequestError, match=r"^--grid method\.p=0\.3,0\.7: --set or --method gives method\.p one"):
        Sweep(fixed)
    tried = Sweep(replace(fixed, methods=("mixout:p=0.5", "mixout")))
    assert [grid.get("method.p") for grid in tried.grids.values()] == [None, [0.3, 0.7]]
    many = ",".join(map(str, range(1, 60)))
    for more, what in (
        (
            {"seeds": 10**7},
            "the grids have 1 points, which makes 10,000,000 runs with 10,000,000 seeds each; a study has at most",
        ),
        ({"grid": [f"training.{key}={many}" for key in ("steps", "batch_size", "eval_batch_size")]}, "205,379 points"),
        ({"grid": ["training.learning_rate=1e-5,1e-4"], "budget": 10**9, "search": True}, "1,000,000,000 runs"),
    ):
        with pytest.raises(RequestError, match=what):
            Sweep(SweepRequest(str(tiny_task), ("vanilla",), **{"seeds": 1, "output": tmp_path, **more}))
    own = SweepRequest(str(tiny_task), ("mixout:p=1.50",), 1, tmp_path)
    with pytest.raises(RequestError, match=r"^--method mixout:p=1\.50: method\.p: should be less than 1"):
        Sweep(own)
    renamed = SweepRequest(str(tiny_task), ("mixout",), 1, tmp_path, overrides=("method.name=vanilla",))
    with pytest.raises(RequestError, match=r"^--set method\.name=vanilla: here --method names the methods"):
        Sweep(renamed)


@pytest.mark.slow
def test_changed_data_is_not_taken_for_finished_and_moved_data_is(sweep, tiny_task, tmp_path):
    folder = shutil.copytree(tiny_task.parent, tmp_path / "task")
    arguments = ["--method", "vanilla", "--seeds", "1", *SHORT, "--json"]
    first = json.loads(sweep(folder / "tiny.yaml", tmp_path / "runs", *arguments).stdout)["runs"]
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert json.loads(sweep(moved / "tiny.yaml", tmp_path / "runs", *arguments).stdout)["runs"] == first
    (moved / "train.csv").write_text((moved / "train.csv").read_text().replace("cat", "dog"))
    assert json.loads(sweep(moved / "tiny.yaml", tmp_path / "runs", *arguments).stdout)["runs"] != first


def test_a_sweep_is_the_same_on_every_machine_and_where_its_project_was_moved(tiny_task, tmp_path):
    folders = [shutil.copytree(tiny_task.parent, tmp_path / name) for name in ("here", "there")]
    here, there = (Sweep(SweepRequest(str(each / "tiny.yaml"), ("vanilla",), 1, tmp_path)) for each in folders)
    assert here.study_name == there.study_name
    assert not here.is_begun
    here.open_queue()
    assert there.is_begun
    assert there.folder == here.folder
    (folders[1] / "train.csv").write_text((folders[1] / "train.csv").read_text().replace("cat", "dog"))
    changed = Sweep(SweepRequest(str(folders[1] / "tiny.yaml"), ("vanilla",), 1, tmp_path))
    assert changed.study_name != there.study_name
    assert changed.folder != there.folder


def test_a_folder_that_an_earlier_dpstune_named_after_places_is_still_the_sweeps(tiny_task, tmp_path):
    folder = shutil.copytree(tiny_task.parent, tmp_path / "task")
    request = SweepRequest(str(folder / "tiny.yaml"), ("vanilla",), 1, tmp_path)
    new = Sweep(request).folder
    rows = (folder / "train.csv").rename(tmp_path / "train.csv")
    named_after_places = Sweep(request).folder
    assert named_after_places != new, "as where data cannot be read"
    named_after_places.mkdir(parents=True)
    rows.rename(folder / "train.csv")
    assert Sweep(request).folder == named_after_places
    new.mkdir()
    assert Sweep(request).folder == new, "the other was made while data could not be read"


def test_a_sweep_is_another_where_what_any_seed_may_draw_has_changed(tiny_task, tmp_path):
    folder = shutil.copytree(tiny_task.parent, tmp_path / "task")
    request = SweepRequest(str(folder / "tiny.yaml"), ("vanilla",), 2, tmp_path, overrides=("data.train_size=8",))
    before, after = Sweep(request), Sweep(request)
    drawn = first_part(before)
    header, *rows = (folder / "train.csv").read_text().splitlines()
    left = next(row for row in rows if not any(all(text in row for text in texts) for texts in drawn))
    (folder / "train.csv").write_text("\n".join([header, *("x" + row if row == left else row for row in rows)]) + "\n")
    assert first_part(after) == drawn
    assert after.study_name != before.study_name


def test_a_sweep_is_another_where_a_method_does_otherwise_by_default(tiny_task, tmp_path, monkeypatch):
    """A storage that says where the runs of an earlier default lie must not be asked for those of the new one."""

    def of(*methods):
        return Sweep(SweepRequest(str(tiny_task.parent / "tiny.yaml"), methods, 1, tmp_path))

    class Earlier(R3FConfig):
        detach: bool = False

    now = of("vanilla", "r3f"), of("r3f"), of("vanilla")
    monkeypatch.setattr(R3F, "config_class", Earlier)
    before = of("vanilla", "r3f"), of("r3f"), of("vanilla")
    assert [one.study_name == other.study_name for one, other in zip(now, before, strict=True)] == [False, False, True]
    assert [one.folder == other.folder for one, other in zip(now, before, strict=True)] == [False, False, True]


def first_part(a_sweep):
    """What the first seed trains on."""
    return a_sweep.inputs.task(a_sweep.request.load(a_sweep.jobs[0]).recipe).splits["train"].texts


def test_a_signal_while_workers_start_leaves_none(tiny_task, tmp_path, monkeypatch):
    a_sweep = Sweep(SweepRequest(str(tiny_task), ("vanilla",), 2, tmp_path, overrides=("training.epochs=200",)))
    start, started = Workers._start, []

    def start_one_and_be_told_to_end(workers, number):
        start(workers, number)
        started.extend(multiprocessing.active_children())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Workers, "_start", start_one_and_be_told_to_end)
    with pytest.raises(Interrupted):
        run_sweep(a_sweep, 2)
    assert len(started) == 1
    assert not started[0].is_alive()


def search_of(recipe, output, budget):
    """A search whose points have two seeds."""
    return Sweep(SweepRequest(str(recipe), ("mixout",), 2, output, overrides=("training.steps=2",), budget=budget))


def test_a_search_is_not_done_before_its_last_point_is_chosen(tiny_task, tmp_path):
    searched = search_of(tiny_task, tmp_path, budget=3)
    queue = searched.open_queue()
    (search,) = open_searches(searched)
    search.propose()
    open_searches(searched)
    assert (len(searched.jobs), searched.outcome(queue.tally()).left) == (2, 6)
    with pytest.raises(RunError, match="6 of 6 runs are left"):
        searched.outcome(queue.tally()).refuse_what_is_missing()


def test_the_runs_of_a_point_whose_coordinator_died_as_it_had_proposed_it_are_queued_by_another(tiny_task, tmp_path):
    searched = search_of(tiny_task, tmp_path, budget=1)
    queue = searched.open_queue()
    coordinator = _Coordinator(searched, queue, workers=1)
    (search,) = open_searches(search_of(tiny_task, tmp_path, budget=1))
    search.propose()
    coordinator.advance(queue.tally())
    assert queue.tally().waiting == 2
    queue.drop(searched.jobs)
    coordinator.advance(queue.tally())
    assert queue.tally().waiting == 0, "what was given up is not added again"


def test_a_point_whose_runs_another_kind_of_machine_finished_is_not_queued(tiny_task, tmp_path):
    here, there = (search_of(tiny_task, tmp_path / name, budget=2) for name in ("here", "there"))
    _Coordinator(there, there.open_queue(), workers=1).advance(Tally())
    assert len(there.jobs) == 2, "one point"
    for job in there.jobs:
        make_run(here.runs_folder / "mixout" / f"seed-{job.seed}-x", seed=job.seed, digest=there._digest_of(job))
    queue = here.open_queue()
    coordinator = _Coordinator(here, queue, workers=1)
    coordinator.advance(queue.tally())
    first, second = {job.overrides for job in here.jobs}
    assert {job.overrides for job in there.jobs} < {first, second}, "it was told the first, and proposed another"
    assert (queue.tally().waiting, here.outcome(queue.tally()).left) == (2, 2)


def test_a_finished_run_that_cannot_be_read_ends_a_search_all_the_same(tiny_task, tmp_path):
    searched = search_of(tiny_task, tmp_path, budget=1)
    queue = searched.open_queue()
    coordinator = _Coordinator(searched, queue, workers=1)
    coordinator.advance(queue.tally())
    for job in searched.jobs:
        folder = make_run(searched._folder_of(job), seed=job.seed)
        (folder / "recipe.yaml").unlink()
    coordinator.advance(Tally(done={job.identity: Ended(0.5, folder) for job in searched.jobs}))
    assert not coordinator.more_may_come


@pytest.mark.slow
def test_a_search_goes_on_when_the_coordinator_that_came_last_is_killed(zygote, tiny_task, tmp_path):
    rates = ["--grid", "training.learning_rate=0.001,0.01", "--grid", "method.p=0.1,0.9"]
    asked = ["sweep", "--recipe", tiny_task, "--output", tmp_path, "--method", "mixout", *rates, *SHORT, "--json"]
    asked += ["--sampler", "tpe", "--budget", "5", "--seeds", "1", "--jobs", "1"]

    def ended():
        return len(list(tmp_path.glob("tiny/mixout/*/result.json")))

    first = zygote.start(*asked)
    while not ended():
        assert first.alive, first.wait().stderr
        time.sleep(0.01)
    last = zygote.start(*asked)
    while not children(last.pid):
        assert last.alive, last.wait().stderr
        time.sleep(0.01)
    last.send_to_all(signal.SIGKILL)
    done = first.wait()
    assert done.code == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (len(outcome["runs"]), outcome["left"]) == (5, 0)


@pytest.mark.slow
def test_restarts_of_the_same_data_in_two_places_are_reported_as_one_point(sweep, tiny_task, tmp_path):
    folders = [shutil.copytree(tiny_task.parent, tmp_path / name) for name in ("here", "there")]
    asked = ["--method", "vanilla", *SHORT, "--json"]
    assert sweep(folders[0] / "tiny.yaml", tmp_path / "runs", *asked, "--seeds", "1").code == 0
    done = sweep(folders[1] / "tiny.yaml", tmp_path / "runs", *asked, "--seeds", "2")
    assert done.code == 0, done.stderr
    report = Path(json.loads(done.stdout)["report"]).with_name("report.md").read_text()
    assert "2 runs of 1 point (1 method: vanilla)" in report


@pytest.mark.slow
def test_a_smaller_sweep_leaves_the_rest_of_a_larger_one_alone(sweep, tiny_task, tmp_path):
    larger = Sweep(SweepRequest(str(tiny_task), ("mixout", "vanilla"), 1, tmp_path))
    larger.open_queue().add(larger.jobs)
    done = sweep(tiny_task, tmp_path, "--method", "vanilla", "--seeds", "1", *SHORT)
    assert done.code == 0, done.stderr
    assert len(list(tmp_path.glob("tiny/*/*/result.json"))) == 1


OTHER_TASKS = (
    "makes runs of other tasks, which one report cannot compare; give the sweep once for each value, "
    "with --set KEY=VALUE"
)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("seed=1,2", "seed makes no point of a grid"),
        ("task=rte,mrpc", "task makes no point of a grid"),
        ("task.files.train=a.csv,b.csv", OTHER_TASKS),
        ("task.metric=f1,accuracy", OTHER_TASKS),
        ("data.held_out=4,8", OTHER_TASKS),
        ("method.pp=0.3", "none of the methods has a key 'pp'; did you mean 'p'?"),
    ],
)
def test_a_wrong_grid_is_refused(tiny_task, tmp_path, grid, message):
    with pytest.raises(RequestError) as caught:
        Sweep(SweepRequest(str(tiny_task), ("mixout",), 1, tmp_path, grid=(grid,)))
    assert str(caught.value) == f"--grid {grid}: {message}"


def test_what_is_set_may_be_a_key_of_the_methods_own(tiny_task, tmp_path):
    """The recipe's own method has no layers."""
    request = SweepRequest(str(tiny_task), ("reinit",), 2, tmp_path, overrides=("method.layers=2",))
    assert [job.overrides for job in Sweep(request).jobs] == [("method.layers=2",)] * 2
    both = Sweep(SweepRequest(str(tiny_task), ("mixout", "reinit"), 1, tmp_path, overrides=("method.layers=2",)))
    layers = {job.overrides for job in both.jobs if job.method == "reinit"}
    assert layers == {("method.layers=2",)}, "for the method that has them"
    assert len(both.jobs) == 8 + 1
    with pytest.raises(
        RequestError, match=r"^--set method\.zz=2: none .* has a key 'zz'; known keys: name, layers, p$"
    ):
        Sweep(SweepRequest(str(tiny_task), ("reinit", "mixout"), 2, tmp_path, overrides=("method.zz=2",)))


def test_what_is_asked_twice_is_run_once_and_a_fixed_key_is_not_searched(tiny_task, tmp_path):
    request = SweepRequest(str(tiny_task), ("mixout", "mixout"), 2, tmp_path, ("method.p=0.1,0.10",))
    assert len(Sweep(request).jobs) == 2
    twice = SweepRequest(str(tiny_task), ("mixout:p=0.5", "mixout:p=0.50"), 2, tmp_path)
    assert len(Sweep(twice).jobs) == 2
    fixed = SweepRequest(str(tiny_task), ("dps-dense",), 1, tmp_path, overrides=("method.p = 0.25",))
    sweep = Sweep(fixed)
    assert [sweep.request.load(job).recipe.method.p for job in sweep.jobs] == [0.25] * 3
