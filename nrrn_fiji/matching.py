"""Do two stacks show the same thing, in the same place and in the same grey values?

A wrong file, a result that is one slice off, or one that was saved on another grey scale gives
numbers that look like a bad denoiser's, or like a good one's.  So this is asked first.  This
module works on arrays and must never judge: :mod:`nrrn_fiji.verdicts` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .resolution import spectrum

__all__ = ["Match", "match"]

Array = NDArray[np.float64]


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
    votes: Counter[tuple[int, int, int]] = Counter()
    found: list[float] = []
    for noisy, denoised in slices:
        other = spectrum(denoised)
        best, place = 0.0, (0, 0, 0)
        for z, image in noisy.items():
            surface = correlation_surface(spectrum(image), other, image.shape)
            if z == 0:
                found.append(float(surface[0, 0]))
            y, x = (int(n) for n in np.unravel_index(int(np.argmax(surface)), surface.shape))
            if surface[y, x] > best:
                height, width = surface.shape
                best = surface[y, x]
                # A denoised slice that equals the noisy one *after* it lies one slice too early.
                place = (
                    -z,
                    (y + height // 2) % height - height // 2,
                    (x + width // 2) % width - width // 2,
                )
        votes[place] += 1
    place, count = votes.most_common(1)[0]
    total = sum(votes.values())
    return Match(
        correlation=float(np.mean(found)),
        offset=place if 2 * count > total else (0, 0, 0),
        expected=expected,
        contrast=contrast,
    )


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
