"""An xarray, as PyImageJ hands images to Python, as a volume; and a new one with all that it says.

Names, coordinates and attributes stay; pixels never go through Java.  This module must never
change the array that it reads.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from ..formats.image import Array, ImageMetadata, Volume, VolumeShape
from ..intensity import check_dtype
from .writer import ImageWriter

__all__ = ["XarrayVolume", "XarrayWriter", "is_xarray"]

# PyImageJ's names of axes, and the usual ones.
ROLES = {
    "x": ("x", "col"),
    "y": ("y", "row"),
    "z": ("z", "pln"),
    "c": ("c", "ch", "channel"),
    "t": ("t", "time"),
}
ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
PROVENANCE = "nrrn"


def is_xarray(image: Any) -> bool:
    """Whether an object is an ``xarray.DataArray``, without importing xarray for it."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(image, xarray.DataArray)


class XarrayVolume(Volume):
    """An ``xarray.DataArray`` as a volume.

    Parameters
    ----------
    image
        The array; its dimensions are named as PyImageJ does (t, pln, row, col, ch) or z, y, x, c,
        t, in any order.

    Raises
    ------
    TypeError
        If it holds no grey values.
    ValueError
        If its dimensions are named otherwise, or if it lacks rows or columns.
    """

    def __init__(self, image: Any) -> None:
        name = str(image.name) if image.name is not None else "the array"
        roles = [ROLE_OF.get(str(dim).lower(), "") for dim in image.dims]
        if "" in roles or len(set(roles)) < len(roles) or not {"x", "y"} <= set(roles):
            named = ", ".join(str(dim) for dim in image.dims)
            raise ValueError(
                f"{name} has the dimensions ({named}), but row and col are needed, and pln, ch and "
                "t are accepted (or y, x, z, c, t), each once: rename them with image.rename()."
            )
        dtype = check_dtype(image.dtype, name)
        sizes = dict(zip(roles, image.shape, strict=True))
        shape = VolumeShape(**{role: sizes.get(role, 1) for role in VolumeShape._fields})
        super().__init__(name, None, shape, dtype, ImageMetadata("array", axes="TCZYX"))
        if shape.z == 1 and max(shape.t, shape.c) > 4:
            axis = "T" if shape.t > shape.c else "C"
            self.notes.append(
                f"{name} has {max(shape.t, shape.c)} planes along {axis} and one slice. If these "
                f'are the slices of a stack, name that dimension pln, or use z_axis="{axis}".'
            )
        self.image = image
        self.roles = roles
        self._planes = planes(np.asarray(image), roles)

    @property
    def depth(self) -> str:
        """The role of the axis that is read as depth: "z", or "t" or "c" by ``z_axis``."""
        return self._axis.lower()

    def _read_plane(self, out: Array, t: int, c: int, z: int) -> None:
        out[...] = self._planes[t, c, z]

    def _identity(self) -> str:
        return f"{self.name} {id(self.image)}"

    def close(self) -> None:
        """Do nothing: the array is the caller's."""


def planes(array: Array, roles: list[str]) -> Array:
    """Return a view of an array as (T, C, Z, Y, X), whose axes have these roles."""
    order = [roles.index(role) for role in VolumeShape._fields if role in roles]
    absent = tuple(number for number, role in enumerate(VolumeShape._fields) if role not in roles)
    return np.expand_dims(array.transpose(order), absent)


class XarrayWriter(ImageWriter):
    """A new DataArray like its source that takes slabs.

    Parameters
    ----------
    like
        The source.
    title
        Name of the new array.
    dtype
        Type of its grey values: the source's when left out.
    slices
        Which slices of the source it holds.
    provenance
        How it was made; its attribute ``nrrn``.
    """

    def __init__(
        self,
        like: XarrayVolume,
        *,
        title: str,
        dtype: np.dtype[Any] | None,
        slices: range,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        dtype = like.dtype if dtype is None else np.dtype(dtype)
        super().__init__(title, like.shape._replace(z=len(slices)), dtype, provenance)
        # A stack reinterpreted by z_axis keeps the name of its dimension: coordinates stay true.
        self._depth = like.depth
        source = like.image
        if self._depth in like.roles:
            source = source.isel({source.dims[like.roles.index(self._depth)]: list(slices)})
        self._image = source.copy(data=np.empty(source.shape, dtype))
        self._image.name = title if like.image.name is not None else None
        self._planes = planes(self._image.values, like.roles)

    def _put_plane(self, plane: Array, t: int, c: int, z: int) -> None:
        if self._depth == "t":
            t, z = z, 0
        elif self._depth == "c":
            c, z = z, 0
        self._planes[t, c, z] = plane

    def _make(self) -> Any:
        if self.provenance is not None:
            record = {PROVENANCE: json.dumps(self.provenance)}
            self._image.attrs = {**self._image.attrs, **record}
        return self._image
