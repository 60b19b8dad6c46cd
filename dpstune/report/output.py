"""Standard output and standard error; it is no error if the reader, such as ``head`` or a terminal, has closed."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from dpstune.errors import RunError, printable

if TYPE_CHECKING:
    from rich.console import Console


def print_out(text: str) -> None:
    """Print text for programs to stdout.

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
    """Print lines to stdout as they come; stop once the reader has closed.

    Raises:
        RunError: Stdout cannot be written to, for example on a full disk.
    """
    for line in lines:
        try:
            print(line, flush=True)
        except OSError as error:
            _silence(sys.stdout)
            if error.errno in (errno.EPIPE, errno.EIO):  # EIO: the terminal was closed
                return
            raise RunError(f"writing to stdout failed: {error.strerror}; send it elsewhere, or make room") from None


def tell(text: str) -> None:
    """Print text for people to stderr; if that fails, say nothing: there is no place left to say it."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def people_console() -> Console:
    """Return a console on stderr that prints text as it is, since a folder's name may look like markup or an emoji."""
    from rich.console import Console
    from rich.text import Text

    class PeopleConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    stderr = cast("IO[str]", _Unfailing(getattr(sys.stderr, "rich_proxied_file", sys.stderr)))
    return PeopleConsole(file=stderr, highlight=False, markup=False, emoji=False)


class _Unfailing:
    """A stream that says nothing more once writing to it has failed, as ``tell`` does.

    Args:
        stream: What it writes to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        try:
            return self._stream.write(text)
        except OSError:
            _silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what is left in the buffer."""
        try:
            self._stream.flush()
        except OSError:
            _silence(self._stream)


def _silence(stream: TextIO) -> None:
    """Discard what is left in the buffer, which Python would else try to write when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
