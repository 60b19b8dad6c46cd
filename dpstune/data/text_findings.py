"""What is wrong with texts, each looked at by itself or beside its label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dpstune.data.finding import RARE, Finding, Places, Row, Severity, part_of
from dpstune.data.label_findings import Labels
from dpstune.data.sources import RawSplit
from dpstune.data.written_forms import text_form

SHORT = 3  # characters
NEARLY_ALL = 0.9
_LOOKED_AT = 500  # rows in which labels are searched, spread over all
_MOST_LABELS = 50  # that are searched
# A script without spaces: Thai and Lao, Myanmar, Khmer, Kana, Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
# What UTF-8 looks like where it was read as Latin-1 or Windows-1252; but not Ã or Â before a closing quote.
_MISREAD = re.compile("[ÃÂ][\x80-\xaa\xac-\xba\xbc-\xbf]|Ã€|â€|ðŸ|ï¿½|ï»¿|\ufffd")


class _Flaw(NamedTuple):
    """Something that may be wrong with a text, how bad it is where it is not rare, and how to tell."""

    name: str
    severity: Severity
    is_so: Callable[[str], bool]
    what: str
    remedy: str


_LOOKS = (
    _Flaw(
        "empty-text",
        "warning",
        lambda text: not text.strip(),
        "an empty text, or one of spaces",
        "Fill these cells, or take the rows out.",
    ),
    _Flaw(
        "short-text",
        "note",
        lambda text: 0 < len(text.strip()) < SHORT,
        f"a text of fewer than {SHORT} characters",
        "Look whether these texts are what they should be.",
    ),
    _Flaw(
        "misread-text",
        "warning",
        lambda text: _MISREAD.search(text) is not None,
        "signs of a wrong encoding, such as 'Ã©' or U+FFFD",
        "Export the file again as UTF-8: once its text was read in another encoding.",
    ),
    _Flaw(
        "control-characters",
        "note",
        lambda text: _CONTROL.search(text) is not None,
        "control characters",
        "Take these characters out, unless they are meant.",
    ),
)


def text_findings(raw: Mapping[str, RawSplit], training: str, text: Sequence[str], places: Places) -> Iterator[Finding]:
    """Yield what is wrong with single texts, and with text columns without any.

    Args:
        raw: The splits.
        training: The one that a model is trained on.
        text: The text columns' names; empty where they are not known.
        places: Names rows.
    """
    for column in raw[training].without_text(text):
        what = f"column {column!r} has no text in any training row"
        remedy = "Name another text column, or leave this one out."
        yield Finding("no-text", "error", len(raw[training].texts), (), remedy, (what,))
    total = sum(len(part.texts) for part in raw.values())
    for look in _LOOKS:
        rows = [
            (split, position)
            for split, part in raw.items()
            for position, texts in enumerate(part.texts)
            if any(map(look.is_so, texts))
        ]
        if rows:
            what = f"{look.what}: {part_of(len(rows), total)}"
            severity = look.severity if len(rows) >= RARE * total else "note"
            yield Finding(look.name, severity, len(rows), places.some(rows), look.remedy, (what,))


def leak_findings(labels: Labels, text: Sequence[str], label: str | None, places: Places) -> Iterator[Finding]:
    """Yield how a text gives its own label away.

    Args:
        labels: The label column.
        text: The text columns' names.
        label: The label column's name.
        places: Names rows.
    """
    if label is not None and label in text:
        total = sum(labels.counts.values())
        yield Finding(
            "label-is-text",
            "error",
            total,
            (),
            "Name other text columns: the model would read the answer.",
            (f"the label column {label!r} is among the text columns",),
        )
        return
    told = list(_rows_that_say_their_label(labels))
    if told:
        yield Finding(
            "label-in-text",
            "warning",
            len(told),
            places.some(told),
            "Take the label out of the text, unless texts to come will hold it, too.",
            (f"nearly every text says its own label, and no other ({len(told)} rows looked at)",),
        )


def _rows_that_say_their_label(labels: Labels) -> Iterator[Row]:
    """Yield the rows whose text says their own label and no other; none where they are not nearly all of the rows."""
    column = labels.rows[labels.training]
    words = {label: _searched(label) for label in column}
    if not 2 <= len(column) <= _MOST_LABELS or "  " in words.values():
        return
    rows = [(label, row) for label, rows in column.items() for row in rows]
    rows = rows[:: -(-len(rows) // _LOOKED_AT)]
    said = []
    for label, (split, position) in rows:
        whole = " ".join(labels.raw[split].texts[position])
        text = f" {_words(whole)} \n{text_form(whole)}"
        if words[label] in text and not any(word in text for other, word in words.items() if other != label):
            said.append((split, position))
    if len(said) >= NEARLY_ALL * len(rows):
        yield from said


def _searched(label: str) -> str:
    """Return how a text says a label: as words of its own, or anywhere in a script without spaces."""
    form = text_form(label)
    return form if _UNSPACED.search(form) else f" {_words(label)} "


def _words(text: str) -> str:
    """Return the words of a text with a space between; a mark, such as a vowel's in Thai or Hindi, ends none."""
    form = text_form(text)
    if form.isascii():
        return " ".join(re.findall(r"\w+", form))
    return " ".join("".join(each if _is_of_a_word(each) else " " for each in form).split())


def _is_of_a_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
