"""Which noise levels, slices and patches the study looks at, unless it is told others.

This module must never look at a score: what is measured is fixed beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..scoring import Image, Level
from ..triplets import HELD_OUT

__all__ = [
    "LEVELS",
    "TABLE1_LEVEL",
    "central",
    "default_slices",
    "default_tuning_slices",
    "parse_levels",
    "parse_slice_numbers",
]

LEVELS = tuple(
    Level(kind, value)
    for kind, values in (("poisson", (1, 4, 8, 30)), ("gaussian", (10, 25, 35, 75)))
    for value in values
)
"""The paper's levels of Table 2."""

TABLE1_LEVEL = Level("gaussian", 18)
"""Noise as strong as that of the paper's Table 1, whose input has 22.97 dB."""

MOST_SLICES = 11
"""Slices 10, 20, … 110 are scored unless others are asked for, or the stack is not that deep."""

LEVEL_TEXT = re.compile(r"\s*(poisson|gaussian|p|g)\s*:?\s*(\d+(?:\.\d+)?)\s*", re.IGNORECASE)


def default_slices(depth: int, most: int = MOST_SLICES) -> tuple[int, ...]:
    """Return the slices 10, 20, … 110, as far as a stack of ``depth`` slices has them.

    A stack too shallow for any of them is scored on its middle slice.  If there are more than
    ``most``, that many of them are taken, evenly spread.
    """
    slices = tuple(range(10, depth - 1, 10))[:MOST_SLICES] or (depth // 2,)
    if len(slices) > most:
        slices = tuple(slices[round(i)] for i in np.linspace(0, len(slices) - 1, most))
    return slices


def default_tuning_slices(depth: int) -> tuple[int, ...]:
    """Return up to four slices of the last tenth of a stack, which no training sees.

    Of 250 slices: 227, 233, 240 and 247, whose neighbours lie in the last tenth too.
    """
    held_out = max(1, round(HELD_OUT * depth))
    if held_out < 7:
        return tuple(range(depth - held_out, depth))[:4]
    return tuple(int(z) for z in np.linspace(depth - held_out + 2, depth - 3, 4))


def parse_levels(text: str) -> tuple[Level, ...]:
    """Return the noise levels that a user wrote, like ``"P8,G25"`` or ``"poisson:8,gaussian:25"``.

    Raises
    ------
    ValueError
        If a part is no level above 0.
    """
    levels = []
    for part in text.split(","):
        match = LEVEL_TEXT.fullmatch(part)
        if match is None or float(match[2]) == 0:
            raise ValueError(
                f"levels is {text!r}, but it must list noise levels: P and a Poisson peak or G and "
                "a Gaussian sigma (of 255), as in P8,G25."
            )
        kind = {"p": "poisson", "g": "gaussian"}[match[1][0].lower()]
        levels.append(Level(kind, float(match[2])))
    return tuple(dict.fromkeys(levels))


def parse_slice_numbers(text: str) -> tuple[int, ...]:
    """Return the slices that a user wrote: numbers ``"10,20"``, ranges ``"10:40"`` or steps
    ``"10:120:10"`` as Python has them, also mixed.

    Raises
    ------
    ValueError
        If a part is none of these.
    """
    numbers: list[int] = []
    for part in text.split(","):
        words = [word.strip() for word in part.split(":")]
        chosen: Sequence[int] = ()
        if len(words) <= 3 and all(word.isdigit() for word in words):
            bounds = [int(word) for word in words]
            if len(bounds) == 1:
                chosen = bounds
            elif len(bounds) == 2 or bounds[2] > 0:
                chosen = range(*bounds)
        if not chosen:
            raise ValueError(
                f"slices is {text!r}, but it must list slice numbers (0-based) or ranges whose end "
                "is left out, as in 10,20,30 or 10:120:10."
            )
        numbers += chosen
    return tuple(dict.fromkeys(numbers))


def central(image: Image, edge: int) -> Image:
    """Return the central part of slices (…, Y, X), at most ``edge`` pixels along y and x."""
    y, x = (max(0, (size - edge) // 2) for size in image.shape[-2:])
    return image[..., y : y + edge, x : x + edge]
