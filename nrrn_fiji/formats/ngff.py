"""The metadata of OME-Zarr (NGFF 0.4 and 0.5): finds the image in a folder, and what is said of it.

Everything is read from the folder's JSON files before the Zarr library sees them: sizes are
checked, and codecs and types that could run code (pickle, Python objects) are refused.  This
module knows nothing of chunks' bytes.

Sources: https://ngff.openmicroscopy.org/0.4/ and /0.5/; Zarr v2 and v3 core specifications.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np

from .calibration import symbol, voxel_from_attributes
from .metadata import ImageMetadata, VolumeShape
from .ome import METRES

__all__ = ["ArrayPlace", "find_array", "metadata_of", "own_parts"]

MOST_JSON = 1 << 26
MOST_CHUNK = 1 << 31
"""Bytes; no usual codec makes larger chunks."""
# Codecs that turn bytes into bytes and run nothing (others can be told to unpickle), and that
# zarr_codecs.py keeps within the size of a chunk.
CODECS = {
    2: (
        *("blosc", "zstd", "gzip", "zlib", "lz4", "shuffle", "delta", "bitround"),
        *("fixedscaleoffset", "quantize", "crc32", "crc32c", "adler32", "fletcher32"),
    ),
    3: ("bytes", "transpose", "sharding_indexed", "blosc", "zstd", "gzip", "crc32c"),
}
OWN = ("ome", "multiscales", "omero", "nrrn", "imagej", "bioformats2raw.layout")
"""Attributes that are understood, so not handed on as they are."""


class ArrayPlace(NamedTuple):
    """Where the full-size array of an image lies, and what is said about it."""

    path: str
    """Within the folder, "" for the folder itself."""
    zarr_format: Literal[2, 3]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    """One of t, c, z, y, x for each axis, in this order."""
    chunk: tuple[int, ...]
    """What is decoded at a time."""
    voxel_size: tuple[float, float, float] | None
    voxel_unit: str | None
    origin: tuple[float, float, float]
    """Place of the first voxel, (z, y, x) in the same unit."""
    interval: tuple[float, str | None] | None
    """Time between time points, and its unit."""
    attributes: dict[str, Any]
    """Of the group, with "ome" unfolded."""
    notes: tuple[str, ...]

    @property
    def volume_shape(self) -> VolumeShape:
        """Shape with all five axes."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return VolumeShape(*(sizes.get(axis, 1) for axis in "tczyx"))


def find_array(folder: Path, inside: str) -> ArrayPlace:
    """Find the full-size array of the image in a folder.

    Raises
    ------
    ValueError
        If there is none or more than one to choose from, or if it cannot be read; with a sentence.
    TypeError
        If its values are no grey values.
    """
    at = _within(folder, inside) if inside.strip("/") else folder
    node = _node(at)
    if node is None:
        raise ValueError(f"{at} is no Zarr array or group: {_children(at)}.")
    notes: list[str] = []
    attributes = node["attributes"]
    if node["array"]:
        return _array(folder, at, node, {}, attributes, notes)
    if "plate" in attributes:
        raise ValueError(
            f"{at} is a plate of many images: give one of them, such as {folder.name}/A/1/0."
        )
    if not attributes.get("multiscales"):
        at, node = _only_image(at)
        attributes = node["attributes"]
        if node["array"]:
            return _array(folder, at, node, {}, attributes, notes)
    scales = attributes["multiscales"]
    if not (isinstance(scales, list) and isinstance(scales[0], dict)):
        raise _wrong(at, "multiscales is no list of objects")
    if len(scales) > 1:
        notes.append(f"{folder.name} holds {len(scales)} images; only the first is read.")
    levels = scales[0].get("datasets")
    if not (isinstance(levels, list) and levels and isinstance(levels[0], dict)):
        raise _wrong(at, "multiscales has no datasets")
    level = _within(at, str(levels[0].get("path", "")))
    found = _node(level)
    if found is None or not found["array"]:
        raise _wrong(at, f"its full-size array {level.name} is missing")
    return _array(folder, level, found, scales[0], attributes, notes)


def own_parts(folder: Path) -> set[str]:
    """Return the names of the metadata files, and of the levels that they list, in a folder."""
    names = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
    node = _node(folder)
    scales = [] if node is None else node["attributes"].get("multiscales")
    for scale in scales if isinstance(scales, list) else []:
        levels = scale.get("datasets") if isinstance(scale, dict) else None
        for level in levels if isinstance(levels, list) else []:
            if isinstance(level, dict):
                names.add(str(level.get("path")))
    return names


def _wrong(at: Path, what: str) -> ValueError:
    return ValueError(f"{at} is damaged or incomplete ({what}): copy it again.")


def _within(folder: Path, path: str) -> Path:
    """Return a path in a folder; ValueError for one that leads out of it."""
    parts = PurePosixPath(path.strip("/")).parts
    if ".." in parts or any(re.search(r"[:\\]", part) for part in parts):
        raise ValueError(f"{folder} names an array outside of itself ({path}): do not use it.")
    return folder.joinpath(*parts)


def _children(folder: Path) -> str:
    """Say which arrays and groups a folder has."""
    if not folder.is_dir():
        return "it does not exist"
    names = sorted(child.name for child in folder.iterdir() if _node(child) is not None)
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"it holds {shown}; choose one as {folder.name}/{names[0]}" if names else "it is empty"


def _only_image(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the one image in a group that is none itself."""
    found = []
    for child in sorted(folder.iterdir()):
        node = _node(child)
        if node is not None and (node["array"] or node["attributes"].get("multiscales")):
            found.append((child, node))
    if len(found) != 1:
        raise ValueError(f"{folder} is a group of {len(found)} images: {_children(folder)}.")
    return found[0]


def _json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is no such file."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise _wrong(path, "it is too large for metadata")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        if "too large" in str(error):
            raise
        raise _wrong(path, "it is no JSON") from error
    if not isinstance(value, dict):
        raise _wrong(path, "it is no JSON object")
    return value


def _node(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's metadata say, in one form for Zarr v2 and v3; None for no node."""
    said = _json(folder / "zarr.json")
    if said is not None:
        attributes = said.get("attributes", {})
        attributes = dict(attributes) if isinstance(attributes, dict) else {}
        inner = attributes.get("ome")
        if isinstance(inner, dict):
            attributes = {**attributes, **inner}
        is_array = said.get("node_type") == "array"
        return {"format": 3, "array": is_array, "said": said, "attributes": attributes}
    said = _json(folder / ".zarray")
    group = None if said is not None else _json(folder / ".zgroup")
    attributes = _json(folder / ".zattrs")
    if said is None and group is None and attributes is None:
        return None
    return {
        "format": 2,
        "array": said is not None,
        "said": said or group or {},
        "attributes": attributes or {},
    }


def _array(
    folder: Path,
    at: Path,
    node: dict[str, Any],
    scales: dict[str, Any],
    attributes: dict[str, Any],
    notes: list[str],
) -> ArrayPlace:
    """Check an array's metadata and put together what is known about it."""
    said = node["said"]
    try:
        shape = tuple(int(n) for n in said["shape"])
        if node["format"] == 3:
            if said["chunk_grid"]["name"] != "regular":
                raise ValueError("its chunks are not regular")
            chunk = [int(n) for n in said["chunk_grid"]["configuration"]["chunk_shape"]]
            kind = said["data_type"]
        else:
            chunk = [int(n) for n in said["chunks"]]
            kind = said["dtype"]
        codecs, chunk = _codecs(node, chunk)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _wrong(at, f"its array's metadata: {error}") from error
    for codec in codecs:
        if codec not in CODECS[node["format"]]:
            raise ValueError(
                f"{at} is compressed with {codec!r}, which is not read here: save it again with "
                "blosc, zstd or gzip."
            )
    dtype = _dtype(at, kind)
    sound = len(chunk) == len(shape) and min((*shape, *chunk), default=0) > 0
    if not sound or math.prod(chunk) * dtype.itemsize > MOST_CHUNK:
        raise ValueError(
            f"{at} announces an array of {shape} in chunks of {tuple(chunk)}, which cannot be "
            "read: check the file."
        )
    axes, units = _axes(at, node, scales, len(shape))
    scale, shift = _transforms(scales, len(shape))
    voxel, unit, origin = _calibration(axes, units, scale, shift)
    if not scales:
        voxel, unit = voxel_from_attributes(node["attributes"])
    interval = None
    if "t" in axes and scales:
        interval = (scale[axes.index("t")], units[axes.index("t")])
    return ArrayPlace(
        at.relative_to(folder).as_posix() if at != folder else "",
        3 if node["format"] == 3 else 2,
        shape,
        dtype,
        axes,
        tuple(chunk),
        voxel,
        unit,
        origin,
        interval,
        attributes,
        tuple(notes),
    )


def _codecs(node: dict[str, Any], chunk: list[int]) -> tuple[list[str], list[int]]:
    """Return the names of all codecs, and the shape of what is decoded at a time."""
    said = node["said"]
    if node["format"] == 2:
        steps = [said.get("compressor"), *(said.get("filters") or [])]
        return [str(step["id"]) for step in steps if step is not None], chunk
    names: list[str] = []

    def walk(steps: Any, depth: int = 0) -> None:
        nonlocal chunk
        if depth > 4:
            raise ValueError("shards within shards")
        for step in steps:
            name = step if isinstance(step, str) else str(step["name"])
            names.append(name)
            if name == "sharding_indexed":
                inner = step["configuration"]
                chunk = [int(n) for n in inner["chunk_shape"]]
                walk(inner["codecs"], depth + 1)
                walk(inner.get("index_codecs", []), depth + 1)

    walk(said["codecs"])
    return names, chunk


def _dtype(at: Path, kind: Any) -> np.dtype[Any]:
    """Return the type of the grey values; objects, structures and text are refused."""
    try:
        dtype = np.dtype(kind) if isinstance(kind, str) else None
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.kind not in "iufbc":
        raise TypeError(
            f"{at} holds values of type {kind!r}, but grey values are needed: give an array of "
            "8-bit, 16-bit or 32-bit float pixels."
        )
    return dtype


def _axes(
    at: Path, node: dict[str, Any], scales: dict[str, Any], count: int
) -> tuple[tuple[str, ...], list[str | None]]:
    """Return the axes' names, as letters, and their units."""
    names: list[Any] = []
    units: list[str | None] = [None] * count
    listed = scales.get("axes")
    if isinstance(listed, list):
        entries = [axis if isinstance(axis, dict) else {"name": axis} for axis in listed]
        names = [axis.get("name") for axis in entries]
        units = [axis.get("unit") for axis in entries]
    elif scales:
        names = list("tczyx")[-count:]  # NGFF before 0.3 had no names
    elif node["format"] == 3:
        names = list(node["said"].get("dimension_names") or [])
    else:
        names = list(node["attributes"].get("_ARRAY_DIMENSIONS") or [])
    if not names or all(name is None for name in names):
        names = list("tczyx")[-count:] if count < 4 else []
    letters = tuple(str(name).lower() for name in names)
    # One letter each, in this order: so they are a subsequence of it.
    known = len(letters) == count and re.fullmatch("t?c?z?yx", "".join(letters))
    if not known or any(len(letter) != 1 for letter in letters):
        said = ", ".join(map(str, names)) or f"{count} of them without names"
        raise ValueError(
            f"{at} has the axes {said}, but the order t, c, z, y, x (or some of these, ending in "
            "y, x) is needed: save it again so."
        )
    return letters, [symbol(unit) if isinstance(unit, str) else None for unit in units]


def _transforms(scales: dict[str, Any], count: int) -> tuple[list[float], list[float]]:
    """Return scale and translation of the full-size array along every axis."""
    scale, shift = [1.0] * count, [0.0] * count
    levels = scales.get("datasets", [{}])
    for owner in (levels[0], scales):  # the level's own first, then those of all levels
        steps = owner.get("coordinateTransformations")
        for step in steps if isinstance(steps, list) else []:
            kind = step.get("type") if isinstance(step, dict) else None
            values = step.get(kind) if kind in ("scale", "translation") else None
            try:
                numbers = [float(v) for v in values or []]
            except (TypeError, ValueError):
                continue
            if len(numbers) != count or not all(map(math.isfinite, numbers)):
                continue
            if kind == "scale":
                scale = [a * b for a, b in zip(scale, numbers, strict=True)]
                shift = [a * b for a, b in zip(shift, numbers, strict=True)]
            else:
                shift = [a + b for a, b in zip(shift, numbers, strict=True)]
    return scale, shift


def _calibration(
    axes: tuple[str, ...], units: list[str | None], scale: list[float], shift: list[float]
) -> tuple[tuple[float, float, float] | None, str | None, tuple[float, float, float]]:
    """Return voxel size, unit and origin, all in the unit of x."""
    unit = units[axes.index("x")]
    sizes, places = [], []
    for axis in "zyx":
        if axis not in axes:
            sizes.append(1.0)
            places.append(0.0)
            continue
        i = axes.index(axis)
        factor = 1.0
        if units[i] != unit:
            factor = METRES.get(units[i] or "", math.nan) / METRES.get(unit or "", math.nan)
        sizes.append(scale[i] * factor)
        places.append(shift[i] * factor)
    z, y, x = sizes
    sound = min(sizes) > 0 and all(map(math.isfinite, (*sizes, *places)))
    if not sound or (unit is None and (z, y, x) == (1.0, 1.0, 1.0)):
        return None, None, (0.0, 0.0, 0.0)
    return (z, y, x), unit, (places[0], places[1], places[2])


def metadata_of(place: ArrayPlace) -> ImageMetadata:
    """Return what an OME-Zarr says about its image."""
    said = place.attributes
    shape = place.volume_shape
    imagej = said.get("imagej") if isinstance(said.get("imagej"), dict) else {}
    assert isinstance(imagej, dict)
    info = [str(imagej["Info"])] if imagej.get("Info") else []
    if isinstance(said.get("nrrn"), dict):
        info.append("nrrn: " + json.dumps(said["nrrn"]))
    labels = imagej.get("Labels")
    if not (isinstance(labels, list) and len(labels) == shape.planes):
        labels = []
    kept = {name: value for name, value in said.items() if name not in OWN}
    channels = _channels(said, shape.c)
    if channels:
        kept["omero"] = said["omero"]
    if place.interval is not None:
        kept["interval"] = place.interval
    if any(place.origin):
        kept["origin"] = place.origin
    ranges: list[float] = []
    for channel in channels:
        window = channel.get("window")
        if isinstance(window, dict):
            try:
                ranges += [float(window["start"]), float(window["end"])]
            except (KeyError, TypeError, ValueError):
                break
    names = [channel.get("label") for channel in channels]
    return ImageMetadata(
        "zarr",
        axes="".join(place.axes).upper(),
        byteorder="<",
        voxel_size=place.voxel_size,
        voxel_unit=place.voxel_unit,
        channel_names=tuple(str(n) for n in names) if all(names) else (),
        labels=tuple(map(str, labels)),
        ranges=tuple(ranges) if len(ranges) == 2 * shape.c else (),
        info="\n".join(info),
        attributes=kept,
    )


def _channels(said: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Return what the "omero" block says about each channel; empty if it does not fit."""
    omero = said.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or len(channels) != count:
        return []
    return channels if all(isinstance(channel, dict) for channel in channels) else []
