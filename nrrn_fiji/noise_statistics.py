"""What the noise of a stack is like, measured on the stack itself: how strong, and how alike in
neighbouring pixels.

Noise is what is left where the specimen is flat.  So the flattest patches are looked for, by the
means of small blocks inside a patch, which structure moves and noise hardly does; and what is
measured there is corrected for the choice.  Training chooses the shape of its mask by
:func:`noise_correlation`; the reports say by :func:`fit_noise` what kind of noise it is.  This
module must never look at more than a sample of a stack, and never change it.

Sources: the idea of measuring in flat patches and fitting a line of variance against mean, Foi et
al., *Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data*, IEEE
Transactions on Image Processing 17, 2008; the line: Theil and Sen's median of slopes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intensity import ArraySource, Source, invalid_mask
from .noise import estimate_sigma
from .patch_noise import BLOCK, LAGS, PATCH, noise_of_patches

__all__ = [
    "NoiseCorrelation",
    "NoiseFit",
    "fit_noise",
    "flat_places",
    "in_patches",
    "noise_correlation",
    "noise_level",
    "sampled_slices",
]

Array = NDArray[np.float64]

FLATTEST = 0.01
"""Share of the patches that counts as flat: fewer are too noisy, more have structure in them."""
FEWEST = 48
"""Flat patches that are taken at least, but no more than a tenth of all."""
MOST = 600

SAMPLED = 8
"""Places along z at which slices are read."""

PATCHES_PER_SLICE = 1024
"""Patches of a slice that are looked at, at random where there are more; bounds the memory."""

OUTLINE = 2.0
"""How many times as much as noise makes them the means of blocks may differ in a flat patch."""

BINS = 12
"""Classes of mean grey value in which flat patches are looked for."""

SMALLEST_FOR_LEVEL = 8
"""Edge of the smallest part whose noise level is estimated, in pixels."""


@dataclass(frozen=True)
class NoiseCorrelation:
    """How alike the noise of neighbouring pixels is: 0 for independent noise."""

    x: Array
    """Correlation at the lags 1, 2, 3 along x."""
    y: Array
    """The same along y."""
    z: Array | None
    """The same from slice to slice; None for a single slice, NaN at lags beyond the depth."""
    diagonal: float
    """Correlation of diagonal neighbours, (1, 1) and (1, -1)."""
    sigma: float
    """Standard deviation of the noise of the flat patches, in grey values."""
    patches: int
    """How many flat patches of 16 × 16 pixels were looked at."""

    @property
    def strongest(self) -> float:
        """The correlation of direct neighbours in the slice, the larger of both axes."""
        return float(max(self.x[0], self.y[0]))


@dataclass(frozen=True)
class NoiseFit:
    """The line variance = gain · mean + constant through the noise of flat patches.

    Poisson noise (of electrons) has a variance that rises with brightness, Gaussian noise (of the
    read-out) one that does not.
    """

    gain: float
    """Rise of the variance with the mean, in grey values; negative if bright areas are calmer."""
    constant: float
    """Variance that the line has at grey value 0; may be negative, see :attr:`offset`."""
    sigma: float
    """Standard deviation of the noise at the middle brightness of the flat patches."""
    means: Array
    """Mean grey value of each flat patch."""
    variances: Array
    """Variance of the noise of each flat patch."""
    gain_range: tuple[float, float]
    """95 % confidence interval of the gain."""

    @property
    def read_noise(self) -> float | None:
        """Standard deviation of the noise at grey value 0; None if the line is below 0 there."""
        return float(np.sqrt(self.constant)) if self.constant >= 0 else None

    @property
    def offset(self) -> float | None:
        """The grey value at which the variance would vanish: that of the dark detector if there
        were Poisson noise alone.  None unless the variance rises with brightness for certain."""
        return -self.constant / self.gain if self.gain_range[0] > 0 else None

    @property
    def rises(self) -> bool:
        """Whether the variance rises with brightness for certain, as Poisson noise does."""
        return self.gain_range[0] > 0

    @property
    def kind(self) -> str:
        """How the noise depends on brightness, in words that say no more than is certain."""
        if self.gain_range[0] > 0:
            return "it rises with brightness, as Poisson noise does"
        if self.gain_range[1] < 0:
            return "it falls with brightness, as where bright areas are clipped"
        return "no rise or fall with brightness is certain"

    def sigma_at(self, mean: float) -> float:
        """Return the standard deviation of the noise at a mean grey value."""
        return float(np.sqrt(max(self.gain * mean + self.constant, 0.0)))


def sampled_slices(depth: int, count: int, together: int = 1) -> list[range]:
    """Return up to ``count`` ranges of ``together`` slices, evenly spread and not overlapping."""
    together = min(together, depth)
    room = depth - together
    number = max(1, min(count, depth // together))
    starts = np.unique(np.linspace(0, room, number).round().astype(int))
    return [range(int(start), int(start) + together) for start in starts]


def in_patches(image: NDArray[Any]) -> NDArray[Any]:
    """Return the patches of a slice (Y, X) as a view (Y // 16, X // 16, 16, 16)."""
    rows, columns = (edge // PATCH for edge in image.shape)
    cut = image[: rows * PATCH, : columns * PATCH]
    return cut.reshape(rows, PATCH, columns, PATCH).swapaxes(1, 2)


class Patches:
    """All patches of the sampled slices, and what is needed to choose among them."""

    def __init__(self, source: NDArray[Any] | Source, together: int):
        if isinstance(source, np.ndarray):
            if source.ndim not in (2, 3):
                raise ValueError(
                    f"stack has the shape {source.shape}, but noise is measured in a slice (Y, X) "
                    "or a stack (Z, Y, X): choose one channel and time point."
                )
            source = ArraySource(source.reshape(-1, *source.shape[-2:]))
        depth, height, width = source.shape
        rows, columns = height // PATCH, width // PATCH
        if rows * columns < 4:
            raise ValueError(
                f"The slices are {height} × {width} pixels, but flat patches are looked for "
                f"among at least four of {PATCH} × {PATCH}: choose a larger part."
            )
        # Always the same ones; none twice.
        rng = np.random.default_rng(0)
        count = min(rows * columns, PATCHES_PER_SLICE)
        pixels: list[Array] = []
        for part in sampled_slices(depth, SAMPLED, together):
            slices = source.read(part.start, part.stop)
            places = np.divmod(rng.permutation(rows * columns)[:count], columns)
            found = np.empty((count, len(slices), PATCH, PATCH))
            for number, image in enumerate(slices):
                found[:, number] = in_patches(image)[places]
                invalid = invalid_mask(image)
                if invalid is not None:
                    found[:, number][in_patches(invalid)[places]] = np.nan
            pixels.append(found)
        self.pixels = np.concatenate(pixels)
        """(patch, slice, Y, X): the patch in the first slice of its range, and in those after."""
        first = self.pixels[:, 0]
        finite = np.isfinite(self.pixels).all(axis=(1, 2, 3))
        low, high = (
            (np.nanmin(first), np.nanmax(first)) if np.isfinite(first).any() else (np.nan, np.nan)
        )
        ends = ((first == low) | (first == high)).mean(axis=(1, 2))
        # Where many pixels are at an end of the range, noise is clipped and looks too calm.
        share = max(0.05, float(np.median(ends[finite]))) if finite.any() else 0.0
        self.means = first.mean(axis=(1, 2))
        blocks = first.reshape(-1, PATCH // BLOCK, BLOCK, PATCH // BLOCK, BLOCK).mean(axis=(2, 4))
        self.between = blocks.var(axis=(1, 2))
        self.spread = first.var(axis=(1, 2))
        self.usable = np.flatnonzero(finite & (ends <= share) & (self.spread > 0))
        if not self.usable.size:
            raise ValueError(
                "The image has no patch of 16 × 16 pixels in which grey values vary and none is "
                "NaN, infinite or padding: there is no noise to measure."
            )

    def deviations(self, chosen: NDArray[np.intp]) -> Array:
        """Return patches of the first slices (patch, Y, X), each without its mean."""
        return self.pixels[chosen, 0] - self.means[chosen, None, None]

    def flattest(self, among: NDArray[np.intp], fewest: int, most: int) -> NDArray[np.intp]:
        """Return those of the patches ``among`` whose blocks differ least."""
        count = min(max(round(FLATTEST * among.size), fewest), most, among.size)
        return among[np.argsort(self.between[among], kind="stable")[:count]]

    def calmest(self) -> NDArray[np.intp]:
        """Return the flattest of all patches."""
        fewest = min(FEWEST, max(8, self.usable.size // 10))
        return self.flattest(self.usable, fewest, MOST)


def flat_places(
    image: NDArray[Any], share: float = FLATTEST, usable: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which patches of 16 × 16 pixels of a slice are flat.

    Parameters
    ----------
    image
        (Y, X), best the less noisy one of two images.
    share
        How many of the patches to take, 0 … 1.
    usable
        (Y // 16, X // 16): which patches to choose among; all when left out.

    Returns
    -------
    ndarray of bool
        (Y // 16, X // 16).
    """
    patches = in_patches(image).astype(np.float64)
    count = PATCH // BLOCK
    blocks = patches.reshape(*patches.shape[:2], count, BLOCK, count, BLOCK)
    between = blocks.mean(axis=(3, 5)).var(axis=(2, 3))
    if usable is not None:
        between[~usable] = np.nan
    finite = np.isfinite(between)
    if not finite.any():
        return np.zeros(between.shape, np.bool_)
    limit = np.quantile(between[finite], share)
    return np.nan_to_num(between, nan=np.inf) <= limit


def noise_correlation(stack: NDArray[Any] | Source) -> NoiseCorrelation:
    """Measure how alike the noise of neighbouring pixels is, in the flattest patches of a stack.

    Parameters
    ----------
    stack
        (Z, Y, X) or (Y, X), or a source that is read slice by slice: up to 32 slices of it.
        A noisy stack; the noise that denoising left is another one.

    Returns
    -------
    NoiseCorrelation
        Per axis, at the lags 1, 2 and 3.  Of noise alone the estimates are within about 0.03;
        where no patch is flat, structure makes them too high.

    Raises
    ------
    ValueError
        If the slices are too small, or nothing varies.
    """
    patches = Patches(stack, 1 + LAGS[-1])
    chosen = patches.calmest()
    pixels = patches.pixels[chosen]
    noise = noise_of_patches(patches.deviations(chosen))
    z = None
    if pixels.shape[1] > 1:
        # What is left of structure in flat patches is coarse and the same in the next slices:
        # without the means of the blocks it is gone, and noise along z is hardly touched.
        fine = pixels.reshape(*pixels.shape[:2], PATCH // BLOCK, BLOCK, PATCH // BLOCK, BLOCK)
        fine = fine - fine.mean(axis=(3, 5), keepdims=True)
        powers = (fine**2).mean(axis=(0, 2, 3, 4, 5))
        z = np.full(len(LAGS), np.nan)
        for lag in LAGS[: pixels.shape[1] - 1]:
            power = np.sqrt(powers[0] * powers[lag])
            z[lag - 1] = (fine[:, 0] * fine[:, lag]).mean() / power if power > 0 else 0.0
    return NoiseCorrelation(
        noise.x, noise.y, z, noise.diagonal, float(np.sqrt(noise.variance)), int(chosen.size)
    )


def fit_noise(stack: NDArray[Any] | Source) -> NoiseFit:
    """Fit variance = gain · mean + constant to the noise of flat patches of all brightnesses.

    Correlation between neighbouring pixels does not disturb it, unlike estimates from differences
    of pixels.  Where the specimen has no flat areas of some brightness, structure counts as noise
    there.

    Parameters
    ----------
    stack
        As for :func:`noise_correlation`.

    Returns
    -------
    NoiseFit
        In the grey values of the stack.

    Raises
    ------
    ValueError
        If the slices are too small, or nothing varies.
    """
    patches = Patches(stack, 1)
    means = patches.means[patches.usable]
    # As many classes as have enough patches to choose from.
    low, high = (float(value) for value in np.quantile(means, (0.005, 0.995)))
    edges = np.linspace(low, high, BINS + 1)
    parts = []
    for low, high in pairwise(edges):
        inside = patches.usable[(means >= low) & (means <= high)]
        if inside.size >= 16:
            parts.append(patches.flattest(inside, max(4, round(0.04 * inside.size)), 40))
    calmest = patches.calmest()
    share = noise_of_patches(patches.deviations(calmest)).between
    chosen = np.unique(np.concatenate(parts)) if parts else calmest
    # The flattest patches of some brightness may still hold an outline: the means of their blocks
    # then differ more than those of noise do.
    flat = patches.between[chosen] <= OUTLINE * share * patches.spread[chosen]
    chosen = chosen[flat] if flat.sum() >= FEWEST // 4 else calmest
    first = patches.deviations(chosen)
    variance = noise_of_patches(first).variance
    # A block's mean is worth little against chance: the deficit is given to all in proportion.
    variances = (first**2).mean(axis=(1, 2)) * (variance / float((first**2).mean()))
    brightness = patches.means[chosen]
    if np.ptp(brightness) > 0 and chosen.size >= 3:
        from scipy.stats import theilslopes  # a third of a second to import

        slope, constant, low_slope, high_slope = theilslopes(variances, brightness)
    else:
        slope, low_slope, high_slope = 0.0, -np.inf, np.inf
        constant = float(np.median(variances))
    middle = float(np.median(brightness))
    return NoiseFit(
        gain=float(slope),
        constant=float(constant),
        sigma=float(np.sqrt(max(slope * middle + constant, 0.0))),
        means=brightness,
        variances=variances,
        gain_range=(float(low_slope), float(high_slope)),
    )


def noise_level(part: NDArray[Any]) -> float:
    """Return the estimated noise of a part of a slice, without its padding.

    Parameters
    ----------
    part
        (Y, X) in grey values.

    Returns
    -------
    float
        :func:`nrrn_fiji.noise.estimate_sigma` of the valid pixels; NaN where the part is too small
        to tell.
    """
    invalid = invalid_mask(part)
    if invalid is not None:
        part = np.where(invalid, np.nan, part.astype(np.float64))
    if min(part.shape) < SMALLEST_FOR_LEVEL or not np.isfinite(part).any():
        return float("nan")
    try:
        return estimate_sigma(part)
    except ValueError:  # no 3 × 3 pixels in a row are valid
        return float("nan")
