"""What ``nrrn report`` says of results that are known to be good, bad, or a mistake.

    python benchmarks/verdicts.py STACK… [--model fibsem-medulla] [--edge 192] [--slices 20]

Cuts crops out of two opposite corners of each stack, adds noise (none, Gaussian
sigma 10 and 50, Poisson peak 4 and 8; seed 0, clipped and rounded to 8 bit), and judges results of
known worth: the shipped model; what is too smooth (Gaussian filters, a median); what is too weak;
the model's with artefacts (stripes, tiles denoised apart, tiles and stacks of other brightness);
and mistakes (another stack, a slice or some pixels off, another grey scale, a negative).  Prints,
as Markdown, how often each was judged how, and on which grounds; --all prints every result with its
numbers instead.  The limits in nrrn_fiji/quality/verdicts.py were set by this.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import nrrn_fiji
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.noise import add_noise
from nrrn_fiji.quality.assessment import assess
from nrrn_fiji.quality.verdicts import overall, verdicts

NOISES: dict[str, dict[str, float]] = {
    "none": {},
    "Gaussian 10": {"sigma": 10},
    "Gaussian 50": {"sigma": 50},
    "Poisson 8": {"peak": 8},
    "Poisson 4": {"peak": 4},
}
LIGHTS = {"good": "good", "warn": "look", "bad": "BAD", "unknown": "?"}
COLUMNS = ("match", "noise", "detail", "structure", "shift", "lines", "tiles", "slices")

Stack = NDArray[np.uint8]


def rounded(stack: NDArray[np.floating]) -> Stack:
    """Return grey values as they are saved in 8 bit."""
    return np.clip(np.rint(stack), 0, 255).astype(np.uint8)


EXPECTED = {
    "model": "good, look, ?",
    "Gaussian filter 0.5 px": "look",
    "Gaussian filter 1 px": "look",
    "Gaussian filter 2 px": "BAD, ?",
    "Gaussian filter 4 px": "BAD",
    "median 5 × 5": "look, ?",
    "mean of 3 slices": "good, look",
    "half of what the model removes": "look",
    "a tenth of what the model removes": "look, BAD",
    "identity": "BAD",
    "stripes, 1 grey level, each slice its own": "good, look, ?",
    "stripes, 3 grey levels, each slice its own": "look, BAD",
    "curtains, 3 grey levels, all slices alike": "look, BAD",
    "tiles of 64 px denoised apart": "look, BAD",
    "tiles of 64 px, 4 grey levels (sd) off": "look, BAD",
    "a slice left as it was": "look",
    "+ 4 grey levels": "look, BAD",
    "+ 20 grey levels": "BAD",
    "contrast × 0.8": "look, BAD",
    "mistake: another stack": "BAD",
    "mistake: one slice off": "BAD",
    "mistake: 3 px off": "BAD",
    "mistake: 0 … 1": "BAD",
    "mistake: negative": "BAD",
    "mistake: flipped": "BAD",
}
"""What each result deserves; "?" where noise drowns what would tell a blur."""

TILE = 64
"""Edge of the tiles of the results with seams, in pixels."""


def results(noisy: Stack, model: str, other: Stack | None) -> Iterator[tuple[str, NDArray]]:
    """Yield the name and the stack of each result."""
    clean = np.asarray(nrrn_fiji.denoise(noisy, model))
    grey = noisy.astype(np.float32)
    depth, height, width = noisy.shape
    rng = np.random.default_rng(1)
    yield "model", clean
    for sigma in (0.5, 1, 2, 4):
        filtered = ndimage.gaussian_filter(grey, (0, sigma, sigma))
        yield f"Gaussian filter {sigma:g} px", rounded(filtered)
    yield "median 5 × 5", ndimage.median_filter(noisy, (1, 5, 5))
    yield "mean of 3 slices", rounded(ndimage.uniform_filter(grey, (3, 1, 1)))
    yield "half of what the model removes", rounded((grey + clean) / 2)
    yield "a tenth of what the model removes", rounded(0.9 * grey + 0.1 * clean)
    yield "identity", noisy.copy()
    stripes = rng.normal(size=(depth, height, 1))
    yield "stripes, 1 grey level, each slice its own", rounded(clean + stripes)
    yield "stripes, 3 grey levels, each slice its own", rounded(clean + 3 * stripes)
    curtains = 3 * rng.normal(size=(1, 1, width))
    yield "curtains, 3 grey levels, all slices alike", rounded(clean + curtains)
    apart, shifted = np.empty_like(noisy), clean.astype(np.float32)
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            place = np.s_[:, y : y + TILE, x : x + TILE]
            apart[place] = np.asarray(nrrn_fiji.denoise(noisy[place].copy(), model))
            shifted[place] += rng.normal(0, 4)
    yield "tiles of 64 px denoised apart", apart
    yield "tiles of 64 px, 4 grey levels (sd) off", rounded(shifted)
    skipped = clean.copy()
    skipped[depth // 2] = noisy[depth // 2]
    yield "a slice left as it was", skipped
    yield "+ 4 grey levels", rounded(clean + 4.0)
    yield "+ 20 grey levels", rounded(clean + 20.0)
    yield "contrast × 0.8", rounded(clean.mean() + 0.8 * (clean - clean.mean()))
    if other is not None:
        yield "mistake: another stack", other
    yield "mistake: one slice off", np.roll(clean, 1, axis=0)
    yield "mistake: 3 px off", np.roll(clean, 3, axis=2)
    yield "mistake: 0 … 1", clean.astype(np.float32) / 255
    yield "mistake: negative", 255 - clean
    yield "mistake: flipped", clean[:, ::-1]


NUMBERS = (
    "match",
    "contrast",
    "noise left",
    "16 px kept",
    "structure",
    "smoother",
    "like kept",
    "shift",
    "worst",
    "stripes",
    "seams",
    "uneven",
)


def judge(noisy: Stack, result: NDArray) -> tuple[list[str], dict[str, str]]:
    """Return the numbers of a result, as texts, and its judgements, that of "all" first."""
    quality = assess(ArraySource(noisy), ArraySource(result))
    judged = verdicts(quality)
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
        max(quality.lines.added) / span if quality.lines else None,
        sum(map(len, quality.lines.seams)) if quality.lines else None,
        quality.unevenness,
    )
    texts = ["" if n is None or not np.isfinite(n) else f"{n:.3g}" for n in numbers]
    lights = {"all": LIGHTS[overall(judged).light]}
    return texts, lights | {key: LIGHTS[verdict.light] for key, verdict in judged.items()}


def crops_of(path: Path, shape: tuple[int, int, int]) -> Iterator[tuple[str, Stack]]:
    """Yield the names and pixels of parts of a stack: two opposite corners."""
    whole = tifffile.imread(path)
    for name, place in (("start", 0), ("end", 1)):
        starts = [place * (n - m) for n, m in zip(whole.shape, shape, strict=True)]
        part = tuple(slice(a, a + m) for a, m in zip(starts, shape, strict=True))
        yield f"{path.stem} {name}", whole[part]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stacks", nargs="+", type=Path)
    parser.add_argument("--model", default="fibsem-medulla")
    parser.add_argument("--edge", type=int, default=192, help="pixels")
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--all", action="store_true", help="print every result with its numbers")
    asked = parser.parse_args()
    shape = (asked.slices, asked.edge, asked.edge)
    crops = dict(crop for path in asked.stacks for crop in crops_of(path, shape))
    print(
        f"nrrn-fiji {nrrn_fiji.__version__}, {asked.model}, {len(crops)} crops of {asked.slices} × "
        f"{asked.edge}², each with {len(NOISES)} kinds of noise\n"
    )
    if asked.all:
        heads = ("crop", "noise", "result", *NUMBERS, "all", *COLUMNS)
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)
    names = list(crops)
    counts: dict[str, Counter[str]] = {}
    grounds: dict[str, Counter[str]] = {}
    for number, (name, crop) in enumerate(crops.items()):
        for noise, settings in NOISES.items():
            rng = np.random.default_rng(0)
            noisy = crop
            if settings:
                added = add_noise(crop / np.float32(255), rng=rng, clip=True, **settings)
                noisy = rounded(255 * added)
            other = crops[names[number - 1]] if len(names) > 1 else None
            for title, result in results(noisy, asked.model, other):
                numbers, lights = judge(noisy, result)
                counts.setdefault(title, Counter())[lights["all"]] += 1
                grounds.setdefault(title, Counter()).update(
                    key for key in COLUMNS if lights.get(key, "good") != "good"
                )
                if asked.all:
                    row = (name, noise, title, *numbers, lights["all"])
                    print("|", " | ".join((*row, *(lights.get(k, "") for k in COLUMNS))), "|")
    if asked.all:
        return
    print("| result | deserves | judged | so often | not good in |\n|---|---|---|---|---|")
    for title, found in counts.items():
        deserved = EXPECTED[title].split(", ")
        right = sum(found[light] for light in deserved)
        words = ", ".join(f"{light} {found[light]}" for light in LIGHTS.values() if found[light])
        why = ", ".join(f"{key} {grounds[title][key]}" for key in COLUMNS if grounds[title][key])
        print(
            "|",
            " | ".join((title, " or ".join(deserved), words, f"{right} of {found.total()}", why)),
            "|",
        )


if __name__ == "__main__":
    main()
