"""A storage that is away for a moment, since its database restarts or the network is down, is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from dpstune.studies.sweep.storage import cause_in_the_database, sqlite_file, storage_errors

OUTAGE_SECONDS = 300  # how long a database may be away
_LONGEST_PAUSE = 10.0


class Stored(Protocol):
    """What is kept in a storage."""

    url: str


Keeper = TypeVar("Keeper", bound=Stored)
Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


def patient(
    ask: Callable[Concatenate[Keeper, Parameters], Answer],
) -> Callable[Concatenate[Keeper, Parameters], Answer]:
    """Make a method of what is kept in a storage ask again while a server is away; a file is asked once.

    Every such method may be repeated: it looks before it changes anything.

    Raises:
        RunError: The storage stays away, or it is a file that cannot be read or written.
    """

    @wraps(ask)
    def asking(keeper: Keeper, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        given_up_at = time.monotonic() + (OUTAGE_SECONDS if sqlite_file(keeper.url) is None else 0)
        pause = 0.5
        with storage_errors(keeper.url):
            while True:
                try:
                    return ask(keeper, *args, **kwargs)
                except Exception as error:
                    if not _is_away(error) or time.monotonic() >= given_up_at:
                        raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    return asking


def _is_away(error: Exception) -> bool:
    """Tell whether an error means that the storage could not be reached, and not that the request is wrong."""
    from sqlalchemy.exc import (
        DataError,
        DBAPIError,
        IntegrityError,
        PendingRollbackError,
        ProgrammingError,
        TimeoutError,
    )

    cause = cause_in_the_database(error)
    if isinstance(cause, DataError | IntegrityError | ProgrammingError):
        return False
    # A connection lost in the middle of a transaction may raise any of the driver's other errors.
    return isinstance(cause, DBAPIError | PendingRollbackError | TimeoutError)
