"""The training-free filters, each tuned to be at its best.

Gaussian, median, non-local means and, where it is installed, BM3D run on one image: a single
slice, or the mean of a slice and its two neighbours.  Gaussian and median also run in three
dimensions, on a slice and its neighbours.  The setting of a filter is the one of a stated grid
that scores best on slices with a known clean image.  This module must never tune on the slices
that are scored: callers pass others.

BM3D comes with the package ``bm3d``, whose licence allows non-commercial use only: it is an extra,
imported when it is asked for and never otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from ..metrics import psnr

__all__ = [
    "BM3D",
    "FILTERS",
    "FILTERS_3D",
    "Filter",
    "Setting",
    "Tuned",
    "bm3d_is_installed",
    "filter_named",
    "tune",
]

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
    """The filter: slice (Y, X), or slice and neighbours (3, Y, X), and the parameters -> slice."""
    tuning_pixels: int | None = None
    """A slow filter is tuned on the middle of the first tuning slice, with edges of so many
    pixels; None: on everything there is."""

    def __call__(self, image: Image, setting: Setting) -> Image:
        """Filter with one setting: a slice (Y, X), or (3, Y, X) for one of :data:`FILTERS_3D`.

        Grey values are float32 in [0, 1]; the result is (Y, X).
        """
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


def gaussian_3d(triplet: Image, sigma: float, neighbours: float) -> Image:
    """Gaussian filter in three dimensions.

    Parameters
    ----------
    triplet
        A slice between its neighbours, (3, Y, X).
    sigma
        Standard deviation along x and y, in pixels.
    neighbours
        Weight of each neighbour where the slice's own is 1.
    """
    weights = np.array([neighbours, 1, neighbours]) / (1 + 2 * neighbours)
    return gaussian(np.average(triplet, axis=0, weights=weights).astype(np.float32), sigma)


def median_3d(triplet: Image, radius: float, outer: float) -> Image:
    """Median over a disk of the slice and a smaller one of each neighbour.

    Parameters
    ----------
    triplet
        A slice between its neighbours, (3, Y, X).
    radius, outer
        Radii of the disks in the slice and in its neighbours, in pixels.
    """
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disks = [y**2 + x**2 <= r**2 for r in (outer, radius, outer)]
    # Only the middle slice is wanted: its neighbours are all there are, so nothing is mirrored.
    padded = np.pad(triplet, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    height, width = triplet.shape[1:]
    values = [
        padded[z, dy : dy + height, dx : dx + width]
        for z, disk in enumerate(disks)
        for dy, dx in np.argwhere(disk)
    ]
    return np.median(values, axis=0).astype(np.float32)


def bm3d_is_installed() -> bool:
    """Whether the extra package ``bm3d`` (licensed for non-commercial use only) is there."""
    return find_spec("bm3d") is not None


def block_matching(image: Image, sigma: float) -> Image:
    """BM3D for white noise (Dabov et al. 2007), by the package ``bm3d`` of its authors.

    The package's licence allows non-commercial use only.

    Parameters
    ----------
    image
        Slice (Y, X).
    sigma
        Standard deviation of the noise to remove, in grey values of [0, 1].

    Raises
    ------
    ImportError
        If the package is not installed.
    """
    if not bm3d_is_installed():
        raise ImportError(
            "filter is bm3d, but the package bm3d is not installed. Its licence allows "
            'non-commercial use only; if yours is, install it with pip install "nrrn-fiji[bm3d]".'
        )
    from bm3d import bm3d

    return np.asarray(bm3d(image, sigma), dtype=np.float32)


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


def gaussian_3d_grid(noise: float) -> list[Setting]:
    """Sigma from 0.3 to 8 px in steps of 19 %; neighbours of weight 0 to 1."""
    return [
        {"sigma": round(float(s), 2), "neighbours": weight}
        for s in np.geomspace(0.3, 8, 20)
        for weight in (0, 0.15, 0.3, 0.45, 0.6, 0.8, 1)
    ]


def median_3d_grid(noise: float) -> list[Setting]:
    """Disks of radius 1 to 4 in the slice; of no, half, the same radius less 0.5, or the same
    radius in the neighbours, where a radius of 0 is one pixel."""
    return [
        {"radius": radius, "outer": outer}
        for radius in (1, 1.5, 2, 2.5, 3, 4)
        for outer in sorted({0, radius / 2, radius - 0.5, radius})
    ]


def block_matching_grid(noise: float) -> list[Setting]:
    """Noise from 0.6 to 1.5 times what it is: BM3D is nearly its own best at what it is."""
    return [{"sigma": round(k * noise, 5)} for k in (0.6, 0.8, 1, 1.2, 1.5)]


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
"""The filters of one image that need no further package."""

FILTERS_3D: tuple[Filter, ...] = (
    Filter("gaussian3d", "Gaussian, 3-D", ("sigma", "neighbours"), gaussian_3d_grid, gaussian_3d),
    Filter("median3d", "Median, 3-D", ("radius", "outer"), median_3d_grid, median_3d),
)
"""The filters of a slice between its neighbours."""

BM3D = Filter("bm3d", "BM3D", ("sigma",), block_matching_grid, block_matching, tuning_pixels=96)
"""BM3D, one image; see :func:`block_matching` for its licence."""


def filter_named(name: str) -> Filter:
    """Return the filter with this name; ValueError lists the known ones."""
    every = (*FILTERS, BM3D, *FILTERS_3D)
    for known in every:
        if known.name == name:
            return known
    raise ValueError(
        f"filter is {name!r}, but it must be one of {', '.join(f.name for f in every)}."
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
        Pairs, grey values in [0, 1]: the truth (Y, X), and what the filter is given, (Y, X) or,
        for a filter of :data:`FILTERS_3D`, (3, Y, X).
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
    if candidate.tuning_pixels is not None:
        clean = [middle(clean[0], candidate.tuning_pixels)]
        noisy = [middle(noisy[0], candidate.tuning_pixels)]
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


def middle(image: Image, edge: int) -> Image:
    """Return the middle ``edge`` × ``edge`` pixels, or all where there are fewer."""
    y, x = (max(0, (length - edge) // 2) for length in image.shape[-2:])
    return image[..., y : y + edge, x : x + edge]
