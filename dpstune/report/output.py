"""Standard output and standard error; a reader that has left, such as ``head`` or a terminal, is no failure."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from dpstune.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console


def print_out(text: str) -> None:
    """Print what programs read to stdout.

    Raises:
        RunError: See ``print_lines``.
    """
    print_lines([text.rstrip("\n")])


def print_json(content: Any) -> None:
    """Print one JSON object to stdout.

    Raises:
        RunError: See ``print_lines``.
    """
    print_out(json.dumps(content, ensure_ascii=False, indent=2))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout as they come; once whoever reads has left, no more are taken.

    Raises:
        RunError: Stdout cannot be written to, such as a file on a full disk.
    """
    for line in lines:
        try:
            print(line, flush=True)
        except OSError as error:
            _silence(sys.stdout)
            if error.errno in (errno.EPIPE, errno.EIO):  # EIO: of a terminal that was closed
                return
            raise RunError(f"writing to stdout failed: {error.strerror}; send it elsewhere, or make room") from None


def tell(text: str) -> None:
    """Print what people read to stderr; where that fails there is no place to say so."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def people_console() -> Console:
    """Return a console on stderr that shows text as it is: a folder's name may look like markup or an emoji."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def _silence(stream: TextIO) -> None:
    """Let go of what is left in the buffer, which Python would try to write again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
