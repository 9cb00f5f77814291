"""What to think of the numbers of :mod:`nrrn_fiji.quality`: good, look, bad, in plain words.

The limits between good and bad were set by measuring good
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

This module must never measure, and never judge what could not be measured: that is "unknown", with
the reason.
"""

from __future__ import annotations

import numpy as np

from .pages import Verdict
from .quality import Quality
from .residuals import APART

__all__ = ["PERIODS", "overall", "verdicts"]

PERIODS = (32, 16, 8)
"""Sizes of detail in pixels (periods) that are spoken of."""

ORDER = {"good": 0, "unknown": 1, "warn": 2, "bad": 3}

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


def overall(judged: dict[str, Verdict]) -> Verdict:
    """Return the judgement of the whole: the worst of all, with the reasons."""
    worst = max((v.light for v in judged.values()), key=ORDER.__getitem__)
    guilty = [v.title.lower() for v in judged.values() if v.light == worst]
    words = {
        "good": "This looks good: noise went, and structure stayed, as far as can be measured "
        "without a clean image.",
        "unknown": f"What could be measured looks good; not known: {', '.join(guilty)}.",
        "warn": f"Have a look before you use it: {', '.join(guilty)}.",
        "bad": f"This is not good: {', '.join(guilty)}.",
    }
    return Verdict(worst, "Is it good?", "", words[worst])


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
    digits = max(0, 3 - int(np.floor(np.log10(span))))  # to a thousandth of the range or better
    value = f"{shift.mean:+.{digits}f} on average, {shift.worst:+.{digits}f} at most"
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
