"""One, two or three images: what the neighbours are worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metrics import psnr, ssim
from ..plots import picture_grid
from ..reports import Table
from ..scoring import Steps
from .candidates import untreated
from .context import Study
from .figures import Curve, Panel, curves
from .flat import along, busiest_line, flattest_lines
from .iqr import LINES, clean_candidate, estimates_of, iqrs_along
from .levels import TABLE1_LEVEL, central
from .parts import Figure, Part, mean_and_sd, summarised

__all__ = ["inputs"]

COLOURS = {1: "#56b4e9", 2: "#009e73", 3: "#d55e00"}
CROP = 200
"""Edge in pixels of the pictures."""


def inputs(study: Study) -> Part:
    """Measure the model with 1, 2 and 3 images per slice."""
    scored = study.scored
    candidates = study.nrrn((1, 2, 3))
    if not candidates:
        raise ValueError("model is missing, but this experiment looks at one: name a model.")
    lines = flattest_lines(scored, LINES)
    profile = busiest_line(scored, scored.indices)
    shown = [clean_candidate(), untreated()[0], *candidates]
    steps = Steps(study.progress, len(scored.indices) * len(shown), "nothing of it is kept")
    estimates = estimates_of(study, shown, scored.indices, TABLE1_LEVEL, steps)
    rows, records = [], []
    means: dict[int, float] = {}
    for candidate in shown[1:]:
        pairs = [(scored.clean(z), estimates[z][candidate.label]) for z in scored.indices]
        scores = {
            "psnr": [psnr(clean, estimate) for clean, estimate in pairs],
            "ssim": [ssim(clean, estimate) for clean, estimate in pairs],
            "iqr": list(iqrs_along(lines, estimates, candidate.label)),
        }
        digits = {"psnr": 2, "ssim": 3, "iqr": 2}
        rows.append((candidate.label, *(summarised(v, digits[k]) for k, v in scores.items())))
        record: dict[str, Any] = {"label": candidate.label, "images": candidate.images}
        for name, values in scores.items():
            record[f"{name}_mean"], record[f"{name}_sd"] = mean_and_sd(values)
        records.append(record)
        if candidate.method == "nrrn":
            means[candidate.images] = record["psnr_mean"]
    out = study.folder()
    panels = []
    for title, line in (("Flat area", lines[0]), ("Across an organelle", profile)):
        place = np.arange(line.length)
        panels.append(
            Panel(
                title,
                (
                    Curve("Input", place, along(line, estimates[line.z]["Input"]), "#c9cdd2"),
                    Curve(
                        "Clean slice",
                        place,
                        along(line, estimates[line.z]["Clean slice"]),
                        "#222222",
                        width=0.9,
                    ),
                    *(
                        Curve(
                            c.label,
                            place,
                            along(line, estimates[line.z][c.label]),
                            COLOURS[c.images],
                        )
                        for c in candidates
                    ),
                ),
                "Pixel along the line",
                "Grey value (of 255)",
            )
        )
    curves(panels, out / "inputs-profiles.png")
    middle = scored.indices[len(scored.indices) // 2]
    picture_grid(
        [
            [
                (
                    label
                    if label == "Clean slice"
                    else f"{label}: {psnr(scored.clean(middle), image):.1f} dB",
                    central(image, CROP),
                )
                for label, image in (
                    (c.label, estimates[middle][c.label]) for c in (*shown[1:], shown[0])
                )
            ]
        ],
        out / "inputs-pictures.png",
    )
    percent = 100 * (means[3] - means[2]) / means[3]
    return Part(
        name="inputs",
        title="One, two or three images",
        about=f"{study.about(tuned=False, competitors=False)} "
        f"Here {TABLE1_LEVEL.label}; IQR in grey levels of 255 "
        f"along {len(lines)} lines in flat areas.",
        findings=(
            f"Two images instead of three cost {means[3] - means[2]:.2f} dB or {percent:.1f} % of "
            "the PSNR (the paper: 2 %) and halve the work; a single one costs "
            f"{means[3] - means[1]:.2f} dB.",
        ),
        tables=(
            (
                f"Mean ± standard deviation at {TABLE1_LEVEL.label}",
                Table(("", "PSNR (dB)", "SSIM (window 7)", "IQR"), tuple(rows)),
            ),
        ),
        figures=(
            Figure("inputs-pictures.png", f"Slice {middle} from 1, 2 and 3 images."),
            Figure("inputs-profiles.png", "Grey values along a flat line and an organelle."),
        ),
        records=tuple(records),
        facts=study.facts(competitors=False),
    )
