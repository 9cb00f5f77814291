"""Pixels and metadata between ImageJ and NumPy, both ways.

An ImagePlus is read as a :class:`~nrrn_fiji.formats.image.Volume` and a result is written as a new
ImagePlus with everything its source carried: calibration, labels, look-up tables, display range,
Info, properties, selection, overlay and the order of its dimensions.  PyImageJ's own conversion
loses most of these, needs a Java library that Fiji lacks, and gives images whose edits are lost.

Pixels go slice by slice (:mod:`nrrn_fiji.fiji.pixels`), and never more than one slice of a virtual
stack is held by Java.  This module must never change the image that it reads, and needs Java to
run before anything here is called.

Sources: ``ij.ImagePlus``, ``ij.measure.Calibration`` and ``ij.io.FileSaver`` of ImageJ 1.54p.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.image import Array, ImageMetadata, Volume, VolumeShape, provenance_line
from . import java
from .pixels import (
    fits_in_java,
    in_parallel,
    java_arrays,
    java_is_full,
    pixels_from_java,
    pixels_to_java,
)
from .writer import ImageWriter
from .xarrays import XarrayVolume, is_xarray

__all__ = [
    "ImagePlusVolume",
    "ImagePlusWriter",
    "dress",
    "volume_of",
]

BIT_DEPTHS: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
    32: np.dtype(np.float32),
}
# ImageJ keeps signed 16-bit values as unsigned ones, 32768 higher: the same bits but the highest.
SIGN = np.uint16(0x8000)
# What only told ImageJ about its window, or about how many planes there are.
PASSING_PROPERTIES = {"UniqueName"}
COUNTS = {"images", "channels", "slices", "frames"}
SIGNED_LINES = {"cf", "c0", "c1"}


def volume_of(image: Any) -> Volume:
    """Return an image of ImageJ, ImageJ2 or PyImageJ as a volume.

    Parameters
    ----------
    image
        ``ij.ImagePlus``, ``net.imagej.Dataset``, ``net.imagej.ImgPlus`` or ``xarray.DataArray``.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it holds no grey values (RGB, masks), or no image any more.
    """
    if is_xarray(image):
        return XarrayVolume(image)
    if isinstance(image, java.JClass("ij.ImagePlus")):
        return ImagePlusVolume(image)
    from .datasets import ImgPlusVolume, is_img_plus

    if is_img_plus(image):
        return ImgPlusVolume(image)
    raise TypeError(
        f"image is of type {type(image).__name__}, but accepted are ij.ImagePlus, "
        "net.imagej.Dataset, net.imagej.ImgPlus and xarray.DataArray: convert it first."
    )


# --- ImagePlus -> volume -----------------------------------------------------------------------


class ImagePlusVolume(Volume):
    """An ``ij.ImagePlus`` as a volume; virtual stacks are read slice by slice.

    Signed 16-bit images (a calibration function in ImageJ) appear as int16 with their own values.
    8-bit images with a colour look-up table are grey values shown in colours.

    Parameters
    ----------
    imp
        The image.  It is never changed.

    Raises
    ------
    ValueError
        If it is RGB, or was closed.
    """

    def __init__(self, imp: Any) -> None:
        title = str(imp.getTitle())
        if imp.getProcessor() is None and not imp.getStack().getSize():
            raise ValueError(f"The image {title!r} is empty or was closed: open it again.")
        depth = int(imp.getBitDepth())
        if depth not in BIT_DEPTHS:
            if imp.getProperty(java.JClass("ij.gui.Plot").PROPERTY_KEY) is not None:
                raise ValueError(f"The image {title!r} is a plot: click on your stack first.")
            raise ValueError(
                f"The image {title!r} is an RGB colour image, but grey values are needed: convert "
                "it first (Image > Type > 8-bit)."
            )
        signed = depth == 16 and bool(imp.getCalibration().isSigned16Bit())
        dtype: np.dtype[Any] = np.dtype(np.int16) if signed else BIT_DEPTHS[depth]
        x, y, c, z, t = (int(size) for size in imp.getDimensions())
        shape = VolumeShape(t, c, z, y, x)
        stack = imp.getStack()
        file = imp.getOriginalFileInfo()
        path = _path_of(file)
        super().__init__(title, path, shape, dtype, _metadata(imp, shape, signed))
        if z == 1 and max(t, c) > 2:
            axis, key = ("time points", "T") if t > c else ("channels", "C")
            self.notes.append(
                f"{title} has {max(t, c)} {axis} and one slice. If these are the slices of a "
                f"stack, reorder them first (Image > Properties), or use z_axis={key}."
            )
        self.imp = imp
        self.signed = signed
        self._stored = shape  # whichever axis is read as depth
        self._stack = stack
        self._virtual = bool(stack.isVirtual())
        self.folder = _folder_beside(file)
        """That the image's file, or folder of slices, lies in; None if it has none."""

    def _read_planes(self, out: Array, places: Sequence[tuple[int, int, int]]) -> None:
        def copy(start: int, stop: int) -> None:
            for number in range(start, stop):
                self._read_plane(out[number], *places[number])

        if java.is_remote():
            self._read_at_once(out, places)
        elif self._virtual:  # whoever opens the files may not be ready for two at a time
            copy(0, len(places))
        else:
            in_parallel(copy, len(places), out.nbytes)

    def _read_at_once(self, out: Array, places: Sequence[tuple[int, int, int]]) -> None:
        """Read planes of an ImageJ in another process."""
        indices = [self._index(*place) for place in places]
        if self._virtual:
            for index in indices:
                self._check_file(index)
        whole = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        wrong = java.copy_planes_from_java(whole, self._stack, indices)
        if wrong:
            raise self._closed() if wrong < 0 else self._differs(wrong)
        if whole is not out:
            out[:] = whole
        self._take_sign(out)

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        index = self._index(t, c, z)
        if self._virtual:
            self._check_file(index)
        pixels = self._stack.getPixels(index)
        if pixels is None:
            raise self._closed()
        try:
            pixels_from_java(out, pixels)
        except ValueError as error:
            raise self._differs(index) from error
        self._take_sign(out)

    def _closed(self) -> ValueError:
        return ValueError(
            f"The image {self.name!r} was closed while it was read: open it and start again."
        )

    def _differs(self, index: int) -> ValueError:
        return ValueError(
            f"Slice {index} of {self.name!r} differs from the others in type or size: "
            "convert them to one type first."
        )

    def _take_sign(self, out: Array) -> None:
        if self.signed:
            bits = out.view(np.uint16)
            np.bitwise_xor(bits, SIGN, out=bits)

    def _index(self, t: int, c: int, z: int) -> int:
        """Return the number of a plane as ImageJ counts, from 1."""
        return (t * self._stored.z + z) * self._stored.c + c + 1

    def _check_file(self, index: int) -> None:
        """Refuse a slice whose file is gone: ImageJ would give a blank one and say nothing."""
        folder = str(self._stack.getDirectory() or "")
        name = str(self._stack.getFileName(index) or "") if folder else ""
        if name and "://" not in folder + name and not os.path.exists(os.path.join(folder, name)):
            raise FileNotFoundError(
                f"The file of slice {index} of {self.name!r} is gone ({folder}{name}): put it "
                "back, or open the image again."
            )

    def close(self) -> None:
        """Do nothing: the image stays open in ImageJ."""

    def _identity(self) -> str:
        if self._virtual and self.path is not None and self.path.exists():
            state = self.path.stat()
            return f"{self.path.name} {state.st_size} {state.st_mtime_ns}"
        # Pixels in memory can change at any time: they are this image's alone, in this session.
        return f"ImagePlus {self.imp.getID()} of process {os.getpid()}"


def _folder_beside(file: Any) -> Path | None:
    if file is None or not file.directory:
        return None
    folder = Path(str(file.directory))
    return folder if file.fileName else folder.parent  # without a name it is a folder of slices


def _path_of(file: Any) -> Path | None:
    """Return the file that ImageJ opened an image from, or None."""
    if file is None or not file.directory or not file.fileName:
        return None
    return Path(str(file.directory)) / str(file.fileName)


def _metadata(imp: Any, shape: VolumeShape, signed: bool) -> ImageMetadata:
    """Collect everything an ImagePlus says about itself, as a TIFF of ImageJ would hold it."""
    calibration = imp.getLocalCalibration()
    voxel = None
    if calibration.scaled():
        voxel = (
            float(calibration.pixelDepth),
            float(calibration.pixelHeight),
            float(calibration.pixelWidth),
        )
    luts = imp.getLuts()
    description = str(java.JClass("ij.io.FileSaver")(imp).getDescriptionString())
    dropped = COUNTS | (SIGNED_LINES if signed else set())
    ranges = [float(value) for lut in luts for value in (lut.min, lut.max)]
    encoder = java.JClass("ij.io.RoiEncoder")
    overlay = imp.getOverlay()
    return ImageMetadata(
        kind="imagej",
        axes="TZCYX",
        voxel_size=voxel,
        voxel_unit=str(calibration.getUnit()) if voxel else None,
        labels=_labels(imp, shape),
        luts=tuple(_table(lut) for lut in luts),
        ranges=tuple(ranges) if imp.isComposite() else (),
        info=str(imp.getProperty("Info") or ""),
        properties=_properties(imp),
        roi=_bytes(encoder.saveAsByteArray(imp.getRoi())) if imp.getRoi() is not None else None,
        overlays=tuple(_bytes(encoder.saveAsByteArray(roi)) for roi in overlay.toArray())
        if overlay is not None
        else (),
        lines=tuple(
            line
            for line in description.splitlines()
            if line.strip() and line.split("=")[0] not in dropped
        ),
    )


def _bytes(array: Any) -> bytes:
    return bytes(np.asarray(array).view(np.uint8))


def _table(lut: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(lut.getBytes()).view(np.uint8)[: 3 * 256].reshape(3, 256).copy()


def _labels(imp: Any, shape: VolumeShape) -> tuple[str, ...]:
    """Return the label of every plane, channel fastest; empty when there is none at all."""
    stack = imp.getStack()
    if shape.planes == 1:
        label = imp.getProp("Slice_Label")
        return (str(label),) if label is not None else ()
    labels = java.calls([(stack, "getSliceLabel", [n + 1]) for n in range(shape.planes)])
    if all(label is None for label in labels):
        return ()
    return tuple("" if label is None else str(label) for label in labels)


def _properties(imp: Any) -> dict[str, str]:
    values = imp.getPropertiesAsArray()
    if values is None:
        return {}
    pairs = zip(values[::2], values[1::2], strict=True)
    return {str(key): str(value) for key, value in pairs if str(key) not in PASSING_PROPERTIES}


# --- volume -> ImagePlus -----------------------------------------------------------------------


class ImagePlusWriter(ImageWriter):
    """A new ``ij.ImagePlus`` that takes slabs and carries everything its source does.

    Java's memory for all of its pixels is taken at once, so that it cannot run out later, when
    much has been computed.

    Parameters
    ----------
    like
        The source.
    title
        Name of the new image.
    dtype
        Type of its grey values: the source's, or float32.
    slices
        Which slices of the source it holds; all when left out.
    same_values
        Whether its grey values mean what the source's do, so that the display range and the
        calibration function stay; as the type tells when left out.
    provenance
        How it was made; the last line of its Info.

    Raises
    ------
    MemoryError
        If it does not fit into Java's memory.
    ValueError
        If ImageJ has no image of that type.
    """

    def __init__(
        self,
        like: ImagePlusVolume,
        *,
        title: str,
        dtype: np.dtype[Any] | None = None,
        slices: range | None = None,
        same_values: bool | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        slices = range(like.shape.z) if slices is None else slices
        dtype = like.dtype if dtype is None else np.dtype(dtype)
        if dtype != like.dtype and dtype != np.float32:
            raise ValueError(
                f"dtype is {dtype}, but it must be {like.dtype}, as in {like.name!r}, or float32."
            )
        shape = like.shape._replace(z=len(slices))
        super().__init__(title, shape, dtype, provenance)
        size = shape.y * shape.x
        if not fits_in_java(shape.planes * size * dtype.itemsize):
            raise java_is_full(shape.planes * size * dtype.itemsize)
        try:
            self._planes = java_arrays(shape.planes, size, dtype)
        except MemoryError as error:  # in pieces that are too small for a plane, or taken meanwhile
            raise java_is_full(shape.planes * size * dtype.itemsize) from error
        self._like = like
        self._slices = slices
        self._same_values = dtype == like.dtype if same_values is None else same_values

    def _put_planes(self, block: Array, t: int, c: int, start: int) -> None:
        if not java.is_remote():
            super()._put_planes(block, t, c, start)
            return
        first = (t * self.shape.z + start) * self.shape.c + c
        chosen = self._planes[first : first + len(block) * self.shape.c : self.shape.c]
        if self.dtype == np.int16:
            block = block.view(np.uint16) ^ SIGN
        java.copy_planes_to_java(np.ascontiguousarray(block), chosen)

    def _put_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        index = (t * self.shape.z + z) * self.shape.c + c
        if self.dtype == np.int16:
            plane = plane.view(np.uint16) ^ SIGN
        pixels_to_java(plane, self._planes[index])

    def close(self) -> None:
        """Let go of the pixels; those of a finished image are its own."""
        self._planes = []

    def _make(self) -> Any:
        stack = java.JClass("ij.ImageStack")(self.shape.x, self.shape.y)
        java.calls([(stack, "addSlice", [None, plane]) for plane in self._planes])
        return dress(
            java.JClass("ij.ImagePlus")(self.title, stack),
            self._like,
            shape=self.shape,
            slices=self._slices,
            same_values=self._same_values,
            provenance=self.provenance,
        )


def dress(
    result: Any,
    like: ImagePlusVolume,
    *,
    shape: VolumeShape,
    slices: range,
    same_values: bool,
    provenance: dict[str, Any] | None,
    remark: str = "",
) -> Any:
    """Give a new ImagePlus everything but the pixels of ``like``, and return it.

    Parameters
    ----------
    result
        The new image, of ``shape``, planes in ImageJ's order.
    slices
        Which slices of ``like`` it holds.
    same_values
        Whether its grey values mean the same: if not, display range and calibration function are
        left out.
    provenance
        How it was made; the last line of its Info.
    remark
        The line before, if any.
    """
    source = like.imp
    metadata = like.metadata.selected(like.shape, shape, slices, same_values=same_values)
    labels = [label or None for label in metadata.labels]
    if labels and shape.planes == 1:
        result.setProp("Slice_Label", labels[0])
    stack = result.getStack()
    if not stack.isVirtual():  # which has the labels it was made with
        java.calls([(stack, "setSliceLabel", [label, n + 1]) for n, label in enumerate(labels)])
    # ImageJ orders dimensions by its own convention; a stack reinterpreted by z_axis is one of Z.
    result.setDimensions(shape.c, shape.z, shape.t)
    if source.isHyperStack() and shape.planes > 1:
        result.setOpenAsHyperStack(True)
    calibration = source.getLocalCalibration().copy()
    calibration.zOrigin -= slices.start
    if not same_values:
        calibration.setFunction(java.JClass("ij.measure.Calibration").NONE, None, "Gray Value")
    result.setCalibration(calibration)
    for key, value in metadata.properties.items():
        if key != "Slice_Label":
            result.setProp(key, value)
    _copy_attached(source, result)
    info = metadata.info.rstrip("\n")
    if provenance is not None:
        info = "\n".join(filter(None, (info, remark, provenance_line(provenance))))
    if info:
        result.setProperty("Info", info)
    result = _colour(result, source, same_values)
    if shape.planes == source.getStackSize() and shape.c == source.getNChannels():
        # Not getSlice(), which stays 1 while a plain stack is leafed through.
        result.setPosition(*source.convertIndexToPosition(source.getCurrentSlice()))
    if source.getRoi() is not None:
        result.setRoi(source.getRoi().clone())
    overlay = source.getOverlay()
    if overlay is not None:
        result.setOverlay(overlay.duplicate())
        result.setHideOverlay(source.getHideOverlay())
    result.changes = True  # not saved yet: ImageJ asks before it is closed
    return result


def _copy_attached(source: Any, result: Any) -> None:
    """Copy the texts that plugins attached to an image beside Info."""
    attached = source.getProperties()
    if attached is None:
        return
    for key in list(attached.keySet()):
        value = attached.get(key)
        if isinstance(value, java.JString) and str(key) != "Info":
            result.setProperty(key, value)


def _colour(result: Any, source: Any, same_values: bool) -> Any:
    """Give ``result`` the look-up tables, display ranges and composite mode of ``source``."""
    if source.isComposite() and result.getNChannels() == source.getNChannels():
        composite = java.JClass("ij.CompositeImage")(result, source.getMode())
        # The constructor leaves out what belongs to the window alone.
        _copy_attached(result, composite)
        composite.copyLuts(source)
        if not same_values:
            for channel in range(composite.getNChannels(), 0, -1):
                composite.setPosition(channel, 1, 1)
                composite.resetDisplayRange()
        return composite
    luts = source.getLuts()
    if len(luts):
        low, high = result.getDisplayRangeMin(), result.getDisplayRangeMax()
        lut = luts[0]
        result.getProcessor().setLut(lut)
        if same_values:
            low, high = source.getDisplayRangeMin(), source.getDisplayRangeMax()
        result.setDisplayRange(low, high)
        result.getStack().setColorModel(result.getProcessor().getColorModel())
    return result
