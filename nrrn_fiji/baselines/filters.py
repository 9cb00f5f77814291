"""The training-free filters: Gaussian, median and non-local means, each tuned to be at its best.

A filter runs on one image: a single slice, or the mean of a slice and its two neighbours.  Its
setting is the one of a stated grid that scores best on slices with a known clean image.  This
module must never tune on the slices that are scored: callers pass others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from ..metrics import psnr

__all__ = ["FILTERS", "Filter", "Setting", "Tuned", "filter_named", "tune"]

Image = NDArray[np.float32]
Setting = dict[str, float]
"""Named parameters of a filter, in pixels or in grey values of [0, 1]."""


@dataclass(frozen=True)
class Filter:
    """One kind of filter, with the settings that are worth trying."""

    name: str
    """Key in files, like "nlm"."""
    label: str
    """Name in tables, like "Non-local means"."""
    parameters: tuple[str, ...]
    """Names of the parameters that make a setting."""
    grid: Callable[[float], list[Setting]]
    """The settings to try for noise of a given standard deviation, grey values in [0, 1]."""
    function: Callable[..., Image]
    """The filter: slice (Y, X) and the parameters -> slice."""

    def __call__(self, image: Image, setting: Setting) -> Image:
        """Filter the slice ``image``, (Y, X) float32 in [0, 1], with one setting."""
        if set(setting) != set(self.parameters):
            raise ValueError(
                f"setting is {setting}, but the {self.name} filter takes exactly "
                f"{', '.join(self.parameters)}: give each of them."
            )
        return self.function(np.asarray(image, dtype=np.float32), **setting)


def gaussian(image: Image, sigma: float) -> Image:
    """Gaussian filter; ``sigma`` in pixels."""
    return ndimage.gaussian_filter(image, sigma, mode="reflect")


def median(image: Image, radius: float) -> Image:
    """Median over a disk of ``radius`` pixels; radius 1 is a cross of 5, 1.5 is 3 × 3."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return ndimage.median_filter(image, footprint=y**2 + x**2 <= radius**2, mode="reflect")


def non_local_means(image: Image, patch: float, distance: float, h: float, noise: float) -> Image:
    """Non-local means, the fast form with uniform patches.

    Parameters
    ----------
    image
        Slice (Y, X).
    patch, distance
        Edge of a patch, and how far similar patches are searched, in pixels.
    h
        How different patches may be, in grey values of [0, 1].
    noise
        Standard deviation of the noise, which is taken out of the patches' distances.
    """
    return denoise_nl_means(
        image,
        patch_size=int(patch),
        patch_distance=int(distance),
        h=h,
        sigma=noise,
        fast_mode=True,
    )


def gaussian_grid(noise: float) -> list[Setting]:
    """Sigma from 0.3 px, which changes nothing, to 8 px in steps of 12 %."""
    return [{"sigma": round(float(s), 2)} for s in np.geomspace(0.3, 8, 30)]


def median_grid(noise: float) -> list[Setting]:
    """Disks of 5, 9, 13, 21, 29, 37, 49, 69, 81, 113 and 197 pixels."""
    return [{"radius": r} for r in (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8)]


def non_local_means_grid(noise: float) -> list[Setting]:
    """Patches of 5, 9, 13 px, search of 2, 3, 5, 8 px, h from 0.2 to 1.6 times the noise."""
    return [
        {"patch": patch, "distance": distance, "h": round(k * noise, 5), "noise": round(noise, 5)}
        for patch in (5, 9, 13)
        for distance in (2, 3, 5, 8)
        for k in (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.95, 1.2, 1.6)
    ]


FILTERS: tuple[Filter, ...] = (
    Filter("gaussian", "Gaussian", ("sigma",), gaussian_grid, gaussian),
    Filter("median", "Median", ("radius",), median_grid, median),
    Filter(
        "nlm",
        "Non-local means",
        ("patch", "distance", "h", "noise"),
        non_local_means_grid,
        non_local_means,
    ),
)
"""The filters the study compares with."""


def filter_named(name: str) -> Filter:
    """Return the filter with this name; ValueError lists the known ones."""
    for known in FILTERS:
        if known.name == name:
            return known
    raise ValueError(
        f"filter is {name!r}, but it must be one of {', '.join(f.name for f in FILTERS)}."
    )


@dataclass(frozen=True)
class Tuned:
    """The best setting of a grid."""

    setting: Setting
    psnr: float
    """Mean PSNR in dB over the tuning slices."""


def tune(
    candidate: Filter,
    clean: Sequence[Image],
    noisy: Sequence[Image],
    finishes: Sequence[Callable[[Image], Image]] = (np.asarray,),
) -> list[Tuned]:
    """Return the setting with the best mean PSNR on tuning slices.

    Parameters
    ----------
    candidate
        The filter.
    clean, noisy
        Pairs of slices (Y, X), grey values in [0, 1]: the truth, and what the filter is given.
    finishes
        What may be done after the filter; the setting is tuned for each of them on its own, at
        the cost of filtering once.

    Returns
    -------
    list of Tuned
        One for each of ``finishes``.  Of equal settings the first of the grid wins.

    Raises
    ------
    ValueError
        If there are no slices or not as many noisy as clean ones.
    """
    if not clean or len(clean) != len(noisy):
        raise ValueError(
            f"There are {len(clean)} clean and {len(noisy)} noisy slices, but tuning needs pairs: "
            "give at least one of each."
        )
    noise = float(np.mean([np.std(n - c) for n, c in zip(noisy, clean, strict=True)]))
    best: list[Tuned | None] = [None] * len(finishes)
    for setting in candidate.grid(noise):
        filtered = [candidate(image, setting) for image in noisy]
        for i, finish in enumerate(finishes):
            score = float(
                np.mean([psnr(c, finish(f)) for c, f in zip(clean, filtered, strict=True)])
            )
            current = best[i]
            if current is None or score > current.psnr:
                best[i] = Tuned(setting, score)
    return [tuned for tuned in best if tuned is not None]
