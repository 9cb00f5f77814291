"""What each building unit removes: scatter in flat areas, and SSIM, unit by unit.

The paper plots output against input in resin, scaled by the mean, with a line fitted per unit:
without noise left the line is flat.  Beside it, SSIM after every unit at several noise levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..metrics import psnr, ssim
from ..plots import ACCENT
from ..reports import Table
from ..scoring import Image, Level, Steps
from .candidates import unit_estimates
from .context import Study
from .figures import Curve, Panel, curves, scatters
from .flat import LINE, Line, flattest_lines
from .levels import TABLE1_LEVEL
from .parts import Figure, Part, summarised

__all__ = ["SSIM_LEVELS", "fitted", "units"]

SSIM_LEVELS: tuple[Level | None, ...] = (
    None,
    Level("poisson", 1),
    Level("poisson", 30),
    Level("gaussian", 15),
    Level("gaussian", 75),
)
"""The paper's levels; None adds no noise."""

COLOURS = ("#222222", "#d55e00", "#e69f00", "#0072b2", "#009e73")

AREAS = 12
MOST_POINTS = 1500
"""Points in a scatter; more are only ink."""


def fitted(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of the line that fits y over x in least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def area(line: Line, image: Image) -> NDArray[np.float64]:
    """Return the grey values of the flat area around a line."""
    height = min(LINE // 2, image.shape[0])
    top = line.y - height // 2
    return image[top : top + height, line.x : line.x + line.length].astype(np.float64).ravel()


def name(level: Level | None) -> str:
    """Return the level's label; "no noise" for None."""
    return "no noise" if level is None else level.label


def units(study: Study) -> Part:
    """Measure what every building unit of the model removes."""
    model, scored = study.model, study.scored
    areas = flattest_lines(scored, AREAS)
    stages = ["Input", *(f"Unit {unit}" for unit in range(1, model.units + 1)), "Output"]
    slices_with_areas = sorted({line.z for line in areas})
    steps = Steps(
        study.progress,
        len(slices_with_areas) + len(SSIM_LEVELS) * len(scored.indices),
        "nothing of it is kept",
    )

    def after_units(triplet: Image) -> list[Image]:
        """Input, x̂[1] … x̂[L], output."""
        return [triplet[1], *unit_estimates(model, triplet, device=study.device)]

    given: list[NDArray[np.float64]] = []
    results: list[list[NDArray[np.float64]]] = [[] for _ in stages]
    for index in slices_with_areas:
        images = after_units(scored.triplet(index, TABLE1_LEVEL))
        for line in (line for line in areas if line.z == index):
            given.append(area(line, images[0]) / area(line, images[0]).mean())
            for result, image in zip(results, images, strict=True):
                result.append(area(line, image) / area(line, image).mean())
        steps.next(f"flat areas of slice {index}")
    x = np.concatenate(given)
    lines = [fitted(x, np.concatenate(result)) for result in results]
    few = np.random.default_rng(study.seed).permutation(x.size)[:MOST_POINTS]
    out = study.folder()
    scatters(
        [
            (stage, x[few], np.concatenate(result)[few], slope, intercept)
            for stage, result, (slope, intercept) in zip(
                stages[1:], results[1:], lines[1:], strict=True
            )
        ],
        out / "units-scatter.png",
        x_axis="Input / its mean",
        y_axis="Output / its mean",
        colour=ACCENT,
    )
    records = []
    quality: dict[Level | None, NDArray[np.float64]] = {}
    for level in SSIM_LEVELS:
        similar = []
        for index in scored.indices:
            if level is None:
                triplet = np.stack([scored.clean(z) for z in scored.neighbours(index)])
            else:
                triplet = scored.triplet(index, level)
            clean = scored.clean(index)
            images = after_units(triplet)
            similar.append([ssim(clean, image) for image in images])
            for stage, image, value in zip(stages, images, similar[-1], strict=True):
                records.append(
                    {
                        "noise": name(level),
                        "stage": stage,
                        "slice": index,
                        "ssim": value,
                        "psnr": psnr(clean, image),
                    }
                )
            steps.next(f"{name(level)}: slice {index}")
        quality[level] = np.array(similar)
    places = np.arange(len(stages))
    curves(
        [
            Panel(
                "",
                tuple(
                    Curve(
                        name(level),
                        places,
                        values.mean(0),
                        colour,
                        mark="o",
                        spread=values.std(0, ddof=1) if len(values) > 1 else None,
                    )
                    for (level, values), colour in zip(quality.items(), COLOURS, strict=True)
                ),
                "After",
                "SSIM (window 7)",
                x_ticks=tuple(zip(places.tolist(), stages, strict=True)),
            )
        ],
        out / "units-ssim.png",
        height=2.6,
    )
    rows = []
    for stage, (slope, _), place in zip(stages, lines, places, strict=True):
        cells = [summarised(values[:, place], 3) for values in quality.values()]
        rows.append((stage, f"{slope:.3f}", *cells))
    return Part(
        name="units",
        title="What each building unit removes",
        about=f"{study.about(tuned=False, competitors=False)} "
        f"The slope is that of output over input in "
        f"{len(areas)} flat areas at {TABLE1_LEVEL.label}, each scaled by its mean: 1 means that "
        "all the noise is left, 0 that none is. The output is the last unit's estimate and the "
        "closing term.",
        findings=(
            "In flat areas the slope falls from 1 to "
            + ", ".join(f"{slope:.2f}" for slope, _ in lines[1:-1])
            + f" after the units, and is {lines[-1][0]:.2f} at the output.",
        ),
        tables=(
            (
                "Slope in flat areas, and SSIM (window 7)",
                Table(("After", "Slope", *(f"SSIM, {name(v)}" for v in quality)), tuple(rows)),
            ),
        ),
        figures=(
            Figure("units-scatter.png", "Output over input in flat areas, scaled by the mean."),
            Figure("units-ssim.png", "SSIM after every unit; bars: standard deviation."),
        ),
        records=tuple(records),
        facts={
            **study.facts(competitors=False),
            "slopes": dict(zip(stages, (s for s, _ in lines), strict=True)),
        },
    )
