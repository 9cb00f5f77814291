"""Which edges survive: what is left of every method's image without its smooth part."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..plots import picture_grid
from ..reports import Table
from ..scoring import Image, Steps
from .context import Study
from .iqr import clean_candidate, estimates_of
from .levels import TABLE1_LEVEL, central
from .parts import Figure, Part, summarised

__all__ = ["edges", "high_pass"]

SIGMA = 3.0
"""Pixels; what is coarser is taken away."""

CROP = 180
"""Edge in pixels of the pictures."""

MOST_ACROSS = 4
"""Pictures side by side."""


def high_pass(image: Image) -> Image:
    """Return an image without its smooth part, around 0."""
    return np.asarray(image - ndimage.gaussian_filter(image, SIGMA, mode="reflect"), np.float32)


def edges(study: Study) -> Part:
    """Show high-passed images beside each other, and how alike they are to the clean one's."""
    scored = study.scored
    candidates = [clean_candidate(), *study.usual(TABLE1_LEVEL)]
    steps = Steps(study.progress, len(scored.indices) * len(candidates), "nothing of it is kept")
    estimates = estimates_of(study, candidates, scored.indices, TABLE1_LEVEL, steps)
    rows, records, means = [], [], []
    for candidate in candidates[1:]:
        alike, strength = [], []
        for index in scored.indices:
            truth = high_pass(scored.clean(index)).astype(np.float64)
            own = high_pass(estimates[index][candidate.label]).astype(np.float64)
            alike.append(float(np.corrcoef(truth.ravel(), own.ravel())[0, 1]))
            # The slope of own over truth: 1 keeps edges as they are, less makes them fainter.
            strength.append(float((truth * own).sum() / (truth**2).sum()))
        rows.append((candidate.label, summarised(alike, 3), summarised(strength, 3)))
        means.append(float(np.mean(alike)))
        for index, correlation, slope in zip(scored.indices, alike, strength, strict=True):
            records.append(
                {
                    "method": candidate.method,
                    "label": candidate.label,
                    "slice": index,
                    "correlation": correlation,
                    "strength": slope,
                }
            )
    middle = scored.indices[len(scored.indices) // 2]
    scale = 6 * float(high_pass(scored.clean(middle)).std()) or 1.0

    def shown(label: str) -> Image:
        return central(np.clip(0.5 + high_pass(estimates[middle][label]) / scale, 0, 1), CROP)

    ordered = [*candidates[1:], candidates[0]]
    cells = [(c.label, shown(c.label)) for c in ordered]
    out = study.folder()
    down = -(-len(cells) // MOST_ACROSS)
    across = -(-len(cells) // down)  # rows of about the same length
    picture_grid([cells[i : i + across] for i in range(0, len(cells), across)],
                 out / "edges-pictures.png")  # fmt: skip
    best = rows[1 + int(np.argmax(means[1:]))]  # the first is the input
    return Part(
        name="edges",
        title="Edges: the high-pass view",
        about=f"{study.about()} Here {TABLE1_LEVEL.label}. High-passed: the image minus its "
        f"Gaussian of {SIGMA:g} px. Correlation with the clean slice's says how much of what is "
        "seen is real; strength is the slope over it: below 1 edges are fainter than they are. "
        "The clean slices' own noise counts as detail here, so no method can reach 1.",
        findings=(f"The highest correlation with the clean edges has {best[0]}: {best[1]}.",),
        tables=(
            (
                "Mean ± standard deviation over the slices",
                Table(("", "Correlation", "Strength"), tuple(rows)),
            ),
        ),
        figures=(
            Figure(
                "edges-pictures.png",
                f"High-passed slice {middle}, all on the same grey scale; mid grey is 0.",
            ),
        ),
        records=tuple(records),
        facts=study.facts(),
    )
