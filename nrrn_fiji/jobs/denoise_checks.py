"""What is asked of a denoising run, checked before anything is read or written.

This module must never open an image or change a file.
"""

from __future__ import annotations

import glob
import operator
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..device import choose_device
from ..outputs.checks import check_distinct, check_parent
from ..settings import DenoiseSettings
from ..volumes import Volume, check_output_name, file_of

__all__ = [
    "ARGUMENTS",
    "ImageSource",
    "SliceRange",
    "as_range",
    "check_outputs",
    "check_slices",
    "several_devices",
    "standing_outputs",
]

ImageSource = str | Path | Sequence[str | Path] | NDArray[Any]
SliceRange = range | tuple[int, int]

ARGUMENTS = {
    "image": "out",
    "noise": "--noise (noise_out)",
    "units": "--units-out (units_out)",
    "scans": "--keep (keep)",
}
"""What the outputs are called by those who ask for them."""


def as_range(slices: SliceRange | None) -> range | None:
    """Return slices, which may be given as (first, last + 1), as a range."""
    if slices is None or isinstance(slices, range):
        return slices
    try:
        start, stop = (operator.index(number) for number in slices)
    except (TypeError, ValueError):
        raise TypeError(
            f"slices is {slices!r}, but it must be a range or two whole numbers, (2, 4) for the "
            "slices 2 and 3: give one of these."
        ) from None
    return range(start, stop)


def standing_outputs(targets: dict[str, Path], overwrite: bool) -> list[str]:
    """Say which outputs exist, and what will become of them."""
    there = [
        path
        for path in targets.values()
        if path.exists() and not (path.is_dir() and not any(path.iterdir()))
    ]
    fate = "will be replaced." if overwrite else "so the run needs --overwrite (overwrite=True)."
    return [f"{path} exists already{'' if overwrite else ','} {fate}" for path in there]


def check_outputs(source: ImageSource, targets: dict[str, Path]) -> None:
    """Refuse outputs that would damage the input or each other, or that cannot be written."""
    inputs: list[Path] = []
    if isinstance(source, str | Path):
        inputs = [file_of(source)]
        if not inputs[0].exists() and glob.has_magic(str(source)):
            inputs = [Path(path) for path in glob.glob(str(source))]
            for kind, path in targets.items():
                if _matches(path, str(source)):
                    raise ValueError(
                        f"{ARGUMENTS[kind]} is {path}, which matches the input {source} and would "
                        "be taken for a slice of it: choose an output elsewhere."
                    )
    elif not hasattr(source, "__array__"):
        inputs = [Path(path) for path in source]
    check_distinct(inputs, {ARGUMENTS[kind]: path for kind, path in targets.items()})
    for path in targets.values():
        check_output_name(path)
        check_parent(Path(os.path.realpath(path)))


def _matches(path: Path, pattern: str) -> bool:
    """Whether glob would find a path by a pattern, whose * does not reach into folders."""
    parts, patterns = Path(os.path.abspath(path)).parts, Path(os.path.abspath(pattern)).parts
    return len(parts) == len(patterns) and all(map(fnmatch, parts, patterns))


def check_slices(slices: range | None, settings: DenoiseSettings, volume: Volume) -> None:
    """Refuse slices that the volume does not have, or that make no sense."""
    if slices is None:
        return
    if settings.scans:
        raise ValueError(
            f"slices is {slices.start}:{slices.stop}, but scans of one slice have no slices to "
            "choose from: leave it out."
        )
    if slices.step != 1 or not 0 <= slices.start < slices.stop <= volume.shape.z:
        raise ValueError(
            f"slices is {slices.start}:{slices.stop}, but {volume.name} has slices "
            f"0:{volume.shape.z} (the last number is left out): choose a range within these."
        )


def several_devices(device: str | None) -> tuple[str, ...]:
    """Return the devices of a list such as "cuda:0,cuda:1"; nothing where there is no list.

    Raises
    ------
    ValueError
        If this machine lacks one of them, or they are of different kinds.
    """
    if device is None or "," not in device:
        return ()
    devices = [choose_device(name.strip()) for name in device.split(",") if name.strip()]
    kinds = {device.type for device in devices}
    if len(kinds) != 1:
        raise ValueError(
            f"device is {device!r}, but devices that share a stack must be of one kind, so that "
            "all its slices are computed alike: choose GPUs or the CPU."
        )
    return tuple(str(device) for device in devices)
