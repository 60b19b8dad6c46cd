"""Several runs of a fit at a time: as one after the other, whatever is killed."""

import csv
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from dpstune.common.interruption import Interrupted
from dpstune.errors import BusyError, DivergedError, RequestError, RunError
from dpstune.runs.folder import read_predictions
from dpstune.studies import gpu_share, processes
from dpstune.studies.fit import side_by_side
from dpstune.studies.fit.fit import Fit
from dpstune.studies.fit.outcome import run_fit
from dpstune.studies.fit.side_by_side import try_side_by_side
from dpstune.training import engine
from tests.conftest import write_table
from tests.studies.fit.test_fit import COLUMNS, FAST, FEW_STEPS, request

LONG = ["--set", "training.steps=60", "--set", "training.learning_rate=0.003", "--set", "training.save_every=5"]


def command(rows, model, output, *more):
    few = ["--folds", 3, "--runs", 9, "--method", "mixout"]
    return ["fit", rows, *COLUMNS, "--model", model, "--output", output, *FAST, *few, *more, "--json"]


@pytest.fixture(scope="module")
def fitted(zygote, rows, tiny_model, tmp_path_factory):
    """What a small fit by two workers printed, and where."""
    output = tmp_path_factory.mktemp("runs")
    run = zygote.run(*command(rows, tiny_model, output, *FEW_STEPS, "--jobs", 2))
    assert run.code == 0, run.stderr
    return output, json.loads(run.stdout), run.stderr


def test_two_workers_answer_every_row_and_leave_what_one_process_leaves(fitted, rows):
    output, told, stderr = fitted
    with rows.open() as file:
        count = sum(1 for _ in csv.reader(file)) - 1
    assert told["score"]["rows"] == count
    first = told["tried"][0]
    assert (first["method"], first["state"], first["settings"]["model.dropout"]) == ("vanilla", "complete", 0.0)
    for each in told["tried"]:
        answered = [
            name for run in each["runs"] for name in read_predictions(f"{run}/predictions/validation.parquet")["id"]
        ]
        if each["state"] == "complete":
            assert sorted(answered, key=int) == [str(number) for number in range(count)]
    assert len([line for line in stderr.splitlines() if ", fold " in line]) == 9
    (place,) = output.glob("rows/fit-*")
    assert {each.name for each in place.iterdir()} >= {"model", "recipe.yaml", "report.html", "fit.json", "study.db"}


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_same_fit_goes_on_with_other_jobs(fitted, zygote, rows, tiny_model, jobs):
    output, told, _ = fitted
    before = {path: path.stat().st_mtime_ns for path in output.glob("rows/*/*/result.json")}
    again = zygote.run(*command(rows, tiny_model, output, *FEW_STEPS, "--jobs", jobs))
    assert again.code == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in output.glob("rows/*/*/result.json")} == before
    assert json.loads(again.stdout)["score"] == told["score"]
    assert len(list(output.glob("rows/fit-*"))) == 1


def children(process):
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:  # it has ended
        return []


def wait_until_runs_are_under_way(output, count=2):
    deadline = time.monotonic() + 300
    while len([log for log in output.glob("rows/*/*/metrics.jsonl") if log.stat().st_size]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find the workers")
def test_a_worker_that_is_killed_loses_its_run_alone(zygote, rows, tiny_model, tmp_path):
    process = zygote.start(*command(rows, tiny_model, tmp_path, *LONG, "--jobs", 2))
    wait_until_runs_are_under_way(tmp_path)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    done = process.wait()
    assert done.code == 0, done.stderr
    assert done.stderr.count("its worker died") == 1
    assert len(list(tmp_path.glob("rows/*/*/result.json"))) == 10, "nine runs, and the one on all rows"


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_fit_that_is_killed_goes_on_with_other_jobs(zygote, rows, tiny_model, tmp_path, jobs):
    process = zygote.start(*command(rows, tiny_model, tmp_path, *LONG, "--jobs", 2))
    wait_until_runs_are_under_way(tmp_path, count=4)
    process.send_to_all(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows/*/*/result.json")}
    done = zygote.run(*command(rows, tiny_model, tmp_path, *LONG, "--jobs", jobs))
    assert done.code == 0, done.stderr
    assert finished
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(tmp_path.glob("rows/*/*/result.json"))) in (10, 11), "one may have come too late to be noted"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)])
def test_a_signal_stops_every_worker_and_the_same_command_goes_on(zygote, rows, tiny_model, tmp_path, number, group):
    process = zygote.start(*command(rows, tiny_model, tmp_path, *LONG[:-2], "--jobs", 2))
    wait_until_runs_are_under_way(tmp_path)
    (process.send_to_all if group else process.send)(number)
    done = process.wait()
    assert done.code == 128 + number
    assert "Traceback" not in done.stderr
    assert "died" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: interrupted; every run is saved, and the same command goes on"
    assert list(tmp_path.glob("rows/*/*/checkpoints/step-*"))
    done = zygote.run(*command(rows, tiny_model, tmp_path, *LONG[:-2], "--jobs", 2))
    assert done.code == 0, done.stderr


class TestFailures:
    """Workers are forks of this process, in which ``engine.train`` fails as it is told to."""

    @pytest.fixture
    def fit(self, rows, tiny_model, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "CONTEXT", multiprocessing.get_context("fork"))
        monkeypatch.setattr(side_by_side, "WAIT_SECONDS", 0.1)
        return Fit(request(rows, tiny_model, tmp_path, runs=6, jobs=2, methods=["mixout"]))

    def replaced(self, monkeypatch, fail):
        """Have each run do first what ``fail`` does with its method and its part."""
        train = engine.train

        def stand_in(loaded, **options):
            recipe = loaded.recipe
            fail(recipe.method.name, getattr(recipe.task.files, "fold", None))
            return train(loaded, **options)

        monkeypatch.setattr(engine, "train", stand_in)

    def tried(self, fit):
        told = []
        with fit.lock():
            search = fit.search()
            try_side_by_side(fit, search, tell=told.append)
        return search.trials(), told

    def test_what_is_wrong_with_the_first_runs_ends_the_fit(self, fit, monkeypatch):
        def fail(method, part):
            raise RequestError("no such thing")

        self.replaced(monkeypatch, fail)
        with pytest.raises(RequestError, match="no such thing"):
            self.tried(fit)
        assert not multiprocessing.active_children()

    def test_an_error_that_nobody_foresaw_ends_the_fit_in_one_line(self, fit, monkeypatch):
        def fail(method, part):
            raise ZeroDivisionError("by zero")

        self.replaced(monkeypatch, fail)
        with pytest.raises(RunError, match="unexpected ZeroDivisionError: by zero"):
            self.tried(fit)

    @pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows")
    def test_what_is_wrong_with_the_share_of_a_gpu_ends_the_fit(self, fit, monkeypatch, tmp_path):
        (tmp_path / f"dpstune-gpus-{os.getuid()}").symlink_to(tmp_path)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(gpu_share, "visible_gpus", lambda: ["0"])
        with pytest.raises(RunError, match="should be a folder of this user"):
            self.tried(fit)

    def test_a_candidate_that_cannot_be_trained_is_told_and_others_are_tried(self, fit, monkeypatch):
        def fail(method, part):
            if method == "mixout":
                raise DivergedError("the loss is nan")

        self.replaced(monkeypatch, fail)
        trials, told = self.tried(fit)
        states = Counter((trial.candidate.method, trial.state) for trial in trials)
        assert states["vanilla", "complete"] >= 2
        assert states["mixout", "failed"] >= 1
        assert any(line.endswith("cannot be trained: the loss is nan") for line in told)

    def test_a_full_disk_ends_the_fit_and_the_same_fit_goes_on(self, fit, monkeypatch):
        def fail(method, part):
            if method == "mixout":
                raise RunError("no space left")

        with monkeypatch.context() as patch:
            self.replaced(patch, fail)
            with pytest.raises(RunError, match="no space left"):
                self.tried(fit)
        outcome = run_fit(Fit(fit.request))
        assert outcome.winner.trial.state == "complete"
        assert {each.trial.state for each in outcome.tried} <= {"complete", "open", "given up"}

    def test_a_run_whose_worker_dies_again_and_again_is_given_up(self, fit, monkeypatch):
        def fail(method, part):
            if method == "mixout":
                os.kill(os.getpid(), signal.SIGKILL)

        self.replaced(monkeypatch, fail)
        trials, told = self.tried(fit)
        errors = {trial.candidate.method: trial.error for trial in trials if trial.state == "failed"}
        assert errors["mixout"].startswith(
            "its worker died 3 times: fewer --jobs leave more memory for each, and a script"
        )
        assert sum(line.endswith("its worker died") for line in told) % 3 == 0

    def test_where_the_first_worker_dies_again_and_again_the_fit_ends(self, fit, monkeypatch):
        self.replaced(monkeypatch, lambda method, part: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(RunError, match="its worker died 3 times"):
            self.tried(fit)

    def test_a_run_that_another_process_trains_is_waited_for(self, fit, monkeypatch, tmp_path):
        def fail(method, part):
            if not (tmp_path / "once").exists():
                (tmp_path / "once").touch()
                raise BusyError("another process")

        self.replaced(monkeypatch, fail)
        trials, told = self.tried(fit)
        assert told.count("waiting: another process") == 1
        assert trials[0].state == "complete"

    def test_rows_that_changed_meanwhile_are_not_mixed_with_the_others(self, tiny_model, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "CONTEXT", multiprocessing.get_context("fork"))
        write_table(tmp_path / "rows.csv", 30, seed=3)
        fit = Fit(request(tmp_path / "rows.csv", tiny_model, tmp_path, runs=4, jobs=2))
        write_table(tmp_path / "rows.csv", 30, seed=4)
        with pytest.raises(RequestError, match="the rows have changed since the fit began"):
            self.tried(fit)


@pytest.mark.slow
def test_workers_that_inherit_nothing_train(rows, tiny_model, tmp_path):
    """Other tests fork theirs; users' are spawned."""
    assert processes.CONTEXT.get_start_method() == "spawn"
    fit = Fit(request(rows, tiny_model, tmp_path, runs=4, jobs=2, methods=["vanilla"]))
    with fit.lock():
        search = fit.search()
        try_side_by_side(fit, search)
    assert [trial.state for trial in search.trials() if trial.values] == ["complete", "complete"]


def test_a_signal_while_a_worker_starts_leaves_none(rows, tiny_model, tmp_path, monkeypatch):
    fit = Fit(request(rows, tiny_model, tmp_path, runs=6, jobs=2))
    begin, started = side_by_side.FitWorkers.begin, []

    def begin_and_be_told_to_end(workers, number, *arguments):
        begin(workers, number, *arguments)
        started.extend(multiprocessing.active_children())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(side_by_side.FitWorkers, "begin", begin_and_be_told_to_end)
    with fit.lock(), pytest.raises(Interrupted):
        try_side_by_side(fit, fit.search())
    assert len(started) == 1
    assert not started[0].is_alive()


def test_a_plan_of_more_at_a_time_takes_less_time(rows, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("dpstune.studies.fit.fit.Fit._seconds_of", lambda fit, candidate: 30.0)
    monkeypatch.setattr(processes, "cores", lambda: 4)
    one, four = (Fit(request(rows, tiny_model, tmp_path, minutes=10, jobs=jobs)).plan() for jobs in (1, 4))
    assert (one["jobs"], one["runs"], one["seconds"]) == (1, 18, 18 * 30 + 60)
    assert (four["jobs"], four["runs"], four["seconds"]) == (4, 72, 72 * 30 / 4 + 60)
    of_runs = Fit(request(rows, tiny_model, tmp_path, runs=8, jobs=4)).plan()
    assert (of_runs["runs"], of_runs["seconds"]) == (8, 2 * 30 + 60)


@pytest.mark.parametrize("sees", [True, False])
def test_a_guest_on_a_gpu_gives_back_what_has_no_room(rows, tiny_model, tmp_path, monkeypatch, sees):
    """The GPU has room for one run; a guest that does not see this runs out of memory, and leaves."""
    train = engine.train

    def stand_in(loaded, **options):
        try:
            with FileLock(tmp_path / "memory", timeout=0):
                return train(loaded, **options)
        except Timeout:
            raise torch.OutOfMemoryError("CUDA out of memory") from None

    monkeypatch.setattr(processes, "CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_share, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(gpu_share, "free_gpu_bytes", lambda: 0 if sees else 10**12)
    monkeypatch.setattr(engine, "train", stand_in)
    fit = Fit(request(rows, tiny_model, tmp_path, runs=4, jobs=2, methods=["vanilla"]))
    told = []
    with fit.lock():
        search = fit.search()
        try_side_by_side(fit, search, tell=told.append)
    assert [trial.state for trial in search.trials() if trial.values] == ["complete", "complete"]
    assert not any("cannot be trained" in line for line in told)
