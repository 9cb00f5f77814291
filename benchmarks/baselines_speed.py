"""What a megapixel costs: filters and networks that the paper compares with.

    python benchmarks/baselines_speed.py [--edge 512] [--threads 2] [--turns 3]

BM3D, non-local means (one setting each, in the middle of the study's grids), the paper's U-Net on
the mean of three slices, and the engine as ``nrrn denoise`` plans it for an 8-bit stack, by turns
on slices of noise; the median, by the clock and by processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from nrrn_fiji.baselines.filters import block_matching, bm3d_is_installed, non_local_means
from nrrn_fiji.baselines.inference import OnTriplets, denoise_middle
from nrrn_fiji.baselines.unet import UNet
from nrrn_fiji.denoising import denoise_slabs, make_plan
from nrrn_fiji.device import describe
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.models import load_model
from nrrn_fiji.settings import DenoiseSettings

SLICES = 8
"""That the engine denoises in one slab; the others denoise one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (SLICES + 2, args.edge, args.edge), dtype=np.uint8)
    image = (stack[1] / 255).astype(np.float32)
    triplet = (stack[:3] / 255).astype(np.float32)
    unet = OnTriplets(UNet().eval(), "mean", 16)
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "non-local means": (lambda: non_local_means(image, 9, 5, 0.6 * 25 / 255, 25 / 255), 1),
        "U-Net": (lambda: denoise_middle(unet, triplet, radius=96, multiple=16), 1),
    }
    if bm3d_is_installed():
        ways["BM3D"] = lambda: block_matching(image, 25 / 255), 1
    for name in ("fibsem-medulla", "fibsem-medulla-fast"):
        network = load_model(name).network
        for precision in (None, "fp32"):
            settings = DenoiseSettings(device="cpu", precision=precision)
            plan = make_plan(stack.shape, stack.dtype, network, settings, (0, 255))

            def engine(network: torch.nn.Module = network, plan: object = plan) -> None:
                for _ in denoise_slabs(
                    ArraySource(stack), network, plan, slices=range(1, 1 + SLICES)
                ):
                    pass

            ways[f"{name}, {plan.precision}"] = engine, SLICES
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.turns):
        for name, (work, slices) in ways.items():
            clock, processor = time.perf_counter(), time.process_time()
            work()
            megapixels = slices * args.edge**2 / 1e6
            taken[name].append(
                (
                    (time.perf_counter() - clock) / megapixels,
                    (time.process_time() - processor) / megapixels,
                )
            )
    print(
        f"{describe(torch.device('cpu'))}: seconds per megapixel by the clock (of the processors)"
    )
    for name, times in taken.items():
        clock, processor = np.median(times, axis=0)
        print(f"  {name:26} {clock:7.2f} ({processor:.2f})")


if __name__ == "__main__":
    main()
