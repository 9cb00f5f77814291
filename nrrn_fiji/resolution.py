"""Fourier ring correlation: how fine the detail is that an image shows above its noise.

Two images of one object agree on rings of low spatial frequency, where there is structure, and
not where there is only noise.  The frequency at which their agreement falls below a threshold is
the resolution.  This module must never call a number a resolution without saying when it is none:

* **Two images** whose noise is independent (two scans of one slice; slices of a stack, with the
  reservation that what differs between slices counts as noise): the correlation is right.
* **One image**, split into pixels that are diagonal neighbours: right only if the noise is
  independent from pixel to pixel.  Correlated noise looks like structure and makes the resolution
  too good.
* **A denoised image must never be split.**  Neighbouring pixels of the result were made from the
  same noisy pixels, so what noise is left agrees in both halves: the correlation is always high,
  whether detail was found or invented.  To compare before and after, correlate *slices* that share
  no noisy slice: :func:`nrrn_fiji.quality.residuals.detail` does.  The best proof is two scans,
  denoised apart from each other, and :func:`ring_correlation`.

Sources: Saxton and Baumeister, *J. Microscopy* 127, 1982 (the correlation); van Heel and Schatz,
*J. Struct. Biol.* 151, 2005 (half-bit threshold); Rosenthal and Henderson, *J. Mol. Biol.* 333,
2003 (1/7); Koho et al., *Nature Communications* 10:3103, 2019 (one image, split diagonally).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.signal.windows import tukey

__all__ = [
    "ONE_SEVENTH",
    "RingCorrelation",
    "Rings",
    "half_bit",
    "ring_correlation",
    "spectrum",
    "split_correlation",
]

Array = NDArray[np.float64]

ONE_SEVENTH = 1 / 7
"""Fixed threshold: where two images correlate by 1/7, their mean correlates by 1/2 with a perfect
image."""

SMALLEST_EDGE = 32
"""Pixels; a smaller image has too few Fourier coefficients on its rings."""

TAPER = 0.25
"""Share of an axis, at each end, over which the Tukey window falls to zero, so that the borders
make no cross in the spectrum."""

SMOOTHING = 3
"""Rings that are averaged before a crossing is looked for."""


@dataclass(frozen=True)
class RingCorrelation:
    """The correlation of two images on rings of equal spatial frequency."""

    frequency: Array
    """Middle of each ring, in cycles per pixel of the image, increasing, from above 0."""
    correlation: Array
    """-1 … 1, one per ring."""
    count: Array
    """Independent complex Fourier coefficients on each ring, over all slices: where there is noise
    alone, the correlation has a standard deviation of 1 / sqrt(2 count).  Of a split image fewer
    than there are, because unfolding multiplies chance by 4 there."""
    limit: float
    """Highest frequency that could be looked at: 0.5 for two images, 0.25 for a split one."""
    inflated: float = 0.0
    """Correlation of the noise between the halves of a split image; 0 where it is independent."""

    def crossing(self, threshold: Array | float = ONE_SEVENTH) -> float | None:
        """Return the frequency at which the curve, smoothed over three rings, first falls below.

        Parameters
        ----------
        threshold
            One value, or one per ring: :func:`half_bit` of :attr:`count`.

        Returns
        -------
        float or None
            In cycles per pixel; None if the curve stays above up to :attr:`limit`.  The frequency
            of the first ring if it is below the threshold from the start.
        """
        limits = np.broadcast_to(np.asarray(threshold, np.float64), self.correlation.shape)
        weights = self.count
        kernel = np.ones(min(SMOOTHING, self.correlation.size))
        smooth = np.convolve(self.correlation * weights, kernel, "same") / np.convolve(
            weights, kernel, "same"
        )
        above = smooth - limits
        below = np.flatnonzero(above < 0)
        if not below.size:
            return None
        first = int(below[0])
        if first == 0:
            return float(self.frequency[0])
        high, low = above[first - 1], above[first]
        step = self.frequency[first] - self.frequency[first - 1]
        return float(self.frequency[first - 1] + step * high / (high - low))

    @property
    def drowned(self) -> bool:
        """Whether there is noise alone, as far as can be told: the curve is below 1/7 already where
        a quarter of the image is looked at, on rings of too few coefficients to be sure."""
        crossing = self.crossing()
        return crossing is not None and crossing <= 4 * float(self.frequency[0])

    def resolution(self, threshold: Array | float = ONE_SEVENTH) -> float | None:
        """Return the period in pixels at which the curve falls below the threshold; None if finer
        than can be seen, which is one over :attr:`limit`."""
        crossing = self.crossing(threshold)
        return None if crossing is None else 1 / crossing

    @property
    def half_bit(self) -> float | None:
        """The resolution in pixels by the half-bit threshold."""
        return self.resolution(half_bit(self.count))

    @property
    def trusted(self) -> bool:
        """Whether the noise of both halves was independent, so that the resolution means one."""
        return abs(self.inflated) < 0.05


class Rings:
    """Rings of spatial frequency of an image, one Fourier pixel of the shorter edge wide.

    Parameters
    ----------
    shape
        (Y, X) of the images.
    apodised
        Whether the spectra are those of :func:`spectrum`.  Its window leaves fewer pixels their
        full weight, and so fewer coefficients that are independent.
    """

    def __init__(self, shape: tuple[int, int], *, apodised: bool = True):
        if min(shape) < SMALLEST_EDGE:
            raise ValueError(
                f"The image is {shape[0]} × {shape[1]} pixels, but rings of spatial frequency "
                f"need at least {SMALLEST_EDGE} × {SMALLEST_EDGE}: choose a larger part."
            )
        self.shape = shape
        self.fy = np.fft.fftfreq(shape[0])[:, None]
        self.fx = np.fft.rfftfreq(shape[1])[None, :]
        edge = min(shape)
        ring = np.rint(np.hypot(self.fy, self.fx) * edge).astype(np.int64)
        self.size = edge // 2
        # The mean of the image (ring 0) and the corners beyond the Nyquist frequency are left out.
        self.ring = np.where(ring > self.size, 0, ring).ravel()
        # Columns that stand for their mirror image too count twice.
        twice = np.full(shape[1] // 2 + 1, 2.0)
        twice[0] = 1.0
        if shape[1] % 2 == 0:
            twice[-1] = 1.0
        self.weight = np.broadcast_to(twice, (shape[0], twice.size)).ravel()
        self.frequency = np.arange(1, self.size + 1) / edge
        share = np.sqrt(np.prod([independent_share(n) for n in shape])) if apodised else 1.0
        self.count = self.sums(np.ones(self.ring.size)) / 2 * share

    def sums(self, values: ArrayLike) -> Array:
        """Return the sum over each ring, without the image's mean, for values of :func:`spectrum`'s
        shape."""
        flat = np.asarray(values, np.float64).ravel() * self.weight
        return np.bincount(self.ring, flat, self.size + 1)[1:].astype(np.float64)


def half_bit(count: ArrayLike) -> Array:
    """Return the half-bit threshold for rings of ``count`` independent coefficients.

    Source: van Heel and Schatz 2005, eq. 17: where every ring carries half a bit of information.
    """
    root = np.sqrt(np.maximum(np.asarray(count, np.float64), 1))
    return np.minimum((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root), 1)


def window(edge: int) -> Array:
    """Return the weights by which pixels fade towards the ends of an axis."""
    return np.asarray(tukey(edge, 2 * TAPER), np.float64)


def independent_share(edge: int) -> float:
    """Return the share of Fourier coefficients that stay independent under the window of an axis.

    Of a ring, which is one coefficient thick, it is that of one axis.

    Source: Welch, *IEEE Transactions on Audio and Electroacoustics* 15, 1967: the power of the
    window's square against the square of its power.
    """
    square = window(edge) ** 2
    return float(square.mean() ** 2 / (square**2).mean())


def spectrum(image: ArrayLike) -> NDArray[np.complex128]:
    """Return the Fourier transform of a slice without its mean plane, under a Tukey window.

    Parameters
    ----------
    image
        (Y, X), finite.

    Returns
    -------
    ndarray of complex128
        (Y, X // 2 + 1).

    Raises
    ------
    ValueError
        If it is no slice or holds values that are not finite.
    """
    values = np.asarray(image, np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"image has the shape {values.shape}, but a spectrum needs a slice (Y, X): choose one "
            "slice of the stack."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "image holds NaN or infinite values: choose a part of the slice without them."
        )
    # Brightness that falls across the image would be structure that both images share.
    y = np.linspace(-1, 1, values.shape[0])[:, None]
    x = np.linspace(-1, 1, values.shape[1])[None, :]
    flat = values - values.mean()
    flat = flat - y * (flat * y).sum() / ((y**2).sum() * x.size)
    flat = flat - x * (flat * x).sum() / ((x**2).sum() * y.size)
    height, width = values.shape
    return fft.rfft2(flat * window(height)[:, None] * window(width)[None, :])


def ring_correlation(
    first: ArrayLike, second: ArrayLike, *, apodise: bool = True
) -> RingCorrelation:
    """Return the Fourier ring correlation of two images of the same object.

    The noise of the two must be independent; see the module.  Stacks are correlated slice by
    slice, and the sums over each ring are taken over all slices.

    Parameters
    ----------
    first, second
        (Y, X) or (Z, Y, X) of one shape, registered to each other, finite, in any grey values (a
        factor and an offset between them make no difference).
    apodise
        Take away the mean plane and fade the borders with a Tukey window.  Without, nothing is
        done to the values: for periodic images, and to compare with other implementations.

    Raises
    ------
    ValueError
        If the shapes differ, the images are smaller than 32 × 32 pixels, or values are not finite.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or one.ndim not in (2, 3):
        raise ValueError(
            f"first is {one.shape} and second {other.shape}, but both must be slices (Y, X) or "
            "stacks (Z, Y, X) of the same shape: cut them to the same size."
        )
    pairs = [(one, other)] if one.ndim == 2 else list(zip(one, other, strict=True))
    rings = Rings((one.shape[-2], one.shape[-1]), apodised=apodise)
    transform = spectrum if apodise else fft.rfft2
    if not apodise and not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("first or second holds NaN or infinite values: give finite images.")
    curve = _correlation(((transform(a), transform(b)) for a, b in pairs), rings)
    return RingCorrelation(rings.frequency, curve, rings.count * len(pairs), 0.5)


def _correlation(
    pairs: Iterable[tuple[NDArray[np.complex128], NDArray[np.complex128]]], rings: Rings
) -> Array:
    """Return the correlation on each ring over all pairs of spectra; 0 on rings without power."""
    cross, one, other = (np.zeros(rings.size) for _ in range(3))
    for a, b in pairs:
        cross += rings.sums((a * b.conj()).real)
        one += rings.sums(np.abs(a) ** 2)
        other += rings.sums(np.abs(b) ** 2)
    power = np.sqrt(one * other)
    return np.divide(cross, power, out=np.zeros(rings.size), where=power > 0)


def split_correlation(images: ArrayLike, *, noise_correlation: float = 0.0) -> RingCorrelation:
    """Return the Fourier ring correlation of a *noisy* image with itself, split in two.

    Of every 2 × 2 pixels the two of one diagonal go to the two halves, then the two of the other
    diagonal, and both results are averaged, as Koho et al. do.  Splitting changes the curve in
    three ways, which Koho et al. undo by an empirical function of the crossing, fitted to
    fluorescence images at different pixel sizes.  Here each is undone for what it is:

    * the halves are sampled every second pixel: frequencies count in cycles per pixel of the
      *whole* image, and go up to 0.25 (a period of 4 pixels);
    * the halves are one pixel apart along the diagonal, which turns the phase of their cross
      spectrum and would lower the curve by itself: the phase is turned back;
    * white noise of all frequencies is folded into a quarter of them, so the halves have a
      quarter of the whole image's signal-to-noise ratio: F becomes 4 F / (1 + 3 F), the curve of
      two whole images.

    The last two hold for an image that has little detail finer than 4 pixels, as one that is
    sampled well.

    Parameters
    ----------
    images
        (Y, X) or (Z, Y, X): noisy slices, finite.  Never denoised ones; see the module.
    noise_correlation
        Correlation of the noise of diagonal neighbours, if it is known
        (:attr:`nrrn_fiji.noise_statistics.NoiseCorrelation.diagonal`); kept with the result, whose
        ``trusted`` tells whether it is small enough.

    Raises
    ------
    ValueError
        If the images are smaller than 64 × 64 pixels, or values are not finite.
    """
    stack = np.asarray(images, np.float64)
    if stack.ndim not in (2, 3):
        raise ValueError(
            f"images has the shape {stack.shape}, but a slice (Y, X) or a stack (Z, Y, X) is "
            "needed: choose one channel and time point."
        )
    stack = stack.reshape(-1, *stack.shape[-2:])
    height, width = stack.shape[1] // 2, stack.shape[2] // 2
    if min(height, width) < SMALLEST_EDGE:
        raise ValueError(
            f"The image is {stack.shape[1]} × {stack.shape[2]} pixels, but splitting needs at "
            f"least {2 * SMALLEST_EDGE} × {2 * SMALLEST_EDGE}: choose a larger part."
        )
    stack = stack[:, : 2 * height, : 2 * width]
    rings = Rings((height, width))
    curves = []
    for (y0, x0), (y1, x1) in (((0, 0), (1, 1)), ((0, 1), (1, 0))):
        # Moved by half a pixel of the halves along each axis: exp(2 pi i f d), d = 1/2.
        turn = np.exp(-2j * np.pi * (rings.fy * (y1 - y0) + rings.fx * (x1 - x0)) / 2)
        pairs = (
            (spectrum(image[y0::2, x0::2]), spectrum(image[y1::2, x1::2]) * turn) for image in stack
        )
        curves.append(_correlation(pairs, rings))
    halves = np.mean(curves, axis=0)
    # Below 0 there is chance alone.  Unfolded alike, or noise would have a mean above 0.
    whole = 4 * halves / (1 + 3 * np.abs(halves))
    # Both diagonals count; where the halves hardly agree, 4 F has four times the spread of F.
    count = rings.count * len(stack) * 2 / 16
    return RingCorrelation(rings.frequency / 2, whole, count, 0.25, noise_correlation)
