"""One self-contained HTML page from headings, sentences, tables and pictures.

Reports that people keep, send on or put beside their data are one file that opens anywhere: no
link to another file, no script, readable in light and dark.  This module must never measure or
judge; it only sets what it is given, and every text is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from .reports import Table

__all__ = ["LIGHTS", "Figure", "Section", "Verdict", "page"]

TEMPLATE = Path(__file__).parent / "templates" / "page.html"

LIGHTS = {"good": "Good", "warn": "Look", "bad": "Bad", "unknown": "Not known"}
"""Judgements, and the words that stand for them where colours are not seen."""


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows."""

    png: bytes
    """The file's content."""
    caption: str
    alt: str = ""
    """What to say to those who do not see it; the caption when empty."""
    wide: bool = True
    """Whether it takes the whole width of the page; else two stand side by side."""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Verdict:
    """A number with a judgement in plain words."""

    light: str
    """One of :data:`LIGHTS`."""
    title: str
    value: str
    words: str

    def __post_init__(self) -> None:
        if self.light not in LIGHTS:
            raise ValueError(
                f"light is {self.light!r}, but it must be one of {', '.join(LIGHTS)}: choose one."
            )

    @property
    def label(self) -> str:
        """The judgement in a word."""
        return LIGHTS[self.light]


@dataclass(frozen=True)
class Section:
    """A part of the page; what is empty is left out.  In this order:"""

    heading: str
    paragraphs: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    figures: Sequence[Figure] = ()
    table: Table | None = None
    code: str = ""
    """Text that is shown as it is, such as settings."""
    notes: Sequence[str] = ()
    """Small print: how it was measured, what it cannot tell."""


def page(title: str, sections: Sequence[Section], *, subtitle: str = "", footer: str = "") -> str:
    """Return the whole page.

    Parameters
    ----------
    title
        Stands above everything, and as the window's title.
    sections
        In their order.
    subtitle
        One line below the title: what was looked at, and when.
    footer
        One line at the end: what made the page.

    Returns
    -------
    str
        HTML, to be written as UTF-8.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, sections=sections, subtitle=subtitle, footer=footer)
