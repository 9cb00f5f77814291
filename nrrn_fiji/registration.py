"""Repeated scans of one slice: where each of them lies, and the robust average of all.

A microscope that scans a slice ten times drifts meanwhile, so the scans are laid onto each other
before they are averaged, or before a network learns from them.  Where they lie is found by
:mod:`nrrn_fiji.scans.search`; the pixels that are handed back come from the scans themselves, each
interpolated exactly once.

This module must never smooth what it hands back, never move the frame of the reference scan, and
never leave a scan out without saying so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intensity import check_dtype, fill_invalid, invalid_mask
from .progress import Cancelled, NoProgress, Progress
from .scans.average import average_scans, check_choice
from .scans.search import Image, Others, first_guess, prepared, refined, scaled, turboreg, warped
from .settings import AVERAGES, TRANSFORMS

__all__ = [
    "Placement",
    "Registration",
    "align_scans",
    "median_placement",
    "place_scans",
    "register_scans",
    "resample",
]

ROUNDS = (512, 512, 1024)
"""Longest side in pixels at which each round of the search works; larger scans are binned, which
takes noise away as fast as it costs resolution."""

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
    aligned: Image
    """(kept scans, Y, X), in the order of :attr:`Placement.kept`; NaN where a scan has no data."""
    average: Image
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
        Told of each scan whose place is found, and asked whether to stop.

    Returns
    -------
    Registration

    Raises
    ------
    ValueError, TypeError
        If the scans cannot be laid onto each other; the message says why.
    ImportError
        If pystackreg is not installed; the message says how to get it.
    Cancelled
        When the user stops.
    """
    check_choice("average", average, AVERAGES)
    placement = place_scans(scans, transform, progress=progress)
    aligned = align_scans(scans, placement, progress=progress)
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
    works: list[Image] = []
    before = 0
    for number, longest in enumerate(ROUNDS):
        factor = max(1, -(-max(shape) // longest))
        if factor != before:
            works, before = [prepared(scan, factor) for scan in scans], factor
        small = [scaled(matrix, 1 / factor) for matrix in matrices]
        only = reference if number == 0 else None
        others = Others(works, small, rejected, only)
        for i in range(count):
            if progress.cancelled:
                raise Cancelled("Stopped: nothing was written.")
            if i not in rejected and i != only:
                small[i] = refined(search, others.without(i), works[i], small[i])
            progress.update(number * count + i + 1, total)
        # The reference has moved too: it is brought back, and all the others with it.
        back = np.linalg.inv(small[reference])
        small = [np.eye(3) if i == reference else m @ back for i, m in enumerate(small)]
        matrices = [scaled(matrix, factor) for matrix in small]
        others = Others(works, small, rejected, only)
        fitting = [i for i in range(count) if i not in rejected and i != only]
        for i in fitting:
            correlation[i] = others.agreement(i, works[i], small[i])
        if only is not None:
            correlation[only] = np.median(correlation[fitting])
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
    # All in the frame of one reference, and none from where it is not known where that lies.
    sure = [p for p in placements if reference not in p.rejected] or placements
    framed = [p.transforms @ np.linalg.inv(p.transforms[reference]) for p in sure]
    for i in range(count):
        out = [p.rejected[i] for p in placements if i in p.rejected]
        if 2 * len(out) >= len(placements):
            rejected[i] = out[0]
        good = [m[i] for m, p in zip(framed, sure, strict=True) if i not in p.rejected]
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


def align_scans(
    scans: Sequence[Array] | Array, placement: Placement, *, progress: Progress | None = None
) -> Image:
    """Return the scans that fit in the frame of the reference.

    Parameters
    ----------
    scans
        (S, Y, X).
    placement
        Where they lie.
    progress
        Asked before each scan whether to stop.

    Returns
    -------
    ndarray
        (kept scans, Y, X) float32; NaN where a scan has no data.

    Raises
    ------
    Cancelled
        When the user stops.
    """
    aligned = np.empty((len(placement.kept), *scans[0].shape), np.float32)
    for image, number in zip(aligned, placement.kept, strict=True):
        if progress is not None and progress.cancelled:
            raise Cancelled("Stopped: nothing was written.")
        image[:] = resample(scans[number], placement.transforms[number])
    return aligned


def resample(scan: Array, matrix: Matrix) -> Image:
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
    values = np.asarray(scan)
    invalid = invalid_mask(values)
    if invalid is not None:
        if invalid.all():
            return np.full(values.shape, np.nan, np.float32)
        values = fill_invalid(values, invalid)
    if np.array_equal(matrix, np.eye(3)):
        result = values.astype(np.float32)
    else:
        result = warped(values, matrix)
        if invalid is not None:
            # A pixel that any invalid one had a part in is invalid.
            invalid = warped(invalid.astype(np.float32), matrix, order=1) > 1e-6
    if invalid is not None:
        result[invalid] = np.nan
    return result


# What fits ----------------------------------------------------------------------------------------


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
