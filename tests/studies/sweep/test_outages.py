"""A storage that is away for a moment is asked again; what stays wrong with it is told in one line."""

import sqlite3
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import optuna
import pytest
import sqlalchemy.exc
from sqlalchemy import event
from sqlalchemy.engine import Engine

from dpstune.errors import RunError
from dpstune.studies.fit.candidates import SearchSpace
from dpstune.studies.fit.search import CandidateSearch, kept_space
from dpstune.studies.sweep import outages
from dpstune.studies.sweep import search as searches
from dpstune.studies.sweep.queue import Job, RunQueue
from dpstune.studies.sweep.search import PointSearch
from dpstune.studies.sweep.storage import has_study, sqlite_url

GRID = {"method.p": [0.1, 0.5], "training.learning_rate": [1e-5, 1e-3]}
SPACE = SearchSpace(("vanilla", "mixout"), 1e-4, (3, 12))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.db"


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (sqlalchemy.exc.OperationalError("select 1", {}, Exception()), True),
        (sqlalchemy.exc.InternalError("commit", {}, Exception()), True),
        (sqlalchemy.exc.DatabaseError("commit", {}, Exception(), connection_invalidated=True), True),
        (sqlalchemy.exc.PendingRollbackError(), True),
        (sqlalchemy.exc.IntegrityError("insert", {}, Exception("no such key")), False),
        (sqlalchemy.exc.DataError("insert", {}, Exception("too long")), False),
    ],
)
def test_a_storage_that_loses_the_connection_is_asked_again(monkeypatch, error, away):
    """Whichever error it shows itself in, and whether Optuna wraps it or not."""
    monkeypatch.setattr(outages.time, "sleep", lambda seconds: None)
    wrapped = optuna.exceptions.StorageInternalError("commit")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        answers = iter([raised, "an answer"])

        @outages.patient
        def ask(keeper, answers=answers):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        keeper = SimpleNamespace(url="postgresql://me:secret@host/db")
        if away:
            assert ask(keeper) == "an answer"
        else:
            with pytest.raises(RunError) as caught:
                ask(keeper)
            assert str(caught.value) == (
                f"storage postgresql://me:***@host/db: {error.orig}; no finished run is lost: the same command goes on"
            )


def test_what_is_wrong_with_the_request_is_not_taken_for_an_outage():
    @outages.patient
    def ask(keeper):
        raise ValueError("no such state")

    with pytest.raises(ValueError, match="no such state"):
        ask(SimpleNamespace(url="postgresql://host/db"))


@contextmanager
def away_for_a_second(server):
    """Have a server crash, and come back a second later."""
    server.stop()
    back = threading.Timer(1, server.start)
    back.start()
    yield
    back.join()


def test_a_search_waits_for_a_server_that_comes_back(server):
    search = PointSearch(server.url, "waits", "any", GRID, budget=3)
    point = search.propose()
    with away_for_a_second(server):
        assert search.points() == [point]
    with away_for_a_second(server):
        search.tell(point, 0.5)
    with away_for_a_second(server):
        search.propose()
    trials = optuna.load_study(study_name="waits: any", storage=search._storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "RUNNING"]


def test_no_point_is_left_half_drawn_where_the_server_crashes(server, monkeypatch):
    search, suggest = PointSearch(server.url, "drawn", "any", GRID, budget=3), searches.suggest
    crashes = iter([False, True])

    def suggest_as_the_server_crashes(*arguments):
        if not next(crashes, True):
            return suggest(*arguments)
        monkeypatch.setattr(searches, "suggest", suggest)
        with away_for_a_second(server):
            return suggest(*arguments)

    monkeypatch.setattr(searches, "suggest", suggest_as_the_server_crashes)
    assert search.propose() in search.points()
    trials = optuna.load_study(study_name="drawn: any", storage=search._storage).trials
    assert [set(trial.params) for trial in trials] == [set(GRID)] * len(search.points())


def test_a_point_whose_answer_was_lost_is_one_of_the_points(server, monkeypatch):
    search = PointSearch(server.url, "lost", "any", GRID, budget=2)
    add, lost = search._study.add_trial, iter([True])

    def add_and_lose_the_answer(trial):
        add(trial)
        if next(lost, False):
            raise sqlalchemy.exc.OperationalError("commit", {}, Exception("gone"))

    monkeypatch.setattr(search._study, "add_trial", add_and_lose_the_answer)
    second = search.propose()
    first, *others = search.points()
    assert others == [second] != [first]
    assert search.propose() is None


@contextmanager
def every_connection(*pragmas):
    """Have SQLite's connections begin with something."""

    def begin(connection, record):
        for pragma in pragmas:
            connection.execute(pragma)

    event.listen(Engine, "connect", begin)
    try:
        yield
    finally:
        event.remove(Engine, "connect", begin)


HOLDS_NO_MORE = "PRAGMA max_page_count = 1"  # SQLite takes the least that holds what is there


def add_many(file):
    RunQueue(sqlite_url(file), "study").add([Job("mixout", ("x=" + 999 * "x",), seed) for seed in range(50)])


def propose_many(file):
    search = PointSearch(sqlite_url(file), "study", "any", {"method.noise": ["n" * 999, "u" * 999]}, budget=50)
    while search.propose() is not None:
        pass


def try_many(file):
    search = CandidateSearch(file, lambda: SPACE, parts=1, seed=1)
    for _ in range(100):
        search.begin()


@pytest.mark.parametrize("write", [add_many, propose_many, try_many])
def test_a_full_disk_is_told_in_one_line(file, monkeypatch, write):
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    RunQueue(sqlite_url(file), "another")
    with every_connection(HOLDS_NO_MORE), pytest.raises(RunError) as caught:
        write(file)
    assert str(caught.value) == (
        f"{file}: database or disk is full; see that its disk has room and that its folder can be written to; "
        "no finished run is lost: the same command goes on"
    )


@pytest.mark.parametrize("write", [add_many, propose_many, try_many])
def test_a_read_only_storage_is_told_in_one_line(file, write):
    RunQueue(sqlite_url(file), "another")
    with every_connection("PRAGMA query_only = 1"), pytest.raises(RunError) as caught:
        write(file)
    assert str(caught.value).startswith(f"{file}: attempt to write a readonly database; see that its disk")


def test_a_lock_that_cannot_be_made_is_told_in_one_line(file):
    queue = RunQueue(sqlite_url(file), "study")
    file.with_name("study.db.lock").mkdir()
    with pytest.raises(RunError, match=f"^{file}: Is a directory; see that its disk has room"):
        queue.add([Job("mixout", (), 1)])


def read_study(file):
    has_study(sqlite_url(file), "study")


@pytest.mark.parametrize("use", [add_many, propose_many, try_many, read_study, kept_space])
def test_a_damaged_file_is_told_with_what_to_do(file, use):
    file.write_text("no database")
    with pytest.raises(RunError) as caught:
        use(file)
    told = "file is not a database; no finished run is lost: move the file away, and the same command goes on"
    assert str(caught.value) == f"{file}: {told}"


def test_a_file_that_is_damaged_meanwhile_is_told_with_what_to_do(file):
    search = PointSearch(sqlite_url(file), "study", "any", GRID, budget=3)
    with sqlite3.connect(file) as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    size = file.stat().st_size // pages
    file.write_bytes(file.read_bytes()[:size] + bytes(size * (pages - 1)))
    with pytest.raises(RunError, match="malformed; no finished run is lost: move the file away"):
        search.propose()
