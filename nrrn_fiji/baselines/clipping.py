"""The grey shift that clipping causes, and the correction that undoes its expectation.

A detector that clips gives noise a mean: where the signal is near an end of the range, only one
side of the noise survives, and every method that trusts zero-mean noise inherits the shift.  A
network trained on clean targets can learn to undo it, a filter cannot.  To be fair, the study
shows filters also after this correction.  This module must never look at a clean image: the
noise level is all it knows.

Source: nrrn.md of the method, the notes on clipping beside Table 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, poisson

__all__ = ["clipped_mean", "undo_clipping"]


def clipped_mean(
    image: ArrayLike, *, peak: float | None = None, sigma: float | None = None
) -> NDArray[np.float64]:
    """Return the expectation of the noisy image clipped to [0, 1].

    Parameters
    ----------
    image
        Clean grey values in [0, 1], any shape.
    peak
        Poisson noise with this many photons at grey value 1.
    sigma
        Gaussian noise of this standard deviation, in grey levels of 255.  Exactly one of both
        kinds is given.

    Returns
    -------
    ndarray of float64
        ``E[min(Poisson(peak x) / peak, 1)]`` or ``E[clip(x + noise)]``, same shape.

    Raises
    ------
    ValueError
        If not exactly one of ``peak`` and ``sigma`` is given, or it is not above 0.
    """
    x = np.asarray(image, dtype=np.float64)
    if (peak is None) == (sigma is None):
        raise ValueError(
            f"peak is {peak} and sigma is {sigma}, but the expectation is known for one kind of "
            "noise at a time: give exactly one."
        )
    level = peak if peak is not None else sigma
    if level is None or not level > 0:
        raise ValueError(f"The noise level is {level}, but it must be above 0.")
    if peak is not None:
        # Counts n up to floor(peak) are kept as n / peak; all larger ones become 1.
        rate, kept = x * peak, np.floor(peak)
        # sum of n P(n) up to N is rate times the probability of at most N - 1.
        return rate / peak * poisson.cdf(kept - 1, rate) + poisson.sf(kept, rate)
    s = level / 255
    low, high = -x / s, (1 - x) / s
    inside = norm.cdf(high) - norm.cdf(low)
    return x * inside + s * (norm.pdf(low) - norm.pdf(high)) + norm.sf(high)


def undo_clipping(
    estimate: ArrayLike, *, peak: float | None = None, sigma: float | None = None
) -> NDArray[np.float32]:
    """Return the clean grey values whose expected noisy, clipped values are ``estimate``.

    Parameters
    ----------
    estimate
        Grey values of an image that was filtered after clipping, any shape.
    peak, sigma
        As in :func:`clipped_mean`.

    Returns
    -------
    ndarray of float32
        Values in [0, 1]; what lies beyond the expectations of 0 and 1 becomes 0 and 1.
    """
    grey = np.linspace(0, 1, 1001)
    expected = clipped_mean(grey, peak=peak, sigma=sigma)
    return np.interp(np.asarray(estimate), expected, grey).astype(np.float32)
