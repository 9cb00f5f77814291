"""What ``nrrn report`` says of results that are known to be good, bad, or a mistake.

    python benchmarks/verdicts.py STACK… [--model fibsem-medulla] [--edge 192] [--slices 20]

Cuts a crop out of the middle of each stack, adds noise (none, Gaussian sigma 10 and 50, Poisson
peak 4 and 8; seed 0, clipped and rounded to 8 bit), and prints, as Markdown, the numbers and the
judgement of each result: the shipped model, Gaussian filters, a median, half and none of the noise
removed, and mistakes (another stack, a slice or some pixels off, another grey scale, a negative).
The limits in nrrn_fiji/verdicts.py were set by this table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import nrrn_fiji
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.noise import add_noise
from nrrn_fiji.quality import assess
from nrrn_fiji.verdicts import overall, verdicts

NOISES: dict[str, dict[str, float]] = {
    "none": {},
    "Gaussian 10": {"sigma": 10},
    "Gaussian 50": {"sigma": 50},
    "Poisson 8": {"peak": 8},
    "Poisson 4": {"peak": 4},
}
LIGHTS = {"good": "good", "warn": "look", "bad": "BAD", "unknown": "?"}
COLUMNS = ("match", "noise", "detail", "structure", "shift", "tiles", "slices")

Stack = NDArray[np.uint8]


def rounded(stack: NDArray[np.floating]) -> Stack:
    """Return grey values as they are saved in 8 bit."""
    return np.clip(np.rint(stack), 0, 255).astype(np.uint8)


def results(noisy: Stack, model: str, other: Stack | None) -> Iterator[tuple[str, NDArray]]:
    """Yield the name and the stack of each result."""
    clean = np.asarray(nrrn_fiji.denoise(noisy, model))
    grey = noisy.astype(np.float32)
    yield "model", clean
    for sigma in (0.5, 1, 2, 4):
        filtered = ndimage.gaussian_filter(grey, (0, sigma, sigma))
        yield f"Gaussian filter {sigma:g} px", rounded(filtered)
    yield "median 5 × 5", ndimage.median_filter(noisy, (1, 5, 5))
    yield "mean of 3 slices", rounded(ndimage.uniform_filter(grey, (3, 1, 1)))
    yield "half of what the model removes", rounded((grey + clean) / 2)
    yield "identity", noisy.copy()
    if other is not None:
        yield "mistake: another stack", other
    yield "mistake: one slice off", np.roll(clean, 1, axis=0)
    yield "mistake: 3 px off", np.roll(clean, 3, axis=2)
    yield "mistake: 0 … 1", clean.astype(np.float32) / 255
    yield "mistake: + 20 grey levels", rounded(clean + 20.0)
    yield "mistake: negative", 255 - clean
    yield "mistake: flipped", clean[:, ::-1]


def row(noisy: Stack, result: NDArray) -> tuple[str, ...]:
    """Return the numbers and judgements of a result as texts."""
    quality = assess(ArraySource(noisy), ArraySource(result))
    judged = verdicts(quality)
    lights = tuple(LIGHTS[judged[key].light] if key in judged else "" for key in COLUMNS)
    span = quality.shift.span or 1.0
    numbers = (
        quality.match.share if quality.match else None,
        quality.match.contrast if quality.match else None,
        quality.noise_left,
        quality.detail.kept_at(16) if quality.detail else None,
        quality.removed_structure,
        quality.neighbours[0] - quality.neighbours[1],
        quality.removed_like_kept,
        quality.shift.mean / span,
        quality.shift.worst / span,
        quality.unevenness,
    )
    texts = tuple("" if n is None or not np.isfinite(n) else f"{n:.2f}" for n in numbers)
    return *texts, LIGHTS[overall(judged).light], *lights


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--model", default="fibsem-medulla")
    parser.add_argument("--edge", type=int, default=192, help="pixels")
    parser.add_argument("--slices", type=int, default=20)
    asked = parser.parse_args()
    crops = {}
    for path in asked.stacks:
        whole = tifffile.imread(path)
        starts = [
            (n - m) // 2
            for n, m in zip(whole.shape, (asked.slices, asked.edge, asked.edge), strict=True)
        ]
        z, y, x = starts
        crops[path.stem] = whole[z : z + asked.slices, y : y + asked.edge, x : x + asked.edge]
    head = (
        "stack",
        "noise",
        "result",
        "match",
        "contrast",
        "noise left",
        "16 px kept",
        "structure",
        "smoother",
        "like kept",
        "shift",
        "worst",
        "uneven",
        "all",
        *COLUMNS,
    )
    print(f"nrrn-fiji {nrrn_fiji.__version__}, {asked.model}, {asked.slices} × {asked.edge}²\n")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    names = list(crops)
    for number, (name, crop) in enumerate(crops.items()):
        for noise, settings in NOISES.items():
            rng = np.random.default_rng(0)
            noisy = crop
            if settings:
                added = add_noise(crop / np.float32(255), rng=rng, clip=True, **settings)
                noisy = rounded(255 * added)
            other = crops[names[number - 1]] if len(names) > 1 else None
            for title, result in results(noisy, asked.model, other):
                print(
                    "| " + " | ".join((name, noise, title, *row(noisy, result))) + " |", flush=True
                )


if __name__ == "__main__":
    main()
