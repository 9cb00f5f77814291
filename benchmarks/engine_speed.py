"""The engine against the published way of denoising, on the same weights, by turns.

    python benchmarks/engine_speed.py [--networks 4x64 fibsem-medulla] [--turns 3] [--threads 2]

*plain*: the legible network, slice by slice, on tiles of 256² cropped with an overlap of 20 px,
both branches of a tile one after the other, half of the overlap pasted.  *fp32* and *fast* go
through ``denoise_slabs``, one slab, with the plan that ``nrrn denoise`` would make; *fast* is what
that is for 8-bit images on this machine (or ``--fast``).  Each turn times all of them after one
another; a ratio is that of one turn, per pixel of result, and the median of the turns is printed,
by the clock and by processor time (which other programs disturb less).

Two further figures per network: what *fast* changes against fp32 on the example stack, without
rounding, in grey levels of 255; and the multiply-adds that were needed, as part of the processor's
peak, which is measured with a matrix product of 1024² in the same run.

``4x64`` and the like are random networks: their speed is that of any, their error is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import tifffile
import torch

from nrrn_fiji.denoising import Plan, denoise_slabs, make_plan
from nrrn_fiji.device import describe
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.models import load_model
from nrrn_fiji.network import NRRN
from nrrn_fiji.resources import data_folder
from nrrn_fiji.settings import DenoiseSettings

TILE, OVERLAP = 256, 20


@torch.inference_mode()
def published_way(network: NRRN, stack: np.ndarray, slices: range) -> np.ndarray:
    """Denoise slices of an 8-bit stack tile by tile, each with both its neighbours."""
    height, width = stack.shape[1:]
    step, half = TILE - OVERLAP, OVERLAP // 2
    result = np.empty((len(slices), height, width), np.float32)
    for i, z in enumerate(slices):
        before, here, after = torch.from_numpy(stack[z - 1 : z + 2]).float()[:, None, None] / 255
        for y in range(0, height - OVERLAP, step):
            for x in range(0, width - OVERLAP, step):
                part = (..., slice(y, y + TILE), slice(x, x + TILE))
                a = network(before[part], here[part])
                b = network(after[part], here[part])
                top, left = half * (y > 0), half * (x > 0)
                pasted = ((a + b) / 2)[0, 0, top:, left:].numpy()
                result[i, y + top : y + TILE, x + left : x + TILE] = pasted
    return result


def both_clocks(work: Callable[[], object], pixels: int) -> np.ndarray:
    """Return nanoseconds per pixel by the clock and by processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return 1e9 / pixels * np.array([time.perf_counter() - clock, time.process_time() - processor])


def planned(network: NRRN, shape: tuple[int, int, int], precision: str | None) -> Plan:
    settings = DenoiseSettings(device="cpu", precision=precision)
    return make_plan(shape, "uint8", network, settings, (0, 255))


def error(network: NRRN, fast: str) -> str:
    """Compare the fast form with fp32 on the example stack, in grey levels of 255."""
    stack = tifffile.imread(data_folder("examples") / "fibsem_medulla_noisy.tif")
    stack = stack[:6, :192, :192].astype(np.float32)
    results = []
    for precision in ("fp32", fast):
        plan = dataclasses.replace(planned(network, stack.shape, precision), dtype="float32")
        blocks = denoise_slabs(ArraySource(stack), network, plan)
        results.append(np.concatenate([block.image for block in blocks]))
    off = results[1] - results[0]
    rms = np.sqrt(np.square(off).mean())
    return f"rms {rms:.3f}, worst {np.abs(off).max():.2f}, bias {off.mean():+.3f}"


def multiply_adds(network: NRRN, *, shared: bool) -> int:
    """Return multiply-adds of convolutions C → C for a pixel of a deep stack, both branches."""
    units = network.units
    convolutions = 4 * units + 3 + 2 * (3 * (units - 1) + 1) if shared else 2 * (7 * units + 1)
    return convolutions * 9 * network.maps**2


def peak() -> float:
    """Return fp32 multiply-adds per nanosecond of all threads in a matrix product."""
    a = torch.rand(1024, 1024)
    return max(1024**3 / both_clocks(lambda: a @ a, 1)[0] for _ in range(20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", default=["4x64", "fibsem-medulla", "fibsem-medulla-fast"]
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slices", type=int, default=32, help="that the engine denoises at most")
    parser.add_argument("--plain-slices", type=int, default=1)
    parser.add_argument("--fast", help="precision; what the machine would take when left out")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    edge = 2 * TILE - OVERLAP
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (args.slices + 2, edge, edge), dtype=np.uint8)
    print(f"{describe(torch.device('cpu'))}, torch {torch.__version__}, slices of {edge}²")
    print(f"peak of a matrix product: {2 * peak():.0f} GFLOP/s")
    for name in args.networks:
        if name[0].isdigit():
            torch.manual_seed(0)
            network = NRRN(*map(int, name.split("x"))).eval()
        else:
            network = load_model(name).network.eval()
        fast = args.fast or planned(network, stack.shape, None).precision
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "plain": (
                lambda n=network: published_way(n, stack, range(1, 1 + args.plain_slices)),
                args.plain_slices * edge**2,
            )
        }
        for precision in dict.fromkeys(("fp32", fast)):
            plan = planned(network, stack.shape, precision)
            count = min(plan.slab, args.slices)

            def engine(n: NRRN = network, plan: Plan = plan, count: int = count) -> None:
                slices = range(1, 1 + count)
                for _ in denoise_slabs(ArraySource(stack), n, plan, slices=slices):
                    pass

            ways[precision] = engine, count * edge**2
        taken: dict[str, list[np.ndarray]] = {way: [] for way in ways}
        for _ in range(args.turns):
            for way, (work, pixels) in ways.items():
                taken[way].append(both_clocks(work, pixels))
        print(f"\n{name}: {network.units} units × {network.maps} maps", flush=True)
        for way, times in taken.items():
            clock, processor = np.median(times, axis=0)
            ratios = np.median([a / b for a, b in zip(taken["plain"], times, strict=True)], axis=0)
            rate = 2 * multiply_adds(network, shared=way != "plain") / clock
            print(
                f"  {way:5}  {clock:7.0f} ns per pixel by the clock, {processor:7.0f} of the "
                f"processors; {ratios[0]:.2f} ({ratios[1]:.2f}) times as fast as plain; "
                f"{rate:.0f} GFLOP/s without halo",
                flush=True,
            )
        if fast != "fp32":
            print(f"  {fast} against fp32 on the example stack: {error(network, fast)}", flush=True)


if __name__ == "__main__":
    main()
