"""Says in a line what was chosen for a run, and why; and when a quicker model would pay.

This module must never choose anything: what it tells of was decided by the settings and the plan.
"""

from __future__ import annotations

import numpy as np

from .denoising import estimate_seconds, make_plan
from .device import INSTALL_NUMBA, choose_device, describe, wants_numba
from .models import DEFAULT_MODEL, Model, known_models, load_model
from .plan import CPU_SLAB_WORK, FEWEST_INT8_MAPS, Plan
from .reports import readable_time
from .settings import DenoiseSettings

__all__ = ["FASTER_MODEL", "chosen", "faster_model"]

FASTER_MODEL = f"{DEFAULT_MODEL}-fast"
LONG_WORK = 10 * CPU_SLAB_WORK
"""Pixels × units × maps² that take a CPU of two cores about 20 minutes."""


def chosen(model: Model, plan: Plan, settings: DenoiseSettings, where: str = "") -> str:
    """Return a sentence with model, device, precision and tiles, and the reasons.

    Parameters
    ----------
    model
        The model.
    plan
        How it will be used.
    settings
        What was asked for; the rest was chosen.
    where
        The device in words, if it is not one of this machine.
    """
    name = f"{model.name} (the default)" if model.name == DEFAULT_MODEL else model.name
    device = where or describe(choose_device(plan.device))
    if not where and settings.device is None:
        why = "no GPU was found" if plan.device == "cpu" else "the best device found"
        device = f"{device[:-1]}; {why})" if device.endswith(")") else f"{device} ({why})"
    precision = plan.precision
    if settings.precision is None:
        precision += f" ({why_precision(model, plan, where)})"
    slabs = f"slabs of {plan.slab} slices" if plan.slab > 1 else "slice by slice"
    return f"Using {name} on {device} in {precision}, tiles of {plan.tile} px, {slabs}."


def why_precision(model: Model, plan: Plan, where: str) -> str:
    """Return why a precision was chosen, and how to make 8-bit images quicker here."""
    if plan.precision != "fp32":
        return "fast here, and fine enough for 8-bit grey values"
    would_pay = np.dtype(plan.dtype).itemsize == 1 and model.maps >= FEWEST_INT8_MAPS
    if not where and would_pay and wants_numba(choose_device(plan.device)):
        return f"exact; {INSTALL_NUMBA} makes 8-bit images two to three times as fast here"
    return "exact"


def faster_model(model: Model, plan: Plan, settings: DenoiseSettings, slices: int) -> str:
    """Return a sentence that names a quicker model where the default would take long on a CPU.

    Parameters
    ----------
    model, plan, settings
        As for :func:`chosen`.
    slices
        Slices to denoise, of all channels and time points.

    Returns
    -------
    str
        Empty where it would make no difference that matters.
    """
    _, height, width = plan.shape
    work = slices * height * width * plan.orientations * plan.units * model.maps**2
    if model.name != DEFAULT_MODEL or plan.device != "cpu" or work < LONG_WORK:
        return ""
    found = {entry.name for entry in known_models() if not entry.problem}
    if FASTER_MODEL not in found or settings.units is not None:
        return ""
    faster = load_model(FASTER_MODEL)
    other = make_plan(plan.shape, plan.dtype, faster.network, settings, plan.intensity)
    depth = plan.shape[0]
    now, then = (
        estimate_seconds(network, each) * slices / depth
        for network, each in ((model.network, plan), (faster.network, other))
    )
    if then >= 0.8 * now:
        return ""
    return (
        f"This will take about {readable_time(now)} on the CPU; the model {FASTER_MODEL}, a little "
        f"weaker, would take about {readable_time(then)}."
    )
