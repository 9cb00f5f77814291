"""What a denoising run does on any machine that takes part: plan channels, write finished blocks.

This module must never decide which blocks are denoised, nor record that one is finished: that is
:mod:`.denoise_run`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from ..denoising import Block, Plan, make_plan
from ..device import choose_device, missing_for_int8
from ..intensity import grey_range
from ..models import Model
from ..outputs.partial import PartialOutput
from ..plan import FEWEST_SLICES
from ..settings import DenoiseSettings
from ..volumes import StackSource, Volume, VolumeWriter

__all__ = ["USED", "channel_plans", "saved_plans", "write_block"]

USED = ("device", "precision", "tile", "batch")
"""What of a plan changes where memory runs out."""

PARTS, SHORTEST = 4, 8
"""A run is cut into so many slabs or more, of which an interruption loses one, unless they would
be shorter than so many slices: the neighbours that two slabs share are computed twice."""


def channel_plans(
    volume: Volume,
    model: Model,
    settings: DenoiseSettings,
    written: range,
    kinds: Collection[str],
    workers: int = 0,
) -> tuple[Plan, ...]:
    """Measure the grey values of every channel and resolve the settings for this machine.

    Parameters
    ----------
    volume, model, settings
        What is denoised, with what, and how.
    written
        The slices that the output holds.
    kinds
        Kinds of the outputs: "image", "noise", "units".
    workers
        How many will share the work; 0 if this process does it alone.

    Returns
    -------
    tuple of Plan
        One per channel; they differ in their grey values alone.
    """
    plans: list[Plan] = []
    for channel in range(volume.shape.c):
        times = [StackSource(volume, channel, time) for time in range(volume.shape.t)]
        measured = grey_range(*times, asked=settings.intensity)
        span = (measured.low, measured.high)
        if plans:  # the rest must not depend on how much memory is free by now
            plans.append(dataclasses.replace(plans[0], intensity=span))
            continue
        plan = _plan(volume, model, settings, span, kinds)
        if not plan.scans and (most := _most_slices(settings, len(written), workers)) < plan.slab:
            settings = dataclasses.replace(settings, slab=most)
            plan = _plan(volume, model, settings, span, kinds)
        plans.append(plan)
    return tuple(plans)


def _most_slices(settings: DenoiseSettings, written: int, workers: int) -> int:
    """Return how many slices a slab should have at most."""
    if settings.slab is not None:
        return written
    parts, shortest = max(PARTS, 2 * workers), FEWEST_SLICES if workers else SHORTEST
    return min(written, max(shortest, -(-written // parts)))


def _plan(
    volume: Volume,
    model: Model,
    settings: DenoiseSettings,
    span: tuple[float, float],
    kinds: Collection[str],
) -> Plan:
    """Resolve the settings for a channel with these grey values."""
    return make_plan(
        volume.shape[2:],
        volume.dtype,
        model.network,
        settings,
        span,
        model_hash=model.hash,
        want_noise="noise" in kinds,
        want_units="units" in kinds,
    )


def write_block(
    writers: Mapping[str, VolumeWriter], block: Block, start: int, channel: int, time: int
) -> None:
    """Write a block into all outputs and see it to the disk.

    Parameters
    ----------
    writers
        By the kind of output.
    block
        With all that the outputs need.
    start
        Where it begins in the outputs.
    channel, time
        What it is of.
    """
    writers["image"].write(start, block.image, channel=channel, time=time)
    if block.noise is not None:
        writers["noise"].write(start, block.noise, channel=channel, time=time)
    if block.units is not None:
        count = len(block.units)
        for number, estimate in enumerate(block.units):
            writers["units"].write(start, estimate, channel=channel * count + number, time=time)
    for writer in writers.values():
        writer.flush()


def saved_plans(part: PartialOutput, *, here: bool = True) -> tuple[Plan, ...]:
    """Return the plans of an interrupted run, if they can be computed (``here``)."""
    plans = tuple(Plan.from_dict(values) for values in part.plan["channels"])
    try:
        if here:
            choose_device(plans[0].device)
    except ValueError as error:
        raise ValueError(
            f"{part.folder} holds a run on the device {plans[0].device!r}, which this machine does "
            "not have: go on there, or begin again with --restart (restart=True)."
        ) from error
    if here and plans[0].precision == "int8":
        missing = missing_for_int8(choose_device(plans[0].device))
        if missing is not None:
            raise ValueError(
                f"{part.folder} holds a run in the precision int8, which needs {missing}: go on "
                "where there is that, or begin again with --restart (restart=True)."
            )
    return plans
