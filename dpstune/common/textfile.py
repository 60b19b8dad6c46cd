"""Text files: a user's are UTF-8, or what their byte-order mark or their recipe says; ours are UTF-8, and their CSV
reads back.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable
from encodings.aliases import aliases
from pathlib import Path
from typing import Any

from dpstune.errors import RequestError, did_you_mean

# UTF-32's first: that of UTF-16 is how one of them begins.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}
SAVE_AS_UTF_8 = "save it as UTF-8"
ASK_FOR_AN_ENCODING = f"{SAVE_AS_UTF_8}, or say what it is, such as --encoding latin-1, cp1252 or utf-16-le"
SEEMS_UTF_16 = "every other byte is 0, as in UTF-16"
BYTE_ORDER_MARK = "\ufeff"
"""As it is once it is decoded."""
# What a spreadsheet computes rather than shows; a number alone is none.
_FORMULA = re.compile(r"'*([=@\t\r]|[+-](?![\d.,]*\Z))")


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, or of one whose byte-order mark says otherwise; line ends stay what they are.

    Raises:
        RequestError: There is no such file, it cannot be read, or it is not UTF-8 (the line is named).
    """
    return decode(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        RequestError: There is no such file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None


def decode(content: bytes, place: str, encoding: str | None = None, remedy: str = SAVE_AS_UTF_8) -> str:
    """Return the text that a file's bytes stand for.

    Args:
        content: The bytes.
        place: The file, for errors.
        encoding: What it is in, unless a byte-order mark says otherwise; None for UTF-8.
        remedy: What to do where it is not, for the error.

    Raises:
        RequestError: A byte stands for nothing in that encoding; its line is named.

    >>> decode("é".encode("utf-16"), "a.csv"), decode("é".encode("latin-1"), "a.csv", "latin-1")
    ('é', 'é')
    """
    encoding = marked_encoding(content) or encoding or "utf-8"
    try:
        text = content.decode(encoding).lstrip(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        raise wrong_encoding(f"{place}:{line}", encoding, error.reason, remedy) from None
    if is_utf_16(text):
        raise wrong_encoding(f"{place}:1", encoding, SEEMS_UTF_16, remedy)
    return text


def is_utf_16(text: str) -> bool:
    """Return whether a text begins as UTF-16 does where it is read as something else."""
    return "\0" in text[:2]


def wrong_encoding(place: str, encoding: str, reason: str, remedy: str) -> RequestError:
    """Return the error that says what is no text in its encoding."""
    name = encoding.upper() if encoding.startswith("utf") else encoding
    return RequestError(f"{place}: not {name} text ({reason}); {remedy}")


def marked_encoding(beginning: bytes) -> str | None:
    """Return the encoding that a byte-order mark at the beginning of a file says; None where there is no mark."""
    return next((encoding for mark, encoding in _MARKS.items() if beginning.startswith(mark)), None)


def known_encoding(name: str) -> str:
    """Return the name of an encoding that Python knows.

    Raises:
        RequestError: It knows none of that name; the nearest is offered.

    >>> known_encoding("cp1252")
    'cp1252'
    """
    try:
        " ".encode(name).decode(name)
    except (LookupError, ValueError):
        of_text = [pair for pair in aliases.items() if not pair[1].endswith("_codec")]
        names = dict.fromkeys(each.replace("_", "-") for pair in of_text for each in pair)
        hint = did_you_mean(name.lower().replace("_", "-"), names) or "; for example latin-1, cp1252, utf-16"
        raise RequestError(f"unknown encoding {name!r}{hint}") from None
    return name


def _mark_what_is_wrong(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error("dpstune.mark", _mark_what_is_wrong)


class Recoder:
    """Turns bytes, as they come, into those of UTF-8.

    Bytes that stand for nothing in their encoding become one that stands for nothing in UTF-8, so that who splits the
    text into lines can say which line is wrong.

    Args:
        encoding: What the bytes are in, unless a byte-order mark says otherwise; None for UTF-8.
    """

    def __init__(self, encoding: str | None = None) -> None:
        self.encoding = encoding or "utf-8"
        self._head: bytes | None = b""  # what came before it was known whether a mark does
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Return as many bytes as are known by now.

        Args:
            chunk: The next bytes; none at the end.
        """
        if self._head is not None:
            self._head += chunk
            if chunk and any(mark.startswith(self._head) and mark != self._head for mark in _MARKS):
                return b""
            chunk, at_end, self._head = self._head, not chunk, None
            self.encoding = marked_encoding(chunk) or self.encoding
            if self.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
                self._decoder = codecs.getincrementaldecoder(self.encoding)("dpstune.mark")
            return self._recode(chunk, at_end)
        return self._recode(chunk, not chunk)

    def _recode(self, chunk: bytes, at_end: bool) -> bytes:
        if self._decoder is None:
            return chunk
        return self._decoder.decode(chunk, at_end).encode("utf-8", "surrogateescape")


def csv_line(cells: Iterable[Any], separator: str = ",") -> str:
    """Return a row of CSV without its line end; None is an empty cell.

    >>> csv_line(["a", 0.1, None, "two\\nlines"])
    'a,0.1,,"two\\nlines"'
    """
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerow(cells)  # with another line end than \r\n a lone \r would stay bare
    return text.getvalue().removesuffix("\r\n")


def shown_cell(text: str) -> str:
    """Return a text as a cell that a spreadsheet shows as it is; ``read_cell`` gives the text back.

    >>> shown_cell("=1+1"), shown_cell("-1"), shown_cell("'=1")
    ("'=1+1", '-1', "''=1")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def read_cell(cell: str) -> str:
    """Return the text that a cell of a spreadsheet shows; see ``shown_cell``.

    >>> read_cell("'=1+1"), read_cell("'tis so")
    ('=1+1', "'tis so")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def markdown_text(text: str) -> str:
    r"""Put text on one line and escape what Markdown or HTML would not read as text, except underscores in words.

    >>> print(markdown_text("a|b\n## <c> snake_case"))
    a\|b ## \<c\> snake_case
    """
    return re.sub(r"([\\`*\[\]<>|]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
