"""The report on a case study: an HTML page, Markdown, CSV files and Figure 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dpstune.common.textfile import shown_cell
from dpstune.common.writing import write_text
from dpstune.report.casestudy_figure import proportions_figure
from dpstune.report.casestudy_page import render_page
from dpstune.report.figures import write_figure
from dpstune.report.header import runs_header
from dpstune.report.page import Block, Bullets, Heading, Image, Paragraph, Table, render_markdown
from dpstune.report.tables import csv_text, format_columns, percent, short_text, spreadsheet_text, text_columns
from dpstune.report.wrong_labels import write_wrong_labels, wrong_labels_section
from dpstune.studies.casestudy.casestudy import CaseStudy, Change, Example, MethodVotes

_MOST_LISTED = 20


def write_case_study(
    folder: Path, study: CaseStudy, command: str | None = None, tell: Callable[[str], None] | None = None
) -> Path:
    """Write report.html, report.md, examples.csv, proportions.csv, wrong_labels.csv, figure.png and figure.svg.

    Args:
        folder: Where to write; made if it does not exist.
        study: The study.
        command: The command line that makes the report again.
        tell: See ``write_wrong_labels``.

    Returns:
        The HTML page; it needs no other file.

    Raises:
        RequestError, RunError: The folder cannot be written to.
    """
    figure = proportions_figure(study)
    for name in ("figure.png", "figure.svg"):
        write_figure(folder / name, figure)
    write_text(folder / "proportions.csv", csv_text(list(_proportion_rows(study))))
    write_text(folder / "examples.csv", spreadsheet_text(list(_example_rows(study))))
    ids, texts = [example.id for example in study.examples], [example.texts for example in study.examples]
    write_wrong_labels(folder, study.suspects, ids, texts, tell)
    title = f"Case study: {study.subject}"
    header = runs_header(study.runs, command, study.files)
    write_text(folder / "report.md", render_markdown(title, [header, *_blocks(study, folder / "figure.png")]))
    page = folder / "report.html"
    write_text(page, render_page(study, title, header))
    return page


def summarize(study: CaseStudy) -> dict[str, Any]:
    """Return a mapping for JSON: each method's proportions, also by phenomenon, and what it rescues or loses."""
    return {
        "subject": study.subject,
        "examples": len(study.examples),
        "baseline": study.baseline,
        "methods": [
            {
                "method": method.name,
                "restarts": method.restarts,
                **_numbers(study, method),
                "rescued": _changed(study, method, "rescued"),
                "lost": _changed(study, method, "lost"),
                "phenomena": {name: _numbers(study, method, name) for name in study.phenomena},
            }
            for method in study.methods
        ],
        "likely_wrong": [study.examples[suspect.place].id for suspect in study.suspects],
        "notes": list(study.notes),
    }


def format_proportions(study: CaseStudy) -> str:
    """Return the table of proportions for a terminal."""
    return format_columns(_proportions_table(study))


def _numbers(study: CaseStudy, method: MethodVotes, phenomenon: str | None = None) -> dict[str, int | float]:
    counts = study.proportions(method, phenomenon)
    return {
        "examples": counts.examples,
        "easy": counts.easy,
        "hard": counts.hard,
        "neither": counts.neither,
        "easy_share": counts.easy_share,
        "hard_share": counts.hard_share,
    }


def _changed(study: CaseStudy, method: MethodVotes, wanted: Change) -> list[str]:
    pairs = zip(study.examples, study.changes(method), strict=True)
    return [example.id for example, change in pairs if change == wanted]


def _blocks(study: CaseStudy, picture: Path) -> list[Block]:
    blocks: list[Block] = [
        Paragraph(f"{len(study.examples)} examples. {_rule(study)}"),
        Image(picture, "Proportion of easy examples (a) and of hard ones (b) of each method"),
        Table(*_split(_proportions_table(study))),
    ]
    if study.phenomena:
        blocks += [Heading("By phenomenon"), Table(*_split(_phenomena_table(study)))]
    for method in study.methods:
        if study.baseline not in (None, method.name):
            blocks += _changes_section(study, method)
    ids, texts = [example.id for example in study.examples], [example.texts for example in study.examples]
    asked = len(study.voters)
    left_out, unseen = len(study.answers) - asked, not study.files
    blocks += wrong_labels_section(study.suspects, ids, texts, asked, left_out=left_out, unseen=unseen)
    if study.notes:
        blocks += [Heading("Notes"), Bullets(study.notes)]
    return blocks


def _rule(study: CaseStudy) -> str:
    rule = (
        "An example is easy for a method when more than half of its restarts get the example right, hard when more "
        "than half get it wrong, and neither when exactly half do."
    )
    if study.baseline is None:
        return rule
    return f"{rule} Rescued: hard for {study.baseline} and easy for the method. Lost: the reverse."


def _split(rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    return rows[0], rows[1:]


def _proportions_table(study: CaseStudy) -> list[list[str]]:
    rows = [["method", "restarts", "easy", "", "hard", "", "neither", *(["rescued", "lost"] if study.baseline else [])]]
    for method in study.methods:
        counts = study.proportions(method)
        row = [method.name, method.restarts, counts.easy, percent(counts.easy_share)]
        row += [counts.hard, percent(counts.hard_share), counts.neither]
        row += [counts.rescued, counts.lost] if study.baseline else []
        rows.append(["" if cell is None else str(cell) for cell in row])
    return rows


def _phenomena_table(study: CaseStudy) -> list[list[str]]:
    rows = [
        ["phenomenon", "examples", *(f"{method.name}: {what}" for method in study.methods for what in ("easy", "hard"))]
    ]
    for phenomenon in study.phenomena:
        counts = [study.proportions(method, phenomenon) for method in study.methods]
        shares = [percent(share) for each in counts for share in (each.easy_share, each.hard_share)]
        rows.append([phenomenon, str(counts[0].examples), *shares])
    return rows


def _changes_section(study: CaseStudy, method: MethodVotes) -> Iterator[Block]:
    baseline = next(each for each in study.methods if each.name == study.baseline)
    for wanted in ("rescued", "lost"):
        found = [place for place, change in enumerate(study.changes(method)) if change == wanted]
        yield Heading(f"{wanted.capitalize()} by {method.name}: {len(found)}")
        if found:
            header = ["id", "label", "example", baseline.name, method.name]
            rows = [[*_words(study.examples[place]), _score(baseline, place), _score(method, place)] for place in found]
            yield Table(header, rows[:_MOST_LISTED], words=3, prose=frozenset({2}))
        if len(found) > _MOST_LISTED:
            yield Paragraph(f"{len(found) - _MOST_LISTED} more are in examples.csv and report.html.")


def _words(example: Example) -> list[str]:
    return [example.id, example.label or "", short_text(example.texts)]


def _score(method: MethodVotes, place: int) -> str:
    return f"{method.correct[place]} of {method.restarts}"


def _proportion_rows(study: CaseStudy) -> Iterator[list[Any]]:
    yield [
        *("method", "restarts", "phenomenon", "examples", "easy", "hard", "neither"),
        *("easy_share", "hard_share", "rescued", "lost"),
    ]
    for method in study.methods:
        for phenomenon in (None, *study.phenomena):
            each = study.proportions(method, phenomenon)
            yield [
                *(method.name, method.restarts, phenomenon, each.examples, each.easy, each.hard, each.neither),
                *(each.easy_share, each.hard_share, each.rescued, each.lost),
            ]


def _example_rows(study: CaseStudy) -> Iterator[list[Any]]:
    """Yield the rows of examples.csv, which a spreadsheet shows, and ``dpstune casestudy --from`` can read."""
    most = max(len(example.texts) for example in study.examples)
    verdicts = [method.verdicts for method in study.methods]
    changes = [study.changes(method) for method in study.methods]
    yield [
        *("id", *text_columns(most), "label", *(["phenomenon"] if study.phenomena else [])),
        *(f"{what}_{method.name}" for method in study.methods for what in ("correct", "restarts", "verdict", "change")),
    ]
    for place, example in enumerate(study.examples):
        padded = [*map(shown_cell, example.texts), *[""] * (most - len(example.texts))]
        row: list[Any] = [
            example.id,
            *padded,
            shown_cell(example.label or ""),
            *([example.phenomenon] if study.phenomena else []),
        ]
        for method, verdict, change in zip(study.methods, verdicts, changes, strict=True):
            row += [method.correct[place], method.restarts, verdict[place], change[place]]
        yield row
