"""``nrrn metrics`` and ``nrrn measure``: numbers about an image, as tables, CSV and a plot.

With a clean image, how near another one comes to it; without, what its noise is like, how fine its
detail is, and whether anything is wrong with the stack.  This module joins files and arithmetic
and must never change an image, nor write anything but what ``-o`` names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .files import write_whole
from .intensity import fill_invalid, grey_range, invalid_mask
from .metrics import PAPER_WINDOW, SSIM_WINDOW, Spread, line_iqr, line_profile, psnr, ssim
from .noise_statistics import fit_noise, noise_correlation, noise_level, sampled_slices
from .outputs import check_distinct
from .plots import ACCENT, DPI, INK, plain
from .progress import Cancelled, NoProgress, Progress
from .quality_page import pixel_of
from .reports import Report, Table
from .resolution import SMALLEST_EDGE, RingCorrelation, ring_correlation, split_correlation
from .stack_checks import check
from .volumes import StackSource, Volume, open_volume

__all__ = ["measure_files", "metrics_files", "parse_corners"]

Source = str | Path | NDArray[Any]
Array = NDArray[np.float64]

SAMPLED = 16
"""Slices whose noise level is estimated."""
PAIRS = 8
"""Slices whose spectra are averaged."""
WINDOW = 1024
"""Edge in pixels of the middle part that spectra are taken from."""
FLAT_LINE = 48
"""Length in pixels of a line that is chosen in a flat area."""
COLOURS = ("#1b6ca8", ACCENT)


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
    out = checked_output(out, [image, reference], ".csv", overwrite)
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
    return Report(told, data, Table(("", "value", "meaning"), tuple(rows)))


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
        # All slices equal: an infinite mean, and no spread.
        spread = float(np.std(values, ddof=1)) if depth > 1 and np.isfinite(values).all() else 0.0
        summary[key] = {"mean": float(np.mean(values)), "sd": spread}
        rows.append((title, f"{np.mean(values):.{digits}f} ± {spread:.{digits}f}", meaning))
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
                "Fourier ring correlation",
                period(found, volume),
                "of both images: their resolution if they are two scans with noise of their own",
            )
        )
        data["ring_correlation"] = curve(found)
    lines: list[tuple[str, ...]] = [("slice", *scores)]
    lines += [(str(z), *(f"{values[z]:.6g}" for values in scores.values())) for z in range(depth)]
    told = f"{volume.name} against {clean.name}: mean ± sd over {depth} slices."
    return rows, data, told, lines


def alone(
    volume: Volume, line: str | None, progress: Progress
) -> tuple[list[Row], dict[str, Any], str]:
    """Measure noise, resolution and flatness of an image, and look the stack over."""
    source = StackSource(volume, 0, 0)
    depth, height, width = source.shape
    rows: list[Row] = []
    chosen = [part.start for part in sampled_slices(depth, SAMPLED)]
    levels = []
    for number, z in enumerate(chosen):
        if progress.cancelled:
            raise Cancelled("Stopped; nothing was written.")
        levels.append(noise_level(source.read(z, z + 1)[0]))
        progress.update(number + 1, len(chosen), f"slice {z}")
    sd = float(np.nanstd(levels, ddof=1)) if len(levels) > 1 else 0.0
    known = bool(np.isfinite(levels).any())
    data: dict[str, Any] = {
        "noise_level": {"mean": float(np.nanmean(levels)) if known else None, "sd": sd}
    }
    if known:
        rows.append(
            (
                "noise level",
                f"{np.nanmean(levels):.3g} ± {sd:.2g}",
                f"grey levels, over {len(levels)} slices, from differences of pixels: too small "
                "where noise is correlated",
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
            ("noise in flat areas", f"{fit.sigma:.3g}", "grey levels, correlated noise included")
        )
        kind = "rises" if fit.rises else "does not rise"
        rows.append(
            (
                "Poisson–Gaussian fit",
                f"{fit.gain:.3g} × mean {fit.constant:+.3g}",
                f"variance in flat areas; it {kind} with brightness for certain "
                f"(gain {fit.gain_range[0]:.2g} … {fit.gain_range[1]:.2g})",
            )
        )
        if fit.read_noise is not None:
            rows.append(
                ("read noise", f"{fit.read_noise:.3g}", "grey levels, where the line meets grey 0")
            )
        if fit.offset is not None:
            rows.append(
                ("offset", f"{fit.offset:.3g}", "grey value without noise, were all of it Poisson")
            )
        for axis in ("x", "y", "z"):
            lags = getattr(correlation, axis)
            if lags is not None:
                text = ", ".join(f"{value:.2f}" for value in lags if np.isfinite(value))
                rows.append(
                    (f"noise correlation, {axis}", text, "1, 2, 3 pixels apart; 0 = independent")
                )
        data["noise_fit"] = {
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
        if denoised:
            meaning = "means nothing: the image was denoised, so its halves agree anyway"
        elif not found.trusted:
            meaning += "; too good, because the noise is correlated"
        rows.append(("resolution", period(found, volume), meaning))
        data["ring_correlation"] = {
            **curve(found),
            "trusted": found.trusted and not denoised,
        }
    z = depth // 2
    plane = source.read(z, z + 1)[0]
    where = flat_line(plane) if line is None else parse_corners(line, "line")
    x0, y0, x1, y1 = where
    value = line_iqr(plane, (y0, x0), (y1, x1))
    place = f"from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) in slice {z}"
    rows.append(
        ("line IQR", f"{value:.3g}", f"{place}{', chosen for being flat' if line is None else ''}")
    )
    data["line_iqr"] = {"value": value, "line": where, "slice": z, "chosen": line is None}
    findings = check(source)
    data["checks"] = [finding.as_dict() for finding in findings]
    told = f"{volume.name}: {depth} × {height} × {width}, {volume.dtype}."
    if findings:
        told += "\n" + "\n".join(finding.sentence for finding in findings)
    else:
        told += " No drift, gaps, copies, flicker or empty borders were found."
    return rows, data, told


# --- measure -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Measured(Spread):
    """What a line, a box or a whole slice shows."""

    title: str
    level: float
    profile: Array | None


def measure_files(
    image: Source,
    second: Source | None = None,
    *,
    slice: int | None = None,
    line: str | None = None,
    box: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Report:
    """Measure the spread of grey values in a slice, as Measure Noise… in Fiji does.

    Parameters
    ----------
    image, second
        Images as :func:`nrrn_fiji.open_volume` takes them; the second, of the same shape, is
        measured at the same place.
    slice
        Number of the slice, from 0; the middle one when left out.
    line, box
        "x0,y0,x1,y1" in pixels: ends of a line, or corners of a box (both included); the whole
        slice when both are left out.
    out
        A PNG file to write: box plots, and profiles along a line.
    overwrite
        Replace an existing picture.

    Raises
    ------
    ValueError, TypeError, OSError
        If the images cannot be read, or the place lies outside.
    """
    if line is not None and box is not None:
        raise ValueError("line and box were both given: measure one at a time.")
    out = checked_output(out, [image, second], ".png", overwrite)
    found: list[Measured] = []
    shape: tuple[int, ...] | None = None
    where = "the whole slice"
    for source in (image, second):
        if source is None:
            continue
        with open_volume(source) as volume:
            if shape is not None and volume.shape[2:] != shape:
                raise ValueError(
                    f"{volume.name} is {tuple(volume.shape[2:])} (Z, Y, X), but the first image is "
                    f"{shape}: give two images of one shape."
                )
            shape = tuple(volume.shape[2:])
            z = shape[0] // 2 if slice is None else slice
            if not 0 <= z < shape[0]:
                raise ValueError(
                    f"slice is {z}, but {volume.name} has slices 0 … {shape[0] - 1}: choose one."
                )
            plane = volume.read(z, z + 1)[0]
            title = volume.name
        part, profile = plane, None
        if line is not None:
            x0, y0, x1, y1 = parse_corners(line, "line")
            profile = line_profile(plane, (y0, x0), (y1, x1))
            where = f"the line from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
        elif box is not None:
            part, where = boxed(plane, box)
        values = np.asarray(part if profile is None else profile, np.float64).ravel()
        values = values[np.isfinite(values)]
        if values.size < 2:
            raise ValueError(
                f"{where} holds {values.size} finite pixels of {title}, but two or more are "
                "needed: choose another place."
            )
        found.append(Measured(values=values, title=title, level=noise_level(part), profile=profile))
    summary = f"Slice {z}, {where}; grey levels."
    if out is not None:
        write_whole(out, spread_picture(found))
        summary += f"\n{out}: the plot."
    columns = ("pixels", "mean", "sd", "median", "IQR", "noise level")
    data = [
        dict(
            zip(
                columns,
                (m.values.size, m.values.mean(), m.deviation, m.box[2], m.iqr, m.level),
                strict=True,
            )
        )
        for m in found
    ]
    rows = tuple(
        (
            m.title,
            *(f"{value:.4g}" if name != "pixels" else str(value) for name, value in d.items()),
        )
        for m, d in zip(found, data, strict=True)
    )
    return Report(
        summary,
        {
            "slice": z,
            "place": where,
            "images": [{"image": m.title, **d} for m, d in zip(found, data, strict=True)],
            "plot": str(out) if out is not None else None,
        },
        Table(("image", *columns), rows),
    )


def boxed(plane: NDArray[Any], box: str) -> tuple[NDArray[Any], str]:
    """Return the part of a slice inside a box "x0,y0,x1,y1", and its name."""
    x0, y0, x1, y1 = (round(v) for v in parse_corners(box, "box"))
    left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    height, width = plane.shape
    if left < 0 or top < 0 or right >= width or bottom >= height:
        raise ValueError(
            f"box is {box}, but it must lie inside the slice of {height} × {width} pixels (rows × "
            "columns), counted from 0: give its corners as x0,y0,x1,y1."
        )
    part = plane[top : bottom + 1, left : right + 1]
    return part, f"the box from ({left}, {top}) to ({right}, {bottom})"


def spread_picture(found: Sequence[Measured]) -> bytes:
    """Return box plots side by side, and the profiles of a line, as a PNG file."""
    from matplotlib.figure import Figure

    lines = found[0].profile is not None
    figure = Figure(
        figsize=(3.2 + 1.2 * len(found) + (5 if lines else 0), 3.6),
        dpi=1.5 * DPI,
        facecolor="white",
        layout="constrained",
    )
    grid = figure.subplots(
        1, 2 if lines else 1, squeeze=False, width_ratios=[1, 2] if lines else [1]
    )
    axes = grid[0, 0]
    boxes = axes.boxplot([m.values for m in found], whis=(0, 100), widths=0.5, patch_artist=True)
    for patch, middle_line, colour in zip(boxes["boxes"], boxes["medians"], COLOURS, strict=False):
        patch.set(facecolor=colour, alpha=0.35, edgecolor=colour)
        middle_line.set_color(INK)
    names = [f"{m.title}\nIQR {m.iqr:.4g}\nsd {m.deviation:.4g}" for m in found]
    axes.set_xticks(range(1, len(found) + 1), names)
    axes.set_ylabel("Grey value", fontsize=9, color=INK)
    plain(axes)
    if lines:
        for m, colour in zip(found, COLOURS, strict=False):
            assert m.profile is not None
            grid[0, 1].plot(m.profile, color=colour, linewidth=1.2, label=m.title)
        grid[0, 1].set_xlabel("Pixels along the line", fontsize=9, color=INK)
        grid[0, 1].legend(frameon=False, fontsize=9, labelcolor=INK)
        plain(grid[0, 1])
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


# --- what both share ---------------------------------------------------------------------------


def parse_corners(text: str, name: str) -> tuple[float, float, float, float]:
    """Return (x0, y0, x1, y1) from "x0,y0,x1,y1".

    Raises
    ------
    ValueError
        If these are not four numbers.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}, but it must be four numbers x0,y0,x1,y1 in pixels, such as "
            "10,50,200,50."
        ) from None
    return x0, y0, x1, y1


def flat_line(plane: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return a horizontal line (x0, y0, x1, y1) through the flattest square of a slice.

    Flat is where the slice, smoothed by 2 pixels, varies least; padding is never chosen.
    """
    edge = min(FLAT_LINE, min(plane.shape) // 2)
    invalid = invalid_mask(plane)
    values = plane if invalid is None else fill_invalid(plane, invalid)
    smooth = ndimage.gaussian_filter(values.astype(np.float64), 2)
    smooth -= smooth.mean()  # or squares of large grey values lose the small differences
    means, squares = (ndimage.uniform_filter(image, edge) for image in (smooth, smooth**2))
    variance = squares - means**2
    if invalid is not None:
        variance[ndimage.uniform_filter(invalid.astype(np.float64), edge) > 1e-6] = np.inf
    half = (edge + 1) // 2
    inside = variance[half:-half, half:-half]
    if not inside.size:
        return 0.0, plane.shape[0] // 2, plane.shape[1] - 1.0, plane.shape[0] // 2
    y, x = np.unravel_index(int(np.argmin(inside)), inside.shape)
    return float(x), float(y + half), float(x + 2 * half - 1), float(y + half)


def middle(source: StackSource, z: int) -> Array:
    """Return the middle of a slice, with padding filled."""
    image = source.read(z, z + 1)[0]
    invalid = invalid_mask(image)
    if invalid is not None:
        image = image if invalid.all() else fill_invalid(image, invalid)
    y, x = ((edge - min(edge, WINDOW)) // 2 for edge in image.shape)
    return np.nan_to_num(image[y : y + WINDOW, x : x + WINDOW].astype(np.float64))


def period(found: RingCorrelation, volume: Volume) -> str:
    """Return a resolution in pixels and, where they are calibrated, in units."""
    value = found.resolution()
    finest = 1 / found.limit
    pixel = pixel_of(volume)
    shown = finest if value is None else value
    unit = f" ({shown * pixel[0]:.3g} {pixel[1]})" if pixel else ""
    return f"{'finer than ' if value is None else ''}{shown:.3g} px{unit}"


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


def checked_output(
    out: str | Path | None, sources: Sequence[Source | None], suffix: str, overwrite: bool
) -> Path | None:
    """Return the path of an output that may be written; see the callers for what is refused."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix.lower() != suffix:
        raise ValueError(f"out is {path}, but a {suffix} file is written: give such a name.")
    check_distinct([Path(s) for s in sources if isinstance(s, (str, Path))], {"out": path})
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: add --overwrite, or give another name.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder {path.absolute().parent} does not exist: make it.")
    return path


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
