"""Trackers are told what metrics.jsonl holds, no step twice; they change no result, and stop no run."""

import json

import pytest

from dpstune.common.progress import SilentProgress
from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.recipe.recipe import load_recipe
from dpstune.runs.folder import read_metrics
from dpstune.runs.identity import run_digest, run_folder
from dpstune.studies.records import read_run
from dpstune.studies.sweep.sweep import Sweep, SweepRequest
from dpstune.training import engine, trackers


class Notes(SilentProgress):
    """Remembers the notes, and where asked ends the run with an error after a step."""

    def __init__(self, stop_after=None):
        self.notes, self.stop_after = [], stop_after

    def note(self, text):
        self.notes.append(text)

    def step(self, step, loss, rate):
        if step == self.stop_after:
            raise RuntimeError("a power cut")


@pytest.fixture
def train(tiny_task, tmp_path):
    def train(*names, progress=None, **options):
        overrides = [f"training.trackers=[{', '.join(names)}]", "training.save_every=5"]
        loaded = load_recipe(str(tiny_task), overrides=overrides, **options)
        return engine.train(loaded, output=tmp_path / "runs", progress=progress)

    return train


def told(folder):
    """What metrics.jsonl holds, as (curve, step, value)."""
    found = []
    for line in read_metrics(folder / "metrics.jsonl"):
        curves = {name: value for name, value in line.items() if name not in ("step", "epoch", "split")}
        found += [(f"{line.get('split', 'train')}/{name}", line["step"], value) for name, value in curves.items()]
    return sorted(found)


class TestWhatTheyDoNotChange:
    def test_the_name_of_a_run_and_of_a_sweep(self, tiny_task, tmp_path):
        def names(recipe):
            loaded = load_recipe(str(recipe), data_dir=tiny_task.parent)
            task = Inputs().task(loaded.recipe)
            folder = run_folder(loaded, task, tmp_path, precision="fp32", device="cpu", processes=1)
            sweep = Sweep(SweepRequest(str(recipe), ("vanilla",), 2, tmp_path, data_dir=tiny_task.parent))
            return folder.path, run_digest(loaded.recipe, task, processes=1), sweep.folder

        tracked = tmp_path / tiny_task.name
        tracked.write_text(tiny_task.read_text().replace("epochs: 2", "epochs: 2, trackers: []"))
        assert names(tracked) == names(tiny_task)

    def test_the_point_a_finished_run_belongs_to(self, train, tiny_run):
        run = train()
        assert read_run(run.folder).settings == read_run(tiny_run).settings

    def test_the_result(self, train, tiny_run):
        run = train()
        assert run.folder.name == tiny_run.name
        assert not (run.folder / "tensorboard").exists()
        result = json.loads((tiny_run / "result.json").read_text())
        assert (run.result["last"], run.result["digest"]) == (result["last"], result["digest"])


class TestOneThatIsNotThere:
    def test_is_refused_before_anything_is_written(self, train, tmp_path, monkeypatch):
        monkeypatch.setattr(trackers, "is_installed", lambda name: False)
        with pytest.raises(RequestError, match=r"wandb is not installed; pip install 'dpstune\[trackers\]' brings it"):
            train("wandb")
        assert not list(tmp_path.glob("runs/*/*/seed-*"))

    def test_is_refused_by_a_sweep_before_its_first_run(self, tiny_task, tmp_path, monkeypatch):
        monkeypatch.setattr(trackers, "is_installed", lambda name: False)
        with pytest.raises(RequestError, match="mlflow is not installed"):
            Sweep(SweepRequest(str(tiny_task), ("vanilla",), 2, tmp_path, overrides=("training.trackers=[mlflow]",)))


@pytest.mark.parametrize("fails_at", ["open", "log", "finish"])
def test_one_that_fails_is_told_of_once_and_the_run_goes_on(train, monkeypatch, fails_at):
    calls = []

    class Failing:
        def __init__(self, recipe, folder, after_step):
            self.call("open")

        def log(self, points):
            self.call("log")

        def finish(self, error):
            self.call("finish")

        def call(self, name):
            calls.append(name)
            if name == fails_at and calls.count(name) == (3 if name == "log" else 1):
                raise ConnectionError("the server is gone")

    monkeypatch.setitem(trackers._KINDS, "wandb", Failing)
    progress = Notes()
    run = train("wandb", progress=progress)
    assert run.result["steps"] == 24
    expected = "wandb failed and shows no more of this run, which goes on (the server is gone)"
    assert [note for note in progress.notes if "wandb" in note] == [expected]
    assert calls[-1] == fails_at
    assert calls.count("log") == {"open": 0, "log": 3}.get(fails_at, 26)


def test_hears_how_the_run_ended_also_where_its_progress_cannot_end(train, monkeypatch):
    class Gone(Notes):
        def finish(self):
            raise OSError("no terminal")

    heard = []

    class Tracker:
        def __init__(self, recipe, folder, after_step):
            pass

        def log(self, points):
            pass

        def finish(self, error):
            heard.append(str(error))

    monkeypatch.setitem(trackers._KINDS, "wandb", Tracker)
    with pytest.raises(OSError, match="no terminal"):
        train("wandb", progress=Gone(stop_after=2))
    assert heard == ["a power cut"]


class TestTensorBoard:
    def test_shows_the_recipe_and_no_step_twice_after_a_crash(self, train):
        pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        with pytest.raises(RuntimeError, match="a power cut"):
            train("tensorboard", progress=Notes(stop_after=8))
        run = train("tensorboard")
        events = EventAccumulator(str(run.folder / "tensorboard"))
        events.Reload()
        assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 25))
        (recipe,) = events.Tensors("recipe/text_summary")
        assert "| training.batch_size | 6 |" in recipe.tensor_proto.string_val[0].decode()


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow on files, which open at once; a database takes seconds to be made."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    return pytest.importorskip("mlflow", reason="the trackers extra is not installed")


def history(mlflow, run_id):
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    entries = [entry for name in run.data.metrics for entry in client.get_metric_history(run_id, name)]
    return run, sorted((entry.key, entry.step, entry.value) for entry in entries)


@pytest.mark.slow
class TestMLflow:
    def test_a_resumed_run_goes_on_under_its_id_and_tells_no_step_twice(self, train, mlflow, tmp_path):
        with pytest.raises(RuntimeError, match="a power cut"):
            train("mlflow", progress=Notes(stop_after=8))
        (ids,) = tmp_path.glob("runs/*/*/*/trackers.json")
        run_id = json.loads(ids.read_text())["mlflow"]
        run, entries = history(mlflow, run_id)
        assert (run.info.status, entries[-1][1]) == ("FAILED", 8)
        assert json.loads(json.dumps(run.data.params))["training.batch_size"] == "6"

        finished = train("mlflow")
        run, entries = history(mlflow, run_id)
        assert (run.info.status, run.info.run_name) == ("FINISHED", f"dps-dense/{finished.folder.name}")
        assert entries == told(finished.folder)
        (experiment,) = mlflow.search_experiments(filter_string="name = 'tiny'")
        assert len(mlflow.MlflowClient().search_runs([experiment.experiment_id])) == 1

    def test_where_another_server_is_asked_the_resumed_run_begins_there(self, train, mlflow, tmp_path, monkeypatch):
        with pytest.raises(RuntimeError, match="a power cut"):
            train("mlflow", progress=Notes(stop_after=8))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/elsewhere")
        progress = Notes()
        finished = train("mlflow", progress=progress)
        run_id = json.loads((finished.folder / "trackers.json").read_text())["mlflow"]
        run, entries = history(mlflow, run_id)
        assert run.info.status == "FINISHED"
        assert {step for _, step, _ in entries} == set(range(6, 25))
        assert progress.notes == ["continuing after step 5 of 24"]

    def test_a_server_that_is_not_there_kills_no_run(self, train, mlflow, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        progress = Notes()
        assert train("mlflow", progress=progress).result["steps"] == 24
        (note,) = progress.notes
        assert note.startswith("mlflow failed and shows no more of this run, which goes on (API request to http://127")


@pytest.mark.slow
def test_wandb_keeps_its_files_in_the_runs_folder_under_one_id(train, monkeypatch):
    pytest.importorskip("wandb", reason="the trackers extra is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setattr("sys.argv", ["dpstune", "sweep", "--storage", "postgresql://me:geheim@host/db"])
    with pytest.raises(RuntimeError, match="a power cut"):
        train("wandb", progress=Notes(stop_after=8))
    finished = train("wandb")
    run_id = json.loads((finished.folder / "trackers.json").read_text())["wandb"]
    first, second = (
        path.read_bytes() for path in sorted(finished.folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))
    )
    for file in (first, second):
        assert b"train/learning_rate" in file
        assert f"dps-dense/{finished.folder.name}".encode() in file
    assert b"validation/accuracy" in second
    assert not [path for path in finished.folder.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
