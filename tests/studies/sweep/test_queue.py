"""Jobs are taken once each, come back when their worker is gone, and fail once before they are given up."""

import multiprocessing
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from dpstune.studies.sweep import queue as queues
from dpstune.studies.sweep import worker_names
from dpstune.studies.sweep.queue import Job, RunQueue
from dpstune.studies.sweep.worker_names import worker_name

JOBS = [Job("mixout", (f"method.p=0.{p}",), seed) for seed in (1, 2, 3) for p in (1, 2, 3, 4)]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def take_all(url, name, taken):
    queue = RunQueue(url, "study")
    while (job := queue.take(name)) is not None:
        taken.put(job.job.identity)
        queue.finish(job, 0.5, Path("run"))


def test_jobs_are_added_once_and_taken_in_order(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS)
    RunQueue(url, "study").add([*JOBS, Job("vanilla", (), 1)])
    names = [queue.take(f"{number} elsewhere 1 1 m").job for number in range(13)]
    assert names == [*JOBS, Job("vanilla", (), 1)]
    assert queue.take("0 elsewhere 1 1") is None


def test_several_workers_take_each_job_exactly_once(url):
    RunQueue(url, "study").add(JOBS)
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    workers = [context.Process(target=take_all, args=(url, f"{n} elsewhere {n} 1", taken)) for n in range(3)]
    for worker in workers:
        worker.start()
    identities = sorted(taken.get(timeout=300) for _ in JOBS)
    for worker in workers:
        worker.join()
    assert identities == sorted(job.identity for job in JOBS)
    tally = RunQueue(url, "study").tally()
    assert (tally.waiting, tally.running, len(tally.done), tally.failed) == (0, 0, len(JOBS), {})


def test_a_job_that_fails_is_tried_twice_and_then_recorded(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    for error in ("first", "second"):
        queue.fail(queue.take("0 elsewhere 1 1"), error)
    assert queue.take("0 elsewhere 1 1") is None
    assert queue.tally().failed == {JOBS[0].identity: "second"}


def test_whoever_joins_others_at_work_does_not_try_again_what_failed(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:3])
    queue.fail(queue.take("0 elsewhere 1 1 m"), "why", again=False)
    queue.drop(JOBS[2:3])
    at_work = queue.take("1 elsewhere 2 1 m")
    queue.add(JOBS[:3])
    assert queue.tally().failed == {JOBS[0].identity: "why"}
    queue.give_back(at_work)
    queue.add(JOBS[:1])
    assert queue.tally().failed == {}, "a command that begins anew tries it again"
    assert queue.tally().waiting == 3


def test_a_job_that_is_busy_elsewhere_waits_behind_the_others(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:3])
    order = []
    for _ in range(5):
        taken = queue.take("0 elsewhere 1 1")
        order.append(taken.job.seed * 10 + int(taken.job.overrides[0][-1]))
        if taken.job == JOBS[0]:
            queue.give_back(taken, behind=True)
        else:
            queue.finish(taken, 0.5, Path("run"))
    assert order == [11, 12, 13, 11, 11]


def test_an_interrupted_job_is_given_back_without_counting_as_failed(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    for _ in range(3):
        queue.give_back(queue.take("0 elsewhere 1 1"))
    assert queue.take("0 elsewhere 1 1").failures == 0


def test_a_job_whose_worker_on_this_machine_died_comes_back_at_once(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    name = f"0 here {worker.pid} {worker_names._started(worker.pid)} {worker_names._machine()}"
    assert queue.take(name) is not None
    queue.take_over_the_dead()
    assert queue.take(worker_name(1)) is None
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    queue.take_over_the_dead()
    assert queue.take(worker_name(1)).job == JOBS[0]


def heartbeats(url):
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        return dict(database.execute("SELECT trial_id, heartbeat FROM trial_heartbeats"))


def set_back_all_heartbeats(url):
    """What an hour without a sign of life leaves behind."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")


def test_a_job_whose_worker_elsewhere_fell_silent_comes_back(url, monkeypatch):
    monkeypatch.setattr(queues, "HEARTBEAT_SECONDS", 0.2)
    queue = RunQueue(url, "study")
    queue.add(JOBS[:2])
    silent, beating = queue.take("0 elsewhere 1 1 m"), queue.take("1 elsewhere 2 1 m")
    set_back_all_heartbeats(url)
    old = heartbeats(url)
    with queue.alive(beating):
        while heartbeats(url)[beating.trial] == old[beating.trial]:
            time.sleep(0.05)
        queue.take_over_the_dead()
    assert queue.take(worker_name(1)).job == silent.job
    assert queue.take(worker_name(2)) is None


def test_a_job_that_loses_workers_elsewhere_is_given_up_too(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    for _ in range(queues.DEATHS):
        assert queue.tally().failed == {}
        assert queue.take("0 elsewhere 1 1 m").job == JOBS[0]
        set_back_all_heartbeats(url)
        queue.take_over_the_dead()
    assert queue.take("0 elsewhere 1 1 m") is None
    assert queue.tally().failed == {JOBS[0].identity: "its workers were lost"}


def test_a_job_that_lost_a_worker_and_then_is_dropped_did_not_fail(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    queue.take("0 elsewhere 1 1 m")
    set_back_all_heartbeats(url)
    queue.take_over_the_dead()
    queue.drop(JOBS[:1])
    tally = queue.tally()
    assert (tally.failed, tally.dropped) == ({}, {JOBS[0].identity})


def test_a_dropped_job_that_is_added_again_and_fails_is_no_more_than_failed(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    queue.drop(JOBS[:1])
    queue.add(JOBS[:1])
    queue.fail(queue.take("0 elsewhere 1 1 m"), "why", again=False)
    tally = queue.tally()
    assert (tally.failed, tally.dropped) == ({JOBS[0].identity: "why"}, set())


def test_nobody_sees_a_stale_job_as_failed_before_it_waits_again(url, monkeypatch):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    queue.take("0 elsewhere 1 1 m")
    set_back_all_heartbeats(url)
    seen = []
    looking = threading.Thread(target=lambda: seen.append(RunQueue(url, "study").tally()))
    put_back = optuna.storages.RetryHeartbeatStaleTrialCallback.__call__

    def put_back_slowly(*arguments):
        looking.start()
        looking.join(1)
        put_back(*arguments)

    monkeypatch.setattr(optuna.storages.RetryHeartbeatStaleTrialCallback, "__call__", put_back_slowly)
    queue.take_over_the_dead()
    looking.join()
    assert (seen[0].waiting, seen[0].failed) == (1, {})


def test_a_run_taken_when_the_answer_was_lost_is_taken_again_by_the_same_worker(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:2])
    assert queue.take("0 elsewhere 1 1 m") == queue.take("0 elsewhere 1 1 m")
    assert queue.take("1 elsewhere 2 1 m").job == JOBS[1]


def open_at_once(url, start, opened):
    from optuna.storages import RDBStorage  # noqa: F401 - imported before the others are waited for

    start.wait()
    try:
        RunQueue(url, "study").add(JOBS)
        opened.put("")
    except Exception as error:
        opened.put(repr(error))


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_fresh_storage_may_be_opened_by_many_at_the_same_moment(tmp_path, database, request):
    url = f"sqlite:///{tmp_path}/fresh.db"
    if database == "postgresql":
        server = request.getfixturevalue("server")
        server.create("fresh")
        url = server.url.replace("/postgres", "/fresh")
    context = multiprocessing.get_context("spawn")
    start, opened = context.Barrier(5), context.Queue()
    workers = [context.Process(target=open_at_once, args=(url, start, opened)) for _ in range(5)]
    for worker in workers:
        worker.start()
    assert [opened.get(timeout=300) for _ in workers] == [""] * 5
    for worker in workers:
        worker.join()
    assert RunQueue(url, "study").tally().waiting == len(JOBS)


def test_a_job_that_kills_its_workers_goes_behind_the_others_and_is_given_up(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:2])
    gone = f"0 here 999999999 1 {worker_names._machine()}"
    taken = []
    for _ in range(2 * queues.DEATHS):
        taken.append(queue.take(gone).job)
        queue.take_over_the_dead()
    assert taken[:4] == [JOBS[0], JOBS[1], JOBS[0], JOBS[1]]
    assert queue.take(gone) is None
    assert queue.tally().failed == {job.identity: "its worker died 5 times" for job in JOBS[:2]}


def test_a_worker_that_slept_while_its_run_was_done_by_another_gives_way(url):
    queue = RunQueue(url, "study")
    queue.add(JOBS[:1])
    slept = queue.take("0 elsewhere 1 1")
    queue.finish(slept, 0.5, Path("run"))
    queue.finish(slept, 0.4, Path("run"))
    queue.fail(slept, "why")
    queue.give_back(slept)
    assert len(queue.tally().done) == 1
