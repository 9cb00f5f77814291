"""Plain arithmetic: where slices are cut into tiles, stacks into slabs, and what that needs.

A tile is computed with a *halo* of real pixels around it that is cut away afterwards; the halo is
the receptive radius of the network, so the result is that of the whole slice.  At the border of
the slice the window ends where the slice ends, and the network's own zero padding acts there as
it does on the whole slice.

This module must never import torch, and never blend tiles: there is nothing to hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

__all__ = [
    "Span",
    "Window",
    "check_tile",
    "slabs",
    "spans",
    "tile_bytes",
    "window_size",
    "windows",
]


class Span(NamedTuple):
    """One window along one axis: computed is [start, stop), kept is [first, last)."""

    start: int
    stop: int
    first: int
    last: int


class Window(NamedTuple):
    """One window of a slice."""

    y: Span
    x: Span


def check_tile(tile: int, halo: int) -> int:
    """Return ``tile`` if it is at least the halo.

    Raises
    ------
    ValueError
        If it is smaller: most of the work would be thrown away.
    """
    if tile < halo:
        raise ValueError(
            f"tile is {tile}, but a tile must be at least as large as the halo around it, {halo} "
            "px with this model: choose 64 or more, or leave it out."
        )
    return tile


def window_size(length: int, tile: int, halo: int) -> int:
    """Return how many pixels every window has along an axis of ``length`` pixels.

    All windows of an axis have one size, at most ``tile + 2 * halo``: the smallest with which no
    further window is needed, so that they share the work evenly.
    """
    if length <= tile + 2 * halo:
        return length
    count = -(-(length - 2 * halo) // tile)
    return -(-(length - 2 * halo) // count) + 2 * halo


def spans(length: int, tile: int, halo: int) -> list[Span]:
    """Cut an axis of ``length`` pixels into windows.

    What is kept covers the axis exactly once, and lies at least ``halo`` pixels inside its window
    except where the window ends with the axis.
    """
    size = window_size(length, tile, halo)
    if size == length:
        return [Span(0, length, 0, length)]
    count = -(-(length - 2 * halo) // (size - 2 * halo))
    starts = [i * (length - size) // (count - 1) for i in range(count)]
    ends = [start + size - halo for start in starts[:-1]] + [length]
    firsts = [0, *ends[:-1]]
    return [
        Span(start, start + size, first, last)
        for start, first, last in zip(starts, firsts, ends, strict=True)
    ]


def windows(shape: tuple[int, int], tile: int, halo: int) -> list[Window]:
    """Cut a slice of ``shape`` (Y, X) into windows, row by row; all have the same size."""
    rows, columns = (spans(length, tile, halo) for length in shape)
    return [Window(y, x) for y, x in product(rows, columns)]


def slabs(slices: range, depth: int) -> Iterator[range]:
    """Cut ``slices`` into slabs of ``depth`` slices (the last may be thinner)."""
    for start in range(slices.start, slices.stop, depth):
        yield range(start, min(start + depth, slices.stop))


def tile_bytes(pixels: int, maps: int, itemsize: int) -> int:
    """Estimate the memory that the network needs for ``pixels`` pixels of windows.

    At the peak, the end of the first unit with two centres, there are about 28 images of ``maps``
    maps: three centres' W-convolutions (9), the memory and its V-convolutions (4), both centres'
    states (2), gates and candidates (6) and what the convolutions work with (measured: at most 7).
    """
    return 28 * maps * itemsize * pixels
