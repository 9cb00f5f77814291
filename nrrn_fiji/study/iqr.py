"""How much noise is left where nothing is, and what becomes of an organelle.

The paper draws a line through resin and reports the interquartile range (IQR) of its grey values,
and shows the profile of a line across an organelle.  Lines are chosen by
:mod:`nrrn_fiji.study.flat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..metrics import line_iqr
from ..plots import colour_of
from ..reports import Table
from ..scoring import Candidate, Image, Level, Steps
from .context import Study
from .figures import Curve, Panel, box_plot, curves
from .flat import Line, along, busiest_line, flattest_lines
from .levels import TABLE1_LEVEL
from .parts import Figure, Part, summarised

__all__ = ["LINES", "clean_candidate", "estimates_of", "iqr", "iqrs_along"]

LINES = 12
"""Lines through flat areas."""


def clean_candidate() -> Candidate:
    """Return the truth as a candidate; :func:`estimates_of` fills it in."""

    def refuse(triplet: Image) -> Image:
        raise ValueError("The clean slice cannot be had from noisy ones: give a method instead.")

    return Candidate("clean", "Clean slice", 0, refuse)


def estimates_of(
    study: Study,
    candidates: Sequence[Candidate],
    indices: Sequence[int],
    level: Level,
    steps: Steps | None = None,
) -> dict[int, dict[str, Image]]:
    """Return what every method makes of slices: by slice number, then by label."""
    estimates: dict[int, dict[str, Image]] = {}
    for index in sorted(set(indices)):
        triplet = study.scored.triplet(index, level)
        estimates[index] = {}
        for candidate in candidates:
            estimates[index][candidate.label] = (
                study.scored.clean(index)
                if candidate.method == "clean"
                else np.clip(candidate.denoise(triplet), 0, 1)
            )
            if steps:
                steps.next(f"{level.label}: {candidate.label}, slice {index}")
    return estimates


def iqrs_along(
    lines: Sequence[Line], estimates: Mapping[int, Mapping[str, Image]], label: str
) -> NDArray[np.float64]:
    """Return a method's IQR along each line, in grey levels of 255."""
    return np.array(
        [
            255
            * line_iqr(
                estimates[line.z][label],
                (line.y, line.x),
                (line.y, line.x + line.length - 1),
            )
            for line in lines
        ]
    )


def iqr(study: Study) -> Part:
    """Measure the IQR along lines in flat areas, and the profile across an organelle."""
    lines = flattest_lines(study.scored, LINES)
    profile = busiest_line(study.scored, study.scored.indices)
    candidates = [clean_candidate(), *study.usual(TABLE1_LEVEL)]
    indices = [line.z for line in (*lines, profile)]
    steps = Steps(study.progress, len(set(indices)) * len(candidates), "nothing of it is kept")
    estimates = estimates_of(study, candidates, indices, TABLE1_LEVEL, steps)
    out = study.folder()
    boxes, rows, records = [], [], []
    for candidate in candidates:
        values = [along(line, estimates[line.z][candidate.label]) for line in lines]
        around = np.concatenate([v - v.mean() for v in values])
        boxes.append((candidate.label, around, colour_of(candidate.method)))
        iqrs = iqrs_along(lines, estimates, candidate.label)
        sds = np.array([v.std() for v in values])
        rows.append(
            (
                candidate.label,
                summarised(iqrs),
                summarised(sds),
            )
        )
        for line, one, sd in zip(lines, iqrs, sds, strict=True):
            records.append(
                {
                    "method": candidate.method,
                    "label": candidate.label,
                    "slice": line.z,
                    "y": line.y,
                    "x": line.x,
                    "length": line.length,
                    "iqr": float(one),
                    "sd": float(sd),
                }
            )
    box_plot(
        boxes,
        out / "iqr-boxes.png",
        axis="Grey value − mean (of 255)",
        title=f"Flat areas, {TABLE1_LEVEL.label}",
    )
    picture_profile(candidates, profile, estimates, out / "iqr-profile.png")
    means = {row[0]: row[1] for row in rows}
    findings = [
        f"Along lines in flat areas the input's IQR is {means['Input']} grey levels of 255"
        + "".join(f", that of {c.label} {means[c.label]}" for c in candidates[2:])
        + f"; the clean slices themselves have {means['Clean slice']}, because the microscope's "
        "own noise is in them."
    ]
    return Part(
        name="iqr",
        title="Noise that is left in flat areas, and the profile of an organelle",
        about=f"{study.about()} Here {TABLE1_LEVEL.label}. {len(lines)} horizontal lines of "
        f"{lines[0].length} px run through the flattest areas of the clean slices, chosen before "
        "anything is denoised; the profile is the line with the strongest contrast. The paper, on "
        "other data: 0.94 for NRRN, about 3.6 for DenoiseNet, above 5 for U-Net.",
        findings=tuple(findings),
        tables=(
            (
                "Grey levels of 255, mean ± standard deviation over the lines",
                Table(("", "IQR", "Standard deviation"), tuple(rows)),
            ),
        ),
        figures=(
            Figure(
                "iqr-boxes.png",
                "Grey values along lines in flat areas: quartiles, and whiskers from the 5th to "
                "the 95th percentile.",
            ),
            Figure(
                "iqr-profile.png",
                f"Grey values across an organelle: slice {profile.z}, row {profile.y}, from "
                f"column {profile.x}.",
            ),
        ),
        records=tuple(records),
        facts={**study.facts(), "profile": profile._asdict()},
    )


def picture_profile(
    candidates: Sequence[Candidate],
    line: Line,
    estimates: Mapping[int, Mapping[str, Image]],
    path: Path,
) -> None:
    """Save the grey values along a line, a panel per method over the clean slice."""
    place = np.arange(line.length)
    clean = along(line, estimates[line.z]["Clean slice"])
    panels = []
    for candidate in candidates[1:]:
        own = along(line, estimates[line.z][candidate.label])
        panels.append(
            Panel(
                candidate.label,
                (
                    Curve("Clean slice", place, clean, colour_of("clean"), width=0.9),
                    Curve("", place, own, colour_of(candidate.method)),
                ),
                "Pixel along the line",
                "Grey value (of 255)",
            )
        )
    across = 4 if len(panels) == 4 else 3
    curves(panels, path, across=across, height=1.9, share_y=True)
