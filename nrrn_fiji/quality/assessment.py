"""Is a denoised stack good?  The numbers of the quality report; :mod:`.verdicts` judges.

Everything comes from the noisy and the denoised stack alone.  Structure is told from noise by a
slice three slices away (:mod:`.residuals`), noise by flat patches
(:mod:`nrrn_fiji.noise_statistics`).

This module must never hold more of a stack than a few slices and the middles of some more, and
never give a number for what it could not measure: there is a reason instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..intensity import Source
from ..noise_statistics import (
    NoiseCorrelation,
    NoiseFit,
    fit_noise,
    flat_places,
    in_patches,
    noise_correlation,
    sampled_slices,
)
from ..patch_noise import PATCH, autocorrelation
from ..progress import Cancelled, NoProgress, Progress
from ..resolution import SMALLEST_EDGE, RingCorrelation, split_correlation
from .artefacts import Lines, lines
from .matching import Match, match
from .residuals import APART, Detail, detail, local_correlation, shared, shared_power
from .stack_pairs import Both, Middle, middle_part

__all__ = ["GreyShift", "PerSlice", "Quality", "assess"]

Array = NDArray[np.float64]

PAIRS = 8
"""Pairs of slices, three apart, that are compared on rings of spatial frequency."""

MOST_SLICES = 2000
"""Slices whose removed noise is measured; of deeper stacks as many, evenly spread."""

TILES = 8
"""Tiles along the longer side of a slice, over which the removed noise should be alike."""

FLAT = 0.03
"""Share of the patches of a slice that count as flat."""

GREY_BINS = 16
BAD_SLICE = 0.10
"""A slice stands out if what was removed differs by this and by six robust standard deviations."""


@dataclass(frozen=True)
class GreyShift:
    """Change of grey values, denoised minus noisy."""

    mean: float
    """Overall, in grey values."""
    span: float
    """From the 0.1 to the 99.9 percentile of the denoised stack."""
    levels: Array
    """Grey values; empty for stacks of fewer than four slices."""
    by_level: Array
    """Mean change of pixels that have these values in the denoised slice three slices away.  (By
    the values of the slice itself it would have a slope whenever noise was removed or left: what
    noise made bright becomes darker.)"""

    @property
    def worst(self) -> float:
        """The largest change at any level, with its sign."""
        return float(self.by_level[np.argmax(np.abs(self.by_level))]) if self.levels.size else 0.0


@dataclass(frozen=True)
class PerSlice:
    """What was done to each slice."""

    index: NDArray[np.int64]
    """Which slices, from 0."""
    removed: Array
    """Standard deviation of what was removed, in grey values."""
    change: Array
    """Mean change of grey values."""

    @property
    def outliers(self) -> list[int]:
        """Slices in which much more or less was removed than in most others."""
        middle = float(np.median(self.removed))
        off = np.abs(self.removed - middle)
        usual = 1.4826 * float(np.median(off))
        limits = np.full(off.shape, max(6 * usual, BAD_SLICE * middle))
        # The first and the last slice have one neighbour, so a little less noise goes.
        limits[[0, -1]] *= 3
        return [int(z) for z in self.index[off > limits]]


@dataclass(frozen=True)
class Quality:
    """Everything that was measured on a noisy and a denoised stack."""

    shape: tuple[int, int, int]
    changed: bool
    """Whether any pixel that was looked at differs."""
    noise_left: float | None
    """Standard deviation in flat patches, denoised over noisy; None if there are none."""
    sigma: tuple[float, float] | None
    """The standard deviations themselves."""
    correlation: NoiseCorrelation | None
    fit: NoiseFit | None
    """Both of the noisy stack."""
    detail: Detail | None
    """None for stacks of fewer than four slices."""
    removed_alike: float | None
    """Correlation of what was removed from slices three apart."""
    removed_structure: float | None
    """Contrast of removed structure over that of all structure that slices three apart share, as
    much of it as is certain (two standard errors less than what was found).  A change of grey
    values that depends on grey value alone is no removed structure: :attr:`shift` has it."""
    removed_like_kept: float
    """Median over tiles of the correlation of removed and denoised grey values."""
    match: Match | None
    """Whether both stacks show the same; None if they are equal or too small."""
    neighbours: tuple[float, float]
    """Correlation of direct neighbours in what was removed: over all, and in flat patches."""
    lines: Lines | None
    """Stripes and seams; None if the slices are too small, or padded."""
    split: RingCorrelation | None
    """Fourier ring correlation of single noisy slices; None if they are too small."""
    shift: GreyShift
    slices: PerSlice
    tiles: Array
    """Mean over slices of the standard deviation of what was removed, per tile; NaN where there is
    no image."""
    voxel: tuple[float, str] | None = None
    """Edge of a pixel and its unit."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why something could not be measured."""

    @property
    def unevenness(self) -> float:
        """Standard deviation over mean of the tiles."""
        mean = float(np.nanmean(self.tiles))
        return float(np.nanstd(self.tiles)) / mean if mean > 0 else 0.0


def assess(
    noisy: Source,
    denoised: Source,
    *,
    voxel: tuple[float, str] | None = None,
    progress: Progress | None = None,
) -> Quality:
    """Measure a noisy stack and its denoised form.

    Parameters
    ----------
    noisy, denoised
        Stacks of one shape in the same grey values.
    voxel
        Edge of a pixel in a slice and its unit, if they are known.
    progress
        Told of every slice, and asked whether to stop.

    Raises
    ------
    ValueError
        If the shapes differ, or no pixel is valid in both stacks.
    Cancelled
        If the user stopped.
    """
    both = Both(noisy, denoised)
    progress = progress or NoProgress()
    reasons: dict[str, str] = {}
    slices, tiles = pass_over(both, progress)
    changed = bool((slices.removed > 0).any() or (slices.change != 0).any())
    found = compared(both, reasons) if changed else {}
    correlation: NoiseCorrelation | None = None
    fit: NoiseFit | None = None
    try:
        correlation, fit = noise_correlation(noisy), fit_noise(noisy)
    except ValueError as error:
        reasons["noise"] = str(error)
    split = None
    depth = both.shape[0]
    if min(both.shape[1:]) >= 2 * SMALLEST_EDGE:
        chosen = [part.start for part in sampled_slices(depth, PAIRS)]
        stack = np.stack([both.middle(z).noisy for z in chosen])
        diagonal = correlation.diagonal if correlation is not None else 0.0
        split = split_correlation(stack, noise_correlation=diagonal)
    return Quality(
        shape=both.shape,
        changed=changed,
        correlation=correlation,
        fit=fit,
        split=split,
        shift=GreyShift(float(slices.change.mean()), *found.get("levels", grey_levels(both))),
        slices=slices,
        tiles=tiles,
        voxel=voxel,
        reasons=reasons,
        noise_left=found.get("noise_left"),
        sigma=found.get("sigma"),
        detail=found.get("detail"),
        removed_alike=found.get("alike"),
        removed_structure=found.get("structure"),
        match=found.get("match"),
        lines=found.get("lines"),
        removed_like_kept=found.get("like_kept", 0.0),
        neighbours=found.get("neighbours", (0.0, 0.0)),
    )


def pass_over(both: Both, progress: Progress) -> tuple[PerSlice, Array]:
    """Look at every slice once: how much was removed, and where."""
    depth, height, width = both.shape
    index = np.unique(np.linspace(0, depth - 1, min(depth, MOST_SLICES)).round().astype(np.int64))
    edge = max(PATCH, -(-max(height, width) // TILES))
    rows, columns = (
        np.linspace(0, length, max(1, length // edge) + 1).round().astype(np.int64)
        for length in (height, width)
    )
    areas = np.outer(np.diff(rows), np.diff(columns))
    kept: list[int] = []
    removed: list[float] = []
    change: list[float] = []
    total = np.zeros(areas.shape)
    counted = np.zeros(areas.shape)
    for number, z in enumerate(index):
        if progress.cancelled:
            raise Cancelled("Stopped; nothing was written.")
        count, sums, squares = tile_sums(*both.read(int(z)), rows, columns)
        if count.any():
            kept.append(int(z))
            removed.append(float(deviation(count.sum(), sums.sum(), squares.sum())))
            change.append(-float(sums.sum() / count.sum()))
            # Of a tile that is mostly padding nothing is known.
            known = 2 * count >= areas
            total[known] += deviation(count[known], sums[known], squares[known])
            counted += known
        progress.update(number + 1, index.size, f"slice {z}")
    if not kept:
        raise ValueError(
            "There is no pixel that holds an image in both stacks: all are NaN, infinite or empty "
            "padding. Check that the right files, and the right channel, were given."
        )
    tiles = np.divide(total, counted, out=np.full(total.shape, np.nan), where=counted > 0)
    return PerSlice(np.array(kept), np.array(removed), np.array(change)), tiles


def tile_sums(
    noisy: NDArray[Any],
    denoised: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[Array, Array, Array]:
    """Return number, sum and sum of squares of what was removed per tile, in valid pixels.

    Only a band of tiles is float64 at a time, so large slices need little more than themselves.

    Parameters
    ----------
    noisy, denoised, valid
        (Y, X); ``valid`` None for everywhere.
    rows, columns
        Where tiles begin, and where the last one ends.
    """
    found = np.zeros((3, rows.size - 1, columns.size - 1))
    for number, (top, bottom) in enumerate(pairwise(rows)):
        with np.errstate(invalid="ignore"):  # infinite in both: such pixels are not valid
            band = noisy[top:bottom].astype(np.float64) - denoised[top:bottom]
        inside = np.ones(band.shape) if valid is None else valid[top:bottom].astype(np.float64)
        band = np.where(inside > 0, band, 0.0)
        for values, sums in zip((inside, band, band**2), found, strict=True):
            sums[number] = np.add.reduceat(values.sum(axis=0), columns[:-1])
    return found[0], found[1], found[2]


def deviation(count: Any, sums: Any, squares: Any) -> Any:
    """Return the standard deviation from number, sum and sum of squares."""
    return np.sqrt(np.maximum(squares / count - (sums / count) ** 2, 0))


def grey_levels(
    both: Both, change: Array | None = None, level: Array | None = None
) -> tuple[float, Array, Array]:
    """Return the grey range, grey levels and the mean change at each.

    Parameters
    ----------
    both
        The stacks.
    change
        Denoised minus noisy, any shape.
    level
        Of the same shape: which class of grey values a pixel belongs to, told by a value that has
        none of its noise.
    """
    few = [part.start for part in sampled_slices(both.shape[0], PAIRS)]
    values = np.concatenate([both.middle(z).denoised[::2, ::2].ravel() for z in few])
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    if change is None or level is None or low == high:
        return high - low, np.empty(0), np.empty(0)
    edges = np.linspace(low, high, GREY_BINS + 1)
    place = np.digitize(level.ravel(), edges) - 1
    inside = (place >= 0) & (place < GREY_BINS)
    counts = np.bincount(place[inside], minlength=GREY_BINS)
    sums = np.bincount(place[inside], change.ravel()[inside], GREY_BINS)
    enough = counts >= 0.01 * counts.sum()
    middles = (edges[:-1] + edges[1:]) / 2
    return high - low, middles[enough], sums[enough] / counts[enough]


def compared(both: Both, reasons: dict[str, str]) -> dict[str, Any]:
    """Compare slices with those three slices away, and flat patches before and after."""
    depth = both.shape[0]
    together = APART + 1 if depth > APART else 1
    parts = sampled_slices(depth, PAIRS, together)
    near = [both.middle(part.start) for part in parts]
    noisy, clean = np.stack([m.noisy for m in near]), np.stack([m.denoised for m in near])
    removed = noisy - clean
    found: dict[str, Any] = {}
    tiles = [local_correlation(r, y) for r, y in zip(removed, clean, strict=True)]
    known = np.concatenate([t[np.isfinite(t)] for t in tiles])
    found["like_kept"] = float(np.median(known)) if known.size else 0.0
    flat_noisy, flat_clean = flat_patches(near)
    everywhere = removed - removed.mean(axis=(1, 2), keepdims=True)
    flat_removed = flat_noisy - flat_clean
    found["neighbours"] = (
        autocorrelation(everywhere, 2, 1),
        autocorrelation(flat_removed, 2, 1) if flat_removed.size else 0.0,
    )
    if flat_noisy.size and flat_noisy.std() > 0:
        found["sigma"] = float(flat_noisy.std()), float(flat_clean.std())
        found["noise_left"] = found["sigma"][1] / found["sigma"][0]
    else:
        reasons["noise left"] = "There are no flat patches of 16 × 16 pixels."
    if min(noisy.shape[1:]) < 2 * SMALLEST_EDGE:
        reasons["lines"] = (
            f"Slices are smaller than {2 * SMALLEST_EDGE} × {2 * SMALLEST_EDGE} pixels."
        )
    else:
        rows, columns = middle_part(both.shape[1:])
        found["lines"] = lines(unpadded(both), origin=(rows.start, columns.start))
        if found["lines"] is None:
            reasons["lines"] = "All slices are padded: cut the padding away."
    expected = ratio = None
    if together == 1:
        reasons["detail"] = (
            f"The stack has {depth} slice{'s' if depth > 1 else ''}; telling detail from noise "
            f"needs slices {APART} apart."
        )
    elif min(noisy.shape[1:]) < SMALLEST_EDGE:
        reasons["detail"] = f"Slices are smaller than {SMALLEST_EDGE} × {SMALLEST_EDGE} pixels."
    else:
        far = [both.middle(part.stop - 1) for part in parts]
        noisy_far = np.stack([m.noisy for m in far])
        clean_far = np.stack([m.denoised for m in far])
        found["detail"] = detail(noisy, noisy_far, clean, clean_far)
        found["levels"] = grey_levels(both, clean - noisy, clean_far)
        found["alike"] = shared(removed, noisy_far - clean_far)
        contrast = shared_power(noisy, noisy_far)[0]
        if contrast > 0:
            levels = found["levels"]
            lost, error = shared_power(
                removed + with_brightness(clean, levels),
                noisy_far - clean_far + with_brightness(clean_far, levels),
            )
            # Removed noise has something in common by chance: so much counts for certain.
            found["structure"] = float(np.sqrt(max(lost - 2 * error, 0.0) / contrast))
            expected = float(np.sqrt(max(shared(noisy, noisy_far), 0.0)))
            left = max(shared_power(clean, clean_far)[0], 0.0)
            ratio = float(np.sqrt(left / contrast))
        else:
            reasons["detail"] = (
                f"Slices {APART} apart have nothing in common, so detail cannot be told from noise."
            )
    if min(noisy.shape[1:]) >= SMALLEST_EDGE:
        found["match"] = match(beside(both), expected=expected, contrast=ratio)
    return found


def beside(both: Both) -> Iterator[tuple[dict[int, Array], Array]]:
    """Return denoised slices, each with its noisy one and those before and after that."""
    depth = both.shape[0]
    # Not the first and the last one, where there are others.
    first, count = (1, depth - 2) if depth > 2 else (0, depth)
    for part in sampled_slices(count, 2 * PAIRS):
        z = first + part.start
        around = {step: both.middle(z + step) for step in (-1, 0, 1) if 0 <= z + step < depth}
        yield {step: middle.noisy for step, middle in around.items()}, around[0].denoised


def unpadded(both: Both) -> Iterator[tuple[Array, Array]]:
    """Return noisy and denoised slices, those without padding alone: its edge is no seam."""
    for part in sampled_slices(both.shape[0], 2 * PAIRS):
        noisy, denoised, valid = both.middle(part.start)
        if valid is None:
            yield noisy, denoised


def with_brightness(clean: Array, levels: tuple[float, Array, Array]) -> Array:
    """Return the change of grey values that belongs to the grey value of each pixel."""
    _, middles, changes = levels
    if middles.size < 2:
        return np.zeros(clean.shape)
    return np.interp(clean, middles, changes)


def flat_patches(middles: Sequence[Middle]) -> tuple[Array, Array]:
    """Return the flat patches of both stacks (N, 16, 16), each without its mean.

    Padding, and patches in which much of the noise is clipped, are no flat places.
    """
    parts: tuple[list[Array], list[Array]] = ([], [])
    for noisy, denoised, valid in middles:
        if min(noisy.shape) < PATCH:
            continue
        cells = in_patches(noisy)
        usable: NDArray[np.bool_] = np.ones(cells.shape[:2], np.bool_)
        if valid is not None:
            usable = np.asarray(in_patches(valid).all(axis=(2, 3)))
        ends = ((cells == noisy.min()) | (cells == noisy.max())).mean(axis=(2, 3))
        if usable.any():
            usable &= ends <= max(0.05, float(np.median(ends[usable])))
        usable &= cells.std(axis=(2, 3)) > 0
        places = flat_places(denoised, FLAT, usable)
        for kept, image in zip(parts, (noisy, denoised), strict=True):
            patches = in_patches(image)[places]
            kept.append(patches - patches.mean(axis=(1, 2), keepdims=True))
    if not parts[0]:
        return np.empty((0, PATCH, PATCH)), np.empty((0, PATCH, PATCH))
    return np.concatenate(parts[0]), np.concatenate(parts[1])
