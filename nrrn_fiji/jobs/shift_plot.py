"""A picture of how repeated scans drifted, and of what did not fit.

This module must never leave a rejected scan out of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..plots import ACCENT, DPI, INK, plain, save

__all__ = ["plot_shifts"]

ROWS = ("shift along x (px)", "shift along y (px)", "correlation")
LEGEND = 12
"""Most scans that a legend names."""


def plot_shifts(
    shifts: NDArray[np.float64],
    correlation: NDArray[np.float64],
    rejected: NDArray[np.bool_],
    names: Sequence[str],
    path: str | Path,
) -> None:
    """Save the shifts of scans along x and y, and how well each fits.

    Parameters
    ----------
    shifts
        (Z, S, 2): (dy, dx) in pixels of each scan in each slice.  With one slice the scans stand
        side by side, otherwise the slices, and each scan is a line.
    correlation
        (Z, S).
    rejected
        (Z, S); these are drawn as crosses.
    names
        Of the scans.
    path
        The PNG file to write.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    depth, count = correlation.shape
    figure = Figure(figsize=(7, 6), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(len(ROWS), 1, sharex=True)
    data = (shifts[..., 1], shifts[..., 0], correlation)
    if depth == 1:
        places, lines = np.arange(count), [np.arange(count)]
        colours = [INK]
    else:
        places, lines = np.arange(depth), [np.array([i]) for i in range(count)]
        colours = [colormaps["viridis"](0.9 * i / max(1, count - 1)) for i in range(count)]
    for axis, title, values in zip(axes, ROWS, data, strict=True):
        for line, colour in zip(lines, colours, strict=True):
            y = values[0, line] if depth == 1 else values[:, line[0]]
            out = rejected[0, line] if depth == 1 else rejected[:, line[0]]
            fits = np.where(out, np.nan, y)
            label = names[line[0]] if depth > 1 else None
            marker = "o" if len(places) <= 60 else ""
            axis.plot(places, fits, color=colour, lw=1.2, marker=marker, ms=3.5, label=label)
            if out.any():
                axis.plot(places[out], y[out], "x", color=ACCENT, ms=7, mew=1.8)
        axis.set_ylabel(title)
        axis.grid(axis="y", color="#e8eaed", linewidth=0.8)
        plain(axis)
    axes[0].axhline(0, color="#d0d4d9", lw=0.8, zorder=0)
    axes[1].axhline(0, color="#d0d4d9", lw=0.8, zorder=0)
    axes[-1].set_ylim(min(0.0, float(np.nanmin(correlation))) - 0.03, 1.03)
    axes[-1].set_xlabel("Scan" if depth == 1 else "Slice")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels(axes)
    left_out = int(rejected.sum())
    title = f"Drift of {count} scans" + (f" over {depth} slices" if depth > 1 else "")
    if left_out:
        title += f"; {left_out} left out (crosses)"
    figure.suptitle(title, fontsize=11, color=INK)
    if 1 < count <= LEGEND and depth > 1:
        axes[0].legend(frameon=False, fontsize=8, labelcolor=INK, ncols=min(count, 4))
    save(figure, path)
