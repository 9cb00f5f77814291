"""Compare: two images side by side, with linked slices and zoom.

ImageJ tells nobody of a change of zoom, so both windows are looked at several times a second, and
the one that moved leads.  This module must never change pixels, nor keep a closed image.

Source: ``ij.gui.ImageCanvas`` and ``ij.gui.ImageWindow`` of ImageJ 1.54p.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..formats.image import parse_provenance
from . import java
from .dialogs import OpenImage
from .entry import Entry, Host, open_images
from .layout import activate

__all__ = ["View", "compare_entry", "view_of"]

SECONDS_BETWEEN_LOOKS = 0.05
SIZES = ("Width", "Height")


def compare_entry() -> Entry:
    """Return Compare…"""
    return Entry(
        label="Compare...",
        name="NRRN Compare...",
        key="compare",
        summary="Put two images side by side, with linked slices and zoom.",
        options=(
            OpenImage(name="first", label="Left image", help="On the left.", required=True),
            OpenImage(name="second", label="Right image", help="On the right.", required=True),
        ),
        run=compare,
        start=likely_pair,
    )


def likely_pair(imp: Any) -> dict[str, Any]:
    """Return the titles of a result and its source, or of two images that are alike.

    The image itself is one of the two.  Its denoised form, as far as that is open, comes before its
    removed noise, and a later result before an earlier one.
    """
    from ..jobs.denoise_report import CONTENTS  # torch is imported when it is first needed

    title = str(imp.getTitle())
    others = [other for other in open_images() if other.getID() != imp.getID()]
    made = [other for other in others if was_made_from(other, title)]
    if made:
        denoised = [other for other in made if record_of(other).get("content") == CONTENTS["image"]]
        return {"first": title, "second": str((denoised or made)[-1].getTitle())}
    sources = [other for other in others if was_made_from(imp, str(other.getTitle()))]
    if sources:
        return {"first": str(sources[0].getTitle()), "second": title}
    alike = [other for other in others if sizes_of(other) == sizes_of(imp)]
    second = next(iter([*alike, *others, imp]))
    return {"first": title, "second": str(second.getTitle())}


def record_of(imp: Any) -> dict[str, Any]:
    """Return how an image was made, as its Info records it; nothing for any other image."""
    return parse_provenance(str(imp.getProperty("Info") or "")) or {}


def was_made_from(imp: Any, title: str) -> bool:
    """Whether an image was made from the one of that title, by a command of ours.

    A result that was saved as a file names its source without the suffix of a file.
    """
    source = str(record_of(imp).get("input"))
    return source in (title, re.sub(r"(\.ome)?\.\w{1,5}$", "", title))


def sizes_of(imp: Any) -> tuple[int, ...]:
    """Return width, height and the numbers of channels, slices and time points."""
    return tuple(int(length) for length in imp.getDimensions())


def compare(host: Host, values: dict[str, Any]) -> None:
    """Put two images side by side and link them."""
    if host.without_dialogs(None):
        raise ValueError("Comparing needs windows to look at: leave it out without a screen.")
    current = host.current_image()
    pair = likely_pair(current) | values
    first, second = host.open_image(pair["first"]), host.open_image(pair["second"])
    if first.getID() == second.getID():
        raise ValueError(
            f"first and second are both {pair['first']!r}: open two images to compare them."
        )
    place_beside(first, second)
    # Both come to the front; the one that the user was at last stays the active one.
    for imp in (second, first) if first.getID() == current.getID() else (first, second):
        activate(imp)
    threading.Thread(target=link, args=(first, second), name="nrrn-compare", daemon=True).start()


def place_beside(first: Any, second: Any) -> None:
    """Move and zoom two windows such that they fill the screen side by side."""
    space = java.JClass("ij.gui.GUI").getMaxWindowBounds(first.getWindow())
    half = int(space.width) // 2
    for number, imp in enumerate((first, second)):
        window = imp.getWindow()
        window.setLocationAndSize(
            int(space.x) + number * half, int(space.y) + 110, half, int(space.height) - 120
        )


class View(NamedTuple):
    """What a window shows."""

    position: tuple[int, int, int]
    magnification: float
    part: tuple[int, int, int, int]
    size: tuple[int, int]
    """Width and height on the screen, in pixels."""


def view_of(imp: Any) -> View | None:
    """Return what an image's window shows; None if it was closed."""
    window, canvas, shown = java.calls(
        [(imp, name, ()) for name in ("getWindow", "getCanvas", "getCurrentSlice")]
    )
    if window is None or canvas is None:
        return None
    closed, position, part, magnification, width, height = java.calls(
        [
            (window, "isClosed", ()),
            (imp, "convertIndexToPosition", (shown,)),
            *((canvas, f"get{name}", ()) for name in ("SrcRect", "Magnification", *SIZES)),
        ]
    )
    if closed:
        return None
    left, top, *sizes = java.calls([(part, f"get{name}", ()) for name in ("X", "Y", *SIZES)])
    channel, z, time = (int(n) for n in position)
    return View(
        (channel, z, time),
        float(magnification),
        (int(left), int(top), int(sizes[0]), int(sizes[1])),
        (int(width), int(height)),
    )


def show_position(imp: Any, position: tuple[int, int, int]) -> tuple[int, int, int]:
    """Let an image show a channel, slice and time point as far as it has them; return which."""
    counts = (imp.getNChannels(), imp.getNSlices(), imp.getNFrames())
    channel, z, time = (min(n, int(m)) for n, m in zip(position, counts, strict=True))
    if imp.isHyperStack():
        imp.setPosition(channel, z, time)
    else:
        imp.setSlice(imp.getStackIndex(channel, z, time))
    return channel, z, time


def show_part(imp: Any, now: View, view: View) -> None:
    """Let a window, which shows ``now``, show the same part as large as another one does."""
    window, canvas = imp.getWindow(), imp.getCanvas()
    if window is None or canvas is None:
        return
    if view.size != now.size:
        canvas.setSize(*view.size)
        window.pack()
    # This sets a magnification of its own, so that comes last.
    canvas.setSourceRect(java.JClass("java.awt.Rectangle")(*view.part))
    canvas.setMagnification(view.magnification)
    canvas.repaint()


def link(first: Any, second: Any) -> None:
    """Let each image follow the other until one of them is closed; the first one leads at first.

    Slices and zoom are followed each by itself: Java may lay a window out anew at any time, also
    while the user leafs through the other one.
    """
    images = (first, second)
    seen: list[View | None] = [None, None]
    laid_out = [False, False]
    pause = threading.Event()
    while True:
        views = [view for view in map(view_of, images) if view is not None]
        if len(views) < len(images):
            return
        zoomed = leader(
            # What Java does to a window that was laid out just now is nobody's wish.
            not laid_out[n] and view[1:] != (before and before[1:])
            for n, (view, before) in enumerate(zip(views, seen, strict=True))
        )
        leafed = leader(
            view.position != (before and before.position)
            for view, before in zip(views, seen, strict=True)
        )
        seen, laid_out = [*views], [False, False]
        if leafed is not None and views[0].position != views[1].position:
            other = 1 - leafed
            shown = show_position(images[other], views[leafed].position)
            seen[other] = views[other]._replace(position=shown)
        if zoomed is not None and views[0][1:] != views[1][1:]:
            other = 1 - zoomed
            show_part(images[other], views[other], views[zoomed])
            laid_out[other] = True
        pause.wait(SECONDS_BETWEEN_LOOKS)


def leader(moved: Iterable[bool]) -> int | None:
    """Return which of the two images leads, the first one if both moved; None if none did."""
    return next((number for number, yes in enumerate(moved) if yes), None)
