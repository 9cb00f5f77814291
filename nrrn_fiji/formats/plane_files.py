"""Writes planes at their places in a file that was laid out full size before.

Formats that keep their planes one after the other (TIFF, MRC, HDF5 without chunks) share this
way: plain file I/O, so memory does not grow with the file (the pages of a memory map count as
memory), every plane that was written survives a killed process, and several processes can write
different planes of one file.  This module must never hold more than one plane beside the
caller's slab, and knows nothing of headers.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import NO_SPACE
from .image import VolumeWriter
from .metadata import VolumeShape

__all__ = ["NO_SPACE", "PlaneFileWriter", "disk_full"]

Array = NDArray[Any]


def disk_full(path: Path, what: str) -> OSError:
    """Return the error for a disk without room; its message is a sentence."""
    error = OSError(
        f"{path} does not fit on its disk ({what}): make room, then run the same command again; "
        "what is finished is kept."
    )
    error.errno = errno.ENOSPC
    return error


class PlaneFileWriter(VolumeWriter):
    """Writes planes into a file in which they lie one after the other.

    Parameters
    ----------
    path, shape, dtype
        The file and what it holds; ``dtype`` in native byte order.
    offset
        Where its pixels start.
    stored
        Type and byte order in the file; planes are converted to it.
    channel_fastest
        Whether planes follow each other as time, slice, channel (the last fastest), or as time,
        channel, slice.
    """

    def __init__(
        self,
        path: Path,
        shape: VolumeShape,
        dtype: np.dtype[Any],
        offset: int,
        stored: np.dtype[Any],
        *,
        channel_fastest: bool = True,
    ) -> None:
        super().__init__(path, shape, dtype)
        self._offset = offset
        self._stored = stored
        self._channel_fastest = channel_fastest
        # Unbuffered: a finished plane is the system's, even if this process is killed.
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115

    def _write_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        data = np.ascontiguousarray(plane).astype(self._stored, copy=False).data.cast("B")
        if self._channel_fastest:
            index = (t * self.shape.z + z) * self.shape.c + c
        else:
            index = (t * self.shape.c + c) * self.shape.z + z
        try:
            self._file.seek(self._offset + index * len(data))
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            if error.errno in NO_SPACE:
                raise disk_full(self.path, os.strerror(error.errno)) from error
            raise

    def flush(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()
