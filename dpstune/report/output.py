"""Standard output and standard error; a reader that has left, such as ``head`` or a terminal, is no failure."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO


def print_out(text: str) -> None:
    """Print what programs read to stdout."""
    _print(text.rstrip("\n"), sys.stdout)


def print_json(content: Any) -> None:
    """Print one JSON object to stdout."""
    print_out(json.dumps(content, ensure_ascii=False, indent=2))


def tell(text: str) -> None:
    """Print what people read to stderr."""
    _print(text, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
