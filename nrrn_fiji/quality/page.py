"""``nrrn report``: the page that answers "is my result good?", from a noisy and a denoised stack.

It joins files, the numbers and judgements of :mod:`.assessment`, the stack checks and the
settings that the denoised file carries, and sets the pictures.  This module must never judge by
itself, and must write nothing but the page.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..files import write_whole
from ..formats.calibration import readable_length
from ..outputs.checks import checked_output
from ..pages import Figure, Section, Verdict, page
from ..progress import NoProgress, Progress
from ..reports import Report, Table, readable_number
from ..resolution import RingCorrelation
from ..stack_checks import check, findings_table
from ..volumes import Source, StackSource, Volume, open_volume
from .assessment import Quality, assess
from .plots import (
    correlation_picture,
    kept_picture,
    removed_picture,
    shift_picture,
    slices_picture,
    tiles_picture,
)
from .residuals import APART
from .stack_pairs import Both
from .verdicts import PERIODS, overall, verdicts

__all__ = ["pixel_of", "report_files", "resolution_text"]

Array = NDArray[np.float64]

SHOWN = 360
"""Edge in pixels of the part of a slice that is shown."""


def report_files(
    noisy: Source,
    denoised: Source,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write a page about a denoised stack.

    Parameters
    ----------
    noisy, denoised
        Images as :func:`nrrn_fiji.open_volume` takes them, of the same shape; of several channels
        and time points the first is looked at.
    out
        The HTML file.
    overwrite
        Replace an existing file.
    progress
        Told of every slice, and asked whether to stop.

    Returns
    -------
    Report
        Judgements and numbers; ``exit_code`` is 0 whatever they are.

    Raises
    ------
    FileExistsError
        If the page exists.
    ValueError, TypeError, OSError
        If the stacks cannot be read or do not belong together.
    Cancelled
        If the user stopped; nothing is written then.
    """
    target = checked_output(out, (noisy, denoised), (".html", ".htm"), overwrite)
    assert target is not None
    out = target
    progress = progress or NoProgress()
    with open_volume(noisy) as before, open_volume(denoised) as after:
        for volume in (before, after):
            if volume.shape.t > 1 or volume.shape.c > 1:
                progress.message(
                    f"{volume.name} has {volume.shape.c} channels and {volume.shape.t} time "
                    "points: the first of each is looked at."
                )
        one, other = StackSource(before, 0, 0), StackSource(after, 0, 0)
        quality = assess(one, other, voxel=pixel_of(before), progress=progress)
        judged = verdicts(quality)
        checks = check(one)
        pictures = shown_slices(Both(one, other))
        provenance = after.provenance
        sections = sections_of(quality, judged, pictures, provenance)
        sections.insert(
            -1,
            Section(
                "The noisy stack itself",
                paragraphs=["Nothing was found: no drift, gaps, copies, flicker or empty borders."]
                if not checks
                else ["What was found when the noisy stack was looked over:"],
                table=findings_table(checks) if checks else None,
            ),
        )
        shape = " × ".join(map(str, quality.shape))
        date = datetime.now(UTC)
        write_whole(
            out,
            page(
                "Is the denoised stack good?",
                sections,
                subtitle=f"{after.name} compared with {before.name}: {shape} (Z × Y × X), "
                f"{before.dtype}; {date:%d %B %Y}",
                footer=f"Made by nrrn-fiji {__version__} (nrrn report); no clean image was used.",
            ).encode(),
        )
    worst = overall(judged)
    rows = tuple((v.label, v.title, v.value, v.words) for v in judged.values())
    return Report(
        f"{worst.words}\n{out}: open it in a browser.",
        {
            "report": str(out),
            "overall": worst.light,
            "verdicts": {
                key: {"light": v.light, "value": v.value, "words": v.words}
                for key, v in judged.items()
            },
            "numbers": numbers(quality),
            "checks": [finding.as_dict() for finding in checks],
            "provenance": provenance,
        },
        Table(("", "what", "measured", "meaning"), rows),
    )


def pixel_of(volume: Volume) -> tuple[float, str] | None:
    """Return the edge of a pixel in a slice and its unit; None unless pixels are known squares."""
    size, unit = volume.voxel_size, volume.voxel_unit
    if size is None or not unit or unit.lower().startswith("pixel"):
        return None
    return (size[2], unit) if np.isclose(size[1], size[2], rtol=1e-3) else None


def numbers(quality: Quality) -> dict[str, Any]:
    """Return what was measured, by name, for programs."""
    detail, fit, correlation = quality.detail, quality.fit, quality.correlation
    return {
        "noise_left": quality.noise_left,
        "noise_before_after": quality.sigma,
        "detail_kept": {str(p): detail.kept_at(p) for p in PERIODS} if detail else None,
        "ring_correlation_gain": detail.gain() if detail else None,
        "removed_alike": quality.removed_alike,
        "removed_structure": quality.removed_structure,
        "removed_like_kept": quality.removed_like_kept,
        "removed_neighbours": {"all": quality.neighbours[0], "flat": quality.neighbours[1]},
        "grey_shift": {"mean": quality.shift.mean, "worst": quality.shift.worst},
        "match": {
            "correlation": quality.match.correlation,
            "expected": quality.match.expected,
            "contrast": quality.match.contrast,
            "offset_zyx": quality.match.offset,
        }
        if quality.match
        else None,
        "lines": {
            "before": quality.lines.before,
            "after": quality.lines.after,
            "added": quality.lines.added,
            "seams": quality.lines.seams,
        }
        if quality.lines
        else None,
        "unevenness": quality.unevenness,
        "outlying_slices": quality.slices.outliers,
        "noise": {
            "gain": fit.gain if fit else None,
            "constant": fit.constant if fit else None,
            "correlation_x": correlation.x if correlation else None,
            "correlation_y": correlation.y if correlation else None,
            "correlation_z": correlation.z if correlation else None,
        },
        "resolution_of_noisy": quality.split.resolution() if quality.split else None,
        "resolution_of_noisy_trusted": quality.split.trusted if quality.split else None,
    }


def shown_slices(both: Both) -> tuple[int, Array, Array]:
    """Return the middle slice's number, and the middle of it noisy and denoised."""
    z = both.shape[0] // 2
    middle = both.middle(z)
    y, x = (max(edge - SHOWN, 0) // 2 for edge in middle.noisy.shape)
    part = np.s_[y : y + SHOWN, x : x + SHOWN]
    return z, middle.noisy[part], middle.denoised[part]


def sections_of(
    quality: Quality,
    judged: dict[str, Verdict],
    shown: tuple[int, Array, Array],
    provenance: dict[str, Any] | None,
) -> list[Section]:
    """Return the page's sections; the last one holds the settings."""
    settings = Section(
        "How the stack was denoised",
        paragraphs=[]
        if provenance
        else [
            "The denoised file does not say: it was not made by nrrn, or its metadata were lost."
        ],
        code=json.dumps(provenance, indent=2, ensure_ascii=False) if provenance else "",
    )
    sections = [Section("In short", [overall(judged).words], verdicts=list(judged.values()))]
    if not quality.changed:
        return [*sections, settings]
    z, noisy, clean = shown
    sections.append(
        Section(
            "What was removed",
            figures=[
                Figure(
                    removed_picture(noisy, clean),
                    f"The middle of slice {z}: noisy, denoised (same grey scale), and the "
                    "difference with mid-grey for no change. The difference should look like "
                    "noise alone. Below, what is finer than about 10 pixels: outlines must be "
                    "found there after denoising as before.",
                )
            ],
        )
    )
    sections.append(structure_section(quality))
    sections.append(noise_section(quality))
    sections.append(
        Section(
            "Everywhere alike?",
            figures=[
                Figure(
                    tiles_picture(quality),
                    "Standard deviation of what was removed, per tile, mean over the slices.",
                    wide=False,
                ),
                Figure(
                    shift_picture(quality),
                    "Change of grey values by grey level (of the slice three slices away, so that "
                    "noise has no say); the dashed line is the overall change.",
                    wide=False,
                ),
                Figure(
                    slices_picture(quality),
                    "What was removed from each slice, and how its mean changed. Slices that stand "
                    "out are marked.",
                ),
            ],
        )
    )
    return [*sections, settings]


def structure_section(quality: Quality) -> Section:
    """Return the section on detail kept and structure removed."""
    found = quality.detail
    if found is None:
        return Section("Structure or noise?", [quality.reasons.get("detail", "")])
    rows = [
        (f"{p} px{length_text(p, quality.voxel)}", f"{100 * found.kept_at(p):.0f} %")
        if np.isfinite(found.kept_at(p))
        else (f"{p} px{length_text(p, quality.voxel)}", "not known: drowned in noise")
        for p in PERIODS
    ]
    return Section(
        "Structure or noise?",
        paragraphs=[
            f"Slices {APART} apart show nearly the same structure with different noise, and the "
            "NRRN made their denoised forms from different noisy slices. So what they share is "
            "structure: left, how well they agree at each size of detail; right, how much of the "
            "shared detail is still there."
        ],
        figures=[
            Figure(
                correlation_picture(quality),
                f"Fourier ring correlation of slices {APART} apart. It should rise where noise had "
                "hidden structure. A plain blur leaves it as it was.",
                wide=False,
            ),
            Figure(
                kept_picture(quality),
                "Contrast of the detail that was kept. At 100 % nothing is lost; where the noise "
                "drowns everything there is no curve.",
                wide=False,
            ),
        ],
        table=Table(("size of detail (period)", "contrast kept (100 % = all)"), tuple(rows)),
        notes=[
            f"Removed grey values of slices {APART} apart correlate by "
            f"{quality.removed_alike or 0:.3f} (noise alone: 0); removed and kept ones of the same "
            f"slice, median over tiles, by {quality.removed_like_kept:.2f}; removed ones of "
            f"neighbouring pixels by {quality.neighbours[0]:.2f} (in flat areas "
            f"{quality.neighbours[1]:.2f}).",
            "Not seen by this: detail that differs entirely between slices, or is lost by mixing "
            "slices. Other methods may look further than one slice along z; their slices then "
            "share noise, and the curve after denoising is too good. Stripes that run through many "
            "slices (curtains) count as structure. The surest test is two scans of one slice, "
            "denoised each on its own: nrrn metrics SCAN1 SCAN2.",
        ],
    )


def noise_section(quality: Quality) -> Section:
    """Return the section on the noise of the noisy stack."""
    rows: list[tuple[str, str, str]] = []
    notes: list[str] = []
    fit, correlation, split = quality.fit, quality.correlation, quality.split
    if fit is not None:
        rows.append(
            (
                "strength",
                f"{readable_number(fit.sigma)} grey levels",
                "standard deviation in flat areas of middle brightness",
            )
        )
        rows.append(
            (
                "variance",
                f"{readable_number(fit.gain)} × mean {readable_number(fit.constant, sign=True)}",
                fit.kind,
            )
        )
    if correlation is not None:
        for axis in ("x", "y", "z"):
            lags = getattr(correlation, axis)
            if lags is not None:
                text = ", ".join(f"{value:.2f}" for value in lags if np.isfinite(value))
                apart = "slices" if axis == "z" else "pixels"
                rows.append(
                    (
                        f"correlation along {axis}",
                        text,
                        f"1, 2, 3 {apart} apart; 0 = independent, 1 = the same",
                    )
                )
        if correlation.strongest > 0.1:
            notes.append(
                "The noise of neighbouring pixels is alike, so a mask of single pixels in training "
                "would give it away."
            )
    if split is not None:
        rows.append(
            (
                "resolution",
                resolution_text(split, quality.voxel),
                "the finest detail of a single slice above its noise, by Fourier ring correlation "
                "of the split image (threshold 1/7)",
            )
        )
        if not split.trusted:
            notes.append(
                "The resolution of a single slice is too good here: its noise is correlated, and "
                "looks like detail to the split-image Fourier ring correlation."
            )
    notes.append(
        "For the denoised stack no such resolution is given: a split denoised image always agrees "
        "with itself, whatever it shows."
    )
    return Section(
        "The noise", table=Table(("noisy stack", "measured", "meaning"), tuple(rows)), notes=notes
    )


def resolution_text(found: RingCorrelation, pixel: tuple[float, str] | None) -> str:
    """Return a resolution (threshold 1/7) as a text, in pixels and, if ``pixel`` gives their edge
    and its unit, in units."""
    if found.drowned:
        return "none: noise drowns everything"
    period = found.resolution()
    shown = 1 / found.limit if period is None else period
    return f"{'finer than ' if period is None else ''}{shown:.3g} px{length_text(shown, pixel)}"


def length_text(pixels: float, pixel: tuple[float, str] | None) -> str:
    """Return a length as a text in calibrated units, in brackets; or nothing."""
    return f" ({readable_length(pixels * pixel[0], pixel[1])})" if pixel else ""
