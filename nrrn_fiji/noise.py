"""Synthetic noise as the paper adds it, for training and for measuring.

Everything here works on images whose grey values are mapped to [0, 1].  This module must never
hold a random state of its own: every function takes a generator, so that a seed decides.

Source: nrrn.md of the method: Poisson ``poisson(peak · x) / peak`` and then Gaussian noise whose
sigma is given in grey levels of 255, unclipped in training, clipped to [0, 1] in the tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["add_noise", "noise_variance"]


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
