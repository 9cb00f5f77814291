"""Pixels and axes between ImageJ2 (Dataset, ImgPlus) and NumPy, both ways.

ImageJ2 keeps pixels in planes, in one array, in cells that may lie on disk, or around an
ImagePlus, with any number of named axes in any order.  They are read plane by plane, by the
shortest way that each kind has; a result has the same axes, calibration, names, colours and
properties as its source.  This module must never change the image that it reads.

Sources: ``net.imagej.ImgPlus``, ``net.imagej.axis`` (imagej-common 2.1) and
``net.imglib2.blocks`` (imglib2 7).
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.image import Array, ImageMetadata, Volume, VolumeShape
from . import java
from .pixels import java_array, java_is_full, pixels_from_java, pixels_to_java
from .writer import ImageWriter

__all__ = ["ImgPlusVolume", "ImgPlusWriter", "is_img_plus"]

TYPES: dict[str, np.dtype[Any]] = {
    "UnsignedByteType": np.dtype(np.uint8),
    "ByteType": np.dtype(np.int8),
    "UnsignedShortType": np.dtype(np.uint16),
    "ShortType": np.dtype(np.int16),
    "FloatType": np.dtype(np.float32),
    "DoubleType": np.dtype(np.float64),
}
AXES = {"X": "x", "Y": "y", "Z": "z", "Channel": "c", "Time": "t"}
PROVENANCE = "nrrn"


def is_img_plus(image: Any) -> bool:
    """Whether an object is a Dataset or an ImgPlus; false where there is no ImageJ2."""
    try:
        kinds = (java.JClass("net.imagej.Dataset"), java.JClass("net.imagej.ImgPlus"))
    except TypeError:  # JPype's exception for a class that is not there
        return False
    return isinstance(image, kinds)


class ImgPlusVolume(Volume):
    """A ``net.imagej.Dataset`` or ``net.imagej.ImgPlus`` as a volume.

    Parameters
    ----------
    image
        The image.  Its axes X and Y are needed; Z, Channel and Time may be there, in any order.

    Raises
    ------
    ValueError
        If its pixels are no grey values, or if it has other axes.
    """

    def __init__(self, image: Any) -> None:
        dataset = isinstance(image, java.JClass("net.imagej.Dataset"))
        img_plus = image.getImgPlus() if dataset else image
        name = str(img_plus.getName() or "image")
        dtype = _dtype(img_plus, name, rgb=dataset and bool(image.isRGBMerged()))
        self.axes = _axes(img_plus, name)
        sizes = {
            role: int(img_plus.dimension(number))
            for number, role in enumerate(self.axes)
            if role is not None
        }
        shape = VolumeShape(**{role: sizes.get(role, 1) for role in VolumeShape._fields})
        source = str(img_plus.getSource() or "")
        path = Path(source) if source and os.path.exists(source) else None
        super().__init__(name, path, shape, dtype, _metadata(img_plus, self.axes))
        if shape.z == 1 and max(shape.t, shape.c) > 4:
            axis = "Time" if shape.t > shape.c else "Channel"
            self.notes.append(
                f"{name} has {max(shape.t, shape.c)} planes along {axis} and one slice. If these "
                f'are the slices of a stack, name that axis Z, or use z_axis="{axis[0]}".'
            )
        self.image = image
        self.img_plus = img_plus
        self.is_dataset = dataset
        self._reader = _plane_reader(img_plus, self.axes, shape, dtype)

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        self._reader(out, {"t": t, "c": c, "z": z})

    def _identity(self) -> str:
        # Pixels in memory can change at any time: they are this image's alone, in this session.
        return f"{self.name} {self.img_plus.hashCode()} of process {os.getpid()}"

    def close(self) -> None:
        """Do nothing: the image stays open in ImageJ."""


def _dtype(img_plus: Any, name: str, *, rgb: bool) -> np.dtype[Any]:
    kind = type(img_plus.firstElement()).__name__.rpartition(".")[2]
    kind = kind.replace("VolatileUnsigned", "Unsigned").replace("LongAccess", "")
    if rgb or kind.endswith("ARGBType"):
        raise ValueError(
            f"The image {name!r} is an RGB colour image, but grey values are needed: convert it "
            "first (Image > Type > 8-bit)."
        )
    if kind not in TYPES:
        raise ValueError(
            f"The image {name!r} has pixels of type {kind}, but accepted are "
            f"{', '.join(TYPES)}: convert it to 8, 16 or 32 bits first."
        )
    return TYPES[kind]


def _axes(img_plus: Any, name: str) -> list[str | None]:
    """Return the role of each axis ("x", "y", "z", "c", "t"); None for one of length 1."""
    labels = [
        str(img_plus.axis(number).type().getLabel()) for number in range(img_plus.numDimensions())
    ]
    roles: list[str | None] = []
    for number, label in enumerate(labels):
        role = AXES.get(label)
        if (role is None or role in roles) and int(img_plus.dimension(number)) > 1:
            raise ValueError(
                f"The image {name!r} has the axes {', '.join(labels)}, but each must be one of "
                f"{', '.join(AXES)}, once: name its axes, or take out one position of the others."
            )
        roles.append(role)
    if not {"x", "y"} <= set(roles):
        raise ValueError(
            f"The image {name!r} has the axes {', '.join(labels)}, but X and Y are needed: name "
            "its axes."
        )
    return roles


def _metadata(img_plus: Any, axes: list[str | None]) -> ImageMetadata:
    scales: dict[str, float] = {}
    units: dict[str, str] = {}
    for number, role in enumerate(axes):
        if role in ("x", "y", "z"):
            axis = img_plus.axis(number)
            scales[role] = float(axis.averageScale(0, 1))
            units[role] = str(axis.unit() or "")
    unit = units["x"]
    scaled = bool(unit) and unit not in ("pixel", "pixels", "null")
    voxel = (scales.get("z", 1.0), scales["y"], scales["x"]) if scaled else None
    return ImageMetadata(kind="array", voxel_size=voxel, voxel_unit=unit if scaled else None)


def _plane_reader(
    img_plus: Any, axes: list[str | None], shape: VolumeShape, dtype: np.dtype[Any]
) -> Any:
    """Return a function that fills (Y, X) from a position, by the shortest way there is."""
    img = img_plus.getImg()
    while isinstance(img, java.JClass("net.imagej.ImgPlus")):
        img = img.getImg()
    sizes = [int(img.dimension(number)) for number in range(img.numDimensions())]
    in_planes = axes[:2] == ["x", "y"]

    def index_of(position: dict[str, int]) -> int:
        """Return the number of a plane, the third axis fastest."""
        index, step = 0, 1
        for role, size in zip(axes[2:], sizes[2:], strict=True):
            index += step * (position[role] if role is not None else 0)
            step *= size
        return index

    if in_planes and isinstance(img, java.JClass("net.imglib2.img.planar.PlanarImg")):

        def from_plane(out: Array, position: dict[str, int]) -> None:
            plane = img.getPlane(index_of(position))
            pixels_from_java(out, plane.getCurrentStorageArray())

        return from_plane

    if in_planes and isinstance(img, java.JClass("net.imglib2.img.array.ArrayImg")):
        access = img.update(None)
        if hasattr(access, "getCurrentStorageArray"):  # others hold native memory

            def from_array(out: Array, position: dict[str, int]) -> None:
                offset = index_of(position) * out.size
                pixels_from_java(out, access.getCurrentStorageArray(), offset)

            return from_array

    blocks = java.JClass("net.imglib2.blocks.PrimitiveBlocks")
    fallback = java.JClass("net.imglib2.blocks.PrimitiveBlocks$OnFallback")
    supplier = blocks.of(img, fallback.ACCEPT)
    pixels = java_array(shape.y * shape.x, dtype)
    extent = [size if role in ("x", "y") else 1 for role, size in zip(axes, sizes, strict=True)]

    def from_blocks(out: Array, position: dict[str, int]) -> None:
        start = [position.get(role, 0) if role is not None else 0 for role in axes]
        supplier.copy(java.JArray(java.JLong)(start), pixels, java.JArray(java.JInt)(extent))
        if axes.index("x") < axes.index("y"):
            pixels_from_java(out, pixels)
            return
        turned = np.empty(out.shape[::-1], out.dtype)
        pixels_from_java(turned, pixels)
        out[...] = turned.T

    return from_blocks


class ImgPlusWriter(ImageWriter):
    """A new Dataset or ImgPlus, as its source is, that takes slabs.

    Parameters
    ----------
    like
        The source.
    title
        Name of the new image.
    dtype
        Type of its grey values: the source's when left out.
    slices
        Which slices of the source it holds; all when left out.
    provenance
        How it was made; its property ``nrrn``.

    Notes
    -----
    The axes come in the order X, Y and then as in the source.
    """

    def __init__(
        self,
        like: ImgPlusVolume,
        *,
        title: str,
        dtype: np.dtype[Any] | None = None,
        slices: range | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        dtype = like.dtype if dtype is None else np.dtype(dtype)
        slices = range(like.shape.z) if slices is None else slices
        super().__init__(title, like.shape._replace(z=len(slices)), dtype, provenance)
        self._slices = slices
        self._like = like
        # Where z_axis made slices of time points or channels, the result says Z.
        turned = None if like._axis == "Z" else like._axis.lower()
        roles = ["z" if turned and role == turned else role for role in like.axes]
        self._roles = roles
        first = [roles.index("x"), roles.index("y")]
        self._order = first + [number for number in range(len(roles)) if number not in first]
        sizes = [
            len(slices) if roles[number] == "z" else int(like.img_plus.dimension(number))
            for number in self._order
        ]
        name = next(name for name, kind in TYPES.items() if kind == dtype)
        package = "real" if dtype.kind == "f" else "integer"
        pixel = java.JClass(f"net.imglib2.type.numeric.{package}.{name}")()
        factory = java.JClass("net.imglib2.img.planar.PlanarImgFactory")(pixel)
        try:
            self._img = factory.create(java.JArray(java.JLong)(sizes))
        except java.JException as error:
            if isinstance(error, java.JClass("java.lang.OutOfMemoryError")):
                raise java_is_full(math.prod(sizes) * dtype.itemsize) from error
            raise
        self._sizes = sizes

    def _put_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        position = {"t": t, "c": c, "z": z}
        index, step = 0, 1
        for number, size in zip(self._order[2:], self._sizes[2:], strict=True):
            role = self._roles[number]
            index += step * (position[role] if role is not None else 0)
            step *= size
        pixels_to_java(plane, self._img.getPlane(index).getCurrentStorageArray())

    def _make(self) -> Any:
        """Return a Dataset if the source is one, else an ImgPlus."""
        source = self._like.img_plus
        axes = [source.axis(number).copy() for number in self._order]
        for axis, number in zip(axes, self._order, strict=True):
            if self._roles[number] != self._like.axes[number]:
                axis.setType(java.JClass("net.imagej.axis.Axes").Z)
            linear = isinstance(axis, java.JClass("net.imagej.axis.LinearAxis"))
            if self._roles[number] == "z" and self._slices.start and linear:
                axis.setOrigin(axis.calibratedValue(self._slices.start))
        kind = java.JClass("net.imagej.axis.CalibratedAxis")
        made = java.JClass("net.imagej.ImgPlus")(self._img, self.title, java.JArray(kind)(axes))
        if self.dtype == self._like.dtype:
            made.setValidBits(source.getValidBits())
            for channel in range(self.shape.c):
                made.setChannelMinimum(channel, source.getChannelMinimum(channel))
                made.setChannelMaximum(channel, source.getChannelMaximum(channel))
        made.setCompositeChannelCount(source.getCompositeChannelCount())
        tables = self._colour_tables()
        made.initializeColorTables(len(tables))
        for number, table in enumerate(tables):
            made.setColorTable(table, number)
        made.setSource(source.getSource())
        made.getProperties().putAll(source.getProperties())
        if self.provenance is not None:
            made.getProperties().put(PROVENANCE, json.dumps(self.provenance))
        if not self._like.is_dataset:
            return made
        return java.JClass("net.imagej.DefaultDataset")(self._like.image.getContext(), made)

    def _colour_tables(self) -> list[Any]:
        """Return the source's colour tables, of the planes that are held where each has one."""
        source = self._like.img_plus
        tables = [source.getColorTable(n) for n in range(source.getColorTableCount())]
        sizes = [int(source.dimension(number)) for number in range(source.numDimensions())]
        rest = [number for number in range(len(sizes)) if self._roles[number] not in ("x", "y")]
        if len(self._slices) == self._like.shape.z or len(tables) != self._like.shape.planes:
            return tables
        # The first axis after X and Y is the fastest.
        numbers = np.arange(len(tables)).reshape([sizes[number] for number in rest][::-1])
        depth = [self._roles[number] for number in rest][::-1].index("z")
        kept = numbers.take(list(self._slices), axis=depth)
        return [tables[number] for number in kept.ravel()]
