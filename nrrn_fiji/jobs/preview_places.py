"""Where a preview looks: places of a stack that show what it is like.

This module must never look at more than three slices of a stack.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..intensity import Source, invalid_mask

__all__ = ["Place", "choose_places"]

Array = NDArray[Any]

KINDS = ("detailed", "typical", "flat")
BLOCK = 4
"""Edge in pixels of the blocks whose means tell structure from noise."""


class Place(NamedTuple):
    """A part of a slice."""

    kind: str
    """What there is to see: "detailed", "typical" or "flat"."""
    z: int
    top: int
    left: int
    height: int
    width: int


def choose_places(stack: Source, count: int, size: int) -> list[Place]:
    """Choose places that show what a stack is like, in slices from its middle third.

    Structure is told from noise by the spread of the means of small blocks, which noise hardly
    moves.  The place where it is largest is called detailed, where it is smallest flat, and where
    it is in the middle typical.

    Parameters
    ----------
    stack
        The stack.
    count
        How many, 1 to 3: typical; detailed and flat; all.
    size
        Edge in pixels; less where slices are smaller.

    Returns
    -------
    list of Place
        In the order detailed, typical, flat; fewer where the slices have no room for them.
    """
    depth, height, width = stack.shape
    high, wide = min(size, height), min(size, width)
    found: list[tuple[float, Place]] = []
    for z in dict.fromkeys((depth // 2, depth // 3, min(depth - 1, 2 * depth // 3))):
        image = stack.read(z, z + 1)[0]
        invalid = invalid_mask(image)
        for top in steps(height, high):
            for left in steps(width, wide):
                part = np.s_[top : top + high, left : left + wide]
                if invalid is not None and invalid[part].any():
                    continue
                place = Place("", z, top, left, high, wide)
                found.append((structure(image[part]), place))
    if not found:
        return [Place("typical", depth // 2, (height - high) // 2, (width - wide) // 2, high, wide)]
    found.sort(key=lambda item: item[0])
    wanted = {1: ("typical",), 2: ("detailed", "flat"), 3: KINDS}[count]
    ranks = {"detailed": len(found) - 1, "typical": len(found) // 2, "flat": 0}
    places: dict[str, Place] = {}
    for kind in sorted(wanted, key=("detailed", "flat", "typical").index):
        # The nearest in rank that shows nothing of what is shown already.
        rank = ranks[kind]
        for index in sorted(range(len(found)), key=lambda i: abs(i - rank)):
            place = found[index][1]
            if not any(overlaps(place, other) for other in places.values()):
                places[kind] = place._replace(kind=kind)
                break
    return [places[kind] for kind in KINDS if kind in places]


def steps(length: int, size: int) -> list[int]:
    """Return where parts of a size may begin, half overlapping, the last at the end."""
    count = max(1, math.ceil((length - size) / max(1, size // 2)) + 1)
    return sorted({round(start) for start in np.linspace(0, length - size, min(count, 24))})


def structure(part: Array) -> float:
    """Return the spread of the means of small blocks of a part of a slice."""
    rows, columns = (edge // BLOCK for edge in part.shape)
    if not rows or not columns:
        return 0.0
    cut = part[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    return float(cut.reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3)).std())


def overlaps(one: Place, other: Place) -> bool:
    """Whether two places share pixels, in the same or in different slices."""
    return abs(one.top - other.top) < max(one.height, other.height) and abs(
        one.left - other.left
    ) < max(one.width, other.width)
