"""Draw the pictures of the gallery from the example stack and the shipped model.

Usage: python docs/site/gallery.py [FOLDER]        (docs/images when left out; a minute or two)

Noise is added to the recorded slices by seed, so the same model draws the same pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile

import nrrn_fiji as nrrn
from nrrn_fiji.models import DEFAULT_MODEL
from nrrn_fiji.plots import picture_grid

ROOT = Path(__file__).resolve().parents[2]
SLICES, SHOWN = slice(10, 15), 2
LEVELS = (
    ("Poisson, peak 4", {"peak": 4.0}),
    ("Poisson, peak 30", {"peak": 30.0}),
    ("Gaussian, σ 25", {"sigma": 25.0}),
    ("Gaussian, σ 75", {"sigma": 75.0}),
)
GREY = 0.5
"""Where nothing was removed."""


def main(folder: Path) -> None:
    """Draw both pictures into a folder."""
    clean = tifffile.imread(ROOT / "examples" / "fibsem_medulla.tif")[SLICES]
    model = nrrn.load_model(DEFAULT_MODEL)
    rows, removed = [], []
    for seed, (name, noise) in enumerate(LEVELS):
        rng = np.random.default_rng(seed)
        noisy = nrrn.add_noise(clean / 255, rng=rng, clip=True, **noise)
        noisy = np.round(noisy * 255).astype(np.uint8)
        found = nrrn.denoise(noisy, model, return_noise=True)
        row = [("Noisy", noisy), ("Denoised", found.image), ("As recorded", clean)]
        rows.append([(title, image[SHOWN] / 255) for title, image in row])
        removed.append((name, GREY + found.noise[SHOWN] / 255))
    picture_grid(rows, folder / "gallery-levels.png", labels=[name for name, _ in LEVELS])
    picture_grid([removed], folder / "gallery-removed.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
