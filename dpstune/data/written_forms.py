"""When two texts, or two labels, are the same but for how they are written."""

from __future__ import annotations

import math
import unicodedata


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


def label_form(label: str) -> str:
    """Return what a label is but for case, spaces, Unicode form, and how a number is written.

    >>> label_form(" Bug"), label_form("01"), label_form("1.0")
    ('bug', '1', '1')
    """
    form = text_form(label)
    value = number(form)
    return form if value is None else f"{value:.15g}"


def number(label: str) -> float | None:
    """Return the finite number that a label is; None where it is none.

    >>> number("1e3"), number("yes"), number("nan")
    (1000.0, None, None)
    """
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
