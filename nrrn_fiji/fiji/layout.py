"""Windows: which one is active, where they go on the screen, how large they are, our icon.

Which window is active ImageJ learns from the screen's events, and these come later, in an order of
their own.  So whatever a command shows for good is shown by :func:`show`, its result last: when the
command returns, that is the active image, and stays so.

This module must never change an image, and does nothing to one that has no window.

Source: ``ij.ImagePlus``, ``ij.IJ.selectWindow``, ``ij.gui.ImageWindow``, ``ij.gui.ImageCanvas`` and
``ij.gui.GenericDialog`` of ImageJ 1.54p.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ..reports import Table
from ..resources import data_folder
from . import java

__all__ = [
    "activate",
    "close_with",
    "enlarge",
    "help_in_front",
    "mark_as_ours",
    "move_away",
    "move_sliders",
    "put_beside",
    "show",
    "show_alike",
    "show_table",
]


TABLE_SIZE = (900, 240)
"""Width and height of a window with a table, in pixels."""


@cache
def _icon() -> Any:
    """Return the icon as Java has it, read once."""
    # It is read when this returns; by a toolkit's getImage() only later, too late for one dialog.
    return java.JClass("javax.swing.ImageIcon")(str(data_folder("scripts") / "icon.png")).getImage()


def mark_as_ours(window: Any) -> None:
    """Give a dialog or a window of text our icon, in its title and in the list of windows."""
    window.setIconImage(_icon())


def show(made: Any) -> None:
    """Show an image, and return when it is the active one.

    ImageJ itself waits where a macro shows an image, and not where a user's command does.  Where
    the screen gives new windows no focus, it waits for two seconds.

    Parameters
    ----------
    made
        ``ij.ImagePlus`` or ``ij.gui.Plot``.
    """
    made.show()
    plot = isinstance(made, java.JClass("ij.gui.Plot"))
    (made.getImagePlus() if plot else made).waitTillActivated()


def activate(imp: Any) -> None:
    """Bring an open image to the front, and return when it is the active one."""
    java.JClass("ij.IJ").selectWindow(imp.getID())


def close_with(dialog: Any, imp: Any) -> None:
    """Have an image closed with a dialog that is not shown yet, unless the user confirms it.

    The image goes first: who sees that the dialog is gone finds no such image.  Where Esc closes
    the dialog, that is left to whoever waits for it.
    """
    handler = java.JClass("java.beans.EventHandler")  # no Python has to live for it
    pressed = java.JClass("java.awt.event.ActionListener").class_
    closed = java.JClass("java.awt.event.WindowListener").class_
    # The dialog closes itself as soon as it hears of that: it has to be the last to hear.
    cancel = dialog.getButtons()[1]  # which it begins to listen to when it is shown
    cancel.addActionListener(handler.create(pressed, imp, "hide"))
    dialog.removeWindowListener(dialog)
    dialog.addWindowListener(handler.create(closed, imp, "hide", None, "windowClosing"))
    dialog.addWindowListener(dialog)


def help_in_front(dialog: Any) -> None:
    """Have the page that a dialog's button Help opens come to the front.

    For a dialog beside which the user works on: its page is a window that belongs to ImageJ's own,
    and not every screen puts such a one before those of images.  The dialog has its help already.
    """
    # It is heard before the dialog itself hears of the button, and opens its page.
    dialog.getButtons()[3].addActionListener(_before_help())


@cache
def _before_help() -> Any:
    """Return what brings pages of help to the front as soon as they are open; one for good."""
    later = java.JProxy("java.lang.Runnable", {"run": _raise_help})
    queue = java.JClass("java.awt.EventQueue")
    return java.JProxy(
        "java.awt.event.ActionListener",
        {"actionPerformed": lambda event: queue.invokeLater(later)},
    )


def _raise_help() -> None:
    page = java.JClass("ij.gui.HTMLDialog")
    for window in java.JClass("java.awt.Window").getWindows():
        if isinstance(window, page) and window.isShowing():
            window.toFront()


def show_table(title: str, table: Table) -> Any:
    """Show a table in a window of columns, from which lines can be copied; return the window."""
    rows = "\n".join("\t".join(row) for row in table.rows)
    titles = "\t".join(map(as_title, table.header))
    window = java.JClass("ij.text.TextWindow")(title, titles, rows, *TABLE_SIZE)
    mark_as_ours(window)
    return window


def as_title(text: str) -> str:
    """Return the title of a column: words begin with a capital, units (s, px) do not."""
    unit = len(text.split(" ")[0]) <= len("px")
    return text if unit else text[:1].upper() + text[1:]


def put_beside(made: Any, imp: Any, *, over: bool = False) -> None:
    """Move an image's window beside that of another one, where no third image lies.

    To its right, below it or to its left, whichever is on the screen and free first, and moved
    along its edge as far as the screen asks for; where none is, it stays where ImageJ has put it.

    Parameters
    ----------
    over
        Where nothing is free, rather cover a third image than the other one.
    """
    one, other = imp.getWindow(), made.getWindow()
    if one is None or other is None:
        return
    screen = java.JClass("ij.gui.GUI").getMaxWindowBounds(one)
    at, size = one.getBounds(), other.getBounds()
    x = max(min(at.x, screen.x + screen.width - size.width), screen.x)
    y = max(min(at.y, screen.y + screen.height - size.height), screen.y)
    places = [(at.x + at.width, y), (x, at.y + at.height), (at.x - size.width, y)]
    rectangle = java.JClass("java.awt.Rectangle")
    spots = [rectangle(int(x), int(y), int(size.width), int(size.height)) for x, y in places]
    spots = [spot for spot in spots if screen.contains(spot)]
    taken = _windows_but(other)
    free = [spot for spot in spots if not any(spot.intersects(bounds) for bounds in taken)]
    for spot in [*free, *(spots if over else [])][:1]:
        other.setLocation(spot.x, spot.y)


def move_away(dialog: Any, images: Sequence[Any]) -> None:
    """Move a dialog, or another window, away from those of images, if it lies over one of them.

    To the right of one of them or below it, else into the lower right corner of the screen.
    """
    windows = [imp.getWindow() for imp in images]
    taken = [window.getBounds() for window in windows if window is not None]
    here = dialog.getBounds()
    if not any(here.intersects(bounds) for bounds in taken):
        return
    screen = java.JClass("ij.gui.GUI").getMaxWindowBounds(dialog)
    wide, high = int(here.width), int(here.height)
    places = [(at.x + at.width, at.y) for at in reversed(taken)]
    places += [(at.x, at.y + at.height) for at in reversed(taken)]
    corner = (int(screen.x + screen.width) - wide, int(screen.y + screen.height) - high)
    for x, y in places:
        spot = java.JClass("java.awt.Rectangle")(int(x), int(y), wide, high)
        if screen.contains(spot) and not any(spot.intersects(bounds) for bounds in taken):
            dialog.setLocation(spot.x, spot.y)
            return
    dialog.setLocation(*corner)


def _windows_but(window: Any) -> list[Any]:
    """Return where the windows of images are, but for one."""
    manager = java.JClass("ij.WindowManager")
    images = [manager.getImage(int(number)) for number in manager.getIDList() or ()]
    shown = [imp.getWindow() for imp in images if imp is not None]
    return [one.getBounds() for one in shown if one is not None and not one.equals(window)]


def enlarge(imp: Any, height: int) -> None:
    """Show a small image so many times enlarged that it is at least ``height`` high."""
    factor, canvas = -(-height // int(imp.getHeight())), imp.getCanvas()
    if factor < 2 or canvas is None:
        return
    canvas.setSize(factor * int(imp.getWidth()), factor * int(imp.getHeight()))
    canvas.setMagnification(float(factor))
    _lay_out(imp)


def _lay_out(imp: Any) -> None:
    """Fit a window around its canvas, and draw both anew: what Java drew before may still stand."""
    imp.getWindow().pack()
    imp.getWindow().repaint()  # the line above the image
    imp.getCanvas().repaint()


def show_alike(made: Any, imp: Any) -> None:
    """Show an image as much enlarged as another one, and the same part of it if they are equal."""
    canvas, other = made.getCanvas(), imp.getCanvas()
    if canvas is None or other is None:
        return
    magnification = float(other.getMagnification())
    size = (int(made.getWidth()), int(made.getHeight()))
    if size == (int(imp.getWidth()), int(imp.getHeight())):
        canvas.setSize(other.getWidth(), other.getHeight())
        canvas.setSourceRect(java.JClass("java.awt.Rectangle")(other.getSrcRect()))
    else:
        wide, high = (round(length * magnification) for length in size)
        if wide > int(other.getWidth()) or high > int(other.getHeight()):
            return
        canvas.setSize(wide, high)
    canvas.setMagnification(magnification)
    _lay_out(made)


def move_sliders(imp: Any) -> None:
    """Move the sliders of a new window to the slice that its image shows; ImageJ leaves them."""
    window = imp.getWindow()
    if not isinstance(window, java.JClass("ij.gui.StackWindow")):
        return
    if imp.isHyperStack():
        window.setPosition(*imp.convertIndexToPosition(imp.getCurrentSlice()))
    else:
        window.updateSliceSelector()
