"""Stacks that are more than NumPy arrays: labelled ones of xarray, and dask's, which are lazy.

A labelled array comes back with its dimensions, coordinates and attributes; a dask array comes
back as one that is computed chunk by chunk when it is asked for.  This module must never import
xarray or dask unless it was given one of theirs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .denoising import Plan, denoise_slabs
from .device import choose_device
from .intensity import grey_range
from .models import Model
from .plan import make_plan
from .settings import DenoiseSettings

__all__ = ["Results", "denoise_lazily", "is_dask", "is_xarray", "relabelled"]

NAMES = {
    "z": ("z", "pln", "plane", "slice"),
    "y": ("y", "row"),
    "x": ("x", "col", "column"),
}
ROLE = {name: role for role, names in NAMES.items() for name in names}
UNIT = "unit"
"""Dimension of the estimates after every building unit."""


class Results(NamedTuple):
    """What was made of a stack; see :class:`nrrn_fiji.api.DenoiseResult`."""

    image: Any
    noise: Any
    units: Any


def is_xarray(stack: Any) -> bool:
    """Whether it is an ``xarray.DataArray``."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(stack, xarray.DataArray)


def is_dask(stack: Any) -> bool:
    """Whether it is a ``dask.array.Array``."""
    arrays = sys.modules.get("dask.array")
    return arrays is not None and isinstance(stack, arrays.Array)


def relabelled(stack: Any, denoise: Callable[[Any], Results], *, scans: bool) -> Results:
    """Denoise what a labelled array holds, and label the results as it is.

    Parameters
    ----------
    stack
        An ``xarray.DataArray`` with the dimensions z, y and x, or y and x, in any order.
    denoise
        Takes an array (Z, Y, X) or (Y, X).
    scans
        Whether z counts scans of one slice, of which the result is made.

    Raises
    ------
    ValueError
        If it has other dimensions.
    """
    roles = {ROLE.get(str(dim).lower(), str(dim)): dim for dim in stack.dims}
    if len(roles) < len(stack.dims) or not {"y", "x"} <= set(roles) <= set(NAMES):
        named = ", ".join(str(dim) for dim in stack.dims)
        raise ValueError(
            f"stack has the dimensions ({named}), but z, y and x are needed (or pln, row and col), "
            "or y and x: rename them with stack.rename(), and choose one channel and time point "
            "with stack.isel()."
        )
    order = [roles[role] for role in NAMES if role in roles]
    upright = stack.transpose(*order)
    made = denoise(upright.data)
    like = upright.isel({roles["z"]: 0}, drop=True) if scans else upright
    dims = [dim for dim in stack.dims if dim in like.dims]
    image = like.copy(data=made.image).transpose(*dims)
    noise = units = None
    if made.noise is not None:
        noise = like.copy(data=made.noise).transpose(*dims)
    if made.units is not None:
        units = like.expand_dims({UNIT: np.arange(1, len(made.units) + 1)})
        units = units.copy(data=made.units).transpose(UNIT, *dims)
    return Results(image, noise, units)


class _LazySource:
    """A dask array as the source of the samples from which its grey values are measured.

    Parameters
    ----------
    array
        (Z, Y, X); only what is read is computed.
    """

    def __init__(self, array: Any):
        self.array = array
        self.shape: tuple[int, int, int] = array.shape
        self.dtype = array.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1``."""
        return np.asarray(self.array[start:stop].compute())


class _PartSource:
    """Slices ``first`` … of a stack, as a source of the whole shape."""

    def __init__(self, part: NDArray[Any], first: int, shape: tuple[int, int, int]):
        self.part, self.first, self.shape, self.dtype = part, first, shape, part.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices, counted in the whole stack."""
        return self.part[start - self.first : stop - self.first]


def denoise_lazily(
    stack: Any, model: Model, settings: DenoiseSettings, *, want_noise: bool, want_units: bool
) -> Results:
    """Return dask arrays that denoise a dask array, chunk by chunk along z, when computed.

    The settings are resolved now: unless the type has 8 bits or ``intensity`` is given, slices
    from all over the stack are computed to measure its grey values, which then hold for all chunks.

    Parameters
    ----------
    stack
        (Z, Y, X) or (Y, X).
    model
        The model; it travels to where chunks are computed.
    settings
        How to denoise; ``slab`` is at most a chunk.
    want_noise, want_units
        What is wanted beside the image.

    Returns
    -------
    Results
        The image has the chunks of the stack along z, and whole slices.

    Raises
    ------
    ValueError
        If the stack's size is not known.
    """
    import dask.array
    from dask.delayed import delayed

    if any(np.isnan(length) for length in stack.shape):
        raise ValueError(
            "stack is a dask array of unknown size: call its compute_chunk_sizes() first."
        )
    whole = stack if stack.ndim == 3 else stack[np.newaxis]
    whole = whole.rechunk({0: -1 if settings.scans else whole.chunks[0], 1: -1, 2: -1})
    span = grey_range(_LazySource(whole), asked=settings.intensity)
    plan = make_plan(
        whole.shape,
        whole.dtype,
        model.network,
        settings,
        (span.low, span.high),
        model_hash=model.hash,
        want_noise=want_noise,
        want_units=want_units,
    )
    kept = plan.units + (plan.units == model.units)
    shared = delayed(model, traverse=False)
    images, noises, estimates = [], [], []
    start = 0
    for depth in whole.chunks[0]:
        stop = start + depth
        first = max(0, start - 1)
        part = whole[first : min(len(whole), stop + 1)]
        made = delayed(_chunk, nout=3)(
            part, first, range(start, stop), shared, plan, want_noise, want_units
        )
        shape = (1 if plan.scans else depth, *whole.shape[1:])
        images.append(dask.array.from_delayed(made[0], shape, np.dtype(plan.dtype)))
        noises.append(dask.array.from_delayed(made[1], shape, np.float32))
        estimates.append(dask.array.from_delayed(made[2], (kept, *shape), np.float32))
        start = stop
    image = dask.array.concatenate(images).astype(stack.dtype)  # the byte order it came in
    noise = dask.array.concatenate(noises) if want_noise else None
    units = dask.array.concatenate(estimates, axis=1) if want_units else None
    if plan.scans or stack.ndim == 2:
        image = image[0]
        noise = None if noise is None else noise[0]
        units = None if units is None else units[:, 0]
    return Results(image, noise, units)


_turn = threading.Lock()
"""Dask computes chunks in several threads; torch uses them all for one, and its memory once."""


def _chunk(
    part: NDArray[Any],
    first: int,
    slices: range,
    model: Model,
    plan: Plan,
    want_noise: bool,
    want_units: bool,
) -> tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Denoise the slices of one chunk, of which ``part`` holds the neighbours too."""
    choose_device(plan.device)
    with _turn:
        blocks = list(
            denoise_slabs(
                _PartSource(np.asarray(part), first, plan.shape),
                model.network,
                plan,
                slices=None if plan.scans else slices,
                want_noise=want_noise,
                want_units=want_units,
            )
        )
    return (
        np.concatenate([block.image for block in blocks]),
        np.concatenate([block.noise for block in blocks if block.noise is not None])
        if want_noise
        else None,
        np.concatenate([block.units for block in blocks if block.units is not None], axis=1)
        if want_units
        else None,
    )
