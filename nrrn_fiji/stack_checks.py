"""Look over a stack before hours are spent on it: drift, gaps, copies, flicker, empty borders.

What is found is told in sentences that say what to do; nothing is repaired here.  Thresholds are
such that noise alone is no finding: the shipped tests hold them against real FIB-SEM with noise as
strong as one photon per pixel.  This module must never read a whole stack into memory, and never
call certain what is not: inverted contrast is a hint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .intensity import Source, invalid_mask
from .progress import NoProgress, Progress
from .reports import Table, readable_number
from .shifts import Neighbours, compare_neighbours, middle

__all__ = ["Finding", "check", "findings_table", "quick_check", "warn"]

Array = NDArray[Any]

WINDOW = 384
"""Edge in pixels of the part in the middle of a slice that a full check compares."""

QUICK_WINDOW, QUICK_RUN, QUICK_RUNS, SLICES_PER_RUN = 256, 4, 5, 16
"""A quick check compares smaller parts, in runs of 4 slices: one run per so many slices, 5 at
most, which takes about 0.2 s."""

DRIFT, DRIFT_SHARE, JUMP = 1.5, 0.2, 4.0
"""Pixels by which neighbours that are registered do not differ, and the share of the pairs from
which more is drift; a single shift of the last is one, too."""

STEADY, ENOUGH = 1.0, 5
"""Pixels from slice to slice, in the median over at least so many pairs, that are drift even if no
single shift is large.  Oblique structures move, too: by up to 0.7 px in the real data."""

SCANS = 1.25
"""Pixels by which scans of one slice, which hold the same structures, may be shifted; by noise
alone they seem shifted by up to 0.6 px at Gaussian sigma 75."""

CERTAIN = 0.6
"""Correlation of neighbours, freed of most noise, below which shifts are allowed to be larger: at
one photon per pixel it is 0.3, and the shifts of registered slices scatter up to 3.9 px."""

GAP = 2.5
"""How many times as much as usual neighbours differ where slices are missing.  One missing slice
gives about 3 where structures change smoothly; the real data without gaps reach 1.8."""

NEIGHBOURHOOD = 4
"""Pairs on either side that say what is usual at a place."""

COPY = 0.05
"""Neighbours that differ by less than this share of the usual difference are the same picture."""

FLICKER = 0.1
"""Change of mean brightness against the slices around, in standard deviations of the grey values
within a slice, from which it flickers; the real data reach 0.02."""

EMPTY_SHARE = 0.005
"""Smallest share of invalid pixels in a slice that is worth a sentence."""

RIDGES, INVERTED = 2.0, -0.08
"""Scale in pixels of the lines that tell dark on bright, and the balance from where down a hint is
given.  Real FIB-SEM has 0.11 to 0.31 without added noise; strong noise draws it to 0."""

HINT_SLICES = 5
"""Slices that are looked at for inverted contrast."""

LISTED = 8
"""Most slices that a sentence lists."""


@dataclass(frozen=True)
class Finding:
    """Something that a user should know about a stack."""

    kind: str
    """"drift", "duplicate", "missing", "flicker", "border", "empty" or "inverted"."""
    slices: tuple[int, ...]
    """Which slices, from 0; of pairs the first of both."""
    number: float
    """How strong: pixels (drift), times the usual difference (missing), number of slices
    (duplicate, empty), standard deviations within a slice (flicker), share of the slice (border),
    balance of lines, -1 … 1 (inverted)."""
    sentence: str
    """What was found and what to do."""

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {**asdict(self), "slices": list(self.slices)}


def check(source: Source, *, progress: Progress | None = None) -> list[Finding]:
    """Look over a whole stack, slice by slice.

    Parameters
    ----------
    source
        One channel and time point; see :class:`nrrn_fiji.volumes.StackSource`.
    progress
        Told of each slice, and asked whether to stop.

    Returns
    -------
    list of Finding
        What was found, the gravest first; empty if nothing was.

    Raises
    ------
    Cancelled
        When the user stops.
    """
    progress = NoProgress() if progress is None else progress
    depth = source.shape[0]
    looks = Looks()
    pairs = compare_neighbours(source, [range(depth)], WINDOW, progress, looks.look)
    return [
        *drift_findings(pairs),
        *missing_findings(pairs),
        *copy_findings(pairs, looks.hashes.values()),
        *looks.empty(depth),
        *looks.flicker(),
        *looks.borders(),
        *inverted_findings(source),
    ]


def warn(source: Source, progress: Progress, *, scans: bool = False, name: str = "") -> None:
    """Tell the user in a line each what a quick check found; never stops anything.

    Parameters
    ----------
    source
        The stack that is about to be denoised or learnt from.
    progress
        Is told.
    scans
        The slices are repeated scans of one slice.
    name
        Of the stack, where there are several.
    """
    before = f"{name}: " if name else ""
    for finding in quick_check(source, scans=scans):
        progress.message(before + finding.sentence)


def quick_check(source: Source, *, scans: bool = False) -> list[Finding]:
    """Look for drift, copies and gaps in a few places, before a long run.

    At most 5 runs of 4 slices, spread over the stack, one per 16 slices: a small share of the time
    that denoising them takes.  It finds what goes through the whole stack, and a single gap or
    copy only where it happens to look.

    Parameters
    ----------
    source
        As for :func:`check`.
    scans
        The slices are repeated scans of one slice.

    Returns
    -------
    list of Finding
        Of the kinds "drift", "missing" (not among scans) and "duplicate".
    """
    depth = source.shape[0]
    count = min(QUICK_RUNS, max(1, depth // SLICES_PER_RUN))
    length = min(QUICK_RUN, depth)
    starts = np.unique(np.linspace(0, depth - length, count).round().astype(int))
    runs = [range(int(start), int(start) + length) for start in starts]
    pairs = compare_neighbours(source, runs, QUICK_WINDOW, NoProgress())
    if scans:
        return [*scan_findings(pairs), *copy_findings(pairs)]
    return [*drift_findings(pairs), *missing_findings(pairs), *copy_findings(pairs)]


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return findings as a table of texts."""
    rows = [(f.kind, listed(f.slices), f"{f.number:.3g}", f.sentence) for f in findings]
    return Table(("finding", "slices", "number", "what to do"), tuple(rows))


# What single slices show --------------------------------------------------------------------------


class Looks:
    """What is remembered of each slice: a few numbers."""

    def __init__(self) -> None:
        self.means: dict[int, float] = {}
        self.spreads: dict[int, float] = {}
        self.invalid: dict[int, float] = {}
        self.pixels = 1
        self.constant: list[int] = []
        self.hashes: dict[bytes, list[int]] = {}

    def look(self, z: int, image: Array, invalid: NDArray[np.bool_] | None) -> None:
        """Take the numbers of one slice."""
        if invalid is not None and invalid.all():
            self.constant.append(z)
            return
        values = image if invalid is None else image[~invalid]
        if values.min() == values.max():
            self.constant.append(z)
            return
        self.pixels = values.size
        self.means[z] = float(values.mean(dtype=np.float64))
        self.spreads[z] = float(values.std(dtype=np.float64))
        if invalid is not None:
            self.invalid[z] = float(invalid.mean())
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        self.hashes.setdefault(digest, []).append(z)

    def empty(self, depth: int) -> list[Finding]:
        """Report slices without a picture."""
        if not self.constant:
            return []
        slices = tuple(self.constant)
        return [
            Finding(
                "empty",
                slices,
                len(slices),
                f"{len(slices)} of {depth} slices {'holds' if len(slices) == 1 else 'hold'} no "
                f"picture ({listed(slices)}), one grey value or none: remove what is empty, so "
                "that its neighbours are not denoised with it.",
            )
        ]

    def flicker(self) -> list[Finding]:
        """Report slices whose brightness leaves that of the slices around."""
        numbers = sorted(self.means)
        if len(numbers) < 4:
            return []
        means = np.array([self.means[z] for z in numbers])
        spread = typical(list(self.spreads.values()))
        away = np.zeros(len(means))
        for i in range(len(means)):
            around = np.r_[means[max(0, i - 3) : i], means[i + 1 : i + 4]]
            away[i] = abs(means[i] - np.median(around)) / spread
        # In a very small picture the mean of noise alone varies by more.
        limit = max(FLICKER, 6 / self.pixels**0.5)
        slices = tuple(numbers[i] for i in np.flatnonzero(away > limit))
        if not slices:
            return []
        worst = float(away.max())
        place = f"slice {slices[0]}" if len(slices) == 1 else f"slices {listed(slices)}"
        return [
            Finding(
                "flicker",
                slices,
                worst,
                "Brightness changes from slice to slice, by up to "
                f"{readable_number(worst * spread)} grey values ({place}): normalise the slices "
                "(in Fiji: Image > Adjust > Bleach Correction, or CLIJ's intensity correction) "
                "before denoising.",
            )
        ]

    def borders(self) -> list[Finding]:
        """Report slices of which a part holds no picture."""
        slices = tuple(z for z in sorted(self.invalid) if self.invalid[z] >= EMPTY_SHARE)
        if not slices:
            return []
        worst = max(self.invalid.values())
        return [
            Finding(
                "border",
                slices,
                worst,
                f"{many(slices)} in part without a picture (borders or pixels, black or NaN, up to "
                f"{100 * worst:.0f} % of a slice; {listed(slices)}): such pixels are left as they "
                "are; crop them away if they are in the way.",
            )
        ]


# Judging ------------------------------------------------------------------------------------------


def drift_findings(pairs: Sequence[Neighbours]) -> list[Finding]:
    """Report a stack whose slices are not registered."""
    sure, factor = sure_pairs(pairs)
    moved = [p for p in sure if p.shift.length > DRIFT * factor]
    jumped = [p for p in sure if p.shift.length > JUMP * factor]
    often = len(moved) >= 2 and len(moved) >= DRIFT_SHARE * len(sure)
    if jumped or often:
        slices = tuple(p.first for p in moved)
        worst = max(p.shift.length for p in moved)
        what = (
            f"Neighbouring slices are shifted against each other by up to {worst:.1f} px (after "
            f"{'slice' if len(slices) == 1 else 'slices'} {listed(slices)}), so the stack does not "
            "look registered"
        )
    else:
        steps = np.array([(p.shift.dy, p.shift.dx) for p in sure]).reshape(-1, 2)
        if len(steps) < ENOUGH:
            return []
        dy, dx = np.median(steps, axis=0)
        worst = float(np.hypot(dy, dx))
        if worst <= STEADY * factor:
            return []
        slices = tuple(p.first for p in sure)
        what = (
            f"From slice to slice the picture moves by {worst:.1f} px in one direction (x "
            f"{dx:+.1f}, y {dy:+.1f}), so the stack does not look registered, unless its "
            "structures run obliquely"
        )
    return [
        Finding(
            "drift",
            slices,
            worst,
            f"{what}: align it first (in Fiji: Plugins > Registration > Linear Stack Alignment "
            "with SIFT), because neighbours that do not lie on each other blur the result.",
        )
    ]


def scan_findings(pairs: Sequence[Neighbours]) -> list[Finding]:
    """Report scans of one slice that do not lie on each other."""
    sure, factor = sure_pairs(pairs)
    moved = [p for p in sure if p.shift.length > SCANS * factor]
    if not moved:
        return []
    worst = max(p.shift.length for p in moved)
    return [
        Finding(
            "drift",
            tuple(p.first for p in moved),
            worst,
            f"The scans are shifted against each other by up to {worst:.1f} px: align them first "
            "(nrrn register SCANS -o AVERAGE --keep ALIGNED; in Fiji: Plugins > NRRN > Align and "
            "Average Scans), because scans that do not lie on each other blur the result.",
        )
    ]


def sure_pairs(pairs: Sequence[Neighbours]) -> tuple[list[Neighbours], float]:
    """Return the pairs whose shift means something, and how many times larger a shift may be.

    Where noise leaves little in common a shift is as uncertain; what is usual then is allowed.
    """
    sure = [p for p in pairs if p.shift.correlation >= p.reliable and not p.same]
    if not sure:
        return [], 1.0
    common = typical([p.shift.correlation for p in sure])
    return sure, max(1.0, (CERTAIN / common) ** 2)


def copy_findings(
    pairs: Sequence[Neighbours], alike: Iterable[Sequence[int]] = ()
) -> list[Finding]:
    """Report slices that are there twice: as neighbours, or among ``alike``, which are the same
    picture wherever they lie."""
    usual = typical([pair.difference for pair in pairs if not pair.same])
    same = {
        pair.first + 1
        for pair in pairs
        if pair.same or (len(pairs) > 2 and pair.difference < COPY * usual)
    }
    for places in alike:
        same |= set(places[1:])
    if not same:
        return []
    slices = tuple(sorted(same))
    return [
        Finding(
            "duplicate",
            slices,
            len(slices),
            f"{many(slices)} the same picture as an earlier one ({listed(slices)}): its noise "
            "is not independent, so a network cannot tell it from structure; remove the "
            "copies, or replace them by what was recorded.",
        )
    ]


def missing_findings(pairs: Sequence[Neighbours]) -> list[Finding]:
    """Report places where slices seem to be missing.

    How much neighbours differ is measured from the correlation that a slice has with itself but
    for its noise, which is extrapolated from neighbours of first and second order; where noise
    leaves too little difference between these two, nothing is said.
    """
    known = [p for p in pairs if not p.same]
    if len(known) < 5:
        return []
    first = np.array([p.correlation for p in known])
    second = np.array([p.second for p in known])
    if not np.isfinite(second).any():
        return []
    step = float(np.median(first)) - float(np.nanmedian(second))
    itself = float(np.median(first)) + step / 2
    usual = np.array([np.median(around(first, i)) for i in range(len(first))])
    scatter = 1.4826 * float(np.median(np.abs(first - usual)))
    if step < scatter:
        return []
    # Differences below half of what is usual in the whole stack are not worth a comparison.
    floor = max(step / 4, 1e-6)
    times = (itself - first) / np.maximum(itself - usual, floor)
    found = [i for i in range(len(known)) if times[i] > GAP and usual[i] - first[i] > 6 * scatter]
    if not found:
        return []
    slices = tuple(known[i].first for i in found)
    worst = float(times[found].max())
    return [
        Finding(
            "missing",
            slices,
            worst,
            f"After {'slice' if len(slices) == 1 else 'slices'} {listed(slices)} the picture "
            f"changes up to {worst:.1f} times as much as usual: slices may be missing or damaged "
            "there; compare with the recording, and treat the parts as stacks of their own.",
        )
    ]


def around(values: NDArray[np.float64], i: int) -> NDArray[np.float64]:
    """Return the values on either side of number ``i``, as many as there are."""
    return np.r_[values[max(0, i - NEIGHBOURHOOD) : i], values[i + 1 : i + 1 + NEIGHBOURHOOD]]


def inverted_findings(source: Source) -> list[Finding]:
    """Give a hint if lines are rather bright on dark than dark on bright.

    In electron micrographs as they are usually shown stain is dark, so thin lines (membranes) are
    dark valleys rather than bright ridges.  The balance of both (-1 … 1, of the third powers of the
    Hessian's eigenvalues) changes sign with the contrast.  Under strong noise, and for specimens
    without membranes, it says nothing.
    """
    from skimage.feature import hessian_matrix, hessian_matrix_eigvals

    depth = source.shape[0]
    balances = []
    for z in np.unique(np.linspace(0, depth - 1, HINT_SLICES).round().astype(int)):
        image = np.asarray(source.read(int(z), int(z) + 1))[0]
        part = middle(image, WINDOW)
        hole = invalid_mask(part)
        if min(part.shape) < 64 or hole is not None or part.min() == part.max():
            continue
        hessian = hessian_matrix(
            part.astype(np.float32),
            RIDGES,
            mode="nearest",
            order="rc",
            use_gaussian_derivatives=False,
        )
        # The outermost pixels have no neighbours to be a line among.
        most, least = hessian_matrix_eigvals(hessian)[:, 8:-8, 8:-8]
        dark = float((np.maximum(most - np.abs(least), 0) ** 3).mean())
        bright = float((np.maximum(-least - np.abs(most), 0) ** 3).mean())
        balances.append((dark - bright) / ((dark + bright) or 1.0))
    if not balances or max(balances) >= 0 or (number := typical(balances)) > INVERTED:
        return []
    return [
        Finding(
            "inverted",
            (),
            number,
            "The contrast may be inverted (this is a hint: structures look bright on dark, while "
            "electron micrographs show stain dark): if so, invert it (in Fiji: Edit > Invert) "
            "before a model is used that was trained on the usual contrast.",
        )
    ]


def typical(values: Sequence[float]) -> float:
    """Return the median; 1 of none."""
    return float(np.median(values)) if len(values) else 1.0


def listed(slices: Sequence[int]) -> str:
    """Return "3, 4, 9", cut short."""
    text = ", ".join(map(str, slices[:LISTED]))
    return f"{text}, … ({len(slices)} in all)" if len(slices) > LISTED else text


def many(slices: Sequence[int]) -> str:
    """Return the beginning of a sentence."""
    return "1 slice is" if len(slices) == 1 else f"{len(slices)} slices are"
