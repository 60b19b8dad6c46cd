"""The errors dpstune raises on purpose; each becomes one line and an exit code at the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_MOST_SHOWN = 80  # characters of a value
_MOST_NAMED = 8
_MOST_OF_A_NAME = 40  # characters; a file without a header gives its first row of texts as the names of its columns
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class DpstuneError(Exception):
    """Base of every error dpstune raises on purpose.

    The message is one line: what is wrong, where, and what would be right.
    """

    exit_code = 1


class RequestError(DpstuneError):
    """The request was wrong: a recipe, a flag, a file or a setting that cannot be honoured. Exit code 2."""

    exit_code = 2


class RunError(DpstuneError):
    """The request was right but the work failed: a full disk, a NaN loss, a hub that does not answer. Exit code 1."""


class DivergedError(RunError):
    """The loss is no finite number any more: with other settings the same data can be trained on. Exit code 1."""


class BusyError(RunError):
    """Another process is training this very run, and will finish it. Exit code 1."""


def unforeseen(error: BaseException) -> str:
    """Describe in one line an error that dpstune did not raise on purpose.

    >>> unforeseen(ZeroDivisionError("division by zero"))
    'unexpected ZeroDivisionError: division by zero'
    """
    return out_of_memory(error) or f"unexpected {type(error).__name__}: {error}"


def in_a_line(error: BaseException) -> str:
    """Describe any error in one line: one of dpstune's own by its words.

    >>> in_a_line(RunError("the disk is full")), in_a_line(KeyError("a"))
    ('the disk is full', "unexpected KeyError: 'a'")
    """
    return str(error) if isinstance(error, DpstuneError) else unforeseen(error)


NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What CUDA and its libraries say where a GPU has no memory left."""


def out_of_memory(error: BaseException) -> str | None:
    """Describe an out-of-memory error and say what needs less memory; return None for any other error.

    >>> out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ..."))[:65]
    'not enough memory (CUDA out of memory. Tried to allocate 2 GiB); '
    >>> out_of_memory(ValueError("no"))
    """
    told = str(error)
    of_torch = isinstance(error, RuntimeError) and any(words in told for words in (*NO_MEMORY, "DefaultCPUAllocator"))
    if not (of_torch or isinstance(error, MemoryError)):
        return None
    why = f" ({'. '.join(told.split('. ')[:2]).rstrip('.')})" if told else ""
    return (
        f"not enough memory{why}; fewer examples at once or a smaller maximal length need less; in training, so does "
        "training.gradient_checkpointing=true"
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the known word nearest to ``word``, as the tail of an error message.

    >>> did_you_mean("wieght_decay", ["weight_decay", "warmup_steps"])
    "; did you mean 'weight_decay'?"
    >>> did_you_mean("zzz", ["weight_decay"])
    ''
    """
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def shortened(text: str, most: int = _MOST_SHOWN) -> str:
    """Cut a text that would not fit into the one line of an error.

    >>> shortened("a value", 5)
    'a va…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counted(count: int, what: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey, or what turns the direction of writing, as escapes.

    >>> printable("a\x1b[2Jb\u202e\n")
    'a\\x1b[2Jb\\u202e\n'
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def some_of(names: Iterable[str]) -> str:
    """List names for the one line of an error: at most the first eight, then how many there are.

    >>> some_of(["no", "yes"])
    'no, yes'
    >>> some_of(map(str, range(3000)))
    '0, 1, 2, 3, 4, 5, 6, 7, ... (3000 in all)'
    """
    names = [shortened(name, _MOST_OF_A_NAME) for name in names]
    rest = f", ... ({len(names)} in all)" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + rest
