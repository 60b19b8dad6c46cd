"""When two texts, or two labels, are the same but for how they are written; when labels are numbers, and values."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable

from dpstune.errors import did_you_mean

MOST_LABELS = 20
"""So many different numbers may be labels; more are probably the values of a regression task."""

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # in the digits of any script
_WHOLE = re.compile(r"([+-]?)(\d+)(?:\.0*)?")


def text_form(text: str) -> str:
    """Return what a text is but for case, spaces and Unicode form: equal for two texts that look the same.

    Compatibility caseless matching of the Unicode Standard (section 3.13, D146), and runs of spaces as one.

    >>> text_form("  Ｃafe\\u0301\\tAU  LAIT ")
    'café au lait'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFD", text).casefold()
        text = unicodedata.normalize("NFKD", text).casefold()
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def looks(text: str) -> str:
    """Return what a text looks like: equal for the same text in two Unicode forms."""
    return unicodedata.normalize("NFKC", text)


def nearest(word: str, known: Iterable[str]) -> str:
    r"""Name the known word that looks the same as ``word``, or else the nearest, as the tail of an error message.

    >>> nearest("cafe\u0301", ["café", "thé"])
    "; 'cafe\\u0301' is another Unicode form of 'caf\\xe9': write it one way"
    >>> nearest("the", ["café", "thé"])
    "; did you mean 'thé'?"
    """
    known = list(known)
    same = next((each for each in known if looks(each) == looks(word)), None)
    if same is None:
        return did_you_mean(word, known)
    return f"; {word!a} is another Unicode form of {same!a}: write it one way"


def label_form(label: str) -> str:
    """Return what a label is but for case, spaces, Unicode form, and how a number is written.

    >>> label_form(" Bug"), label_form("01"), label_form("1.0")
    ('bug', '1', '1')
    """
    form = text_form(label)
    value = number(form)
    if value is None:
        return form
    whole = _WHOLE.fullmatch(form)
    if whole is not None:  # its digits say more than a float holds
        digits = "".join(str(unicodedata.decimal(digit)) for digit in whole[2]).lstrip("0")
        return f"{'-' if whole[1] == '-' and digits else ''}{digits or '0'}"
    return str(int(value)) if value.is_integer() else repr(value)


def number(label: str) -> float | None:
    """Return the finite number that a decimal is, with or without an exponent; None for anything else.

    >>> number("1e3"), number("yes"), number("nan"), number("1_0")
    (1000.0, None, None, None)
    """
    label = label.strip()
    if _DECIMAL.fullmatch(label) is None:
        return None
    value = float(label)
    return value if math.isfinite(value) else None


def with_point(label: str) -> str:
    """Return a decimal that is written with a comma with a point; it is no number else.

    >>> with_point("3,5")
    '3.5'
    """
    return label.replace(",", ".")


def seem_values(labels: Collection[str]) -> bool:
    """Tell whether labels are so many different numbers, also with a comma, that they are probably values.

    >>> seem_values({str(n) for n in range(20)}), seem_values({f"{n},5" for n in range(21)})
    (False, True)
    """
    return len(labels) > MOST_LABELS and all(number(with_point(label)) is not None for label in labels)
