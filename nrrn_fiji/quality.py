"""Is a denoised stack good?  The numbers of the quality report, and what to think of each.

Everything comes from the noisy and the denoised stack alone.  Structure is told from noise by a
slice three slices away (:mod:`nrrn_fiji.residuals`), noise by flat patches
(:mod:`nrrn_fiji.noise_statistics`).  The limits between good and bad were set by measuring good
and bad results on real FIB-SEM (Drosophila medulla) without added noise, with Gaussian noise of
sigma 10 and 35 and with Poisson noise of peak 8:

========================  ==============  ==========  =============  =============
number                    shipped model   Gaussian 1  Gaussian 2 px  Gaussian 4 px
========================  ==============  ==========  =============  =============
noise left                0.08 … 0.57     0.26 … .56  0.12 … 0.38    0.05 … 0.20
16 px detail kept         0.95 … 1.02     0.92        0.72           0.28
removed alike (real)      0.04            0.16        0.41           0.60
tiles' variation          0.02 … 0.07     0.02 … .07  0.02 … 0.12    0.03 … 0.17
========================  ==============  ==========  =============  =============

This module must never hold more of a stack than a few slices, and never give a judgement for what
it could not measure: that is "unknown", with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intensity import Source, fill_invalid, invalid_mask
from .noise_statistics import (
    PATCH,
    NoiseCorrelation,
    NoiseFit,
    autocorrelation,
    fit_noise,
    flat_places,
    in_patches,
    noise_correlation,
    sampled_slices,
)
from .pages import Verdict
from .progress import Cancelled, NoProgress, Progress
from .residuals import APART, Detail, detail, local_correlation, shared
from .resolution import SMALLEST_EDGE, RingCorrelation, split_correlation

__all__ = ["PERIODS", "GreyShift", "PerSlice", "Quality", "assess", "verdicts"]

Array = NDArray[np.float64]

PAIRS = 8
"""Pairs of slices, three apart, that are compared on rings of spatial frequency."""

WINDOW = 1024
"""Edge in pixels of the part in the middle of a slice that spectra and patches are taken from."""

MOST_SLICES = 2000
"""Slices whose removed noise is measured; of deeper stacks as many, evenly spread."""

TILES = 8
"""Tiles along the longer side of a slice, over which the removed noise should be alike."""

FLAT = 0.03
"""Share of the patches of a slice that count as flat."""

GREY_BINS = 16
PERIODS = (32, 16, 8)
"""Sizes of detail in pixels (periods) that are spoken of."""

# Limits, each as (good, bad): between them "look".
NOISE_LEFT = (0.70, 0.97)
"""Half of what the model removed leaves 0.53 to 0.77."""
DETAIL_KEPT = (0.94, 0.80)
"""Of 16 px: models keep 0.95 and more, a median of 5 × 5 0.85 to 0.92, blur of 2 px 0.72."""
STRUCTURE_REMOVED = (0.12, 0.18)
"""Contrast of removed structure in that of all structure: models to 0.11, blur of 2 px from 0.18,
of 4 px from 0.3."""
REMOVED_LIKE_KEPT = 0.2
"""Where half of the noise was left the correlation is 0.13 to 0.75, with models at most 0.08."""
STRUCTURED_NOISE = 0.2
"""What was removed is more alike in neighbouring pixels by this where there is structure than
where it is flat: models to 0.13, blur of 2 px up to 0.23, of 4 px up to 0.32."""
SHIFT = (0.01, 0.05)
"""Share of the grey range.  A model that undoes clipping moves grey values by 0.005."""
SHIFT_BY_LEVEL = 0.03
UNEVEN = (0.15, 0.30)
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
        return [int(z) for z in self.index[(off > 6 * usual) & (off > BAD_SLICE * middle)]]


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
    """Contrast of removed structure over that of all structure that slices three apart share."""
    removed_like_kept: float
    """Median over tiles of the correlation of removed and denoised grey values."""
    neighbours: tuple[float, float]
    """Correlation of direct neighbours in what was removed: over all, and in flat patches."""
    split: RingCorrelation | None
    """Fourier ring correlation of single noisy slices; None if they are too small."""
    shift: GreyShift
    slices: PerSlice
    tiles: Array
    """Mean over slices of the standard deviation of what was removed, per tile."""
    voxel: tuple[float, str] | None = None
    """Edge of a pixel and its unit."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why something could not be measured."""

    @property
    def unevenness(self) -> float:
        """Standard deviation over mean of the tiles."""
        mean = float(np.nanmean(self.tiles))
        return float(np.nanstd(self.tiles)) / mean if mean > 0 else 0.0


class Both:
    """Both stacks, slice by slice, as float64, without pixels that hold no image."""

    def __init__(self, noisy: Source, denoised: Source):
        if tuple(noisy.shape) != tuple(denoised.shape):
            raise ValueError(
                f"The denoised stack is {tuple(denoised.shape)} (Z, Y, X), but the noisy one is "
                f"{tuple(noisy.shape)}: give a stack and its own denoised form."
            )
        self.noisy, self.denoised = noisy, denoised
        self.shape = tuple(noisy.shape)

    def read(self, z: int) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return a noisy slice, the denoised one, and where both are valid."""
        one, other = (s.read(z, z + 1)[0] for s in (self.noisy, self.denoised))
        valid = np.ones(one.shape, np.bool_)
        for image in (one, other):
            invalid = invalid_mask(image)
            if invalid is not None:
                valid &= ~invalid
        if not valid.any():
            return np.zeros(one.shape), np.zeros(one.shape), valid
        if not valid.all():
            one, other = fill_invalid(one, ~valid), fill_invalid(other, ~valid)
        return one.astype(np.float64), other.astype(np.float64), valid

    def middle(self, z: int) -> tuple[Array, Array]:
        """Return the middle of both slices."""
        one, other, _ = self.read(z)
        y, x = ((edge - min(edge, WINDOW)) // 2 for edge in one.shape)
        part = np.s_[y : y + WINDOW, x : x + WINDOW]
        return one[part], other[part]


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
        If the shapes differ.
    Cancelled
        If the user stopped.
    """
    both = Both(noisy, denoised)
    progress = progress or NoProgress()
    reasons: dict[str, str] = {}
    slices, tiles = pass_over(both, progress)
    changed = bool((slices.removed > 0).any() or (slices.change != 0).any())
    found = compared(both, reasons) if changed else {}
    try:
        correlation, fit = noise_correlation(noisy), fit_noise(noisy)
    except ValueError as error:
        correlation = fit = None
        reasons["noise"] = str(error)
    split = None
    depth = both.shape[0]
    if min(both.shape[1:]) >= 2 * SMALLEST_EDGE:
        chosen = [part.start for part in sampled_slices(depth, PAIRS)]
        stack = np.stack([both.middle(z)[0] for z in chosen])
        diagonal = correlation.diagonal if correlation is not None else 0.0
        split = split_correlation(stack, noise_correlation=diagonal)
    return Quality(
        shape=(depth, *both.shape[1:]),
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
        removed_like_kept=found.get("like_kept", 0.0),
        neighbours=found.get("neighbours", (0.0, 0.0)),
    )


def pass_over(both: Both, progress: Progress) -> tuple[PerSlice, Array]:
    """Look at every slice once: how much was removed, and where."""
    depth, height, width = both.shape
    index = np.unique(np.linspace(0, depth - 1, min(depth, MOST_SLICES)).round().astype(np.int64))
    edge = max(PATCH, -(-max(height, width) // TILES))
    rows, columns = max(1, height // edge), max(1, width // edge)
    tile = height // rows, width // columns
    removed, change = np.zeros(index.size), np.zeros(index.size)
    total = np.zeros((rows, columns))
    for number, z in enumerate(index):
        if progress.cancelled:
            raise Cancelled("Stopped; nothing was written.")
        one, other, valid = both.read(int(z))
        difference = one - other
        if valid.any():
            removed[number] = difference[valid].std()
            change[number] = -difference[valid].mean()
        cut = difference[: rows * tile[0], : columns * tile[1]]
        total += cut.reshape(rows, tile[0], columns, tile[1]).std(axis=(1, 3))
        progress.update(number + 1, index.size, f"slice {z}")
    return PerSlice(index, removed, change), total / index.size


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
    values = np.concatenate([both.middle(z)[1][::2, ::2].ravel() for z in few])
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
    near, far = [], []
    for part in sampled_slices(depth, PAIRS, together):
        near.append(both.middle(part.start))
        far.append(both.middle(part.stop - 1))
    noisy, clean = (np.stack([pair[i] for pair in near]) for i in (0, 1))
    removed = noisy - clean
    found: dict[str, Any] = {}
    tiles = [local_correlation(r, y) for r, y in zip(removed, clean, strict=True)]
    known = np.concatenate([t[np.isfinite(t)] for t in tiles])
    found["like_kept"] = float(np.median(known)) if known.size else 0.0
    flat_noisy, flat_clean = flat_patches(noisy, clean)
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
    if together == 1:
        reasons["detail"] = (
            f"The stack has {depth} slice{'s' if depth > 1 else ''}; telling detail from noise "
            f"needs slices {APART} apart."
        )
    elif min(noisy.shape[1:]) < SMALLEST_EDGE:
        reasons["detail"] = f"Slices are smaller than {SMALLEST_EDGE} × {SMALLEST_EDGE} pixels."
    else:
        noisy_far, clean_far = (np.stack([pair[i] for pair in far]) for i in (0, 1))
        found["detail"] = detail(noisy, noisy_far, clean, clean_far)
        found["levels"] = grey_levels(both, clean - noisy, clean_far)
        found["alike"] = shared(removed, noisy_far - clean_far)
        contrast = shared(noisy, noisy_far) * float(noisy.std() * noisy_far.std())
        lost = max(found["alike"], 0.0) * float(removed.std() * (noisy_far - clean_far).std())
        if contrast > 0:
            found["structure"] = float(np.sqrt(lost / contrast))
        else:
            reasons["detail"] = (
                f"Slices {APART} apart have nothing in common, so detail cannot be told from noise."
            )
    return found


def flat_patches(noisy: Array, clean: Array) -> tuple[Array, Array]:
    """Return the flat patches of both stacks (N, 16, 16), each without its mean."""
    parts: tuple[list[Array], list[Array]] = ([], [])
    for one, other in zip(noisy, clean, strict=True):
        if min(other.shape) < PATCH:
            continue
        places = flat_places(other, FLAT)
        for kept, image in zip(parts, (one, other), strict=True):
            patches = in_patches(image)[places]
            kept.append(patches - patches.mean(axis=(1, 2), keepdims=True))
    if not parts[0]:
        return np.empty((0, PATCH, PATCH)), np.empty((0, PATCH, PATCH))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


# --- judgements --------------------------------------------------------------------------------


def light(value: float, good: float, bad: float) -> str:
    """Return "good", "warn" or "bad" for a value whose better end is that of ``good``."""
    sign = 1 if good < bad else -1
    if sign * value <= sign * good:
        return "good"
    return "warn" if sign * value < sign * bad else "bad"


def percent(share: float) -> str:
    """Return a share as a text."""
    return f"{100 * share:.0f} %"


def verdicts(quality: Quality) -> dict[str, Verdict]:
    """Return a judgement in plain words for each number, by its key.

    Keys are "noise", "detail", "structure", "shift", "tiles" and "slices".
    """
    if not quality.changed:
        nothing = Verdict(
            "bad",
            "Noise removed",
            "none",
            "Nothing was removed: both stacks are the same, pixel by pixel. Was the right file "
            "given?",
        )
        return {"noise": nothing}
    return {
        "noise": noise_verdict(quality),
        "detail": detail_verdict(quality),
        "structure": structure_verdict(quality),
        "shift": shift_verdict(quality),
        "tiles": tiles_verdict(quality),
        "slices": slices_verdict(quality),
    }


def noise_verdict(quality: Quality) -> Verdict:
    """Judge how much noise is left where the specimen is flat."""
    title = "Noise removed"
    if quality.noise_left is None or quality.sigma is None:
        return Verdict("unknown", title, "not measured", quality.reasons.get("noise left", ""))
    value = (
        f"{percent(1 - quality.noise_left)}: {quality.sigma[0]:.3g} → {quality.sigma[1]:.3g} grey"
    )
    words = {
        "good": "Flat areas are clearly calmer than before. (A blur does that too: see detail.)",
        "warn": "Some noise was removed, but much of it is still there. Train longer, or on this "
        "stack; noise that is alike in neighbouring pixels is hard to remove.",
        "bad": "Nothing was removed, or next to nothing: flat areas are as noisy as before. Check "
        "that the model fits the noise, and the grey range that was used.",
    }
    judged = light(quality.noise_left, *NOISE_LEFT)
    return Verdict(judged, title, value, words[judged])


def detail_verdict(quality: Quality) -> Verdict:
    """Judge how much fine detail was kept."""
    title = "Detail kept"
    if quality.detail is None:
        return Verdict("unknown", title, "not measured", quality.reasons.get("detail", ""))
    known = {p: quality.detail.kept_at(p) for p in PERIODS}
    known = {p: kept for p, kept in known.items() if np.isfinite(kept)}
    if not known:
        return Verdict(
            "unknown",
            title,
            "not measured",
            f"Slices {APART} apart have too little in common at all sizes of detail: they are "
            "thick, not registered, or very noisy.",
        )
    period = 16 if 16 in known else max(known)
    value = ", ".join(f"{percent(min(kept, 1.0))} at {p} px" for p, kept in known.items())
    words = {
        "good": f"Detail of {period} px has its contrast still. Finer detail may be weaker where "
        "noise drowned it.",
        "warn": f"Detail of {period} px lost some of its contrast: the result is a little blurred.",
        "bad": f"Detail of {period} px lost much of its contrast: the result is blurred.",
    }
    judged = light(known[period], *DETAIL_KEPT)
    return Verdict(judged, title, value, words[judged])


def structure_verdict(quality: Quality) -> Verdict:
    """Judge whether there is structure in what was removed."""
    title = "Structure in what was removed"
    if quality.removed_structure is None:
        words = quality.reasons.get("detail", "")
        if quality.removed_like_kept > REMOVED_LIKE_KEPT:
            return Verdict(
                "warn",
                title,
                f"correlation {quality.removed_like_kept:.2f}",
                f"What was removed looks like what is left: contrast was lost, or noise is left. "
                f"More cannot be said. {words}",
            )
        return Verdict("unknown", title, "not measured", words)
    judged = light(quality.removed_structure, *STRUCTURE_REMOVED)
    value = f"{percent(quality.removed_structure)} of the structure's contrast"
    words = {
        "good": "What was removed is noise: slices that share no noise have nothing in common in "
        "it that counts.",
        "warn": "There is some structure in what was removed. Look at the picture of it: can you "
        "see outlines?",
        "bad": "There is structure in what was removed: slices that share no noise lost the same "
        "things. That is specimen (or stripes that run through many slices), not noise.",
    }[judged]
    if judged == "good" and quality.neighbours[0] - quality.neighbours[1] > STRUCTURED_NOISE:
        judged = "warn"
        words = (
            "Where there is structure, what was removed is smoother than in flat areas: look at "
            "the picture of it for outlines."
        )
    return Verdict(judged, title, value, words)


def shift_verdict(quality: Quality) -> Verdict:
    """Judge the change of grey values."""
    shift, title = quality.shift, "Grey values"
    span = shift.span or 1.0
    value = f"{shift.mean:+.2g} on average, {shift.worst:+.2g} at most"
    judged = light(abs(shift.mean) / span, *SHIFT)
    if judged == "good" and abs(shift.worst) / span > SHIFT_BY_LEVEL:
        return Verdict(
            "warn",
            title,
            value,
            "The mean stays, but some grey levels moved: compare brightness with care. Noise that "
            "was clipped at black or white has a mean of its own, and a model may undo that.",
        )
    words = {
        "good": "Brightness is what it was, at all grey levels.",
        "warn": "Brightness has moved. Do not compare grey values with those of other stacks "
        "before you know why: another grey range, or noise that was clipped.",
        "bad": "Brightness has moved much: the two stacks were scaled differently, or the model "
        "does not fit.",
    }
    return Verdict(judged, title, value, words[judged])


def tiles_verdict(quality: Quality) -> Verdict:
    """Judge whether noise was removed alike everywhere."""
    judged = light(quality.unevenness, *UNEVEN)
    words = {
        "good": "Noise was removed alike over the whole slice.",
        "warn": "More was removed in some places than in others. Is the noise itself uneven (bright "
        "and dark areas), or was structure removed there?",
        "bad": "Some places lost far more than others: look at the map.",
    }
    return Verdict(
        judged, "Evenness over the slice", f"± {percent(quality.unevenness)}", words[judged]
    )


def slices_verdict(quality: Quality) -> Verdict:
    """Judge whether slices stand out."""
    outliers = quality.slices.outliers
    title = "Evenness over z"
    if not outliers:
        return Verdict("good", title, f"{quality.slices.index.size} slices", "No slice stands out.")
    names = ", ".join(map(str, outliers[:8])) + (" …" if len(outliers) > 8 else "")
    return Verdict(
        "warn",
        title,
        f"{len(outliers)} of {quality.slices.index.size} slices",
        f"Much more or less was removed from slice {names} (counted from 0) than from most "
        "others: look whether these were bad to begin with.",
    )
