"""Voxel sizes as file formats other than TIFF write them, and units of length as all call them.

Within this package a voxel size is (z, y, x) in one unit, and a unit is a symbol such as "nm".
This module must never read a file.

Sources: OME-NGFF 0.5, "axes" metadata (units are names of UDUNITS-2); ``element_size_um`` of the
HDF5 plugin of ImageJ, also read and written by ilastik and PlantSeg; ``resolution`` and
``voxel_size`` of CREMI, funlib and daisy, in nm unless ``units`` says otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .ome import METRES, UNITS

__all__ = [
    "as_json",
    "converted",
    "readable_length",
    "readable_voxel",
    "symbol",
    "udunits_name",
    "voxel_from_attributes",
]

NAMES = {
    "m": "meter",
    "dm": "decimeter",
    "cm": "centimeter",
    "mm": "millimeter",
    "µm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "fm": "femtometer",
    "Å": "angstrom",
    "in": "inch",
}
SYMBOLS = {name: unit for unit, name in NAMES.items()}


def symbol(name: str | None) -> str | None:
    """Return the symbol of a unit, however it is called: "nm" for "nanometer".

    >>> symbol("micrometers"), symbol("um"), symbol("parsec")
    ('µm', 'µm', 'parsec')
    """
    if not name:
        return None
    plain = name.strip()
    small = plain.lower().replace("metre", "meter")
    for candidate in (small, small.removesuffix("s")):
        if candidate in SYMBOLS:
            return SYMBOLS[candidate]
    return UNITS.get(plain, UNITS.get(small, plain))


def udunits_name(unit: str | None) -> str | None:
    """Return the name of a unit as OME-Zarr wants it: "nanometer" for "nm".

    None for pixels, which are no unit; what is not known stays as it is.
    """
    unit = symbol(unit)
    if unit is None or unit == "pixel":
        return None
    return NAMES.get(unit, unit)


def converted(lengths: Sequence[float], unit: str | None, to: str) -> tuple[float, ...] | None:
    """Return lengths in another unit; None if one of the units is no length.

    >>> converted((8.0, 4.0), "nm", "µm")
    (0.008, 0.004)
    """
    unit = symbol(unit)
    if unit == to:
        return tuple(lengths)
    if unit not in METRES or to not in METRES:
        return None
    factor = METRES[unit] / METRES[to]
    # 8 nm are 0.008 µm and not 0.008000000000000002.
    return tuple(float(f"{length * factor:.12g}") for length in lengths)


def voxel_from_attributes(
    attributes: Mapping[str, Any],
) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the voxel size (z, y, x) and its unit from an array's attributes, by usual names."""
    for name in ("voxel_size", "resolution"):
        size = _lengths(attributes.get(name))
        if size is not None:
            unit = attributes.get("units", attributes.get("unit", "nm"))
            if not isinstance(unit, str):  # one for each axis
                units = {str(u) for u in np.ravel(unit)[-3:]}
                unit = units.pop() if len(units) == 1 else ""
            return size, symbol(unit)
    size = _lengths(attributes.get("element_size_um"))
    return (size, "µm") if size is not None else (None, None)


def _lengths(value: Any) -> tuple[float, float, float] | None:
    """Return three positive numbers, or None."""
    if value is None or isinstance(value, str):
        return None
    try:
        lengths = [float(length) for length in np.ravel(value)[-3:]]
    except (TypeError, ValueError):
        return None
    if len(lengths) < 3 or not all(math.isfinite(v) and v > 0 for v in lengths):
        return None
    z, y, x = lengths
    return z, y, x


def as_json(value: Any) -> Any:
    """Return an attribute as JSON can hold it; text where it cannot."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def readable_length(length: float, unit: str | None) -> str:
    """Return a length as microscopists say it: nm below a thousand of them, else µm, mm.

    >>> readable_length(0.0613, "um"), readable_length(1234, "nm"), readable_length(3, "pixel")
    ('61.3 nm', '1.23 µm', '3 pixel')
    """
    metres = METRES.get(symbol(unit) or "")
    if metres is None:
        return f"{length:.3g} {unit or ''}".rstrip()
    for larger in ("nm", "µm", "mm"):
        shown = length * metres / METRES[larger]
        if shown < 999.5 or larger == "mm":
            break
    return f"{shown:.3g} {larger}"


def readable_voxel(size: Sequence[float] | None, unit: str | None) -> str:
    """Return a voxel size (z, y, x) as "10 × 10 × 20 nm", x first; "" if it is unknown.

    >>> readable_voxel((0.02, 0.01, 0.01), "um")
    '10 × 10 × 20 nm'
    """
    if size is None or symbol(unit) in (None, "", "pixel"):
        return ""
    in_nm = converted(size, unit, "nm")
    shown, name = (size, unit) if in_nm is None else (in_nm, "nm")
    return f"{' × '.join(f'{edge:.4g}' for edge in reversed(shown))} {name}"
