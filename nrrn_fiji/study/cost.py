"""What quality costs: PSNR and IQR against operations and parameters, for 1 … L units.

Operations are multiply-adds for one slice of 256² pixels from three images: two branches of an
NRRN (the paper counts one), what it takes for other networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..metrics import psnr, ssim
from ..models import Model
from ..plots import ACCENT, colour_of
from ..reports import Table
from ..scoring import Candidate, Steps
from .candidates import model_candidate, untreated
from .context import Study
from .figures import MARKS, Curve, Panel, curves
from .flat import flattest_lines
from .iqr import LINES, estimates_of, iqrs_along
from .levels import TABLE1_LEVEL
from .parts import Figure, Part, mean_and_sd, plus_minus

__all__ = ["cost", "multiply_adds", "parameters"]

EDGE = 256
"""Edge in pixels of the image that operations are counted for."""

MODEL_COLOURS = (ACCENT, "#8c2d04", "#fdae6b", "#7f2704", "#f16913")


def multiply_adds(units: int, maps: int, *, final: bool = True) -> float:
    """Return the billions of multiply-adds (GMAC) of one branch on 256² pixels.

    Parameters
    ----------
    units
        Units that are computed.
    maps
        Feature maps C.
    final
        Whether the closing term is computed.

    Returns
    -------
    float
        Seven convolutions C -> C per unit (W1 and six gates), one for the closing term, and W0 on
        both images: 19.4 for one unit of 64 maps.
    """
    kernels = 9 * maps * maps * (7 * units + final) + 2 * 9 * maps
    return kernels * EDGE * EDGE / 1e9


def parameters(model: Model, units: int) -> int:
    """Return how many weights and biases take part when ``units`` units of a model are computed."""
    network = model.network
    parts = [network.W0, network.W1, *network.BU[:units]]
    if units == network.units:
        parts.append(network.W2)
    return sum(p.numel() for part in parts for p in part.parameters())


@dataclass(frozen=True)
class Priced:
    """A method, what it costs, and what it reaches."""

    candidate: Candidate
    series: str
    """The model it belongs to; empty for what is no network."""
    units: int = 0
    gmac: float = 0.0
    parameters: int = 0
    psnr: tuple[float, float] = (0.0, 0.0)
    """Mean and standard deviation, as the next two."""
    ssim: tuple[float, float] = (0.0, 0.0)
    iqr: tuple[float, float] = (0.0, 0.0)


def priced(study: Study) -> list[Priced]:
    """Return models stopped after each of their units, and competitors, nothing measured yet."""
    result = []
    for model in study.models:
        for units in range(1, model.units + 1):
            last = units == model.units
            label = f"{model.name}, {units} unit" + "s" * (units > 1)
            result.append(
                Priced(
                    model_candidate(
                        model, units=None if last else units, label=label, device=study.device
                    ),
                    model.name,
                    units,
                    2 * multiply_adds(units, model.maps, final=last),
                    parameters(model, units),
                )
            )
    for one, candidate in zip(study.trained, study.contenders(), strict=True):
        macs, weights = one.facts["macs"] / 1e9, one.facts["parameters"]
        result.append(Priced(candidate, candidate.label, 0, macs, weights))
    return result


def cost(study: Study) -> Part:
    """Measure quality against operations and parameters."""
    scored, first = study.scored, study.model
    lines = flattest_lines(scored, LINES)
    filtered = study.best_filter(TABLE1_LEVEL)
    methods = [Priced(untreated()[0], ""), Priced(filtered, ""), *priced(study)]
    candidates = [method.candidate for method in methods]
    steps = Steps(study.progress, len(scored.indices) * len(candidates), "nothing of it is kept")
    estimates = estimates_of(study, candidates, scored.indices, TABLE1_LEVEL, steps)

    def measured(method: Priced) -> Priced:
        label = method.candidate.label
        pairs = [(scored.clean(z), estimates[z][label]) for z in scored.indices]
        return replace(
            method,
            psnr=mean_and_sd([psnr(clean, estimate) for clean, estimate in pairs]),
            ssim=mean_and_sd([ssim(clean, estimate) for clean, estimate in pairs]),
            iqr=mean_and_sd(iqrs_along(lines, estimates, label)),
        )

    methods = [measured(method) for method in methods]
    networks = [method for method in methods if method.series]
    out = study.folder()
    picture(methods[1], networks, out / "cost-quality.png")
    own = [method for method in networks if method.series == first.name]
    findings = [
        f"{first.name} reaches "
        + ", ".join(f"{m.psnr[0]:.2f} dB (IQR {m.iqr[0]:.1f}) after {m.units}" for m in own)
        + f" of its units, for {own[0].gmac:.1f} to {own[-1].gmac:.1f} GMAC per slice. In the "
        "paper PSNR does not improve from 1 to 5 units, IQR does up to the 4th."
    ]
    return Part(
        name="cost",
        title="What quality costs",
        about=f"{study.about()} Here {TABLE1_LEVEL.label}. A model stopped after its first units "
        "is the same training with less work; models of their own with fewer units are further "
        "models of the study. GMAC: billions of multiply-adds for one slice of 256² pixels with "
        "three images: for NRRN two branches, each of which the paper's numbers count.",
        findings=tuple(findings),
        tables=(
            (
                f"Mean ± standard deviation at {TABLE1_LEVEL.label}",
                Table(
                    ("", "GMAC", "Parameters", "PSNR (dB)", "SSIM (window 7)", "IQR"),
                    tuple(
                        (
                            method.candidate.label,
                            f"{method.gmac:.2f}" if method.series else "",
                            f"{method.parameters:,}" if method.series else "",
                            plus_minus(*method.psnr),
                            plus_minus(*method.ssim, 3),
                            plus_minus(*method.iqr),
                        )
                        for method in methods
                    ),
                ),
            ),
        ),
        figures=(
            Figure(
                "cost-quality.png",
                "PSNR and IQR against operations and parameters; numbers beside the points are "
                "units, the dashed line is the best filter.",
            ),
        ),
        records=tuple(
            {
                "label": method.candidate.label,
                "model": method.series,
                "units": method.units,
                "gmac": method.gmac,
                "parameters": method.parameters,
                "psnr_mean": method.psnr[0],
                "psnr_sd": method.psnr[1],
                "ssim_mean": method.ssim[0],
                "ssim_sd": method.ssim[1],
                "iqr_mean": method.iqr[0],
                "iqr_sd": method.iqr[1],
            }
            for method in methods
        ),
        facts=study.facts(),
    )


def picture(filtered: Priced, networks: Sequence[Priced], path: Path) -> None:
    """Save PSNR and IQR against operations and parameters."""
    prices: tuple[tuple[str, Callable[[Priced], float]], ...] = (
        ("GMAC per slice of 256² px", lambda method: method.gmac),
        ("Parameters (thousands)", lambda method: method.parameters / 1000),
    )
    qualities: tuple[tuple[str, Callable[[Priced], float]], ...] = (
        ("PSNR (dB)", lambda method: method.psnr[0]),
        ("IQR in flat areas (of 255)", lambda method: method.iqr[0]),
    )
    panels = []
    for y_axis, quality in qualities:
        for x_axis, price in prices:
            drawn = []
            for number, series in enumerate(dict.fromkeys(m.series for m in networks)):
                own = [method for method in networks if method.series == series]
                drawn.append(
                    Curve(
                        series,
                        [price(method) for method in own],
                        [quality(method) for method in own],
                        colour_of(own[0].candidate.method)
                        if own[0].units == 0
                        else MODEL_COLOURS[number % len(MODEL_COLOURS)],
                        mark=MARKS[number % len(MARKS)],
                        names=tuple(str(method.units) if method.units else "" for method in own),
                    )
                )
            ends = [f(map(price, networks)) for f in (min, max)]
            drawn.append(
                Curve(
                    filtered.candidate.label,
                    ends,
                    [quality(filtered)] * 2,
                    colour_of(filtered.candidate.method),
                    line="--",
                    width=0.9,
                )
            )
            # U-Net has a hundred times the parameters of an NRRN.
            far_apart = ends[1] > 10 * ends[0]
            panels.append(Panel("", tuple(drawn), x_axis, y_axis, log_x=far_apart))
    curves(panels, path, height=2.2)
