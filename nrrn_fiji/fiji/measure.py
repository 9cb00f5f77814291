"""Measure Noise…, and the same numbers for macros: how much noise a line or an area shows.

Along a line, or in an area, where the specimen is flat (resin, say), the spread of the grey values
is the noise: its interquartile range (IQR) and standard deviation, a box plot and a profile.  The
noise level of a whole slice is estimated too, from differences between neighbouring pixels.  This
module must never change an image, nor move its selection.

Sources: the IQR along a line and the box plots of *Noise Reconstruction and Removal Network*,
submitted to ICLR 2022; ``ij.gui.ProfilePlot``, ``ij.gui.Plot`` and ``ij.macro.MacroExtension`` of
ImageJ 1.54p.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..commands import Kind, Option
from ..metrics import Spread
from ..noise_statistics import noise_level
from ..reports import readable_number
from . import java
from .dialogs import OpenImage
from .entry import Entry, Host, message_of, unused_title
from .images import volume_of
from .layout import activate, put_beside, show
from .pixels import java_array, pixels_to_java

__all__ = ["Measured", "extensions_entry", "measure_entry", "measured"]

ALL, TABLE = "all", "table"
COLOURS = ("#1f5fa8", "#c2571a")
FILLS = ("#b9cfe9", "#f2c9ae")
BOX_WIDTH = 60  # pixels on the screen


@dataclass(frozen=True, kw_only=True)
class Measured(Spread):
    """What a selection of one slice shows, in grey values."""

    title: str
    place: str
    """Which slice, channel and time point, counted from 1."""
    selection: str
    level: float
    """Estimated standard deviation of the noise of the area, or, for a line or no selection, of
    the whole slice; NaN where that is too small to tell."""
    distance: NDArray[np.float64] | None = None
    """Along a line: where each of ``profile`` is, in calibrated units."""
    profile: NDArray[np.float64] | None = None
    unit: str = ""


def measured(imp: Any, roi: Any, index: int | None = None) -> Measured:
    """Measure one slice of an image.

    Parameters
    ----------
    imp
        ``ij.ImagePlus``.
    roi
        A line or an area in pixels, an ``ij.gui.Roi``; None for the whole slice.
    index
        Which slice, as ImageJ counts the images of a stack, from 1; the one shown when left out.

    Raises
    ------
    ValueError
        If the image holds no grey values, or the selection no two finite pixels.
    """
    volume = volume_of(imp)
    shown = int(imp.getCurrentSlice()) if index is None else index
    channel, z, time = (int(n) for n in imp.convertIndexToPosition(shown))
    plane = volume.read(z - 1, z, channel=channel - 1, time=time - 1)[0]
    sizes = (("channel", channel), ("slice", z), ("time", time))
    counts = (volume.shape.c, volume.shape.z, volume.shape.t)
    places = [f"{name} {n}" for (name, n), count in zip(sizes, counts, strict=True) if count > 1]
    distance = profile = None
    unit = ""
    part = plane
    if roi is None:
        values, kind = plane.ravel(), "whole slice"
    elif roi.isArea():
        part, mask = part_inside(plane, roi)
        values, kind = part[mask], str(roi.getTypeAsString()).lower() + " area"
    elif roi.isLine():
        profile, distance, unit = profile_along(imp, plane, roi)
        values, kind = profile, str(roi.getTypeAsString()).lower()
        kind = kind if "line" in kind else f"{kind} line"
    else:
        raise ValueError(
            f"The selection is a {str(roi.getTypeAsString()).lower()}, but noise is measured along "
            "a line or in an area: draw one where the specimen is flat."
        )
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        raise ValueError(
            f"The selection holds {finite.size} finite pixels of {volume.name!r}, but two or more "
            "are needed: draw a longer line or a larger area inside the image."
        )
    return Measured(
        values=finite,
        title=volume.name,
        place=", ".join(places) or "slice 1",
        selection=kind,
        level=noise_level(part),
        distance=distance,
        profile=profile,
        unit=unit,
    )


def part_inside(plane: NDArray[Any], roi: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the part of a slice that surrounds an area, and which of its pixels are inside.

    Raises
    ------
    ValueError
        If the area lies outside of the image.
    """
    bounds = roi.getBounds()
    height, width = plane.shape
    left, top = max(int(bounds.x), 0), max(int(bounds.y), 0)
    right = min(int(bounds.x + bounds.width), width)
    bottom = min(int(bounds.y + bounds.height), height)
    if left >= right or top >= bottom:
        raise ValueError(
            f"The selection lies outside of the image of {width} x {height} pixels: move it inside."
        )
    part = plane[top:bottom, left:right]
    mask = np.ones(part.shape, np.bool_)
    shape = roi.getMask()
    if shape is not None:
        whole = np.asarray(shape.getPixels()).reshape(int(bounds.height), int(bounds.width)) != 0
        y, x = top - int(bounds.y), left - int(bounds.x)
        mask = whole[y : y + part.shape[0], x : x + part.shape[1]]
    return part, mask


def profile_along(
    imp: Any, plane: NDArray[Any], roi: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return ImageJ's own profile along a line, with positions and their unit."""
    height, width = plane.shape
    pixels = java_array(plane.size, np.dtype(np.float32))
    pixels_to_java(plane.astype(np.float32), pixels)
    # A copy: the line may be that of another image, and must not move this one's selection.
    copy = java.JClass("ij.ImagePlus")(
        "line", java.JClass("ij.process.FloatProcessor")(width, height, pixels)
    )
    calibration = imp.getCalibration()
    unit = str(calibration.getUnits()) if calibration.scaled() else "pixels"
    copy.setRoi(roi.clone())
    profile = np.asarray(java.JClass("ij.gui.ProfilePlot")(copy).getProfile(), np.float64)
    step = float(calibration.pixelWidth) if calibration.scaled() else 1.0
    if calibration.scaled() and str(roi.getTypeAsString()) == "Straight Line":
        # Along y pixels may be larger: the length is shared out over the profile.
        across = float(roi.x2d - roi.x1d) * float(calibration.pixelWidth)
        down = float(roi.y2d - roi.y1d) * float(calibration.pixelHeight)
        step = float(np.hypot(across, down)) / max(len(profile) - 1, 1)
    return profile, np.arange(len(profile), dtype=np.float64) * np.float64(step), unit


# --- the command -------------------------------------------------------------------------------


def measure_entry() -> Entry:
    """Return Measure Noise…"""
    return Entry(
        label="Measure Noise...",
        key="measure-noise",
        summary="Measure noise along a line, in an area, or in the whole slice.",
        options=(
            OpenImage(
                name="second",
                label="Second image",
                help="Another open image of the same size, such as the denoised one: the same "
                "selection is measured there, side by side, in the same slice; if it has more or "
                "fewer slices, in the one that it shows.",
            ),
            Option(
                name="show",
                label="What to show",
                help="all: rows in the Results table, a box plot and, for a line, its profile; "
                "table: the rows alone.",
                kind=Kind.TEXT,
                default=ALL,
                choices=(ALL, TABLE),
            ),
        ),
        run=measure,
    )


def measure(host: Host, values: dict[str, Any]) -> None:
    """Measure the selection of the open image, and of a second one, in table and plots."""
    imp = host.current_image()
    images = [imp]
    if "second" in values:
        images.append(host.open_image(values["second"]))
        check_alike(*images)
    # The same slice of both, whatever the other one shows; its own where it has fewer or more.
    shapes = [volume_of(image).shape for image in images]
    counts = [(shape.c, shape.z, shape.t) for shape in shapes]
    index = int(imp.getCurrentSlice())
    found = [
        measured(image, imp.getRoi(), index if count == counts[0] else None)
        for image, count in zip(images, counts, strict=True)
    ]
    add_rows(found)
    if values.get("show", ALL) == ALL:
        show_plots(found)
        if host.in_macro:  # the next command is for the macro's image, not for a plot
            activate(imp)


def check_alike(one: Any, other: Any) -> None:
    """Refuse two images of which one selection cannot be measured."""
    sizes = [(int(image.getWidth()), int(image.getHeight())) for image in (one, other)]
    if sizes[0] != sizes[1]:
        texts = [
            f"{str(image.getTitle())!r} of {width} x {height}"
            for image, (width, height) in zip((one, other), sizes, strict=True)
        ]
        raise ValueError(
            f"{texts[0]} and {texts[1]} pixels differ in size: choose two images of one size."
        )


def add_rows(found: Sequence[Measured]) -> None:
    """Add a row per image to ImageJ's Results table and show it."""
    table = java.JClass("ij.measure.ResultsTable").getResultsTable()
    for one in found:
        table.incrementCounter()
        table.addValue("Image", one.title)
        table.addValue("Place", one.place)
        table.addValue("Selection", one.selection)
        for column, value in (
            ("Pixels", one.values.size),
            ("Mean", one.values.mean()),
            ("StdDev", one.deviation),
            ("Median", one.box[2]),
            ("IQR", one.iqr),
            ("Noise", one.level),
        ):
            table.addValue(column, java.JDouble(float(value)))
    table.show("Results")


def show_plots(found: Sequence[Measured]) -> None:
    """Show a box plot, and for a line its profile beside it, of all images together."""
    boxes = box_plot(found)
    if found[0].profile is None:
        show(boxes)
        return
    profile = profile_plot(found)
    show(profile)
    show(boxes)
    put_beside(boxes.getImagePlus(), profile.getImagePlus(), over=True)


def box_plot(found: Sequence[Measured]) -> Any:
    """Return an ``ij.gui.Plot`` with a box per image: quartiles, median, least and greatest."""
    title = unused_title(f"Noise of {found[0].title}")
    plot = java.JClass("ij.gui.Plot")(title, "", "Grey value")
    plot.setFrameSize(150 + 170 * len(found), 320)
    boxes = [one.box for one in found]
    low, high = min(box[0] for box in boxes), max(box[4] for box in boxes)
    room = (high - low) or 1.0
    plot.setLimits(-0.5, len(found) - 0.5, low - 0.08 * room, high + 0.25 * room)
    # ImageJ writes texts in braces, from 0 on, instead of numbers.
    names = ",".join(shortened(one.title).replace(",", " ") for one in found)
    plot.setXYLabels(f"{{{names}}}", "Grey value")
    flags = java.JClass("ij.gui.Plot")
    plot.setFormatFlags(flags.X_NUMBERS | flags.Y_NUMBERS | flags.Y_GRID | flags.Y_TICKS)
    for number, (one, box) in enumerate(zip(found, boxes, strict=True)):
        coordinates = java.JClass("java.util.ArrayList")()
        coordinates.add(java.JArray(java.JFloat)([float(number), *box]))
        plot.setColor(COLOURS[number], FILLS[number])
        plot.setLineWidth(2)
        plot.drawShapes(f"boxes width={BOX_WIDTH}", coordinates)
        plot.setColor("black")
        plot.setJustification(java.JClass("ij.gui.Plot").CENTER)
        # Text is placed in the frame, from 0 to 1 along x, down from the top along y.
        centre = (number + 0.5) / len(found)
        plot.addLabel(centre, 0.05, spread_in_words(one))
    return plot


def spread_in_words(one: Measured) -> str:
    """Return what stands above a box; as numbers are written everywhere."""
    return f"IQR {readable_number(one.iqr)}\nSD {readable_number(one.deviation)}"


def profile_plot(found: Sequence[Measured]) -> Any:
    """Return an ``ij.gui.Plot`` with the profile of every image along the line."""
    title = unused_title(f"Profile of {found[0].title}")
    plot = java.JClass("ij.gui.Plot")(title, f"Distance ({found[0].unit})", "Grey value")
    plot.setFrameSize(560, 300)
    for number, one in enumerate(found):
        assert one.distance is not None
        assert one.profile is not None
        plot.setColor(COLOURS[number])
        plot.setLineWidth(1.5)
        plot.add("line", doubles(one.distance), doubles(one.profile))
    plot.setColor("black")
    plot.setLimitsToFit(False)
    if len(found) > 1:
        plot.addLegend("\n".join(one.title for one in found))
    return plot


def doubles(values: NDArray[np.float64]) -> Any:
    """Return Java's array of numbers."""
    return java.JArray(java.JDouble)(values.tolist())


def shortened(title: str) -> str:
    """Return a title that fits above a box."""
    return title if len(title) <= 24 else f"{title[:12]}…{title[-11:]}"


# --- functions for macros ----------------------------------------------------------------------


def extensions_entry() -> Entry:
    """Return the command that gives a macro its functions ``Ext.noiseLevel`` and ``Ext.iqr``."""
    return Entry(
        label="NRRN Macro Extensions",
        key="extensions",
        summary="Give a macro the functions Ext.noiseLevel(sigma) and Ext.iqr(value).",
        run=register_extensions,
        in_menu=False,
        needs_image=False,
    )


def register_extensions(host: Host, values: dict[str, Any]) -> None:
    """Give the macro that runs its functions.

    Raises
    ------
    ValueError
        If no macro runs.
    """
    if not host.in_macro:
        raise ValueError(
            'This command is for macros: write run("NRRN Macro Extensions"); in a macro, then '
            "Ext.noiseLevel(sigma); or Ext.iqr(value);"
        )
    java.JClass("ij.macro.Functions").registerExtensions(_extensions(host))


@functools.cache
def _extensions(host: Host) -> Any:
    """Return the ``ij.macro.MacroExtension``; one for good, because Java may keep it for long."""
    extension = java.JClass("ij.macro.MacroExtension")
    descriptor = java.JClass("ij.macro.ExtensionDescriptor")
    number = int(extension.ARG_NUMBER) | int(extension.ARG_OUTPUT)

    def functions() -> Any:
        made = [descriptor.newDescriptor(name, proxy, number) for name in ("noiseLevel", "iqr")]
        return java.JArray(descriptor)(made)

    def answer(name: Any, arguments: Any) -> Any:
        try:
            imp = host.current_image()
            found = measured(imp, imp.getRoi())
        except Exception as error:
            host.error = error
            end_macro(message_of(error))
        value = found.level if str(name) == "noiseLevel" else found.iqr
        arguments[0][0] = java.JClass("java.lang.Double")(value)
        return None

    proxy = java.JProxy(
        extension, dict={"getExtensionFunctions": functions, "handleExtension": answer}
    )
    return proxy


def end_macro(message: str) -> NoReturn:
    """End the macro that runs with a sentence and its line, as ImageJ's own functions do.

    ``IJ.error`` ends a macro in commands alone, not in functions.
    """
    interpreter = java.JClass("ij.macro.Interpreter").getInstance()
    text = java.JClass("java.lang.String").class_
    error = interpreter.getClass().getDeclaredMethod("error", text)
    error.setAccessible(True)
    try:
        error.invoke(interpreter, message)
    except java.JException as failed:
        raise failed.getCause() from None
    raise RuntimeError(message)
