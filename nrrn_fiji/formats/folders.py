"""Folders and lists of single-slice images, read and written as one volume.

Slices are opened one at a time, so that a stack of thousands of files needs no more memory than
one of them.  This module must never guess the order of slices by time: natural order of names.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import sync_folder
from ..hiccups import out_of_reach
from ..intensity import check_dtype
from .image import Volume, VolumeWriter
from .metadata import ImageMetadata, VolumeShape
from .table import Output, check_packed
from .tiff import TiffVolume, stem
from .tiff_output import TiffSlabWriter, create_tiff, record_provenance

__all__ = [
    "SLICE_SUFFIXES",
    "FolderVolume",
    "FolderWriter",
    "create",
    "natural_order",
    "open_file",
    "output_files",
    "reopen",
    "slices_in",
]

Array = NDArray[Any]

TIFF_SUFFIXES = (".tif", ".tiff")
SAME_KIND = {"tiff": "tif", "jpeg": "jpg"}
SLICE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".bmp", ".jpg", ".jpeg")


def natural_order(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """Return a sorting key that puts slice2 before slice10."""
    parts = re.split(r"(\d+)", path.name)
    # s1, s01 and s001 are one in natural order; their text decides, never the disk.
    key = [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts]
    return key, str(path)


def slices_in(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order.

    Raises
    ------
    ValueError
        If there are none, or if they are of different file types.
    """
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SLICE_SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise ValueError(
            f"{folder} holds zero slices: a folder must hold images named "
            f"*{', *'.join(SLICE_SUFFIXES)}."
        )
    suffixes = [path.suffix.lower().removeprefix(".") for path in files]
    kinds = {SAME_KIND.get(suffix, suffix) for suffix in suffixes}
    if len(kinds) > 1:
        raise ValueError(
            f"{folder} holds images of different file types ({', '.join(sorted(kinds))}): say "
            f'which are the slices, e.g. "{folder}/*{files[0].suffix}".'
        )
    return sorted(files, key=natural_order)


class PictureVolume(Volume):
    """One slice in a PNG, BMP or JPEG file."""

    def __init__(self, path: Path) -> None:
        try:
            with _of_any_size():
                facts = imageio.improps(path, plugin="pillow")
        except Exception as error:  # whatever goes wrong inside a reader of foreign bytes
            if out_of_reach(error):
                raise
            raise ValueError(f"{path} is not an image that can be read: check the file.") from error
        check_packed(path, math.prod(facts.shape) * facts.dtype.itemsize)
        plane = facts.shape if len(facts.shape) == 2 else _grey_plane(path).shape
        shape = VolumeShape(1, 1, 1, *plane)
        metadata = ImageMetadata("folder", axes="YX")
        super().__init__(stem(path), path, shape, check_dtype(facts.dtype, str(path)), metadata)

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        assert self.path is not None
        plane = _grey_plane(self.path)
        if plane.shape != out.shape:
            raise ValueError(
                f"{self.path} changed while it was in use: run again when it is whole."
            )
        out[...] = plane

    def _identity(self) -> str:
        assert self.path is not None
        status = self.path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def close(self) -> None:
        """Return at once: the file is open only while it is read."""


@contextlib.contextmanager
def _of_any_size() -> Iterator[None]:
    """Let Pillow open large slices: sizes are compared with the file, not with a fixed number."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _grey_plane(path: Path) -> Array:
    """Return the grey values (Y, X) of a picture, however it stores them.

    A colour table, three equal colours and an opaque alpha channel are ways to store grey values.

    Raises
    ------
    ValueError
        If the picture has colours or transparent pixels, or cannot be read.
    """
    try:
        with _of_any_size():
            pixels = imageio.imread(path, plugin="pillow")
            mode = imageio.immeta(path, plugin="pillow").get("mode", "")
    except MemoryError:
        raise
    except Exception as error:  # whatever goes wrong inside a reader of foreign bytes
        if out_of_reach(error):
            raise
        raise ValueError(f"{path} is damaged or incomplete ({error}): copy it again.") from error
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3:
        raise ValueError(f"{path} holds several images: save each of them as a slice of its own.")
    count = 3 if pixels.shape[2] > 2 else 1
    colours, alpha = pixels[..., :count], pixels[..., count:]
    if (colours != colours[..., :1]).any():
        kind = "an indexed colour" if mode.startswith("P") else "a colour (RGB)"
        raise ValueError(
            f"{path} is {kind} image, but grey values are needed: convert it with Image > Type > "
            "RGB Color and then 8-bit in Fiji."
        )
    if (alpha != np.iinfo(pixels.dtype).max).any():
        raise ValueError(
            f"{path} has transparent pixels, which have no grey value: save it without an alpha "
            "channel."
        )
    return colours[..., 0]


def _open_slice(path: Path) -> Volume:
    """Open a file that must hold one slice."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return PictureVolume(path)
    volume = TiffVolume(path, probe=False)
    if volume.shape.planes > 1:
        volume.close()
        raise ValueError(
            f"{path} holds {volume.shape.planes} planes, but every file of a folder must be a "
            "single slice: give the stack itself instead of the folder."
        )
    return volume


class FolderVolume(Volume):
    """Single-slice images, one file per slice.

    Parameters
    ----------
    paths
        The slices in their order.
    name
        What the stack is called.
    path
        The folder; None for files from several.

    Raises
    ------
    ValueError
        If slices differ in size or type, or if one cannot be read.
    """

    def __init__(self, paths: Sequence[Path], name: str, path: Path | None) -> None:
        self._paths = list(paths)
        with _open_slice(self._paths[0]) as first:
            plane, dtype, said = first.shape, first.dtype, first.metadata
            compressed = isinstance(first, TiffVolume) and first.data_offset is None
            if compressed:
                first.read(0, 1)
        for other in self._paths[1:]:
            with _open_slice(other) as volume:
                if volume.shape != plane or volume.dtype != dtype:
                    raise ValueError(
                        f"{other} is {volume.shape.y} x {volume.shape.x} of {volume.dtype}, but "
                        f"{self._paths[0].name} is {plane.y} x {plane.x} of {dtype}: all slices "
                        "must have one size and type; move what does not belong to the stack."
                    )
        labels = tuple(stem(p) for p in self._paths)
        metadata = ImageMetadata(
            "folder",
            byteorder=said.byteorder,
            voxel_size=said.voxel_size,
            voxel_unit=said.voxel_unit,
            labels=labels,
            luts=said.luts,
            ranges=said.ranges,
            info=said.info,
            properties=said.properties,
            lines=said.lines,
            resolution=said.resolution,
            resolution_unit=said.resolution_unit,
            white_is_zero=said.white_is_zero,
            colormap=said.colormap,
            tags=said.tags,
        )
        super().__init__(name, path, plane._replace(z=len(self._paths)), dtype, metadata)

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        with _open_slice(self._paths[z]) as volume:
            if volume.shape[3:] != self.shape[3:] or volume.dtype != self.dtype:
                raise ValueError(
                    f"{self._paths[z]} changed while it was in use: run again when all slices are "
                    "written."
                )
            volume.tell = self.tell
            out[...] = volume.read(0, 1)[0]

    def slice_name(self, z: int) -> str:
        return stem(self._paths[z])

    def slice_metadata(self, z: int, *, channel: int = 0, time: int = 0) -> ImageMetadata:
        with _open_slice(self._paths[z]) as volume:
            return volume.metadata

    def _identity(self) -> str:
        digest = hashlib.sha256()
        for path in self._paths:
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Return at once: no file is open between slices."""


class FolderWriter(VolumeWriter):
    """Writes every plane into a single-slice TIFF of its own.

    Parameters
    ----------
    path
        The folder.
    shape, dtype
        Of the whole output.
    files
        For every plane (channel fastest, then slice, then time) its file, already laid out.
    """

    def __init__(
        self, path: Path, shape: VolumeShape, dtype: np.dtype[Any], files: Sequence[Path]
    ) -> None:
        super().__init__(path, shape, dtype)
        self._files = list(files)

    def _write_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        file = self._files[(t * self.shape.z + z) * self.shape.c + c]
        # Closing syncs, so that a slice is whole on the disk before the next one starts.
        with _reopen_slice(file, self.shape, self.dtype) as writer:
            writer.write(0, plane[np.newaxis])

    def record(self, provenance: dict[str, Any]) -> None:
        """Replace, in every slice, what says how it was made."""
        for file in self._files:
            record_provenance(file, provenance)

    def flush(self) -> None:
        """Return at once: slices are synced one by one."""

    def close(self) -> None:
        """Return at once: no file is open between slices."""


def _reopen_slice(file: Path, shape: VolumeShape, dtype: np.dtype[Any]) -> TiffSlabWriter:
    """Return a writer for one slice of an output folder."""
    with TiffVolume(file, probe=False) as slice_:
        fits = slice_.shape == VolumeShape(1, 1, 1, shape.y, shape.x) and slice_.dtype == dtype
        if not fits or slice_.data_offset is None:
            raise ValueError(f"{file} is not the slice that was begun: start again (--restart).")
        return TiffSlabWriter(
            file, slice_.shape, dtype, slice_.data_offset, slice_.metadata.byteorder
        )


def output_files(folder: Path, like: Volume, shape: VolumeShape, slices: range) -> list[Path]:
    """Return the files of an output folder, named as the slices of the input."""
    names = []
    for t in range(shape.t):
        for z in slices:
            for c in range(shape.c):
                name = like.slice_name(z)
                name += f"_t{t:03d}" if shape.t > 1 else ""
                name += f"_c{c}" if shape.c > 1 else ""
                names.append(name)
    if len(set(names)) < len(names):
        digits = len(str(len(names) - 1))
        names = [f"{name}_{i:0{digits}d}" for i, name in enumerate(names)]
    return [folder / f"{name}.tif" for name in names]


def open_file(path: Path, inside: str) -> Volume:
    """Open a picture as a stack of one slice; see :mod:`.table`."""
    return FolderVolume([path], path.stem, path)


def create(path: Path, output: Output) -> VolumeWriter:
    """Lay out a folder of single-slice TIFFs, each with what its input slice said; see
    :mod:`.table`.

    Where several channels are made of each of the input's, those of one follow each other.
    """
    like, shape, names = output.like, output.shape, output.channel_names
    files = output_files(path, like, shape, output.slices)
    path.mkdir(parents=True)
    single = VolumeShape(1, 1, 1, shape.y, shape.x)
    for i, file in enumerate(files):
        t, z, c = np.unravel_index(i, (shape.t, shape.z, shape.c))
        said = like.slice_metadata(
            output.slices[int(z)],
            channel=min(int(c) // max(1, shape.c // like.shape.c), like.shape.c - 1),
            time=min(int(t), like.shape.t - 1),
        )
        one = said.selected(
            single,
            single,
            range(1),
            same_values=output.same_values,
            channel_names=None if names is None else names[int(c) :][:1],
        )
        create_tiff(
            file,
            one,
            like=single,
            shape=single,
            dtype=output.dtype,
            slices=range(1),
            provenance=output.provenance,
        )
    sync_folder(path)
    return FolderWriter(path, shape, output.dtype, files)


def reopen(path: Path, output: Output) -> VolumeWriter:
    """Continue a folder that :func:`create` laid out; see :mod:`.table`."""
    files = output_files(path, output.like, output.shape, output.slices)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing, so {path} cannot be continued: start again (--restart)."
            )
    return FolderWriter(path, output.shape, output.dtype, files)
