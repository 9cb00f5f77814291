"""Which pixels the masked objective hides, and what it shows in their place.

A network that is asked for a pixel's recorded value and sees it learns nothing; one that sees the
pixels around it alone learns the image without the noise, if the noise of those pixels says nothing
about the hidden one (after Noise2Void, Krull et al. 2019).  Where noise is alike in neighbouring
pixels they are hidden too (after structN2V, Broaddus et al. 2020).  This module must never change
the images it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nrrn_fiji.noise_statistics import NoiseCorrelation

__all__ = ["POINT", "MaskShape", "fitting_mask", "mask_pixels"]

MASK_REACH = 2
"""A masked pixel takes the value of a random pixel at most this far away from the masked box."""

LARGEST_MASK = 5
"""Farthest reach of a mask to each side, in pixels."""

ALIKE = 0.2
"""Correlation from which the noise of two pixels is so alike that both are hidden.

A longer mask would hide detail that is worth more than the rest of the noise
(docs/decisions/training.md)."""


class MaskShape(NamedTuple):
    """How far a mask reaches to each side of its middle, in pixels and slices."""

    x: int
    y: int
    z: int
    """0 or 1: whether the neighbouring slices are masked too."""

    def __str__(self) -> str:
        """Return "X,Y,Z", as settings have it."""
        return f"{self.x},{self.y},{self.z}"

    @classmethod
    def from_text(cls, text: str) -> MaskShape:
        """Return the shape written as "X,Y,Z".

        Raises
        ------
        ValueError
            If it is not three whole numbers, x and y in 0 … 5 and z 0 or 1.
        """
        try:
            x, y, z = (int(part) for part in text.split(","))
        except ValueError:
            x = y = z = -1
        if not (0 <= x <= LARGEST_MASK and 0 <= y <= LARGEST_MASK and 0 <= z <= 1):
            raise ValueError(
                f"mask_shape is {text!r}, but it must be X,Y,Z: how many pixels to each side along "
                f"x and y (0 to {LARGEST_MASK}) and slices along z (0 or 1) are hidden with a "
                "pixel: give 0,0,0 for noise that is independent from pixel to pixel."
            )
        return cls(x, y, z)


POINT = MaskShape(0, 0, 0)
"""Single pixels, for noise that is independent from pixel to pixel."""


def mask_pixels(
    triplet: NDArray[np.float32],
    fraction: float,
    rng: np.random.Generator,
    shape: MaskShape = POINT,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Hide pixels of the middle image: replace them by the values of random pixels nearby.

    Where noise is alike in neighbouring pixels, a hidden value could be read off them.  So with
    each pixel a box of ``shape`` around it is hidden, in the outer images too if the box reaches
    there (after structN2V, Broaddus et al. 2020).  No value comes from inside the box.

    Parameters
    ----------
    triplet
        (3, H, W), more than ``2 * (shape + 2)`` pixels along both axes.
    fraction
        Expected fraction of the middle image's pixels to replace, in (0, 1).
    rng
        Source of randomness.
    shape
        How far the box reaches to each side.

    Returns
    -------
    masked, mask
        The triplet with replaced pixels, (3, H, W), and the middles of the boxes, (H, W).
    """
    _, height, width = triplet.shape
    offsets = box_offsets(shape.y, shape.x)
    mask = rng.random((height, width)) < fraction / len(offsets)
    if not mask.any():
        mask[rng.integers(height), rng.integers(width)] = True
    # Where boxes overlap the last value stays: a middle's own, which comes from outside its box.
    offsets = offsets[np.argsort(~np.any(offsets, axis=1), kind="stable")]
    middle_y, middle_x = np.nonzero(mask)
    y, x = middle_y + offsets[:, :1], middle_x + offsets[:, 1:]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    around = box_offsets(shape.y + MASK_REACH, shape.x + MASK_REACH)
    around = around[(abs(around[:, 0]) > shape.y) | (abs(around[:, 1]) > shape.x)]
    masked = triplet.copy()
    for image in (0, 1, 2) if shape.z else (1,):
        by = around[rng.integers(len(around), size=inside.shape)]
        from_y = step(np.broadcast_to(middle_y, y.shape), by[..., 0], height)
        from_x = step(np.broadcast_to(middle_x, x.shape), by[..., 1], width)
        values = triplet[image, from_y, from_x]
        masked[image, y[inside], x[inside]] = values[inside]
    return masked, mask


def box_offsets(reach_y: int, reach_x: int) -> NDArray[np.intp]:
    """Return the (y, x) offsets of a box around (0, 0), one a row."""
    return np.argwhere(np.ones((2 * reach_y + 1, 2 * reach_x + 1))) - (reach_y, reach_x)


def step(index: NDArray[np.intp], by: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Move indices, the other way where that would leave 0 … size − 1: never to where they were."""
    there = index + by
    return np.where((there < 0) | (there >= size), index - by, there)


def fitting_mask(correlations: Iterable[NoiseCorrelation], *, isotropic: bool) -> MaskShape:
    """Return the mask that hides all pixels whose noise is like that of its middle.

    Parameters
    ----------
    correlations
        How alike the noise of neighbouring pixels is, one for each stack.
    isotropic
        Crops are cut along all axes, so the mask must be as large along each.
    """
    reach = np.zeros(3, int)
    for measured in correlations:
        for axis, along in enumerate((measured.x, measured.y, measured.z)):
            # A gap ends it: what is alike only farther away is structure, not noise.
            alike = [] if along is None else list(np.nan_to_num(along) >= ALIKE)
            reach[axis] = max(reach[axis], [*alike, False].index(False))
    x, y, z = (int(r) for r in reach)
    if isotropic:
        x = y = max(x, y, z)
        z = x
    return MaskShape(x, y, min(z, 1))
