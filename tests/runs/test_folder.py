import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dpstune.common.writing import (
    copy_aside,
    make_writable_folder,
    put_back,
    set_aside,
    write_atomically,
    write_folder,
    write_json,
    write_text,
)
from dpstune.errors import RequestError, RunError
from dpstune.runs.folder import MetricsLog, RunFolder, read_metrics, read_predictions, run_hash, write_predictions
from dpstune.training.checkpoints import Checkpoints


@pytest.fixture
def small_disk():
    """Files may not grow beyond 64 kB: a disk that is full for whatever is larger."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, earlier[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    signal.signal(signal.SIGXFSZ, ignored)


def small_model(value=0.0):
    model = nn.Linear(4, 4)
    nn.init.constant_(model.weight, value)
    return model


def state(step):
    return {"loop": {"step": step}, "tensor": torch.arange(5)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_place_below_a_file_is_a_wrong_request(tmp_path):
    (tmp_path / "file").touch()
    for write in (write_text, write_json, write_predictions):
        with pytest.raises(RequestError, match=r"cannot write to \S+/file/x: File exists; choose another folder"):
            write(tmp_path / "file" / "x", {"a": [1]} if write is not write_text else "a")


def test_hash_sees_values_but_not_their_order():
    assert run_hash({"a": 1, "b": [1, 2]}) == run_hash({"b": [1, 2], "a": 1})
    assert run_hash({"a": 1}) != run_hash({"a": 2})
    assert len(run_hash({})) == 10


def test_a_name_is_used_up_to_the_longest_that_is_legal(tmp_path):
    write_text(tmp_path / ("x" * 255), "a")
    write_folder(tmp_path / ("y" * 240), lambda folder: None)
    assert names(tmp_path) == ["x" * 255, "y" * 240]


def test_a_name_that_is_too_long_is_a_wrong_request(tmp_path):
    place, told = tmp_path / ("x" * 256), "File name too long; choose another folder with --output"
    for write in (
        lambda: write_text(place, "a"),
        lambda: write_folder(place, lambda folder: None),
        lambda: make_writable_folder(place),
        lambda: set_aside(place),
    ):
        with pytest.raises(RequestError, match=told):
            write()
    assert names(tmp_path) == []


def test_links_in_a_circle_are_a_wrong_request(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(RequestError, match="Too many levels of symbolic links; choose another folder with --output"):
        make_writable_folder(tmp_path / "link" / "a" / "b")


def test_what_a_killed_process_left_in_a_run_is_removed(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        make_writable_folder(tmp_path / "run")
    assert len(names(tmp_path / "run")) == 1
    RunFolder(tmp_path / "run").create()
    assert names(tmp_path / "run") == ["checkpoints"]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, small_disk):
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})
    with pytest.raises(RunError, match="what was saved before is untouched"):
        write_text(path, "x" * 100_000)
    assert json.loads(path.read_text()) == {"value": 1}
    assert names(tmp_path) == ["result.json"]


def test_a_link_stays_one_and_what_it_points_to_is_written(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    for content in ({"a": 1}, {"a": 2}):
        write_json(link, content)
        assert link.is_symlink()
        assert json.loads(real.read_text()) == content


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_what_is_written_again_keeps_its_mode(tmp_path, mode):
    file, folder = tmp_path / "a.csv", tmp_path / "model"
    others = mode & 0o077

    def write():
        write_text(file, "mine")
        write_folder(folder, lambda place: (place / "a").touch())
        return [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (file, folder)]

    assert write() == write()
    file.chmod(mode)
    folder.chmod(0o700 | others)
    assert write() == [others, others]
    assert stat.S_IMODE(copy_aside(file).stat().st_mode) == mode


def test_nobody_else_reads_what_is_being_written_in_the_place_of_ones_own(tmp_path):
    modes = []

    def write(path):
        path.write_text("mine")
        modes.append(stat.S_IMODE(path.stat().st_mode))

    def fill(folder):
        modes.append(stat.S_IMODE(folder.stat().st_mode))

    for _ in range(2):
        write_atomically(tmp_path / "file", write)
        write_folder(tmp_path / "folder", fill)
    assert modes[2:] == [0o600, 0o700]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match="it is not a file; choose another with --output"):
        write_json(tmp_path / "pipe", {})
    assert (tmp_path / "pipe").is_fifo()


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "result.json", {"value": float("nan")})
    assert names(tmp_path) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, small_disk):
    place = tmp_path / "model"
    write_folder(place, lambda folder: (folder / "a").write_text("old"))
    with pytest.raises(RunError):
        write_folder(place, lambda folder: (folder / "a").write_text("x" * 100_000))
    assert (place / "a").read_text() == "old"
    write_folder(place, lambda folder: (folder / "b").write_text("new"))
    assert names(place) == ["b"]
    assert names(tmp_path) == ["model"]


def test_of_a_link_the_folder_that_it_points_to_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    link.symlink_to(real)
    for name in ("a", "b"):
        write_folder(link, lambda folder, name=name: (folder / name).touch())
        assert (names(real), names(real.parent)) == ([name], ["real"])
    assert link.is_symlink()
    real.rename(real.parent / ".real.replaced")  # as a killed process leaves it
    put_back(link)
    assert names(real) == ["b"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_lies_where_a_folder_is_renamed_to_is_in_no_ones_way(tmp_path, kind):
    place, left = tmp_path / "model", tmp_path / ".model.replaced"
    place.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    left.touch() if kind == "file" else left.symlink_to(tmp_path / "elsewhere")
    write_folder(place, lambda folder: (folder / "new").touch())
    assert names(place) == ["new"]
    assert names(tmp_path) == ["elsewhere", "model"]
    assert names(tmp_path / "elsewhere") == ["mine"]


def test_what_is_no_folder_is_not_replaced_by_one(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match="it is not a folder; choose another with --output"):
        write_folder(tmp_path / "file", lambda folder: None)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_whose_writer_was_killed_between_its_two_renames_is_there_again(tmp_path):
    place, left = tmp_path / "model", tmp_path / ".model.replaced"
    place.mkdir()
    (place / "notes").write_text("mine")
    script = (
        "import os, sys; from pathlib import Path; from dpstune.common.writing import write_folder\n"
        "rename = Path.rename\n"
        "Path.rename = lambda path, to: os._exit(9) if path.name.endswith('.partial') else rename(path, to)\n"
        "write_folder(Path(sys.argv[1]), lambda folder: None)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(place)], check=False).returncode == 9
    assert left.is_dir()
    assert not place.exists()
    write_folder(place, lambda folder: (folder / "notes").write_text((place / "notes").read_text()))
    assert (place / "notes").read_text() == "mine"
    assert names(tmp_path) == ["model"]


def test_metrics_after_the_checkpoint_are_cut_off(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append([{"step": 1}, {"step": 2}])
    size = log.size
    log.append([{"step": 3}])
    log.close()
    resumed = MetricsLog(tmp_path / "metrics.jsonl", size=size)
    resumed.append([{"step": 3, "again": True}])
    resumed.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_predictions_come_back(tmp_path):
    columns = {"id": ["a", "b"], "label": ["yes", None], "prediction": ["no", "no"], "scores": [[0.1, 0.9], [0.4, 0.6]]}
    write_predictions(tmp_path / "predictions" / "test.parquet", columns)
    assert read_predictions(tmp_path / "predictions" / "test.parquet") == columns


def test_a_place_that_cannot_be_written_is_a_wrong_request(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="--output"):
        RunFolder(tmp_path / "file" / "run").create()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a read-only file system: /proc")
def test_a_read_only_place_is_a_wrong_request():
    with pytest.raises((RequestError, RunError), match="/proc/dpstune"):
        RunFolder(Path("/proc/dpstune/run")).create()


def test_one_process_at_a_time(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    script = (
        "from dpstune.runs.folder import RunFolder; from pathlib import Path; import sys\n"
        "from dpstune.errors import RunError\n"
        "try:\n"
        "    with RunFolder(Path(sys.argv[1])).lock(): print('locked')\n"
        "except RunError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(folder.path)]
    with folder.lock():
        held = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    free = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "another process is training" in held
    assert free.strip() == "locked"


def test_setting_aside_keeps_every_earlier_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        folder.create()
        folder.set_aside()
    assert names(tmp_path) == ["run.earlier-1", "run.earlier-2"]


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 15):
        checkpoints.save(step, small_model(step), state(step))
    assert names(tmp_path) == ["step-00000010", "step-00000015"]
    newest, notes = checkpoints.newest()
    model = small_model()
    newest.load_weights(model)
    assert newest.state["loop"]["step"] == 15
    assert (model.weight == 15).all()
    assert notes == []


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_checkpoint_falls_back_and_says_so(tmp_path, name, damage):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10):
        checkpoints.save(step, small_model(step), state(step))
    file = tmp_path / "step-00000010" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes({"flip": content, "cut": content[:-7], "empty": b"", "remove": b""}[damage])
    if damage == "remove":
        file.unlink()
    newest, notes = checkpoints.newest()
    assert newest.state["loop"]["step"] == 5
    assert len(notes) == 1
    assert "step-00000010 is damaged; falling back" in notes[0]
    checkpoints.save(10, small_model(10), state(10))
    assert checkpoints.newest()[0].state["loop"]["step"] == 10


def test_with_no_whole_checkpoint_training_starts_again(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() == (None, [])
    checkpoints.save(5, small_model(), state(5))
    (tmp_path / "step-00000005" / "state.pt").write_bytes(b"rubbish")
    newest, notes = checkpoints.newest()
    assert newest is None
    assert "starts again from step 1" in notes[-1]


def test_a_full_disk_during_a_save_loses_no_earlier_checkpoint(tmp_path, small_disk):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, small_model(5), state(5))
    large = nn.Linear(200, 200)
    with pytest.raises(RunError, match="File too large"):
        checkpoints.save(10, large, state(10))
    with pytest.raises(RunError, match="File too large"):
        checkpoints.save(10, small_model(), {"large": torch.zeros(100_000)})
    assert names(tmp_path) == ["step-00000005"]
    assert checkpoints.newest()[0].state["loop"]["step"] == 5


def test_a_checkpoint_that_runs_code_when_unpickled_is_not_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, small_model(), state(5))

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "was-run"),))

    folder = tmp_path / "step-00000005"
    torch.save({"loop": Evil()}, folder / "state.pt")
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state.pt"] = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoints.newest()[0] is None
    assert not (tmp_path / "was-run").exists()


def test_a_log_that_lost_its_end_is_cut_to_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    log = MetricsLog(path, size=500)
    log.append([{"step": 3}])
    log.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}"])
def test_a_result_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    assert RunFolder(tmp_path).read_result() is None
