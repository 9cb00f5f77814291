"""Opens images and creates outputs of the same kind, slab by slab, whatever their file format.

This is the one door to the data layer: a source is a file, a folder, a glob, a list of files or
an array, and an output has one of the formats of :mod:`nrrn_fiji.formats`, chosen by its name.
Nothing here may load a whole volume, change a source, or leave out what the source said about its
image.

>>> import numpy as np
>>> with open_volume(np.zeros((5, 4, 3), np.uint16)) as volume:
...     volume.shape.z, volume.read(1, 3).shape
(5, (2, 4, 3))
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .formats.folders import FolderVolume, natural_order, slices_in
from .formats.image import Origin, Volume, VolumeWriter
from .formats.metadata import ImageMetadata, VolumeShape, parse_provenance, provenance_line
from .formats.plane_files import disk_full
from .formats.table import (
    Output,
    check_output_name,
    format_of_folder,
    format_of_input,
    format_of_output,
    load_format,
    split_inside,
)
from .intensity import check_dtype

__all__ = [
    "ImageMetadata",
    "Origin",
    "Source",
    "StackSource",
    "Volume",
    "VolumeShape",
    "VolumeWriter",
    "check_grey",
    "check_output_name",
    "check_unmasked",
    "create_volume",
    "file_of",
    "open_volume",
    "parse_provenance",
    "provenance_line",
    "reopen_volume",
]

Array = NDArray[Any]
Source = str | Path | Array
"""One image to look at: a file, a folder of slices, or an array in memory."""

COLOURS = (3, 4)
SMALLEST_IMAGE = 16
"""Pixels; an array (n, m, 3) with n and m from here on is a colour image rather than a stack of
three-pixel rows."""


def check_grey(array: Array, name: str) -> None:
    """Raise a ValueError if an array is more likely (Y, X, colour) than (Z, Y, X)."""
    if array.ndim == 3 and array.shape[2] in COLOURS and min(array.shape[:2]) >= SMALLEST_IMAGE:
        raise ValueError(
            f"{name} is {array.shape}, which looks like a colour (RGB) image (Y, X, colours), but "
            "(Z, Y, X) or (Y, X) is needed: give one channel, stack[..., 0] say."
        )


def check_unmasked(array: Any, name: str) -> None:
    """Raise a TypeError if a mask hides pixels of an array: it would be passed over in silence."""
    if np.ma.is_masked(array):
        raise TypeError(
            f"{name} is a masked array, but masks are not looked at: give "
            "stack.astype('float32').filled(float('nan')), whose NaN are returned unchanged."
        )


class ArrayVolume(Volume):
    """An array in memory as a volume, without a copy.

    Parameters
    ----------
    array
        (Z, Y, X) or (Y, X).
    """

    def __init__(self, array: Array) -> None:
        check_unmasked(array, "the array")
        dtype = check_dtype(array.dtype, "the array")
        if array.ndim not in (2, 3):
            raise ValueError(
                f"the array has {array.ndim} axes {array.shape}, but it must be (Z, Y, X) or "
                "(Y, X): give one channel and time point at a time."
            )
        check_grey(array, "the array")
        self._array = array.reshape(-1, *array.shape[-2:]) if array.size else array[np.newaxis]
        depth, height, width = self._array.shape[-3:]
        shape = VolumeShape(1, 1, depth, height, width)
        metadata = ImageMetadata("array", axes="ZYX"[-array.ndim :])
        super().__init__("array", None, shape, dtype, metadata)

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        out[...] = self._array[z]

    def _identity(self) -> str:
        # An array has no time of change, but all of it is at hand.
        return hashlib.sha256(np.ascontiguousarray(self._array).data).hexdigest()

    def close(self) -> None:
        """Return at once: the array is the caller's."""


class StackSource:
    """One channel of a volume at one time point, as the engine's source.

    Parameters
    ----------
    volume
        The image.
    channel
        Which channel.
    time
        Which time point.
    """

    def __init__(self, volume: Volume, channel: int = 0, time: int = 0):
        self.volume, self.channel, self.time = volume, channel, time
        self.shape: tuple[int, int, int] = volume.shape[2:]
        self.dtype = volume.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1``, (stop - start, Y, X)."""
        return self.volume.read(start, stop, channel=self.channel, time=self.time)


def open_volume(
    source: str | Path | Sequence[str | Path] | Array, *, z_axis: str | None = None
) -> Volume:
    """Open an image for reading.

    Parameters
    ----------
    source
        A TIFF file (ImageJ, OME, plain, BigTIFF, compressed, tiled), an OME-Zarr, an HDF5 file
        ("stack.h5:/raw" for one of several datasets) or an MRC file; a folder, a glob such as
        "slices/*.png" or a list of single-slice images (TIFF, PNG, BMP, JPEG), taken in natural
        order (a list in its own); or an array (Z, Y, X) or (Y, X).
    z_axis
        Read "T" or "C" as depth, for stacks that were saved with the wrong axis.

    Returns
    -------
    Volume
        Its ``notes`` say what the user should know before a long run.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    ValueError
        If it is no image, damaged, empty, or holds colours, masks, complex numbers or slices of
        different sizes.
    ImportError
        If reading its format needs a library that is not installed.
    """
    volume = _open(source)
    volume.origin = _origin(source, z_axis)
    try:
        if z_axis is not None:
            volume.reinterpret(z_axis)
    except ValueError:
        volume.close()
        raise
    t, c, z = volume.shape[:3]
    if z == 1 and (t > 1 or c > 1):
        axis, count, what = ("T", t, "time points") if t > 1 else ("C", c, "channels")
        volume.notes.append(
            f"{volume.name} says that it holds {count} {what} of a single slice, so each is "
            f"denoised without neighbours. If they are slices in depth, give --z-axis {axis} "
            f'(z_axis="{axis}").'
        )
    elif z == 1:
        volume.notes.append(
            f"{volume.name} is a single slice, so it is denoised without neighbours."
        )
    return volume


def _open(source: str | Path | Sequence[str | Path] | Array) -> Volume:
    """Choose by what the source is."""
    if isinstance(source, np.ndarray):
        return ArrayVolume(source)
    if not isinstance(source, str | os.PathLike):
        if hasattr(source, "__array__"):
            return ArrayVolume(np.asarray(source))
        if not all(isinstance(item, str | os.PathLike) for item in source):
            raise TypeError(
                f"source is a {type(source).__name__} of something else than file names: give a "
                "file, a folder, a pattern, a list of files or an array (Z, Y, X)."
            )
        return _open_files([Path(item) for item in source], "the list of images", None)
    path = Path(source)
    inside = ""
    if not path.exists():
        name, inside = split_inside(str(source))
        path = Path(name)
    if path.is_dir():
        folder = format_of_folder(path)
        if folder is not None:
            return load_format(folder).open_file(path, inside)
        return FolderVolume(slices_in(path), path.resolve().name, path)
    if path.exists():
        return _open_file(path, inside)
    if glob.has_magic(str(source)):
        paths = sorted((Path(item) for item in glob.glob(str(source))), key=natural_order)
        if not paths:
            raise FileNotFoundError(
                f"{source} matches no file: check folder and pattern, and put the pattern in "
                "quotes."
            )
        return _open_files(paths, str(source), paths[0].parent)
    raise FileNotFoundError(f"{source} does not exist: check the spelling and the folder.")


def _open_file(path: Path, inside: str = "") -> Volume:
    """Open one file by its suffix."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy or save it again.")
    return load_format(format_of_input(path)).open_file(path, inside)


def _origin(source: str | Path | Sequence[str | Path] | Array, z_axis: str | None) -> Origin | None:
    """Return what opens the source again in another process and folder; None for arrays."""
    if isinstance(source, str | os.PathLike):
        return Origin(os.path.abspath(source), z_axis)
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return None
    return Origin(tuple(os.path.abspath(str(item)) for item in source), z_axis)


def file_of(source: str | Path) -> Path:
    """Return the file or folder that a source is in: "a.h5" for "a.h5:/raw"."""
    path = Path(source)
    return path if path.exists() else Path(split_inside(str(source))[0])


def _open_files(paths: list[Path], what: str, folder: Path | None) -> Volume:
    """Open several files as the slices of one stack."""
    if not paths:
        raise ValueError(f"{what} holds zero slices: give at least one image.")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist or is no file: check {what}.")
    if len(paths) == 1:
        return _open_file(paths[0])
    parent = paths[0].resolve().parent
    return FolderVolume(paths, parent.name, folder)


def create_volume(
    path: str | Path,
    like: Volume,
    *,
    shape: VolumeShape | None = None,
    dtype: DTypeLike | None = None,
    slices: range | None = None,
    slab: int = 1,
    provenance: dict[str, Any] | None = None,
    same_values: bool = True,
    channel_names: Sequence[str] | None = None,
) -> VolumeWriter:
    """Lay out an output, full size and with all its metadata, and return its writer.

    A name that ends in ".tif" or ".tiff" makes an ImageJ TIFF (an OME-TIFF if the input is one or
    if the name ends in ".ome.tif"; an OME-BigTIFF above 4 GiB); ".zarr" an OME-Zarr (of version
    0.5, or of the input's), ".h5" and ".hdf5" an HDF5 file, ".mrc" an MRC file; a name without
    suffix makes a folder of single-slice TIFFs named as the input's slices.  Pixels not yet
    written are 0.

    Parameters
    ----------
    path
        The new file or folder; it must not exist.
    like
        The image whose metadata the output takes over; it must stay open.
    shape
        Of the output; the input's (with as many slices as ``slices`` has) when left out.
    dtype
        Of the output; the input's when left out.
    slices
        Which slices of the input the output holds, in steps of 1; all when left out.
    slab
        How many slices will be written at a time: chunks of the output are made to fit, and
        :attr:`VolumeWriter.depth_multiple` divides it.
    provenance
        What is recorded under the name "nrrn"; must be fit for JSON.
    same_values
        False if the grey values mean something else than the input's (removed noise): display
        range and grey value calibration are left out.  A change of ``dtype`` implies it.
    channel_names
        Names of the output's channels, if they are not the input's.

    Returns
    -------
    VolumeWriter
        Its :meth:`~VolumeWriter.write` counts slices in the output, from 0.  Call its
        :meth:`~VolumeWriter.finish` when all slices are written.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    ValueError
        If name, shape, slices or slab cannot be, or the format cannot hold such an image.
    ImportError
        If writing the format needs a library that is not installed.
    OSError
        If the disk has no room for it; ``errno`` is then ``ENOSPC``.
    """
    path, shape, kind, slices = _resolve(path, like, shape, dtype, slices)
    if path.exists():
        raise FileExistsError(f"{path} exists already: remove it, or give another name.")
    size = math.prod(shape) * kind.itemsize
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise disk_full(path, f"it needs {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free")
    if slab < 1:
        raise ValueError(f"slab is {slab}, but it must be at least 1.")
    output = Output(
        like,
        shape,
        kind,
        slices,
        slab=min(slab, shape.z),
        same_values=same_values and kind == like.dtype,
        provenance=provenance,
        channel_names=None if channel_names is None else tuple(channel_names),
    )
    return load_format(format_of_output(path)).create(path, output)


def reopen_volume(
    path: str | Path,
    like: Volume,
    *,
    shape: VolumeShape | None = None,
    dtype: DTypeLike | None = None,
    slices: range | None = None,
) -> VolumeWriter:
    """Continue an output that :func:`create_volume` began with the same arguments.

    It may be continued in several processes at a time; see :class:`VolumeWriter`.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is not what was begun.
    """
    path, shape, kind, slices = _resolve(path, like, shape, dtype, slices)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, so it cannot be continued: start again.")
    return load_format(format_of_output(path)).reopen(path, Output(like, shape, kind, slices))


def _resolve(
    path: str | Path,
    like: Volume,
    shape: VolumeShape | None,
    dtype: DTypeLike | None,
    slices: range | None,
) -> tuple[Path, VolumeShape, np.dtype[Any], range]:
    """Check and complete the arguments that creating and reopening share."""
    path = Path(path)
    check_output_name(path)
    if like.path is not None and path.exists() and path.samefile(like.path):
        raise ValueError(f"output {path} is the input itself: give another name.")
    slices = range(like.shape.z) if slices is None else slices
    if slices.step != 1 or not 0 <= slices.start < slices.stop <= like.shape.z:
        raise ValueError(
            f"slices is {slices.start}:{slices.stop}, but {like.name} has slices 0:{like.shape.z}: "
            "give a range within these."
        )
    shape = like.shape._replace(z=len(slices)) if shape is None else VolumeShape(*shape)
    if shape.z != len(slices) or min(shape) < 1:
        raise ValueError(
            f"shape is {tuple(shape)}, but the output has {len(slices)} slices and no axis may be "
            "empty."
        )
    kind = like.dtype if dtype is None else check_dtype(np.dtype(dtype), "the output")
    return path, shape, kind, slices
