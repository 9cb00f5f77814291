"""Variance and correlation of the noise in patches that were chosen for being flat.

Patches are chosen because the means of their blocks differ little.  By chance those of noise do
too, so what is measured in chosen patches is weaker, and less alike in neighbouring pixels, than
the noise is elsewhere; and so it is made by taking away each patch's own mean.  For normal noise
of a given correlation both effects can be worked out, and are undone here.  This module must never
choose patches: :mod:`nrrn_fiji.noise_statistics` does.

Source: the mean and covariance of normal variables of which some were selected, Pearson,
*Philosophical Transactions of the Royal Society A* 200, 1903 (see also Lawley, *Proceedings of the
Royal Society of Edinburgh A* 62, 1943).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import toeplitz

__all__ = ["BLOCK", "LAGS", "PATCH", "PatchNoise", "autocorrelation", "noise_of_patches"]

Array = NDArray[np.float64]

LAGS = (1, 2, 3)
"""Distances in pixels at which noise is compared; the noise of detectors reaches no further."""

PATCH, BLOCK = 16, 4
"""Edges in pixels of the patches, and of the blocks whose means tell how flat they are."""

ROUNDS = 12
"""How often the correction is worked out from what it gave; each halves what is wrong at least."""


@dataclass(frozen=True)
class PatchNoise:
    """The noise that patches were taken from, before they were chosen."""

    variance: float
    """In grey values squared."""
    x: Array
    """Correlation at the lags 1, 2, 3 along x."""
    y: Array
    """The same along y."""
    diagonal: float
    """Correlation of diagonal neighbours, (1, 1) and (1, -1)."""
    between: float
    """Variance of the means of blocks in a patch that such noise makes, over its own variance."""


@dataclass(frozen=True)
class Products:
    """Mean products of pixels of a patch: of each with itself, and with those at a few lags."""

    power: float
    x: Array
    y: Array
    diagonal: float


def autocorrelation(images: Array, axis: int, lag: int) -> float:
    """Return the correlation of pixels ``lag`` apart along an axis, of values of mean 0.

    Parameters
    ----------
    images
        Any number of axes; the mean is taken over all of them.
    axis
        Along which to shift.
    lag
        By how many pixels, at least 1.

    Returns
    -------
    float
        -1 … 1; 0 where nothing varies.
    """
    moved = np.moveaxis(images, axis, -1)
    one, other = moved[..., lag:], moved[..., :-lag]
    power = float((images**2).mean())
    return float((one * other).mean()) / power if power > 0 else 0.0


def noise_of_patches(patches: Array) -> PatchNoise:
    """Return variance and correlation of noise, from patches of it that were chosen for flatness.

    Parameters
    ----------
    patches
        (N, 16, 16), each without its mean, not all 0.

    Returns
    -------
    PatchNoise
        The correlation is taken to be that along x times that along y, and 0 beyond lag 3.
    """
    first = (patches[:, 1:, 1:] * patches[:, :-1, :-1]).mean()
    second = (patches[:, 1:, :-1] * patches[:, :-1, 1:]).mean()
    power = float((patches**2).mean())
    seen = Products(
        power,
        np.array([autocorrelation(patches, 2, lag) for lag in LAGS]) * power,
        np.array([autocorrelation(patches, 1, lag) for lag in LAGS]) * power,
        float(first + second) / 2,
    )
    edge = PATCH // BLOCK
    means = patches.reshape(-1, edge, BLOCK, edge, BLOCK).mean(axis=(2, 4)).reshape(-1, edge**2)
    covariance = means.T @ means / len(means)
    true = seen
    between = 0.0
    for _ in range(ROUNDS):
        y, x = (_along(lags / true.power) for lags in (true.y, true.x))
        noise: Array = np.asarray(true.power * np.kron(y, x), np.float64)
        expected, share = _chosen(noise, covariance)
        between = share / true.power
        whole = _products(noise)
        true = Products(
            seen.power + whole.power - expected.power,
            seen.x + whole.x - expected.x,
            seen.y + whole.y - expected.y,
            seen.diagonal + whole.diagonal - expected.diagonal,
        )
    return PatchNoise(
        variance=true.power,
        x=true.x / true.power,
        y=true.y / true.power,
        diagonal=true.diagonal / true.power,
        between=between,
    )


def _along(correlation: Array) -> Array:
    """Return the correlation of the 16 pixels of a line with each other."""
    line = np.zeros(PATCH)
    line[0] = 1
    line[1 : 1 + len(LAGS)] = np.clip(correlation, -1, 1)
    return np.asarray(toeplitz(line))


def _block_means() -> Array:
    """Return the matrix (16, 256) from the pixels of a patch to its blocks' means, less their mean.

    Taking away the patch's mean is part of it, because the blocks' means are taken of what is left.
    """
    block = np.arange(PATCH) // BLOCK
    count = PATCH // BLOCK
    number = (block[:, None] * count + block[None, :]).ravel()
    means = (np.arange(count**2)[:, None] == number[None, :]) / BLOCK**2
    return np.asarray(means - means.mean(axis=0))


MEANS = _block_means()


def _chosen(noise: Array, covariance: Array) -> tuple[Products, float]:
    """Return what is seen in chosen patches of a noise, and the variance of its blocks' means.

    Parameters
    ----------
    noise
        (256, 256): covariance of the pixels of a patch.
    covariance
        (16, 16): that of the blocks' means in the patches that were chosen.
    """
    with_means = noise @ MEANS.T
    powers, directions = np.linalg.eigh(MEANS @ with_means)
    real = powers > 1e-6 * powers[-1]
    powers, directions = powers[real], directions[:, real]
    left = np.einsum("ik,ij,jk->k", directions, covariance, directions)
    # More than the noise makes is structure, which no choice has weakened.
    missing = np.maximum(powers - left, 0)
    along = with_means @ directions / powers
    seen = noise - (along * missing) @ along.T
    seen = seen - seen.mean(axis=0)
    seen = seen - seen.mean(axis=1, keepdims=True)
    return _products(seen), float(powers.sum()) / len(MEANS)


def _products(covariance: Array) -> Products:
    """Return the mean products of pixels from their covariance (256, 256)."""
    four = covariance.reshape(PATCH, PATCH, PATCH, PATCH)
    x, y = np.einsum("yayb->ab", four) / PATCH, np.einsum("axbx->ab", four) / PATCH
    near = np.arange(PATCH - 1)
    one = four[near[:, None], near, near[:, None] + 1, near + 1].mean()
    other = four[near[:, None] + 1, near, near[:, None], near + 1].mean()
    return Products(
        float(np.trace(covariance)) / PATCH**2,
        np.array([np.diagonal(x, lag).mean() for lag in LAGS]),
        np.array([np.diagonal(y, lag).mean() for lag in LAGS]),
        float(one + other) / 2,
    )
