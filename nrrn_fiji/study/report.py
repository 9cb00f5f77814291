"""Makes one self-contained page of the study's parts.

This module must never measure, nor leave out a part that was measured.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from .. import __version__, pages
from ..files import write_whole
from ..reports import Table, as_json, readable_time
from .parts import Part, as_markdown

__all__ = ["INDEX", "write_report"]

INDEX = "index.html"
NARROW = 1300
"""Pixels: narrower pictures are those that fit into a column of a paper."""

TITLE = "How well is noise removed?"
FIRST_LOOK = (
    "A first look (--quick): few slices, and networks that are hardly trained. The pictures mean "
    "more than the numbers."
)
REPEATED = ("rows", "psnr", "slopes", "profile", "small", "seconds")
"""Facts of single parts, which stand in their own files."""


def write_report(folder: Path, parts: Sequence[Part], name: str = INDEX) -> Path:
    """Write the page and return its path; of several parts also all of it as Markdown beside it.

    Parameters
    ----------
    folder
        The study's folder, where the parts' figures are.
    parts
        In the order of the page.
    name
        Name of the page's file.
    """
    sections = []
    if len(parts) > 1:
        rows = tuple((part.title, finding) for part in parts for finding in part.findings[:1])
        sections.append(pages.Section("What was found", table=Table(("", ""), rows)))
    for part in parts:
        sections += sections_of(folder, part)
    common = {key: value for key, value in parts[-1].facts.items() if key not in REPEATED}
    seconds = {part.name: part.facts.get("seconds") for part in parts}
    settings = json.dumps(as_json({**common, "seconds": seconds}), indent=1)
    sections.append(pages.Section("Settings", code=settings))
    took = readable_time(sum(value for value in seconds.values() if value))
    facts = parts[0].facts
    model = facts.get("model") or {}
    subtitle = f"{model.get('name', 'Filters alone')} on {facts['volume']}"
    if (facts.get("budget") or {}).get("name") == "quick":
        subtitle += f". {FIRST_LOOK}"
    text = pages.page(
        TITLE,
        sections,
        subtitle=subtitle,
        footer=f"nrrn-fiji {__version__}, measured in {took}",
    )
    write_whole(folder / name, text.encode())
    if len(parts) > 1:
        opening = f"# {TITLE}\n\n{subtitle}\n"
        joined = "\n".join([opening, *(as_markdown(part) for part in parts)])
        write_whole((folder / name).with_suffix(".md"), joined.encode())
    return folder / name


def sections_of(folder: Path, part: Part) -> list[pages.Section]:
    """Return a part as a section, and one for every further table."""
    tables = [(caption, without_bold(table)) for caption, table in part.tables]
    first = tables[0] if tables else ("", None)
    figures = []
    for figure in part.figures:
        png = (folder / figure.file).read_bytes()
        figures.append(pages.Figure(png, figure.caption, wide=png_width(png) > NARROW))
    sections = [
        pages.Section(
            part.title,
            paragraphs=part.findings,
            figures=figures,
            table=first[1],
            notes=[
                note for note in (f"Table: {first[0]}." if first[0] else "", part.about) if note
            ],
        )
    ]
    sections += [
        pages.Section(f"{part.title.split(':')[0]}: {caption}", table=table)
        for caption, table in tables[1:]
    ]
    return sections


def without_bold(table: Table) -> Table:
    """Return a table with a dot where Markdown has bold letters."""
    rows = tuple(
        tuple(f"• {cell.strip('*')}" if cell.startswith("**") else cell for cell in row)
        for row in table.rows
    )
    return Table(table.header, rows)


def png_width(png: bytes) -> int:
    """Return the width in pixels that a PNG file's header tells."""
    (width,) = struct.unpack(">I", png[16:20])
    return int(width)
