"""Stripes and seams: what a denoiser adds along whole rows or columns of a slice.

Specimen does not know where the rows and columns of a detector run, so what runs straight along
them through the whole slice was made by the instrument (curtains, line noise) or by the denoiser
(tiles that do not fit, a network's grid).  Faint lines hardly count in a standard deviation, yet
the eye sees them at once; this module looks for them alone.  It works on arrays and must never
judge: :mod:`.verdicts` does.  What it cannot see: oblique lines, and lines
that end halfway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import t as student

__all__ = ["Lines", "lines"]

Array = NDArray[np.float64]

CERTAIN = 0.99
"""Confidence with which stripes were added before they are said to be."""

COARSE = 4.0
"""Pixels: brightness that changes more slowly than this across the lines is no stripe."""

AROUND = 15
"""Places with which a possible seam is compared."""

SEGMENT = 16
"""Pixels along a line over which a step is averaged."""

REACH = 4
"""Pixels at either side of a step that are averaged."""

MOST_STEP = 3.0
"""How many times as large as usual a step may count, or one sharp edge of the specimen that was
blurred would do for a whole line."""

STEP_ERRORS = 12.0
"""How many usual (robust) deviations brightness must step."""

ROUGHER_ERRORS = 8.0
"""The same of how rough it is there, in both halves of the slice, and ..."""

ROUGHER = 0.2
"""... by what share rougher than around it."""

RECORDED_ERRORS = 3.0
"""How many the noisy stack must be rougher there too, so that it was recorded so."""


@dataclass(frozen=True)
class Lines:
    """Stripes and seams of a denoised stack beside its noisy one.

    Of each pair the first is for rows (horizontal lines), the second for columns.
    """

    before: tuple[float, float]
    """Standard deviation of the brightness of whole rows, and columns, of the noisy stack, in grey
    values, without noise and what is coarse."""
    after: tuple[float, float]
    """The same of the denoised one."""
    added: tuple[float, float]
    """What was added to them, as much as is certain (99 %)."""
    seams: tuple[tuple[int, ...], tuple[int, ...]]
    """Rows, and columns, before which tiles seem to meet: there brightness was made to step, or the
    denoised stack is rougher, all along the line."""


def lines(
    pairs: Iterable[tuple[Array, Array]], *, origin: tuple[int, int] = (0, 0)
) -> Lines | None:
    """Look for stripes and seams.

    Parameters
    ----------
    pairs
        Slices (Y, X) of one shape, at least 64 × 64 pixels, finite: each noisy and denoised.
    origin
        The row and the column that the first ones are, when the slices are a part of larger ones.

    Returns
    -------
    Lines or None
        None if there are no slices.
    """
    powers: list[list[list[Array]]] = []
    rough: list[Array] = []
    steps: list[Array] = []
    for noisy, denoised in pairs:
        powers.append([[line_power(image, axis) for axis in (0, 1)] for image in (noisy, denoised)])
        for axis in (0, 1):
            found = [roughness(image, axis) for image in (noisy, denoised)]
            made = shared_steps(denoised - noisy, axis)
            if len(rough) < 2:
                rough.append(np.stack(found))
                steps.append(made)
            else:
                rough[axis] += found
                steps[axis] += made
    if not powers:
        return None
    before, after = (
        [float(np.mean([power[stack][axis].mean() for power in powers])) for axis in (0, 1)]
        for stack in (0, 1)
    )
    added = [certain([p[1][axis] - p[0][axis] for p in powers]) for axis in (0, 1)]
    rows, columns = (
        tuple(origin[axis] + place for place in seams(steps[axis], *rough[axis])) for axis in (0, 1)
    )
    return Lines(
        (max(before[0], 0.0) ** 0.5, max(before[1], 0.0) ** 0.5),
        (max(after[0], 0.0) ** 0.5, max(after[1], 0.0) ** 0.5),
        (added[0], added[1]),
        (rows, columns),
    )


def certain(changes: list[Array]) -> float:
    """Return the square root of the least that the mean of ``changes``, one array per slice, has
    for certain; 0 where it may have fallen.  How much chance there is the slices tell, or, of a
    single one, its lines."""
    values = np.array([c.mean() for c in changes]) if len(changes) > 1 else changes[0]
    error = float(values.std(ddof=1)) / np.sqrt(values.size)
    least = float(values.mean()) - float(student.ppf(CERTAIN, values.size - 1)) * error
    return float(np.sqrt(max(least, 0.0)))


def line_power(image: Array, axis: int) -> Array:
    """Return how far each whole row (axis 0) or column (1) of a slice differs from those around it,
    squared.

    It is the product of what both halves of the line show: noise has the mean 0, and specimen
    hardly any.  So it may be below 0 by chance.
    """
    across = image if axis == 0 else image.T
    middle = across.shape[1] // 2
    first, second = (
        profile - ndimage.gaussian_filter1d(profile, COARSE)
        for profile in (across[:, :middle].mean(axis=1), across[:, middle:].mean(axis=1))
    )
    return np.asarray(first * second)


def roughness(image: Array, axis: int) -> Array:
    """Return the mean size of the steps from each row (axis 0) or column (1) to the next, in both
    halves of the lines, (2, Y - 1) or (2, X - 1)."""
    across = image if axis == 0 else image.T
    size = np.abs(np.diff(across, axis=0))
    middle = size.shape[1] // 2
    return np.stack([size[:, :middle].mean(axis=1), size[:, middle:].mean(axis=1)])


def shared_steps(change: Array, axis: int) -> Array:
    """Return how strongly brightness was made to step before each row (axis 0) or column (1).

    Parameters
    ----------
    change
        Denoised minus noisy, (Y, X).
    axis
        Across which lines.

    Returns
    -------
    ndarray
        (Y + 1,) or (X + 1,): the mean product of the steps of neighbouring segments of the line, in
        grey values squared.  Noise steps independently in them, tiles alike.  0 within
        :data:`REACH` of the ends.
    """
    across = change if axis == 0 else change.T
    number = across.shape[1] // SEGMENT
    segments = across[:, : number * SEGMENT].reshape(len(across), number, SEGMENT).mean(axis=2)
    sums = np.concatenate([np.zeros((1, number)), np.cumsum(segments, axis=0)])
    step = np.zeros(sums.shape)
    step[REACH:-REACH] = (sums[2 * REACH :] - 2 * sums[REACH:-REACH] + sums[: -2 * REACH]) / REACH
    most = MOST_STEP * float(np.median(np.abs(step[REACH:-REACH])))
    step = np.clip(step, -most, most)
    return np.asarray((step[:, 1:] * step[:, :-1]).mean(axis=1))


def seams(steps: Array, noisy: Array, denoised: Array) -> list[int]:
    """Return the places of seams.

    Parameters
    ----------
    steps
        :func:`shared_steps`, summed over slices.
    noisy, denoised
        :func:`roughness` of both stacks, summed over slices.
    """
    inside = steps[REACH:-REACH]
    above = steps - np.median(inside)
    # An ordinary seam stands above all others; rounding alone leaves nothing to compare with.
    usual = 1.4826 * np.median(np.abs(inside - np.median(inside)))
    stepped = above > max(STEP_ERRORS * usual, 1e-12)
    stepped &= above == ndimage.maximum_filter1d(above, 2 * REACH + 1)
    before, after = rise(noisy), rise(denoised)
    usual_before, usual_after = (
        1.4826 * np.median(np.abs(rough), axis=1, keepdims=True) for rough in (before, after)
    )
    rougher = (after > np.maximum(ROUGHER_ERRORS * usual_after, ROUGHER)).all(axis=0)
    # What the noisy stack shows as well was recorded so, such as the seam of a mosaic.
    rougher &= ~(before > RECORDED_ERRORS * usual_before).all(axis=0)
    places = sorted({*np.flatnonzero(stepped).tolist(), *(np.flatnonzero(rougher) + 1).tolist()})
    # Both may find one seam, a pixel apart.
    return [
        place
        for number, place in enumerate(places)
        if number == 0 or place - places[number - 1] > REACH
    ]


def rise(steps: Array) -> Array:
    """Return by what share each step is larger than those around it, (2, N)."""
    usual = ndimage.median_filter(steps, (1, AROUND), mode="reflect")
    return np.divide(steps, usual, out=np.ones_like(steps), where=usual > 0) - 1
