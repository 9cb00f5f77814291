"""Where windows of images go on the screen, how large they are, and where their sliders stand.

This module must never change an image, and does nothing to one that has no window.

Source: ``ij.gui.ImageWindow`` and ``ij.gui.ImageCanvas`` of ImageJ 1.54p.
"""

from __future__ import annotations

from typing import Any

from . import java

__all__ = ["enlarge", "move_sliders", "put_beside", "show_alike"]


def put_beside(made: Any, imp: Any) -> None:
    """Move a window to the right of another, or to its left, if the screen has room there."""
    one, other = imp.getWindow(), made.getWindow()
    if one is None or other is None:
        return
    screen = java.JClass("ij.gui.GUI").getMaxWindowBounds(one)
    right = int(one.getX() + one.getWidth())
    left = int(one.getX()) - int(other.getWidth())
    if right + int(other.getWidth()) <= int(screen.x + screen.width):
        other.setLocation(right, one.getY())
    elif left >= int(screen.x):
        other.setLocation(left, one.getY())


def enlarge(imp: Any, height: int) -> None:
    """Show a small image so many times enlarged that it is at least ``height`` high."""
    factor, canvas = -(-height // int(imp.getHeight())), imp.getCanvas()
    if factor < 2 or canvas is None:
        return
    canvas.setSize(factor * int(imp.getWidth()), factor * int(imp.getHeight()))
    canvas.setMagnification(float(factor))
    imp.getWindow().pack()
    imp.getWindow().repaint()  # the line above the image too


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
    made.getWindow().pack()
    made.getWindow().repaint()  # the line above the image too


def move_sliders(imp: Any) -> None:
    """Move the sliders of a new window to the slice that its image shows; ImageJ leaves them."""
    window = imp.getWindow()
    if not isinstance(window, java.JClass("ij.gui.StackWindow")):
        return
    if imp.isHyperStack():
        window.setPosition(*imp.convertIndexToPosition(imp.getCurrentSlice()))
    else:
        window.updateSliceSelector()
