"""Preview…: the slice that is shown, or the selection in it, denoised as the settings stand.

What is computed is what Denoise Stack… would compute there: neighbours, grey range and surroundings
of the selection are taken into account.  The preview follows the settings, the slice, the
selection, and the image when that is cropped or converted.  This module must never change the
image, and never let work go on that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..commands import find_command
from ..denoising import denoise_slabs
from ..formats.image import Volume
from ..intensity import grey_range
from ..models import DEFAULT_MODEL, load_model
from ..network import receptive_radius
from ..plan import make_plan
from ..progress import Cancelled, NoProgress
from ..settings import DenoiseSettings
from ..volumes import StackSource
from . import java
from .dialogs import Form, add_note, help_of, watched
from .entry import Entry, Host, message_of, unused_title
from .images import volume_of
from .layout import (
    activate,
    close_with,
    help_in_front,
    mark_as_ours,
    move_away,
    put_beside,
    show,
    show_alike,
)
from .training import float_processor

__all__ = ["follow", "preview", "preview_of"]


LINES = 5
"""Of the note beneath the settings: errors are said there, and some are long."""
FOLLOWS = (
    "The preview follows the settings, the slice that the image shows, and the selection: draw a "
    "rectangle to look at a part of a large image. Close takes the preview away, Keep Image leaves "
    "it open. Denoise Stack... then does the whole stack."
)


class Part:
    """A rectangle of a stack as the engine's source."""

    def __init__(self, source: StackSource, rows: slice, columns: slice):
        self._source, self._rows, self._columns = source, rows, columns
        depth = source.shape[0]
        self.shape = (depth, rows.stop - rows.start, columns.stop - columns.start)
        self.dtype = source.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1`` of the rectangle."""
        whole = self._source.read(start, stop)
        return np.ascontiguousarray(whole[:, self._rows, self._columns])


class Until(NoProgress):
    """Progress that is cancelled by a function's word."""

    def __init__(self, stale: Callable[[], bool]):
        self._stale = stale

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        """Whether nobody waits any more."""
        return self._stale()


def preview_of(
    volume: Volume,
    place: tuple[int, int, int],
    area: tuple[int, int, int, int] | None,
    values: dict[str, Any],
    *,
    span: tuple[float, float] | None = None,
    stale: Callable[[], bool] = lambda: False,
) -> tuple[NDArray[Any], list[str]]:
    """Denoise a part of a slice.

    Parameters
    ----------
    volume
        The image.
    place
        Channel, slice and time point, counted from 0.
    area
        Left, top, width and height of the part in pixels; the whole slice when None.
    values
        Values of the command's options.
    span
        Grey values that map to 0 and 1, if they are known already.
    stale
        Asked whether the work should be given up.

    Returns
    -------
    images
        (1, height, width) of the image's type, or with ``each`` (units + 1, height, width).
    names
        One for each.
    """
    channel, z, time = place
    settings: DenoiseSettings = find_command("denoise").make_settings(values)
    network = load_model(values.get("model", DEFAULT_MODEL)).network
    units = network.check_units(settings.units)
    source = StackSource(volume, channel, time)
    height, width = volume.shape.y, volume.shape.x
    left, top, wide, high = area or (0, 0, width, height)
    halo = receptive_radius(units, final=units == network.units)
    rows = slice(max(top - halo, 0), min(top + high + halo, height))
    columns = slice(max(left - halo, 0), min(left + wide + halo, width))
    part = Part(source, rows, columns)
    if span is None:
        span = span_of(volume, channel, settings)
    each = values.get("each", False)
    plan = make_plan(part.shape, part.dtype, network, settings, span, want_units=each)
    blocks = denoise_slabs(
        part, network, plan, slices=range(z, z + 1), want_units=each, progress=Until(stale)
    )
    block = next(iter(blocks))
    inside = np.s_[
        top - rows.start : top - rows.start + high,
        left - columns.start : left - columns.start + wide,
    ]
    if block.units is None:
        return block.image[(slice(None), *inside)], ["denoised"]
    names = [f"after unit {number}" for number in range(1, units + 1)]
    images = block.units[(slice(None), 0, *inside)]
    return images, [*names, "final"][: len(images)]


def span_of(volume: Volume, channel: int, settings: DenoiseSettings) -> tuple[float, float]:
    """Return the grey values that map to 0 and 1 in a channel."""
    sources = [StackSource(volume, channel, time) for time in range(volume.shape.t)]
    measured = grey_range(*sources, asked=settings.intensity)
    return measured.low, measured.high


class Stack:
    """The stack of an image, and its grey ranges as far as they were asked for.

    An image that is cropped, or gets another type, gets another stack: then all is read anew.

    Raises
    ------
    ValueError
        If the image cannot be used.
    """

    def __init__(self, imp: Any):
        self._imp = imp
        self._read()

    def _read(self) -> None:
        self._stack = self._imp.getStack()
        self._volume = volume_of(self._imp)
        self._spans: dict[Any, tuple[float, float]] = {}

    @property
    def volume(self) -> Volume:
        """The image as it is now."""
        if self._imp.getStack() != self._stack:
            self._read()
        return self._volume

    def span(self, channel: int, settings: DenoiseSettings) -> tuple[float, float]:
        """Return the grey values that map to 0 and 1 in a channel; measured once."""
        volume, key = self.volume, (channel, settings.intensity)
        if key not in self._spans:
            self._spans[key] = span_of(volume, channel, settings)
        return self._spans[key]


def where(imp: Any) -> tuple[tuple[int, int, int], tuple[int, int, int, int] | None]:
    """Return the place of the slice that an image shows, and the part that is selected."""
    channel, z, time = (int(n) - 1 for n in imp.convertIndexToPosition(imp.getCurrentSlice()))
    roi = imp.getRoi()
    area = None
    if roi is not None and roi.isArea():
        bounds = roi.getBounds()
        left, top = max(int(bounds.x), 0), max(int(bounds.y), 0)
        wide = min(int(bounds.x + bounds.width), int(imp.getWidth())) - left
        high = min(int(bounds.y + bounds.height), int(imp.getHeight())) - top
        if wide > 0 and high > 0:
            area = (left, top, wide, high)
    return (channel, z, time), area


def kind_of(imp: Any) -> tuple[int, ...]:
    """Return what changes when an image is cropped or converted: width, height and bit depth."""
    return tuple(int(n) for n in (imp.getWidth(), imp.getHeight(), imp.getBitDepth()))


def picture(imp: Any, images: NDArray[Any], names: list[str]) -> Any:
    """Return an ``ij.ImagePlus`` of previews, shown with the grey values of their source."""
    stack = java.JClass("ij.ImageStack")(images.shape[2], images.shape[1])
    for image, name in zip(images, names, strict=True):
        stack.addSlice(name, float_processor(np.ascontiguousarray(image, np.float32)))
    made = java.JClass("ij.ImagePlus")(f"Preview of {imp.getTitle()}", stack)
    calibration = imp.getCalibration().copy()
    shift = 0
    if imp.getBitDepth() == 16 and calibration.isSigned16Bit():
        shift = 32768  # ImageJ's display range is that of the stored values
    calibration.setFunction(java.JClass("ij.measure.Calibration").NONE, None, "Gray Value")
    made.setCalibration(calibration)
    made.setDisplayRange(imp.getDisplayRangeMin() - shift, imp.getDisplayRangeMax() - shift)
    made.changes = False
    return made


def preview(host: Host, values: dict[str, Any]) -> None:
    """Show a preview once, for macros."""
    imp = host.current_image()
    made = picture(imp, *preview_of(volume_of(imp), *where(imp), values))
    made.setTitle(unused_title(str(made.getTitle())))
    show(made)


def follow(host: Host, entry: Entry) -> None:
    """Show a preview that follows settings, slice and selection until its dialog is closed.

    Its image goes with the dialog, unless the user wants to keep it.
    """
    imp = host.current_image()
    stack = Stack(imp)
    dialog = java.JClass("ij.gui.NonBlockingGenericDialog")("Preview of " + str(imp.getTitle()))
    form = Form(dialog, [option for option in entry.options if not option.expert], {}, imp)
    tell = add_note(dialog, LINES)
    dialog.setOKLabel("Keep Image")
    dialog.setCancelLabel("Close")  # were it hidden, Help would close the dialog
    dialog.addHelp(help_of(entry, FOLLOWS))
    help_in_front(dialog)
    mark_as_ours(dialog)
    shown = java.JClass("ij.ImagePlus")()  # one for as long as the dialog lives
    close_with(dialog, shown)

    def renew(seen: Any, stale: Callable[[], bool]) -> None:
        (place, area), _, texts = seen
        try:
            tell("Computing …")
            values = form.parsed(texts)
            settings = find_command("denoise").make_settings(values)
            span = stack.span(place[0], settings)
            images, names = preview_of(stack.volume, place, area, values, span=span, stale=stale)
            made = picture(imp, images, names)
            if stale():
                return
            grey = made.getDisplayRangeMin(), made.getDisplayRangeMax()
            before, position = shown.getStackSize(), shown.getCurrentSlice()
            shown.setStack(made.getStack())
            if shown.isVisible():
                shown.setSlice(position if before == len(names) else len(names))
                shown.setDisplayRange(*grey)
                shown.updateAndDraw()
            else:
                shown.setTitle(unused_title(str(made.getTitle())))
                shown.setCalibration(made.getCalibration())
                shown.setSlice(len(names))
                shown.setDisplayRange(*grey)
                shown.show()
                show_alike(shown, imp)
                put_beside(shown, imp, over=True)
                move_away(dialog, [imp, shown])
            shown.changes = False
            tell(f"Shown: {'the selection in ' if area else ''}slice {place[1] + 1}.")
        except Cancelled:
            return
        except Exception as error:
            tell(message_of(error))

    with watched(lambda: (where(imp), kind_of(imp), form.texts()), renew):
        dialog.showDialog()
    if not dialog.wasOKed():  # to ask whether it was cancelled would end a macro
        shown.hide()  # where it came while the dialog closed, or Esc closed that
    elif shown.isVisible():
        activate(shown)
