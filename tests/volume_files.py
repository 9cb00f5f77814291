"""What the tests of volumes share: stacks with different values everywhere, files, copies.

Inputs are written by tifffile, zarr, h5py and mrcfile themselves, and outputs are read back with
them, so that nothing is proved by our own reader alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nrrn_fiji.volumes import Volume, create_volume, open_volume

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
NRRN = {"model": "fibsem-medulla", "tile": 128, "µ": [1.5, None]}


def ramp(shape: tuple[int, ...], dtype: str = "uint16") -> np.ndarray:
    """Different values everywhere, also at the ends of the type."""
    values = np.arange(np.prod(shape)).reshape(shape)
    if dtype.startswith("float"):
        return (values - 3.5).astype(dtype)
    info = np.iinfo(dtype)
    return (info.min + values * 7 % (int(info.max) - int(info.min) + 1)).astype(dtype)


def save(path: Path, *array: np.ndarray, **options: Any) -> None:
    """Write a grey TIFF with tifffile."""
    tifffile.imwrite(path, *array, **{"photometric": "minisblack", **options})


def all_of(volume: Volume) -> np.ndarray:
    """All pixels in the order T, Z, C, Y, X."""
    t, c, z = volume.shape[:3]
    planes = [
        [volume.read(0, z, channel=channel, time=time) for channel in range(c)] for time in range(t)
    ]
    return np.array(planes).transpose(0, 2, 1, 3, 4)


def copy(source: Path | str, out: Path, **options: Any) -> None:
    """Write an output that holds the input's pixels, slab by slab."""
    with open_volume(source) as volume:
        slices = options.get("slices") or range(volume.shape.z)
        with create_volume(out, volume, provenance=NRRN, **options) as writer:
            for time in range(volume.shape.t):
                for channel in range(volume.shape.c):
                    for z in slices:
                        slab = volume.read(z, z + 1, channel=channel, time=time)
                        writer.write(z - slices.start, slab, channel=channel, time=time)


def imagej_file(path: Path, array: np.ndarray, **options: Any) -> dict[str, Any]:
    """Write an ImageJ hyperstack (T, Z, C, Y, X) with everything ImageJ can say about one."""
    t, z, c = array.shape[:3]
    luts = [np.stack([np.arange(256) // (i + 1 + k) for k in range(3)]) for i in range(c)]
    said = {
        "axes": "TZCYX",
        "mode": "composite",
        "unit": "nm",
        "spacing": 8.5,
        "finterval": 2.0,
        "zorigin": 3.0,
        "min": 5.0,
        "max": 99.0,
        "cf": 0,
        "c0": -32768.0,
        "c1": 1.0,
        "vunit": "Gray Value",
        "Info": "Made by hand\nµ = 0.5, 日本\n",
        "Labels": [f"plane {i} é" for i in range(t * z * c)],
        "Ranges": tuple(float(v) for i in range(c) for v in (i, 100 + i)),
        "LUTs": [lut.astype(np.uint8) for lut in luts],
        "ROI": b"Iout\x00\xe3 a selection",
        "Overlays": [b"Iout first", b"Iout second one"],
        "Properties": {"key": "value", "CZ": "µ"},
        **options,
    }
    save(path, array, imagej=True, resolution=(0.125, 0.25), metadata=said)
    return said


def refused(source: Any, message: str, kind: type[Exception] = ValueError) -> None:
    """The source is refused with one sentence that ends with what to do."""
    with pytest.raises(kind, match=message) as caught:
        open_volume(source)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and "Traceback" not in text


def calibrated(
    array: np.ndarray, voxel: tuple[float, float, float] = (8.0, 4.0, 4.0), unit: str = "nm"
) -> Volume:
    """An array as a volume with a voxel size."""
    volume = open_volume(array)
    volume.metadata = dataclasses.replace(volume.metadata, voxel_size=voxel, voxel_unit=unit)
    return volume
