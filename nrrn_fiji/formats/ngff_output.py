"""Describes an OME-Zarr that is written: its pyramid, where its voxels lie, what was said of it.

This module must never write a file, and never make up what the input did not say.

Sources: https://ngff.openmicroscopy.org/0.4/ and /0.5/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .calibration import udunits_name
from .metadata import ImageMetadata, VolumeShape

__all__ = ["axes_of", "describe", "level_shapes"]

SMALLEST_LEVEL = 256
"""Pixels; a pyramid ends when its longest side is not longer."""


def level_shapes(
    shape: VolumeShape, voxel_size: tuple[float, float, float] | None
) -> list[tuple[int, int, int]]:
    """Return (z, y, x) of every level of the pyramid, the full size first.

    An axis is halved where its voxels are not yet about as long as those of the others (less than
    twice the shortest): cubes in all three axes, thick slices in the plane first.
    """
    levels = [(shape.z, shape.y, shape.x)]
    voxel = list(voxel_size or (1.0, 1.0, 1.0))
    while max(levels[-1]) > SMALLEST_LEVEL:
        sizes = levels[-1]
        able = [i for i in range(3) if sizes[i] > 1]
        shortest = min(voxel[i] for i in able)
        # Also where doubling has made all of them infinite.
        halved = [i for i in able if voxel[i] < 2 * shortest or voxel[i] == shortest]
        z, y, x = (-(-n // 2) if i in halved else n for i, n in enumerate(sizes))
        levels.append((z, y, x))
        voxel = [2 * v if i in halved else v for i, v in enumerate(voxel)]
    return levels


def describe(
    name: str,
    metadata: ImageMetadata,
    shape: VolumeShape,
    first: int,
    levels: list[tuple[int, int, int]],
    provenance: dict[str, Any] | None,
    zarr_format: int,
) -> dict[str, Any]:
    """Return the attributes of the group of an output.

    Parameters
    ----------
    metadata
        Selected for the output.
    first
        Which slice of the input is the output's first: its place is kept.
    levels
        From :func:`level_shapes`.
    zarr_format
        2 (NGFF 0.4) or 3 (NGFF 0.5).
    """
    axes = axes_of(shape)
    unit = udunits_name(metadata.voxel_unit)
    kept = dict(metadata.attributes)
    interval = kept.pop("interval", None)
    origin = list(kept.pop("origin", (0.0, 0.0, 0.0)))
    omero = kept.pop("omero", None)
    voxel = metadata.voxel_size or (1.0, 1.0, 1.0)
    origin[0] += first * voxel[0]
    described: list[dict[str, Any]] = []
    for axis in axes:
        kind = {"t": "time", "c": "channel"}.get(axis, "space")
        entry: dict[str, Any] = {"name": axis, "type": kind}
        if kind == "space" and unit is not None:
            entry["unit"] = unit
        if axis == "t" and interval is not None and interval[1]:
            entry["unit"] = interval[1]
        described.append(entry)
    datasets = [
        {"path": str(number), "coordinateTransformations": list(_steps(axes, *place))}
        for number, place in enumerate(_level_places(levels, voxel, origin, interval))
    ]
    scales: dict[str, Any] = {"name": name, "axes": described, "datasets": datasets}
    scales["type"] = "mean"
    attributes: dict[str, Any] = dict(kept)
    inner: dict[str, Any] = {"multiscales": [scales]}
    omero = omero if isinstance(omero, dict) else _omero(name, metadata, shape)
    if omero:
        inner["omero"] = omero
    if zarr_format == 3:
        attributes["ome"] = {"version": "0.5", **inner}
    else:
        scales["version"] = "0.4"
        attributes.update(inner)
    imagej: dict[str, Any] = {}
    info = [s for s in metadata.info.splitlines() if not s.startswith("nrrn: ")]
    if info:
        imagej["Info"] = "\n".join(info)
    if any(metadata.labels):
        imagej["Labels"] = list(metadata.labels)
    if imagej:
        attributes["imagej"] = imagej
    if provenance is not None:
        attributes["nrrn"] = provenance
    return attributes


def axes_of(shape: VolumeShape) -> str:
    """Return the axes that an output of this shape is stored with."""
    return ("t" if shape.t > 1 else "") + ("c" if shape.c > 1 else "") + "zyx"


def _level_places(
    levels: list[tuple[int, int, int]],
    voxel: tuple[float, float, float],
    origin: list[float],
    interval: tuple[float, str | None] | None,
) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield scale and translation, by axis, of every level.

    The centre of a mean of n voxels lies (n − 1) / 2 voxels behind that of the first.
    """
    factor = [1, 1, 1]
    for number, sizes in enumerate(levels):
        if number:
            before = levels[number - 1]
            factor = [factor[i] * (2 if sizes[i] < before[i] else 1) for i in range(3)]
        scale = {axis: voxel[i] * factor[i] for i, axis in enumerate("zyx")}
        shift = {axis: origin[i] + voxel[i] * (factor[i] - 1) / 2 for i, axis in enumerate("zyx")}
        if interval is not None:
            scale["t"] = interval[0]
        yield scale, shift


def _steps(axes: str, scale: dict[str, float], shift: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Yield the coordinate transformations of a level."""
    yield {"type": "scale", "scale": [scale.get(axis, 1.0) for axis in axes]}
    if any(shift.values()):
        yield {"type": "translation", "translation": [shift.get(axis, 0.0) for axis in axes]}


def _omero(name: str, metadata: ImageMetadata, shape: VolumeShape) -> dict[str, Any] | None:
    """Return how to show the channels of an image that came from another format."""
    if not metadata.channel_names or len(metadata.ranges) != 2 * shape.c:
        # A window is compulsory in this block, and must not be made up.
        return None
    channels = []
    for c, label in enumerate(metadata.channel_names):
        low, high = metadata.ranges[2 * c : 2 * c + 2]
        red, green, blue = (255, 255, 255)
        if c < len(metadata.luts):
            red, green, blue = (int(v) for v in metadata.luts[c][:, -1])
        channels.append(
            {
                "label": label,
                "active": True,
                "color": f"{red:02X}{green:02X}{blue:02X}",
                "window": {"start": low, "end": high, "min": low, "max": high},
            }
        )
    return {"name": name, "channels": channels}
