"""Reads and writes HDF5 files by means of h5py.

An image is one dataset, chosen by "file.h5:/path" or because it is the only one.  An output is a
dataset without chunks, whose planes are written at their places with plain file I/O once the file
is closed: HDF5's own writing leaves a file that nothing can open when a process is killed, and
lets one process write at a time.

This module must never follow a link into another file, and never open a dataset whose values are
not plain numbers.

Sources: HDF5 specification; conventions of voxel size in :mod:`.calibration`; axes by
dimension labels (HDF5 dimension scales) or ilastik's ``axistags``.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..hiccups import out_of_reach
from ..intensity import check_dtype
from .calibration import as_json, converted, voxel_from_attributes
from .image import Volume, VolumeWriter, check_unchanged
from .metadata import ImageMetadata, VolumeShape, provenance_line
from .plane_files import PlaneFileWriter
from .table import Output, check_plane, check_same, plain_name

__all__ = ["Hdf5Volume", "Hdf5Writer", "create", "open_file", "reopen"]

Array = NDArray[Any]

DATASET = "data"
"""What the dataset of an output is called, unless the input has a name for it."""
MOST_CHUNK = 1 << 31
"""Bytes of the largest chunk that is read."""
MOST_OBJECTS = 10000
"""Objects among which an image is looked for."""
ROOM = 4096
"""Bytes by which the record of how an image was made may grow without being moved."""
UNDERSTOOD = ("nrrn", "imagej_info", "element_size_um", "voxel_size", "resolution", "units", "unit")
INTERNAL = ("DIMENSION_LABELS", "DIMENSION_LIST", "CLASS", "REFERENCE_LIST", "axistags")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside a reader of foreign bytes into a sentence."""
    try:
        yield
    except Exception as error:
        missing = isinstance(error, PermissionError) or out_of_reach(error)
        if missing or (isinstance(error, TypeError | ValueError) and str(path) in str(error)):
            raise
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or no HDF5 file ({what}): copy it again.") from error


class Hdf5Volume(Volume):
    """A dataset of an HDF5 file.

    Parameters
    ----------
    path
        The file.
    inside
        Which dataset, such as "/raw"; "" for the only one that can be an image.

    Raises
    ------
    ValueError
        If there is no such dataset, more than one to choose from, or a damaged file.
    TypeError
        If it holds no grey values.
    """

    def __init__(self, path: Path, inside: str = "") -> None:
        with _reading(path):
            self._file = h5py.File(path, "r")
        try:
            with _reading(path):
                self._dataset, notes = _choose(path, self._file, inside)
                self.axes = _axes(path, self._dataset)
                dtype = check_dtype(self._dataset.dtype, str(path))
                sizes = dict(zip(self.axes, self._dataset.shape, strict=True))
                shape = VolumeShape(*(int(sizes.get(axis, 1)) for axis in "tczyx"))
                self._check(path, shape, dtype)
                metadata = _metadata(self._dataset, self.axes)
            super().__init__(plain_name(path), path, shape, dtype, metadata)
            self.notes += notes
            self._name = str(self._dataset.name)
            self._opened = self._identity()
            if shape.planes:
                self.read(0, 1)  # a missing filter is said before a long run
        except BaseException:
            self._file.close()
            raise

    @property
    def dataset(self) -> str:
        """Name of the dataset within its file."""
        return self._name

    @property
    def data_offset(self) -> int | None:
        """Where the pixels start, if they lie in one piece; else None."""
        if self._dataset.chunks is not None or self._dataset.external:
            return None
        offset = self._dataset.id.get_offset()
        return None if offset is None else int(offset)

    def _check(self, path: Path, shape: VolumeShape, dtype: np.dtype[Any]) -> None:
        """Compare what is announced with the file."""
        check_plane(path, shape, dtype)
        chunks = self._dataset.chunks
        if chunks is not None:
            if math.prod(chunks) * dtype.itemsize > MOST_CHUNK:
                raise ValueError(f"{path} has chunks of {chunks}, which are too large to be read.")
        elif math.prod(shape) * dtype.itemsize > path.stat().st_size:
            raise ValueError(
                f"{path} is damaged or incomplete ({self._dataset.name} announces more pixels than "
                "the file has bytes): copy it again."
            )

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        self._read_planes(out[np.newaxis], [(t, c, z)])

    def _read_planes(self, out: Array, places: Sequence[tuple[int, int, int]]) -> None:
        # One selection for all planes: a chunk that several of them share is decoded once.
        first, last = places[0], places[-1]
        selection: list[Any] = []
        lengths = {"y": self.shape.y, "x": self.shape.x}
        for axis in self.axes:
            if axis in lengths:
                selection.append(slice(None))
            else:
                i = "tcz".index(axis)
                selection.append(slice(first[i], last[i] + 1))
                lengths[axis] = last[i] + 1 - first[i]
        assert self.path is not None
        # The singleton axes lie where the dataset has them; memory is the same.
        into = out.reshape([lengths[axis] for axis in self.axes])
        with _reading(self.path):
            self._dataset.read_direct(into, tuple(selection))

    def _identity(self) -> str:
        assert self.path is not None
        status = self.path.stat()
        return f"{status.st_size} {status.st_mtime_ns} {self.dataset}"

    def _reopen(self) -> None:
        assert self.path is not None
        self._file.close()
        with _reading(self.path):
            self._file = h5py.File(self.path, "r")
            self._dataset = self._file[self.dataset]
        check_unchanged(self.path, self._opened, self._identity())

    def close(self) -> None:
        self._file.close()


def _choose(path: Path, file: h5py.File, inside: str) -> tuple[Any, list[str]]:
    """Return the dataset that was asked for, or the only one that can be an image."""
    names = [name for name, _ in _datasets(file)]
    if inside.strip("/"):
        found = _follow(path, file, inside.strip("/").split("/"))
        if isinstance(found, h5py.Dataset):
            return found, []
        held = ", ".join(names) or "no image"
        raise ValueError(f"{path} has no dataset {inside}; it holds {held}: choose one of these.")
    stacks = [name for name, count in _datasets(file) if count > 2] or names
    if not stacks:
        raise ValueError(f"{path} holds no dataset that can be an image: check the file.")
    if len(stacks) > 1:
        shown = ", ".join(stacks[:10]) + (", …" if len(stacks) > 10 else "")
        raise ValueError(
            f"{path} holds several images ({shown}): choose one as {path.name}:{stacks[0]}."
        )
    return file[stacks[0]], []


def _follow(path: Path, group: Any, parts: list[str]) -> Any:
    """Return what lies at a path within a file, refusing links that lead out of it."""
    for part in parts:
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(
                f"{path} has a link at {group.name.rstrip('/')}/{part}, and links are not "
                "followed: name the dataset itself, or open the file that it is in."
            )
        group = group[part]
    return group


def _datasets(file: h5py.File) -> list[tuple[str, int]]:
    """Return name and number of axes of every dataset of numbers; links are not followed."""
    found: list[tuple[str, int]] = []
    count = 0

    def visit(name: str, item: Any) -> bool | None:
        nonlocal count
        count += 1
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf":
            axes = len(item.shape or ())
            if axes > 1:
                found.append(("/" + name, axes))
        return True if count > MOST_OBJECTS else None

    file.visititems(visit)
    return found


def _axes(path: Path, dataset: Any) -> str:
    """Return a letter (t, c, z, y, x) for each axis of a dataset."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(
            f"{path} keeps the pixels of {dataset.name} in other files, which are not read: give "
            "one of those, or copy the dataset into one file."
        )
    if dataset.dtype.kind not in "iufb":
        raise TypeError(
            f"{path} holds values of type {dataset.dtype} in {dataset.name}, but grey values are "
            "needed: choose another dataset."
        )
    count = len(dataset.shape)
    labels = [str(axis.label).lower() for axis in dataset.dims]
    if not all(labels):
        labels = _axistags(dataset) or []
    if not labels:
        # Without names: the last three are the stack; before and after it may be single axes.
        long = [i for i, length in enumerate(dataset.shape) if length > 1]
        if count <= 3:
            labels = list("zyx")[-count:]
        elif len(long) == 3 and long[-1] - long[0] == 2:
            spare = iter("tc")
            labels = ["zyx"[i - long[0]] if i in long else next(spare, "?") for i in range(count)]
    axes = "".join(labels)
    if len(axes) != count or not re.fullmatch("[tc]*z?yx[tc]?", axes) or len(set(axes)) < count:
        raise ValueError(
            f"{path} has a dataset {dataset.name} of {dataset.shape} with the axes "
            f"{', '.join(labels) or 'unknown'}, but z, y, x (or t, c, z, y, x with names) are "
            "needed: save it again so."
        )
    if axes[-1] != "x" and dataset.shape[-1] > 1:
        raise ValueError(
            f"{path} stores the {dataset.shape[-1]} channels of {dataset.name} pixel by pixel, but "
            "whole planes are needed: save it with the axes c, z, y, x."
        )
    return axes


def _axistags(dataset: Any) -> list[str] | None:
    """Return the axes as ilastik and vigra write them."""
    try:
        tags = json.loads(dataset.attrs["axistags"])
        return [str(axis["key"]).lower() for axis in tags["axes"]]
    except (KeyError, TypeError, ValueError):
        return None


def _metadata(dataset: Any, axes: str) -> ImageMetadata:
    """Return what the attributes of a dataset say."""
    said = {}
    for name in dataset.attrs:
        try:
            said[name] = as_json(dataset.attrs[name])
        except (OSError, TypeError, ValueError):
            continue  # attributes of types that h5py cannot read tell nothing
    voxel, unit = voxel_from_attributes(said)
    info = [str(said["imagej_info"])] if said.get("imagej_info") else []
    if "nrrn" in said:
        with contextlib.suppress(ValueError):
            record = json.loads(str(said["nrrn"]).rstrip("\0 "))
            if isinstance(record, dict):
                info.append(provenance_line(record))
    kept = {k: v for k, v in said.items() if k not in (*UNDERSTOOD, *INTERNAL)}
    return ImageMetadata(
        "hdf5",
        axes=axes.upper(),
        byteorder="<",
        voxel_size=voxel,
        voxel_unit=unit,
        info="\n".join(info),
        attributes=kept,
    )


class Hdf5Writer(PlaneFileWriter):
    """Writes planes into an HDF5 file that :func:`create` laid out."""

    def __init__(
        self, path: Path, shape: VolumeShape, dtype: np.dtype[Any], offset: int, dataset: str
    ) -> None:
        stored = dtype.newbyteorder("<")
        super().__init__(path, shape, dtype, offset, stored, channel_fastest=False)
        self._dataset = dataset

    def record(self, provenance: dict[str, Any]) -> None:
        text = json.dumps(provenance).encode()
        with h5py.File(self.path, "r+") as file:
            attributes = file[self._dataset].attrs
            if "nrrn" not in attributes:
                raise ValueError(
                    f"{self.path} has no record of how it was made: begin it with its provenance."
                )
            room = h5py.h5a.open(file[self._dataset].id, b"nrrn").get_storage_size()
            if len(text) <= room:  # in place, so a process that is killed here does no harm
                attributes.modify("nrrn", np.bytes_(text.ljust(room)))
            else:
                attributes["nrrn"] = np.bytes_(text.ljust(len(text) + ROOM))


def open_file(path: Path, inside: str) -> Volume:
    """Open a dataset of an HDF5 file; see :mod:`.table`."""
    return Hdf5Volume(path, inside)


def create(path: Path, output: Output) -> VolumeWriter:
    """Lay out an HDF5 file with one dataset; see :mod:`.table`."""
    like, shape, metadata = output.like, output.shape, output.metadata
    name = like.dataset if isinstance(like, Hdf5Volume) else f"/{DATASET}"
    single = shape.t == shape.c == 1
    sizes, axes = (shape[2:], "zyx") if single else (tuple(shape), "tczyx")
    stored = output.dtype.newbyteorder("<")
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file has a hole there, which reads as 0
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    # From version 1.8 on a text may be longer than 64 kB.
    with h5py.File(path, "w", libver=("v108", "latest")) as file:
        space = h5py.h5s.create_simple(sizes)
        kind = h5py.h5t.py_create(stored)
        made = h5py.h5d.create(file.id, name.encode(), kind, space, layout, lcpl=links)
        dataset = h5py.Dataset(made)
        for axis, label in zip(dataset.dims, axes, strict=True):
            axis.label = label
        _describe(dataset.attrs, metadata, output.provenance)
        offset = int(dataset.id.get_offset())
    return Hdf5Writer(path, shape, output.dtype, offset, name)


def _describe(attributes: Any, metadata: ImageMetadata, provenance: dict[str, Any] | None) -> None:
    """Write voxel size, text and record into the attributes of a dataset."""
    if metadata.kind == "hdf5":
        for name, value in metadata.attributes.items():
            with contextlib.suppress(TypeError, ValueError):
                attributes[name] = value
    if metadata.voxel_size is not None:
        attributes["voxel_size"] = metadata.voxel_size
        attributes["units"] = metadata.voxel_unit or "pixel"
        micrometres = converted(metadata.voxel_size, metadata.voxel_unit, "µm")
        if micrometres is not None:
            attributes["element_size_um"] = np.array(micrometres, np.float32)
    info = [line for line in metadata.info.splitlines() if not line.startswith("nrrn: ")]
    if info:
        attributes["imagej_info"] = "\n".join(info)
    if provenance is not None:
        text = json.dumps(provenance).encode()
        attributes["nrrn"] = np.bytes_(text.ljust(len(text) + ROOM))


def reopen(path: Path, output: Output) -> VolumeWriter:
    """Continue an HDF5 file that :func:`create` laid out; see :mod:`.table`."""
    with Hdf5Volume(path) as begun:
        check_same(path, begun.shape, begun.dtype, output)
        if begun.data_offset is None:
            raise ValueError(f"{path} is not what was begun: start again (--restart).")
        return Hdf5Writer(path, output.shape, output.dtype, begun.data_offset, begun.dataset)
