"""The errors dpstune raises on purpose; each becomes one line and an exit code at the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DpstuneError(Exception):
    """Base of every error dpstune raises on purpose.

    The message is one line: what is wrong, where, and what would be right.
    """

    exit_code = 1


class RequestError(DpstuneError):
    """The request was wrong: a recipe, a flag, a file or a setting that cannot be honoured. Exit code 2."""

    exit_code = 2


class RunError(DpstuneError):
    """The request was right but the work failed: a full disk, a NaN loss, a hub out of reach. Exit code 1."""


class BusyError(RunError):
    """Another process is at this very run; it will be done without us. Exit code 1."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the known word nearest to ``word``, as the tail of an error message.

    >>> did_you_mean("wieght_decay", ["weight_decay", "warmup_steps"])
    "; did you mean 'weight_decay'?"
    >>> did_you_mean("zzz", ["weight_decay"])
    ''
    """
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
