"""Is noise removed alike everywhere?  The spread of PSNR over the tiles of many slices.

The paper cuts slices of 4K × 6K into tiles of 256² and finds that the PSNR of NRRN's tiles spreads
by 0.52 dB, U-Net's by 1.26 dB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..metrics import psnr
from ..plots import colour_of
from ..reports import Table, counted
from ..scoring import CleanSlices, Image, Steps
from .cache import JsonCache
from .context import Study
from .figures import histograms
from .levels import TABLE1_LEVEL
from .parts import Figure, Part, mean_and_sd, plus_minus

__all__ = ["EDGES", "tile_psnr", "tiles", "tiles_shown"]

EDGES = (128, 256)
"""Edges of the tiles in pixels."""

PAPER = {"nrrn": 0.52, "unet": 1.26}
"""Standard deviation in dB in the paper, over tiles of 256²."""


def tile_psnr(clean: Image, estimate: Image, edge: int) -> list[float]:
    """Return the PSNR of every whole tile of a slice.

    Parameters
    ----------
    clean, estimate
        Slices (Y, X).
    edge
        Edge of the tiles; what is left over is shared between the sides.

    Returns
    -------
    list of float
        Row by row.
    """
    count_y, count_x = (size // edge for size in clean.shape)
    top, left = ((size % edge) // 2 for size in clean.shape)
    return [
        psnr(clean[y : y + edge, x : x + edge], estimate[y : y + edge, x : x + edge])
        for y in range(top, top + count_y * edge, edge)
        for x in range(left, left + count_x * edge, edge)
    ]


def tiles_shown(study: Study) -> list[int]:
    """Return the slices whose tiles are scored; other experiments score fewer."""
    return list(study.tile_slices)


def tiles(study: Study) -> Part:
    """Measure the PSNR of tiles for every network, over all slices or as many as asked for."""
    _, height, width = study.volume.shape
    chosen = study.tile_slices
    slices = CleanSlices(study.volume, chosen, study.seed, name="volume")
    edges = [edge for edge in EDGES if edge <= min(height, width)] or [min(height, width) // 2]
    out = study.folder()
    candidates = [study.best_filter(TABLE1_LEVEL), *study.networks()]
    known = JsonCache(out / "kept-tiles.json", study.key("tiles", tiles_shown(study)))
    missing = [c for c in candidates if known.get(c.label) is None]
    steps = Steps(
        study.progress,
        len(missing) * len(chosen),
        f"the tiles of finished methods are kept in {known.path}",
    )
    for candidate in missing:
        values: dict[str, list[list[float]]] = {str(edge): [] for edge in edges}
        for index in chosen:
            clean = slices.clean(index)
            estimate = candidate.denoise(slices.triplet(index, TABLE1_LEVEL))
            for edge in edges:
                values[str(edge)].append(tile_psnr(clean, estimate, edge))
            steps.next(f"tiles of {candidate.label}: slice {index}")
        known.put(candidate.label, values)

    def of(label: str, edge: int) -> NDArray[np.float64]:
        """(slices, tiles)."""
        return np.array(known.get(label)[str(edge)])

    histograms(
        [
            (
                f"Tiles of {edge}²",
                [(c.label, of(c.label, edge).ravel(), colour_of(c.method)) for c in candidates],
            )
            for edge in edges
        ],
        out / "tiles-histogram.png",
        axis="PSNR of a tile (dB)",
        counted="Tiles (%)",
    )
    lines, records, findings = [], [], []
    for candidate in candidates:
        cells: list[str] = []
        for edge in edges:
            values_of = of(candidate.label, edge)
            all_tiles = values_of.ravel()
            mean, sd = mean_and_sd(all_tiles)
            # How far apart tiles of one slice are: what a viewer sees side by side.
            within = float(np.mean([mean_and_sd(row)[1] for row in values_of]))
            low, high = (float(p) for p in np.percentile(all_tiles, (5, 95)))
            cells += [plus_minus(mean, sd), f"{within:.2f}", f"{low:.2f} … {high:.2f}"]
            records.append(
                {
                    "method": candidate.method,
                    "label": candidate.label,
                    "images": candidate.images,
                    "edge": edge,
                    "tiles": all_tiles.size,
                    "psnr_mean": mean,
                    "psnr_sd": sd,
                    "psnr_sd_within_slices": within,
                    "psnr_p5": low,
                    "psnr_p95": high,
                }
            )
            if candidate.method == "nrrn":
                findings.append(
                    f"The PSNR of NRRN's tiles of {edge}² is {mean:.2f} dB with a standard "
                    f"deviation of {sd:.2f} dB over {counted(all_tiles.size, 'tile')} (the "
                    "paper, with other data: 0.52 dB; its U-Net: 1.26 dB)."
                )
        lines.append((candidate.label, *cells))
    header = [""]
    for edge in edges:
        header += [f"{edge}²: PSNR ± sd (dB)", "sd within a slice (dB)", "5 … 95 % (dB)"]
    return Part(
        name="tiles",
        title="Tiles: is noise removed alike everywhere?",
        about=f"{study.about()} Here {TABLE1_LEVEL.label} on {counted(len(chosen), 'slice')}, "
        "spread over the stack unless slices were chosen; PSNR of all whole tiles. What "
        "differs from tile to tile is also how much detail there is: compare with the other "
        "methods on the same tiles.",
        findings=tuple(findings),
        tables=((f"PSNR of tiles at {TABLE1_LEVEL.label}", Table(tuple(header), tuple(lines))),),
        figures=(Figure("tiles-histogram.png", "How many tiles have which PSNR."),),
        records=tuple(records),
        facts={
            **study.facts(),
            "tile_slices": list(chosen),
            "psnr": {c.label: known.get(c.label) for c in candidates},
        },
    )
