"""How fast pixels go from an ImagePlus to NumPy: ours beside what else there is.

Usage: python benchmarks/fiji_pixels.py [--fiji DIR] [--repeats 15]

Reads 8- and 16-bit stacks of 64 x 1024^2, each method in turn, again and again, in plain ImageJ
1.54p or in a Fiji.  The destination is one that was written before ("touched"), or new memory for
every read ("fresh": the operating system then hands out and clears pages, which costs as much as
the copy).  Printed are GB/s: median and best by the clock, and the median by the time of the
processor for the reading thread, which tells on a busy machine what an idle one would do with one.

``ij.py`` converts through imglyb, whose Java part is in no Fiji and not on Maven Central: its row
is filled only where ``--fiji`` names a Fiji with that jar in it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nrrn_fiji import fiji

DEPTH, EDGE = 64, 1024
Read = Callable[[np.ndarray[Any, Any] | None], Any]


def methods(imp: Any, dtype: np.dtype[Any], app: Any) -> dict[str, Read]:
    """Every way to read the stack; into the given array, or into a new one for None."""
    import jpype

    from nrrn_fiji.fiji.images import volume_of

    volume = volume_of(imp)
    stack = imp.getStack()
    shape = (DEPTH, EDGE, EDGE)
    places = [(0, 0, z) for z in range(DEPTH)]

    def ours(out: np.ndarray[Any, Any] | None) -> Any:
        if out is None:
            return volume.read(0, DEPTH)
        volume._read_planes(out, places)
        return out

    def one_thread(out: np.ndarray[Any, Any] | None) -> Any:
        out = np.empty(shape, dtype) if out is None else out
        for z in range(DEPTH):
            volume._read_plane(out[z], 0, 0, z)
        return out

    def asarray(out: np.ndarray[Any, Any] | None) -> Any:
        out = np.empty(shape, dtype) if out is None else out
        for z in range(DEPTH):
            out[z] = np.asarray(stack.getPixels(z + 1)).view(dtype).reshape(EDGE, EDGE)
        return out

    def numpy_slices(out: np.ndarray[Any, Any] | None) -> Any:
        out = np.empty(shape, dtype) if out is None else out
        for z in range(DEPTH):
            np.copyto(out[z], source[z])
        return out

    def numpy_whole(out: np.ndarray[Any, Any] | None) -> Any:
        if out is None:
            return source.copy()
        np.copyto(out, source)
        return out

    source = volume.read(0, DEPTH)
    every: dict[str, Read] = {
        "ours": ours,
        "ours, one thread": one_thread,
        "np.asarray(Java array)": asarray,
        "NumPy, slice by slice": numpy_slices,
        "NumPy, whole": numpy_whole,
    }
    if app.gateway is not None:
        try:
            jpype.JClass("net.imglib2.python.ReferenceGuardingRandomAccessibleInterval")
        except TypeError:
            return every

        def ij_py(out: np.ndarray[Any, Any] | None) -> Any:
            made = np.asarray(app.gateway.py.from_java(imp))
            if out is not None:
                np.copyto(out, made)
                return out
            return made.copy()

        every["ij.py.from_java"] = ij_py
    return every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fiji", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    app = fiji.start(options.fiji, imagej=options.fiji is None, memory=2000)
    import jpype

    print(app)
    print("bits  destination  method                  median   best   per second of processor time")
    for bits in (8, 16):
        dtype = np.dtype(f"uint{bits}")
        imp = jpype.JClass("ij.IJ").createImage("ramp", f"{bits}-bit ramp", EDGE, EDGE, DEPTH)
        every = methods(imp, dtype, app)
        size = DEPTH * EDGE * EDGE * dtype.itemsize / 1e9
        touched = np.zeros((DEPTH, EDGE, EDGE), dtype)
        for where, out in (("touched", touched), ("fresh", None)):
            clock: dict[str, list[float]] = {name: [] for name in every}
            work: dict[str, list[float]] = {name: [] for name in every}
            for _ in range(options.repeats):
                for name, read in every.items():
                    begun, worked = time.perf_counter(), time.thread_time()
                    read(out)
                    clock[name].append(time.perf_counter() - begun)
                    work[name].append(time.thread_time() - worked)
            for name in every:
                fast = size / statistics.median(clock[name])
                # With two threads this one does half of the work.
                alone = "" if name == "ours" else f"{size / statistics.median(work[name]):6.2f}"
                best = size / min(clock[name])
                print(
                    f"{bits:4}  {where:11}  {name:22}  {fast:6.2f} {best:6.2f}  {alone}", flush=True
                )
        imp.flush()


if __name__ == "__main__":
    main()
