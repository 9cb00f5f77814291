"""The paper's experiments on any clean volume, each from one call.

:func:`table2` measures the network beside what it has to beat: the noisy input, the mean of three
slices, and filters at their best.  All are candidates of :mod:`nrrn_fiji.scoring`; a further
competitor is a further function that returns candidates, a further experiment a function like
this one.

This module must never tune, or choose anything, on the slices it scores.

Source: nrrn.md of the method, Table 2 and the notes beside it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__, tables
from .baselines.clipping import undo_clipping
from .baselines.filters import FILTERS, Filter, Setting, filter_named, tune
from .files import write_whole
from .intensity import ArraySource, Source
from .metrics import psnr
from .models import Model, load_model, save_model
from .plots import picture_grid
from .progress import NoProgress, Progress
from .reports import Report, Table, as_json
from .scoring import Candidate, CleanSlices, Image, Level, Row, Steps, score
from .settings import DenoiseSettings
from .triplets import HELD_OUT
from .volumes import Volume, open_volume

__all__ = [
    "LEVELS",
    "FilterCache",
    "default_slices",
    "default_tuning_slices",
    "model_candidates",
    "table2",
    "table2_files",
    "tuned_filters",
    "untreated",
]

LEVELS = tuple(
    Level(kind, value)
    for kind, values in (("poisson", (1, 4, 8, 30)), ("gaussian", (10, 25, 35, 75)))
    for value in values
)
"""The paper's levels."""

MOST_SLICES = 11
"""Slices 10, 20, … 110 are scored unless others are asked for, or the stack is not that deep."""

PICTURED = (LEVELS[0], LEVELS[2], LEVELS[5], LEVELS[7])
"""The levels that pictures are made of."""

PICTURE_CROP = 150
"""Edge in pixels of the pictures."""

TUNING_CROP = 160
"""Edge in pixels of the central crops that filters are tuned on."""


class FilterCache:
    """Remembers what does not depend on the model, level by level, in a JSON file.

    Parameters
    ----------
    path
        The file; it need not exist.
    key
        Digest of everything the results depend on; results of another key are forgotten.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self.levels: dict[str, list[dict[str, Any]]] = {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] == key:
                self.levels = content["levels"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # A cache that cannot be read is no cache: everything is measured again.

    def get(self, level: Level) -> list[Row] | None:
        """Return the rows of a level, or None if they were never measured."""
        rows = self.levels.get(level.label)
        return None if rows is None else [Row.from_dict(row) for row in rows]

    def put(self, level: Level, rows: Sequence[Row]) -> None:
        """Keep the rows of a level, on disk at once."""
        self.levels[level.label] = [row.as_dict() for row in rows]
        content = json.dumps({"key": self.key, "levels": self.levels}, indent=1)
        write_whole(self.path, content.encode())


def default_slices(depth: int) -> tuple[int, ...]:
    """Return the slices 10, 20, … 110, as far as a stack of ``depth`` slices has them.

    A stack too shallow for any of them is scored on its middle slice.
    """
    return tuple(range(10, depth - 1, 10))[:MOST_SLICES] or (depth // 2,)


def default_tuning_slices(depth: int) -> tuple[int, ...]:
    """Return up to four slices of the last tenth of a stack, which no training sees.

    Of 250 slices: 227, 233, 240 and 247, whose neighbours lie in the last tenth too.
    """
    held_out = max(1, round(HELD_OUT * depth))
    if held_out < 7:
        return tuple(range(depth - held_out, depth))[:4]
    return tuple(int(z) for z in np.linspace(depth - held_out + 2, depth - 3, 4))


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
    if not levels:
        raise ValueError("levels is empty, but the study needs at least one: choose some.")
    progress = progress or NoProgress()
    if slices is None:
        slices = default_slices(volume.shape[0])
    if tuning_slices is None:
        tuning_slices = default_tuning_slices(tuning_volume.shape[0])
    scored = CleanSlices(volume, slices, seed, name="volume")
    tuning = CleanSlices(tuning_volume, tuning_slices, seed, name="tuning_volume")
    if volume is tuning_volume:
        raise ValueError(
            "tuning_volume is the volume that is scored: tune on slices that are not scored, say "
            "those of another volume."
        )
    known = FilterCache(cache, cache_key(scored, tuning)) if cache else None
    network = model_candidates(load_model(model), images, device) if model is not None else []
    if cache:  # now that nothing can be refused any more
        cache.parent.mkdir(parents=True, exist_ok=True)
    measured = {level: known.get(level) if known else None for level in levels}
    missing = sum(rows is None for rows in measured.values())
    steps = Steps(
        progress,
        missing * (2 * len(FILTERS) + len(scored.indices))
        + (len(levels) * len(scored.indices) if network else 0),
        f"filters of finished noise levels are kept in {cache}" if cache else "nothing is kept",
    )
    table: list[Row] = []
    for level in levels:
        rows = measured[level]
        if rows is None:
            candidates = [*untreated(), *tuned_filters(tuning, level, steps)]
            rows = score(candidates, scored, level, steps)
            if known:
                known.put(level, rows)
        table += [*rows, *(score(network, scored, level, steps) if network else [])]
    return table


def table2_files(
    volume: str | Path,
    tuning: str | Path,
    model: Model | str | Path | None,
    out: str | Path,
    *,
    all_images: bool = False,
    slices: Sequence[int] | None = None,
    tuning_slices: Sequence[int] | None = None,
    seed: int = 0,
    device: str | None = None,
    write_card: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run :func:`table2` on files and write everything into a folder.

    The folder then holds, named after the model: the table as ``.md`` and ``.csv``, everything
    with the score of every slice as ``.json``, plots of PSNR and SSIM, and pictures; besides
    ``filters.json``, by which the next model on the same slices is quick.

    Parameters
    ----------
    volume, tuning
        Images with a clean stack: scored, and for tuning the filters.
    model
        A model, its name or file; None measures filters alone.
    out
        The folder, made if need be.
    all_images
        Also denoise with 1 and 2 images per slice.
    slices, tuning_slices, seed, device
        As in :func:`table2`.
    write_card
        Also put the table into the card of the model's file, under ``results.table2``.
    progress
        Told of the work.

    Returns
    -------
    Report
        The table of mean PSNR, and where the rest is.

    Raises
    ------
    ValueError
        If the volumes are the same file, one holds several channels or time points, a slice is
        outside, or ``write_card`` is asked for without a model that is a file.
    """
    out = Path(out)
    if Path(volume).resolve() == Path(tuning).resolve():
        raise ValueError(
            f"{tuning} is also the volume that is scored, but filters must be tuned on other "
            "slices: give another volume."
        )
    loaded = None if model is None else load_model(model)
    if write_card and (loaded is None or loaded.path is None):
        raise ValueError(
            "write_card is set, but there is no model file to write to: save the model first and "
            "give its file."
        )
    images = (3, 2, 1) if all_images else (3,)
    start = time.monotonic()
    with open_volume(volume) as scored, open_volume(tuning) as other:
        clean, held_out = OneChannel(scored), OneChannel(other)
        if slices is None:
            slices = default_slices(clean.shape[0])
        if tuning_slices is None:
            tuning_slices = default_tuning_slices(held_out.shape[0])
        rows = table2(
            clean,
            held_out,
            loaded,
            slices=slices,
            tuning_slices=tuning_slices,
            images=images,
            seed=seed,
            device=device,
            cache=out / "filters.json",
            progress=progress,
        )
        stem = f"table2-{loaded.name if loaded else 'filters'}"
        network = model_candidates(loaded, (3,), device) if loaded else []
        save_pictures(
            rows,
            CleanSlices(clean, slices, seed, name="volume"),
            network,
            out / f"{stem}-pictures.png",
        )
        facts: dict[str, Any] = {"volume": scored.name, "tuning": other.name}
    facts |= {
        "slices": list(slices),
        "tuning_slices": list(tuning_slices),
        "seed": seed,
        "noise": "Poisson (peak) or Gaussian (sigma of 255), clipped to [0, 1]",
        "model": {"name": loaded.name, "hash": loaded.hash} if loaded else None,
        "package_version": __version__,
        "seconds": round(time.monotonic() - start, 1),
        "rows": [row.as_dict() for row in rows],
    }
    note = describe(facts)
    write_whole(out / f"{stem}.json", json.dumps(as_json(facts), indent=1).encode())
    write_whole(out / f"{stem}.csv", tables.as_csv(rows).encode())
    write_whole(out / f"{stem}.md", tables.as_markdown(rows, note).encode())
    for metric in ("psnr", "ssim"):
        tables.plot_scores(rows, out / f"{stem}-{metric}.png", metric)
    if write_card and loaded is not None and loaded.path is not None:
        results = {**loaded.card.get("results", {}), "table2": card_results(facts, rows)}
        save_model(loaded.path, loaded.network, {**loaded.card, "results": results})
    levels = tables.levels_of(rows)
    table = Table(
        ("PSNR (dB)", *(level.label for level in levels)),
        tuple(
            (line[0].label, *(f"{row.mean('psnr'):.2f}" for row in line))
            for line in tables.lines_of(rows)
        ),
    )
    summary = f"The table, plots and pictures are in {out / stem}*."
    if loaded:
        summary = f"{compare(rows)}\n{summary}"
        if write_card:
            summary += f"\nThe card of {loaded.path} holds the table."
    return Report(summary, facts, table)


class OneChannel:
    """An opened image with one channel and one time point, as a source of slices."""

    def __init__(self, volume: Volume):
        self.volume, self.dtype = volume, volume.dtype
        if volume.shape.c * volume.shape.t != 1:
            raise ValueError(
                f"{volume.name} has {volume.shape.c} channels and {volume.shape.t} time points, "
                "but the study needs one of each: save the one to measure as a file of its own."
            )
        self.shape = (volume.shape.z, volume.shape.y, volume.shape.x)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1``."""
        return self.volume.read(start, stop)


def describe(facts: dict[str, Any]) -> str:
    """Return a paragraph that says what was measured on what."""

    def listed(numbers: Sequence[int]) -> str:
        return ", ".join(map(str, numbers))

    model = facts["model"]
    first = (
        f"Model `{model['name']}` ({model['hash'][:12]}), " if model else "Filters alone, "
    ) + f"nrrn-fiji {facts['package_version']}."
    return (
        f"{first} `{facts['volume']}`, slices {listed(facts['slices'])} (0-based), with synthetic "
        f"noise clipped to [0, 1], seed {facts['seed']}; mean ± standard deviation over the "
        f"slices, estimates clipped to [0, 1]. Filters tuned for every level on "
        f"`{facts['tuning']}`, slices {listed(facts['tuning_slices'])}. Grey-corrected: the "
        "expected effect of clipping undone after the filter. Best of a level in bold."
    )


def compare(rows: Sequence[Row]) -> str:
    """Return a sentence that says at how many levels the network with 3 images is the best."""
    levels = tables.levels_of(rows)
    network = {row.level: row for row in rows if row.method == "nrrn" and row.images == 3}

    def count(metric: str, corrected: bool) -> int:
        return sum(
            network[level].mean(metric)
            > tables.best_filter(rows, level, metric, corrected=corrected).mean(metric)
            for level in levels
        )

    return (
        f"Of {len(levels)} noise levels, NRRN is above the best filter at {count('psnr', False)} "
        f"in PSNR and {count('ssim', False)} in SSIM; with grey-corrected filters at "
        f"{count('psnr', True)} and {count('ssim', True)}."
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
    rows: Sequence[Row], scored: CleanSlices, network: Sequence[Candidate], path: Path
) -> None:
    """Save noisy, best filter, network and clean side by side, for up to four noise levels."""
    measured = tables.levels_of(rows)
    levels = [level for level in measured if level in PICTURED] or measured[:4]
    at = len(scored.indices) // 2
    index = scored.indices[at]

    def crop(image: Image) -> Image:
        y, x = (max(0, (edge - PICTURE_CROP) // 2) for edge in image.shape)
        return image[y : y + PICTURE_CROP, x : x + PICTURE_CROP]

    grid = []
    for level in levels:
        triplet = scored.triplet(index, level)
        best = tables.best_filter(rows, level, "psnr", corrected=True)
        candidates = [
            untreated()[0],
            filter_candidate(
                filter_named(best.method), best.images, best.corrected, best.setting or {}, level
            ),
            *network,
        ]
        truth = scored.clean(index)
        pictures = []
        for candidate in candidates:
            estimate = candidate.denoise(triplet)
            title = f"{candidate.label}: {psnr(truth, estimate):.1f} dB"
            pictures.append((title, crop(estimate)))
        grid.append([*pictures, ("Clean", crop(truth))])
    picture_grid(grid, path, labels=[level.label for level in levels])


def centre(triplet: Image) -> Image:
    """Return the middle one of three slices."""
    return triplet[1]


def mean_of_three(triplet: Image) -> Image:
    """Return the mean of three slices."""
    return triplet.mean(axis=0)


INPUTS: dict[int, tuple[Callable[[Image], Image], str]] = {
    1: (centre, "single slice"),
    3: (mean_of_three, "mean of three"),
}
"""What a filter may be given, by the number of images in it."""


def untreated() -> list[Candidate]:
    """Return the noisy slice itself and the mean of three."""
    return [
        Candidate("input", "Input", 1, centre),
        Candidate("mean", "Mean of three slices", 3, mean_of_three),
    ]


def filter_candidate(
    kind: Filter, images: int, corrected: bool, setting: Setting, level: Level
) -> Candidate:
    """Return a filter with its setting as a candidate."""
    select, name = INPUTS[images]

    def denoise(triplet: Image) -> Image:
        filtered = kind(select(triplet), setting)
        return undo_clipping(filtered, **level.noise) if corrected else filtered

    label = f"{kind.label}, {name}" + (", grey-corrected" if corrected else "")
    return Candidate(kind.name, label, images, denoise, corrected, setting)


def tuned_filters(tuning: CleanSlices, level: Level, steps: Steps | None = None) -> list[Candidate]:
    """Return every filter on one and on three images, tuned for a noise level.

    Parameters
    ----------
    tuning
        The volume and the slices to tune on; their central crops are used.
    level
        The noise level.
    steps
        Told of every filter.
    """

    def crop(image: Image) -> Image:
        y, x = (max(0, (edge - TUNING_CROP) // 2) for edge in image.shape[-2:])
        return image[..., y : y + TUNING_CROP, x : x + TUNING_CROP]

    clean = [crop(tuning.clean(index)) for index in tuning.indices]
    triplets = [crop(tuning.triplet(index, level)) for index in tuning.indices]

    def correct(image: Image) -> Image:
        return undo_clipping(image, **level.noise)

    candidates = []
    for kind in FILTERS:
        for images, (select, name) in INPUTS.items():
            noisy = [select(triplet) for triplet in triplets]
            plain, after = tune(kind, clean, noisy, (np.asarray, correct))
            for corrected, tuned in ((False, plain), (True, after)):
                candidates.append(filter_candidate(kind, images, corrected, tuned.setting, level))
            if steps:
                steps.next(f"{level.label}: tuned {kind.label}, {name}")
    return candidates


def model_candidates(
    model: Model, images: Sequence[int] = (3,), device: str | None = None
) -> list[Candidate]:
    """Return a model as a candidate, once for every number of images.

    It denoises through the engine that users use, in fp32 whatever the device.

    Parameters
    ----------
    model
        The model.
    images
        Any of 1, 2 and 3.
    device
        Where to compute; the best there is when left out.
    """
    # torch, which filters alone do not need.
    from .denoising import denoise_slabs, make_plan

    def candidate(count: int) -> Candidate:
        settings = DenoiseSettings(images=count, device=device, precision="fp32")

        def denoise(triplet: Image) -> Image:
            source = ArraySource(triplet)
            plan = make_plan(source.shape, source.dtype, model.network, settings, (0, 1))
            [block] = denoise_slabs(source, model.network, plan, slices=range(1, 2))
            return block.image[0]

        label = f"NRRN, {count} image" + ("s" if count > 1 else "")
        return Candidate("nrrn", label, count, denoise)

    return [candidate(count) for count in images]


def cache_key(scored: CleanSlices, tuning: CleanSlices) -> str:
    """Return a digest of what the rows of untreated slices and filters depend on."""
    grids = {kind.name: kind.grid(1.0) for kind in FILTERS}
    facts = [scored.fingerprint(), tuning.fingerprint(), TUNING_CROP, grids]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
