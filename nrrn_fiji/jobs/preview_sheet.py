"""The contact sheet of ``nrrn preview``: a row of crops per choice, its caption and its command.

Rows are as high as their crops, so the sheet is as easy to read with three rows as with thirty.
What tells rows apart is written; colour only repeats it, in hues that colour-blind people tell
apart.  This module must never compute an image or open a window.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plots import COLOURS, DPI, FAINT, INK, OTHERS, grey, save

__all__ = ["Row", "draw_sheet"]

QUIET = "#5f6368"
GAP, MARGIN, CAPTION = 10, 22, 270
"""Pixels between images, around everything, and for the captions."""
SHOWN = 260
"""Edge of a shown crop in pixels; crops are magnified by whole numbers to about it."""
HEAD, FOOT, TITLE = 26, 30, 64
LETTER = 0.6 * 7.5 / 72 * DPI
"""Width in pixels of a letter of the commands: 7.5 points of a typewriter face."""
HUES = tuple(COLOURS[name] for name in ("nrrn", "unet", "denoisenet", "nlm", "bm3d")) + OTHERS


@dataclass(frozen=True)
class Row:
    """One choice: what it looks like, and how to have it."""

    title: str
    lines: tuple[str, ...]
    """What is beneath the title: settings, time, noise removed."""
    crops: tuple[NDArray[np.float64] | None, ...]
    """(Y, X) each, on the scale on which 0 is shown black and 1 white; None leaves a gap."""
    command: str = ""
    """The command line that gives it; none for the source."""
    group: int = -1
    """Rows of the same model share a number and a colour; the source has -1."""


def draw_sheet(
    rows: Sequence[Row], columns: Sequence[str], title: str, subtitle: str, path: str | Path
) -> None:
    """Write the sheet as a PNG file.

    Parameters
    ----------
    rows
        The source first; all with as many crops as there are columns, of the same shapes.
    columns
        What each column shows.
    title, subtitle
        Above everything.
    path
        The PNG file.

    Raises
    ------
    ValueError
        If there are no rows, or one has another number of crops.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if not rows or any(len(row.crops) != len(columns) for row in rows):
        raise ValueError(
            f"There are {len(rows)} rows for {len(columns)} columns: every row needs a crop for "
            "each column."
        )
    shapes = [
        max(crop.shape for crop in crops if crop is not None)
        for crops in zip(*(row.crops for row in rows), strict=True)
    ]
    zoom = max(1, round(SHOWN / max(max(shape) for shape in shapes)))
    widths = [shape[1] * zoom for shape in shapes]
    inner = max(shape[0] for shape in shapes) * zoom
    width = 2 * MARGIN + CAPTION + sum(widths) + GAP * len(widths)
    letters = int((width - 2 * MARGIN) / LETTER)
    commands = [wrapped_command(row.command, letters) for row in rows]
    heights = [inner + (FOOT + 13 * (len(command) - 1) if command else GAP) for command in commands]
    below = textwrap.wrap(subtitle, int((width - 2 * MARGIN) / (1.15 * LETTER)))
    top = TITLE + 15 * (len(below) - 1)
    height = 2 * MARGIN + top + HEAD + sum(heights) + GAP * (len(rows) - 1)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def write(x: float, y: float, text: str, size: float, **more: Any) -> None:
        about: dict[str, Any] = {"color": INK, "ha": "left", "va": "top", **more}
        figure.text(x / width, 1 - y / height, text, fontsize=size, **about)

    write(MARGIN, MARGIN, title, 14, weight="bold")
    for number, line in enumerate(below):
        write(MARGIN, MARGIN + 30 + 15 * number, line, 9, color=QUIET)
    y = float(MARGIN + top)
    left = MARGIN + CAPTION
    x = left + GAP
    for column, wide in zip(columns, widths, strict=True):
        write(x, y + 4, column, 9.5, color=QUIET)
        x += wide + GAP
    y += HEAD
    for row, command, row_height in zip(rows, commands, heights, strict=True):
        hue = INK if row.group < 0 else HUES[row.group % len(HUES)]
        bar = Rectangle(
            (MARGIN / width, 1 - (y + inner) / height),
            5 / width,
            inner / height,
            transform=figure.transFigure,
            color=hue,
            linewidth=0,
        )
        figure.add_artist(bar)
        text_y = y + 2
        for line in textwrap.wrap(row.title, 26):
            write(MARGIN + 16, text_y, line, 11.5, weight="bold")
            text_y += 21
        text_y += 3
        for part in row.lines:
            for line in textwrap.wrap(part, 36):
                write(MARGIN + 16, text_y, line, 9)
                text_y += 17
        x = left + GAP
        for crop, wide in zip(row.crops, widths, strict=True):
            if crop is None:
                x += wide + GAP
                continue
            large = grey(crop).repeat(zoom, 0).repeat(zoom, 1)
            colours = np.round(large * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
            figure.figimage(colours, xo=x, yo=round(height - y - large.shape[0]), origin="upper")
            x += wide + GAP
        for number, line in enumerate(command):
            write(MARGIN, y + inner + 7 + 13 * number, line, 7.5, family="monospace")
        y += row_height + GAP
        if row is not rows[-1]:
            rule = Rectangle(
                (MARGIN / width, 1 - (y - GAP / 2) / height),
                1 - 2 * MARGIN / width,
                1 / height,
                transform=figure.transFigure,
                color=FAINT,
                linewidth=0,
                alpha=0.6,
            )
            figure.add_artist(rule)
    save(figure, path)


def wrapped_command(command: str, letters: int) -> list[str]:
    """Return a command in lines of at most so many letters, as a shell continues them."""
    lines = textwrap.wrap(
        command, letters - 2, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )
    return [line + (" \\" if line is not lines[-1] else "") for line in lines]
