"""What a coarser precision costs on a real stack: error against fp32, in grey levels of 255.

    python benchmarks/precision.py MODEL STACK.tif [--size 256] [--device cpu] [--precision int8]

Six slices are denoised as they are, with Poisson noise of peak 8 and with Gaussian noise of sigma
25 (seed 0), in fp32 and in the other precision, without rounding to integers.  ``bias`` is the
mean difference, ``rms`` its root mean square, ``worst`` its largest value; ``grey bias`` is the
largest mean difference over grey values: a bias that depends on brightness shows there.  ``PSNR``
is by how many decibels the result's PSNR against the slices without added noise differs.
docs/decisions/precision.md keeps the results that the default rests on.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np
import tifffile

from nrrn_fiji.denoising import denoise_slabs, make_plan
from nrrn_fiji.device import choose_device, describe
from nrrn_fiji.models import load_model
from nrrn_fiji.noise import add_noise
from nrrn_fiji.settings import DenoiseSettings


class Array:
    """An array as a source."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]


def decibels(result: np.ndarray, clean: np.ndarray) -> float:
    """Return the PSNR of grey values 0 … 255, clipped, against images in [0, 1]."""
    error = np.clip(result, 0, 255) - 255 * clean
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("stack")
    parser.add_argument("--size", type=int, default=256, help="edge of the crop")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="bf16")
    args = parser.parse_args()

    network = load_model(args.model).network
    clean = tifffile.imread(args.stack)[10:16, : args.size, : args.size].astype(np.float32) / 255
    device = choose_device(args.device)
    print(f"{network.units} units × {network.maps} maps, {describe(device)}, {clean.shape}")
    for name, noise in (("none", {}), ("Poisson 8", {"peak": 8}), ("Gaussian 25", {"sigma": 25})):
        stack = add_noise(clean, rng=np.random.default_rng(0), clip=True, **noise) * 255
        results, seconds = [], []
        for precision in ("fp32", args.precision):
            settings = DenoiseSettings(device=str(device), precision=precision)
            plan = make_plan(stack.shape, stack.dtype, network, settings, (0, 255))
            run = dataclasses.replace(plan, intensity=(0.0, 255.0))
            short = dataclasses.replace(run, shape=(2, *stack.shape[1:]))
            list(denoise_slabs(Array(stack[:2]), network, short))  # prepares kernels
            start = time.perf_counter()
            [block] = denoise_slabs(Array(stack), network, run)
            seconds.append(time.perf_counter() - start)
            results.append(block.image.astype(np.float64))
        error = results[1] - results[0]
        grey = np.clip(results[0], 0, 255).astype(int) // 16
        per_grey = [error[grey == g].mean() for g in range(16) if (grey == g).sum() > 1000]
        print(
            f"noise {name:12} rms {np.sqrt((error**2).mean()):.3f}  bias {error.mean():+.3f}  "
            f"worst {np.abs(error).max():.2f}  grey bias {np.abs(per_grey).max():.3f}  "
            f"PSNR {decibels(results[1], clean) - decibels(results[0], clean):+.4f} dB  "
            f"fp32 {seconds[0]:.2f} s  {args.precision} {seconds[1]:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
