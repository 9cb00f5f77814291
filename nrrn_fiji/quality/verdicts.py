"""What to think of the numbers of :mod:`.assessment`: good, look, bad, in plain words.

The limits between good and bad were set by results of known worth on crops of real FIB-SEM
(Drosophila medulla) without added noise, with Gaussian noise of sigma 10 and 50 and with Poisson
noise of peak 4 and 8.  ``benchmarks/verdicts.py`` makes them, and ``benchmarks/README.md`` has the
table.  There the shipped model is never "bad", a blur of 2 px and more never "good", and every
mistake is named.

This module must never measure, and never judge what could not be measured: that is "unknown", with
the reason.
"""

from __future__ import annotations

import numpy as np

from ..pages import Verdict
from ..reports import readable_number
from .assessment import Quality
from .residuals import APART

__all__ = ["PERIODS", "overall", "verdicts"]

PERIODS = (32, 16, 8)
"""Sizes of detail in pixels (periods) that are spoken of."""

ORDER = {"good": 0, "unknown": 1, "warn": 2, "bad": 3}

# Limits, each as (good, bad): between them "look".
NOISE_LEFT = (0.70, 0.97)
"""Models leave 0.06 to 0.75, most where nothing was added; half of their work 0.51 to 0.82."""
DETAIL_KEPT = (0.94, 0.80)
"""Of 16 px: models keep 0.94 and more, a blur of 1 px 0.92 to 0.93, of 2 px 0.71 to 0.75."""
STRUCTURE_REMOVED = (0.12, 0.18)
"""Models remove 0 to 0.09, a blur of 2 px 0 (where noise drowns it) to 0.17, of 4 px 0.18 to
0.35."""
REMOVED_LIKE_KEPT = 0.2
"""Models: at most 0.11; half of what they remove, 0.13 to 0.86, so that noise is left."""
STRUCTURED_NOISE = 0.2
"""What was removed is more alike in neighbouring pixels by this where there is structure than
where it is flat: models to 0.12, blur of 2 px to 0.26."""
INVERTED = -0.1
"""Correlation of noisy and denoised grey values; below, one of them is a negative."""
UNRELATED = 0.5
"""Share of the correlation that a noise-free result has."""
TOO_LITTLE = 0.05
"""Expected correlation from which something can be said at all: unrelated images reach as much."""
SCALE = (0.4, 2.0)
"""Contrast of all structure, denoised over noisy: models 1.01 to 1.18, blur of 4 px 0.79 up."""
SHIFT = (0.01, 0.10)
"""Share of the grey range.  A model that undoes the clipping of strong noise moves the mean by up
to 0.052, and single grey levels by 0.11; 20 grey levels of 8 bits are 0.15 and more."""
SHIFT_BY_LEVEL = 0.03
"""The same at any one grey level; where little was clipped models move them by 0.02 at most."""
STRIPES = (0.005, 0.015)
"""Share of the grey range by which brightness of whole rows or columns varies more than before:
models 0; stripes of 3 grey levels (sd) 0.02, less where strong noise hides them."""
FEW_SLICES = 5
"""Slices below which none can be said to stand out."""
UNEVEN = (0.15, 0.30)
"""Models: at most 0.04; where half of the tiles are left out it is 1."""


def overall(judged: dict[str, Verdict]) -> Verdict:
    """Return the judgement of the whole: the worst of all, with the reasons."""
    if list(judged) == ["match"]:
        return Verdict(
            "bad", "Is it good?", "", f"{judged['match'].words} Nothing else was judged."
        )
    worst = max((v.light for v in judged.values()), key=ORDER.__getitem__)
    guilty = [v.title.lower() for v in judged.values() if v.light == worst]
    words = {
        "good": "This looks good: noise went, and structure stayed, as far as can be measured "
        "without a clean image.",
        "unknown": f"What could be measured looks good; not known: {', '.join(guilty)}.",
        "warn": f"Before you use it, have a look at: {', '.join(guilty)}.",
        "bad": f"This is not good: {', '.join(guilty)}.",
    }
    return Verdict(worst, "Is it good?", "", words[worst])


def light(value: float, good: float, bad: float) -> str:
    """Return "good", "warn" or "bad" for a value whose better end is that of ``good``."""
    sign = 1 if good < bad else -1
    if sign * value <= sign * good:
        return "good"
    return "warn" if sign * value < sign * bad else "bad"


def grey_digits(span: float) -> int:
    """Return how many decimals a thousandth of a grey range has, or more."""
    return max(0, 3 - int(np.floor(np.log10(span))))


def percent(share: float) -> str:
    """Return a share as a text."""
    return f"{100 * share:.0f} %"


def verdicts(quality: Quality) -> dict[str, Verdict]:
    """Return a judgement in plain words for each number, by its key.

    Keys are "match", "noise", "detail", "structure", "shift", "lines", "tiles" and "slices";
    "noise" alone if nothing was changed, and "match" alone if the stacks do not belong together.
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
    match = match_verdict(quality)
    if match.light == "bad":
        # All other numbers would be about the mistake.
        return {"match": match}
    return {
        "match": match,
        "noise": noise_verdict(quality),
        "detail": detail_verdict(quality),
        "structure": structure_verdict(quality),
        "shift": shift_verdict(quality),
        "lines": lines_verdict(quality),
        "tiles": tiles_verdict(quality),
        "slices": slices_verdict(quality),
    }


def match_verdict(quality: Quality) -> Verdict:
    """Judge whether both stacks show the same, in the same place and on the same grey scale."""
    title, found = "Same image", quality.match
    if found is None:
        return Verdict("unknown", title, "not measured", "The slices are too small to tell.")
    value = f"correlation {found.correlation:.2f}"
    if found.expected is not None:
        value += f", {found.expected:.2f} or more expected"
    if found.correlation < INVERTED:
        return Verdict(
            "bad", title, value, "Bright and dark are exchanged: one of the stacks is inverted."
        )
    if any(found.offset):
        z, y, x = found.offset
        moved = []
        if z:
            moved.append("one slice too late" if z > 0 else "one slice too early")
        if y or x:
            moved.append(f"moved by {x:+d} px along x and {y:+d} px along y")
        return Verdict(
            "bad",
            title,
            value,
            f"The denoised stack is {' and '.join(moved)}: most of its slices are most like the "
            "noisy ones there. Was a slice left out, or the stack cropped or registered anew?",
        )
    if found.share is None or found.expected is None or found.expected < TOO_LITTLE:
        return Verdict(
            "unknown",
            title,
            value,
            f"Slices {APART} apart have too little in common to tell what a denoised form must "
            "look like.",
        )
    if found.share < UNRELATED:
        return Verdict(
            "bad",
            title,
            value,
            "The denoised stack does not show what the noisy one shows. Are these the right files, "
            "and is this the right channel?",
        )
    if found.contrast is not None and not SCALE[0] < found.contrast < SCALE[1]:
        return Verdict(
            "bad",
            title,
            f"contrast × {readable_number(found.contrast, 2)}",
            "Both show the same, but on different grey scales: one was converted to another bit "
            "depth or stretched, or all structure was blurred away. Compare files with the same "
            "scale.",
        )
    return Verdict(
        "good", title, value, "Both stacks show the same, in the same place and on one grey scale."
    )


def noise_verdict(quality: Quality) -> Verdict:
    """Judge how much noise is left where the specimen is flat."""
    title = "Noise removed"
    if quality.noise_left is None or quality.sigma is None:
        return Verdict("unknown", title, "not measured", quality.reasons.get("noise left", ""))
    before, after = (readable_number(sigma) for sigma in quality.sigma)
    value = f"{percent(1 - quality.noise_left)}: {before} → {after} grey"
    words = {
        "good": "Flat areas are clearly calmer than before. (A blur does that too: see detail.)",
        "warn": "Some noise was removed, but much of it is still there. Train longer, or on this "
        "stack; noise that is alike in neighbouring pixels is hard to remove.",
        "bad": "Nothing was removed, or next to nothing: flat areas are as noisy as before. Check "
        "that the model fits the noise, and the grey range that was used.",
    }
    judged = light(quality.noise_left, *NOISE_LEFT)
    if judged == "good" and quality.removed_like_kept > REMOVED_LIKE_KEPT:
        return Verdict(
            "warn",
            title,
            value,
            "Flat areas are calmer, but what was removed looks like what is left (correlation "
            f"{quality.removed_like_kept:.2f}): noise was removed in part, or contrast went too.",
        )
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
    if judged == "good" and period > 16:
        return Verdict(
            "unknown",
            title,
            value,
            f"Detail of {period} px has its contrast still. Finer detail is drowned in noise, so "
            "that this cannot tell a good result from a blurred one: compare a larger stack, or "
            "two scans.",
        )
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
    value = (
        f"at least {percent(quality.removed_structure)} of the structure's contrast"
        if quality.removed_structure > 0
        else "none found"
    )
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
    digits = grey_digits(span)
    # Adding 0 takes the sign off what rounds to it.
    mean, worst = (round(value, digits) + 0.0 for value in (shift.mean, shift.worst))
    value = f"{mean:+.{digits}f} on average, {worst:+.{digits}f} at most"
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


def lines_verdict(quality: Quality) -> Verdict:
    """Judge what was added along whole rows and columns."""
    title, found = "Stripes and seams", quality.lines
    if found is None:
        return Verdict("unknown", title, "not measured", quality.reasons.get("lines", ""))
    digits = grey_digits(quality.shift.span or 1.0)
    value = ", ".join(
        f"{name} {before:.{digits}f} → {after:.{digits}f} grey"
        for name, before, after in zip(("rows", "columns"), found.before, found.after, strict=True)
    )
    judged = light(max(found.added) / (quality.shift.span or 1.0), *STRIPES)
    if judged != "good":
        name = "rows" if found.added[0] > found.added[1] else "columns"
        return Verdict(
            judged,
            title,
            value,
            f"Whole {name} became brighter or darker than they were: the denoised stack has "
            "stripes that the noisy one has not.",
        )
    places = [
        f"{name} {', '.join(map(str, places[:6]))}{' …' if len(places) > 6 else ''}"
        for name, places in zip(("row", "column"), found.seams, strict=True)
        if places
    ]
    if places:
        # One line may be chance or a flaw of the recording; a grid is not.
        return Verdict(
            "bad" if sum(map(len, found.seams)) > 1 else "warn",
            title,
            value,
            f"There seem to be seams before {' and '.join(places)} (counted from 0): brightness "
            "or smoothness changes there along the whole line, as where tiles meet that were "
            "denoised apart.",
        )
    return Verdict(
        "good", title, value, "No line or seam was added along the rows and columns of the slices."
    )


def tiles_verdict(quality: Quality) -> Verdict:
    """Judge whether noise was removed alike everywhere."""
    judged = light(quality.unevenness, *UNEVEN)
    words = {
        "good": "Noise was removed alike over the whole slice.",
        "warn": "More was removed in some places than in others. Is the noise itself uneven "
        "(bright and dark areas), or was structure removed there?",
        "bad": "Some places lost far more than others: look at the map.",
    }
    return Verdict(
        judged, "Evenness over the slice", f"± {percent(quality.unevenness)}", words[judged]
    )


def slices_verdict(quality: Quality) -> Verdict:
    """Judge whether slices stand out."""
    outliers = quality.slices.outliers
    title = "Evenness over z"
    number = quality.slices.index.size
    if number < FEW_SLICES:
        return Verdict(
            "unknown",
            title,
            f"{number} slice{'s' if number > 1 else ''}",
            "There are too few slices to say whether one of them stands out.",
        )
    if not outliers:
        return Verdict("good", title, f"{number} slices", "No slice stands out.")
    names = ", ".join(map(str, outliers[:8])) + (" …" if len(outliers) > 8 else "")
    return Verdict(
        "warn",
        title,
        f"{len(outliers)} of {number} slices",
        f"Much more or less was removed from slice {names} (counted from 0) than from most "
        "others: look whether these were bad to begin with.",
    )
