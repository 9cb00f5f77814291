"""Results that Java has no room for: into a TIFF file, and shown from there as a virtual stack.

ImageJ opens no BigTIFF, which files above 4 GiB are, so it is told itself where each plane lies.
The file carries all the metadata that ``nrrn denoise`` would give it, and the image that is shown
what every other result carries.  This module must never replace a file, and never leave one behind
that is not whole.

Sources: ``ij.plugin.FileInfoVirtualStack`` and ``ij.io.FileInfo`` of ImageJ 1.54p.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import tifffile

from ..formats.image import Array
from ..formats.tiff import quiet, stem
from ..formats.tiff_output import CLASSIC_LIMIT
from ..outputs.partial import NO_SPACE, free_space, readable_size
from ..volumes import create_volume
from . import java
from .images import ImagePlusVolume, dress
from .pixels import more_memory
from .writer import ImageWriter

__all__ = ["VirtualWriter", "folder_for"]

FILE_TYPES = {"uint8": "GRAY8", "uint16": "GRAY16_UNSIGNED", "int16": "GRAY16_SIGNED"}
FLOAT = "GRAY32_FLOAT"


def folder_for(like: ImagePlusVolume, size: int) -> Path:
    """Return the folder for a result of ``size`` bytes.

    It is the source's, where that came from a file and there is room; else that for temporary
    files.  A folder of slices is not written into: the next to open it would take the result for
    a slice.
    """
    folder = like.folder
    if folder is not None and os.access(folder, os.W_OK | os.X_OK) and free_space(folder) > size:
        return folder
    return Path(tempfile.gettempdir())


class VirtualWriter(ImageWriter):
    """A new virtual stack that takes slabs, as :class:`~nrrn_fiji.fiji.images.ImagePlusWriter`.

    The file has its name when :meth:`finish` returns; closed before, it is deleted.

    Parameters
    ----------
    like
        The source.
    title
        Name of the new image and, with a number where that is taken, of the file.
    dtype
        Type of its grey values: the source's, or float32.
    slices
        Which slices of the source it holds.
    same_values
        Whether its grey values mean what the source's do.
    provenance
        How it was made; recorded in the file and in the image's Info.

    Raises
    ------
    OSError
        If the disk has no room for it.
    """

    def __init__(
        self,
        like: ImagePlusVolume,
        *,
        title: str,
        dtype: np.dtype[Any],
        slices: range,
        same_values: bool,
        provenance: dict[str, Any],
    ) -> None:
        shape = like.shape._replace(z=len(slices))
        size = shape.planes * shape.y * shape.x * dtype.itemsize
        suffix = ".ome.tif" if size > CLASSIC_LIMIT else ".tif"
        path = _unused(folder_for(like, size), stem(Path(title)), suffix)
        super().__init__(title, shape, dtype, provenance, path=path)
        self._like = like
        self._slices = slices
        self._same_values = same_values
        # Two runs may make images of the same name at the same time.
        self._unfinished = path.with_name(f".{uuid4().hex[:8]}.partial.{path.name}")
        try:
            with self._no_room_said():
                self._file = create_volume(
                    self._unfinished,
                    like,
                    shape=shape,
                    dtype=dtype,
                    slices=slices,
                    same_values=same_values,
                    provenance=provenance,
                )
        except BaseException:
            self._unfinished.unlink(missing_ok=True)
            raise

    @contextmanager
    def _no_room_said(self) -> Iterator[None]:
        """Say what a full disk means here: unlike a file of the command line, nothing is kept."""
        try:
            yield
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            size = self.shape.planes * self.shape.y * self.shape.x * self.dtype.itemsize
            full = OSError(
                f"The folder {self.path.parent} has no room for {self.path.name}, which needs "
                f"{readable_size(size)}, and Java's memory has none either; every image is as it "
                f"was. Make room there, close images, or give Java more memory ({more_memory()})."
            )
            full.errno = errno.ENOSPC
            raise full from error

    def _put_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        with self._no_room_said():
            self._file.write(z, plane[None], channel=c, time=t)

    def record(self, provenance: dict[str, Any]) -> None:
        """Replace what the file, and the image, say on how they were made."""
        super().record(provenance)
        with self._no_room_said():
            self._file.record(provenance)

    def flush(self) -> None:
        """See what was written to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Delete the file, unless :meth:`finish` has given it out."""
        if self._unfinished.exists():
            os.truncate(self._unfinished, 0)  # or closing it would wait until all is on the disk
        self._file.close()
        self._unfinished.unlink(missing_ok=True)

    def _make(self) -> Any:
        """Give the file its name, and return the image that shows it."""
        with self._no_room_said():
            self._file.close()
        if self.path.exists():  # it came meanwhile
            suffix = self.path.name.removeprefix(stem(self.path))
            self.path = _unused(self.path.parent, stem(self.path), suffix)
        os.replace(self._unfinished, self.path)
        planes = self._planes()
        stack = java.JClass("ij.plugin.FileInfoVirtualStack")(planes)
        stack.setBitDepth(8 * self.dtype.itemsize)
        result = java.JClass("ij.ImagePlus")(self.title, stack)
        result.setFileInfo(planes[0])
        result = dress(
            result,
            self._like,
            shape=self.shape,
            slices=self._slices,
            same_values=self._same_values,
            provenance=self.provenance,
            remark=f"Pixels in the file {self.path}",
        )
        result.changes = False  # there is nothing to save
        return result

    def _planes(self) -> Any:
        """Return where ImageJ finds each plane."""
        with quiet(), tifffile.TiffFile(self.path) as file:
            start, order = file.pages.first.dataoffsets[0], file.byteorder
        kind = java.JClass("ij.io.FileInfo")
        said = self._like.metadata.selected(
            self._like.shape, self.shape, self._slices, same_values=self._same_values
        )
        info = kind()
        info.fileFormat = kind.TIFF
        info.directory = f"{self.path.parent}{os.sep}"
        info.fileName = self.path.name
        info.width, info.height = self.shape.x, self.shape.y
        info.fileType = getattr(kind, FILE_TYPES.get(self.dtype.name, FLOAT))
        info.intelByteOrder = order == "<"
        infos = java.calls([(info, "clone", [])] * self.shape.planes)
        size = self.shape.y * self.shape.x * self.dtype.itemsize
        java.set_each(infos, "longOffset", [start + n * size for n in range(len(infos))])
        if said.labels:
            infos[0].sliceLabels = java.JArray(java.JString)(
                [label or None for label in said.labels]
            )
        return java.JArray(kind)(infos)


def _unused(folder: Path, name: str, suffix: str) -> Path:
    """Return a path that no file has: "a.tif", "a-1.tif", …"""
    path, number = folder / f"{name}{suffix}", 0
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}{suffix}"
    return path
