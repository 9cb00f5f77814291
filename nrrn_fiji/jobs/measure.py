"""``nrrn measure``: the spread of grey values at a place in a slice, as numbers and a plot.

Where the specimen is flat, the spread is the noise.  What Measure Noise… does in Fiji, for files
and side by side.  This module must never change an image, nor write anything but what ``-o`` names.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_whole
from ..metrics import Spread, line_profile
from ..noise_statistics import noise_level
from ..outputs.checks import checked_output
from ..plots import ACCENT, DPI, INK, plain
from ..reports import Report, Table, readable_number
from ..volumes import Source, open_volume

__all__ = ["ends_of_line", "measure_files"]

Array = NDArray[np.float64]

COLOURS = ("#1b6ca8", ACCENT)


@dataclass(frozen=True, kw_only=True)
class Measured(Spread):
    """What a line, a box or a whole slice shows."""

    title: str
    level: float
    """Estimated standard deviation of the noise, from differences of pixels: of the box, or, for a
    line, of the whole slice."""
    profile: Array | None
    """Grey values along a line, those that are not finite too; None for a box or a slice."""


def measure_files(
    image: Source,
    second: Source | None = None,
    *,
    slice: int | None = None,
    line: str | None = None,
    box: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Report:
    """Measure the spread of grey values in a slice, as Measure Noise… in Fiji does.

    Parameters
    ----------
    image, second
        Images as :func:`nrrn_fiji.open_volume` takes them; the second, of the same shape, is
        measured at the same place.
    slice
        Number of the slice, from 0; the middle one when left out.
    line, box
        "x0,y0,x1,y1" in pixels: ends of a line, or corners of a box (both included); the whole
        slice when both are left out.
    out
        A PNG file to write: box plots, and profiles along a line.
    overwrite
        Replace an existing picture.

    Raises
    ------
    ValueError, TypeError, OSError
        If the images cannot be read, or the place lies outside.
    """
    if line is not None and box is not None:
        raise ValueError("line and box were both given: measure one at a time.")
    out = checked_output(out, [image, second], (".png",), overwrite)
    found: list[Measured] = []
    shape: tuple[int, ...] | None = None
    where = "the whole slice"
    for source in (image, second):
        if source is None:
            continue
        with open_volume(source) as volume:
            if shape is not None and volume.shape[2:] != shape:
                raise ValueError(
                    f"{volume.name} is {tuple(volume.shape[2:])} (Z, Y, X), but the first image is "
                    f"{shape}: give two images of one shape."
                )
            shape = tuple(volume.shape[2:])
            z = shape[0] // 2 if slice is None else slice
            if not 0 <= z < shape[0]:
                raise ValueError(
                    f"slice is {z}, but {volume.name} has slices 0 … {shape[0] - 1}: choose one."
                )
            plane = volume.read(z, z + 1)[0]
            title = volume.name
        part, profile = plane, None
        if line is not None:
            x0, y0, x1, y1 = ends_of_line(line, plane.shape)
            profile = line_profile(plane, (y0, x0), (y1, x1))
            where = f"the line from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
        elif box is not None:
            part, where = boxed(plane, box)
        values = np.asarray(part if profile is None else profile, np.float64).ravel()
        values = values[np.isfinite(values)]
        if values.size < 2:
            raise ValueError(
                f"{where} holds {values.size} finite pixels of {title}, but two or more are "
                "needed: choose another place."
            )
        found.append(Measured(values=values, title=title, level=noise_level(part), profile=profile))
    summary = f"Slice {z}, {where}; grey levels."
    if out is not None:
        write_whole(out, spread_picture(found))
        summary += f"\n{out}: the plot."
    columns = ("pixels", "mean", "sd", "median", "IQR", "noise level")
    data = [
        dict(
            zip(
                columns,
                (m.values.size, m.values.mean(), m.deviation, m.box[2], m.iqr, m.level),
                strict=True,
            )
        )
        for m in found
    ]
    rows = tuple(
        (
            m.title,
            *(
                readable_number(value, 4) if name != "pixels" else str(value)
                for name, value in d.items()
            ),
        )
        for m, d in zip(found, data, strict=True)
    )
    return Report(
        summary,
        {
            "slice": z,
            "place": where,
            "images": [{"image": m.title, **d} for m, d in zip(found, data, strict=True)],
            "plot": str(out) if out is not None else None,
        },
        Table(("image", *columns), rows),
    )


def ends_of_line(line: str, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Return the ends (x0, y0, x1, y1) of a line "x0,y0,x1,y1" in a slice of a shape (Y, X).

    Raises
    ------
    ValueError
        If these are not four numbers, or an end lies outside.
    """
    x0, y0, x1, y1 = parse_corners(line, "line")
    height, width = shape
    columns = all(0 <= x <= width - 1 for x in (x0, x1))
    rows = all(0 <= y <= height - 1 for y in (y0, y1))
    if not (columns and rows):
        raise ValueError(
            f"line is {line}, but it must lie inside the slice of {height} × {width} pixels (rows "
            "× columns), counted from 0: give its ends as x0,y0,x1,y1."
        )
    return x0, y0, x1, y1


def boxed(plane: NDArray[Any], box: str) -> tuple[NDArray[Any], str]:
    """Return the part of a slice inside a box "x0,y0,x1,y1", and its name."""
    x0, y0, x1, y1 = (round(v) for v in parse_corners(box, "box"))
    left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    height, width = plane.shape
    if left < 0 or top < 0 or right >= width or bottom >= height:
        raise ValueError(
            f"box is {box}, but it must lie inside the slice of {height} × {width} pixels (rows × "
            "columns), counted from 0: give its corners as x0,y0,x1,y1."
        )
    part = plane[top : bottom + 1, left : right + 1]
    return part, f"the box from ({left}, {top}) to ({right}, {bottom})"


def spread_picture(found: Sequence[Measured]) -> bytes:
    """Return box plots side by side, and the profiles of a line, as a PNG file."""
    from matplotlib.figure import Figure

    lines = found[0].profile is not None
    figure = Figure(
        figsize=(3.2 + 1.2 * len(found) + (5 if lines else 0), 3.6),
        dpi=1.5 * DPI,
        facecolor="white",
        layout="constrained",
    )
    grid = figure.subplots(
        1, 2 if lines else 1, squeeze=False, width_ratios=[1, 2] if lines else [1]
    )
    axes = grid[0, 0]
    boxes = axes.boxplot([m.values for m in found], whis=(0, 100), widths=0.5, patch_artist=True)
    for patch, middle_line, colour in zip(boxes["boxes"], boxes["medians"], COLOURS, strict=False):
        patch.set(facecolor=colour, alpha=0.35, edgecolor=colour)
        middle_line.set_color(INK)
    names = [
        f"{m.title}\nIQR {readable_number(m.iqr, 4)}\nsd {readable_number(m.deviation, 4)}"
        for m in found
    ]
    axes.set_xticks(range(1, len(found) + 1), names)
    axes.set_ylabel("Grey value", fontsize=9, color=INK)
    plain(axes)
    if lines:
        for m, colour in zip(found, COLOURS, strict=False):
            assert m.profile is not None
            grid[0, 1].plot(m.profile, color=colour, linewidth=1.2, label=m.title)
        grid[0, 1].set_xlabel("Pixels along the line", fontsize=9, color=INK)
        grid[0, 1].set_ylabel("Grey value", fontsize=9, color=INK)
        # Above the profiles, where it hides nothing.
        grid[0, 1].legend(
            frameon=False,
            fontsize=9,
            labelcolor=INK,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=2,
        )
        plain(grid[0, 1])
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def parse_corners(text: str, name: str) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) from "x0,y0,x1,y1".

    Raises
    ------
    ValueError
        If these are not four numbers.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise ValueError(text)
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}, but it must be four numbers x0,y0,x1,y1 in pixels, such as "
            "10,50,200,50."
        ) from None
    return x0, y0, x1, y1
