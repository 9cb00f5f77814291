"""How the slices of a stack lie against each other: shifts and likeness of neighbours.

Pictures are smoothed and freed of shading before they are compared, because noise and uneven
brightness would be matched too.  This module must never judge: what a shift means is for
:mod:`nrrn_fiji.stack_checks` and :mod:`nrrn_fiji.registration` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .intensity import Source, fill_invalid, invalid_mask
from .progress import Cancelled, Progress

__all__ = [
    "Neighbours",
    "Shift",
    "band_pass",
    "compare_neighbours",
    "correlation",
    "middle",
    "shift_between",
]

Array = NDArray[Any]

SMOOTHING = 2.0
"""Pixels: standard deviation of the smoothing before slices are compared."""

RELIABLE = 0.15
"""Smallest correlation at which a shift between neighbours means something; in small pictures
:func:`reliable` asks for more."""


class Shift(NamedTuple):
    """By how much a picture has moved against another, in pixels, and how sure that is."""

    dy: float
    dx: float
    correlation: float
    """Of the smoothed pictures, once the shift is undone; -1 … 1."""

    @property
    def length(self) -> float:
        """Pixels."""
        return float(np.hypot(self.dy, self.dx))


class Neighbours(NamedTuple):
    """How a slice resembles the next one."""

    first: int
    same: bool
    """Whether both are the same picture, pixel by pixel."""
    difference: float
    """Mean absolute difference in grey values."""
    correlation: float
    """Of the smoothed pictures as they lie."""
    second: float
    """The same with the slice after the next; NaN where there is none."""
    shift: Shift
    reliable: float
    """Correlation from which the shift means something."""


def band_pass(image: Array, smoothing: float = SMOOTHING) -> NDArray[np.float32]:
    """Return a picture without noise and shading: what a narrow blur leaves but a wide one takes.

    Parameters
    ----------
    image
        (Y, X), finite.
    smoothing
        Standard deviation of the narrow one, a Gaussian, in pixels.  The wide one, two boxes, has
        a tenth of the shorter side, at least 4 times as much.
    """
    values = image.astype(np.float32)
    wide = max(4 * smoothing, min(image.shape) / 10)
    result: NDArray[np.float32] = ndimage.gaussian_filter(values, smoothing, mode="nearest")
    # Two boxes of width w have the variance w²/6, and take the same time whatever their width.
    box = 2 * round(6**0.5 * wide / 2) + 1
    shading = ndimage.uniform_filter(values, box, mode="nearest")
    result -= ndimage.uniform_filter(shading, box, mode="nearest")
    return result


def shift_between(one: Array, other: Array) -> Shift:
    """Measure by how much ``other`` has moved against ``one``.

    Parameters
    ----------
    one, other
        (Y, X) of the same shape, smoothed and freed of shading (:func:`band_pass`).

    Returns
    -------
    Shift
        To a tenth of a pixel; what lies at (y, x) in ``one`` lies at (y + dy, x + dx) in
        ``other``.

    Notes
    -----
    Cross-correlation through Fourier transforms (``skimage.registration``), not divided by the
    amplitudes: that would give the frequencies that hold nothing but noise the same weight.
    """
    from skimage.registration import phase_cross_correlation

    window = np.outer(np.hanning(one.shape[0]), np.hanning(one.shape[1]))
    here, there = one * window, other * window
    if not (here.any() and there.any()):  # of edges of two pixels the window leaves nothing
        return Shift(0.0, 0.0, 0.0)
    found, _, _ = phase_cross_correlation(here, there, normalization=None, upsample_factor=10)
    dy, dx = (-float(number) for number in found)
    y, x = round(dy), round(dx)
    height, width = one.shape
    if abs(y) >= height - 1 or abs(x) >= width - 1:
        return Shift(0.0, 0.0, 0.0)
    here = one[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    there = other[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
    return Shift(dy, dx, correlation(here, there))


def compare_neighbours(
    source: Source,
    runs: Sequence[range],
    window: int,
    progress: Progress,
    look: Callable[[int, Array, NDArray[np.bool_] | None], None] | None = None,
) -> list[Neighbours]:
    """Compare each slice of some runs with the next one and the one after, holding three.

    Parameters
    ----------
    source
        The stack; it is read slice by slice.
    runs
        Which slices, in runs of adjacent ones.
    window
        Edge in pixels of the part in the middle that is compared.
    progress
        Told of each slice, and asked whether to stop.
    look
        Is handed the number, the whole picture and the invalid pixels of each slice.

    Returns
    -------
    list of Neighbours
        One per pair; none for slices of which less than half holds a picture.

    Raises
    ------
    Cancelled
        When the user stops.
    """
    pairs: list[Neighbours] = []
    done, total = 0, sum(map(len, runs))
    for run in runs:
        before: list[tuple[int, Array, Array]] = []
        for z in run:
            if progress.cancelled:
                raise Cancelled("Stopped: nothing was changed.")
            image = np.asarray(source.read(z, z + 1))[0]
            part = middle(image, window)
            if look is None:
                hole = invalid_mask(part)
            else:
                invalid = invalid_mask(image)
                look(z, image, invalid)
                hole = None if invalid is None else middle(invalid, window)
            done += 1
            progress.update(done, total)
            if (hole is not None and hole.mean() > 0.5) or part.min() == part.max():
                before = []  # nothing to compare with, on either side
                continue
            filled = part if hole is None else fill_invalid(part, hole)
            smooth = band_pass(filled)
            if len(before) == 2:
                pairs[-1] = pairs[-1]._replace(second=correlation(before[0][2], smooth))
            if before:
                first, last, last_smooth = before[-1]
                pairs.append(
                    Neighbours(
                        first,
                        bool(np.array_equal(last, filled)),
                        float(np.abs(filled.astype(np.float64) - last).mean()),
                        correlation(last_smooth, smooth),
                        float("nan"),
                        shift_between(last_smooth, smooth),
                        reliable(smooth.size),
                    )
                )
            before = [*before[-1:], (z, filled, smooth)]
    return pairs


def reliable(pixels: int) -> float:
    """Return the correlation that smoothed noise of so many pixels does not reach by a shift.

    Smoothing leaves one independent value in 4π variances of the Gaussian; five standard
    deviations allow for the choice among many shifts.
    """
    return max(RELIABLE, 5 * (4 * np.pi * SMOOTHING**2 / pixels) ** 0.5)


def middle(image: Array, window: int) -> Array:
    """Return the middle of a slice, at most ``window`` pixels wide and high."""
    top, left = (max(0, (size - window) // 2) for size in image.shape)
    return image[top : top + window, left : left + window]


def correlation(one: Array, other: Array) -> float:
    """Return Pearson's correlation; 0 if one picture is constant."""
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a * a).sum(dtype=np.float64) * (b * b).sum(dtype=np.float64)))
    return float((a * b).sum(dtype=np.float64)) / norm if norm else 0.0
