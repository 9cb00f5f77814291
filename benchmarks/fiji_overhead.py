"""What denoising costs more through Fiji than through the Python API.

Usage: python benchmarks/fiji_overhead.py [--model MODEL] [--depth 64] [--repeats 5] [--fiji DIR]

Denoises the same 8-bit stack of 1024^2 with ``nrrn.denoise`` and, as an ImagePlus, through the
bridge (what ``nrrn_fiji.fiji.denoise`` and Denoise Stack... call), by turns and with the same plan,
and checks that the pixels are equal.  Printed are the medians by the clock and by the processor's
time of all threads together, which does not count other people's work on the machine.  Without
``--model`` the network is a random one of 1 unit and 8 maps: the quicker the network, the more the
bridge would show.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import nrrn_fiji as nrrn
from nrrn_fiji import fiji

EDGE = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model")
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fiji", type=Path)
    options = parser.parse_args()
    app = fiji.start(options.fiji, imagej=options.fiji is None, memory=2000)
    import jpype

    from nrrn_fiji.fiji.images import volume_of
    from nrrn_fiji.fiji.jobs import denoise_image
    from nrrn_fiji.fiji.pixels import pixels_to_java
    from nrrn_fiji.settings import DenoiseSettings

    print(app)
    with tempfile.TemporaryDirectory() as folder:
        name = options.model
        if name is None:
            torch.manual_seed(0)
            name = Path(folder) / "small.safetensors"
            nrrn.save_model(name, nrrn.NRRN(units=1, maps=8), {})
        model = nrrn.load_model(name)
    stack = np.random.default_rng(0).integers(0, 256, (options.depth, EDGE, EDGE), np.uint8)
    imp = jpype.JClass("ij.IJ").createImage("stack", "8-bit black", EDGE, EDGE, options.depth)
    for z in range(options.depth):
        pixels_to_java(stack[z], imp.getStack().getPixels(z + 1))
    plan = {"tile": 160, "slab": min(16, options.depth)}

    def python() -> np.ndarray:
        return nrrn.denoise(stack, model, **plan)

    def through_fiji() -> object:
        return denoise_image(imp, model, DenoiseSettings(**plan)).image

    ways = {"nrrn.denoise": python, "through Fiji": through_fiji}
    clock: dict[str, list[float]] = {way: [] for way in ways}
    work: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.repeats + 1):
        results = {}
        order = list(ways) if turn % 2 else list(ways)[::-1]
        for way in order:
            begun, worked = time.perf_counter(), time.process_time()
            results[way] = ways[way]()
            if turn:  # the first prepares kernels and memory
                clock[way].append(time.perf_counter() - begun)
                work[way].append(time.process_time() - worked)
        if not turn:
            assert np.array_equal(
                volume_of(results["through Fiji"]).read(0, options.depth), results["nrrn.denoise"]
            )
    for what, taken in (("by the clock", clock), ("of processor time", work)):
        one, two = (statistics.median(taken[way]) for way in ways)
        print(
            f"{what}: nrrn.denoise {one:.2f} s, through Fiji {two:.2f} s, "
            f"{100 * (two / one - 1):+.1f} % "
            f"(runs {', '.join(f'{b / a - 1:+.1%}' for a, b in zip(*taken.values(), strict=True))})"
        )


if __name__ == "__main__":
    main()
