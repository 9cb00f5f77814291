"""OME-Zarr as other programs write it, and as they read ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr


def foreign(
    folder: Path, array: np.ndarray, version: str = "0.4", axes: str = "zyx", **options: Any
) -> Path:
    """Write an OME-Zarr by hand, as other programs do: two levels, calibrated, with colours."""
    zarr_format: Any = 2 if version == "0.4" else 3
    units = {"space": "nanometer", "time": "second", "channel": None}
    kinds = {"t": "time", "c": "channel"}
    described = []
    for axis in axes:
        kind = kinds.get(axis, "space")
        unit = {"unit": units[kind]} if units[kind] else {}
        described.append({"name": axis, "type": kind, **unit})
    sizes = {"t": 2.5, "c": 1.0, "z": 8.0, "y": 4.0, "x": 4.0}
    transforms = [
        [{"type": "scale", "scale": [sizes[a] * (n if a in "yx" else 1) for a in axes]}]
        for n in (1, 2)
    ]
    datasets = [
        {"path": f"s{i}", "coordinateTransformations": steps} for i, steps in enumerate(transforms)
    ]
    window = {"start": 3, "end": 77, "min": 0, "max": 255}
    count = array.shape[axes.index("c")] if "c" in axes else 1
    channels = [
        {"label": f"detector {i}", "color": "FF0000", "window": window} for i in range(count)
    ]
    said: dict[str, Any] = {
        "multiscales": [{"version": version, "axes": described, "datasets": datasets}],
        "omero": {"channels": channels, "id": 7},
    }
    if version == "0.5":
        said = {"ome": {"version": version, **said}}
    said["microscope"] = {"name": "Crossbeam", "dwell": [1, 2]}
    group = zarr.create_group(folder, zarr_format=zarr_format, attributes=said)
    for i, level in enumerate((array, array[..., ::2, ::2])):
        group.create_array(f"s{i}", data=np.ascontiguousarray(level), **options)
    return folder


def described(folder: Path) -> dict[str, Any]:
    """What the root of an OME-Zarr says, as others would read it."""
    attributes = dict(zarr.open_group(folder, mode="r").attrs)
    return {**attributes, **attributes.get("ome", {})}


def level(folder: Path, number: int) -> np.ndarray:
    """The pixels of a level."""
    return np.asarray(zarr.open_array(folder / str(number), mode="r")[...])
