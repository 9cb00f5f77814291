"""Do two stacks show the same thing, in the same place and in the same grey values?

A wrong file, a result that is one slice off, or one that was saved on another grey scale gives
numbers that look like a bad denoiser's, or like a good one's.  So this is asked first.  This
module works on arrays and must never judge: :mod:`.verdicts` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ..resolution import spectrum

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
    surfaces: list[NDArray[np.float32]] = []
    alike: list[dict[tuple[int, int], dict[int, float]]] = []
    for noisy, denoised in slices:
        other = spectrum(denoised)
        found = {
            z: correlation_surface(spectrum(image), other, image.shape)
            for z, image in noisy.items()
        }
        mean = np.mean(list(found.values()), axis=0)
        # Of all three together one is kept, and of each what is asked for below.
        surfaces.append(mean.astype(np.float32))
        places = {(0, 0), peak(surfaces[-1])}
        alike.append({place: {z: float(f[place]) for z, f in found.items()} for place in places})
    still = float(np.mean([at[0, 0][0] for at in alike]))
    place = moved_within(surfaces, still)
    offset, most = 0, 0.0
    for z in (-1, 1):
        # Slices are told apart where the denoised stack lies, moved or not.
        known = [at[place] for at in alike if place in at and z in at[place]]
        gains = np.array([at[z] - at[0] for at in known])
        if certain(gains, still) and gains.mean() > most:
            # A slice that is like the noisy one *after* its own lies one slice too early.
            offset, most = -z, float(gains.mean())
    y, x = (
        (n + edge // 2) % edge - edge // 2 for n, edge in zip(place, surfaces[0].shape, strict=True)
    )
    return Match(still, (offset, y, x), expected, contrast)


def peak(surface: NDArray[np.float32]) -> tuple[int, int]:
    """Return the place (y, x) of the largest value."""
    y, x = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return int(y), int(x)


def moved_within(surfaces: Sequence[NDArray[np.float32]], still: float) -> tuple[int, int]:
    """Return by how many pixels (y, x) most denoised slices lie beside the noisy ones, counted
    from 0 around the slice."""
    (y, x), count = Counter(map(peak, surfaces)).most_common(1)[0]
    gains = np.array([surface[y, x] - surface[0, 0] for surface in surfaces], np.float64)
    if 2 * count <= len(surfaces) or not certain(gains, still):
        return 0, 0
    return y, x


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
