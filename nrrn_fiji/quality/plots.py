"""The pictures of the quality report, each as the content of a PNG file.

Scales start where what is even looks even and what is small looks small.  This module must never
open a window, and never import matplotlib before a picture is asked for.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..formats.calibration import readable_length
from ..plots import ACCENT, DPI, FAINT, INK, plain
from ..resolution import ONE_SEVENTH
from .assessment import Quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Plot

__all__ = [
    "correlation_picture",
    "kept_picture",
    "removed_picture",
    "shift_picture",
    "slices_picture",
    "tiles_picture",
]

Array = NDArray[np.float64]

HIGH_PASS = 3.0
"""Pixels: what is coarser is taken away in the high-pass view."""

BLUE = "#1b6ca8"


def png(figure: Plot) -> bytes:
    """Return a figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def new_plot(width: float, height: float) -> tuple[Plot, Axes]:
    """Return an empty figure of a size in inches, and its axes."""
    from matplotlib.figure import Figure as NewPlot

    figure = NewPlot(
        figsize=(width, height), dpi=1.5 * DPI, facecolor="white", layout="constrained"
    )
    axes = figure.subplots()
    plain(axes)
    return figure, axes


def removed_picture(noisy: Array, clean: Array) -> bytes:
    """Return noisy, denoised and removed above their high-pass views."""
    from matplotlib.figure import Figure as NewPlot

    low, high = np.percentile(noisy, (0.5, 99.5))
    removed = noisy - clean
    reach = max(float(np.percentile(np.abs(removed - removed.mean()), 99.5)), 1e-9)
    fine, fine_clean = (
        image - ndimage.gaussian_filter(image, HIGH_PASS) for image in (noisy, clean)
    )
    width = max(float(np.percentile(np.abs(fine_clean), 99.5)), 1e-9)
    cells = (
        ("noisy", noisy, low, high),
        ("denoised", clean, low, high),
        ("removed", removed - removed.mean(), -reach, reach),
        ("noisy, fine detail", fine, -width, width),
        ("denoised, fine detail", fine_clean, -width, width),
        ("removed, smoothed", ndimage.gaussian_filter(removed - removed.mean(), 1.5), None, None),
    )
    ratio = noisy.shape[0] / noisy.shape[1]
    figure = NewPlot(
        figsize=(10.5, 7 * ratio + 0.7), dpi=1.2 * DPI, facecolor="white", layout="constrained"
    )
    for axes, (title, image, bottom, top) in zip(figure.subplots(2, 3).flat, cells, strict=True):
        if bottom is None:
            top = max(float(np.percentile(np.abs(image), 99.5)), 1e-9)
            bottom = -top
        axes.imshow(image, cmap="gray", vmin=bottom, vmax=top, interpolation="nearest")
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_axis_off()
    return png(figure)


def period_axis(axes: Axes, quality: Quality) -> None:
    """Label an axis of spatial frequency by periods."""
    periods = (32, 16, 8, 4, 2)
    axes.set_xscale("log")
    axes.set_xlim(1 / 48, 0.5)
    axes.set_xticks([1 / p for p in periods], [str(p) for p in periods])
    axes.xaxis.set_minor_locator(no_ticks())
    unit = f"; 1 px = {readable_length(*quality.voxel)}" if quality.voxel else ""
    axes.set_xlabel(f"Size of detail (period in pixels{unit})", fontsize=9, color=INK)


def no_ticks() -> Any:
    """Return a locator that places no tick."""
    from matplotlib.ticker import NullLocator

    return NullLocator()


def smoothed(values: Array) -> Array:
    """Return the mean over three rings, of those that are known."""
    known = np.isfinite(values)
    sums = ndimage.uniform_filter1d(np.where(known, values, 0.0), 3, mode="nearest")
    shares = ndimage.uniform_filter1d(known.astype(float), 3, mode="nearest")
    return np.where(
        known, np.divide(sums, shares, where=shares > 0, out=np.zeros_like(sums)), np.nan
    )


def correlation_picture(quality: Quality) -> bytes:
    """Return the Fourier ring correlation before and after."""
    found = quality.detail
    assert found is not None
    figure, axes = new_plot(4.8, 3.3)
    axes.axhline(ONE_SEVENTH, color=FAINT, linewidth=1, linestyle="--")
    axes.plot(found.frequency, smoothed(found.before), color=FAINT, linewidth=1.8, label="noisy")
    axes.plot(found.frequency, smoothed(found.after), color=ACCENT, linewidth=1.8, label="denoised")
    period_axis(axes, quality)
    axes.set_ylim(-0.05, 1.03)
    axes.set_ylabel("Correlation", fontsize=9, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return png(figure)


def kept_picture(quality: Quality) -> bytes:
    """Return the share of detail that was kept, by its size."""
    found = quality.detail
    assert found is not None
    figure, axes = new_plot(4.8, 3.3)
    axes.axhline(100, color=FAINT, linewidth=1, linestyle="--")
    axes.plot(found.frequency, 100 * smoothed(found.kept), color=BLUE, linewidth=1.8)
    period_axis(axes, quality)
    axes.set_ylim(0, 125)
    axes.set_ylabel("Contrast kept (%)", fontsize=9, color=INK)
    return png(figure)


def tiles_picture(quality: Quality) -> bytes:
    """Return the map of removed noise."""
    figure, axes = new_plot(4.8, 3.6)
    # From 0, so that what is even looks even.
    top = max(1.3 * float(np.nanmax(quality.tiles)), 1e-9)
    image = axes.imshow(quality.tiles, cmap="viridis", vmin=0, vmax=top)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label("Grey levels removed (sd)", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8)
    return png(figure)


def shift_picture(quality: Quality) -> bytes:
    """Return the change of grey values by grey level."""
    shift = quality.shift
    figure, axes = new_plot(4.8, 3.6)
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.axhline(shift.mean, color=ACCENT, linewidth=1.2, linestyle="--")
    axes.plot(shift.levels, shift.by_level, color=BLUE, marker="o", markersize=3.5, linewidth=1.4)
    # Small changes should look small: at least 3 % of the grey range up and down.
    reach = max(0.03 * shift.span, 1.2 * abs(shift.worst), 1.2 * abs(shift.mean))
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("Grey level", fontsize=9, color=INK)
    axes.set_ylabel("Denoised − noisy", fontsize=9, color=INK)
    return png(figure)


def slices_picture(quality: Quality) -> bytes:
    """Return removed noise and change of brightness over z."""
    from matplotlib.figure import Figure as NewPlot

    slices = quality.slices
    figure = NewPlot(figsize=(10, 3.8), dpi=1.2 * DPI, facecolor="white", layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    bad = np.isin(slices.index, slices.outliers)
    dots = {"marker": "o", "markersize": 3} if slices.index.size < 80 else {}
    upper.plot(slices.index, slices.removed, color=BLUE, linewidth=1.3, **dots)
    upper.plot(slices.index[bad], slices.removed[bad], "o", color=ACCENT, markersize=7, mfc="none")
    upper.set_ylim(0, max(1.25 * float(slices.removed.max()), 1e-9))
    upper.set_ylabel("Removed (sd)", fontsize=9, color=INK)
    lower.axhline(0, color=FAINT, linewidth=1)
    lower.plot(slices.index, slices.change, color=BLUE, linewidth=1.3, **dots)
    reach = max(0.02 * quality.shift.span, 1.2 * float(np.abs(slices.change).max()), 1e-9)
    lower.set_ylim(-reach, reach)
    lower.set_ylabel("Mean change", fontsize=9, color=INK)
    lower.set_xlabel("Slice", fontsize=9, color=INK)
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        plain(axes)
    return png(figure)
