"""Repeated scans of one slice: where each of them lies, and the robust average of all.

A microscope that scans a slice ten times drifts meanwhile, so the scans are laid onto each other
before they are averaged, or before a network learns from them.  Positions are searched on copies
that are smoothed and freed of shading, because noise would lead the search astray; the pixels that
are handed back come from the scans themselves, each interpolated exactly once.

This module must never smooth what it hands back, never move the frame of the reference scan, and
never leave a scan out without saying so.

The search is that of TurboReg (Thévenaz, Ruttimann & Unser 1998, *IEEE Trans. Image Process.* 7,
27–41), through pystackreg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .intensity import check_dtype, fill_invalid, invalid_mask
from .progress import Cancelled, NoProgress, Progress
from .scan_average import AVERAGES, average_scans, check_choice
from .stack_checks import band_pass, shift_between

__all__ = [
    "TRANSFORMS",
    "Placement",
    "Registration",
    "median_placement",
    "place_scans",
    "register_scans",
    "resample",
]

TRANSFORMS = ("affine", "rigid", "translation")

SMOOTHING = 1.5
"""Standard deviation in pixels of the smoothing before the search.  With Gaussian noise of sigma
25 the error of a single pair is about half of what it is without."""

ROUNDS = (512, 512, 1024)
"""Longest side in pixels at which each round of the search works; larger scans are binned, which
takes noise away as fast as it costs resolution."""

COARSE = 256
"""Longest side at which the first guess of a shift is made."""

AGREEMENT = 0.25
"""Correlation, after a shift, from which two smoothed scans count as scans of one place."""

UNFIT, UNFIT_SHARE = 0.2, 0.6
"""A scan does not fit if its correlation with the others is below either: the first, or this
share of what the scans usually have."""

LARGEST_SHIFT = 0.25
"""Largest shift of a scan that fits, as a share of the shorter side."""

LARGEST_CHANGE = 0.1
"""Largest turn (in radians), stretch and shear of a scan that fits."""

Array = NDArray[Any]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Placement:
    """Where the scans of one slice lie."""

    transforms: Matrix
    """(S, 3, 3): maps a place (x, y, 1) of the reference scan, in pixels from the centre of its
    first pixel, to the same place in each scan."""
    shifts: Matrix
    """(S, 2): (dy, dx) in pixels by which the centre of the image has moved in each scan; for
    these transforms also the mean over the whole image."""
    correlation: Matrix
    """(S,): of each smoothed scan with the mean of the others, -1 … 1."""
    rejected: Mapping[int, str]
    """Why scans do not fit, by their number; they take no part in an average."""
    reference: int
    """The scan whose frame is kept."""

    @property
    def kept(self) -> tuple[int, ...]:
        """The scans that fit."""
        return tuple(i for i in range(len(self.transforms)) if i not in self.rejected)


@dataclass(frozen=True)
class Registration:
    """Scans of one slice, laid onto each other."""

    placement: Placement
    aligned: NDArray[np.float32]
    """(kept scans, Y, X), in the order of :attr:`Placement.kept`; NaN where a scan has no data."""
    average: NDArray[np.float32]
    """(Y, X); NaN where no scan has data."""
    clipped: float
    """Share of the pixels that were left out as outliers."""


def register_scans(
    scans: Sequence[Array] | Array,
    transform: str = "affine",
    average: str = "clipped",
    *,
    progress: Progress | None = None,
) -> Registration:
    """Lay repeated scans of one slice onto each other, and average them.

    Parameters
    ----------
    scans
        (S, Y, X), at least two; (u)int8, (u)int16, float32 or float64.
    transform
        "affine", "rigid" (shift and turn) or "translation".
    average
        "clipped", "mean" or "median"; see :func:`average_scans`.
    progress
        Told of each scan, and asked whether to stop.

    Returns
    -------
    Registration

    Raises
    ------
    ValueError, TypeError
        If the scans cannot be laid onto each other; the message says why.
    ModuleNotFoundError
        If pystackreg is not installed; the message says how to get it.
    Cancelled
        When the user stops.
    """
    check_choice("average", average, AVERAGES)
    placement = place_scans(scans, transform, progress=progress)
    aligned = np.stack([resample(scans[i], placement.transforms[i]) for i in placement.kept])
    mean, clipped = average_scans(aligned, average)
    return Registration(placement, aligned, mean, clipped)


def place_scans(
    scans: Sequence[Array] | Array,
    transform: str = "affine",
    *,
    progress: Progress | None = None,
) -> Placement:
    """Find where each of several scans of one slice lies.

    The first scan is the reference, unless fewer than half of the others resemble it; then it is
    the scan that most resemble.  Every scan is laid onto the reference, and then twice onto the
    mean of the *other* scans that fit, which is less noisy than any scan and does not hold the
    noise of the scan itself.

    Parameters, exceptions
        As for :func:`register_scans`.

    Returns
    -------
    Placement

    Notes
    -----
    A scan does not fit if its correlation with the others is below 0.2 or below 0.6 of what is
    usual, or if it has moved by more than a quarter of the shorter side, or is turned or stretched
    by more than a tenth.
    """
    check_scans(scans)
    check_choice("transform", transform, TRANSFORMS)
    search = turboreg(transform)
    progress = NoProgress() if progress is None else progress
    count, shape = len(scans), scans[0].shape
    total = count * len(ROUNDS)
    reference, matrices = first_guess(scans)
    rejected: dict[int, str] = {}
    correlation = np.ones(count)
    works: list[NDArray[np.float32]] = []
    factor = 0
    for number, longest in enumerate(ROUNDS):
        if factor != (factor := max(1, -(-max(shape) // longest))):
            works = [prepared(scan, factor) for scan in scans]
        small = [scaled(matrix, 1 / factor) for matrix in matrices]
        others = Others(works, small, rejected, only=reference if number == 0 else None)
        for i in range(count):
            if progress.cancelled:
                raise Cancelled("Stopped: nothing was written.")
            if i not in rejected and not (number == 0 and i == reference):
                small[i] = refined(search, others.without(i), works[i], small[i])
            progress.update(number * count + i + 1, total)
        # The reference has moved too: it is brought back, and all the others with it.
        back = np.linalg.inv(small[reference])
        small = [np.eye(3) if i == reference else m @ back for i, m in enumerate(small)]
        matrices = [scaled(matrix, factor) for matrix in small]
        found = agreement(works, small, rejected, reference if number == 0 else None)
        correlation = np.where([i in rejected for i in range(count)], correlation, found)
        rejected |= unfit(matrices, correlation, rejected, shape, reference)
        check_kept(count, rejected)
    transforms = np.stack(matrices)
    return Placement(transforms, shifts_of(transforms, shape), correlation, rejected, reference)


def median_placement(
    placements: Sequence[Placement], shape: tuple[int, ...], *, rigid: bool
) -> Placement:
    """Return the one placement that several slices of the same scans agree on.

    Parameters
    ----------
    placements
        One per slice that was looked at.
    shape
        (Y, X) of the slices.
    rigid
        Keep the transforms free of stretch and shear.

    Returns
    -------
    Placement
        Medians over the slices, of shifts of the centre and of what turns and stretches; a scan is
        rejected if it is in half of the slices or more.  The reference is the most frequent one.

    Raises
    ------
    ValueError
        If fewer than two scans, or fewer than half, are left.
    """
    count = len(placements[0].transforms)
    numbers = [p.reference for p in placements]
    reference = max(set(numbers), key=lambda i: (numbers.count(i), -i))
    rejected = {}
    transforms = np.stack([np.eye(3)] * count)
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    # All in the frame of one reference.
    framed = [p.transforms @ np.linalg.inv(p.transforms[reference]) for p in placements]
    for i in range(count):
        out = [p.rejected[i] for p in placements if i in p.rejected]
        if 2 * len(out) >= len(placements):
            rejected[i] = out[0]
        good = [m[i] for m, p in zip(framed, placements, strict=True) if i not in p.rejected]
        good = good or [m[i] for m in framed]
        linear = np.median([m[:2, :2] for m in good], axis=0)
        if rigid:
            left, _, right = np.linalg.svd(linear)
            linear = left @ right
        shift = np.median([m[:2, :2] @ centre + m[:2, 2] - centre for m in good], axis=0)
        transforms[i, :2, :2] = linear
        transforms[i, :2, 2] = centre + shift - linear @ centre
    correlation = np.median([p.correlation for p in placements], axis=0)
    check_kept(count, rejected)
    return Placement(transforms, shifts_of(transforms, shape), correlation, rejected, reference)


def resample(scan: Array, matrix: Matrix) -> NDArray[np.float32]:
    """Return a scan in the frame of the reference.

    Parameters
    ----------
    scan
        (Y, X).
    matrix
        (3, 3), as in :attr:`Placement.transforms`.

    Returns
    -------
    ndarray
        (Y, X) float32; NaN where the scan has no data: outside of it, and where it is NaN or black
        border itself.

    Notes
    -----
    Cubic splines: a linear interpolation at half a pixel takes 30 % of the fine detail (and of the
    noise) away, differently for each scan; higher orders ring at noise and gain little.
    """
    values = np.asarray(scan, np.float64)
    invalid = invalid_mask(np.asarray(scan))
    if invalid is not None:
        if invalid.all():
            return np.full(values.shape, np.nan, np.float32)
        values = fill_invalid(values, invalid)
    if not np.array_equal(matrix, np.eye(3)):
        values = warped(values, matrix)
        if invalid is not None:
            # A pixel that any invalid one had a part in is invalid.
            invalid = warped(invalid.astype(np.float64), matrix, order=1) > 1e-6
    if invalid is not None:
        values[invalid] = np.nan
    return values.astype(np.float32)


# The search ---------------------------------------------------------------------------------------


def turboreg(transform: str) -> Any:
    """Return pystackreg's search for one kind of transform.

    Raises
    ------
    ModuleNotFoundError
        With a sentence, if pystackreg is not installed.
    """
    try:
        from pystackreg import StackReg
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Registering scans needs pystackreg, which is not installed: "
            "pip install 'nrrn-fiji[register]' (or pip install pystackreg)."
        ) from error
    kinds = {
        "affine": StackReg.AFFINE,
        "rigid": StackReg.RIGID_BODY,
        "translation": StackReg.TRANSLATION,
    }
    return StackReg(kinds[transform])


def prepared(scan: Array, factor: int) -> NDArray[np.float32]:
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


def binned(image: Array, factor: int) -> NDArray[np.float32]:
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
    """Choose the reference, and guess the shift of each scan by cross-correlation."""
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
    """The mean of the aligned scans without one of them."""

    def __init__(
        self,
        works: Sequence[NDArray[np.float32]],
        matrices: Sequence[Matrix],
        rejected: Mapping[int, str],
        only: int | None,
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


def refined(search: Any, target: Matrix, work: NDArray[np.float32], start: Matrix) -> Matrix:
    """Return a better transform of a scan onto ``target``, beginning with ``start``."""
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


def warped(image: Array, matrix: Matrix, order: int = 3) -> Matrix:
    """Return an image (Y, X) resampled where ``matrix`` leads; NaN outside."""
    # scipy counts (y, x), the matrix (x, y).
    linear = matrix[:2, :2][::-1, ::-1]
    offset = matrix[:2, 2][::-1]
    result: Matrix = ndimage.affine_transform(
        image.astype(np.float64), linear, offset, order=order, mode="constant", cval=np.nan
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


# What fits ----------------------------------------------------------------------------------------


def agreement(
    works: Sequence[NDArray[np.float32]],
    matrices: Sequence[Matrix],
    rejected: Mapping[int, str],
    only: int | None,
) -> Matrix:
    """Return the correlation of each aligned scan with the mean of the others."""
    others = Others(works, matrices, rejected, only)
    found = np.zeros(len(works))
    for i, work in enumerate(works):
        if i == only:
            found[i] = np.nan
            continue
        own = others.aligned.get(i)
        found[i] = correlation_of(
            others.without(i), warped(work, matrices[i]) if own is None else own
        )
    if only is not None:
        found[only] = np.median(found[np.arange(len(found)) != only])
    return found


def correlation_of(one: Matrix, other: Matrix) -> float:
    """Return the correlation of two images where both are finite; 0 where there is none."""
    both = np.isfinite(one) & np.isfinite(other)
    a, b = one[both], other[both]
    if a.size < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else 0.0


def unfit(
    matrices: Sequence[Matrix],
    correlation: Matrix,
    rejected: Mapping[int, str],
    shape: tuple[int, ...],
    reference: int,
) -> dict[int, str]:
    """Say of each scan that does not fit, and is not rejected yet, why."""
    kept = [i for i in range(len(matrices)) if i not in rejected]
    usual = float(np.median(correlation[kept]))
    limit = max(UNFIT, UNFIT_SHARE * usual)
    reach = LARGEST_SHIFT * min(shape)
    found = {}
    for i in kept:
        dy, dx = shifts_of(matrices[i][np.newaxis], shape)[0]
        change = float(np.abs(matrices[i][:2, :2] - np.eye(2)).max())
        if correlation[i] < limit:
            found[i] = f"its correlation with the others is {correlation[i]:.2f}, usual {usual:.2f}"
        elif np.hypot(dy, dx) > reach:
            found[i] = f"it has moved by {np.hypot(dy, dx):.0f} px, more than {reach:.0f} px"
        elif change > LARGEST_CHANGE:
            found[i] = f"it is turned or stretched by {100 * change:.0f} %, more than 10 %"
    return found


def check_kept(count: int, rejected: Mapping[int, str]) -> None:
    """Raise a ValueError unless two scans, and half of them, fit."""
    kept = count - len(rejected)
    if kept < 2 or 2 * kept < count:
        raise ValueError(
            f"Only {kept} of {count} scans fit onto each other ({one_reason(rejected)}), but half "
            "of them must, and at least 2: check that all show the same slice, and leave out those "
            "that do not."
        )


def shifts_of(transforms: Matrix, shape: tuple[int, ...]) -> Matrix:
    """Return (dy, dx) of the centre of the image, (S, 2)."""
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2, 1.0])
    moved = transforms @ centre - centre
    return moved[:, 1::-1]


def one_reason(rejected: Mapping[int, str]) -> str:
    """Return the first reason, to stand in a sentence."""
    for number, reason in rejected.items():
        return f"of scan {number}, {reason}"
    return "none fits"


def check_scans(scans: Sequence[Array] | Array) -> None:
    """Refuse what is not at least two images of one size with grey values."""
    if len(scans) < 2:
        raise ValueError(
            f"There is {len(scans)} scan, but registration needs at least 2 of the same slice: "
            "give more."
        )
    for number, scan in enumerate(scans):
        check_dtype(scan.dtype, f"scan {number}")
        if scan.ndim != 2 or scan.shape != scans[0].shape:
            raise ValueError(
                f"scan {number} is {scan.shape}, but scan 0 is {scans[0].shape}, and all must be "
                "(Y, X) of one size: crop them alike first."
            )
    if min(scans[0].shape) < 64:
        raise ValueError(
            f"The scans are {scans[0].shape}, but registration needs at least 64 x 64 pixels: "
            "give larger images."
        )
