"""The page of a case study: one HTML file, with the study inside, that opens from disk."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from typing import Any

from dpstune.errors import counted
from dpstune.report.page import FACTS_STYLE, Facts, block_html
from dpstune.report.wrong_labels import left_out_words
from dpstune.studies.casestudy.casestudy import CaseStudy, MethodVotes, Proportions

_DATA_SLOT = "{{data}}"


def render_page(study: CaseStudy, title: str, header: Facts | None = None) -> str:
    """Return the page as HTML; it loads no other file and follows the reader's light or dark scheme.

    Args:
        study: The study.
        title: The page's title.
        header: The facts at its top; None for none.
    """
    page = files("dpstune.report").joinpath("casestudy_page.html").read_text(encoding="utf-8")
    before, after = page.split(_DATA_SLOT)
    slots = {"title": escape(title), "facts_style": FACTS_STYLE, "facts": block_html(header) if header else ""}
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], before) + _for_script(page_data(study)) + after


def _for_script(content: dict[str, Any]) -> str:
    """Write JSON in which no browser sees the end of its script element, or a comment.

    >>> _for_script({"text": "</script><!--"})
    '{"text":"\\\\u003c/script>\\\\u003c!--"}'
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def page_data(study: CaseStudy) -> dict[str, Any]:
    """Return what the page shows.

    Returns:
        A mapping for JSON. ``labels`` and ``phenomena`` are lists of names; elsewhere their indices stand for them.
        ``baseline`` is the index of a method, or None; ``notes`` are lines. ``methods`` holds for each method the names
        of its restarts (``voters``, empty if only counts are known) and its proportions, over all examples and for each
        phenomenon. ``examples`` holds lists ``[id, texts, label, phenomenon, correct, votes]``: correct has the number
        of right restarts for each method; votes has for each method None or ``[right, predictions]``, where right is a
        string with a digit for each restart, and predictions a list of label indices, or None.
    """
    labels = _Index()
    phenomena = {name: number for number, name in enumerate(study.phenomena)}
    rows = []
    for place, example in enumerate(study.examples):
        votes = [_votes(method, place, labels) for method in study.methods]
        label = None if example.label is None else labels[example.label]
        phenomenon = None if example.phenomenon is None else phenomena[example.phenomenon]
        correct = [method.correct[place] for method in study.methods]
        rows.append([example.id, example.texts, label, phenomenon, correct, votes])
    names = [method.name for method in study.methods]
    return {
        "notes": [*study.notes, *_suspects(study)],
        "labels": list(labels),
        "phenomena": study.phenomena,
        "baseline": None if study.baseline is None else names.index(study.baseline),
        "methods": [_method(study, method) for method in study.methods],
        "examples": rows,
    }


def _suspects(study: CaseStudy) -> list[str]:
    """Say how many labels are likely wrong, and where they are listed."""
    if not study.suspects:
        return []
    count, restarts = len(study.suspects), study.suspects[0].restarts
    what = counted(count, "example")
    found = f"{what}: all {restarts} restarts answer alike, and against the label; wrong_labels.csv lists them"
    left_out = left_out_words(len(study.answers) - restarts).rstrip(".")
    return [f"{found}.{left_out}" if left_out else found]


class _Index(dict[str, int]):
    """Gives each new name the next number."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


def _votes(method: MethodVotes, place: int, labels: _Index) -> list[Any] | None:
    if not method.votes:
        return None
    right = "".join("1" if vote.right[place] else "0" for vote in method.votes)
    given = [vote.predictions[place] for vote in method.votes if vote.predictions is not None]
    return [right, [labels[label] for label in given] if len(given) == len(right) else None]


def _method(study: CaseStudy, method: MethodVotes) -> dict[str, Any]:
    return {
        "name": method.name,
        "restarts": method.restarts,
        "voters": [vote.name for vote in method.votes],
        "all": _counts(study.proportions(method)),
        "by_phenomenon": [_counts(study.proportions(method, phenomenon)) for phenomenon in study.phenomena],
    }


def _counts(each: Proportions) -> dict[str, Any]:
    return {
        "examples": each.examples,
        "easy": each.easy,
        "easy_percent": f"{100 * each.easy_share:.1f}",
        "hard": each.hard,
        "hard_percent": f"{100 * each.hard_share:.1f}",
        "neither": each.neither,
        "rescued": each.rescued,
        "lost": each.lost,
    }
