"""Tables 1 and 2 of the paper: every method at one noise level and at eight.

All methods are candidates of :mod:`nrrn_fiji.scoring` and see the same noisy slices.  This module
must never leave out a method or a level because of how it looks.

Source: nrrn.md of the method, Tables 1 and 2 and the notes beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import tables
from ..intensity import Source
from ..metrics import psnr
from ..models import Model, load_model
from ..plots import picture_grid
from ..progress import NoProgress, Progress
from ..reports import Table
from ..scoring import Candidate, Level, Row, Steps, score
from .cache import RowCache, digest
from .candidates import untreated
from .context import Study
from .levels import LEVELS, TABLE1_LEVEL, central
from .parts import Figure, Part, plus_minus

__all__ = ["card_results", "rows_of", "table1", "table2", "table2_part"]

PICTURED = (LEVELS[0], LEVELS[2], LEVELS[5], LEVELS[7])
"""The levels that pictures are made of."""

PICTURE_CROP = 150
"""Edge in pixels of the pictures."""

PAPER_TABLE1 = {
    ("input", 1): (22.97, 0.8577),
    ("nlm", 3): (31.36, 0.9725),
    ("bm3d", 1): (28.25, 0.8747),
    ("median", 3): (28.02, 0.9495),
    ("gaussian", 3): (27.06, 0.9195),
    ("nlm", 1): (24.07, 0.6195),
    ("trained-denoisenet-three", 3): (32.20, 0.9779),
    ("trained-denoisenet-single", 1): (28.34, 0.9559),
    ("trained-unet-mean", 3): (31.47, 0.9760),
    ("trained-unet-single", 1): (29.18, 0.9571),
    ("nrrn", 3): (31.11, 0.9708),
    ("nrrn", 2): (30.42, 0.9666),
}
"""PSNR and SSIM (window 127) of the paper's Table 1, on other data: only the order compares."""


def table2(
    volume: NDArray[Any] | Source,
    tuning_volume: NDArray[Any] | Source,
    model: Model | str | Path | None = None,
    *,
    levels: Sequence[Level] = LEVELS,
    slices: Sequence[int] | None = None,
    tuning_slices: Sequence[int] | None = None,
    images: Sequence[int] = (3,),
    seed: int = 0,
    device: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure input, mean of three, filters and a model at every noise level.

    Only the slices that are scored and their neighbours are read, noised and denoised.

    Parameters
    ----------
    volume
        Clean stack (Z, Y, X) that is scored; an array or a source that is read slice by slice.
    tuning_volume
        Clean stack that filters are tuned on.  It must not be the one that is scored.
    model
        A model, its name or file; None measures everything else.
    levels
        The noise levels.
    slices, tuning_slices
        0-based slices that are scored, and that filters are tuned on; see :func:`default_slices`
        and :func:`default_tuning_slices` for those that are chosen when left out.
    images
        With how many images per slice the model denoises: any of 1, 2 and 3.
    seed
        Seed of the noise; that of a slice depends on seed, level and slice number alone.
    device
        Where the model computes, in fp32.
    cache
        JSON file that keeps what does not depend on the model, so that a second model is quick
        and an interrupted run continues.
    progress
        Told of every tuned filter and scored slice; asked whether to stop.

    Returns
    -------
    list of Row
        Level by level: input, mean of three, every filter on the single slice and on the mean,
        each without and with grey correction, and the model.

    Raises
    ------
    ValueError
        If a volume is no stack, a slice number is outside it, or there are no levels.
    Cancelled
        If the user stopped; levels in the cache stay.
    """
    study = Study(
        volume,
        tuning_volume,
        () if model is None else (load_model(model),),
        levels=levels,
        slices=slices,
        tuning_slices=tuning_slices,
        seed=seed,
        device=device,
        progress=progress or NoProgress(),
    )
    if cache:  # now that nothing can be refused any more
        cache.parent.mkdir(parents=True, exist_ok=True)
    return rows_of(study, levels, study.networks(images), cache)


def rows_of(
    study: Study,
    levels: Sequence[Level],
    networks: Sequence[Candidate],
    cache: Path | None = None,
) -> list[Row]:
    """Score untreated slices, filters and networks at noise levels.

    Parameters
    ----------
    study
        The volumes and slices.
    levels
        The noise levels.
    networks
        Models and competitors, the same at every level.
    cache
        JSON file for the rows of untreated slices and filters.

    Returns
    -------
    list of Row
        Level by level, in the order of the methods.
    """
    known = RowCache(cache, digest([study.scored.fingerprint(), study.filter_facts(*levels)]))
    measured = {level: known.get(level) for level in levels}
    slices = len(study.scored.indices)
    steps = Steps(
        study.progress,
        sum(study.filter_steps(level) + slices for level in levels if measured[level] is None)
        + (len(levels) * slices if networks else 0),
        f"filters of finished noise levels are kept in {cache}" if cache else "nothing is kept",
    )
    table: list[Row] = []
    for level in levels:
        rows = measured[level]
        if rows is None:
            rows = score([*untreated(), *study.filters(level, steps)], study.scored, level, steps)
            known.put(level, rows)
        table += rows
        if networks:
            table += score(networks, study.scored, level, steps)
    return table


def table2_part(study: Study, images: Sequence[int] = (3,)) -> Part:
    """Measure Table 2: every method at eight noise levels, with plots and pictures.

    Parameters
    ----------
    study
        What is measured on what.
    images
        With how many images per slice the model denoises: any of 1, 2 and 3.
    """
    assert study.levels is not None
    networks = study.networks(images)
    out = study.folder()
    rows = rows_of(study, study.levels, [*networks, *study.turned()], out / "filters.json")
    stem = f"table2-{study.models[0].name if study.models else 'filters'}"
    save_pictures(rows, study, networks, out / f"{stem}-pictures.png")
    figures = [
        Figure(
            f"{stem}-pictures.png",
            f"Slice {middle(study)}: noisy, best filter, networks and the clean slice.",
        )
    ]
    for metric in ("psnr", "ssim"):
        tables.plot_scores(rows, out / f"{stem}-{metric}.png", metric)
        caption = f"{tables.TITLES[metric]} of every method at every noise level."
        figures.append(Figure(f"{stem}-{metric}.png", caption))
    return Part(
        name="table2",
        title="Table 2: noise from weak to very strong",
        about=f"{study.about()} Grey-corrected: the expected effect of clipping undone after the "
        "filter, which is only fair: noise that is clipped has a mean, networks that were trained "
        "on clean targets learn to undo it and filters cannot. The best of a level is bold, or has "
        "a dot.",
        findings=tuple(compare(rows)) if networks else (),
        tables=tuple(tables.as_tables(rows)),
        figures=tuple(figures),
        records=tuple(tables.as_records(rows)),
        facts={**study.facts(), "rows": [row.as_dict() for row in rows]},
        stem=stem,
    )


def table1(study: Study) -> Part:
    """Measure Table 1: every method at one level of noise, that of the paper's input (23 dB)."""
    networks = [*study.networks((3, 2, 1)), *study.turned()]
    out = study.folder()
    rows = rows_of(study, [TABLE1_LEVEL], networks, out / "filters-table1.json")
    save_pictures(rows, study, study.networks(), out / "table1-pictures.png")
    metrics = list(rows[0].scores)
    header = ["", *(tables.TITLES[metric] for metric in metrics), "Paper: PSNR / SSIM"]
    best = {m: max(round(row.mean(m), tables.DIGITS[m]) for row in rows) for m in metrics}
    lines = []
    for row in rows:
        cells = []
        for metric in metrics:
            digits = tables.DIGITS[metric]
            cell = plus_minus(row.mean(metric), row.sd(metric), digits)
            top = round(row.mean(metric), digits) == best[metric]
            cells.append(f"**{cell}**" if top else cell)
        paper = PAPER_TABLE1.get((row.method, row.images)) if not row.corrected else None
        lines.append((row.label, *cells, f"{paper[0]:.2f} / {paper[1]:.4f}" if paper else ""))
    return Part(
        name="table1",
        title="Table 1: noise as strong as in the paper's microscope",
        about=f"{study.about()} {TABLE1_LEVEL.label} gives an input of "
        f"{rows[0].mean('psnr'):.2f} dB; the paper's has 22.97 dB. The paper's numbers are of "
        "other data, so only their order compares.",
        findings=tuple(compare(rows)) if networks else (),
        tables=(
            (
                f"{TABLE1_LEVEL.label}, best in bold or with a dot",
                Table(tuple(header), tuple(lines)),
            ),
        ),
        figures=(Figure("table1-pictures.png", f"Slice {middle(study)} at the level of Table 1."),),
        records=tuple(tables.as_records(rows)),
        facts={**study.facts(), "rows": [row.as_dict() for row in rows]},
    )


def middle(study: Study) -> int:
    """Return the number of the scored slice that pictures are made of."""
    return study.scored.indices[len(study.scored.indices) // 2]


def compare(rows: Sequence[Row]) -> list[str]:
    """Return sentences that say at how many levels the network with 3 images is the best."""
    levels = tables.levels_of(rows)
    network = {row.level: row for row in rows if row.method == "nrrn" and row.images == 3}
    turned = {row.level: row for row in rows if row.method == "nrrn-turned"}
    if not network:
        return []
    if len(levels) == 1:
        return [compare_at(rows, levels[0])]

    def above_filters(scored: dict[Level, Row]) -> str:
        """Count levels for PSNR and SSIM, for filters as they are and grey-corrected."""
        counts = [
            sum(
                scored[level].mean(metric)
                > tables.best_filter(rows, level, metric, corrected=corrected).mean(metric)
                for level in levels
            )
            for corrected in (False, True)
            for metric in ("psnr", "ssim")
        ]
        return "{} in PSNR and {} in SSIM; with grey-corrected filters at {} and {}.".format(
            *counts
        )

    sentences = [
        f"Of {len(levels)} noise levels, NRRN is above the best filter at {above_filters(network)}"
    ]
    if turned:
        sentences.append(
            "Averaged over orientations of the slices, NRRN is above the best filter at "
            f"{above_filters(turned)}"
        )
    others = [line for line in tables.lines_of(rows) if tables.is_network(line[0])]
    for line in others:
        if line[0].method in ("nrrn", "nrrn-turned"):
            continue
        psnr_count, ssim_count = (
            sum(network[row.level].mean(metric) > row.mean(metric) for row in line)
            for metric in ("psnr", "ssim")
        )
        sentences.append(
            f"NRRN is above {line[0].label} at {psnr_count} of {len(levels)} levels in PSNR and at "
            f"{ssim_count} in SSIM."
        )
    return sentences


def compare_at(rows: Sequence[Row], level: Level) -> str:
    """Return a sentence that sets the network's scores at one level beside everybody else's."""

    def scores(psnr_row: Row, ssim_row: Row | None = None) -> str:
        alike = (ssim_row or psnr_row).mean("ssim")
        return f"{psnr_row.mean('psnr'):.2f} dB (SSIM {alike:.3f})"

    own = [row for row in rows if row.method in ("nrrn", "nrrn-turned") and row.images == 3]
    others = [
        line[0]
        for line in tables.lines_of(rows)
        if tables.is_network(line[0]) and line[0].method not in ("nrrn", "nrrn-turned")
    ]
    filters = [
        tables.best_filter(rows, level, metric, corrected=True) for metric in ("psnr", "ssim")
    ]
    said = [f"{row.label} {scores(row)}" for row in (*own, *others)]
    return (
        f"At {level.label}: {', '.join(said)}; the best filter, grey-corrected where that is "
        f"better, {scores(*filters)}."
    )


def card_results(facts: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a model's card keeps: everything but the scores of single slices."""
    short = [
        {
            "noise": row.level.label,
            "method": row.label,
            **{m: [round(row.mean(m), 5), round(row.sd(m), 5)] for m in row.scores},
        }
        for row in rows
    ]
    return {**facts, "columns": "mean and standard deviation over slices", "rows": short}


def save_pictures(
    rows: Sequence[Row], study: Study, networks: Sequence[Candidate], path: Path
) -> None:
    """Save noisy, best filter, networks and clean side by side, for up to four noise levels."""
    measured = tables.levels_of(rows)
    levels = [level for level in measured if level in PICTURED] or measured[:4]
    index = middle(study)
    truth = study.scored.clean(index)
    grid = []
    for level in levels:
        triplet = study.scored.triplet(index, level)
        best = tables.best_filter(rows, level, "psnr", corrected=True)
        [chosen] = [
            candidate
            for candidate in study.filters(level)
            if (candidate.method, candidate.images, candidate.corrected) == best.key
        ]
        pictures = []
        for candidate in [untreated()[0], chosen, *networks]:
            estimate = candidate.denoise(triplet)
            title = f"{candidate.label}: {psnr(truth, estimate):.1f} dB"
            pictures.append((title, central(estimate, PICTURE_CROP)))
        grid.append([*pictures, ("Clean", central(truth, PICTURE_CROP))])
    picture_grid(grid, path, labels=[level.label for level in levels])
