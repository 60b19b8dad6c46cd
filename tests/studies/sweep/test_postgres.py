"""A sweep whose workers meet in a PostgreSQL server, which the test starts from the system's packages."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpstune.studies.sweep.queue import Job, RunQueue


def join_and_take_all(url, worker, taken):
    """What a machine does that joins: add all jobs, then take what is there."""
    queue = RunQueue(url, "joined")
    queue.add([Job("mixout", (f"method.p=0.{p}",), seed) for seed in range(5) for p in range(1, 5)])
    while (job := queue.take(worker)) is not None:
        taken.put(job.job.identity)
        queue.finish(job, 0.5, Path("run"))


@pytest.mark.slow
def test_machines_that_join_at_once_take_each_job_exactly_once(server):
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    machines = [
        context.Process(target=join_and_take_all, args=(server.url, f"{n} host{n} 1 1 m{n}", taken)) for n in range(3)
    ]
    for machine in machines:
        machine.start()
    identities = [taken.get(timeout=1000) for _ in range(20)]
    for machine in machines:
        machine.join()
    assert len(set(identities)) == 20
    assert taken.empty()
    tally = RunQueue(server.url, "joined").tally()
    assert (tally.waiting, tally.running, len(tally.done), tally.failed) == (0, 0, 20, {})


@pytest.mark.slow
def test_two_commands_share_one_sweep(server, tiny_task, tmp_path):
    arguments = ["--method", "mixout", "--seeds", "1", "--set", "training.steps=6", "--set", "training.warmup_steps=1"]
    command = [
        sys.executable,
        "-m",
        "dpstune",
        "sweep",
        "--recipe",
        str(tiny_task),
        *arguments,
        "--storage",
        server.url,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    commands = [
        subprocess.Popen(
            [*command, "--output", str(tmp_path), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in commands:
        out, err = process.communicate(timeout=1000)
        assert process.returncode == 0, err
        assert len(json.loads(out)["runs"]) == 8
    assert len(list(tmp_path.glob("tiny/mixout/*/result.json"))) == 8


@pytest.mark.slow
def test_a_sweep_outlives_a_server_that_crashes_and_comes_back(server, tiny_task, tmp_path):
    arguments = ["--method", "mixout", "--seeds", "2", "--jobs", "2", "--set", "training.steps=40"]
    command = [sys.executable, "-m", "dpstune", "sweep", "--recipe", str(tiny_task), *arguments]
    process = subprocess.Popen(
        [*command, "--set", "training.warmup_steps=1", "--storage", server.url, "--output", str(tmp_path), "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(tmp_path.glob("tiny/mixout/*/result.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    server.stop()
    time.sleep(3)
    server.start()
    out, err = process.communicate(timeout=1000)
    assert process.returncode == 0, err
    assert len(json.loads(out)["runs"]) == 16
