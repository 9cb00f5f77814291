"""``nrrn metrics``: numbers about an image, as a table and CSV.

With a reference, how near the image comes to it; without, what its noise is like, how fine its
detail is, and whether anything is wrong with the stack.  This module joins files and arithmetic
and must never change an image, nor write anything but what ``-o`` names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..files import write_whole
from ..intensity import grey_range, invalid_mask
from ..metrics import PAPER_WINDOW, SSIM_WINDOW, line_iqr, psnr, ssim
from ..noise_statistics import fit_noise, noise_correlation, noise_level, sampled_slices
from ..outputs.checks import checked_output
from ..progress import Cancelled, NoProgress, Progress
from ..quality.assessment import PAIRS
from ..quality.page import pixel_of, resolution_text
from ..quality.stack_pairs import middle_part, whole
from ..reports import Report, Table, readable_number
from ..resolution import SMALLEST_EDGE, RingCorrelation, ring_correlation, split_correlation
from ..stack_checks import check
from ..volumes import Source, StackSource, Volume, open_volume
from .measure import ends_of_line

__all__ = ["metrics_files"]

Array = NDArray[np.float64]

SAMPLED = 16
"""Slices whose noise level is estimated."""
FLAT_LINE = 48
"""Length in pixels of a line that is chosen in a flat area."""
FEW_PATCHES = 32
"""Flat patches below which what is said of the noise is doubtful."""


def metrics_files(
    image: Source,
    reference: Source | None = None,
    *,
    line: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Measure an image, against a clean reference if there is one.

    Parameters
    ----------
    image, reference
        Images as :func:`nrrn_fiji.open_volume` takes them, of one shape; of several channels and
        time points the first is measured.
    line
        "x0,y0,x1,y1" in pixels: where to measure the interquartile range; a line in the flattest
        area of the middle slice when left out.  Without a reference only.
    out
        A CSV file to write: per slice with a reference, else one row per number.
    overwrite
        Replace an existing CSV file.
    progress
        Told of every slice, and asked whether to stop.

    Raises
    ------
    ValueError, TypeError, OSError
        If the images cannot be read or compared, or the line lies outside.
    Cancelled
        If the user stopped; nothing is written then.
    """
    out = checked_output(out, [image, reference], (".csv",), overwrite)
    progress = progress or NoProgress()
    with open_volume(image) as volume:
        say_which(volume, progress)
        if reference is None:
            rows, data, told = alone(volume, line, progress)
        else:
            if line is not None:
                raise ValueError(
                    "line was given with a reference, but it is for an image alone: leave one out."
                )
            with open_volume(reference) as clean:
                say_which(clean, progress)
                rows, data, told, lines = against(volume, clean, progress)
    if out is not None:
        if reference is None:
            lines = [("number", "value", "meaning"), *rows]
        write_whole(out, as_csv(lines).encode())
        data["csv"] = str(out)
        told = f"{told}\n{out}: the numbers as CSV."
    return Report(told, data, Table(("number", "value", "meaning"), tuple(rows)))


Row = tuple[str, str, str]


def against(
    volume: Volume, clean: Volume, progress: Progress
) -> tuple[list[Row], dict[str, Any], str, list[tuple[str, ...]]]:
    """Score every slice against the clean one; grey values on [0, 1] by the clean stack's range."""
    if volume.shape[2:] != clean.shape[2:]:
        raise ValueError(
            f"{volume.name} is {tuple(volume.shape[2:])} (Z, Y, X), but {clean.name} is "
            f"{tuple(clean.shape[2:])}: give two images of the same shape."
        )
    source, truth = StackSource(volume, 0, 0), StackSource(clean, 0, 0)
    span = grey_range(truth)
    if span.constant:
        raise ValueError(f"{clean.name} is constant, so there is nothing to compare: check it.")
    depth, height, width = source.shape
    windows = [w for w in (SSIM_WINDOW, PAPER_WINDOW) if w <= min(height, width)]
    scores: dict[str, list[float]] = {"psnr": [], **{f"ssim{w}": [] for w in windows}}
    for z in range(depth):
        if progress.cancelled:
            raise Cancelled("Stopped; nothing was written.")
        one, other = (
            (s.read(z, z + 1)[0].astype(np.float64) - span.low) / (span.high - span.low)
            for s in (truth, source)
        )
        one = np.clip(one, 0, 1)
        scores["psnr"].append(psnr(one, other))
        for window in windows:
            scores[f"ssim{window}"].append(ssim(one, other, window))
        progress.update(z + 1, depth, f"slice {z}")
    rows: list[Row] = []
    names = {
        "psnr": ("PSNR", "dB, peak = the reference's grey range", 2),
        f"ssim{SSIM_WINDOW}": (f"SSIM, window {SSIM_WINDOW}", "1 = equal", 4),
        f"ssim{PAPER_WINDOW}": (f"SSIM, window {PAPER_WINDOW}", "the paper's window", 4),
    }
    summary = {}
    for key, values in scores.items():
        title, meaning, digits = names[key]
        # Where slices are equal the PSNR is infinite, and has no spread.
        spread = float(np.std(values, ddof=1)) if depth > 1 and np.isfinite(values).all() else None
        summary[key] = {"mean": float(np.mean(values)), "sd": spread}
        text = f"{np.mean(values):.{digits}f}"
        if spread is not None:
            text += f" ± {spread:.{digits}f}"
        rows.append((title, text, meaning))
    data: dict[str, Any] = {
        "slices": depth,
        "range": list(span),
        "scores": summary,
        "per_slice": scores,
    }
    if min(height, width) >= SMALLEST_EDGE:
        chosen = [part.start for part in sampled_slices(depth, PAIRS)]
        found = ring_correlation(
            *(np.stack([middle(s, z) for z in chosen]) for s in (source, truth))
        )
        rows.append(
            (
                "agreement down to",
                resolution_text(found, pixel_of(volume)),
                "Fourier ring correlation of both, threshold 1/7; a resolution only of two scans "
                "with noise of their own, never of an image and what was made from it",
            )
        )
        data["ring_correlation"] = curve(found)
    lines: list[tuple[str, ...]] = [("slice", *scores)]
    lines += [(str(z), *(f"{values[z]:.6g}" for values in scores.values())) for z in range(depth)]
    over = f"mean ± sd over {depth} slices" if depth > 1 else "of one slice"
    told = f"{volume.name} against {clean.name}: {over}."
    return rows, data, told, lines


def alone(
    volume: Volume, line: str | None, progress: Progress
) -> tuple[list[Row], dict[str, Any], str]:
    """Measure noise, resolution and flatness of an image, and look the stack over."""
    source = StackSource(volume, 0, 0)
    depth, height, width = source.shape
    rows: list[Row] = []
    chosen = [part.start for part in sampled_slices(depth, SAMPLED)]
    levels: list[float] = []
    for number, z in enumerate(chosen):
        if progress.cancelled:
            raise Cancelled("Stopped; nothing was written.")
        plane = source.read(z, z + 1)[0]
        levels.append(noise_level(plane[middle_part(plane.shape)]))
        progress.update(number + 1, len(chosen), f"slice {z}")
    known = [level for level in levels if np.isfinite(level)]
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
    data: dict[str, Any] = {
        "noise_level": {"mean": float(np.mean(known)) if known else None, "sd": spread}
    }
    if known:
        rows.append(
            (
                "noise level",
                readable_number(float(np.mean(known)))
                + (f" ± {readable_number(spread, 2)}" if spread is not None else ""),
                f"grey levels, {slices(len(known))}, from differences of pixels: too small where "
                "noise is correlated",
            )
        )
    try:
        correlation, fit = noise_correlation(source), fit_noise(source)
    except ValueError as error:
        progress.message(f"Noise was not looked at more closely: {error}")
        data |= {"noise_fit": None, "noise_correlation": None}
        diagonal = 0.0
    else:
        diagonal = correlation.diagonal
        rows.append(
            (
                "noise in flat areas",
                readable_number(fit.sigma),
                f"grey levels, correlated noise included, in {fit.means.size} patches of 16 × 16"
                + (": so few that structure may count" if fit.means.size < FEW_PATCHES else ""),
            )
        )
        low, high = (readable_number(gain, 2) for gain in fit.gain_range)
        rows.append(
            (
                "Poisson–Gaussian fit",
                f"{readable_number(fit.gain)} × mean {readable_number(fit.constant, sign=True)}",
                f"variance in flat areas; {fit.kind} (95 % interval of the gain {low} … {high})",
            )
        )
        if fit.read_noise is not None:
            rows.append(
                (
                    "read noise",
                    readable_number(fit.read_noise),
                    "grey levels, where the line meets grey 0",
                )
            )
        if fit.offset is not None:
            rows.append(
                (
                    "offset",
                    readable_number(fit.offset),
                    "grey value without noise, were all of it Poisson",
                )
            )
        for axis in ("x", "y", "z"):
            lags = getattr(correlation, axis)
            if lags is not None:
                text = ", ".join(f"{value:.2f}" for value in lags if np.isfinite(value))
                rows.append(
                    (f"noise correlation, {axis}", text, "1, 2, 3 pixels apart; 0 = independent")
                )
        data["noise_fit"] = {
            "patches": fit.means.size,
            "gain": fit.gain,
            "gain_range": fit.gain_range,
            "constant": fit.constant,
            "sigma": fit.sigma,
            "read_noise": fit.read_noise,
            "offset": fit.offset,
        }
        data["noise_correlation"] = {
            "x": correlation.x,
            "y": correlation.y,
            "z": correlation.z,
            "diagonal": correlation.diagonal,
            "patches": correlation.patches,
        }
    if min(height, width) >= 2 * SMALLEST_EDGE:
        few = [part.start for part in sampled_slices(depth, PAIRS)]
        found = split_correlation(
            np.stack([middle(source, z) for z in few]), noise_correlation=diagonal
        )
        denoised = (volume.provenance or {}).get("command", "") == "denoise"
        meaning = "single slices, threshold 1/7 (half-bit in --json)"
        text = resolution_text(found, pixel_of(volume))
        if denoised:
            text = "not given"
            meaning = "it would mean nothing: the image was denoised, so its halves agree anyway"
        elif not found.trusted:
            meaning += "; too good, because the noise is correlated"
        rows.append(("resolution", text, meaning))
        data["ring_correlation"] = {
            **curve(found),
            "trusted": found.trusted and not denoised,
        }
    z = depth // 2
    plane = source.read(z, z + 1)[0]
    where = flat_line(plane) if line is None else ends_of_line(line, plane.shape)
    x0, y0, x1, y1 = where
    value = line_iqr(plane, (y0, x0), (y1, x1))
    place = f"from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) in slice {z}"
    if np.isfinite(value):
        chosen_by_us = ", chosen for being flat" if line is None else ""
        rows.append(("line IQR", readable_number(value), f"grey levels, {place}{chosen_by_us}"))
    data["line_iqr"] = {"value": value, "line": where, "slice": z, "chosen": line is None}
    findings = check(source)
    data["checks"] = [finding.as_dict() for finding in findings]
    told = f"{volume.name}: {depth} × {height} × {width}, {volume.dtype}."
    if findings:
        told += "\n" + "\n".join(finding.sentence for finding in findings)
    else:
        told += " No drift, gaps, copies, flicker or empty borders were found."
    return rows, data, told


def flat_line(plane: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return a horizontal line (x0, y0, x1, y1) through the flattest square of a slice.

    Flat is where the middle of the slice, smoothed by 2 pixels, varies least; padding is never
    chosen.
    """
    invalid = invalid_mask(plane)
    part = middle_part(plane.shape)
    if invalid is not None:
        invalid = None if invalid[part].all() else invalid[part]
    left, top = part[1].start, part[0].start
    values = whole(plane[part], invalid)
    height, width = values.shape
    edge = min(FLAT_LINE, min(height, width) // 2)
    smooth = ndimage.gaussian_filter(values, 2)
    smooth -= smooth.mean()  # or squares of large grey values lose the small differences
    means, squares = (ndimage.uniform_filter(image, edge) for image in (smooth, smooth**2))
    variance = squares - means**2
    if invalid is not None:
        variance[ndimage.uniform_filter(invalid.astype(np.float64), edge) > 1e-6] = np.inf
    half = (edge + 1) // 2
    inside = variance[half:-half, half:-half]
    if not inside.size:
        return float(left), top + height // 2, left + width - 1.0, top + height // 2
    y, x = np.unravel_index(int(np.argmin(inside)), inside.shape)
    x, y = left + int(x), top + int(y) + half
    return float(x), float(y), float(x + 2 * half - 1), float(y)


def middle(source: StackSource, z: int) -> Array:
    """Return the middle of a slice, with padding filled."""
    image = source.read(z, z + 1)[0]
    part = middle_part(image.shape)
    invalid = invalid_mask(image)
    return whole(image[part], None if invalid is None else invalid[part])


def slices(count: int) -> str:
    """Return "over one slice" or "over 5 slices"."""
    return "over one slice" if count == 1 else f"over {count} slices"


def curve(found: RingCorrelation) -> dict[str, Any]:
    """Return a Fourier ring correlation for programs."""
    return {
        "resolution_px": found.resolution(),
        "resolution_half_bit_px": found.half_bit,
        "finest_px": 1 / found.limit,
        "frequency": found.frequency,
        "correlation": found.correlation,
    }


def say_which(volume: Volume, progress: Progress) -> None:
    """Tell that of several channels or time points only the first is measured."""
    if volume.shape.t > 1 or volume.shape.c > 1:
        progress.message(
            f"{volume.name} has {volume.shape.c} channels and {volume.shape.t} time points: the "
            "first of each is measured."
        )


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
