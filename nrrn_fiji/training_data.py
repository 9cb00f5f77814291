"""Read the stacks of a training into memory, as far as they fit, without what is no image.

This module must never join slices that are not adjacent, nor choose what it reads by how much
memory happens to be free: a training that is resumed must find the same slices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrrn_fiji.intensity import ArraySource, fill_invalid, grey_range, invalid_mask
from nrrn_fiji.progress import Progress
from nrrn_fiji.triplets import TrainingStack
from nrrn_fiji.volumes import Volume, open_volume

__all__ = ["fingerprint", "read_stacks"]

MEMORY_LIMIT = 4 * 2**30
"""Most bytes of training data that are kept in memory."""

RUN = 16
"""Slices in a row that are read from a volume which does not fit."""


def read_stacks(
    stacks: Sequence[NDArray[Any] | str | Path | Volume],
    intensity: tuple[float, float] | None,
    progress: Progress,
) -> list[TrainingStack]:
    """Read stacks into memory; every channel and time point is a stack of its own.

    So is every run of slices without a gap: a triplet must never reach across what was left out.
    """
    if not stacks:
        raise ValueError("No stack was given, but training needs at least one: name a file.")
    read = []
    for source in stacks:
        with source if isinstance(source, Volume) else open_volume(source) as volume:
            for note in volume.notes:
                progress.message(note)
            shape = volume.shape
            parts = shape.c * shape.t
            budget = MEMORY_LIMIT // (len(stacks) * parts)
            for channel in range(shape.c):
                for time_point in range(shape.t):
                    name = volume.name
                    file = volume.name if volume.path is None else volume.path.name
                    if parts > 1:
                        name += f" (channel {channel}, time {time_point})"
                    runs = read_runs(volume, channel, time_point, budget, progress)
                    span = grey_range(*(ArraySource(run) for run in runs), asked=intensity)
                    if span.constant:
                        raise ValueError(
                            f"{name} has the same grey value {span.low:g} everywhere, so there is "
                            "nothing to learn: give another stack."
                        )
                    read += [
                        TrainingStack(
                            run,
                            (span.low, span.high),
                            name,
                            file,
                            volume.voxel_size,
                            volume.voxel_unit,
                        )
                        for run in without_invalid(runs, name, progress)
                    ]
    return read


def read_runs(
    volume: Volume, channel: int, time_point: int, budget: int, progress: Progress
) -> list[NDArray[Any]]:
    """Read a stack whole, or as many runs of its slices, evenly spread, as the budget holds."""
    depth, height, width = volume.shape.z, volume.shape.y, volume.shape.x
    count = max(1, budget // (height * width * volume.dtype.itemsize) // RUN)
    if depth <= count * RUN:
        return [volume.read(0, depth, channel=channel, time=time_point)]
    progress.message(
        f"{volume.name} has {depth} slices; {count * RUN} of them, {count} runs of {RUN} spread "
        "over its depth, fit into the memory for training data."
    )
    starts = np.linspace(0, depth - RUN, count).astype(int)
    return [volume.read(int(z), int(z) + RUN, channel=channel, time=time_point) for z in starts]


def without_invalid(
    runs: Sequence[NDArray[Any]], name: str, progress: Progress
) -> list[NDArray[Any]]:
    """Fill NaN, infinite values and padding; cut runs where a slice has no valid pixel at all."""
    filled = empty = 0
    result: list[NDArray[Any]] = []
    for run in runs:
        before = filled + empty
        piece: list[NDArray[Any]] = []
        pieces = [piece]
        for image in run:
            invalid = invalid_mask(image)
            if invalid is None:
                piece.append(image)
            elif invalid.all():
                empty += 1
                pieces.append(piece := [])
            else:
                filled += int(invalid.sum())
                piece.append(fill_invalid(image, invalid))
        changed = filled + empty > before
        result += [np.stack(p) for p in pieces if len(p) >= 3] if changed else [run]
    if filled:
        progress.message(
            f"{name}: {filled} pixels are NaN, infinite or black border; they are filled from "
            "their neighbours for training."
        )
    if empty:
        progress.message(
            f"{name}: {'1 slice has' if empty == 1 else f'{empty} slices have'} no valid pixel "
            "(NaN, infinite or black): that is left out, and so are fewer than 3 slices in a row."
        )
    if not result:
        raise ValueError(
            f"{name} has no 3 adjacent slices with valid pixels: check the file that was given."
        )
    return result


def fingerprint(stacks: Sequence[TrainingStack]) -> str:
    """Return a hash of the training data."""
    digest = hashlib.sha256()
    for stack in stacks:
        digest.update(f"{stack.array.shape} {stack.array.dtype} {stack.intensity}".encode())
        for image in stack.array:
            digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
