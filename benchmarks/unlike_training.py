"""From where on a model is worse than a simple filter: noise, voxel size and bit depth.

    python benchmarks/unlike_training.py
    python benchmarks/unlike_training.py fibsem-medulla clean.tif

What is compared with the model is a Gaussian filter in 3-D whose width is the best of several for
each case, in PSNR against the clean stack: below that the model is out of its depth.  The limits of
``nrrn_fiji.fitness`` are taken from this; docs/decisions/fitness.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

import nrrn_fiji as nrrn
from nrrn_fiji.fitness import measured_noise
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.noise import add_noise
from nrrn_fiji.resources import data_folder

Array = NDArray[np.float64]

WIDTHS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
ALONG_Z = (0.25, 0.5, 0.7, 1.0)
SIGMAS = (2, 3.5, 5, 7, 10, 25, 75, 110, 150)


def psnr(one: Array, other: Array) -> float:
    """PSNR in dB on [0, 1] of the inner slices, which have neighbours on both sides."""
    return float(-10 * np.log10(np.mean((one[1:-1] - other[1:-1]) ** 2)))


def best_filter(noisy: Array, clean: Array) -> float:
    """PSNR of the Gaussian filter whose widths suit this case best."""
    return max(
        psnr(gaussian_filter(noisy, (width * share, width, width)), clean)
        for width in WIDTHS
        for share in ALONG_Z
    )


def coarser(stack: Array, z: int, xy: int) -> Array:
    """Average blocks of voxels."""
    depth, height, width = (n // f for n, f in zip(stack.shape, (z, xy, xy), strict=True))
    cut = stack[: depth * z, : height * xy, : width * xy]
    return cut.reshape(depth, z, height, xy, width, xy).mean(axis=(1, 3, 5))


def compared(label: str, clean: Array, model: Any, sigma: float) -> None:
    """Print a line for a case."""
    noisy = add_noise(clean, sigma=sigma, rng=np.random.default_rng(1)).astype(np.float32)
    made = nrrn.denoise(noisy, model, intensity=(0, 1), device="cpu").astype(np.float64)
    level, _ = measured_noise(ArraySource(noisy)) or (float("nan"), 0.0)
    print(
        f"{label:28s} measured {255 * level:6.1f}   input {psnr(noisy, clean):6.2f}   "
        f"model {psnr(made, clean):6.2f}   filter {best_filter(noisy, clean):6.2f}",
        flush=True,
    )


def main() -> None:
    """Print all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="fibsem-medulla")
    example = data_folder("examples") / "fibsem_medulla.tif"
    parser.add_argument("clean", nargs="?", type=Path, default=example)
    given = parser.parse_args()
    model = nrrn.load_model(given.model)
    with nrrn.open_volume(given.clean) as volume:
        stack = volume.read(0, min(24, volume.shape.z))[:, :192, :192].astype(np.float64) / 255
    part = stack[6:13, :128, :128]
    print("Gaussian noise, sigma of 255 (PSNR in dB):")
    for sigma in SIGMAS:
        compared(f"sigma {sigma:g}", part, model, sigma)
    print("Voxel size, at sigma 35:")
    for label, clean in (
        ("as trained", part),
        ("1.5 times larger", zoom(stack, 1 / 1.5, order=1)[4:11]),
        ("2 times larger", coarser(stack, 2, 2)[2:9]),
        ("3 times larger", coarser(stack, 3, 3)),
        ("2 times larger along z", coarser(stack, 2, 1)[2:9, :128, :128]),
        ("4 times larger along z", coarser(stack, 4, 1)[:, :128, :128]),
        ("2 times smaller", zoom(stack[8:13, :70, :70], 2, order=3)[1:8, :128, :128]),
        ("4 times smaller", zoom(stack[10:13, :35, :35], 4, order=3)[1:8]),
    ):
        compared(label, clean, model, 35)
    print("Bit depth: the same pixels as 8 and as 16 bits")
    for label, contrast, sigma in (("sigma 35", 1.0, 35), ("a fifth of the contrast, 10", 0.2, 10)):
        clean = part * contrast + 0.4 * (1 - contrast)
        noisy = add_noise(clean, sigma=sigma, rng=np.random.default_rng(1), clip=True)
        found = []
        for dtype in (np.uint8, np.uint16):
            top = np.iinfo(dtype).max
            made = nrrn.denoise(np.rint(noisy * top).astype(dtype), model, device="cpu")
            found.append(psnr(made / top, clean))
        print(f"{label:32s} 8 bits {found[0]:6.2f}   16 bits {found[1]:6.2f}", flush=True)


if __name__ == "__main__":
    main()
