"""The package's functions for people who write Python: arrays in, arrays out.

Files, folders and whatever does not fit into memory go through
:mod:`nrrn_fiji.jobs.denoise`, whose functions are offered here too.  This module must never know
of a command line, of Fiji, or of anything else that calls it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .array_kinds import Results, denoise_lazily, is_dask, is_xarray, relabelled
from .denoising import Block, Plan, denoise_slabs, make_plan
from .fitness import warn_if_unlike
from .intensity import check_dtype, grey_range
from .jobs.denoise import DenoiseReport, PlanReport, denoise_file, plan_file
from .models import DEFAULT_MODEL, Model, load_model
from .progress import Progress
from .settings import DenoiseSettings
from .volumes import StackSource, Volume, check_grey, check_unmasked, open_volume

__all__ = [
    "DenoiseReport",
    "DenoiseResult",
    "PlanReport",
    "denoise",
    "denoise_blocks",
    "denoise_file",
    "plan_file",
]


class DenoiseResult(NamedTuple):
    """What :func:`denoise` returns when more than the image is asked for."""

    image: NDArray[Any]
    """The denoised stack; shape and type of the input."""
    noise: NDArray[np.float32] | None
    """input − output, shape of the image; None if it was not asked for."""
    units: NDArray[np.float32] | None
    """(L + 1, Z, Y, X), or (L + 1, Y, X) for a single slice: x̂[1] … x̂[L] and the final estimate
    in grey values; (k, …) when k units of more are computed.  None if not asked for."""


def denoise(
    stack: ArrayLike,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    units: int | None = None,
    images: int = 3,
    orientations: int = 1,
    strength: float = 1.0,
    scans: bool = False,
    intensity: tuple[float, float] | None = None,
    tile: int | None = None,
    slab: int | None = None,
    memory: str | int | None = None,
    device: str | None = None,
    precision: str | None = None,
    return_noise: bool = False,
    return_units: bool = False,
    progress: Progress | None = None,
) -> NDArray[Any] | DenoiseResult:
    """Denoise a registered stack in memory.

    Parameters
    ----------
    stack
        (Z, Y, X), or a single slice (Y, X); (u)int8, (u)int16, float32 or float64.  An
        ``xarray.DataArray`` has the dimensions z, y and x in any order and comes back with its
        dimensions, coordinates and attributes.  A dask array comes back as one that denoises its
        chunks along z when they are computed; what ``intensity`` leaves open is measured at once,
        on slices from all over the stack, and holds for all chunks.
    model
        Name of a shipped or installed model, a ``.safetensors`` file, or a loaded model.
    units
        Stop after this many building units; all when left out.
    images
        3: both neighbours; 2: one neighbour, half the work; 1: the slice alone.
    orientations
        Average over 1, 2, 4 or 8 rotations and flips of the slices, which takes as many times as
        long and gains most where noise is very strong.
    strength
        Share of the change that is applied, 0 … 1: below 1 the result is blended with the stack.
    scans
        The stack holds 2 or 3 scans of one slice, (2 or 3, Y, X); the result is (Y, X).
    intensity
        Grey values (low, high) that map to 0 and 1.  When left out: the type's range for 8 bits,
        else the 0.1 and 99.9 percentiles of the stack.
    tile, slab
        Edge of the tiles in pixels, and slices that are computed at a time; the result does not
        depend on them.
    memory
        What slabs and tiles may take of the main memory, such as "2GB", or bytes; a quarter of
        what is free, at most 2 GiB, when left out.
    device, precision
        "cpu", "cuda", …; "fp32", "bf16", "fp16".  The best for the machine when left out.
    return_noise, return_units
        Also return what was taken away, and the image after every building unit.
    progress
        Is told of every slice, and asked whether to stop; not of what dask computes later.

    Returns
    -------
    ndarray or DenoiseResult
        The denoised stack, with shape, type and kind of the input; with ``return_noise`` or
        ``return_units`` a named tuple of image, noise and units.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        If the stack, the model or a setting cannot be used; the message says why.
    Cancelled
        When the user stops.
    """
    settings = DenoiseSettings(
        units=units,
        images=images,
        orientations=orientations,
        strength=strength,
        scans=scans,
        intensity=intensity,
        tile=tile,
        slab=slab,
        memory=None if memory is None else str(memory),
        device=device,
        precision=precision,
    )

    def denoised(array: Any) -> Results:
        checked = _check_stack(array, scans=scans)
        loaded = load_model(model)
        if is_dask(checked):
            return denoise_lazily(
                checked, loaded, settings, want_noise=return_noise, want_units=return_units
            )
        return _denoise_array(checked, loaded, settings, return_noise, return_units, progress)

    made = relabelled(stack, denoised, scans=scans) if is_xarray(stack) else denoised(stack)
    if return_noise or return_units:
        return DenoiseResult(*made)
    image: NDArray[Any] = made.image
    return image


def _denoise_array(
    array: NDArray[Any],
    loaded: Model,
    settings: DenoiseSettings,
    return_noise: bool,
    return_units: bool,
    progress: Progress | None,
) -> Results:
    """Denoise an array in memory."""
    scans = settings.scans
    with open_volume(array) as volume:
        plan = _plan(volume, loaded, settings, 0, return_noise, return_units)
        if progress is not None:
            source = StackSource(volume)
            warn_if_unlike(loaded.name, loaded.card, volume, source, plan.intensity, progress)
        depth, height, width = plan.shape
        depth = 1 if scans else depth
        image = np.empty((depth, height, width), check_dtype(array.dtype))
        noise = np.empty(image.shape, np.float32) if return_noise else None
        estimates: NDArray[np.float32] | None = None
        for block in denoise_slabs(
            StackSource(volume, 0, 0),
            loaded.network,
            plan,
            want_noise=return_noise,
            want_units=return_units,
            progress=progress,
        ):
            part = slice(block.start, block.stop)
            image[part] = block.image
            if noise is not None and block.noise is not None:
                noise[part] = block.noise
            if block.units is not None:
                if estimates is None:
                    estimates = np.empty((len(block.units), *image.shape), np.float32)
                estimates[:, part] = block.units
    image = image.astype(array.dtype, copy=False)  # the byte order it came in
    if scans or array.ndim == 2:
        image = image[0]
        noise = None if noise is None else noise[0]
        estimates = None if estimates is None else estimates[:, 0]
    return Results(image, noise, estimates)


def denoise_blocks(
    volume: Volume | str | Path | NDArray[Any],
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    channel: int | None = None,
    time: int | None = None,
    units: int | None = None,
    images: int = 3,
    orientations: int = 1,
    strength: float = 1.0,
    scans: bool = False,
    intensity: tuple[float, float] | None = None,
    tile: int | None = None,
    slab: int | None = None,
    memory: str | int | None = None,
    device: str | None = None,
    precision: str | None = None,
    return_noise: bool = False,
    return_units: bool = False,
    progress: Progress | None = None,
) -> Iterator[Block]:
    """Denoise a volume that need not fit into memory, block by block.

    Parameters
    ----------
    volume
        An opened volume, a file, folder or pattern (see :func:`nrrn_fiji.open_volume`), or an
        array.
    channel, time
        Which channel and time point to denoise; must be given if there are several.

    The other parameters are those of :func:`denoise`.

    Returns
    -------
    iterator of Block
        (start, stop, image, noise, units) in order of z: ``image`` is (stop - start, Y, X) of the
        volume's type, ``noise`` the same in float32, ``units`` (L + 1, stop - start, Y, X).

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        At once, if the volume, the model or a setting cannot be used.
    Cancelled
        From the iterator, when the user stops.
    """
    settings = DenoiseSettings(
        units=units,
        images=images,
        orientations=orientations,
        strength=strength,
        scans=scans,
        intensity=intensity,
        tile=tile,
        slab=slab,
        memory=None if memory is None else str(memory),
        device=device,
        precision=precision,
    )
    loaded = load_model(model)
    with ExitStack() as files:
        if isinstance(volume, np.ndarray):
            volume = _check_stack(volume, scans=scans)
        if not isinstance(volume, Volume):
            volume = files.enter_context(open_volume(volume))
        c = _chosen("channel", channel, volume.shape.c, volume.name)
        t = _chosen("time", time, volume.shape.t, volume.name)
        plan = _plan(volume, loaded, settings, c, return_noise, return_units)
        if progress is not None:
            source = StackSource(volume, c, t)
            warn_if_unlike(loaded.name, loaded.card, volume, source, plan.intensity, progress)
        blocks = denoise_slabs(
            StackSource(volume, c, t),
            loaded.network,
            plan,
            want_noise=return_noise,
            want_units=return_units,
            progress=progress,
        )
        # From here on the file is closed with the iterator.
        return _Blocks(blocks, files.pop_all())


class _Blocks(Iterator[Block]):
    """Blocks and the file that they are made of, which is closed even if none is asked for."""

    def __init__(self, blocks: Iterator[Block], files: ExitStack):
        self._blocks, self._files = blocks, files

    def __next__(self) -> Block:
        try:
            return next(self._blocks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End early, and close the file."""
        self._files.close()

    def __del__(self) -> None:
        self.close()


def _plan(
    volume: Volume,
    model: Model,
    settings: DenoiseSettings,
    channel: int,
    return_noise: bool,
    return_units: bool,
) -> Plan:
    """Measure the grey values of a channel at all time points, and resolve the settings."""
    sources = [StackSource(volume, channel, time) for time in range(volume.shape.t)]
    span = grey_range(*sources, asked=settings.intensity)
    return make_plan(
        sources[0].shape,
        volume.dtype,
        model.network,
        settings,
        (span.low, span.high),
        model_hash=model.hash,
        want_noise=return_noise,
        want_units=return_units,
    )


def _check_stack(stack: ArrayLike, *, scans: bool) -> Any:
    """Return the stack as an array if it can be one of grey-value slices."""
    if isinstance(stack, (str, os.PathLike)):
        raise TypeError(
            f"stack is {os.fspath(stack)!r}, but it must be an array: for files use denoise_file, "
            "or denoise_blocks."
        )
    check_unmasked(stack, "stack")
    array: Any = stack if is_dask(stack) else np.asarray(stack)
    check_dtype(array.dtype)
    if array.ndim not in (2, 3):
        hint = "denoise every channel and time point on its own" if array.ndim > 3 else "add axes"
        raise ValueError(
            f"stack has {array.ndim} axes {array.shape}, but it must be (Z, Y, X) or (Y, X): "
            f"{hint}."
        )
    if scans and array.ndim == 2:
        raise ValueError(
            f"stack is a single image {array.shape}, but scans needs 2 or 3 images of one slice, "
            "(2 or 3, Y, X): stack them first."
        )
    if not array.size:
        raise ValueError(
            f"stack is empty, {array.shape}: every axis needs at least 1, so check how it was made."
        )
    check_grey(array, "stack")
    return array


def _chosen(name: str, number: int | None, count: int, what: str) -> int:
    """Return the number of a channel or time point, which may be left out if there is one."""
    if number is None and count == 1:
        return 0
    if number is None or not 0 <= number < count:
        raise ValueError(
            f"{name} is {number}, but {what} has {count} of them: choose 0 … {count - 1}, one at "
            "a time, or use denoise_file for all."
        )
    return number
