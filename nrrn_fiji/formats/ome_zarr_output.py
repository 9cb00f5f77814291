"""Writes OME-Zarr, NGFF 0.4 (Zarr v2) and 0.5 (Zarr v3, sharded); the functions of that format.

Written images have a pyramid, which is computed from what is on the disk, a few chunks at a time,
when all slices are there.  Slabs that are written begin and end with shards, so that neither a
killed process nor several at a time can leave a shard that holds a part of each.

This module must never take a chunk that is missing from one of its own outputs for an empty one,
nor let a chunk or shard that was written before be absent or incomplete for a moment: another
process may have written it.

Source: https://ngff.openmicroscopy.org/0.5/; https://zarr-specs.readthedocs.io/
"""

from __future__ import annotations

import json
import math
import os
import shutil
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from ..files import sync_folder, write_whole
from ..progress import Cancelled, Progress
from .image import Volume, VolumeWriter
from .metadata import VolumeShape
from .ngff import find_array, own_parts
from .ngff_output import axes_of, describe, level_shapes
from .ome_zarr import ZarrVolume, file_shape, files_along, library, reading
from .plane_files import NO_SPACE, disk_full
from .table import Output, check_same, plain_name
from .zarr_store import PARTIAL, SharedStore

__all__ = ["ZarrWriter", "create", "open_file", "parts_of_image", "reopen"]

Array = NDArray[Any]
ZarrFormat = Literal[2, 3]

VERSION_VARIABLE = "NRRN_OME_ZARR"
"""Environment variable that names the version of outputs whose input is of another format."""
VERSIONS: dict[str, ZarrFormat] = {"0.4": 2, "0.5": 3}
"""Version of Zarr that a version of OME-Zarr is stored in."""
CHUNK_VOXELS = {3: 1 << 18, 2: 1 << 20}
"""Voxels of a chunk, by version of Zarr: 64 × 64 × 64; without shards a chunk is a file."""
CHUNK_DEPTH = 64
MOST_SHARD = 1 << 25
"""Bytes of a shard before compression; writing one takes about three times as much."""
COPIED = 1 << 22
"""Voxels, about, that the library is given at a time: it makes a copy of them."""


class Layout(NamedTuple):
    """How an array is cut, as (z, y, x)."""

    chunk: tuple[int, int, int]
    shard: tuple[int, int, int] | None


def layout(
    sizes: tuple[int, int, int], itemsize: int, slab: int, most: int, zarr_format: ZarrFormat
) -> Layout:
    """Choose chunks, and the shards that hold them, for an array that is written in slabs.

    Parameters
    ----------
    sizes
        (z, y, x) of the array.
    slab
        Slices that are written at a time; the depth of a chunk divides it.
    most
        Bytes of the largest shard, roughly.
    """
    depth = slab
    if slab >= sizes[0]:
        depth = min(CHUNK_DEPTH, sizes[0])
    elif slab > CHUNK_DEPTH:
        divisors = [n for n in range(1, slab + 1) if slab % n == 0]
        depth = min(divisors, key=lambda n: abs(math.log(n / CHUNK_DEPTH)))
    edge = 1 << round(math.log2(math.sqrt(CHUNK_VOXELS[zarr_format] / depth)))
    y, x = (min(edge, length) for length in sizes[1:])
    if zarr_format == 2:
        return Layout((depth, y, x), None)
    most = max(1, min(most, MOST_SHARD) // (depth * y * x * itemsize))
    across = max(1, min(math.isqrt(most), -(-sizes[2] // x)))
    down = max(1, min(most // across, -(-sizes[1] // y)))
    return Layout((depth, y, x), (depth, y * down, x * across))


class ZarrWriter(VolumeWriter):
    """Writes slabs into an OME-Zarr that :func:`create` laid out, and then its pyramid.

    Parameters
    ----------
    path, shape, dtype
        The folder and what it holds.
    zarr_format
        2 or 3.
    """

    def __init__(
        self, path: Path, shape: VolumeShape, dtype: np.dtype[Any], zarr_format: ZarrFormat
    ) -> None:
        super().__init__(path, shape, dtype)
        self._format = zarr_format
        self._axes = axes_of(shape)
        self._stores: list[SharedStore] = []
        self._levels: list[zarr.Array[Any]] = []
        while (path / str(len(self._levels))).is_dir():
            self._levels.append(self._open(len(self._levels)))
        self.depth_multiple = file_shape(self._levels[0])[-3]
        self._unsynced: set[Path] = set()

    def _open(self, level: int) -> zarr.Array[Any]:
        self._stores.append(SharedStore(self.path / str(level)))
        array = zarr.open_array(self._stores[-1], mode="r+", zarr_format=self._format)
        config: Any = {"write_empty_chunks": True}  # a missing chunk is a lost one
        return array.with_config(config)

    def _write_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        self._write_planes(plane[np.newaxis], t, c, z)

    def _write_planes(self, block: Array, t: int, c: int, start: int) -> None:
        if not len(block):
            return
        depth, height, _ = file_shape(self._levels[0])[-3:]
        # Whole rows of shards: what is replaced as a whole is not looked at first.
        step = height * max(1, COPIED // max(1, depth * height * self.shape.x))
        for y in range(0, self.shape.y, step):
            self._put(0, t, c, (start, y, 0), block[:, y : y + step])

    def _put(self, level: int, t: int, c: int, corner: tuple[int, int, int], block: Array) -> None:
        """Write a box (z, y, x) of a level, and remember which files that changes."""
        array = self._levels[level]
        lead: list[Any] = [number for axis, number in (("t", t), ("c", c)) if axis in self._axes]
        box = [slice(a, a + n) for a, n in zip(corner, block.shape, strict=True)]
        # For every axis, the files that are touched, and whether the box covers all of them there.
        touched = [
            {
                i: part.start <= i * n and part.stop >= min((i + 1) * n, size)
                for i in range(part.start // n, -(-part.stop // n))
            }
            for part, n, size in zip(box, file_shape(array)[-3:], array.shape[-3:], strict=True)
        ]
        keys = {
            array.metadata.encode_chunk_key((*lead, *(i for i, _ in places))): all(
                covered for _, covered in places
            )
            for places in product(*(along.items() for along in touched))
        }
        replaced = [key for key, whole in keys.items() if whole]
        try:
            with self._stores[level].replacing(replaced), library():
                array[tuple(lead + box)] = block
        except OSError as error:
            if error.errno in NO_SPACE:
                raise disk_full(self.path, os.strerror(error.errno or 0)) from error
            raise
        self._unsynced.update(self.path / str(level) / key for key in keys)

    def finish(self, progress: Progress | None = None) -> None:
        """Write the pyramid, level by level, from what is on the disk.

        Raises
        ------
        FileNotFoundError
            If a part of the image is not there.
        """
        for place in np.ndindex(*files_along(self._levels[0])):
            file = self.path / "0" / self._levels[0].metadata.encode_chunk_key(place)
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file}, a part of the image, was not written or has vanished: begin again "
                    "with --restart (restart=True)."
                )
        if progress is not None and len(self._levels) > 1:
            progress.message(f"Writing the pyramid: {len(self._levels) - 1} smaller levels.")
        for level in range(1, len(self._levels)):
            array = self._levels[level]
            steps = file_shape(array)[-3:]
            sizes = array.shape[-3:]
            corners = product(*(range(0, n, step) for n, step in zip(sizes, steps, strict=True)))
            for (z, y, x), t, c in product(corners, range(self.shape.t), range(self.shape.c)):
                if progress is not None and progress.cancelled:
                    raise Cancelled("Stopped while the pyramid was written.")
                box = [
                    slice(a, min(a + step, n))
                    for a, step, n in zip((z, y, x), steps, sizes, strict=True)
                ]
                self._put(level, t, c, (z, y, x), self._halved(level, t, c, box))
            self.flush()
        for left in self.path.rglob(f"*{PARTIAL}"):  # of a process killed while it wrote a chunk
            left.unlink(missing_ok=True)
        self.flush()

    def _halved(self, level: int, t: int, c: int, box: list[slice]) -> Array:
        """Return a box of a level as means of the voxels of the level before."""
        source = self._levels[level - 1]
        before, now = source.shape[-3:], self._levels[level].shape[-3:]
        factors = [2 if n < b else 1 for n, b in zip(now, before, strict=True)]
        wide = [
            slice(part.start * f, min(part.stop * f, b))
            for part, f, b in zip(box, factors, before, strict=True)
        ]
        lead: list[Any] = [number for axis, number in (("t", t), ("c", c)) if axis in self._axes]
        with reading(self.path), library():
            block = np.asarray(source[tuple(lead + wide)])
        return mean_of_blocks(block, (factors[0], factors[1], factors[2]))

    def record(self, provenance: dict[str, Any]) -> None:
        name = "zarr.json" if self._format == 3 else ".zattrs"
        said = json.loads((self.path / name).read_text(encoding="utf-8"))
        attributes = said["attributes"] if self._format == 3 else said
        if "nrrn" not in attributes:
            raise ValueError(
                f"{self.path} has no record of how it was made: begin it with its provenance."
            )
        attributes["nrrn"] = provenance
        write_whole(self.path / name, json.dumps(said, indent=2).encode())

    def flush(self) -> None:
        folders: set[Path] = set()
        for file in self._unsynced:
            try:
                handle = os.open(file, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            # Also those above: they may be as new as the file.
            folders.update(above for above in file.parents if above.is_relative_to(self.path))
        for folder in folders:
            sync_folder(folder)
        self._unsynced.clear()

    def close(self) -> None:
        self.flush()


def mean_of_blocks(block: Array, factors: tuple[int, int, int]) -> Array:
    """Return means over 1 or 2 voxels along each axis, rounded for whole numbers.

    Parameters
    ----------
    block
        (z, y, x); where a length is odd the last voxel stands for the missing one.

    Returns
    -------
    ndarray
        (ceil(z / factor), …) of the same type.
    """
    odd = [(0, -length % factor) for length, factor in zip(block.shape, factors, strict=True)]
    if any(after for _, after in odd):
        block = np.pad(block, odd, mode="edge")
    count = math.prod(factors)
    integer = block.dtype.kind in "iu"
    wide = np.dtype(f"{block.dtype.kind}{2 * block.dtype.itemsize}") if integer else block.dtype
    shape = [length // factor for length, factor in zip(block.shape, factors, strict=True)]
    total = np.zeros(shape, wide)
    with np.errstate(invalid="ignore"):  # inf − inf
        for z, y, x in product(*map(range, factors)):
            part = block[z :: factors[0], y :: factors[1], x :: factors[2]]
            # Floats are divided first, by 1, 2, 4 or 8: exact, and the sum stays in their range.
            total += part if integer else part / block.dtype.type(count)
    if not integer:
        return total
    total += count // 2
    total //= count
    return total.astype(block.dtype)


def _wanted_format() -> ZarrFormat:
    """Return the version of Zarr for an output whose input is of another format."""
    version = os.environ.get(VERSION_VARIABLE, "0.5")
    if version not in VERSIONS:
        raise ValueError(
            f"{VERSION_VARIABLE} is {version!r}, but OME-Zarr is written as "
            f"{' or '.join(VERSIONS)}: set it to one of these, or not at all."
        )
    return VERSIONS[version]


def open_file(path: Path, inside: str) -> Volume:
    """Open an OME-Zarr, or a plain Zarr array; see :mod:`.table`."""
    return ZarrVolume(path, inside)


def create(path: Path, output: Output) -> VolumeWriter:
    """Lay out an OME-Zarr, of the version of an OME-Zarr input; see :mod:`.table`."""
    like, shape, dtype = output.like, output.shape, output.dtype
    metadata = output.metadata
    zarr_format = like.place.zarr_format if isinstance(like, ZarrVolume) else _wanted_format()
    levels = level_shapes(shape, metadata.voxel_size)
    attributes = describe(
        plain_name(path),
        metadata,
        shape,
        output.slices.start,
        levels,
        output.provenance,
        zarr_format,
    )
    axes = axes_of(shape)
    lead = [n for axis, n in (("t", shape.t), ("c", shape.c)) if axis in axes]
    # Eight times a shard is read for one of the next level, so that must not be more than a slab.
    most = output.slab * shape.y * shape.x * dtype.itemsize // 8
    beside = path.with_name(path.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    zarr.create_group(LocalStore(beside), zarr_format=zarr_format, attributes=attributes)
    for number, sizes in enumerate(levels):
        slab = output.slab if number == 0 else max(sizes)
        chunk, shard = layout(sizes, dtype.itemsize, slab, most, zarr_format)
        ones = (1,) * len(lead)
        options: dict[str, Any] = {
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
            "compressors": numcodecs.Blosc("zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE),
        }
        if zarr_format == 3:
            options = {
                "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                "dimension_names": tuple(axes),
                "shards": (*ones, *(shard or chunk)),
            }
        zarr.create_array(
            LocalStore(beside / str(number)),
            shape=(*lead, *sizes),
            dtype=dtype,
            chunks=(*ones, *chunk),
            fill_value=0,
            zarr_format=zarr_format,
            **options,
        )
    os.replace(beside, path)
    sync_folder(path.parent)
    return ZarrWriter(path, shape, dtype, zarr_format)


def reopen(path: Path, output: Output) -> VolumeWriter:
    """Continue an OME-Zarr that :func:`create` laid out; see :mod:`.table`."""
    place = find_array(path, "")
    check_same(path, place.volume_shape, place.dtype, output)
    return ZarrWriter(path, output.shape, output.dtype, place.zarr_format)


def parts_of_image(folder: Path) -> set[str]:
    """Return the names that are the image in an OME-Zarr; see :mod:`.table`."""
    return own_parts(folder)
