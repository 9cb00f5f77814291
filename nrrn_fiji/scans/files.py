"""Repeated scans in files: which of them there are, and what the output of aligned scans is like.

This module must never hold the scans of more than one slice, and never take two images for scans of
the same thing whose sizes or types differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ..formats.metadata import ImageMetadata
from ..volumes import Volume, VolumeShape

__all__ = ["AlignedLike", "Scans"]


class Scans:
    """Opened scans: which of them there are, and the scans of one slice at a time.

    Parameters
    ----------
    volumes
        One, or several of one size and type.

    Raises
    ------
    ValueError
        If they cannot be scans of the same thing.
    """

    def __init__(self, volumes: Sequence[Volume]):
        first = self.first = volumes[0]
        self.volumes = volumes
        for volume in volumes:
            if volume.shape.c > 1:
                raise ValueError(
                    f"{volume.name} has {volume.shape.c} channels, but scans are registered one "
                    "channel at a time: split the channels first (in Fiji: Image > Color > Split "
                    "Channels). If the channels are the scans, make them slices (in Fiji: Image > "
                    "Properties; in Python: tifffile.imwrite with metadata={'axes': 'ZYX'})."
                )
            if volume.shape != first.shape or volume.dtype != first.dtype:
                raise ValueError(
                    f"{volume.name} is {volume.shape[2:]} of {volume.dtype}, but {first.name} is "
                    f"{first.shape[2:]} of {first.dtype}: give scans of one size and type."
                )
        t, _, z, y, x = first.shape
        if len(volumes) == 1:
            axis = "T" if t > 1 else "Z"
            self.count, self.depth = (t, z) if axis == "T" else (z, 1)
            what = "time point" if axis == "T" else "slice"
            labels = first.metadata.labels if self.depth == 1 else ()
            self.names = tuple(
                (labels[i] if len(labels) == self.count and labels[i] else f"{what} {i}")
                for i in range(self.count)
            )
            self._places = [(first, i if axis == "T" else 0, axis) for i in range(self.count)]
        elif t > 1:
            raise ValueError(
                f"{first.name} has {t} time points, but several files must be one scan each: give "
                "the file alone, or a file per scan."
            )
        else:
            axis, self.count, self.depth = "F", len(volumes), z
            self.names = names_of(volumes)
            self._places = [(volume, 0, axis) for volume in volumes]
        if self.count < 2:
            raise ValueError(
                f"{first.name} is a single scan, but registration needs at least 2 of the same "
                "slice: give more files, or a file that holds several."
            )
        check_different(volumes)
        self.shape = (y, x)
        self.dtype = first.dtype

    def read(self, z: int) -> list[NDArray[Any]]:
        """Return the scans (Y, X) of a slice."""
        images = []
        for number, (volume, time, axis) in enumerate(self._places):
            plane = number if axis == "Z" else z
            images.append(volume.read(plane, plane + 1, time=time)[0])
        return images

    def fingerprints(self) -> list[str]:
        """What tells whether these are still the same scans."""
        return [volume.fingerprint() for volume in self.volumes]


class AlignedLike(Volume):
    """What the output of aligned scans takes its metadata from: the first scan, more often.

    Its shape is (slices, 1, scans, Y, X), so that each time point is what a training on scans
    takes as one stack.  It has no pixels.
    """

    def __init__(self, first: Volume, names: Sequence[str], depth: int):
        said = first.metadata
        lost = ("hyperstack", "mode", "loop", "fps", "finterval", "slices", "frames", "images")
        metadata: ImageMetadata = dataclasses.replace(
            said,
            labels=tuple(names) * depth,
            lines=tuple(line for line in said.lines if line.split("=")[0] not in lost),
            overlays=(),
            roi=None,
        )
        shape = VolumeShape(depth, 1, len(names), first.shape.y, first.shape.x)
        super().__init__(first.name, None, shape, first.dtype, metadata)

    def _read_plane(self, out: NDArray[Any], t: int, c: int, z: int) -> None:
        raise NotImplementedError("There are no pixels to read.")

    def _identity(self) -> str:
        return self.name

    def slice_name(self, z: int) -> str:
        """Return a file name without suffix for scan ``z``."""
        return f"{self.name}_scan_{z:04d}"

    def close(self) -> None:
        """Return at once: the files are the scans'."""


def names_of(volumes: Sequence[Volume]) -> tuple[str, ...]:
    """Return the names of scans; with their folder where two have the same one."""
    names = [volume.name for volume in volumes]
    return tuple(
        f"{volume.path.parent.name}/{name}" if volume.path and names.count(name) > 1 else name
        for volume, name in zip(volumes, names, strict=True)
    )


def check_different(volumes: Sequence[Volume]) -> None:
    """Raise a ValueError if a file is given twice: its noise would count twice, too."""
    seen = set()
    for volume in volumes:
        if volume.path is None:
            continue
        place = volume.path.resolve()
        if place in seen:
            raise ValueError(
                f"{volume.path} is given twice, but every scan must be another recording, because "
                "the same noise is not averaged away: leave one of them out."
            )
        seen.add(place)
