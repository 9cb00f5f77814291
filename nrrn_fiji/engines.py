"""Which form of the network computes: the one for a plan's device and precision.

This module must never choose a precision; the plan says which.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from .device import TORCH_DTYPES
from .fused import FusedNRRN
from .network import NRRN
from .plan import Plan
from .tiles import slabs, window_size, windows

__all__ = ["estimate_seconds", "make_engine"]


def make_engine(
    network: NRRN,
    *,
    device: torch.device,
    precision: str,
    units: int | None = None,
    every: bool = False,
    orientation: int = 0,
) -> FusedNRRN:
    """Return the fast form of a network; see :class:`nrrn_fiji.fused.FusedNRRN`.

    Raises
    ------
    ValueError
        If ``units`` is not in 1 … L, or this machine cannot compute in ``precision``.
    FloatingPointError
        If weights are not finite and that would go unseen.
    """
    if precision == "int8":
        # Only here: Numba takes half a second to import.
        from .int8.engine import QuantisedNRRN

        return QuantisedNRRN(network, units=units, every=every, orientation=orientation)
    return FusedNRRN(
        network,
        device=device,
        dtype=TORCH_DTYPES[precision],
        units=units,
        every=every,
        orientation=orientation,
    )


def estimate_seconds(network: NRRN, plan: Plan, slices: int | None = None) -> float:
    """Estimate how long a plan takes on this machine, by timing one batch of tiles.

    Parameters
    ----------
    network
        The network that the plan was made for.
    plan
        From :func:`make_plan`.
    slices
        Slices to denoise; all of the volume when left out.

    Returns
    -------
    float
        Seconds of computing, without reading and writing.
    """
    depth, height, width = plan.shape
    if plan.intensity[0] == plan.intensity[1]:
        return 0.0
    count = depth if slices is None else slices
    size = [window_size(length, plan.tile, plan.halo) for length in (height, width)]
    engine = make_engine(
        network, device=torch.device(plan.device), precision=plan.precision, units=plan.units
    )
    noise = np.random.default_rng(0).random((plan.batch, 1, *size), np.float32)
    image = engine.load(torch.from_numpy(noise))
    centres_beside = 2 if plan.images == 3 and not plan.scans and depth > 1 else 1

    def one_slice() -> float:
        start = time.perf_counter()
        centre = engine.centre(image)
        engine.branches(image, [centre] * centres_beside)[-1].cpu()
        return time.perf_counter() - start

    one_slice()  # the first run also prepares kernels
    seconds = min(one_slice() for _ in range(2))
    tiles = len(windows((height, width), plan.tile, plan.halo))
    if plan.scans:
        return 2 * seconds * tiles / plan.batch * plan.orientations
    # The slices beside a slab are its neighbours too.
    again = sum(len(slab) + (plan.images == 3) for slab in slabs(range(count), plan.slab))
    return seconds * again * tiles / plan.batch * plan.orientations
