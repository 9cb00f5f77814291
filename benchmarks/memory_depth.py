"""Peak memory and time of `nrrn denoise` against the depth of the volume: memory should not grow.

Usage: python benchmarks/memory_depth.py [--size 1024] [--depths 16 128 1024] [--memory 100MB]
           [--formats tif zarr h5 mrc] [--json FILE]

Makes 8-bit volumes of noise in a temporary folder, denoises each in a process of its own with a
model of 1 unit and 2 maps, and prints

peak
    the process's peak resident memory (VmHWM, so Linux only: the usual ru_maxrss of a child begins
    with its parent's peak);
beside
    peak less that of a process that denoises 12 slices of 128² (0.2 MB) in the same way: what
    Python, PyTorch, the model and the libraries take is then left out, and this is what
    `--memory` limits.

Without `--memory` the program chooses (a quarter of the free memory, at most 2 GiB).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrrn_fiji import NRRN, save_model
from nrrn_fiji.volumes import create_volume, open_volume

SMALL = (12, 128)
"""Slices and edge of a volume that takes next to nothing."""

RUN = """
import sys
from nrrn_fiji.cli import main
code = main(["denoise", *sys.argv[1:], "--quiet"])
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
sys.exit(code)
"""


def make_volume(path: Path, depth: int, size: int) -> None:
    """Write a volume of noise, a few slices at a time; the slices repeat after 16."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (16, size, size), np.uint8)
    like = open_volume(np.broadcast_to(noise[:1], (depth, size, size)))
    with create_volume(path, like, slab=16) as writer:
        for z in range(0, depth, 16):
            writer.write(z, noise[: depth - z])


def measure(source: Path, out: Path, model: Path, memory: str | None) -> tuple[float, float]:
    """Denoise a volume in a process of its own; return peak memory in MB, and seconds."""
    words = [str(source), str(out), "--model", str(model), "--device", "cpu"]
    words += [] if memory is None else ["--memory", memory]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout.split()[-1]) * 1024 / 1e6, time.perf_counter() - start


def remove(path: Path) -> None:
    """Remove a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--depths", type=int, nargs="+", default=[16, 128, 1024])
    parser.add_argument("--formats", nargs="+", default=["tif"])
    parser.add_argument("--memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        model = folder / "tiny.safetensors"
        save_model(model, NRRN(units=1, maps=2), {})
        print("| format | slices | volume | peak | beside | time |")
        print("|---|---|---|---|---|---|")
        for suffix in options.formats:
            source, out = folder / f"in.{suffix}", folder / f"out.{suffix}"
            base = None
            for depth, size in (SMALL, *((depth, options.size) for depth in options.depths)):
                make_volume(source, depth, size)
                peak, seconds = measure(source, out, model, options.memory)
                remove(source)
                remove(out)
                if base is None:
                    base = peak
                    continue
                volume = depth * size**2 / 1e6
                row = {"format": suffix, "slices": depth, "size": size, "volume_MB": volume}
                rows.append({**row, "peak_MB": peak, "beside_MB": peak - base, "seconds": seconds})
                print(
                    f"| {suffix} | {depth} of {size}² | {volume:.0f} MB | {peak:.0f} MB | "
                    f"{peak - base:.0f} MB | {seconds:.0f} s |",
                    flush=True,
                )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
