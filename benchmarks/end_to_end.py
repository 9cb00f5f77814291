"""From TIFF to TIFF: which part of the time is the network's, and how long until it begins.

    python benchmarks/end_to_end.py [--model fibsem-medulla-fast] [--edge 1024] [--slices 16]

A stack of noise is written to a temporary folder and denoised with ``denoise_file``, as
``nrrn denoise`` does it.  *network* is the time in the engine, tensor in, tensor out; what comes on
top is reading, grey values, halo and tiles, blocks, checksums and writing.  The goal is 85 % for
the network.  Both by the clock and by processor time.

Then ``nrrn denoise`` runs on the example stack in a process of its own, twice: the first run may
compile and read from a cold disk.  The goal is 5 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

import nrrn_fiji.denoising as denoising
from nrrn_fiji.jobs.denoise import denoise_file
from nrrn_fiji.models import load_model
from nrrn_fiji.resources import data_folder
from nrrn_fiji.settings import DenoiseSettings


class Clocks:
    """Adds up the time of calls, by the clock and by processor time."""

    def __init__(self) -> None:
        self.total = np.zeros(2)

    def __call__(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``work``, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            before = np.array([time.perf_counter(), time.process_time()])
            try:
                return work(*args, **options)
            finally:
                self.total += np.array([time.perf_counter(), time.process_time()]) - before

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="fibsem-medulla-fast")
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--precision")
    args = parser.parse_args()

    network, whole = Clocks(), Clocks()
    make = denoising.make_engine

    def timed_engine(*given: Any, **options: Any) -> Any:
        engine = make(*given, **options)
        engine.centre, engine.branches = network(engine.centre), network(engine.branches)
        return engine

    denoising.make_engine = timed_engine
    model = load_model(args.model)
    settings = DenoiseSettings(device="cpu", precision=args.precision)
    shape = (args.slices, args.edge, args.edge)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        tifffile.imwrite(folder / "in.tif", stack[:2, :64, :64], imagej=True)
        denoise_file(folder / "in.tif", folder / "first.tif", model, settings)  # prepares the model
        tifffile.imwrite(folder / "in.tif", stack, imagej=True)
        network.total[:] = 0
        report = whole(denoise_file)(folder / "in.tif", folder / "out.tif", model, settings)
        share = network.total / whole.total
        print(
            f"{args.model}, {report.plans[0].precision}, {torch.get_num_threads()} threads, "
            f"{shape}: {whole.total[0]:.1f} s, of which the network {100 * share[0]:.1f} % by the "
            f"clock, {100 * share[1]:.1f} % of processor time"
        )
        example = data_folder("examples") / "fibsem_medulla_noisy.tif"
        command = [sys.executable, "-m", "nrrn_fiji", "denoise", "-m", args.model, str(example)]
        for number in (1, 2):
            before = time.perf_counter()
            subprocess.run(
                [*command, str(folder / f"{number}.tif")], check=True, capture_output=True
            )
            print(f"nrrn denoise, example stack: {time.perf_counter() - before:.1f} s")


if __name__ == "__main__":
    main()
