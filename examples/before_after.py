"""Draw the example slice before and after denoising, beside the truth: the README's picture.

Usage: python examples/before_after.py [PICTURE.png]
"""

import sys
from pathlib import Path

import tifffile

import nrrn_fiji as nrrn
from nrrn_fiji.plots import before_after

here = Path(__file__).parent
noisy = tifffile.imread(here / "fibsem_medulla_noisy.tif")
clean = tifffile.imread(here / "fibsem_medulla.tif")
denoised = nrrn.denoise(noisy, "fibsem-medulla")

slice_number = 12
before_after(
    [
        ("Noisy (σ 35 of 255)", noisy[slice_number] / 255),
        ("NRRN", denoised[slice_number] / 255),
        ("As recorded", clean[slice_number] / 255),
    ],
    sys.argv[1] if len(sys.argv) > 1 else "before_after.png",
)
