"""Peak memory of `nrrn denoise` against the depth of the stack: it should not grow.

Usage: python benchmarks/memory_depth.py [--size 1024] [--depths 64 512]

Makes 8-bit stacks of random noise in a temporary folder, denoises each in a process of its own with
a model of 1 unit and 4 maps, and prints that process's peak resident memory (VmHWM, so Linux only:
the usual ru_maxrss of a child begins with its parent's peak).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import torch

from nrrn_fiji import NRRN, save_model

RUN = """
import sys
from nrrn_fiji.api import denoise_file
denoise_file(sys.argv[1], sys.argv[2], sys.argv[3])
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--depths", type=int, nargs="+", default=[64, 512])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_model(folder / "tiny.safetensors", NRRN(units=1, maps=4), {})
        peaks = []
        for depth in options.depths:
            rng = np.random.default_rng(0)
            stack, out = folder / f"{depth}.tif", folder / f"{depth}_out.tif"
            with tifffile.TiffWriter(stack, imagej=True) as file:
                shape = (options.size, options.size)
                file.write(
                    (rng.integers(0, 256, shape, np.uint8) for _ in range(depth)),
                    shape=(depth, *shape),
                    dtype=np.uint8,
                    metadata={"axes": "ZYX"},
                )
            command = [sys.executable, "-c", RUN, str(stack), str(out)]
            done = subprocess.run(
                [*command, str(folder / "tiny.safetensors")],
                check=True,
                capture_output=True,
                text=True,
            )
            peaks.append(int(done.stdout) / 1024)
            print(f"{depth} slices of {options.size}²: peak memory {peaks[-1]:.0f} MiB", flush=True)
            stack.unlink()
            out.unlink()
    print(f"difference: {max(peaks) - min(peaks):.0f} MiB")


if __name__ == "__main__":
    main()
