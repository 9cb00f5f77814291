"""Pictures that training and the study leave beside their numbers.

Everything is drawn through matplotlib's ``Figure`` object, without ``pyplot``, so that it works
without a screen, in threads and inside Fiji.  This module must never open a window, change
matplotlib's global settings, or import matplotlib before a picture is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Dot",
    "before_after",
    "colour_of",
    "dot_plot",
    "loss_curve",
    "picture_grid",
    "sample_picture",
]

DPI = 100
INK = "#222222"
FAINT = "#b8bcc2"
ACCENT = "#d55e00"
COLOURS = {
    "input": "#b4b8bd",
    "clean": "#222222",
    "mean": "#5f6368",
    "gaussian": "#56b4e9",
    "median": "#9c5744",
    "nlm": "#d279b9",
    "gaussian3d": "#332288",
    "median3d": "#3d0045",
    "bm3d": "#e69f00",
    "nrrn": ACCENT,
    "unet": "#0072b2",
    "denoisenet": "#009e73",
}
"""Colours that people with any kind of colour blindness tell apart, by the first word of a method's
name: Okabe's and Ito's, and further ones that a test holds apart from them in simulated vision."""

SAME_BUDGET = "#7a0000"
"""An NRRN trained beside the other competitors, not to be taken for the model that is measured."""

OTHERS = ("#332288", "#882255", "#117733", "#999933", "#44aa99", "#aa4499")
"""For methods without a colour of their own."""


def colour_of(method: str) -> str:
    """Return the colour of a method, the same in every figure."""
    if method == "trained-nrrn":
        return SAME_BUDGET
    first = method.removeprefix("trained-").split("-")[0].split(":")[0]
    # A sum of the characters is the same in every run, which Python's hash is not.
    return COLOURS.get(first) or OTHERS[sum(map(ord, method)) % len(OTHERS)]


def before_after(images: Sequence[tuple[str, ArrayLike]], path: str | Path) -> None:
    """Save grey images side by side, each with a title above.

    Parameters
    ----------
    images
        Titles and slices (Y, X), grey values in [0, 1]; what lies outside is shown as black or
        white.
    path
        The PNG file to write.

    Raises
    ------
    ValueError
        If there are no images, or one is no slice.
    """
    picture_grid([list(images)], path)


def picture_grid(
    rows: Sequence[Sequence[tuple[str, ArrayLike]]],
    path: str | Path,
    *,
    labels: Sequence[str] = (),
    title: str = "",
) -> None:
    """Save rows of grey images; every image pixel becomes a square of whole screen pixels.

    Parameters
    ----------
    rows
        As in :func:`before_after`, one list per row.
    path
        The PNG file to write.
    labels
        What to write to the left of each row; nothing when empty.
    title
        What to write above everything.

    Raises
    ------
    ValueError
        If there are no images, one is no slice, or there are not as many labels as rows.
    """
    from matplotlib.figure import Figure

    cells = [[(text, grey(image)) for text, image in row] for row in rows]
    if not cells or not all(cells):
        raise ValueError("images is empty, but a picture needs at least one: give some.")
    if labels and len(labels) != len(cells):
        raise ValueError(
            f"There are {len(labels)} labels for {len(cells)} rows: give one per row, or none."
        )
    zoom = max(1, round(300 / max(max(i.shape) for row in cells for _, i in row)))
    cells = [[(t, i.repeat(zoom, 0).repeat(zoom, 1)) for t, i in row] for row in cells]
    # One size for all titles: the one at which the longest fits.
    size = min(fitting_size(text, image.shape[1]) for row in cells for text, image in row)
    gap, margin, head, left = 8, 14, 24, 30 if labels else 0
    top = 34 if title else 0
    # Columns and rows are as wide and high as their largest image.
    columns = max(len(row) for row in cells)
    widths = [max(r[c][1].shape[1] for r in cells if c < len(r)) for c in range(columns)]
    heights = [max(image.shape[0] for _, image in row) for row in cells]
    width = 2 * margin + left + sum(widths) + gap * (len(widths) - 1)
    height = 2 * margin + top + sum(h + head for h in heights) + gap * (len(heights) - 1)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    if title:
        figure.text(
            0.5, 1 - (margin + 6) / height, title, ha="center", va="top", size=11, color=INK
        )
    y = margin + top
    for r, row in enumerate(cells):
        y += head
        if labels:
            figure.text(
                (margin + left / 2 - 4) / width,
                1 - (y + heights[r] / 2) / height,
                labels[r],
                rotation=90,
                ha="center",
                va="center",
                size=10,
                color=INK,
            )
        x = margin + left
        for column, (text, image) in enumerate(row):
            # As colours of 8 bits: a colour map would round the grey values in its own way.
            colours = np.round(image * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
            figure.figimage(colours, xo=x, yo=height - y - image.shape[0], origin="upper")
            figure.text(
                (x + image.shape[1] / 2) / width,
                1 - (y - 6) / height,
                text,
                ha="center",
                va="bottom",
                size=size,
                color=INK,
            )
            x += widths[column] + gap
        y += heights[r] + gap
    save(figure, path)


def sample_picture(noisy: ArrayLike, denoised: ArrayLike, path: str | Path, title: str) -> None:
    """Save a noisy slice beside its denoised form and what was removed.

    Parameters
    ----------
    noisy, denoised
        Slices (Y, X) of the same shape, grey values in [0, 1].
    path
        The PNG file to write.
    title
        What to write above, like "Step 1200".

    Raises
    ------
    ValueError
        If an image is no slice or the shapes differ.
    """
    before, after = grey(noisy), grey(denoised)
    if before.shape != after.shape:
        raise ValueError(
            f"denoised has the shape {after.shape}, but noisy has {before.shape}: "
            "give the same slice twice."
        )
    removed = np.asarray(noisy, dtype=np.float64) - np.asarray(denoised, dtype=np.float64)
    # Mid grey is "nothing removed"; three standard deviations reach black and white.
    spread = 6 * float(removed.std()) or 1.0
    row = [("Noisy", before), ("Denoised", after), ("Removed", grey(0.5 + removed / spread))]
    picture_grid([row], path, title=title)


def loss_curve(
    steps: Sequence[float],
    losses: Sequence[float],
    validation_steps: Sequence[float],
    validation: Sequence[float],
    path: str | Path,
    *,
    criterion: str,
) -> None:
    """Save the course of a training: its loss, and the criterion on held-out data below.

    Parameters
    ----------
    steps, losses
        Steps and the training loss there.
    validation_steps, validation
        Steps and the criterion there, lower is better; the lowest is marked, as the model that
        is kept.  Empty as long as there is none.
    path
        The PNG file to write.
    criterion
        Name of the criterion, as the label of its axis.

    Raises
    ------
    ValueError
        If steps and values differ in number, or there is no loss at all.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    for name, marks, values in (
        ("losses", steps, losses),
        ("validation", validation_steps, validation),
    ):
        if len(marks) != len(values):
            raise ValueError(
                f"There are {len(values)} {name} for {len(marks)} steps: give as many."
            )
    if not len(losses):
        raise ValueError("losses is empty, but a curve needs at least one: train a step first.")
    panels = 2 if len(validation) else 1
    figure = Figure(figsize=(7, 2.7 * panels), dpi=DPI, facecolor="white", layout="constrained")
    axes: NDArray[np.object_] = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    x, y = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    window = max(1, len(y) // 50)
    if window > 1:
        axes[0].plot(x, y, color=FAINT, linewidth=0.7, label="each step")
        smooth = np.convolve(y, np.full(window, 1 / window), mode="valid")
        # Each mean stands at the last step it saw.
        axes[0].plot(x[window - 1 :], smooth, color=INK, linewidth=1.4, label=f"mean of {window}")
        axes[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    else:
        axes[0].plot(x, y, color=INK, linewidth=1.4, marker="o" if len(y) < 3 else "")
    wide_scale(axes[0], y)
    axes[0].set_ylabel("Training loss")
    if panels == 2:
        at = np.asarray(validation_steps, dtype=float)
        held_out = np.asarray(validation, dtype=float)
        axes[1].plot(at, held_out, color=INK, linewidth=1.4, marker="o", markersize=3)
        if np.isfinite(held_out).any():
            best = int(np.nanargmin(np.where(np.isfinite(held_out), held_out, np.nan)))
            axes[1].plot(
                at[best],
                held_out[best],
                color=ACCENT,
                marker="o",
                markersize=7,
                linestyle="",
                label=f"kept: {held_out[best]:.4g} at step {at[best]:.0f}",
            )
            axes[1].legend(frameon=False, fontsize=9, labelcolor=INK)
        wide_scale(axes[1], held_out)
        axes[1].set_ylabel(criterion)
    axes[-1].set_xlabel("Step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in axes:
        plain(panel)
        panel.grid(axis="y", color="#e8eaed", linewidth=0.8)
    save(figure, path)


@dataclass(frozen=True)
class Dot:
    """One method in one panel of :func:`dot_plot`."""

    label: str
    value: float
    spread: float
    """Half length of the bar, a standard deviation."""
    colour: str
    second: float | None = None
    """A further value, drawn as a hollow dot."""


def dot_plot(
    panels: Sequence[tuple[str, Sequence[Dot]]],
    path: str | Path,
    *,
    axis: str,
    note: str = "",
    across: int = 4,
) -> None:
    """Save one small panel per condition, with a dot and a bar for every method.

    Parameters
    ----------
    panels
        Titles and dots; every panel lists the same methods in the same order, the first on top.
    path
        The PNG file to write.
    axis
        What the values are.
    note
        A line below everything.
    across
        Panels side by side.

    Raises
    ------
    ValueError
        If there are no panels, or they list different methods.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not panels or not panels[0][1]:
        raise ValueError("panels is empty, but a plot needs at least one dot: give some.")
    labels = [dot.label for dot in panels[0][1]]
    if any([dot.label for dot in dots] != labels for _, dots in panels):
        raise ValueError("The panels list different methods: give the same ones in each.")
    down = -(-len(panels) // across)
    across = min(across, len(panels))
    figure = Figure(
        figsize=(2.0 + 2.3 * across, (0.9 + 0.22 * len(labels)) * down + 0.5),
        dpi=2 * DPI,
        facecolor="white",
        layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.06),
    )
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, dots) in zip(grid.flat, panels, strict=False):
        for place, dot in enumerate(dots):
            axes.axhline(place, color="#eceef0", linewidth=0.8, zorder=0)
            axes.errorbar(
                dot.value, place, xerr=dot.spread, color=dot.colour, fmt="o", ms=4.5, lw=1.3
            )
            if dot.second is not None:
                axes.plot(
                    dot.second, place, "o", mfc="white", mec=dot.colour, ms=4.5, mew=1.1, zorder=1
                )
        axes.set_yticks(range(len(labels)), labels, fontsize=9)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_title(title, fontsize=9.5, color=INK)
        axes.margins(x=0.1)
        plain(axes)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    figure.supxlabel(axis + (f"\n{note}" if note else ""), fontsize=9, color=INK)
    save(figure, path)


def grey(image: ArrayLike) -> NDArray[np.float64]:
    """Return a slice as float64 clipped to [0, 1]; NaN becomes black."""
    array = np.asarray(image, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"An image has the shape {array.shape}, but a picture shows slices (Y, X): "
            "choose one slice of the stack."
        )
    return np.clip(np.nan_to_num(array, nan=0.0), 0, 1)


def fitting_size(text: str, width: int) -> float:
    """Return the font size in points, at most 10, at which ``text`` fits into ``width`` pixels."""
    # A character of the default font is about 0.54 em wide, an em of 10 pt 14 pixels at 100 dpi.
    return max(5.0, min(10.0, width / (0.54 * 1.39 * max(1, len(text)))))


def wide_scale(axes: Axes, values: NDArray[np.float64]) -> None:
    """Use a logarithmic axis where positive values span more than a factor of five."""
    from matplotlib.ticker import FuncFormatter

    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 5 * finite.min():
        axes.set_yscale("log")
        # Plain numbers on both kinds of ticks, and on 1, 2 and 5 alone.
        text = FuncFormatter(lambda value, _: f"{value:.3g}" if f"{value:e}"[0] in "125" else "")
        axes.yaxis.set_major_formatter(text)
        axes.yaxis.set_minor_formatter(text)


def plain(axes: Axes) -> None:
    """Take away the frame's upper and right sides and soften the rest."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9)


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure so that nobody opens half a picture."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_whole(Path(path), picture.getvalue())
