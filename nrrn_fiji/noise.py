"""Synthetic noise as the paper adds it, and the level of the noise that an image has.

Noise is added to images whose grey values are mapped to [0, 1]; its level is estimated in whatever
grey values an image has.  This module must never hold a random state of its own: every function
takes a generator, so that a seed decides.

Source: nrrn.md of the method: Poisson ``poisson(peak · x) / peak`` and then Gaussian noise whose
sigma is given in grey levels of 255, unclipped in training, clipped to [0, 1] in the tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["add_noise", "estimate_sigma", "noise_variance"]

MASK_GAIN = 6.0
"""Standard deviation of Immerkær's mask on white noise of standard deviation 1."""

MEDIAN_OF_NORMAL = 0.67448975
"""Median absolute deviation of a normal distribution of standard deviation 1."""


def add_noise(
    image: ArrayLike,
    *,
    peak: float | None = None,
    sigma: float | None = None,
    rng: np.random.Generator,
    clip: bool = False,
) -> NDArray[np.float32]:
    """Return ``image`` with Poisson noise, then Gaussian noise added.

    Parameters
    ----------
    image
        Clean image of any shape, grey values in [0, 1]; values below 0 count as 0 photons.
    peak
        Expected number of photons at grey value 1, above 0; None adds no Poisson noise.
    sigma
        Standard deviation of the Gaussian noise in grey levels of 255, at least 0; None or 0 adds
        none.
    rng
        Source of randomness.
    clip
        Clip the result to [0, 1], as a detector with a limited range does.

    Returns
    -------
    ndarray of float32
        Same shape as ``image``.

    Raises
    ------
    ValueError
        If ``peak`` is not above 0 or ``sigma`` is negative.
    """
    noisy = np.asarray(image, dtype=np.float32)
    if peak is not None:
        if not peak > 0:
            raise ValueError(f"peak is {peak}, but it must be above 0: 1 is strong, 50 weak noise.")
        noisy = (rng.poisson(np.maximum(noisy, 0) * peak) / peak).astype(np.float32)
    if sigma is not None:
        if not sigma >= 0:
            raise ValueError(f"sigma is {sigma}, but it must be 0 or more grey levels of 255.")
        noisy = noisy + rng.standard_normal(noisy.shape, dtype=np.float32) * np.float32(sigma / 255)
    return np.clip(noisy, 0, 1) if clip else np.array(noisy, dtype=np.float32)


def noise_variance(mean: float, *, peak: float | None = None, sigma: float | None = None) -> float:
    """Return the variance of the noise :func:`add_noise` adds, before clipping.

    Parameters
    ----------
    mean
        Mean grey value of the clean image, in [0, 1].
    peak, sigma
        As in :func:`add_noise`.
    """
    poisson = max(mean, 0.0) / peak if peak is not None else 0.0
    return poisson + ((sigma or 0.0) / 255) ** 2


def estimate_sigma(image: ArrayLike) -> float:
    """Estimate the standard deviation of the noise of a slice, without a clean image.

    Second differences along y and x take away whatever is smooth; of what is left the median is
    taken, so that edges, which are few, hardly count.  It is right for noise that is independent
    from pixel to pixel; it sees less of noise that is alike in neighbouring pixels, and takes fine
    texture for noise.

    Parameters
    ----------
    image
        Slice (Y, X) of at least 3 × 3 pixels; pixels that are not finite do not count.

    Returns
    -------
    float
        In the grey values of ``image``; 0 where nothing differs from its surroundings.

    Raises
    ------
    ValueError
        If the slice is too small, or has too few finite pixels.

    References
    ----------
    The mask: Immerkær, *Fast noise variance estimation*, Computer Vision and Image Understanding
    64, 1996.  The median: Donoho and Johnstone, *Ideal spatial adaptation by wavelet shrinkage*,
    Biometrika 81, 1994.
    """
    values = np.asarray(image)
    if values.ndim != 2 or min(values.shape) < 3:
        raise ValueError(
            f"image has the shape {values.shape}, but a noise level needs a slice of at least "
            "3 × 3 pixels: choose a larger part."
        )
    whole = values.dtype.kind in "iu"
    with np.errstate(invalid="ignore"):  # Infinite values: what comes of them is left out below.
        differences = np.diff(np.diff(values.astype(np.float64), 2, axis=0), 2, axis=1)
    sizes = np.abs(differences[np.isfinite(differences)])
    if not sizes.size:
        raise ValueError(
            "image has no 3 × 3 pixels that are all finite: choose another part of the slice."
        )
    if not sizes.any():
        return 0.0
    middle = grouped_median(sizes) if whole else float(np.median(sizes))
    return middle / (MASK_GAIN * MEDIAN_OF_NORMAL)


def grouped_median(sizes: NDArray[np.float64]) -> float:
    """Return the median of sizes that were rounded to whole numbers, between these."""
    counts = np.bincount(sizes.astype(np.int64))
    shares = np.concatenate([[0.0], np.cumsum(counts) / sizes.size])
    # Size 0 stands for 0 … 1/2, and k for k - 1/2 … k + 1/2.
    edges = np.concatenate([[0.0], np.arange(counts.size) + 0.5])
    return float(np.interp(0.5, shares, edges))
