"""Align and Average Scans…: the open stack holds repeated scans of one slice; out comes one image.

The work is that of ``nrrn register``, so places, pixels and records are the same.  This module must
never change the stack it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..commands import Kind, Option, find_command
from ..progress import NoProgress, Progress
from ..settings import RegisterSettings
from . import java
from .entry import Entry, Host, options_of, unused_title
from .images import ImagePlusVolume, ImagePlusWriter, volume_of
from .jobs import title_of
from .layout import show

__all__ = ["AlignedImages", "align_entry", "align_image"]

# What a run into files needs; the scans of one slice are in the open stack.
FILE_OPTIONS = ("sources", "out", "keep", "overwrite", "restart", "per_slice")
MARGIN = 0.08
"""Above and below what a plot shows, as a share of that."""
COLOURS = {"x": "#1f5fa8", "y": "#c2571a"}


@dataclass(frozen=True)
class AlignedImages:
    """What :func:`align_image` made; nothing is shown yet."""

    average: Any
    """``ij.ImagePlus`` of one slice."""
    aligned: Any
    """``ij.ImagePlus`` with the scans that fit as slices; None if it was not asked for."""
    names: tuple[str, ...]
    placement: Any
    """:class:`nrrn_fiji.registration.Placement`."""


def align_entry() -> Entry:
    """Return Align and Average Scans…"""
    command = find_command("register")
    keep = Option(
        name="keep",
        label="Show aligned scans",
        help="Also show the aligned scans as a stack, to train on or to denoise as scans.",
        kind=Kind.FLAG,
        default=False,
    )
    return Entry(
        label="Align and Average Scans...",
        key="register",
        summary="Lay the repeated scans of one slice, the open stack, onto each other; average.",
        options=(*options_of(command, *FILE_OPTIONS), keep),
        check=command.make_settings,
        run=align,
    )


def align(host: Host, values: dict[str, Any]) -> None:
    """Show the average of the open stack's slices, and how they have drifted."""
    imp = host.current_image()
    with host.working_on(imp, "Align and Average Scans") as progress:
        made = align_image(
            imp,
            find_command("register").make_settings(values),
            keep=values.get("keep", False),
            progress=progress,
        )
        for number, reason in made.placement.rejected.items():
            progress.message(f"{made.names[number]} was left out because {reason}.")
    show(shift_plot(str(imp.getTitle()), made))
    for result in (made.aligned, made.average):  # the average last: it is then the active one
        if result is not None:
            result.setTitle(unused_title(str(result.getTitle())))
            show(result)


def align_image(
    imp: Any,
    settings: RegisterSettings,
    *,
    keep: bool = False,
    progress: Progress | None = None,
) -> AlignedImages:
    """Lay the slices of a stack, scans of one slice of the specimen, onto each other.

    Parameters
    ----------
    imp
        ``ij.ImagePlus``; its slices, or its time points, are the scans.
    settings
        How.
    keep
        Also return the aligned scans.
    progress
        Told of each scan, and asked whether to stop.

    Returns
    -------
    AlignedImages
        New images of the same type and calibration.

    Raises
    ------
    ValueError, TypeError
        If the image cannot be used, or the scans do not fit onto each other.
    ImportError
        If pystackreg is not installed.
    Cancelled
        When the user stops; no image is made then.
    """
    from ..jobs.register import provenance
    from ..registration import align_scans, place_scans
    from ..scans.average import as_type, average_scans
    from ..scans.files import Scans

    volume = volume_of(imp)
    assert isinstance(volume, ImagePlusVolume)
    if volume.shape.t > 1 and volume.shape.z == 1:
        volume.reinterpret("T")
    if volume.shape.t > 1:
        raise ValueError(
            f"{volume.name} has {volume.shape.t} time points of {volume.shape.z} slices, but a "
            "stack of scans of one slice is needed: use nrrn register on the file, or duplicate "
            "the scans of one slice first."
        )
    scans = Scans([volume])
    images = scans.read(0)
    placement = place_scans(images, settings.transform, progress=progress or NoProgress())
    aligned = align_scans(images, placement, progress=progress)
    mean, _ = average_scans(aligned, settings.average)

    def made(kind: str, title: str, planes: np.ndarray[Any, Any]) -> Any:
        writer = ImagePlusWriter(
            volume,
            title=title_of(volume.name, title),
            slices=range(len(planes)),
            provenance=provenance(scans.names, settings, [placement], kind),
        )
        writer.write(0, as_type(planes, volume.dtype))
        return writer.finish()

    average = made("image", "average", mean[np.newaxis])
    average.setProp("Slice_Label", None)  # that of the first scan alone; ImageJ keeps it twice
    average.getStack().setSliceLabel(None, 1)
    stack = made("scans", "aligned", aligned) if keep else None
    if stack is not None:
        for place, number in enumerate(placement.kept):
            stack.getStack().setSliceLabel(scans.names[number], place + 1)
    return AlignedImages(average, stack, scans.names, placement)


def shift_plot(title: str, made: AlignedImages) -> Any:
    """Return an ``ij.gui.Plot`` of the shifts of all scans; those left out are crosses."""
    placement = made.placement
    plot = java.JClass("ij.gui.Plot")(unused_title(f"Shifts of {title}"), "Scan", "Shift (px)")
    plot.setFrameSize(520, 300)
    kept = list(placement.kept)
    lost = sorted(placement.rejected)
    doubles = java.JArray(java.JDouble)
    for axis, column in (("x", 1), ("y", 0)):
        shifts = placement.shifts[:, column]
        plot.setColor(COLOURS[axis], COLOURS[axis])  # of circles, and of what connects them
        plot.setLineWidth(2)
        # ImageJ counts slices from 1.
        at = doubles([i + 1.0 for i in kept])
        plot.add("connected circle", at, doubles(shifts[kept].tolist()))
        if lost:
            plot.add("x", doubles([i + 1.0 for i in lost]), doubles(shifts[lost].tolist()))
    plot.setColor("black")
    plot.setLineWidth(1)
    names = [f"{what} {axis}" for axis in "xy" for what in ("along", "left out,")[: 1 + bool(lost)]]
    plot.addLegend("\n".join(names))
    low, high = float(placement.shifts.min()), float(placement.shifts.max())
    room = MARGIN * ((high - low) or 1.0)  # or circles and crosses at the edges were cut
    plot.setLimits(0.5, len(made.names) + 0.5, low - room, high + room)
    return plot
