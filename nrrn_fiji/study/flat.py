"""Flat areas and busy lines of a clean volume, found automatically.

The paper measures noise along a line drawn by hand through resin, and detail along one across an
organelle.  Here both are chosen by stated rules from the *clean* slices, so that nobody can choose
those that flatter a method.  This module must never look at an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..scoring import CleanSlices, Image

__all__ = ["Line", "along", "busiest_line", "flattest_lines"]

SMOOTH = 2.0
"""Sigma in pixels of the Gaussian that tells structure from noise."""

LINE = 48
"""Length in pixels of a line through a flat area; the area is half as high."""

PROFILE = 80
"""Length in pixels of a line across an organelle."""

BAND = 5
"""Rows that a busy line is judged by, so that a single bright pixel does not count."""

FLAT = 1.5
"""An area that varies this much more than the flattest one is not flat any more."""

SATURATED = 0.02
"""Largest fraction of black and white pixels in an area: clipped grey values look flat."""


class Line(NamedTuple):
    """A horizontal line in a slice."""

    z: int
    """Number of the slice."""
    y: int
    x: int
    """Leftmost pixel."""
    length: int


def along(line: Line, image: Image) -> NDArray[np.float64]:
    """Return the grey values of a slice along a line, on [0, 255]."""
    return 255.0 * image[line.y, line.x : line.x + line.length].astype(np.float64)


def windowed(image: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return the mean over every window that lies inside, by its upper left corner."""
    sums = np.pad(image.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    return (total + sums[:-height, :-width]) / (height * width)


def flattest_lines(scored: CleanSlices, count: int) -> list[Line]:
    """Return lines through the flattest areas, resin say, of the scored slices.

    An area is ``LINE`` pixels wide and half as high; flat is where the smoothed clean slice has
    the smallest standard deviation, and whatever varies at most ``FLAT`` times as much.  Areas do
    not overlap, and those with saturated grey values do not count.

    Parameters
    ----------
    scored
        The slices.
    count
        How many lines at most; fewer if there are not as many flat areas.

    Returns
    -------
    list of Line
        The flattest first; at least one.

    Raises
    ------
    ValueError
        If saturated grey values are everywhere.
    """
    found: list[tuple[float, Line]] = []
    for index in scored.indices:
        clean = scored.clean(index).astype(np.float64)
        width = min(LINE, clean.shape[1])
        height = min(LINE // 2, clean.shape[0])
        smooth = ndimage.gaussian_filter(clean, SMOOTH)
        mean = windowed(smooth, height, width)
        spread = np.sqrt(np.maximum(windowed(smooth**2, height, width) - mean**2, 0))
        black_or_white = windowed(((clean <= 0) | (clean >= 1)).astype(float), height, width)
        # Rounding makes tiny negative fractions of what is none.
        spread[black_or_white > SATURATED] = np.inf
        for _ in range(count):
            y, x = np.unravel_index(int(spread.argmin()), spread.shape)
            flatness = float(spread[y, x])
            if not np.isfinite(flatness):
                break
            found.append((flatness, Line(index, int(y) + height // 2, int(x), width)))
            spread[max(0, y - height + 1) : y + height, max(0, x - width + 1) : x + width] = np.inf
    if not found:
        raise ValueError(
            "No part of the scored slices is free of black and white pixels, so there is no flat "
            "area to measure noise in: choose other slices, or check the grey range of the volume."
        )
    found.sort(key=lambda pair: pair[0])
    return [line for flatness, line in found[:count] if flatness <= FLAT * found[0][0]]


def busiest_line(scored: CleanSlices, indices: Sequence[int]) -> Line:
    """Return the horizontal line with the strongest contrast, as across an organelle.

    Parameters
    ----------
    scored
        The slices.
    indices
        Those to look in.
    """
    best = (-1.0, Line(indices[0], 0, 0, 1))
    for index in indices:
        clean = scored.clean(index).astype(np.float64)
        width, band = min(PROFILE, clean.shape[1]), min(BAND, clean.shape[0])
        smooth = ndimage.gaussian_filter(clean, SMOOTH)
        mean = windowed(smooth, band, width)
        spread = windowed(smooth**2, band, width) - mean**2
        y, x = np.unravel_index(int(spread.argmax()), spread.shape)
        line = Line(index, int(y) + band // 2, int(x), width)
        best = max(best, (float(spread[y, x]), line))
    return best[1]
