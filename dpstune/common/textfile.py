"""Text files in UTF-8: a user's may begin with a byte-order mark; CSV that dpstune writes reads back the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dpstune.errors import RequestError


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; its line ends stay what they are.

    Raises:
        RequestError: There is no such file, it cannot be read, or it is not UTF-8 (the line is named).
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RequestError(f"{path}:{line}: not UTF-8 text ({error.reason}); save it as UTF-8") from None


def csv_line(cells: Iterable[Any], dialect: str = "excel") -> str:
    """Return a row of CSV without its line end; None is an empty cell.

    >>> csv_line(["a", 0.1, None, "two\\nlines"])
    'a,0.1,,"two\\nlines"'
    """
    text = io.StringIO()
    csv.writer(text, dialect).writerow(cells)  # a lone \r is quoted only where lines end in \r\n
    return text.getvalue().removesuffix("\r\n")
