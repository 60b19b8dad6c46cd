"""Workers as a scheduler's tasks: what is submitted, and that it runs the sweep; SLURM itself is stood in for."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.zygote import _alive

SHORT = ["--set", "training.steps=6", "--set", "training.warmup_steps=1"]
REFUSES = "echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1"
SUBMITS = 'cp "$1" {folder}/script; echo Submitted batch job 4711'
RUNS = """
for task in 0 1; do
  SLURM_JOB_ID=$((4711 + task)) SLURM_ARRAY_JOB_ID=4711 SLURM_ARRAY_TASK_ID=$task SLURM_PROCID=0 \
    setsid bash -c 'bash "$0"; echo $? > {folder}/ended-$SLURM_ARRAY_TASK_ID' "$1" < /dev/null > /dev/null 2>&1 &
done
echo Submitted batch job 4711
"""
TASK = 'shift 5; exec "$@"'  # past --unbuffered --output FILE --error FILE


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand in for SLURM's programs; returns a function that says what ``sbatch`` does."""
    pytest.importorskip("submitit", reason="the slurm extra is not installed")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()

    def stand_in(sbatch):
        for name, does in (("sbatch", sbatch.replace("{folder}", str(tmp_path))), ("srun", TASK)):
            program = tmp_path / "bin" / name
            program.write_text(f"#!/bin/bash\n{does}\n")
            program.chmod(0o755)
        return tmp_path

    return stand_in


def wait_for(what):
    deadline = time.monotonic() + 600
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--launcher", "slrum"], "--launcher slrum: should be slurm or local; did you mean 'slurm'?"),
        (["--launcher", "slurm", "--plan"], "--plan, --report and --launcher: give only one of them"),
        (
            ["--launcher", "slurm", "--launcher-set", "comment=a\ntouch pwned"],
            r"--launcher-set 'comment=a\ntouch pwned': should be one line without control characters",
        ),
        (["--launcher-set", "time=60"], "--launcher-set time=60: is an option of sbatch; add --launcher slurm"),
        (
            ["--launcher", "slurm", "--jobs", "2"],
            "--launcher slurm: its tasks need a database that every node reaches; add --storage postgresql://...",
        ),
        (["--launcher", "slurm"], "--launcher slurm: needs submitit; pip install 'dpstune[slurm]'"),
        *(
            (
                ["--launcher", "slurm", f"--launcher-set={option}"],
                f"--launcher-set {option}: should be KEY=VALUE, for example partition=gpu, without dashes",
            )
            for option in ("", "=x", "--partition=gpu")
        ),
        (
            ["--launcher", "slurm", "--launcher-set", "array=0-99"],
            "--launcher-set array=0-99: cannot be set: --jobs says how many tasks",
        ),
        (
            ["--launcher", "slurm", "--launcher-set", "output=x"],
            "--launcher-set output=x: cannot be set: the logs lie in the sweep's folder",
        ),
    ],
)
def test_what_cannot_be_launched_is_refused_in_one_line(run, tiny_task, tmp_path, monkeypatch, more, message):
    monkeypatch.setitem(sys.modules, "submitit", None)
    asked = ["sweep", "--recipe", tiny_task, "--method", "vanilla", "--output", tmp_path, *more]
    assert run(*asked) == (2, "", f"error: {message}\n")


def test_without_slurm_there_is_one_line(run, tiny_task, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the slurm extra is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run("sweep", "--recipe", tiny_task, "--output", tmp_path, "--launcher", "slurm")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --launcher slurm: there is no srun on this machine; submit from a node")


def test_a_task_runs_the_same_command_with_one_worker(run, tiny_task, tmp_path, monkeypatch):
    submitted = []

    def submit(launcher, folder, arguments, tasks, options):
        submitted.append((arguments, tasks))
        return ["1"]

    monkeypatch.setattr("dpstune.studies.sweep.launcher.submit", submit)
    given = [
        "--method=mixout:p=0.3",
        "--method=r3f",
        "--grid=training.learning_rate=1e-3,1e-2",
        "--set=training.steps=6",
    ]
    given += [f"--recipe={tiny_task}", "--seeds=3", "--storage=postgresql://me@host/db", "--budget=4", "--sampler=tpe"]
    given += ["--dropout=own", f"--data-dir={tmp_path}", f"--output={tmp_path / 'runs'}", "--prune", "--no-models"]
    assert run("sweep", *given, "--launcher", "local", "--jobs", "3")[0] == 0
    after_seeds = given.index("--seeds=3") + 1
    assert submitted == [(["sweep", *given[:after_seeds], "--jobs=1", *given[after_seeds:]], 3)]
    assert run("sweep", "--recipe", tiny_task, "--output", "runs", "--launcher", "local")[0] == 0
    alone = ["sweep", "--method=dps-dense", f"--recipe={tiny_task}", "--seeds=5", "--jobs=1", "--output=runs"]
    assert submitted[1] == (alone, 1)


@pytest.mark.parametrize(
    "more", [[], pytest.param(["--sampler", "tpe", "--budget", "2"], marks=pytest.mark.slow)], ids=["grid", "tpe"]
)
def test_where_every_run_is_finished_nothing_is_submitted(run, zygote, tiny_task, tmp_path, monkeypatch, more):
    submitted = []
    monkeypatch.setattr("dpstune.studies.sweep.launcher.submit", lambda *asked: submitted.append(asked) or ["1"])
    asked = ["sweep", "--recipe", tiny_task, "--method", "mixout", "--grid", "method.p=0.1,0.5", *SHORT, *more]
    asked += ["--output", tmp_path, "--seeds"]
    assert zygote.run(*asked, "1").code == 0
    code, out, err = run(*asked, "1", "--launcher", "local", "--json")
    assert (code, json.loads(out)["tasks"], submitted) == (0, [], []), err
    assert err == "nothing to do: every run is finished; --report shows them\n"
    code, out, err = run(*asked, "2", "--launcher", "local")
    assert (code, len(submitted)) == (0, 1), err


def test_what_is_asked_of_slurm(run, slurm, tiny_task, tmp_path):
    folder = slurm(SUBMITS)
    asked = [
        "sweep",
        "--recipe",
        tiny_task,
        "--output",
        tmp_path / "runs",
        "--jobs",
        "2",
        "--storage",
        "postgresql://h/d",
    ]
    options = [
        f"--launcher-set={option}" for option in ("partition=gpu", "time=2:00:00", "gpus-per-node=1", "exclusive")
    ]
    code, out, err = run(*asked, "--launcher", "slurm", *options, "--json")
    assert (code, err.count("\n")) == (0, 1), err
    (logs,) = tmp_path.glob("runs/tiny/sweep-*/tasks")
    assert json.loads(out) == {"tasks": ["4711_0", "4711_1"], "logs": str(logs)}
    assert err == f"submitted 2 tasks: 4711_0, 4711_1; logs in {logs}; --report shows what is finished\n"
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    lines = (folder / "script").read_text().splitlines()
    given = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    own = {"array=0-1%2", "exclusive", "gpus-per-node=1", "job-name=dpstune", "nodes=1", "open-mode=append"}
    own |= {"partition=gpu", "requeue", "signal=TERM@60", "time=2:00:00"}
    assert {line for line in given if not line.startswith(("error=", "output="))} == own
    srun = tmp_path / "bin" / "srun"
    srun.write_text("#!/bin/bash\necho ${SRUN_CPUS_PER_TASK-none}\n")
    for cpus, seen in ({"SLURM_CPUS_PER_TASK": "3"}, "3"), ({}, "none"):
        task = subprocess.run(["bash", folder / "script"], env={**os.environ, **cpus}, capture_output=True, text=True)
        assert task.stdout == f"{seen}\n"
    logs.chmod(0o755)
    assert run(*asked, "--launcher", "slurm")[0] == 0
    assert "--time" not in (folder / "script").read_text(), "the partition's own limit"
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    logs.rename(tmp_path / "elsewhere")
    logs.symlink_to(tmp_path / "elsewhere")
    code, _, err = run(*asked, "--launcher", "slurm")
    told = f"error: {logs} should be a folder of this user; remove it, or choose another place with --output\n"
    assert (code, err) == (1, told)


def test_the_cluster_page_s_command_is_submitted(run, slurm, tmp_path):
    folder = slurm(SUBMITS)
    page = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^dpstune (.*--launcher slurm.*)$", page, flags=re.MULTILINE)
    assert run(*line.replace("/shared", str(tmp_path)).split())[0] == 0
    script = (folder / "script").read_text()
    assert all(
        f"#SBATCH --{asked}\n" in script for asked in ("array=0-7%8", "partition=gpu", "gres=gpu:1", "time=8:00:00")
    )


def test_what_sbatch_refuses_is_said_in_its_own_words(run, slurm, tiny_task, tmp_path):
    slurm(REFUSES)
    code, out, err = run("sweep", "--recipe", tiny_task, "--output", tmp_path, "--launcher", "slurm")
    why = "sbatch: error: invalid partition specified: gpus"
    assert (code, out, err) == (1, "", f"error: --launcher slurm: nothing was submitted: {why}\n")


@pytest.mark.slow
def test_a_local_task_saves_when_it_is_told_to_end_and_another_goes_on(run, tiny_task, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the slurm extra is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = ["sweep", "--recipe", tiny_task, "--method", "vanilla", "--seeds", "1", "--set", "training.epochs=30"]
    asked += ["--output", tmp_path, "--launcher", "local", "--json"]
    code, out, err = run(*asked)
    assert code == 0, err
    (task,) = json.loads(out)["tasks"]
    wait_for(lambda: any(log.stat().st_size > 500 for log in tmp_path.glob("tiny/*/*/metrics.jsonl")))
    os.kill(int(task), signal.SIGTERM)
    wait_for(lambda: not _alive(int(task)))
    assert list(tmp_path.glob("tiny/vanilla/*/checkpoints/step-*"))
    assert not list(tmp_path.glob("tiny/sweep-*/report.md"))
    (task,) = json.loads(run(*asked)[1])["tasks"]
    wait_for(lambda: not _alive(int(task)))
    assert len(list(tmp_path.glob("tiny/vanilla/*/result.json"))) == 1
    assert list(tmp_path.glob("tiny/sweep-*/report.html"))


@pytest.mark.slow
def test_the_tasks_of_an_array_share_one_sweep(run, slurm, server, tiny_task, tmp_path, monkeypatch):
    folder = slurm(RUNS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = ["sweep", "--recipe", tiny_task, "--method", "mixout", "--grid", "method.p=0.1,0.5", "--seeds", "2", *SHORT]
    code, _, err = run(
        *asked, "--output", tmp_path, "--storage", server.url, "--launcher", "slurm", "--jobs", "2", "--json"
    )
    assert code == 0, err
    wait_for(lambda: len(list(folder.glob("ended-*"))) == 2)
    assert [file.read_text() for file in folder.glob("ended-*")] == ["0\n", "0\n"]
    assert len(list(tmp_path.glob("tiny/mixout/*/result.json"))) == 4
    assert list(tmp_path.glob("tiny/sweep-*/report.html"))
