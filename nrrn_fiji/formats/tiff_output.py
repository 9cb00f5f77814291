"""Lays out TIFF files, full size and with all their metadata, and writes planes into them.

Planes are written one by one at their offsets (:mod:`.plane_files`).  This module must
never hold more than one plane beside the caller's slab.

Sources: TIFF 6.0; ImageJ's ``ij.io.TiffEncoder`` and ``ij.io.FileSaver.getDescriptionString``;
OME-TIFF specification, https://docs.openmicroscopy.org/ome-model/
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from . import ome
from .image import Volume, VolumeWriter
from .metadata import PROVENANCE, ImageMetadata, VolumeShape, provenance_line
from .plane_files import PlaneFileWriter, disk_full
from .table import Output, check_same
from .tiff import TiffVolume, is_ome_name, quiet, stem

__all__ = [
    "TiffSlabWriter",
    "create",
    "create_tiff",
    "disk_full",
    "open_file",
    "record_provenance",
    "reopen",
]

Array = NDArray[Any]

# Classic TIFF holds 4 GiB; ImageJ's own form beyond that is one truncated IFD that others cannot
# read.  The difference is room for metadata and the directories of the planes.
CLASSIC_LIMIT = 2**32 - 2**25
LARGEST_PART = 2**32 - 1
# Tags: the description, and ImageJ's own entries with the size of each.
DESCRIPTION, ENTRY_SIZES, ENTRIES = 270, 50838, 50839


def create_tiff(
    path: Path,
    metadata: ImageMetadata,
    *,
    like: VolumeShape,
    shape: VolumeShape,
    dtype: np.dtype[Any],
    slices: range,
    provenance: dict[str, Any] | None,
) -> int:
    """Lay out an uncompressed TIFF, full size and with all its metadata; return where pixels start.

    Planes lie one after the other in ImageJ's order: channel fastest, then slice, then time.

    Parameters
    ----------
    path
        The new file.
    metadata
        Already selected for the output (:meth:`ImageMetadata.selected`).
    like, slices
        Shape of the image ``metadata.ome_xml`` describes, and which slices of it are held.
    shape, dtype
        Of the output.
    provenance
        Recorded as the last line of Info, or as an OME annotation; None records nothing.
    """
    size = math.prod(shape) * dtype.itemsize
    large = size > CLASSIC_LIMIT
    order: Literal["<", ">"] = "<" if metadata.byteorder == "<" else ">"
    info = metadata.info
    if provenance is not None:
        info += "\n" if info and not info.endswith("\n") else ""
        info += provenance_line(provenance)
    extra: list[Any] = [(*tag, True) for tag in metadata.tags]
    if metadata.ome_xml is not None or large or is_ome_name(path):
        description = _ome_description(path, metadata, like, shape, dtype, slices, provenance)
        # ImageJ's own entries travel in OME-TIFF, too: they hold what OME has no place for.
        keep_entries = metadata.kind != "ome" or metadata.has_imagej_entries
    else:
        description = _imagej_description(metadata, shape).encode("latin-1")
        keep_entries = True
    entries = _imagej_tag_entries(metadata, info) if keep_entries else {}
    extra += tifffile.tifffile.imagej_metadata_tag(entries, order)
    grey = "miniswhite" if metadata.white_is_zero else "minisblack"
    options: dict[str, Any] = {"photometric": grey}
    colormap = metadata.colormap
    if colormap is not None and dtype.name == "uint8" and colormap.shape == (3, 256):
        options.update(photometric="palette", colormap=colormap)
    elif colormap is not None and dtype.kind != "i":
        extra.append((320, 3, colormap.size, colormap.astype(order + "u2").tobytes(), True))
    resolution = metadata.resolution or _resolution(metadata)
    if resolution is not None:
        options.update(resolution=resolution, resolutionunit=metadata.resolution_unit)
    with (
        quiet(),
        tifffile.TiffWriter(
            path, bigtiff=large, byteorder=order, imagej=False, ome=False, shaped=False
        ) as writer,
    ):
        writer.write(
            shape=(shape.planes, shape.y, shape.x),
            dtype=dtype.newbyteorder(order),
            description=description,
            metadata=None,
            software=False,
            extratags=extra,
            rowsperstrip=shape.y,
            **options,
        )
    with quiet(), tifffile.TiffFile(path) as tif:
        return int(tif.pages.first.dataoffsets[0])


def record_provenance(path: Path, provenance: dict[str, Any]) -> None:
    """Replace what a TIFF of :func:`create_tiff` says on how it was made.

    Nothing else changes its place or its value; a longer text goes to the end of the file.

    Raises
    ------
    ValueError
        If it was laid out without such a record.
    """
    with (
        quiet(),
        open(path, "r+b") as file,
        tifffile.TiffFile(file, name=path.name) as tif,
    ):
        tags = tif.pages.first.tags
        recorded = False
        if tif.is_ome:
            text = ome.with_provenance(tags[DESCRIPTION].value, provenance)
            tags[DESCRIPTION].overwrite(text.encode())
            recorded = True
        if ENTRIES in tags:
            tif.filehandle.seek(tags[ENTRIES].valueoffset)
            data, counts = tif.filehandle.read(tags[ENTRIES].count), list(tags[ENTRY_SIZES].value)
            if data[4:8] in (b"info", b"ofni"):  # Info is the first of ImageJ's entries
                code = "utf-16-be" if tif.byteorder == ">" else "utf-16-le"
                head, size = counts[:2]
                info = data[head : head + size].decode(code).split("\n")
                if info[-1].startswith(PROVENANCE):
                    info[-1] = provenance_line(provenance)
                    fresh = "\n".join(info).encode(code)
                    counts[1] = len(fresh)
                    tags[ENTRIES].overwrite(data[:head] + fresh + data[head + size :])
                    tags[ENTRY_SIZES].overwrite(counts)
                    recorded = True
        if not recorded:
            raise ValueError(
                f"{path} has no record of how it was made: begin it with its provenance."
            )
        file.flush()
        os.fsync(file.fileno())


def _resolution(metadata: ImageMetadata) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return TIFF's resolution for a voxel size that did not come from TIFF tags."""
    if metadata.voxel_size is None or metadata.ome_xml is not None:
        return None
    x, y = (_per_unit(length) for length in metadata.voxel_size[:0:-1])
    return None if x is None or y is None else (x, y)


def _per_unit(length: float) -> tuple[int, int] | None:
    """Return 1 / length as TIFF stores it, in two parts of 32 bits; None if it cannot."""
    if not 1e-6 <= length < LARGEST_PART:
        return None
    most = min(10**6, int(LARGEST_PART / length))
    share = Fraction(length).limit_denominator(most)
    return (share.denominator, share.numerator) if share else None


def _imagej_description(metadata: ImageMetadata, shape: VolumeShape) -> str:
    """Return ImageJ's description; lines the input had stay as they were, in their order."""
    lines = list(metadata.lines) or ["ImageJ=1.54f"]
    given = {line.split("=")[0] for line in lines}
    counts = [f"images={shape.planes}"]
    for key, count in (("channels", shape.c), ("slices", shape.z), ("frames", shape.t)):
        if count > 1:
            counts.append(f"{key}={count}")
    if (shape.c > 1 or shape.t > 1) and "hyperstack" not in given:
        counts += ["hyperstack=true", "mode=grayscale"]
    if metadata.voxel_size is not None and "unit" not in given:
        unit = metadata.voxel_unit or "pixel"
        unit = "um" if unit == "µm" else unit
        # ImageJ writes what is not ASCII as \\uXXXX.
        lines.append("unit=" + "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in unit))
        lines.append(f"spacing={metadata.voxel_size[0]!r}")
    return "\n".join([lines[0], *counts, *lines[1:], ""])


def _imagej_tag_entries(metadata: ImageMetadata, info: str) -> dict[str, Any]:
    """Return the entries of the tag IJMetadata in the form tifffile encodes."""
    entries: dict[str, Any] = {
        "Info": info,
        "Labels": list(metadata.labels),
        "Ranges": metadata.ranges,
        "LUTs": list(metadata.luts),
        "Plot": metadata.plot,
        "ROI": metadata.roi,
        "Overlays": list(metadata.overlays),
        "Properties": metadata.properties,
    }
    return {key: value for key, value in entries.items() if value}


def _ome_description(
    path: Path,
    metadata: ImageMetadata,
    like: VolumeShape,
    shape: VolumeShape,
    dtype: np.dtype[Any],
    slices: range,
    provenance: dict[str, Any] | None,
) -> bytes:
    """Return the OME-XML of an output."""
    xml = metadata.ome_xml
    if xml is None:
        like, slices = shape, range(shape.z)
        colours = [tuple(int(v) for v in lut[:, -1]) for lut in metadata.luts]
        xml = ome.compose(
            stem(path),
            shape,
            dtype.name,
            voxel_size=metadata.voxel_size,
            voxel_unit=metadata.voxel_unit,
            channel_names=metadata.channel_names,
            colours=tuple((r, g, b) for r, g, b in colours),
            description=metadata.info,
            lines=metadata.lines,
        )
    return ome.rewrite(
        xml,
        like=like,
        shape=shape,
        slices=slices,
        dtype=dtype.name,
        big_endian=metadata.byteorder == ">",
        channel_names=metadata.channel_names,
        provenance=provenance,
    ).encode()


class TiffSlabWriter(PlaneFileWriter):
    """Writes planes into a TIFF that :func:`create_tiff` laid out.

    Parameters
    ----------
    path, shape, dtype
        The file and what it holds; ``dtype`` in native byte order.
    offset
        Where its pixels start.
    byteorder
        "<" or ">".
    """

    def __init__(
        self, path: Path, shape: VolumeShape, dtype: np.dtype[Any], offset: int, byteorder: str
    ) -> None:
        stored = dtype.newbyteorder("<" if byteorder == "<" else ">")
        super().__init__(path, shape, dtype, offset, stored)

    def record(self, provenance: dict[str, Any]) -> None:
        record_provenance(self.path, provenance)


def open_file(path: Path, inside: str) -> Volume:
    """Open a TIFF file of any kind; see :mod:`.table`."""
    return TiffVolume(path)


def create(path: Path, output: Output) -> VolumeWriter:
    """Lay out an ImageJ TIFF or an OME-TIFF; see :mod:`.table`."""
    metadata = output.metadata
    offset = create_tiff(
        path,
        metadata,
        like=output.like.shape,
        shape=output.shape,
        dtype=output.dtype,
        slices=output.slices,
        provenance=output.provenance,
    )
    return TiffSlabWriter(path, output.shape, output.dtype, offset, metadata.byteorder)


def reopen(path: Path, output: Output) -> VolumeWriter:
    """Continue a TIFF that :func:`create` laid out; see :mod:`.table`."""
    with TiffVolume(path, probe=False) as begun:
        check_same(path, begun.shape, begun.dtype, output)
        if begun.data_offset is None:
            raise ValueError(f"{path} is not what was begun: start again (--restart).")
        return TiffSlabWriter(
            path, output.shape, output.dtype, begun.data_offset, begun.metadata.byteorder
        )
