"""Says in one sentence when a stack is unlike what a model was trained on.

Three things decide most of how well a model does on a stack, and can be known before the run: its
bit depth, the size of its voxels and how noisy it is.  Each is compared with the model's card;
what the card does not say is not compared.  This module must never stop a run, look at more than
a few slices, or warn of what a model was trained for.  Why the limits are what they are:
docs/decisions/fitness.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .formats.image import Volume
from .intensity import Source
from .noise_statistics import noise_level, sampled_slices
from .progress import Progress
from .reports import readable_number
from .training_facts import TrainingFacts, in_nanometres, size_in_words

__all__ = ["measured_noise", "unlike_training", "warn_if_unlike"]

WEAKEST, STRONGEST = 0.7, 1.4
"""Noise this many times the weakest and the strongest of the training is unlike it."""

VOXELS = 2.0
"""So is a voxel that is this many times larger or smaller."""

SAMPLED = 3
"""Slices in which the noise is measured."""

MOST_PIXELS = 512
"""Edge of the part of a slice that is looked at."""


def measured_noise(source: Source) -> tuple[float, float] | None:
    """Estimate the noise of a stack from the middle of a few of its slices.

    Parameters
    ----------
    source
        The stack.

    Returns
    -------
    tuple of float or None
        Standard deviation of the noise, and mean grey value there, in grey values; None where it
        cannot be told (slices too small, or without valid pixels).
    """
    levels, means = [], []
    depth, height, width = source.shape
    top, left = (max(0, (edge - MOST_PIXELS) // 2) for edge in (height, width))
    for place in sampled_slices(depth, SAMPLED):
        image = source.read(place.start, place.stop)[0]
        part = image[top : top + MOST_PIXELS, left : left + MOST_PIXELS]
        level = noise_level(part)
        if math.isfinite(level):
            levels.append(level)
            means.append(float(np.mean(part[np.isfinite(part)], dtype=np.float64)))
    return (float(np.median(levels)), float(np.median(means))) if levels else None


def unlike_training(
    card: Mapping[str, Any],
    *,
    dtype: np.dtype[Any],
    span: tuple[float, float],
    noise: tuple[float, float] | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    voxel_unit: str | None = None,
    depth: int = 2,
) -> list[str]:
    """List in what a stack differs much from a model's training, as parts of a sentence.

    Parameters
    ----------
    card
        The model's card.
    dtype
        Type of the stack's pixels.
    span
        Grey values that map to 0 and 1.
    noise
        From :func:`measured_noise`; not compared when left out.
    voxel_size, voxel_unit
        Size of a voxel (z, y, x); not compared when left out, or without a unit of length.
    depth
        Number of slices: one has no distance to the next.

    Returns
    -------
    list of str
        Empty where nothing speaks against the model.
    """
    facts = TrainingFacts.of(card)
    found = []
    deep = np.dtype(dtype).itemsize > 1
    if facts.bits and deep != any(bits > 8 for bits in facts.bits):
        here = f"{8 * np.dtype(dtype).itemsize}-bit"
        found.append(f"{facts.bits_in_words} grey values (these are {here})")
    here_size = in_nanometres(voxel_size, voxel_unit)
    if here_size is not None and facts.voxel_sizes:
        # ImageJ's distance of slices is 1 until somebody sets it.
        unset = depth < 2 or (voxel_size is not None and voxel_size[0] == 1 != voxel_size[2])
        first = 1 if unset else 0
        if not any(near(here_size[first:], size[first:]) for size in facts.voxel_sizes):
            trained = " and ".join(size_in_words(size) for size in facts.voxel_sizes)
            found.append(f"voxels of {trained} (these are {size_in_words(here_size)})")
    width = span[1] - span[0]
    if noise is not None and width > 0:
        sigma, mean = noise[0] / width, (noise[1] - span[0]) / width
        limits = facts.noise_range(mean)
        if limits is not None:
            low, high = limits
            if sigma < WEAKEST * low or sigma > STRONGEST * high:
                found.append(
                    f"noise of {percent(low)} to {percent(high)} % of the grey range (this is "
                    f"about {percent(sigma)} %)"
                )
    return found


def warn_if_unlike(
    name: str,
    card: Mapping[str, Any],
    volume: Volume,
    source: Source,
    span: tuple[float, float],
    progress: Progress,
    *,
    previewing: bool = False,
) -> None:
    """Tell the user in one sentence if a stack is unlike a model's training; never stops anything.

    Parameters
    ----------
    name, card
        Of the model.
    volume
        The image, for its type and voxel size.
    source
        The stack in it whose noise is measured.
    span
        Grey values that map to 0 and 1.
    progress
        Is told.
    previewing
        Whether the user is looking at a part already.
    """
    found = unlike_training(
        card,
        dtype=volume.dtype,
        span=span,
        noise=measured_noise(source),
        voxel_size=volume.voxel_size,
        voxel_unit=volume.voxel_unit,
        depth=volume.shape.z,
    )
    if found:
        look = "look closely" if previewing else "look at a part first (preview)"
        progress.message(
            f"This stack is unlike what {name} was trained on, {listed(found)}: {look}, and "
            "compare with a model that is trained or fine-tuned on it."
        )


def near(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two voxel sizes are alike along every axis."""
    return all(1 / VOXELS < a / b < VOXELS for a, b in zip(one, other, strict=True))


def percent(share: float) -> str:
    """Return a share as per cent, with two digits."""
    return readable_number(100 * share, 2)


def listed(parts: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
