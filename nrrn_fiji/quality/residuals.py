"""Is there structure in what a denoiser removed?  Numbers that need no clean image.

A denoised stack looks clean whatever it lost, so the *difference* from the noisy one is looked at.
The key is another slice a few slices away: its structure is much the same, but its noise is
independent, and no noisy slice went into both results if it is far enough (three slices for the
NRRN, which sees a slice and its two neighbours).  So what agrees between the two is structure.

This module works on arrays and must never judge: :mod:`.assessment` does, and says why its
limits are where they are.  What the numbers cannot see: detail that changes completely from slice
to slice, because there the other slice knows nothing of it; and stripes that run through many
slices (curtains) are structure to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..resolution import Rings, spectrum

__all__ = ["APART", "Detail", "detail", "local_correlation", "shared", "shared_power"]

Array = NDArray[np.float64]

APART = 3
"""Slices between two results of the NRRN that have no noisy slice in common."""

TILE = 32
"""Edge in pixels of the tiles in which removed and kept are correlated."""

EMPTY = 1e-3
"""Share of its power below which a ring counts as emptied."""


@dataclass(frozen=True)
class Detail:
    """What two slices a few slices apart tell on rings of spatial frequency."""

    frequency: Array
    """Cycles per pixel."""
    before: Array
    """Fourier ring correlation of the two noisy slices."""
    after: Array
    """The same of the two denoised slices.  A linear filter leaves it as it was; it rises only if
    noise goes and structure stays.  NaN on rings from which nearly everything was removed: what is
    found there has leaked from other rings."""
    kept: Array
    """Share of the structure's amplitude that the denoised image still has: 1 for untouched, 0 for
    gone.  Of a linear filter it is the transfer function.  NaN on rings where the noisy slices do
    not agree, so that nothing is known."""

    def kept_at(self, period: float) -> float:
        """Return the share of detail of about a period in pixels that was kept; NaN if unknown."""
        near = (self.frequency > 0.8 / period) & (self.frequency < 1.25 / period)
        known = near & np.isfinite(self.kept)
        # Half of the rings at least, or chance chooses.
        enough = known.sum() * 2 >= max(near.sum(), 1)
        return float(np.mean(self.kept[known])) if enough else float("nan")

    def gain(self) -> float:
        """Return by how much the correlation rose, averaged over the rings."""
        known = np.isfinite(self.after)
        return float((self.after - self.before)[known].mean()) if known.any() else 0.0


def detail(noisy: Array, noisy_far: Array, denoised: Array, denoised_far: Array) -> Detail:
    """Compare pairs of slices, noisy and denoised; see :class:`Detail`.

    The share that was kept is the regression of the denoised on the noisy spectrum with the far
    noisy slice as the instrument, <Y Z*> / <X Z*>: the noise of X is not in Z, so it cancels.

    Parameters
    ----------
    noisy, denoised
        (N, Y, X), at least 32 × 32 pixels, finite.
    noisy_far, denoised_far
        The slices :data:`APART` slices away from these, in the same order.

    Raises
    ------
    ValueError
        If shapes differ or slices are too small.
    """
    shapes = {np.shape(a) for a in (noisy, noisy_far, denoised, denoised_far)}
    if len(shapes) > 1 or noisy.ndim != 3:
        raise ValueError(
            f"The stacks have the shapes {sorted(shapes)}, but all four must be (N, Y, X) of one "
            "shape: cut them alike."
        )
    rings = Rings((noisy.shape[1], noisy.shape[2]))
    names = ("xz", "xx", "zz", "yw", "yy", "ww", "yz", "wx")
    sums = {name: np.zeros(rings.size) for name in names}
    for slices in zip(noisy, noisy_far, denoised, denoised_far, strict=True):
        at = dict(zip("xzyw", (spectrum(image) for image in slices), strict=True))
        for name in names:
            sums[name] += rings.sums((at[name[0]] * at[name[1]].conj()).real)
    count = rings.count * len(noisy)

    def ratio(top: Array, square: Array) -> Array:
        power = np.sqrt(square)
        return np.divide(top, power, out=np.zeros(rings.size), where=power > 0)

    before = ratio(sums["xz"], sums["xx"] * sums["zz"])
    after = ratio(sums["yw"], sums["yy"] * sums["ww"])
    after[sums["yy"] + sums["ww"] < EMPTY * (sums["xx"] + sums["zz"])] = np.nan
    # Agreement by chance is 1 / sqrt(2 count): five times as much is structure.
    known = before > np.maximum(5 / np.sqrt(2 * count), 0.02)
    kept = np.full(rings.size, np.nan)
    kept[known] = ((sums["yz"] + sums["wx"]) / 2)[known] / sums["xz"][known]
    return Detail(rings.frequency, before, after, kept)


def shared(removed: Array, removed_far: Array) -> float:
    """Return the correlation of what was removed from two slices that share no noise.

    Parameters
    ----------
    removed, removed_far
        (N, Y, X): noisy minus denoised, of slices and of those a few slices away.

    Returns
    -------
    float
        0 if only noise was removed; else about the share of the removed power that is structure
        (a lower bound, as structure changes from slice to slice).  0 if nothing was removed.
    """
    one = removed - removed.mean(axis=(1, 2), keepdims=True)
    other = removed_far - removed_far.mean(axis=(1, 2), keepdims=True)
    power = float(np.sqrt((one**2).mean() * (other**2).mean()))
    return float((one * other).mean()) / power if power > 0 else 0.0


def shared_power(one: Array, other: Array) -> tuple[float, float]:
    """Return the covariance of two stacks of slices, and its standard error.

    Parameters
    ----------
    one, other
        (N, Y, X), at least 32 × 32 pixels.

    Returns
    -------
    covariance, error
        In grey values squared; the error from how much tiles of 32 × 32 pixels differ.
    """
    moved = [image - image.mean(axis=(1, 2), keepdims=True) for image in (one, other)]
    product = moved[0] * moved[1]
    tiles = np.stack([in_tiles(image).mean(axis=2) for image in product])
    return float(product.mean()), float(tiles.std() / np.sqrt(tiles.size))


def in_tiles(image: Array) -> Array:
    """Return the tiles of a slice, (Y // 32, X // 32, 1024)."""
    rows, columns = (edge // TILE for edge in image.shape)
    cut = image[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE)
    return cut.swapaxes(1, 2).reshape(rows, columns, TILE * TILE)


def local_correlation(removed: Array, denoised: Array) -> Array:
    """Return the correlation coefficient of removed and kept grey values in tiles of a slice.

    Parameters
    ----------
    removed, denoised
        (Y, X), finite.

    Returns
    -------
    ndarray
        (Y // 32, X // 32), -1 … 1.  About 0 where noise was removed and structure kept; above 0
        where contrast was lost, or where noise was removed in part; NaN where a tile is constant.
    """
    one, other = (in_tiles(np.asarray(image, np.float64)) for image in (removed, denoised))
    one = one - one.mean(axis=2, keepdims=True)
    other = other - other.mean(axis=2, keepdims=True)
    power = np.sqrt((one**2).mean(axis=2) * (other**2).mean(axis=2))
    # Rounding leaves something in place of 0.
    known = power > 1e-12 * max(float(np.abs(other).max(initial=0)) ** 2, 1e-300)
    return np.divide(
        (one * other).mean(axis=2), power, out=np.full(power.shape, np.nan), where=known
    )
