"""The robust average of scans that lie on each other.

This module must never smooth: a pixel of the average comes from that pixel of the scans alone, and
its neighbours only say how strong the noise is.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["AVERAGES", "as_type", "average_scans", "check_choice"]

Array = NDArray[Any]
Matrix = NDArray[np.float64]

AVERAGES = ("clipped", "mean", "median")

CLIP = 3.5
"""Standard deviations from the median beyond which a pixel of one scan is left out."""

ROUNDING = 1e-4
"""Grey values: a smaller difference is no outlier, whatever the noise."""

CLIP_TILE = 16
"""Pixels: edge of the squares over which the noise is taken as equally strong."""


def average_scans(aligned: NDArray[np.float32], method: str = "clipped") -> tuple[Array, float]:
    """Average aligned scans pixel by pixel, over those that have data there.

    Parameters
    ----------
    aligned
        (S, Y, X) float, NaN where a scan has no data.
    method
        "mean"; "median"; or "clipped": the mean of the values within 3.5 standard deviations of the
        median, which takes away sparks, dirt and charging that one scan alone shows and keeps the
        rest, so that as little noise is left as after a mean.  The standard deviation is that of
        the noise around (from the median absolute deviation among scans, its median over squares
        of 16 pixels), since that of so few values at one pixel would be swollen by the outlier
        itself.  All scans have the same weight.  With two scans nothing can tell which is the
        outlier: it is the mean.

    Returns
    -------
    average, clipped
        (Y, X) float32, NaN where no scan has data, and the share of the values that was left out.
    """
    check_choice("average", method, AVERAGES)
    result = np.empty(aligned.shape[1:], np.float32)
    left_out = 0
    for start in range(0, len(result), CLIP_TILE):
        rows = slice(start, start + CLIP_TILE)
        part = aligned[:, rows].astype(np.float64)
        valid = np.isfinite(part)
        if method == "clipped" and len(part) > 2:
            keep = valid & ~outliers(part, valid)
            left_out += int(valid.sum() - keep.sum())
            valid = keep
        empty = ~valid.any(axis=0)
        if method == "median":
            result[rows] = middle_of(part, valid)
        else:
            total = np.where(valid, part, 0.0).sum(axis=0)
            result[rows] = total / np.maximum(valid.sum(axis=0), 1)
        result[rows][empty] = np.nan
    return result, left_out / aligned.size


def as_type(image: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Array:
    """Return grey values as another type.

    For integer types they are rounded and held at the ends of the type, and NaN becomes 0, which
    :func:`nrrn_fiji.intensity.invalid_mask` takes for a border without data.
    """
    if dtype.kind not in "iu":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    values = np.rint(np.nan_to_num(image.astype(np.float64), nan=0.0))
    return np.clip(values, limits.min, limits.max).astype(dtype)


def outliers(part: Matrix, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which values of (S, rows, X) lie too far from the median over the scans."""
    count = valid.sum(axis=0)
    enough = count >= 3
    away = np.where(valid & enough, np.abs(part - middle_of(part, valid & enough)), np.nan)
    deviation = middle_of(away, np.isfinite(away))
    # As a standard deviation: a median of few deviations is smaller than that of many.
    factors = np.array([typical_deviation(n) for n in range(len(part) + 1)])
    deviation = np.where(enough, deviation / factors[count], np.nan)
    limit = np.empty(part.shape[2])
    for start in range(0, len(limit), CLIP_TILE):
        tile = deviation[:, start : start + CLIP_TILE]
        known = tile[np.isfinite(tile)]
        limit[start : start + CLIP_TILE] = CLIP * np.median(known) if known.size else np.inf
    # Where the scans agree to the last digit (saturated areas), rounding is no outlier.
    result: NDArray[np.bool_] = np.nan_to_num(away, nan=0.0) > np.maximum(limit, ROUNDING)
    return result


def middle_of(part: Matrix, valid: NDArray[np.bool_]) -> Matrix:
    """Return the median over the first axis of the valid values; 0 where there is none."""
    if valid.all():
        middle: Matrix = np.median(part, axis=0)
        return middle
    none = ~valid.any(axis=0)
    filled = np.where(valid, part, np.nan)
    filled[:, none] = 0.0
    middle = np.nanmedian(filled, axis=0)
    return middle


@functools.cache
def typical_deviation(count: int) -> float:
    """Return the median of the median absolute deviation of Gaussian samples of this size, in
    standard deviations; 0.6745 for large samples."""
    if count < 3:
        return 1.0
    sample = np.random.default_rng(0).standard_normal((count, 20_001))
    return float(np.median(stats.median_abs_deviation(sample, axis=0)))


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(choices)}.")
