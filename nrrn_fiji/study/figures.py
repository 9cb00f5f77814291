"""The figures of the study in one style: as wide as a column or a page of a paper, and legible.

Sizes are in inches at which a page prints them, letters 7 to 8 points high, colours those of
:mod:`nrrn_fiji.plots`.  This module must never compute anything but positions on paper.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..plots import INK, colour_of, plain, save
from ..scoring import Level, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "Panel", "box_plot", "curves", "histograms", "level_dots", "scatters"]

COLUMN, PAGE = 3.5, 7.2
"""Widths in inches of a figure beside text and of one across a page."""

SHARP = 300
"""Dots per inch."""

LETTERS, SMALL = 8.0, 7.0
"""Points."""

LETTERS_PER_INCH = 13
"""Of a title, so that it does not reach beyond its panel."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""So that methods differ in print without colour, too."""


UNTREATED = ("input", "mean")
"""Methods that are none."""


@dataclass(frozen=True)
class Curve:
    """A line, a set of points or a distribution."""

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: str
    line: str = "-"
    mark: str = ""
    names: tuple[str, ...] = ()
    """Written beside the points."""
    width: float = 1.2
    spread: ArrayLike | None = None
    """Half lengths of bars."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    curves: tuple[Curve, ...]
    x_axis: str
    y_axis: str
    log_x: bool = False
    x_ticks: tuple[tuple[float, str], ...] = ()
    """Places and names; matplotlib's choice when empty."""


def blank(width: float, height: float, down: int, across: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, in reading order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=SHARP, facecolor="white", layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    return figure, list(axes.flat)


def dress(axes: Axes, title: str, x_axis: str, y_axis: str) -> None:
    """Label axes in the study's style."""
    plain(axes)
    axes.set_title(title, fontsize=LETTERS, color=INK)
    axes.set_xlabel(x_axis, fontsize=LETTERS, color=INK)
    axes.set_ylabel(y_axis, fontsize=LETTERS, color=INK)
    axes.tick_params(which="both", labelsize=SMALL)


def legend_below(figure: Figure, axes: Sequence[Axes], across: int) -> None:
    """Put one legend for all panels below them."""
    known: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    if known:
        figure.legend(
            list(known.values()),
            list(known),
            loc="outside lower center",
            ncols=min(across, len(known)),
            fontsize=SMALL,
            frameon=False,
            labelcolor=INK,
            handlelength=1.8,
            columnspacing=1.2,
        )


def curves(
    panels: Sequence[Panel],
    path: str | Path,
    *,
    across: int = 2,
    height: float = 2.4,
    share_y: bool = False,
) -> None:
    """Save panels with lines or points and one legend.

    Parameters
    ----------
    panels
        What to draw; a single one is as wide as a column.
    path
        The PNG file to write.
    across
        Panels side by side.
    height
        Of a row of panels, in inches.
    share_y
        Whether all panels have the same range.
    """
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    width = COLUMN if across == 1 else PAGE
    labels = len({curve.label for panel in panels for curve in panel.curves if curve.label})
    keys = max(1, round(width / 1.75))
    figure, axes = blank(width, height * down + 0.17 * -(-labels // keys), down, across)
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    for place, panel in zip(axes, panels, strict=False):
        for curve in panel.curves:
            if curve.spread is not None:
                place.errorbar(
                    np.asarray(curve.x), np.asarray(curve.y), np.asarray(curve.spread),
                    fmt="none", ecolor=curve.colour, elinewidth=0.7, capsize=1.5,
                )  # fmt: skip
            place.plot(
                np.asarray(curve.x),
                np.asarray(curve.y),
                color=curve.colour,
                linestyle=curve.line or "none",
                linewidth=curve.width,
                marker=curve.mark,
                markersize=4,
                label=curve.label or None,
            )
            for x, y, name in zip(
                np.atleast_1d(curve.x), np.atleast_1d(curve.y), curve.names, strict=False
            ):
                place.annotate(
                    name, (x, y), (4, 3), textcoords="offset points",
                    fontsize=SMALL - 0.5, color=curve.colour,
                )  # fmt: skip
        # A title that is wider than its panel would be cut at the edge of the page.
        title = fill(panel.title, round(width / across * LETTERS_PER_INCH))
        dress(place, title, panel.x_axis, panel.y_axis)
        place.margins(x=0.06, y=0.1)
        if panel.log_x:
            place.set_xscale("log")
        if panel.x_ticks:
            place.set_xticks(*zip(*panel.x_ticks, strict=True))
            place.minorticks_off()
    if share_y:
        ranges = [place.get_ylim() for place in axes[: len(panels)]]
        for place in axes:
            place.set_ylim(min(low for low, _ in ranges), max(high for _, high in ranges))
    legend_below(figure, axes[: len(panels)], keys)
    save(figure, path)


def level_dots(
    rows: Sequence[Row],
    levels: Sequence[Level],
    words: Mapping[str, str],
    path: Path,
    networks: Collection[str] = (),
) -> None:
    """Save the PSNR of every method, one panel per noise level.

    Parameters
    ----------
    rows
        The scores; bars are their standard deviation over slices.  Untreated slices are left out:
        they lie so far below that nothing else could be told apart.
    levels
        The noise levels, from left to right.
    words
        What to write beneath a method, by its key; its label where that is missing.
    path
        The PNG file to write.
    networks
        Methods that are drawn in the colour of the NRRN.
    """
    colours = {"filter": colour_of("gaussian"), **dict.fromkeys(networks, colour_of("nrrn"))}
    panels = []
    for level in levels:
        here = [row for row in rows if row.level == level and row.method not in UNTREATED]
        dots = tuple(
            Curve(
                "",
                [place],
                [row.mean("psnr")],
                colours.get(row.method) or colour_of(row.method),
                line="",
                mark="o",
                spread=[row.sd("psnr")],
            )
            for place, row in enumerate(here)
        )
        ticks = tuple((place, words.get(row.method, row.label)) for place, row in enumerate(here))
        panels.append(Panel(level.label, dots, "", "PSNR (dB)", x_ticks=ticks))
    curves(panels, path)


def histograms(
    panels: Sequence[tuple[str, Sequence[tuple[str, NDArray[np.float64], str]]]],
    path: str | Path,
    *,
    axis: str,
    counted: str,
) -> None:
    """Save histograms, drawn as steps over common bins, one panel per condition.

    Parameters
    ----------
    panels
        Titles and, per method, label, values and colour.
    path
        The PNG file to write.
    axis, counted
        What the values are, and what is counted.
    """
    figure, axes = blank(PAGE if len(panels) > 1 else COLUMN, 3.1, 1, len(panels))
    for place, (title, methods) in zip(axes, panels, strict=True):
        values = np.concatenate([v for _, v, _ in methods])
        low, high = np.percentile(values, (0.2, 100))
        high = max(high, low + 0.1)
        bins = np.linspace(low, high, 41).tolist()
        for label, own, colour in methods:
            share = np.full(own.size, 100 / own.size)
            text = f"{label}: {own.mean():.2f} ± {own.std(ddof=1 if own.size > 1 else 0):.2f} dB"
            # The few below the first bin count in it: a method of which nothing is drawn misleads.
            drawn = np.clip(own, low, high)
            place.hist(drawn, bins, weights=share, histtype="step", color=colour, linewidth=1.2)
            place.plot([], [], color=colour, label=text)
        dress(place, title, axis, counted)
        place.legend(
            fontsize=SMALL - 0.5, frameon=False, labelcolor=INK, loc="upper left",
            bbox_to_anchor=(0, -0.22), handlelength=1.2,
        )  # fmt: skip
    save(figure, path)


def box_plot(
    boxes: Sequence[tuple[str, NDArray[np.float64], str]],
    path: str | Path,
    *,
    axis: str,
    title: str = "",
) -> None:
    """Save a box per method: quartiles, whiskers from the 5th to the 95th percentile.

    Parameters
    ----------
    boxes
        Label, values and colour, from top to bottom.
    path
        The PNG file to write.
    axis
        What the values are.
    title
        Stands above.
    """
    figure, [axes] = blank(COLUMN, 0.9 + 0.24 * len(boxes), 1, 1)
    drawn = axes.boxplot(
        [values for _, values, _ in boxes],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        medianprops={"color": INK, "linewidth": 1},
        whiskerprops={"color": INK, "linewidth": 0.8},
        capprops={"color": INK, "linewidth": 0.8},
    )
    for box, (_, _, colour) in zip(drawn["boxes"], boxes, strict=True):
        box.set(facecolor=colour, edgecolor=INK, linewidth=0.6, alpha=0.85)
    dress(axes, title, axis, "")
    axes.set_yticks(range(1, len(boxes) + 1), [label for label, _, _ in boxes], fontsize=SMALL)
    axes.invert_yaxis()
    axes.axvline(0, color="#d0d4d9", linewidth=0.8, zorder=0)
    save(figure, path)


def scatters(
    panels: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64], float, float]],
    path: str | Path,
    *,
    x_axis: str,
    y_axis: str,
    colour: str,
) -> None:
    """Save scatters with a fitted line each, all on the same scale.

    Parameters
    ----------
    panels
        Title, x, y, and slope and intercept of the line.
    path
        The PNG file to write.
    x_axis, y_axis
        What the values are.
    colour
        Of the points.
    """
    across = len(panels) if len(panels) <= 4 else 3
    down = -(-len(panels) // across)
    figure, axes = blank(PAGE, (0.55 + PAGE / across * 0.72) * down, down, across)
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    both = np.concatenate([values for _, x, y, _, _ in panels for values in (x, y)])
    low, high = np.percentile(both, (0.1, 99.9))
    for place, (title, x, y, slope, intercept) in zip(axes, panels, strict=False):
        place.plot(x, y, ".", color=colour, markersize=1.6, alpha=0.35, markeredgewidth=0)
        ends = np.array([low, high])
        place.plot(ends, ends, color="#9aa0a6", linewidth=0.8, linestyle=":")
        place.plot(ends, slope * ends + intercept, color=INK, linewidth=1.1)
        place.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        dress(place, title, x_axis, y_axis)
        place.text(
            0.05, 0.95, f"slope {slope:.3f}", transform=place.transAxes, va="top",
            fontsize=SMALL, color=INK,
        )  # fmt: skip
    save(figure, path)
