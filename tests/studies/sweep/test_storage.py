"""A sweep's storage: what is no database is refused, and no message tells a password."""

import re

import pytest

from dpstune.errors import RequestError
from dpstune.studies.sweep.queue import RunQueue
from dpstune.studies.sweep.storage import hide_passwords, sqlite_file, sqlite_url


def test_a_storage_that_cannot_be_opened_is_refused_in_one_line(tmp_path):
    with pytest.raises(RequestError, match="cannot be opened") as caught:
        RunQueue(f"sqlite:///{tmp_path}/no/such/folder/study.db", "study")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["q?a", "p%41b", "x{y}", "a b#c&d=e:f@g", "é"])
def test_a_storage_lies_in_the_folder_whatever_its_name(tmp_path, name):
    file = tmp_path / name / "study.db"
    file.parent.mkdir()
    assert sqlite_file(sqlite_url(file)) == file
    RunQueue(sqlite_url(file), "study")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert file.is_file()


@pytest.mark.parametrize("password", ["secret", "se%40cret", "se?cret"])
def test_a_password_is_not_repeated(password):
    with pytest.raises(RequestError, match="cannot be opened") as caught:
        RunQueue(f"postgresql://me:{password}@127.0.0.1:9/none", "study")
    assert "cret" not in str(caught.value)
    assert "me:***@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://me@corp:secret@host/db", "postgresql://me@corp:***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me&password=***"),
        ("mysql://me:pw@host:9/db?passwd=secret", "mysql://me:***@host:9/db?passwd=***"),
        ("postgresql://me:pw12@h/db?application_name=a@b", "postgresql://me:***@h/db?application_name=a@b"),
        ("postgresql://me:s@e?cr/et@h/db?application_name=a@b", "postgresql://me:***@h/db?application_name=a@b"),
        ("postgresql//me:secret@host/db", "postgresql//me:***@host/db"),
        ("sqlite:////runs@home/study.db", "sqlite:////runs@home/study.db"),
        ("task={text: e@mail, label: gold}", "task={text: e@mail, label: gold}"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_no_url_tells_a_password(url, told):
    assert hide_passwords(url, url) == told


@pytest.mark.parametrize(
    "url",
    [
        "me:secret@host/db",
        "postgresql:me:secret@host/db",
        "//me:secret@db/x",
        "/me:secret@host",
        "host=db password=secret",
    ],
)
def test_what_is_no_url_is_not_repeated_where_it_may_hold_a_password(url):
    with pytest.raises(RequestError, match=r"^--storage \*\*\*: should be the URL of a database") as caught:
        RunQueue(url, "study")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["se@cret", "sec@ret/tail"])
def test_an_at_sign_in_a_password_is_refused(password):
    with pytest.raises(RequestError, match=r"^--storage postgresql://me:\*\*\*@host/db: an @ in the password should"):
        RunQueue(f"postgresql://me:{password}@host/db", "study")


NO_STORAGES = ["redis://localhost", "journal.log", "somewhere"]
OF_ONE_PROCESS = ["sqlite://", "sqlite:///", "sqlite:///?timeout=5", "sqlite:///:memory:"]
OF_ONE_PROCESS += ["sqlite:///file::memory:?uri=true", "sqlite:///file:a?mode=memory&uri=true"]


@pytest.mark.parametrize("url", [*NO_STORAGES, *OF_ONE_PROCESS])
def test_a_storage_that_workers_could_not_share_is_refused(url):
    told = "***" if "=" in url else url
    with pytest.raises(RequestError, match=f"^--storage {re.escape(told)}: should be the URL of a database"):
        RunQueue(url, "study")
