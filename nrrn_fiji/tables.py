"""Scores as people and programs read them: tables, records, and a plot.

Each function turns the rows of a study into one form.  This module must never measure, and never
drop a row: what was scored is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .baselines.filters import BM3D, FILTERS, FILTERS_3D
from .plots import Dot, colour_of, dot_plot
from .reports import Table
from .scoring import Level, Row

__all__ = [
    "DIGITS",
    "TITLES",
    "as_records",
    "as_tables",
    "best_filter",
    "is_filter",
    "is_network",
    "levels_of",
    "lines_of",
    "plot_scores",
]

UNTREATED = ("input", "mean")
DIGITS = {"psnr": 2, "ssim": 3, "ssim127": 4}
TITLES = {"psnr": "PSNR (dB)", "ssim": "SSIM (window 7)", "ssim127": "SSIM (window 127)"}


def levels_of(rows: Sequence[Row]) -> list[Level]:
    """Return the noise levels in the order of the rows."""
    return list(dict.fromkeys(row.level for row in rows))


def lines_of(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the lines of the table: one method each, its rows in the order of the levels."""
    lines: dict[tuple[str, int, bool], list[Row]] = {}
    for row in rows:
        lines.setdefault(row.key, []).append(row)
    return list(lines.values())


def is_filter(row: Row) -> bool:
    """Whether a row is that of a filter, which nobody trained."""
    return row.method in {kind.name for kind in (*FILTERS, BM3D, *FILTERS_3D)}


def is_network(row: Row) -> bool:
    """Whether a row is that of a trained network."""
    return row.method not in UNTREATED and not is_filter(row)


def best_filter(rows: Sequence[Row], level: Level, metric: str, *, corrected: bool) -> Row:
    """Return the row of the filter with the best mean at a level.

    Parameters
    ----------
    rows
        The rows of a study.
    level
        The noise level.
    metric
        "psnr" or "ssim".
    corrected
        Whether filters with grey correction compete too.
    """
    filters = [
        row
        for row in rows
        if row.level == level and is_filter(row) and (corrected or not row.corrected)
    ]
    return max(filters, key=lambda row: row.mean(metric))


def as_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one record per row: level, method, setting, mean and standard deviation."""
    metrics = list(rows[0].scores)
    return [
        {
            "noise": row.level.kind,
            "level": f"{row.level.value:g}",
            "method": row.method,
            "label": row.label,
            "images": row.images,
            "corrected": int(row.corrected),
            **{
                f"{metric}_{what}": value
                for metric in metrics
                for what, value in (("mean", row.mean(metric)), ("sd", row.sd(metric)))
            },
            "slices": len(row.scores[metrics[0]]),
            "setting": json.dumps(row.setting) if row.setting else "",
        }
        for row in rows
    ]


def as_tables(rows: Sequence[Row]) -> list[tuple[str, Table]]:
    """Return a table per metric, mean ± standard deviation, the best of every level in bold.

    Parameters
    ----------
    rows
        The rows of a study; every method at every level.
    """
    levels = levels_of(rows)
    result = []
    for metric in rows[0].scores:
        digits = DIGITS[metric]
        top = {
            level: max(round(row.mean(metric), digits) for row in rows if row.level == level)
            for level in levels
        }
        lines = []
        for line in lines_of(rows):
            cells = []
            for row in line:
                cell = f"{row.mean(metric):.{digits}f}"
                if row.sd(metric):  # a single slice has none
                    cell += f" ± {row.sd(metric):.{digits}f}"
                best = round(row.mean(metric), digits) == top[row.level]
                cells.append(f"**{cell}**" if best else cell)
            lines.append((line[0].label, *cells))
        header = (TITLES[metric], *(level.label for level in levels))
        result.append((TITLES[metric], Table(header, tuple(lines))))
    return result


def plot_scores(rows: Sequence[Row], path: Path, metric: str = "psnr") -> None:
    """Save a panel per noise level with a dot per method; grey-corrected filters are hollow.

    The noisy input and the mean of three, which would squeeze everything else together, stand in
    the panel's title.

    Parameters
    ----------
    rows
        The rows of a study.
    path
        The PNG file to write.
    metric
        "psnr", "ssim" or "ssim127".
    """
    digits = min(3, DIGITS[metric])
    panels = []
    for level in levels_of(rows):
        here = [row for row in rows if row.level == level]
        corrected = {(row.method, row.images): row.mean(metric) for row in here if row.corrected}
        dots = [
            Dot(
                row.label,
                row.mean(metric),
                row.sd(metric),
                colour_of(row.method),
                corrected.get((row.method, row.images)),
            )
            for row in here
            if not row.corrected and row.method not in UNTREATED
        ]
        noisy, mean = (
            next(row.mean(metric) for row in here if row.method == name) for name in UNTREATED
        )
        title = f"{level.label}\ninput {noisy:.{digits}f}, mean of three {mean:.{digits}f}"
        panels.append((title, dots))
    dot_plot(
        panels,
        path,
        axis=f"{TITLES[metric]}, mean and standard deviation over slices",
        note="Hollow: after the grey correction that undoes the expected clipping",
    )
