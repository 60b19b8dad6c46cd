"""A sweep whose workers meet in a PostgreSQL server, which the test starts from the system's packages."""

import json
import multiprocessing
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
def test_two_commands_share_one_sweep(server, zygote, tiny_task, tmp_path):
    arguments = ["--method", "mixout", "--seeds", "1", "--set", "training.steps=6", "--set", "training.warmup_steps=1"]
    asked = ["sweep", "--recipe", tiny_task, *arguments, "--storage", server.url, "--output", tmp_path, "--json"]
    commands = [zygote.start(*asked) for _ in range(2)]
    for done in [command.wait() for command in commands]:
        assert done.code == 0, done.stderr
        assert len(json.loads(done.stdout)["runs"]) == 8
    assert len(list(tmp_path.glob("tiny/mixout/*/result.json"))) == 8


@pytest.mark.slow
def test_a_sweep_outlives_a_server_that_crashes_and_comes_back(server, zygote, tiny_task, tmp_path):
    arguments = ["--method", "mixout", "--seeds", "2", "--jobs", "2", "--set", "training.steps=40"]
    arguments += ["--set", "training.warmup_steps=1", "--storage", server.url, "--output", tmp_path, "--json"]
    command = zygote.start("sweep", "--recipe", tiny_task, *arguments)
    while len(list(tmp_path.glob("tiny/mixout/*/result.json"))) < 2:
        assert command.alive, command.wait().stderr
        time.sleep(0.1)
    server.stop()
    time.sleep(3)
    server.start()
    done = command.wait()
    assert done.code == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 16
