"""Where the scans of a whole stack lie: each slice on its own, or one transform for all.

Finding places takes much longer than averaging, so they are handed out while they are found, to be
kept for a run that goes on later.  This module must never write anything itself, and never give a
slice that shows something the place of another one without saying so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intensity import invalid_mask
from ..progress import Progress
from ..registration import Placement, median_placement, place_scans
from ..scans.files import Scans
from ..settings import RegisterSettings

__all__ = ["PLACING", "find_places", "placement_as_dict", "placement_from_dict"]

SAMPLED = 8
"""Slices from which the one transform of a whole stack is found."""

PLACING = 0.8
"""Share of the progress that finding the places takes."""

KEPT_EVERY = 30.0
"""Seconds after which places are handed out to be kept."""

DIFFER, DIFFER_SHARE = 1.0, 0.75
"""Pixels by which this share of the slices may lie away from the one transform of all."""


def find_places(
    scans: Scans,
    settings: RegisterSettings,
    progress: Progress,
    found: dict[int, Placement],
    keep: Callable[[Mapping[int, Placement]], None],
) -> list[Placement]:
    """Find where the scans lie.

    Parameters
    ----------
    scans
        They are read slice by slice.
    settings
        How.
    progress
        Told how far it is, and asked whether to stop.
    found
        What a former run found, by slice; what this one finds is added.
    keep
        Is handed ``found`` every half a minute, and whenever this function ends otherwise than by
        an unfit slice.

    Returns
    -------
    list of Placement
        One per slice, or one for all.  Where a slice shows nothing in all scans but one, it has
        the place of the next slice that shows something.

    Raises
    ------
    ValueError
        If the scans of a slice (or, with one transform for all, of most slices) do not fit.
    Cancelled
        When the user stops.
    """
    numbers = list(range(scans.depth))
    if not settings.per_slice and scans.depth > 1:
        chosen = np.linspace(0, scans.depth - 1, min(scans.depth, SAMPLED))
        numbers = np.unique(chosen.round().astype(int)).tolist()
    unfit: dict[int, ValueError] = {}
    kept = time.monotonic()
    try:
        for done, z in enumerate(numbers):
            if z in found:
                continue
            images = scans.read(z)
            if scans.depth > 1 and sum(map(shows_something, images)) < 2:
                continue
            share = Share(progress, done, len(numbers), scans.count * scans.depth)
            try:
                found[z] = place_scans(images, settings.transform, progress=share)
            except ValueError as error:
                unfit[z] = error
                if settings.per_slice or scans.depth == 1:
                    break
            if time.monotonic() - kept > KEPT_EVERY:
                keep(found)
                kept = time.monotonic()
    finally:
        if not unfit:
            keep(found)
    if unfit and (settings.per_slice or scans.depth == 1 or 2 * len(unfit) > len(numbers)):
        z, reason = next(iter(unfit.items()))
        raise ValueError(f"Slice {z}: {reason}" if scans.depth > 1 else str(reason)) from reason
    if not found:
        raise ValueError(
            "No slice that was looked at shows anything in two scans: check that these are the "
            "images you mean."
        )
    if settings.per_slice or scans.depth == 1:
        return [found[min(found, key=lambda at: (abs(at - z), at))] for z in numbers]
    for z, reason in unfit.items():
        progress.message(f"Slice {z} says nothing about where the scans lie: {reason}")
    placements = [found[z] for z in numbers if z in found]
    one = median_placement(placements, scans.shape, rigid=settings.transform != "affine")
    away = usual_distance(placements, one)
    if away > DIFFER:
        progress.message(
            f"The scans lie differently from slice to slice, by {away:.1f} px, but get one "
            "transform for all slices: let each slice have its own with --per-slice "
            "(per_slice=True), because otherwise the average is blurred."
        )
    return [one]


def usual_distance(placements: Sequence[Placement], one: Placement) -> float:
    """Return how far slices lie from the one transform of all, in pixels.

    It is what three quarters of the slices stay below, for the scan that differs most.
    """
    largest = 0.0
    for i in one.kept:
        away = [
            float(np.hypot(*(p.shifts[i] - one.shifts[i])))
            for p in placements
            if p.reference == one.reference and i not in p.rejected
        ]
        if away:
            largest = max(largest, float(np.quantile(away, DIFFER_SHARE)))
    return largest


def shows_something(image: NDArray[Any]) -> bool:
    """Return whether a slice (Y, X) has more than one grey value where it is valid."""
    invalid = invalid_mask(image)
    values = image if invalid is None else image[~invalid]
    return bool(values.size) and bool(values.min() < values.max())


class Share:
    """Progress of one slice as a share of finding all places."""

    def __init__(self, whole: Progress, done: int, slices: int, total: int):
        self.whole, self.done, self.slices, self.total = whole, done, slices, total

    @property
    def cancelled(self) -> bool:
        return self.whole.cancelled

    def update(self, done: float, total: float, text: str = "") -> None:
        share = (self.done + done / total) / self.slices
        self.whole.update(PLACING * self.total * share, self.total, "finding places")

    def message(self, text: str) -> None:
        self.whole.message(text)


def placement_as_dict(placement: Placement) -> dict[str, Any]:
    """Return a placement in JSON's types."""
    return {
        "transforms": placement.transforms.tolist(),
        "shifts": placement.shifts.tolist(),
        "correlation": placement.correlation.tolist(),
        "rejected": {str(i): reason for i, reason in placement.rejected.items()},
        "reference": placement.reference,
    }


def placement_from_dict(values: dict[str, Any]) -> Placement:
    """Return what :func:`placement_as_dict` was given."""
    return Placement(
        np.array(values["transforms"]),
        np.array(values["shifts"]),
        np.array(values["correlation"]),
        {int(i): reason for i, reason in values["rejected"].items()},
        int(values["reference"]),
    )
