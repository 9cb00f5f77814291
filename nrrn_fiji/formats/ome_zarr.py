"""Reads OME-Zarr, NGFF 0.4 (Zarr v2) and 0.5 (Zarr v3), and plain Zarr arrays, by means of zarr.

This module must never decode a chunk before :mod:`.ngff` has looked at the metadata, nor take
chunks that vanish while an image is read for empty ones.

Source: https://ngff.openmicroscopy.org/0.5/; https://zarr-specs.readthedocs.io/
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer.cpu import NDBuffer
from zarr.storage import LocalStore

from ..intensity import check_dtype
from .image import Volume
from .ngff import find_array, metadata_of
from .table import check_plane, plain_name
from .zarr_codecs import open_array

__all__ = ["ZarrVolume", "file_shape", "files_along", "library", "reading"]

Array = NDArray[Any]
MOST_COUNTED = 20000
"""Chunks whose presence is checked when an image is opened."""
AT_ONCE = 2
"""Chunks or shards that the library works on together; more make memory grow, not speed."""


def library() -> Any:
    """Return a context in which zarr holds few chunks at a time."""
    return zarr.config.set({"async.concurrency": AT_ONCE})


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside a reader of foreign bytes into a sentence."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or incomplete ({what}): copy it again.") from error


class ZarrVolume(Volume):
    """The full-size image of an OME-Zarr, or a plain Zarr array.

    Parameters
    ----------
    path
        The folder.
    inside
        Which image or array in it; "" for the only one.

    Raises
    ------
    ValueError
        If there is no image, several, or a damaged one.
    TypeError
        If it holds no grey values.
    """

    def __init__(self, path: Path, inside: str = "") -> None:
        place = find_array(path, inside)
        dtype = check_dtype(place.dtype, str(path))
        shape = place.volume_shape
        check_plane(path, shape, dtype)
        at = path / place.path
        with reading(path):
            self._array = open_array(LocalStore(at, read_only=True), place.zarr_format)
            if self._array.shape != place.shape:
                raise ValueError("its metadata contradict each other")
        self.place = place
        super().__init__(plain_name(path), path, shape, dtype, metadata_of(place))
        self.notes += place.notes
        self._look_for_chunks(at)

    def _look_for_chunks(self, at: Path) -> None:
        """Say it if chunks are missing: they are legal, and may as well have been lost."""
        self._all_there = False
        count = math.prod(files_along(self._array))
        if count > MOST_COUNTED:
            return
        there = sum(
            (at / self._array.metadata.encode_chunk_key(place)).is_file()
            for place in np.ndindex(*files_along(self._array))
        )
        if there == 0:
            raise ValueError(
                f"{at} has none of its {count} chunks, so it is empty or was not copied as a "
                "whole: copy it again."
            )
        self._all_there = there == count
        if there < count:
            self.notes.append(
                f"{count - there} of the {count} files of chunks of {self.name} are not there. "
                f"Zarr leaves out what is all {self._array.fill_value}; if they were lost, copy "
                "it again."
            )

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        self._read_planes(out[np.newaxis], [(t, c, z)])

    def _read_planes(self, out: Array, places: Sequence[tuple[int, int, int]]) -> None:
        first, last = places[0], places[-1]
        selection: list[Any] = []
        deep = False
        for axis in self.place.axes:
            if axis in "yx":
                selection.append(slice(None))
                continue
            i = "tcz".index(axis)
            if first[i] == last[i]:
                selection.append(first[i])
            else:
                selection.append(slice(first[i], last[i] + 1))
                deep = True
        into = out if deep else out[0]
        assert self.path is not None
        with reading(self.path), library():
            if self._array.dtype.isnative:
                buffer = NDBuffer.from_numpy_array(into)
                self._array.get_basic_selection(tuple(selection), out=buffer)
            else:
                into[...] = self._array[tuple(selection)]
        self._check_there(places)

    def _check_there(self, places: Sequence[tuple[int, int, int]]) -> None:
        """Raise FileNotFoundError if what was just read had vanished: zarr takes it for empty."""
        assert self.path is not None
        at, array = self.path / self.place.path, self._array
        files = ["zarr.json" if self.place.zarr_format == 3 else ".zarray"]
        if self._all_there:
            along = [range(count) for count in files_along(array)]
            for i, (axis, length) in enumerate(
                zip(self.place.axes, file_shape(array), strict=True)
            ):
                if axis not in "yx":
                    wanted = {place["tcz".index(axis)] // length for place in places}
                    along[i] = range(min(wanted), max(wanted) + 1)
            files += [array.metadata.encode_chunk_key(place) for place in product(*along)]
        for file in files:
            if not (at / file).exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(at / file))

    def _identity(self) -> str:
        assert self.path is not None
        digest = hashlib.sha256()
        at = self.path / self.place.path
        for name in ("zarr.json", ".zarray"):
            if (at / name).is_file():
                digest.update((at / name).read_bytes())
        for folder in (at, *sorted(child for child in at.iterdir() if child.is_dir())[:1000]):
            digest.update(f"{folder.name} {folder.stat().st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Return at once: no file is open between reads."""


def file_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape of what one file of an array holds."""
    return tuple(array.shards or array.chunks)


def files_along(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return how many files there are along every axis."""
    sizes = zip(array.shape, file_shape(array), strict=True)
    return tuple(-(-size // length) for size, length in sizes)
