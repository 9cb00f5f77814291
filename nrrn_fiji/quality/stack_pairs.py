"""A noisy stack and its denoised form, slice by slice.

What compares both reads them here, so that padding is left out and memory stays bounded in one
place.  This module must never read more than a slice of each at a time, and never measure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..intensity import Source, fill_invalid, invalid_mask

__all__ = ["WINDOW", "Both", "Middle", "middle_part", "whole"]

Array = NDArray[np.float64]

WINDOW = 768
"""Edge in pixels of the part in the middle of a slice that spectra and patches are taken from:
of 32 slices these are 150 MB."""


class Middle(NamedTuple):
    """The middle of a noisy and of a denoised slice, as float64, holes filled."""

    noisy: Array
    denoised: Array
    valid: NDArray[np.bool_] | None
    """Where both hold an image; None for everywhere."""


class Both:
    """Both stacks, slice by slice."""

    def __init__(self, noisy: Source, denoised: Source):
        if tuple(noisy.shape) != tuple(denoised.shape):
            raise ValueError(
                f"The denoised stack is {tuple(denoised.shape)} (Z, Y, X), but the noisy one is "
                f"{tuple(noisy.shape)}: give a stack and its own denoised form."
            )
        self.noisy, self.denoised = noisy, denoised
        self.shape = noisy.shape

    def read(self, z: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_] | None]:
        """Return a noisy slice and the denoised one, in their own types, and where both are valid;
        None for everywhere."""
        one, other = (s.read(z, z + 1)[0] for s in (self.noisy, self.denoised))
        masks = [m for m in map(invalid_mask, (one, other)) if m is not None]
        return one, other, ~np.logical_or.reduce(masks) if masks else None

    def middle(self, z: int) -> Middle:
        """Return the middle of both slices."""
        one, other, valid = self.read(z)
        part = middle_part(one.shape)
        inside = None if valid is None else valid[part].copy()
        holes = None if inside is None else ~inside
        return Middle(whole(one[part], holes), whole(other[part], holes), inside)


def middle_part(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the middle of a slice (Y, X), at most :data:`WINDOW` pixels wide and high."""
    y, x = ((edge - min(edge, WINDOW)) // 2 for edge in shape)
    return slice(y, y + WINDOW), slice(x, x + WINDOW)


def whole(image: NDArray[Any], invalid: NDArray[np.bool_] | None) -> Array:
    """Return a copy as float64 without holes; all 0 if nothing is valid."""
    if invalid is None or not invalid.any():
        return np.array(image, np.float64)
    if invalid.all():
        return np.zeros(image.shape)
    return np.asarray(fill_invalid(image, invalid), np.float64)
