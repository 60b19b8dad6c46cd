"""The errors of the Hugging Face hub, each turned into one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from dpstune.errors import RequestError, RunError

SECONDS_FOR_A_SIGN_OF_LIFE = 5.0
# By name: the hub's library has changed its HTTP client twice, and the errors of each client have these names.
_NO_CONNECTION = ("ConnectError", "ConnectTimeout", "ProxyError", "ConnectionError")
_LONGEST_ID = 96  # the hub's own limit
_went_offline: list[bool] = []  # not empty where dpstune itself told the hub's libraries so
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_hub_id(name: str) -> bool:
    """Return whether something on the hub could be called so.

    >>> is_hub_id("FacebookAI/roberta-large"), is_hub_id("./here"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return len(name) <= _LONGEST_ID and _ID.fullmatch(name) is not None and not name.startswith((".", "/"))


@contextmanager
def asking_the_hub_for(what: str, remedy: str) -> Iterator[None]:
    """Translate the hub's errors inside the block.

    Args:
        what: What is asked for, with its name: ``model FacebookAI/roberta-large``.
        remedy: How to do without the hub.

    Raises:
        RequestError: The hub has no such thing, or this user may not read it.
        RunError: The hub could not be reached.
    """
    import datasets
    from huggingface_hub import errors

    _go_offline_where_unreachable()
    try:
        yield
    except errors.GatedRepoError:
        raise RequestError(f"{what} is gated: accept its terms on the hub and log in with `hf auth login`") from None
    except (errors.RepositoryNotFoundError, datasets.exceptions.DatasetNotFoundError):
        raise RequestError(f"the hub has no {what}, or keeps it private (log in with `hf auth login`)") from None
    except errors.RevisionNotFoundError:
        raise RequestError(f"{what}: the hub has no such revision") from None
    except errors.HFValidationError as error:
        raise RequestError(f"{what}: {first_line(error)}") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(what, error, remedy) from None
    except errors.EntryNotFoundError as error:
        raise RequestError(f"{what}: {first_line(error)}") from None
    except Exception as error:
        if not _is_about_the_connection(error):
            raise
        raise _unreachable(what, error, remedy) from None


@contextmanager
def uploading_to_the_hub(repository: str, kept: str) -> Iterator[None]:
    """Translate the hub's errors inside the block, in which something is uploaded.

    Args:
        repository: Where to.
        kept: What became of what should have been uploaded.

    Raises:
        RunError: The hub could not be reached, or does not take it.
    """
    from huggingface_hub import errors, logging

    logging.set_verbosity_error()
    try:
        yield
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            why = "your token may not write there (`hf auth login` takes another)"
        else:
            why = f"the hub does not take it ({first_line(error)})"
        raise RunError(f"{repository}: {why}; {kept}") from None
    except ValueError as error:  # so says the hub's library of metadata that the hub does not take
        raise RunError(f"{repository}: the hub does not take it ({' '.join(str(error).split())}); {kept}") from None
    except Exception as error:
        if not (_is_about_the_connection(error) or isinstance(error, errors.OfflineModeIsEnabled)):
            raise
        raise RunError(f"{repository}: the hub could not be reached ({first_line(error)}); {kept}") from None


@lru_cache(maxsize=1)
def _go_offline_where_unreachable() -> str | None:
    """Ask once per process whether the hub answers; return why it does not, or None if it does.

    If it does not, the hub's libraries are told to read their caches at once. Otherwise they would first ask the hub
    for each file, for half a minute in all.
    """
    import datasets
    from huggingface_hub import constants, get_session, logging

    logging.set_verbosity_error()
    if constants.HF_HUB_OFFLINE:
        return "offline mode: HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS_FOR_A_SIGN_OF_LIFE)
    except Exception as error:
        if not any(cls.__name__ in _NO_CONNECTION for cls in type(error).__mro__):
            return None  # the hub answers; the next request will show what is wrong
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        _went_offline.append(True)
        return first_line(error)
    return None


def ask_again() -> None:
    """Have the hub asked anew whether it answers, where it did not: a notebook outlives a missing connection."""
    if _went_offline:
        import datasets
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = False
        _went_offline.clear()
        _go_offline_where_unreachable.cache_clear()


def _is_about_the_connection(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    transport = any(cls.__name__ == "TransportError" for cls in type(error).__mro__)
    return transport or isinstance(error, HfHubHTTPError | ConnectionError | TimeoutError)


def _unreachable(what: str, error: BaseException, remedy: str) -> RunError:
    why = _go_offline_where_unreachable() or first_line(error.__cause__ or error)
    return RunError(
        f"{what} could not be reached on the hub ({why.rstrip('.')}); {remedy}; the recipe demo needs no hub"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none; without a user's part of a URL.

    >>> first_line(OSError("no answer of https://me:secret@host/api"))
    'no answer of https://***@host/api'
    """
    lines = str(error).strip().splitlines()
    return re.sub(r"://\S*@", "://***@", lines[0]) if lines else type(error).__name__
