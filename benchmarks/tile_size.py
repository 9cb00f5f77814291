"""How long a pixel takes by tile size, plain and fast form: processor time of one thread.

    python benchmarks/tile_size.py [--units 3] [--maps 32] [--precision fp32]

Processor time rather than the clock, so that other programs disturb less.  A pixel that is kept
counts, with its two branches; the halo is part of the price.  Random weights: time does not depend
on them.  docs/decisions/engine.md keeps the results that the default rests on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from nrrn_fiji.device import TORCH_DTYPES
from nrrn_fiji.fused import FusedNRRN
from nrrn_fiji.network import NRRN, receptive_radius


def nanoseconds(work: Callable[[], object], pixels: int) -> float:
    """Return the processor time per pixel, the best of three."""
    work()
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best / pixels * 1e9


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=3)
    parser.add_argument("--maps", type=int, default=32)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    args = parser.parse_args()

    torch.set_num_threads(1)
    network = NRRN(args.units, args.maps).eval()
    engine = FusedNRRN(network, device=torch.device("cpu"), dtype=TORCH_DTYPES[args.precision])
    halo = receptive_radius(args.units)
    for tile in (64, 96, 128, 160, 192, 256):
        size = tile + 2 * halo
        image = torch.rand(1, 1, size, size)

        def fast(image: torch.Tensor = image) -> None:
            centre = engine.centre(image)
            engine.branches(image, [centre, centre])

        def plain(image: torch.Tensor = image) -> None:
            network(image, image)
            network(image, image)

        print(
            f"tile {tile:3}  fast {args.precision} {nanoseconds(fast, tile**2):6.0f} ns  "
            f"plain fp32 {nanoseconds(plain, tile**2):6.0f} ns",
            flush=True,
        )


if __name__ == "__main__":
    main()
