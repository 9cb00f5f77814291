"""Reads TIFF files of all kinds (ImageJ's, OME's and plain ones) by means of tifffile.

What tifffile passes over in silence (a broken chain of directories, missing planes, pixels cut
off) is checked here, because a volume with zeros in it looks like a result.  This module must
never hold more than one plane beside the caller's slab, and never alter a file it reads.

Sources: TIFF 6.0; ImageJ's ``ij.io.TiffDecoder``; OME-TIFF specification,
https://docs.openmicroscopy.org/ome-model/
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..intensity import check_dtype
from . import ome
from .image import Volume, check_unchanged
from .metadata import ImageMetadata, VolumeShape
from .table import check_packed, check_plane

__all__ = ["TiffVolume", "is_ome_name", "quiet", "stem"]

Array = NDArray[Any]

COUNTS = ("images", "channels", "slices", "frames")
# Tags copied byte by byte: authorship, colour profile, and what SEM makers store (Zeiss 34118,
# FEI 34680 and 34682, Tescan 50431, Fibics 51023).  Tags that steer how readers find planes
# (LSM, STK, SIS) must not travel.
COPIED_TAGS = (
    *(269, 271, 272, 285, 305, 306, 315, 316, 700, 33432, 34675),
    *(34118, 34680, 34682, 50431, 51023),
)


def stem(path: Path) -> str:
    """Return the name of a file without folder and without ".tif", ".ome.tif" and the like."""
    return re.sub(r"(\.ome)?\.(tiff?|png|bmp|jpe?g)$", "", path.name, flags=re.IGNORECASE)


def is_ome_name(path: Path) -> bool:
    """Return whether the name asks for OME-TIFF."""
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep tifffile's log off the screen: what matters is checked here and said in a sentence."""
    log = logging.getLogger("tifffile")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


class _DamagedError(ValueError):
    """A file that ends too early or contradicts itself."""

    def __init__(self, path: Path, what: object) -> None:
        text = " ".join(str(what).split())
        super().__init__(
            f"{path} is damaged or incomplete ({text}): copy it again, or save it again from Fiji."
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside a reader of foreign bytes into a sentence."""
    try:
        with quiet():
            yield
    except (OSError, _DamagedError):
        raise
    except Exception as error:
        raise _DamagedError(path, error or type(error).__name__) from error


class TiffVolume(Volume):
    """A TIFF file of any kind that tifffile reads.

    Parameters
    ----------
    path
        The file.
    probe
        Decode one plane at once, so that a missing codec is said before a long run.

    Raises
    ------
    ValueError
        If the file is no TIFF, damaged, or holds colours, masks or complex numbers.
    """

    def __init__(self, path: Path, *, probe: bool = True) -> None:
        try:
            with quiet():
                self._tif = tifffile.TiffFile(path)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} is not a TIFF image that can be read ({error}): check the file, or save "
                "it as TIFF from Fiji."
            ) from error
        try:
            self._open(path, probe)
        except BaseException:
            self._tif.close()
            raise

    def _open(self, path: Path, probe: bool) -> None:
        """Find the planes, and what the file says about them."""
        tif = self._tif
        with _reading(path):
            _check_directories(path, tif)
            if not tif.series or not len(tif.pages):
                raise _DamagedError(path, "it holds no image")
            series = tif.series[0]
            page = series.keyframe
        dtype = _grey_dtype(path, page)
        shape, order = _dimensions(path, series)
        check_plane(path, shape, dtype)
        with _reading(path):
            _check_complete(path, tif, series, shape)
            metadata = _read_metadata(tif, series, shape)
        notes = []
        if tif.is_ome and series.kind != "ome":
            notes.append(
                f"The OME-XML in {path.name} does not describe its planes (it may be part of a set "
                "of files), so they are read as slices in depth."
            )
        if len(tif.series) > 1:
            notes.append(f"{path.name} holds {len(tif.series)} images; only the first is read.")
        self._order = order
        self._pages = series.pages
        self._per_page = max(1, shape.planes // len(series.pages))
        self._native = dtype.newbyteorder(tif.byteorder).isnative
        self._opened = _status(path)
        self.data_offset: int | None = None if series.is_multifile else series.dataoffset
        super().__init__(stem(path), path, shape, dtype, metadata)
        self.notes += notes
        if self.data_offset is None and probe:
            try:
                self.read(0, 1)
            except MemoryError as error:
                what = f"its planes would be {shape.y} x {shape.x} pixels"
                raise _DamagedError(path, what) from error

    @property
    def compression(self) -> str:
        """Name of the compression, "none" without."""
        return tifffile.COMPRESSION(self._tif.pages.first.compression).name.lower()

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        index = int(self._order[t, c, z])
        if self.data_offset is not None:
            file = self._tif.filehandle
            file.seek(self.data_offset + index * out.nbytes)
            buffer: Any = out.data.cast("B")
            if file.readinto(buffer) != out.nbytes:
                assert self.path is not None
                raise _DamagedError(self.path, f"plane {index} ends too early")
            if not self._native:
                out.byteswap(inplace=True)
            return
        page = self._pages[index // self._per_page]
        assert page is not None
        file = page.parent.filehandle
        elsewhere = file.closed  # in another file of a divided OME-TIFF
        try:
            with quiet():
                if elsewhere:
                    file.open()
                planes = page.asarray().reshape(self._per_page, *out.shape)
        except Exception as error:
            raise self._unreadable(index, error) from error
        finally:
            if elsewhere:
                file.close()
        out[...] = planes[index % self._per_page]

    def _unreadable(self, index: int, error: Exception) -> Exception:
        """Return the error to raise for a plane that cannot be decoded."""
        if isinstance(error, OSError):
            return error
        assert self.path is not None
        if "imagecodecs" in str(error):
            return ValueError(
                f"{self.path} is compressed ({self.compression}), and reading that needs the "
                'package imagecodecs: run "pip install imagecodecs".'
            )
        return _DamagedError(self.path, f"plane {index} cannot be decoded: {error}")

    def _identity(self) -> str:
        assert self.path is not None
        return _status(self.path)

    def _reopen(self) -> None:
        assert self.path is not None
        self._tif.filehandle.close()
        self._tif.filehandle.open()
        check_unchanged(self.path, self._opened, _status(self.path))

    def reinterpret(self, axis: str) -> None:
        before = self.shape
        super().reinterpret(axis)
        if axis != "Z" and self.metadata.ome_xml is not None:
            xml = ome.swap_depth(self.metadata.ome_xml, before, axis)
            self.metadata = dataclasses.replace(self.metadata, ome_xml=xml)

    def close(self) -> None:
        self._tif.close()


def _status(path: Path) -> str:
    """Return size and time of change of a file."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _check_directories(path: Path, tif: tifffile.TiffFile) -> None:
    """Raise ValueError unless the chain of directories stays within the file and ends.

    tifffile stops at a broken link without an error, and the planes behind it would be missed.
    """
    file, form = tif.filehandle, tif.tiff
    size = file.size
    file.seek(8 if form.is_bigtiff else 4)
    (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    first = offset
    seen = set()
    while offset:
        if offset in seen:
            raise _DamagedError(path, "its list of planes runs in a circle")
        seen.add(offset)
        if offset + form.tagnosize > size:
            break
        file.seek(offset)
        (count,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        link = offset + form.tagnosize + count * form.tagsize
        if link + form.offsetsize > size:
            break
        file.seek(link)
        (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    else:
        return
    # ImageJ keeps what it needs in the first directory; the others may be cut off unharmed, and
    # whether all pixels are there is checked later.
    if first in seen and tif.is_imagej and len(seen) > 1:
        return
    raise _DamagedError(path, f"plane {len(seen)} lies beyond its end")


def _grey_dtype(path: Path, page: tifffile.TiffPage) -> np.dtype[Any]:
    """Return the type of the grey values; ValueError for colours and what else is not grey."""
    if page.samplesperpixel > 1 and page.photometric in (2, 6, 8):
        raise ValueError(
            f"{path} is a colour (RGB) image, but grey values are needed: convert it with Image > "
            "Type > 8-bit in Fiji, or split its channels with Image > Color > Split Channels."
        )
    if page.dtype is None:
        raise ValueError(
            f"{path} has {page.bitspersample} bits per pixel in a form that cannot be read: save "
            "it as 8-bit, 16-bit or 32-bit from Fiji."
        )
    return check_dtype(page.dtype, str(path))


def _dimensions(
    path: Path, series: tifffile.TiffPageSeries
) -> tuple[VolumeShape, NDArray[np.int64]]:
    """Return the shape, and for every (t, c, z) the number of its plane in the file."""
    pairs = list(zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True))
    samples = [size for axis, size in pairs if axis == "S"]
    if any(size > 1 for size in samples):
        raise ValueError(
            f"{path} has {max(samples)} colour samples per pixel, but grey values are needed: "
            "split the channels in Fiji (Image > Color > Split Channels)."
        )
    pairs = [(axis, size) for axis, size in pairs if axis != "S" and (size > 1 or axis in "YX")]
    if "".join(axis for axis, _ in pairs[-2:]) != "YX":
        raise ValueError(
            f"{path} stores its axes as {series.axes}, but the last two must be Y and X: save it "
            "from Fiji."
        )
    leading = pairs[:-2]
    unknown = [i for i, (axis, _) in enumerate(leading) if axis not in "TCZ"]
    known = {axis for axis, _ in leading}
    if len(unknown) > 1 or (unknown and "Z" in known):
        raise ValueError(
            f"{path} has axes {series.axes} of sizes {tuple(series.shape)}, and which one is depth "
            "cannot be told: save it as a hyperstack from Fiji."
        )
    axes = ["Z" if i in unknown else axis for i, (axis, _) in enumerate(leading)]
    sizes = [size for _, size in leading]
    order = np.arange(math.prod(sizes)).reshape(sizes)
    for axis in "TCZ":
        if axis not in axes:
            axes.append(axis)
            order = order[..., np.newaxis]
    order = order.transpose([axes.index(axis) for axis in "TCZ"])
    t, c, z = order.shape
    return VolumeShape(t, c, z, pairs[-2][1], pairs[-1][1]), order


def _check_complete(
    path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, shape: VolumeShape
) -> None:
    """Raise ValueError unless all pixels that the file announces are in it."""
    size = tif.filehandle.size
    ij = tif.imagej_metadata if tif.is_imagej else None
    if ij is not None and series.kind in ("imagej", "generic", "uniform"):
        counts = [ij.get(key, 1) for key in ("channels", "slices", "frames")]
        announced = max(math.prod(int(n) for n in counts), int(ij.get("images", 1)))
        if announced > shape.planes:
            raise _DamagedError(path, f"it announces {announced} planes, {shape.planes} are there")
    if series.dataoffset is not None and not series.is_multifile:
        page = series.keyframe
        assert page.dtype is not None
        if series.dataoffset + math.prod(shape) * page.dtype.itemsize > size:
            raise _DamagedError(path, "its pixels end too early")
        return
    if not series.is_multifile:
        check_packed(path, math.prod(shape) * _grey_dtype(path, series.keyframe).itemsize)
    for index, frame in enumerate(series.pages):
        if frame is None:
            raise _DamagedError(path, f"plane {index} of {len(series.pages)} is missing")
        if frame.parent is not tif:
            continue
        ends = (a + n for a, n in zip(frame.dataoffsets, frame.databytecounts, strict=False))
        if not frame.dataoffsets or max(ends) > size:
            raise _DamagedError(path, f"the pixels of plane {index} end too early")


def _raw(tif: tifffile.TiffFile, tag: tifffile.TiffTag) -> bytes:
    """Return the bytes of a tag as the file has them."""
    tif.filehandle.seek(tag.valueoffset)
    return bytes(tif.filehandle.read(tag.valuebytecount))


def _description(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> str:
    """Return the description; bytes map to characters one to one, so it can be written back."""
    tag = page.tags.get(270)
    if tag is None:
        return ""
    return _raw(tif, tag).split(b"\0")[0].decode("latin-1")


def _rational(page: tifffile.TiffPage, code: int) -> tuple[int, int] | None:
    """Return a resolution tag as (numerator, denominator); None if it means nothing."""
    match page.tags.valueof(code):
        case (int(numerator), int(denominator)) if numerator > 0 and denominator > 0:
            return numerator, denominator
    return None


def _many(value: Any) -> tuple[Any, ...]:
    """Return tifffile's "one or a list of them" as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _read_metadata(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, shape: VolumeShape
) -> ImageMetadata:
    """Collect everything the file says about the image."""
    page = tif.pages.first
    assert isinstance(page, tifffile.TiffPage)
    values: dict[str, Any] = {"kind": "tiff", "axes": series.axes, "byteorder": tif.byteorder}
    values["white_is_zero"] = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    values["colormap"] = page.colormap
    values["tags"] = tuple(
        (tag.code, int(tag.dtype), tag.count, _raw(tif, tag))
        for tag in page.tags
        if tag.code in COPIED_TAGS
    )
    x, y = _rational(page, 282), _rational(page, 283)
    if x is not None and y is not None:
        values["resolution"] = (x, y)
    unit = page.tags.valueof(296, default=1)
    values["resolution_unit"] = int(unit) if unit in (1, 2, 3) else 1
    ij = page.tags.valueof(50839)
    if isinstance(ij, dict):
        values.update(_imagej_entries(ij, shape))
    description = _description(tif, page)
    if tif.is_ome and series.kind == "ome":
        values.update(_ome_entries(tif, shape, values.get("info", "")))
    elif tif.is_imagej:
        if not description.startswith(("ImageJ=", "SCIFIO=")):
            description = page.imagej_description or ""
        values.update(_imagej_lines(description, values.get("resolution")))
    elif description and not _only_shape(description):
        # ImageJ, too, keeps a description it does not know as Info.
        values["info"] = "\n".join(filter(None, (description, values.get("info", ""))))
    return ImageMetadata(**values)


def _only_shape(description: str) -> bool:
    """Return whether a description is tifffile's own, which tells nothing but the shape."""
    try:
        entries = json.loads(description)
    except json.JSONDecodeError:
        return False
    return isinstance(entries, dict) and entries.keys() <= {"shape", "axes", "truncated"}


def _imagej_entries(ij: dict[str, Any], shape: VolumeShape) -> dict[str, Any]:
    """Return the entries of the tag IJMetadata as fields of :class:`ImageMetadata`."""
    labels = [str(label) for label in _many(ij.get("Labels"))][: shape.planes]
    if labels:
        labels += [""] * (shape.planes - len(labels))
    properties = ij.get("Properties")
    return {
        "info": str(ij.get("Info", "")),
        "labels": tuple(labels),
        "luts": _many(ij.get("LUTs")),
        "ranges": tuple(float(v) for v in _many(ij.get("Ranges"))),
        "properties": dict(properties) if isinstance(properties, dict) else {},
        "roi": ij.get("ROI"),
        "overlays": _many(ij.get("Overlays")),
        "plot": ij.get("Plot"),
    }


def _imagej_lines(
    description: str, resolution: tuple[tuple[int, int], tuple[int, int]] | None
) -> dict[str, Any]:
    """Return what ImageJ's description says, as fields of :class:`ImageMetadata`."""
    lines = [line for line in description.splitlines() if line]
    if lines and lines[0].startswith("SCIFIO="):
        # SCIFIO says the shape a second time, which would be wrong for part of the image.
        lines = [ln for ln in lines[1:] if ln.split("=")[0] not in ("axes", "lengths")]
        lines.insert(0, "ImageJ=1.54f")
    entries = dict(line.split("=", 1) for line in lines if "=" in line)
    unit = re.sub(
        r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), entries.get("unit", "").strip()
    )
    voxel = None
    if resolution is not None and unit not in ("", "pixel", "pixels"):
        try:
            depth = abs(float(entries.get("spacing", 1)))
        except ValueError:
            depth = 1.0
        (xn, xd), (yn, yd) = resolution
        voxel = (depth, yd / yn, xd / xn)
    return {
        "kind": "imagej",
        "voxel_size": voxel,
        "voxel_unit": ome.UNITS.get(unit, unit) if voxel else None,
        "lines": tuple(line for line in lines if line.split("=")[0] not in COUNTS),
    }


def _ome_entries(tif: tifffile.TiffFile, shape: VolumeShape, info: str) -> dict[str, Any]:
    """Return what OME-XML says, as fields of :class:`ImageMetadata`."""
    xml = tif.ome_metadata
    assert xml is not None
    summary = ome.summarise(xml, shape)
    return {
        "kind": "ome",
        "voxel_size": summary.voxel_size,
        "voxel_unit": summary.voxel_unit,
        "channel_names": summary.channel_names,
        "info": info or summary.info,
        "ome_xml": xml,
    }
