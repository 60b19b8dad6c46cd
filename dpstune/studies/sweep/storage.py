"""The databases that hold a sweep's queue: how they are opened, and how messages tell of them without passwords.

Optuna 5 opens them, makes their tables and looks for stale trials. It fails if several processes make the tables of a
new database at the same moment. SQLAlchemy hides a password that stands before the host, but not one in a driver's
message or after ``?password=``.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from filelock import FileLock

from dpstune.common.hub import first_line
from dpstune.errors import RequestError, RunError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

Direction = Literal["maximize", "minimize"]
"""Which way values are better, as Optuna has it."""

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60  # a trial whose heartbeat is this old has lost its worker
DEATHS = 5  # a job whose worker has died so many times is not tried again
SECONDS_TO_MAKE_TABLES = 30
SHORTEST_TO_HIDE_ANYWHERE = 4  # a shorter password could be a part of any word
_SQLITE = "sqlite:///"
_DAMAGED = ("file is not a database", "malformed")  # SQLite's words
_DATABASES = ("postgresql", "mysql", "mariadb", _SQLITE)


def open_storage(url: str, *, heartbeats: bool) -> RDBStorage:
    """Open an Optuna storage.

    Args:
        url: Its URL.
        heartbeats: Whether workers, which may die, take its trials.

    Raises:
        RequestError: It is not a database that Optuna can use, or it cannot be opened.
        RunError: It is a file that cannot be read or written.
    """
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    if not url.startswith(_DATABASES) or "://" not in url or _is_in_memory(url):
        written = "***" if set("@=") & set(url) else url  # it may hold a password
        raise RequestError(
            f"--storage {written}: should be the URL of a database that Optuna keeps studies in: postgresql://..., "
            "mysql://... or sqlite:///FILE"
        )

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if any("@" in password for password in _passwords_in(url)):
        raise RequestError(f"--storage {hide_passwords(url, url)}: an @ in the password should be written %40")
    options: dict[str, Any] = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}

    def connect() -> RDBStorage:
        return RDBStorage(
            # SQLAlchemy's default driver depends on its version; this is the driver in our extra
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            engine_kwargs={"pool_pre_ping": True, **options},
            heartbeat_interval=HEARTBEAT_SECONDS if heartbeats else None,
            grace_period=GRACE_SECONDS if heartbeats else None,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(DEATHS - 1) if heartbeats else None,
        )

    given_up_at = time.monotonic() + SECONDS_TO_MAKE_TABLES
    while True:
        try:
            return connect()
        except Exception as error:  # SQLAlchemy, the database's driver and Optuna each have errors of their own
            if not _is_being_made(error) or time.monotonic() > given_up_at:
                raise _error_of_opening(url, error) from None
        wait_a_moment()


def _is_in_memory(url: str) -> bool:
    """Tell whether a URL names no file of SQLite's, so that each process would have a database of its own."""
    file = sqlite_file(url)
    return file is not None and (file == Path() or ":memory:" in file.name or "mode=memory" in url)


def _error_of_opening(url: str, error: Exception) -> RequestError | RunError:
    file = sqlite_file(url)
    if file is not None and file.parent.is_dir() and _is_of_a_storage(error):
        return RunError(_told(url, error))
    missing = isinstance(error, ImportError) and url.startswith("postgresql")
    hint = "; pip install 'dpstune[postgres]'" if missing else ""
    why = hide_passwords(url, f"{url}: cannot be opened: {first_line(error)}")
    return RequestError(f"--storage {why}{hint}")


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn what a storage's database says, or the operating system of its file, into one line.

    Args:
        url: The storage's URL.

    Raises:
        RunError: The storage cannot be read or written.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_a_storage(error):
            raise
        raise RunError(_told(url, error)) from None  # what it came from may tell a password


def _is_of_a_storage(error: Exception) -> bool:
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(cause_in_the_database(error), SQLAlchemyError | OSError)


def cause_in_the_database(error: Exception) -> BaseException:
    """Return what SQLAlchemy said, where Optuna's own error only says that it said something; else the error."""
    from optuna.exceptions import StorageInternalError

    return error.__cause__ or error if isinstance(error, StorageInternalError) else error


def _told(url: str, error: Exception) -> str:
    """Return the one line for an error of a storage: where, what, and how to go on."""
    cause = cause_in_the_database(error)
    why = first_line(getattr(cause, "orig", None) or cause)  # the driver's own words
    file = sqlite_file(url)
    if file is None:
        return f"storage {hide_passwords(url, f'{url}: {why}')}; no finished run is lost: the same command goes on"
    if isinstance(cause, OSError):
        why = cause.strerror or why
    elif any(words in why for words in _DAMAGED):
        return f"{file}: {why}; no finished run is lost: move the file away, and the same command goes on"
    return (
        f"{file}: {why}; see that its disk has room and that its folder can be written to; no finished run is lost: "
        "the same command goes on"
    )


@contextmanager
def alone(storage: RDBStorage, study: str) -> Iterator[None]:
    """Keep other processes from changing a study's trials after we read them and before we change them.

    For SQLite this is a lock file. For a server it is a lock that ends with the transaction (PostgreSQL) or with the
    connection (MySQL, MariaDB), and so with the process that holds it; the server ends both after a minute of silence.

    Args:
        storage: The storage.
        study: The study's name.
    """
    from sqlalchemy import text

    file = sqlite_file(storage.url)
    if file is not None:
        with FileLock(f"{file}.lock"):
            yield
    elif storage.engine.dialect.name == "postgresql":
        with storage.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{GRACE_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:study))"), {"study": study})
            yield
    elif storage.engine.dialect.name not in ("mysql", "mariadb"):  # only a row's own lock protects a trial there
        yield
    else:
        with storage.engine.connect() as connection:
            connection.detach()  # closed at the end; in the pool it would keep the lock
            connection.execute(text(f"SET SESSION wait_timeout = {GRACE_SECONDS}"))
            taken = text(f"SELECT GET_LOCK(SHA2(:study, 256), {GRACE_SECONDS})")  # MariaDB cannot wait without a limit
            while not connection.execute(taken, {"study": study}).scalar():
                pass
            yield


def has_study(url: str, name: str) -> bool:
    """Tell whether a storage holds a study of this name.

    Raises:
        RequestError, RunError: See ``open_storage``.
    """
    storage = open_storage(url, heartbeats=False)
    try:
        with storage_errors(url):
            storage.get_study_id_from_name(name)
    except KeyError:
        return False
    finally:
        storage.remove_session()
    return True


def _is_being_made(error: Exception) -> bool:
    """Tell whether an error means that another worker made the same tables of a new storage at the same moment."""
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    clash = isinstance(error, OperationalError | ProgrammingError) and "already exists" in str(error)
    return clash or isinstance(error, IntegrityError)


def sqlite_url(file: Path) -> str:
    """Return the URL of an SQLite storage in a file, whatever characters its path has.

    >>> sqlite_url(Path("/runs?/study.db"))
    'sqlite:////runs%3F/study.db'
    """
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(file.absolute())).render_as_string()


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite storage; None for a server.

    >>> sqlite_file("sqlite:////runs%3F/study.db?timeout=5")
    PosixPath('/runs?/study.db')
    """
    from sqlalchemy import make_url

    return Path(make_url(url).database or "") if url.startswith(_SQLITE) else None


def hide_passwords(url: str, text: str) -> str:
    """Return a text, such as a driver's message, without the passwords that are in the storage's URL.

    >>> for url in ("postgresql://me:s@cret@host/db", "postgresql://me:sec@ret/tail@host/db"):
    ...     hide_passwords(url, url)
    'postgresql://me:***@host/db'
    'postgresql://me:***@host/db'
    """
    for password in _passwords_in(url):
        for written in (password, unquote(password)):  # a driver may have decoded it
            text = text.replace(f":{written}@", ":***@").replace(f"={written}", "=***")
            if len(written) >= SHORTEST_TO_HIDE_ANYWHERE:
                text = text.replace(written, "***")
    return text


def _passwords_in(url: str) -> list[str]:
    """Return the passwords in a database's URL, as they are written there and as SQLAlchemy finds them.

    An unescaped ``@`` in a password counts as part of it, so that what follows is hidden, too, up to the last one
    before the URL's options.
    """
    found = re.findall(r"(?i)[?&]\w*pass(?:word|wd)?=([^&]*)", url)
    user_info = re.match(r"[^:]+:?//[^:/]*:([^@]*)@", url)
    if user_info is not None:
        rest = re.split(r"\?\w+=", url[user_info.end() :])[0]
        found.append(f"{user_info[1]}@{rest.rpartition('@')[0]}" if "@" in rest else user_info[1])
    return [password for password in found if password]


def wait_a_moment() -> None:
    """Wait before asking the storage again."""
    time.sleep(0.5)
