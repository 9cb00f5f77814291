"""The methods that every experiment compares: input, filters at their best, and models.

This module must never tune, or choose anything, on the slices that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..baselines.clipping import undo_clipping
from ..baselines.filters import (
    BM3D,
    FILTERS,
    FILTERS_3D,
    Filter,
    Setting,
    bm3d_is_installed,
    tune,
)
from ..intensity import ArraySource
from ..models import Model
from ..scoring import Candidate, CleanSlices, Image, Level, Steps
from ..settings import DenoiseSettings
from .levels import central

__all__ = [
    "filter_candidates",
    "inputs_of",
    "model_candidate",
    "model_candidates",
    "study_filters",
    "tuned_filters",
    "unit_estimates",
    "untreated",
]

TUNING_CROP = 160
"""Edge in pixels of the central crops that filters are tuned on."""


def centre(triplet: Image) -> Image:
    """Return the middle one of three slices."""
    return triplet[1]


def mean_of_three(triplet: Image) -> Image:
    """Return the mean of three slices."""
    return triplet.mean(axis=0)


def whole_triplet(triplet: Image) -> Image:
    """Return all three slices."""
    return triplet


INPUTS: dict[int, tuple[Callable[[Image], Image], str]] = {
    1: (centre, "single slice"),
    3: (mean_of_three, "mean of three"),
}
"""What a filter of one image may be given, by the number of images in it."""

INPUTS_3D: dict[int, tuple[Callable[[Image], Image], str]] = {3: (whole_triplet, "")}
"""What a filter in three dimensions is given."""


def study_filters(*, slow: bool = True, thin: int = 1) -> tuple[Filter, ...]:
    """Return the filters of the study.

    Parameters
    ----------
    slow
        Whether BM3D, which takes seconds per slice, is among them where it is installed.
    thin
        Try every which setting of their grids.
    """

    def thinned(kind: Filter) -> Filter:
        def some(noise: float) -> list[Setting]:
            grid = kind.grid(noise)
            return grid[min(thin, len(grid)) // 2 :: thin]

        return replace(kind, grid=some)

    filters = (*FILTERS, *((BM3D,) if slow and bm3d_is_installed() else ()), *FILTERS_3D)
    return tuple(filters if thin == 1 else map(thinned, filters))


def inputs_of(kind: Filter) -> dict[int, tuple[Callable[[Image], Image], str]]:
    """Return what a filter may be given."""
    return INPUTS_3D if kind.name in {known.name for known in FILTERS_3D} else INPUTS


def untreated() -> list[Candidate]:
    """Return the noisy slice itself and the mean of three."""
    return [
        Candidate("input", "Input", 1, centre),
        Candidate("mean", "Mean of three slices", 3, mean_of_three),
    ]


class Remembered:
    """A filter with its setting that remembers its last result: the same slices are asked for
    twice, without and with grey correction."""

    def __init__(self, kind: Filter, images: int, setting: Setting):
        self.kind, self.setting = kind, setting
        self.select = inputs_of(kind)[images][0]
        self.last: tuple[Image, Image] | None = None

    def __call__(self, triplet: Image) -> Image:
        """Return the filtered slice."""
        if self.last is None or self.last[0] is not triplet:
            self.last = triplet, self.kind(self.select(triplet), self.setting)
        return self.last[1]


def filter_candidates(
    kind: Filter, images: int, plain: Setting, after: Setting, level: Level
) -> list[Candidate]:
    """Return a filter as two candidates: as it is, and grey-corrected, each with its setting."""
    name = inputs_of(kind)[images][1]
    label = f"{kind.label}, {name}" if name else kind.label
    first = Remembered(kind, images, plain)
    second = first if after == plain else Remembered(kind, images, after)

    def corrected(triplet: Image) -> Image:
        return undo_clipping(second(triplet), **level.noise)

    return [
        Candidate(kind.name, label, images, first, False, plain),
        Candidate(kind.name, f"{label}, grey-corrected", images, corrected, True, after),
    ]


def tuned_filters(
    tuning: CleanSlices,
    level: Level,
    steps: Steps | None = None,
    filters: Sequence[Filter] | None = None,
) -> list[Candidate]:
    """Return every filter on everything that it may be given, tuned for a noise level.

    Parameters
    ----------
    tuning
        The volume and the slices to tune on; their central crops are used.
    level
        The noise level.
    steps
        Told of every filter.
    filters
        Those of :func:`study_filters` when left out.
    """
    clean = [central(tuning.clean(index), TUNING_CROP) for index in tuning.indices]
    triplets = [central(tuning.triplet(index, level), TUNING_CROP) for index in tuning.indices]

    def correct(image: Image) -> Image:
        return undo_clipping(image, **level.noise)

    candidates = []
    for kind in study_filters() if filters is None else filters:
        for images, (select, name) in inputs_of(kind).items():
            noisy = [select(triplet) for triplet in triplets]
            plain, after = tune(kind, clean, noisy, (np.asarray, correct))
            candidates += filter_candidates(kind, images, plain.setting, after.setting, level)
            if steps:
                steps.next(f"{level.label}: tuned {kind.label}{', ' * bool(name)}{name}")
    return candidates


def model_candidates(
    model: Model, images: Sequence[int] = (3,), device: str | None = None
) -> list[Candidate]:
    """Return a model as a candidate, once for every number of images; see
    :func:`model_candidate`."""
    return [model_candidate(model, images=count, device=device) for count in images]


def model_candidate(
    model: Model,
    *,
    images: int = 3,
    units: int | None = None,
    orientations: int = 1,
    label: str | None = None,
    device: str | None = None,
) -> Candidate:
    """Return a model as a candidate.

    It denoises through the engine that users use, in fp32 whatever the device.

    Parameters
    ----------
    model
        The model.
    images
        1, 2 or 3 images per slice.
    units
        Stop after this many units; all when left out.
    orientations
        How many rotations and flips of the slices to average over: 1, 2, 4 or 8.
    label
        Name in tables; says how many images when left out.
    device
        Where to compute; the best there is when left out.
    """

    def denoise(triplet: Image) -> Image:
        return unit_estimates(
            model, triplet, images=images, units=units, orientations=orientations, device=device
        )[-1]

    if label is None:
        label = f"NRRN, {images} image" + ("s" if images > 1 else "")
        if orientations > 1:
            label += f", {orientations} orientations"
    return Candidate("nrrn", label, images, denoise)


def unit_estimates(
    model: Model,
    triplet: Image,
    *,
    images: int = 3,
    units: int | None = None,
    orientations: int = 1,
    device: str | None = None,
) -> Image:
    """Return what the engine makes of the middle slice after every unit.

    Parameters
    ----------
    model
        The model.
    triplet
        Slices (3, Y, X), grey values on [0, 1].
    images, units, orientations, device
        As in :func:`model_candidate`.

    Returns
    -------
    ndarray of float32
        (L + 1, Y, X): x̂[1] … x̂[L] and the final estimate; (k, Y, X) for k units of more.
    """
    # torch, which filters alone do not need.
    from ..denoising import denoise_slabs, make_plan

    settings = DenoiseSettings(
        images=images, units=units, orientations=orientations, device=device, precision="fp32"
    )
    source = ArraySource(triplet)
    plan = make_plan(source.shape, source.dtype, model.network, settings, (0, 1), want_units=True)
    [block] = denoise_slabs(source, model.network, plan, slices=range(1, 2), want_units=True)
    assert block.units is not None
    return block.units[:, 0]
