"""Do two stacks show the same thing, in the same place and in the same grey values?

A wrong file, a result that is one slice off, or one that was saved on another grey scale gives
numbers that look like a bad denoiser's, or like a good one's.  So this is asked first.  This
module works on arrays and must never judge: :mod:`nrrn_fiji.verdicts` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .resolution import spectrum

__all__ = ["Match", "match"]

Array = NDArray[np.float64]

FEWEST = 4
"""Slices that must be looked at before a stack is said to be moved."""

ERRORS = 3.0
"""Standard errors by which the correlation must rise, and ..."""

SMALLEST_GAIN = 0.01
"""... by what share of itself."""


@dataclass(frozen=True)
class Match:
    """How a denoised stack lies to its noisy one."""

    correlation: float
    """Of noisy and denoised grey values in the same place, mean over the slices; -1 … 1."""
    offset: tuple[int, int, int]
    """By how many slices and pixels (z, y, x) the denoised stack lies beside the noisy one, where
    most slices agree on it; else (0, 0, 0)."""
    expected: float | None
    """The correlation that a result with all of the structure and none of the noise would have;
    None where slices three apart have nothing in common, or there are none."""
    contrast: float | None
    """Contrast of the structure in the denoised stack over that in the noisy one; None as above."""

    @property
    def share(self) -> float | None:
        """The correlation over the expected one: about 1, more where noise is left, 0 between
        unrelated images."""
        return self.correlation / self.expected if self.expected else None


def match(
    slices: Iterable[tuple[dict[int, Array], Array]],
    *,
    expected: float | None = None,
    contrast: float | None = None,
) -> Match:
    """Look for denoised slices in noisy ones.

    Parameters
    ----------
    slices
        For each denoised slice (Y, X) the noisy one at 0, and those before (-1) and after (1) it
        where there are such.
    expected, contrast
        Kept with the result.
    """
    surfaces: list[dict[int, NDArray[np.float32]]] = []
    for noisy, denoised in slices:
        other = spectrum(denoised)
        surfaces.append(
            {
                z: correlation_surface(spectrum(image), other, image.shape).astype(np.float32)
                for z, image in noisy.items()
            }
        )
    still = float(np.mean([found[0][0, 0] for found in surfaces]))
    y, x = moved_within([np.mean(list(found.values()), axis=0) for found in surfaces], still)
    # Slices are told apart where the denoised stack lies, moved or not.
    alike = [{z: float(surface[y, x]) for z, surface in found.items()} for found in surfaces]
    offset, most = 0, 0.0
    for z in (-1, 1):
        gains = np.array([found[z] - found[0] for found in alike if z in found])
        if certain(gains, still) and gains.mean() > most:
            # A slice that is like the noisy one *after* its own lies one slice too early.
            offset, most = -z, float(gains.mean())
    return Match(still, (offset, y, x), expected, contrast)


def moved_within(surfaces: Sequence[NDArray[np.float32]], still: float) -> tuple[int, int]:
    """Return by how many pixels (y, x) most denoised slices lie beside the noisy ones."""
    places = [np.unravel_index(int(np.argmax(surface)), surface.shape) for surface in surfaces]
    votes = Counter((int(y), int(x)) for y, x in places)
    (y, x), count = votes.most_common(1)[0]
    gains = np.array([surface[y, x] - surface[0, 0] for surface in surfaces], np.float64)
    if 2 * count <= len(surfaces) or not certain(gains, still):
        return 0, 0
    height, width = surfaces[0].shape
    return (y + height // 2) % height - height // 2, (x + width // 2) % width - width // 2


def certain(gains: Array, still: float) -> bool:
    """Return whether a correlation rises by a move for certain, and by enough to count.

    Where slices are all alike, or noise drowns them, chance makes another one the best.  The best
    and the worst of six slices and more have no say: the first and the last slice of a stack have a
    single neighbour, and others may be damaged.

    Source: Yuen, *Biometrika* 61, 1974: the error of a trimmed mean.
    """
    if gains.size < FEWEST:
        return False
    ordered = np.sort(gains)
    trim = 1 if gains.size >= 6 else 0
    kept = ordered[trim : gains.size - trim]
    spread = float(np.clip(ordered, kept[0], kept[-1]).std(ddof=1))
    error = spread * np.sqrt(gains.size) / kept.size
    return bool(kept.mean() > max(ERRORS * error, SMALLEST_GAIN * abs(still)))


def correlation_surface(
    one: NDArray[np.complex128], other: NDArray[np.complex128], shape: tuple[int, ...]
) -> Array:
    """Return the correlation of two images (Y, X) for every shift of the second, from their
    spectra; all 0 where one is constant."""
    surface = fft.irfft2(one.conj() * other, s=shape)
    power = np.sqrt(
        fft.irfft2(np.abs(one) ** 2, s=shape)[0, 0] * fft.irfft2(np.abs(other) ** 2, s=shape)[0, 0]
    )
    return np.asarray(surface / power if power > 0 else np.zeros(shape))
