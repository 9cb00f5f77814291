"""What is decided before a stack is denoised: device, precision, tiles, slabs and memory.

A plan holds everything that decides the pixels of a result.  It is resolved once from what the user
asked for, recorded in the result, and used again when a run is resumed.  This module must never
compute a user's image, and never let memory depend on the depth of the stack.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from .device import choose_device, choose_precision, free_memory, missing_for_int8
from .intensity import check_dtype
from .network import NRRN, receptive_radius
from .settings import DenoiseSettings, size_in_bytes
from .tiles import check_tile, tile_bytes, window_size, windows

__all__ = [
    "CPU_TILE",
    "FEWEST_INT8_MAPS",
    "FEWEST_SLICES",
    "MOST_CPU_MEMORY",
    "SMALLEST_TILE",
    "Plan",
    "make_plan",
]

MOST_CPU_MEMORY = 2 * 2**30
"""Bytes; more makes nothing faster on a CPU."""

CPU_TILE = 160
INT8_TILE = 512
"""Maps of bytes need less room, and the halo is a smaller part."""
GPU_TILE = 1024
GPU_WINDOW_PIXELS = 1 << 20
"""Pixels in a batch of windows that keep a GPU busy."""

FEWEST_INT8_MAPS = 16
INT8_SPEED = 4
"""As fast as fp32 (docs/decisions/speed.md), so slabs of that depth take the same time."""
MOST_RMS, MOST_ERROR = 0.3, 2.0
"""Grey levels of 255 by which int8 may differ from fp32; rounding to 8 bits alone has 0.29 rms."""
MADE_TO_REAL = 1.1
"""How many times larger the rms may be on real slices than on made images, on which it is measured
before a run: it was 1.03 and 1.05 times for the shipped models, 1.07 for a random one of 4 × 64
(docs/decisions/precision.md)."""

SMALLEST_TILE = 32
SLAB_PIXELS = 1 << 25
"""Pixels of a slab on a GPU."""
CPU_SLAB_WORK = 3 << 34
"""Pixels × units × maps² of a slab on a CPU: about a minute of two cores.  An interruption loses
one slab; the neighbours that two slabs share are computed twice, which costs a fifth of the time
with slabs of 4 slices and a tenth with 8."""
MOST_SLICES, FEWEST_SLICES = 32, 4
PLANNED = 0.45
"""Share of the memory that a user allows which slabs and tiles may take.  The rest is for what
file libraries decode and encode, and for what is freed and not given back to the system at once
(benchmarks/memory_depth.py measures what is really taken)."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the pixels of a result, resolved; JSON-able, kept for resuming."""

    shape: tuple[int, int, int]
    """(Z, Y, X) of the source."""
    dtype: str
    """Type of the source's pixels."""
    device: str
    precision: str
    tile: int
    """Edge of a tile without its halo, in pixels."""
    slab: int
    """Slices per slab."""
    halo: int
    """Real pixels around every tile."""
    batch: int
    """Windows that are computed together."""
    units: int
    """Building units that are computed."""
    images: int
    orientations: int
    strength: float
    scans: bool
    intensity: tuple[float, float]
    """Grey values that map to 0 and 1; equal for a constant volume, which is returned as it is."""
    memory: int
    """Estimated peak, in bytes, of slabs and tiles on the busiest device."""
    model_hash: str

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Rebuild a plan from :meth:`as_dict`.

        Raises
        ------
        ValueError
            If a field is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(set(values) ^ names))
            raise ValueError(
                f"The saved plan does not fit this version (fields: {odd}): start the run again."
            )
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


def make_plan(
    shape: tuple[int, int, int],
    dtype: Any,
    network: NRRN,
    settings: DenoiseSettings,
    intensity: tuple[float, float],
    *,
    memory: int | None = None,
    model_hash: str = "",
    want_noise: bool = False,
    want_units: bool = False,
) -> Plan:
    """Resolve settings for a volume and this machine.

    Parameters
    ----------
    shape, dtype
        (Z, Y, X) and type of the source; for ``scans`` Z is 2 or 3.
    network
        The model's network.
    settings
        What the user asked for.
    intensity
        Grey values that map to 0 and 1, from :func:`nrrn_fiji.intensity.grey_range`.
    memory
        Budget in bytes of slabs and tiles alone; when left out 45 % of ``settings.memory``, or
        without that a quarter of the free memory, at most 2 GiB (a GPU's tiles have 60 % of its
        free memory in addition).
    model_hash
        Kept in the plan, so that a resumed run uses the same weights.
    want_noise, want_units
        Which further results :func:`denoise_slabs` will be asked for.

    Raises
    ------
    ValueError
        If a setting does not suit the volume, the model or the machine, or if the memory that was
        given is too little for a single slice; the sentence says what is enough.
    TypeError
        If the type of the pixels cannot be denoised.
    """
    dtype = check_dtype(dtype)
    depth, height, width = (int(length) for length in shape)
    if min(depth, height, width) < 1:
        raise ValueError(
            f"The stack's shape (Z, Y, X) is {depth} × {height} × {width}, but every axis needs "
            "at least 1: check the file that was given."
        )
    if settings.scans:
        _check_scans(depth, settings.images)
    units = network.check_units(settings.units)
    final = units == network.units
    halo = receptive_radius(units, final=final)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device, dtype)
    if settings.precision is None and precision == "fp32" and dtype.itemsize == 1:
        precision = "int8" if int8_suits(network, device) else "fp32"
    allowed = None if settings.memory is None else size_in_bytes("memory", settings.memory)
    if memory is None and allowed is not None:
        memory = int(PLANNED * allowed)
    given = memory is not None
    if memory is None:
        memory = min(psutil.virtual_memory().available // 4, MOST_CPU_MEMORY)

    kept = (units + 1 if final else units) if want_units else 1
    # Slices that were read, with a filled copy and a mask; changes, and results twice, because the
    # caller holds a block until the next one is finished.
    per_read = height * width * (2 * dtype.itemsize + 1)
    per_result = dtype.itemsize + 4 * want_noise + 4 * kept * want_units
    per_slice = per_read + height * width * (4 * kept + 2 * per_result)
    fewest = depth if settings.scans else min(settings.slab or 1, depth)
    host_least = fewest * per_slice + 2 * per_read

    itemsize = 4 if precision == "fp32" else 2
    on_gpu = device.type != "cpu"
    tile_memory = int(0.6 * (free_memory(device) or memory)) if on_gpu else memory // 2

    def needed(tile: int, batch: int = 1) -> int:
        pixels = window_size(height, tile, halo) * window_size(width, tile, halo)
        return tile_bytes(batch * pixels, network.maps, itemsize)

    if settings.tile is not None:
        tile = least_tile = check_tile(settings.tile, halo)
    else:
        tile = GPU_TILE if on_gpu else INT8_TILE if precision == "int8" else CPU_TILE
        least_tile = max(SMALLEST_TILE, halo)
        if given and not on_gpu:  # what a slice needs must be left
            tile_memory = max(0, min(tile_memory, memory - host_least))
        while tile > least_tile and needed(tile) > tile_memory:
            tile //= 2
        tile = max(tile, least_tile)
    least = host_least if on_gpu else host_least + needed(least_tile)
    if given and least > memory:
        share = memory / allowed if allowed else 1.0
        raise ValueError(
            f"memory is {settings.memory or memory}, but slices of {height} × {width} pixels need "
            f"{-(-least // int(share * 10**6))}MB with this model and these settings: give at "
            "least that."
        )
    count = len(windows((height, width), tile, halo))
    pixels = window_size(height, tile, halo) * window_size(width, tile, halo)
    batch = min(count, GPU_WINDOW_PIXELS // pixels, tile_memory // needed(tile)) if on_gpu else 1
    batch = max(1, batch)

    slab_memory = memory if on_gpu else memory - needed(tile, batch)
    if not given:
        slab_memory = max(slab_memory, memory // 4)
    if settings.scans:
        slab = depth
    elif settings.slab is not None:
        slab = min(settings.slab, depth)
    else:
        work = units * network.maps**2
        pixels = SLAB_PIXELS if on_gpu else CPU_SLAB_WORK // work
        if precision == "int8":
            pixels *= INT8_SPEED
        slab = min(max(FEWEST_SLICES, pixels // (height * width)), MOST_SLICES)
        slab = max(1, min(slab, (slab_memory - 2 * per_read) // per_slice, depth))
    host = slab * per_slice + 2 * per_read
    return Plan(
        shape=(depth, height, width),
        dtype=dtype.name,
        device=str(device),
        precision=precision,
        tile=tile,
        slab=slab,
        halo=halo,
        batch=batch,
        units=units,
        images=settings.images,
        orientations=settings.orientations,
        strength=float(settings.strength),
        scans=settings.scans,
        intensity=(float(intensity[0]), float(intensity[1])),
        memory=max(host, needed(tile, batch)) if on_gpu else host + needed(tile, batch),
        model_hash=model_hash,
    )


def int8_suits(network: NRRN, device: torch.device) -> bool:
    """Whether int8 may be taken for 8-bit images where nobody chose a precision.

    It is where the machine can (:func:`nrrn_fiji.device.missing_for_int8`), it pays (not for tiny
    networks: preparing takes about a second), and this network's error on made images is so far
    within the condition of docs/decisions/precision.md that it holds on real ones, too.
    """
    if network.maps < FEWEST_INT8_MAPS or missing_for_int8(device) is not None:
        return False
    from .int8.engine import error_on_made_images  # only here: it imports Numba

    rms, worst = error_on_made_images(network)
    return MADE_TO_REAL * rms <= MOST_RMS and worst <= MOST_ERROR


def _check_scans(count: int, images: int) -> None:
    """Refuse what cannot be scans of one slice."""
    if count not in (2, 3):
        raise ValueError(
            f"scans needs 2 or 3 images of one slice, but the stack has {count}: choose three of "
            "them, or register and average groups of them first."
        )
    if images not in (3, count):
        raise ValueError(
            f"images is {images}, but with scans it is the number of scans, {count}: leave it out."
        )
