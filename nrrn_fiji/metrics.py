"""How far an estimate is from a clean image, and how flat it is where it should be flat.

The study and the tests score every method with these functions, so that numbers compare.  Grey
values are on [0, 1], scores are of single slices, and an estimate is clipped to [0, 1] before it
is scored, as the detector's range and an 8-bit display would do.  This module must never rescale
or register an estimate to make it fit: a grey shift is an error and has to count.

Source: *Noise Reconstruction and Removal Network*, submitted to ICLR 2022: PSNR on clipped
values, SSIM with a uniform window of 127 pixels, interquartile range (IQR) along a line in resin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import iqr
from skimage.measure import profile_line
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

__all__ = ["PAPER_WINDOW", "SSIM_WINDOW", "Spread", "line_iqr", "line_profile", "psnr", "ssim"]

SSIM_WINDOW = 7
"""Edge of the usual uniform SSIM window, in pixels."""

PAPER_WINDOW = 127
"""Edge of the paper's SSIM window; so large a window looks at contrast more than at detail."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How grey values of a flat line or area are spread: there, the spread is the noise."""

    values: NDArray[np.float64]
    """At least two finite grey values."""

    @property
    def box(self) -> tuple[float, float, float, float, float]:
        """Minimum, lower quartile, median, upper quartile and maximum."""
        low, first, middle, third, high = np.percentile(self.values, (0, 25, 50, 75, 100))
        return float(low), float(first), float(middle), float(third), float(high)

    @property
    def iqr(self) -> float:
        """Upper minus lower quartile."""
        return self.box[3] - self.box[1]

    @property
    def deviation(self) -> float:
        """Standard deviation, of a sample."""
        return float(self.values.std(ddof=1))


def psnr(clean: ArrayLike, estimate: ArrayLike) -> float:
    """Return the peak signal-to-noise ratio of ``estimate`` in dB, with a peak of 1.

    Parameters
    ----------
    clean
        The true image of any shape, grey values in [0, 1].
    estimate
        Image of the same shape; clipped to [0, 1] here.

    Returns
    -------
    float
        ``10 log10(1 / mean squared error)``; infinite for a perfect estimate.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.
    """
    true, clipped = comparable(clean, estimate)
    with np.errstate(divide="ignore"):  # A perfect estimate is infinitely good, not an error.
        return float(peak_signal_noise_ratio(true, clipped, data_range=1))


def ssim(clean: ArrayLike, estimate: ArrayLike, window: int = SSIM_WINDOW) -> float:
    """Return the mean structural similarity of two slices, with a uniform window.

    The constants are the usual ones (K1 = 0.01, K2 = 0.03, sample covariance), and only windows
    that lie inside the slice count.

    Parameters
    ----------
    clean
        The true slice (Y, X), grey values in [0, 1].
    estimate
        Slice of the same shape; clipped to [0, 1] here.
    window
        Edge of the window in pixels, odd: 7, or 127 for the paper's form.

    Returns
    -------
    float
        Up to 1, which means equal.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite, the images are no single slices, or the
        window is even or does not fit into the slice.

    References
    ----------
    Wang et al., *Image quality assessment: from error visibility to structural similarity*,
    IEEE Transactions on Image Processing 13, 2004.
    """
    true, clipped = comparable(clean, estimate)
    if true.ndim != 2:
        raise ValueError(
            f"clean has the shape {true.shape}, but SSIM compares single slices (Y, X): "
            "score slice by slice and average."
        )
    if window < 3 or window % 2 == 0 or window > min(true.shape):
        raise ValueError(
            f"window is {window}, but it must be odd, at least 3 and fit into the slice of "
            f"{true.shape[0]} × {true.shape[1]} pixels: choose a smaller one."
        )
    return float(structural_similarity(true, clipped, win_size=window, data_range=1))


def line_iqr(image: ArrayLike, start: tuple[float, float], stop: tuple[float, float]) -> float:
    """Return the interquartile range of the grey values along a straight line.

    Along a line that runs through a flat area, resin say, this measures the noise that is left,
    whatever the detail elsewhere.

    Parameters
    ----------
    image
        Slice (Y, X) of finite values.
    start, stop
        Ends (y, x) of the line in pixels, both included and inside the slice; values between
        pixels are interpolated linearly.

    Returns
    -------
    float
        Third minus first quartile, in the grey values of ``image``.

    Raises
    ------
    ValueError
        If ``image`` is no slice or an end lies outside.
    """
    return float(iqr(line_profile(image, start, stop)))


def line_profile(
    image: ArrayLike, start: tuple[float, float], stop: tuple[float, float]
) -> NDArray[np.float64]:
    """Return the grey values along a straight line, one per pixel of its length.

    Parameters and errors are those of :func:`line_iqr`.
    """
    slice_ = np.asarray(image, dtype=np.float64)
    if slice_.ndim != 2:
        raise ValueError(
            f"image has the shape {slice_.shape}, but a line runs in a slice (Y, X): "
            "choose one slice of the stack."
        )
    for name, point in (("start", start), ("stop", stop)):
        if not all(0 <= p <= edge - 1 for p, edge in zip(point, slice_.shape, strict=True)):
            raise ValueError(
                f"{name} is {point}, but the line must lie inside the slice of "
                f"{slice_.shape[0]} × {slice_.shape[1]} pixels: give its ends as (y, x)."
            )
    return np.asarray(profile_line(slice_, start, stop, order=1, mode="nearest"))


def comparable(
    clean: ArrayLike, estimate: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both images as float64, the estimate clipped to [0, 1], after checking them."""
    true = np.asarray(clean, dtype=np.float64)
    other = np.asarray(estimate, dtype=np.float64)
    if true.shape != other.shape:
        raise ValueError(
            f"estimate has the shape {other.shape}, but clean has {true.shape}: "
            "give two images of the same shape."
        )
    for name, image in (("clean", true), ("estimate", other)):
        if not np.isfinite(image).all():
            raise ValueError(f"{name} holds NaN or infinite values: score finite images only.")
    return true, np.clip(other, 0, 1)
