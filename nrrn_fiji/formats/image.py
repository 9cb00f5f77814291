"""What an opened image is to the rest of the package: planes to read, planes to write.

The engine sees only :class:`Volume` (read slices) and :class:`VolumeWriter` (write slices), so it
knows nothing of file formats.  This module must never touch a file itself, and a volume must
never hold more of an image than what one call of :meth:`Volume.read` asks for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..hiccups import patiently
from ..progress import Progress
from .metadata import (
    ImageMetadata,
    VolumeShape,
    parse_provenance,
    provenance_line,
)

__all__ = [
    "ImageMetadata",
    "Origin",
    "Volume",
    "VolumeShape",
    "VolumeWriter",
    "check_unchanged",
    "parse_provenance",
    "provenance_line",
]

Array = NDArray[Any]


class Origin(NamedTuple):
    """How an image was opened, such that another process can open it; can be pickled."""

    source: str | tuple[str, ...]
    """The file, folder or pattern, or the list of files, as absolute paths."""
    z_axis: str | None = None


class OpenFiles(ABC):
    """Files that are closed at the end of a ``with``, or by :meth:`close`."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Volume(OpenFiles):
    """An opened image; never modified.  Use it as a context manager, or call :meth:`close`.

    Attributes
    ----------
    name
        Name without folder and suffix.
    path
        The file or folder; None for arrays.
    shape
        Time points, channels, slices, rows, columns.
    dtype
        Type of the grey values, native byte order.
    metadata
        What the file said.
    notes
        Sentences the user should read before a long run.
    origin
        How another process opens it again; None for arrays.
    """

    origin: Origin | None = None

    def __init__(
        self,
        name: str,
        path: Path | None,
        shape: VolumeShape,
        dtype: np.dtype[Any],
        metadata: ImageMetadata,
        notes: list[str] | None = None,
    ) -> None:
        if 0 in shape:
            raise ValueError(
                f"{path or name} has zero slices or an empty plane ({shape.z} slices of {shape.y} "
                f"x {shape.x} pixels): check the file, or give another one."
            )
        self.name = name
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.metadata = metadata
        self.notes: list[str] = list(notes or [])
        self._axis = "Z"
        self._lock = threading.Lock()
        self.tell: Callable[[str], None] = warnings.warn

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Size of a voxel (z, y, x) in :attr:`voxel_unit`, or None."""
        return self.metadata.voxel_size

    @property
    def voxel_unit(self) -> str | None:
        """Unit of :attr:`voxel_size`, such as "nm", or None."""
        return self.metadata.voxel_unit

    @property
    def provenance(self) -> dict[str, Any] | None:
        """How nrrn made this image, or None if it did not."""
        return parse_provenance(self.metadata.info)

    @abstractmethod
    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        """Fill ``out`` (Y, X) with one plane; indices as the file counts."""

    @abstractmethod
    def _identity(self) -> str:
        """Return text that changes when the data behind the volume are replaced."""

    def read(self, start: int, stop: int, *, channel: int = 0, time: int = 0) -> Array:
        """Read slices ``start`` to ``stop`` (not included) of one channel and time point.

        Returns
        -------
        ndarray
            (stop - start, Y, X), a new array of the volume's dtype.

        Raises
        ------
        IndexError
            If the volume has no such slice, channel or time point.
        OSError, ValueError
            If the file cannot be read, after some patience with a disk that is out of reach.
        """
        _check_index(self.shape, start, stop, channel, time)
        out = np.empty((stop - start, self.shape.y, self.shape.x), self.dtype)
        places = [(time, channel, z) for z in range(start, stop)]
        if self._axis == "T":
            places = [(z, channel, 0) for z in range(start, stop)]
        elif self._axis == "C":
            places = [(time, z, 0) for z in range(start, stop)]
        with self._lock:
            patiently(
                lambda: self._read_planes(out, places),
                self.path or self.name,
                again=self._reopen,
                tell=self.tell,
            )
        return out

    def _reopen(self) -> None:
        """Open the files anew, if they are held open: what a disk in a network had may be stale.

        Raises
        ------
        ValueError
            If they have been replaced by others.
        """
        return

    def _read_planes(self, out: Array, places: Sequence[tuple[int, int, int]]) -> None:
        """Fill ``out`` (n, Y, X) with the planes at these (t, c, z), as the file counts."""
        for plane, place in zip(out, places, strict=True):
            self._read_plane(plane, *place)

    def reinterpret(self, axis: str) -> None:
        """Read the axis "T" or "C" as depth: for stacks that were saved with the wrong axis.

        Raises
        ------
        ValueError
            If the axis is not one of T, C, Z or if the image has a depth already.
        """
        if axis not in ("Z", "T", "C"):
            raise ValueError(f'z_axis is {axis!r}, but it must be "Z", "T" or "C".')
        if axis == "Z":
            return
        t, c, z, y, x = self.shape
        if z > 1:
            raise ValueError(
                f"z_axis is {axis!r}, but {self.name} has {z} slices in depth already: leave "
                "z_axis out."
            )
        if (t if axis == "T" else c) == 1:
            raise ValueError(
                f"z_axis is {axis!r}, but {self.name} has only one "
                f"{'time point' if axis == 'T' else 'channel'}: leave z_axis out."
            )
        self.metadata = self.metadata.reinterpreted(self.shape, axis)
        self.shape = VolumeShape(1, c, t, y, x) if axis == "T" else VolumeShape(t, 1, c, y, x)
        self._axis = axis

    def slice_name(self, z: int) -> str:
        """Return a file name without suffix for slice ``z``."""
        return f"{self.name}_{z:0{max(4, len(str(self.shape.z - 1)))}d}"

    def slice_metadata(self, z: int, *, channel: int = 0, time: int = 0) -> ImageMetadata:
        """Return what the file said about one plane, as for a file that holds nothing else."""
        said, shape = self.metadata, self.shape
        changes: dict[str, Any] = {
            "labels": said.labels[(time * shape.z + z) * shape.c + channel :][:1],
            "luts": said.luts[channel : channel + 1],
            "ranges": said.ranges[2 * channel : 2 * channel + 2],
            "channel_names": said.channel_names[channel : channel + 1],
        }
        alone = said.selected(shape, shape._replace(c=0, z=1), range(z, z + 1), same_values=True)
        changes.update(lines=alone.lines, roi=alone.roi, overlays=alone.overlays)
        if said.ome_xml is not None:
            # The XML describes the whole stack; as Info of every plane it stays readable.
            changes.update(ome_xml=None, info=said.info or said.ome_xml, resolution=None)
        return dataclasses.replace(said, **changes)

    def fingerprint(self) -> str:
        """Return a hash (64 hex digits) that tells whether this is still the same image.

        Cheap: it reads the first, the middle and the last slice, and the size and time of change
        of the files.
        """
        digest = hashlib.sha256()
        digest.update(f"{self._identity()} {tuple(self.shape)} {self.dtype.name}".encode())
        last = self.shape.z - 1
        for z in sorted({0, last // 2, last}):
            digest.update(self.read(z, z + 1).data)
        if self.shape.t > 1 or self.shape.c > 1:
            plane = self.read(last, last + 1, channel=self.shape.c - 1, time=self.shape.t - 1)
            digest.update(plane.data)
        return digest.hexdigest()

    @abstractmethod
    def close(self) -> None:
        """Close the files; reading is over."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.dtype} {self.shape}>"


class VolumeWriter(OpenFiles):
    """An output that takes slabs in any order; what was written survives a killed process.

    Several processes may open writers of one output (:func:`nrrn_fiji.volumes.reopen_volume`) and
    write at the same time, if none begins or ends within :attr:`depth_multiple` slices of another.

    Attributes
    ----------
    path, shape, dtype
        The output and what it holds.
    depth_multiple
        Every part that is written should begin at a multiple of this, counted in the output, and
        end at one or with the stack: then no chunk or shard of the file belongs to two parts.
    notes
        Sentences the user should read about what the format cannot hold.
    """

    depth_multiple: int = 1

    def __init__(self, path: Path, shape: VolumeShape, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.notes: list[str] = []

    @abstractmethod
    def _write_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        """Write one plane (Y, X) of the right type."""

    def write(self, start: int, block: Array, *, channel: int = 0, time: int = 0) -> None:
        """Write slices ``start`` … of one channel and time point.

        Parameters
        ----------
        start
            First slice, counted in the output.
        block
            (n, Y, X) of the output's dtype.

        Raises
        ------
        IndexError
            If the output has no such slice, channel or time point.
        ValueError
            If shape or type of ``block`` do not fit.
        OSError
            If writing fails; for a full disk with a sentence, and ``errno`` is ``ENOSPC``.
        """
        if block.ndim != 3 or block.shape[1:] != self.shape[3:] or block.dtype != self.dtype:
            raise ValueError(
                f"block is {block.shape} of {block.dtype}, but {self.path.name} takes "
                f"(n, {self.shape.y}, {self.shape.x}) of {self.dtype}."
            )
        _check_index(self.shape, start, start + len(block), channel, time)
        self._write_planes(block, time, channel, start)

    def _write_planes(self, block: Array, t: int, c: int, start: int) -> None:
        """Write consecutive planes (n, Y, X) of the right type."""
        for i, plane in enumerate(block):
            self._write_plane(plane, t, c, start + i)

    def finish(self, progress: Progress | None = None) -> None:
        """Write what depends on all slices, such as a pyramid; call it once when all are written.

        It can be repeated, so a run that is killed meanwhile loses nothing.

        Parameters
        ----------
        progress
            Is asked whether to stop.

        Raises
        ------
        Cancelled
            When the user stops.
        """
        self.flush()

    @abstractmethod
    def record(self, provenance: dict[str, Any]) -> None:
        """Replace what the output says on how it was made: a run may not go as it was planned.

        Raises
        ------
        ValueError
            If the output was begun without such a record.
        """

    @abstractmethod
    def flush(self) -> None:
        """Return when all that was written is on the disk."""

    @abstractmethod
    def close(self) -> None:
        """Flush, and close the files."""


def check_unchanged(path: Path, before: str, now: str) -> None:
    """Raise ValueError unless a file that had to be opened anew is the one of before."""
    if before != now:
        raise ValueError(f"{path} changed while it was in use: run again when it is whole.")


def _check_index(shape: VolumeShape, start: int, stop: int, channel: int, time: int) -> None:
    """Raise IndexError unless all that is asked for exists."""
    if not 0 <= start <= stop <= shape.z:
        raise IndexError(f"slices {start}:{stop} asked for, but there are slices 0:{shape.z}.")
    if not 0 <= channel < shape.c:
        raise IndexError(f"channel is {channel}, but there are channels 0 to {shape.c - 1}.")
    if not 0 <= time < shape.t:
        raise IndexError(f"time is {time}, but there are time points 0 to {shape.t - 1}.")
