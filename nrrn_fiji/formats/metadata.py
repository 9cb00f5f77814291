"""What a file says about its image, in one form for all formats, and what of it a result keeps.

Whatever can be said of a result made from an image is decided here, once: a part of its slices,
other channels, other grey values.  This module must never touch a file, nor pixels.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .rois import moved_roi

__all__ = ["PROVENANCE", "ImageMetadata", "VolumeShape", "parse_provenance", "provenance_line"]

PROVENANCE = "nrrn: "
"""What the line begins with that says how an image was made."""
# Lines of an ImageJ description that say how grey values are shown or calibrated.
VALUE_KEYS = ("min", "max", "cf", "vunit", *(f"c{i}" for i in range(10)))


class VolumeShape(NamedTuple):
    """Number of time points, channels, slices, rows and columns."""

    t: int
    c: int
    z: int
    y: int
    x: int

    @property
    def planes(self) -> int:
        """Number of two-dimensional images."""
        return self.t * self.c * self.z


def provenance_line(provenance: dict[str, Any]) -> str:
    """Return the line that records how a result was made: ``nrrn: {json}``."""
    return PROVENANCE + json.dumps(provenance)


def parse_provenance(text: str) -> dict[str, Any] | None:
    """Return what the last ``nrrn: {json}`` line of ``text`` says, or None without such a line."""
    for line in reversed(text.splitlines()):
        if line.startswith(PROVENANCE):
            try:
                value = json.loads(line[len(PROVENANCE) :])
            except json.JSONDecodeError:
                return None
            return value if isinstance(value, dict) else None
    return None


@dataclass(frozen=True, eq=False)
class ImageMetadata:
    """Everything a file said about its image.

    Attributes
    ----------
    kind
        "imagej", "ome", "tiff", "folder", "zarr", "hdf5", "mrc" or "array".
    axes
        Axes as the file orders them, e.g. "TZCYX".
    byteorder
        "<" or ">"; an output takes over the byte order of its input, so that private tags can be
        copied byte by byte.
    voxel_size, voxel_unit
        (z, y, x) and their unit; None where the file does not say.
    channel_names
        One per channel, or empty.
    labels
        Label of every plane (time, then slice, then channel; channel fastest), or empty.
    luts
        One (3, 256) uint8 look-up table per channel, or empty.
    ranges
        Lower and upper displayed grey value per channel, one after the other, or empty.
    info
        ImageJ's "Info" text.
    properties, roi, overlays, plot
        ImageJ's further entries; ROIs as the bytes ImageJ stored.
    lines
        Lines of the ImageJ description but for those that count images.
    ome_xml
        The OME-XML text, if there is one.
    resolution, resolution_unit
        TIFF's XResolution and YResolution as (numerator, denominator), and their unit code.
    white_is_zero, colormap
        TIFF's photometric interpretation and (3, n) uint16 colour map.
    tags
        Further tags as (code, type, count, bytes): software, date, authorship, and what SEM makers
        store.
    attributes
        Further attributes of an OME-Zarr or HDF5 file, as JSON types.
    """

    kind: str
    axes: str = "ZYX"
    byteorder: str = ">"
    voxel_size: tuple[float, float, float] | None = None
    voxel_unit: str | None = None
    channel_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    luts: tuple[NDArray[np.uint8], ...] = ()
    ranges: tuple[float, ...] = ()
    info: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    roi: bytes | None = None
    overlays: tuple[bytes, ...] = ()
    plot: bytes | None = None
    lines: tuple[str, ...] = ()
    ome_xml: str | None = None
    resolution: tuple[tuple[int, int], tuple[int, int]] | None = None
    resolution_unit: int = 1
    white_is_zero: bool = False
    colormap: NDArray[np.uint16] | None = None
    tags: tuple[tuple[int, int, int, bytes], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def has_imagej_entries(self) -> bool:
        """Whether there is anything that ImageJ keeps in a tag of its own; provenance is not."""
        info = [line for line in self.info.splitlines() if not line.startswith(PROVENANCE)]
        others = (self.labels, self.luts, self.ranges, self.properties, self.overlays)
        return any(others) or bool(info or self.roi or self.plot)

    def reinterpreted(self, shape: VolumeShape, axis: str) -> ImageMetadata:
        """Return what remains true when ``axis`` ("T" or "C") is read as depth.

        Parameters
        ----------
        shape
            As the file says, before the change; its z is 1.
        """
        changes: dict[str, Any] = {}
        if self.labels:
            planes = np.array(self.labels, dtype=object).reshape(shape.t, shape.z, shape.c)
            order = (1, 0, 2) if axis == "T" else (0, 2, 1)
            changes["labels"] = tuple(planes.transpose(order).ravel())
        if axis == "C":
            changes["channel_names"] = self.channel_names[:1]
            changes["luts"] = self.luts[:1]
            changes["ranges"] = self.ranges[:2]
        dropped = ("hyperstack", "mode", "loop", "fps", "finterval")
        changes["lines"] = tuple(s for s in self.lines if s.split("=")[0] not in dropped)
        return dataclasses.replace(self, **changes)

    def selected(
        self,
        like: VolumeShape,
        shape: VolumeShape,
        slices: range,
        *,
        same_values: bool,
        channel_names: tuple[str, ...] | None = None,
    ) -> ImageMetadata:
        """Return what is true for an output that holds ``slices`` of an image.

        Parameters
        ----------
        like, shape
            Shape of the image and of the output.
        slices
            Which slices of the image the output holds; its length is ``shape.z``.
        same_values
            Whether grey values keep their meaning; otherwise display range and calibration of
            grey values are left out.
        channel_names
            Names of the output's channels; the image's when left out.
        """
        changes: dict[str, Any] = {}
        same_channels = shape.c == like.c and shape.t == like.t
        if self.labels:
            planes = np.array(self.labels, dtype=object).reshape(like.t, like.z, like.c)
            planes = planes[:, list(slices)]
            if shape.t != like.t or shape.c % like.c:
                planes = planes[:0]
            else:
                planes = np.repeat(planes, shape.c // like.c, axis=2)
            changes["labels"] = tuple(planes.ravel())
        if len(slices) < like.z or not same_channels:
            roi, overlays = self.roi, self.overlays
            changes["roi"] = None if roi is None else moved_roi(roi, slices, same_channels)
            moved = (moved_roi(overlay, slices, same_channels) for overlay in overlays)
            changes["overlays"] = tuple(overlay for overlay in moved if overlay is not None)
        if not same_channels or not same_values:  # it also says how grey values are shown
            kept = {key: value for key, value in self.attributes.items() if key != "omero"}
            changes["attributes"] = kept
        if not same_channels:
            changes.update(luts=(), channel_names=())
        if channel_names is not None:
            changes["channel_names"] = tuple(channel_names)
            if self.ome_xml is None:  # ImageJ has no names of channels, but shows labels
                labels = changes.get("labels") or ("",) * shape.planes
                names = channel_names * (shape.t * shape.z)
                changes["labels"] = tuple(
                    f"{name}: {label}" if label else name
                    for name, label in zip(names, labels, strict=True)
                )
        if not same_channels or not same_values:
            changes["ranges"] = ()
        lines = list(self.lines)
        if not same_values:
            lines = [line for line in lines if line.split("=")[0] not in VALUE_KEYS]
        if not same_channels:
            lines = [line for line in lines if line.split("=")[0] not in ("hyperstack", "mode")]
        if slices.start:
            lines = [_shift_origin(line, slices.start) for line in lines]
        changes["lines"] = tuple(lines)
        return dataclasses.replace(self, **changes)


def _shift_origin(line: str, start: int) -> str:
    """Return an ImageJ ``zorigin=`` line (in slices) for an image that starts at ``start``."""
    key, _, value = line.partition("=")
    if key != "zorigin":
        return line
    try:
        return f"zorigin={float(value) - start!r}"
    except ValueError:
        return line
