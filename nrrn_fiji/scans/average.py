"""The robust average of scans that lie on each other.

This module must never smooth: a pixel of the average comes from that pixel of the scans alone, and
its neighbours only say how strong the noise is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..settings import AVERAGES

__all__ = ["as_type", "average_scans", "check_choice"]

Array = NDArray[Any]

CLIP, COMMON = 1.5, 0.99
"""A pixel of one scan is left out if it is so many times further from the median than this share
of the pixels around: with Gaussian noise, 3.9 standard deviations."""

ROUNDING = 1e-6
"""Share of the grey value: a smaller difference is rounding of float32, and no outlier."""

TILE = 16
"""Pixels: edge of the squares over which the noise is taken as equally strong."""


def average_scans(aligned: NDArray[np.float32], method: str = "clipped") -> tuple[Array, float]:
    """Average aligned scans pixel by pixel, over those that have data there.

    Parameters
    ----------
    aligned
        (S, Y, X) float, NaN where a scan has no data.
    method
        "mean"; "median"; or "clipped": the mean without the values that lie much further from the
        median than others do around there, which takes away sparks, dirt and charging that one
        scan alone shows and keeps the rest, so that as little noise is left as after a mean.  All
        scans have the same weight.  With two scans nothing can tell which is the outlier: it is
        the mean.

    Returns
    -------
    average, clipped
        (Y, X) float32, NaN where no scan has data, and the share of the values that was left out.

    Notes
    -----
    What is usual is the 99 % quantile of the distances from the median of the scans, over a square
    of 16 pixels, for each scan; of these the middle one among the scans counts, so that a patch of
    dirt in one scan says nothing about the noise.  The limit is 1.5 times as much.  Neither a
    standard deviation nor a median of the distances would do where most pixels have no photon at
    all: a single photon would be an outlier, and the average black.
    """
    check_choice("average", method, AVERAGES)
    result = np.empty(aligned.shape[1:], np.float32)
    left_out = total = 0
    for start in range(0, len(result), TILE):
        rows = slice(start, start + TILE)
        part = aligned[:, rows].astype(np.float64)
        valid = np.isfinite(part)
        total += int(valid.sum())
        if method == "clipped" and len(part) > 2:
            keep = valid & ~outliers(part, valid)
            left_out += int(valid.sum() - keep.sum())
            valid = keep
        empty = ~valid.any(axis=0)
        if method == "median":
            result[rows] = middle_of(part, valid)
        else:
            sums = np.where(valid, part, 0.0).sum(axis=0)
            result[rows] = sums / np.maximum(valid.sum(axis=0), 1)
        result[rows][empty] = np.nan
    return result, left_out / max(total, 1)


def as_type(image: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Array:
    """Return grey values (Y, X) as another type.

    For integer types they are rounded and held at the ends of the type, and NaN becomes 0, which
    :func:`nrrn_fiji.intensity.invalid_mask` takes for a border without data.
    """
    if dtype.kind not in "iu":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    values = np.rint(np.nan_to_num(image, nan=0.0))
    return np.clip(values, limits.min, limits.max).astype(dtype)


def outliers(part: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which values of (S, rows, X) lie too far from the median over the scans.

    Where fewer than three scans have data, none does.
    """
    known = valid & (valid.sum(axis=0) >= 3)
    middle = middle_of(part, known)
    away = np.where(known, np.abs(part - middle), np.inf)
    count, rows, width = part.shape
    tiles = -(-width // TILE)
    padded = np.full((count, rows, tiles * TILE), np.inf)
    padded[..., :width] = away
    squares = padded.reshape(count, rows, tiles, TILE).swapaxes(1, 2).reshape(count, tiles, -1)
    squares.sort(axis=2)
    numbers = np.isfinite(squares).sum(axis=2)
    last = np.maximum(np.ceil(COMMON * numbers).astype(int) - 1, 0)
    # Scans without data in a square are infinite here: they come last, and do not count.
    common = np.sort(np.take_along_axis(squares, last[..., np.newaxis], axis=2)[..., 0], axis=0)
    scans = np.maximum((numbers > 0).sum(axis=0), 1)
    usual = np.take_along_axis(common, (scans - 1)[np.newaxis] // 2, axis=0)[0]
    limit = np.repeat(CLIP * usual, TILE)[:width]
    result: NDArray[np.bool_] = known & (away > np.maximum(limit, ROUNDING * np.abs(middle)))
    return result


def middle_of(part: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median over the first axis of the valid values; 0 where there is none."""
    if valid.all():
        middle: NDArray[np.float64] = np.median(part, axis=0)
        return middle
    filled = np.where(valid, part, np.nan)
    filled[:, ~valid.any(axis=0)] = 0.0
    middle = np.nanmedian(filled, axis=0)
    return middle


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not among the choices."""
    if value not in choices:
        raise ValueError(
            f"{name} is {value!r}, but it must be one of {', '.join(choices)}: choose one."
        )
