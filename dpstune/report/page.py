"""Reports in two forms: the same blocks (text, tables, images) as Markdown and as an HTML page without other files."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from dpstune.common.textfile import markdown_text
from dpstune.common.writing import write_text
from dpstune.report.figures import PIXELS

REPORT_FILES = ("report.md", "report.html")


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Fact:
    """One fact about a report, such as its recipe or its date.

    Args:
        label: Its name.
        text: Its value.
        details: The value in full, shown on demand; empty if the text is complete.
        code: Whether the text is a command line.
    """

    label: str
    text: str
    details: str = ""
    code: bool = False


@dataclass(frozen=True)
class Facts:
    """The facts about a report, one line each."""

    items: Sequence[Fact]


@dataclass(frozen=True)
class Table:
    """A table; on a small screen it scrolls sideways.

    A cell with words breaks after a comma only, a cell with numbers before a bracket or ± only.

    Args:
        header: Column names.
        rows: Cells, a row each; what is missing is an empty cell.
        words: How many of the first columns hold words; the others hold numbers and are set to the right.
        strong: Indices of the rows that stand out.
        prose: Indices of the columns of words that hold sentences, which break anywhere.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    strong: frozenset[int] = frozenset()
    prose: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Image:
    """A PNG file beside the report, ``PIXELS`` of its pixels for one of the page; the HTML page embeds it.

    Args:
        path: The file.
        description: What it shows, for those who cannot see it.
    """

    path: Path
    description: str


Block = Heading | Paragraph | Bullets | Facts | Table | Image

FACTS_STYLE = """
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.25rem 1.2rem; margin: 1rem 0 1.5rem;
  padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 8px; font-size: 0.92rem; }
.facts dt { font-weight: 600; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.facts code { font: 0.9em/1.6 ui-monospace, monospace; }
.facts code span { display: inline-block; max-width: 100%; }
.facts summary { cursor: pointer; }
.facts details p { margin: 0.2rem 0; max-width: none; }
""".strip()

# Two sets of colours, for the reader's light or dark scheme.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1b1f; --paper: #ffffff; --line: #d5d5dc; --best: #eef3ff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e6ea; --paper: #17171b; --line: #3c3c46; --best: #23304d; }}
}}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }}
p, li {{ max-width: 48rem; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: baseline; }}
th {{ vertical-align: bottom; }}
td span {{ white-space: nowrap; }}
.word {{ text-align: start; min-width: 6rem; }}
.word + .word {{ min-width: 12rem; }}
.word span {{ display: inline-block; max-width: 100%; white-space: normal; overflow-wrap: anywhere; }}
.best {{ background: var(--best); font-weight: 600; }}
figure {{ margin: 1.5rem 0; }}
img {{ max-width: 100%; height: auto; background: #ffffff; border-radius: 6px; }}
{facts_style}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_report(folder: Path, title: str, blocks: Sequence[Block]) -> Path:
    """Write a report as report.md and report.html, and return the page; it needs no other file."""
    text, page = (folder / name for name in REPORT_FILES)
    write_text(text, render_markdown(title, blocks))
    write_text(page, render_html(title, blocks))
    return page


def render_html(title: str, blocks: Sequence[Block]) -> str:
    """Return an HTML page with the images inside; it follows the reader's light or dark scheme.

    >>> "&lt;b&gt;" in render_html("t", [Paragraph("<b>")])
    True
    """
    body = "\n".join(block_html(block) for block in blocks)
    return _PAGE.format(title=escape(title), facts_style=FACTS_STYLE, body=body)


def render_markdown(title: str, blocks: Sequence[Block]) -> str:
    r"""Return the report as Markdown; its images are links to the files beside it.

    >>> print(render_markdown("t", [Table(["a", "b"], [["x|y", "1"]])]))
    # t
    <BLANKLINE>
    | a | b |
    |:--|--:|
    | x\|y | 1 |
    <BLANKLINE>
    """
    return "\n\n".join([f"# {markdown_text(title)}", *(_markdown(block) for block in blocks)]) + "\n"


def block_html(block: Block) -> str:
    """Return one block as HTML."""
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items):
            return "\n".join(["<ul>", *(f"<li>{escape(item)}</li>" for item in items), "</ul>"])
        case Image(path, description):
            picture = path.read_bytes()
            width, height = (length // PIXELS for length in _png_size(picture))
            source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
            size = f'width="{width}" height="{height}"'
            return f'<figure><img alt="{escape(description)}" {size} src="{source}"></figure>'
        case Facts(items):
            rows = (f"<dt>{escape(item.label)}</dt><dd>{_fact_html(item)}</dd>" for item in items)
            return "\n".join(['<dl class="facts">', *rows, "</dl>"])
        case Table():
            return _html_table(block)


def _fact_html(item: Fact) -> str:
    text = escape(item.text)
    if item.code:  # breaks before a flag, not inside one
        text = f"<code>{' '.join(f'<span>{escape(part)}</span>' for part in re.split(' (?=--)', item.text))}</code>"
    if not item.details:
        return text
    return f"<details><summary>{text}</summary><p>{escape(item.details)}</p></details>"


def _png_size(content: bytes) -> tuple[int, int]:
    """Return the width and height of a PNG file, which its header holds."""
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def _html_table(table: Table) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        made = []
        for column, cell in enumerate(row):
            word = column < table.words
            parts = [cell] if column in table.prose else re.split(r"(?<=,) | (?=[(±])", cell)
            text = escape(cell) if tag == "th" else " ".join(f"<span>{escape(part)}</span>" for part in parts if part)
            direction = ' dir="auto"' if tag == "td" else ""  # a text's own, which its first letter tells
            made.append(f'<{tag} class="word"{direction}>{text}</{tag}>' if word else f"<{tag}>{text}</{tag}>")
        return "".join(made)

    lines = ['<div class="scroll" tabindex="0" role="region" aria-label="table"><table>']
    lines.append(f"<thead><tr>{cells('th', table.header)}</tr></thead>")
    lines.append("<tbody>")
    for index, row in enumerate(table.rows):
        opening = '<tr class="best">' if index in table.strong else "<tr>"
        lines.append(f"{opening}{cells('td', row)}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {markdown_text(text)}"
        case Paragraph(text):
            return markdown_text(text)
        case Bullets(items):
            return "\n".join(f"- {markdown_text(item)}" for item in items)
        case Image(path, description):
            return f"![{markdown_text(description)}]({path.name})"
        case Facts(items):
            return "\n".join(f"- {item.label}: {_fact_markdown(item)}" for item in items)
        case Table():
            marks = [":--" if column < block.words else "--:" for column in range(len(block.header))]
            rows = [
                [f"**{cell}**" if index in block.strong and cell else cell for cell in map(markdown_text, row)]
                for index, row in enumerate(block.rows)
            ]
            lines = [
                _markdown_row([markdown_text(cell) for cell in block.header]),
                f"|{'|'.join(marks)}|",
                *map(_markdown_row, rows),
            ]
            return "\n".join(lines)


def _fact_markdown(item: Fact) -> str:
    ticks, space = ("``", " ") if "`" in item.text else ("`", "")
    text = f"{ticks}{space}{item.text}{space}{ticks}" if item.code else markdown_text(item.text)
    return f"{text} ({markdown_text(item.details)})" if item.details else text


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
