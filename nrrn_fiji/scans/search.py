"""The search for the place of a scan: what it looks at, and how a guess becomes a transform.

Positions are searched on copies that are binned, smoothed and freed of shading, because noise would
lead the search astray.  This module must never hand such a copy out as a picture, and never decide
whether a scan fits: that is :mod:`nrrn_fiji.registration`.

The search is that of TurboReg (Thévenaz, Ruttimann & Unser 1998, *IEEE Trans. Image Process.* 7,
27–41), through pystackreg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..intensity import fill_invalid, invalid_mask
from ..shifts import band_pass, correlation, shift_between

__all__ = ["Others", "first_guess", "prepared", "refined", "scaled", "turboreg", "warped"]

SMOOTHING = 1.5
"""Standard deviation in pixels of the smoothing before the search.  With Gaussian noise of sigma
25 the error of a single pair is about half of what it is without."""

COARSE = 256
"""Longest side at which the first guess of a shift is made."""

AGREEMENT = 0.25
"""Correlation, after a shift, from which two smoothed scans count as scans of one place."""

Array = NDArray[Any]
Image = NDArray[np.float32]
Matrix = NDArray[np.float64]


def turboreg(transform: str) -> Any:
    """Return pystackreg's search for one kind of transform.

    Raises
    ------
    ImportError
        With a sentence, if pystackreg is not installed or cannot be loaded.
    """
    try:
        from pystackreg import StackReg
    except ModuleNotFoundError as error:
        raise ImportError(
            "Registering scans needs pystackreg, which is not installed: "
            "pip install 'nrrn-fiji[register]' (or pip install pystackreg)."
        ) from error
    except ImportError as error:
        raise ImportError(
            f"Registering scans needs pystackreg, which is installed but cannot be loaded "
            f"({error}): pip install --force-reinstall pystackreg."
        ) from error
    kinds = {
        "affine": StackReg.AFFINE,
        "rigid": StackReg.RIGID_BODY,
        "translation": StackReg.TRANSLATION,
    }
    return StackReg(kinds[transform])


def prepared(scan: Array, factor: int) -> Image:
    """Return the copy of a scan that the search looks at.

    It is binned by ``factor``, smoothed, freed of shading, and has mean 0 and standard deviation 1
    over its valid pixels; elsewhere it is 0.
    """
    values = np.asarray(scan)
    invalid = invalid_mask(values)
    if invalid is not None:
        if invalid.all():
            return np.zeros(binned(values, factor).shape, np.float32)
        values = fill_invalid(values, invalid)
    work = band_pass(binned(values, factor), SMOOTHING)
    valid = np.ones(work.shape, np.bool_)
    if invalid is not None:
        valid = binned(invalid, factor) == 0
        if not valid.any():
            return np.zeros(work.shape, np.float32)
    work -= work[valid].mean()
    spread = float(work[valid].std())
    work /= spread or 1.0
    work[~valid] = 0.0
    return work


def binned(image: Array, factor: int) -> Image:
    """Return the means of squares of ``factor`` pixels; rows and columns left over are cut off."""
    if factor == 1:
        return image.astype(np.float32)
    height, width = (size // factor for size in image.shape)
    cut = image[: height * factor, : width * factor]
    squares = cut.reshape(height, factor, width, factor)
    return squares.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)


def scaled(matrix: Matrix, factor: float) -> Matrix:
    """Return a transform for an image magnified by ``factor``, pixel centres at whole numbers."""
    middle = (factor - 1) / 2
    grow = np.array([[factor, 0, middle], [0, factor, middle], [0, 0, 1.0]])
    result: Matrix = grow @ matrix @ np.linalg.inv(grow)
    return result


def first_guess(scans: Sequence[Array] | Array) -> tuple[int, list[Matrix]]:
    """Choose the reference, and guess the shift of each scan by cross-correlation.

    Returns
    -------
    reference, matrices
        The first scan that half of the others resemble, or the one that most resemble; and where
        each scan lies: unmoved if it does not resemble the reference.
    """
    factor = max(1, -(-max(scans[0].shape) // COARSE))
    works = [prepared(scan, factor) for scan in scans]
    count = len(works)
    best, chosen = -1.0, (0, [np.eye(3)] * count)
    for candidate in range(count):
        found = [shift_between(works[candidate], work) for work in works]
        fits = np.array([f.correlation for i, f in enumerate(found) if i != candidate])
        matrices = []
        for one in found:
            matrix = np.eye(3)
            if one.correlation >= AGREEMENT:
                matrix[:2, 2] = factor * one.dx, factor * one.dy
            matrices.append(matrix)
        if float(np.median(fits)) > best:
            best, chosen = float(np.median(fits)), (candidate, matrices)
        if 2 * int((fits >= AGREEMENT).sum()) >= count - 1:
            return candidate, matrices
    return chosen


class Others:
    """The mean of the aligned scans without one of them.

    Parameters
    ----------
    works
        What :func:`prepared` made of each scan.
    matrices
        Where they lie.
    rejected
        Those that take no part.
    only
        The one that alone takes part, where the places of the others are no more than guesses.
    """

    def __init__(
        self,
        works: Sequence[Image],
        matrices: Sequence[Matrix],
        rejected: Mapping[int, str],
        only: int | None = None,
    ):
        used = [i for i in range(len(works)) if i not in rejected and only in (None, i)]
        self.aligned = {i: warped(works[i], matrices[i]) for i in used}
        self.total = np.zeros(works[0].shape)
        self.count = np.zeros(works[0].shape)
        for image in self.aligned.values():
            self.total += np.nan_to_num(image, nan=0.0)
            self.count += np.isfinite(image)

    def without(self, number: int) -> Matrix:
        """Return the mean of all but one; NaN where there is none."""
        total, count = self.total, self.count
        if number in self.aligned and len(self.aligned) > 1:
            own = self.aligned[number]
            total = total - np.nan_to_num(own, nan=0.0)
            count = count - np.isfinite(own)
        result: Matrix = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return result

    def agreement(self, number: int, work: Image, matrix: Matrix) -> float:
        """Return the correlation of a scan with the mean of the others, where both have data."""
        mean, own = self.without(number), self.aligned.get(number)
        if own is None:
            own = warped(work, matrix)
        both = np.isfinite(mean) & np.isfinite(own)
        return correlation(mean[both], own[both]) if both.any() else 0.0


def refined(search: Any, target: Matrix, work: Image, start: Matrix) -> Matrix:
    """Return a better transform of a scan onto ``target``, beginning with ``start``.

    Parameters
    ----------
    search
        From :func:`turboreg`.
    target
        (Y, X), NaN where it has no data.
    work
        (Y, X), what :func:`prepared` made of the scan.
    start
        (3, 3), maps places of the target to places of ``work``.
    """
    moved = warped(work, start)
    box = common_box(np.isfinite(target) & np.isfinite(moved))
    if box is None:
        return start
    # What lies outside of both images is cut away: an edge of padding would be matched too.
    fixed, moving = np.nan_to_num(target[box]), np.nan_to_num(moved[box])
    if min(fixed.shape) < 32 or not fixed.std() or not moving.std():
        return start
    change = np.asarray(search.register(fixed, moving), np.float64)
    into = np.eye(3)
    into[:2, 2] = box[1].start, box[0].start
    result: Matrix = start @ into @ change @ np.linalg.inv(into)
    return result if np.isfinite(result).all() else start


def warped(image: Array, matrix: Matrix, order: int = 3) -> Image:
    """Return an image (Y, X) resampled where ``matrix`` leads, by splines; NaN outside."""
    # scipy counts (y, x), the matrix (x, y).
    linear = matrix[:2, :2][::-1, ::-1]
    offset = matrix[:2, 2][::-1]
    result: Image = ndimage.affine_transform(
        image, linear, offset, output=np.float32, order=order, mode="constant", cval=np.nan
    )
    return result


def common_box(valid: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Return a rectangle whose pixels are (nearly) all valid; None if there is none.

    Sides with most invalid pixels are cut first; holes that are left are for the caller to fill.
    """
    top, left = 0, 0
    bottom, right = valid.shape
    while top < bottom and left < right:
        part = valid[top:bottom, left:right]
        sides = [(~s).mean() for s in (part[0], part[-1], part[:, 0], part[:, -1])]
        worst = int(np.argmax(sides))
        if sides[worst] == 0:
            return slice(top, bottom), slice(left, right)
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return None
