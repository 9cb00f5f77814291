"""Grey values between Java's arrays and NumPy's: planes larger than a piece, and by two threads."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from nrrn_fiji.fiji import jvm


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
def test_a_plane_of_several_pieces_both_ways(
    app: jvm.ImageJ, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nrrn_fiji.fiji import pixels as module
    from nrrn_fiji.fiji.pixels import java_array, pixels_from_java, pixels_to_java

    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    width = 1000 // np.dtype(dtype).itemsize + 7
    plane = np.random.default_rng(1).integers(0, 127, (2, width)).astype(dtype)
    pixels = java_array(plane.size + 3, plane.dtype)
    pixels_to_java(plane, pixels, 3)
    assert [pixels[3], pixels[3 + width], pixels[2 + 2 * width]] == [
        plane[0, 0],
        plane[1, 0],
        plane[1, -1],
    ]
    assert list(pixels[:3]) == [0, 0, 0]
    out = np.zeros_like(plane)
    pixels_from_java(out, pixels, 3)
    assert np.array_equal(out, plane)
    with pytest.raises(ValueError, match=f"but a .* of {plane.size + 4} or more is needed"):
        pixels_from_java(out, pixels, 4)


def test_arrays_that_are_no_plain_memory(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.pixels import java_array, pixels_from_java, pixels_to_java

    plane = np.arange(24, dtype=np.uint16).reshape(4, 6)
    pixels = java_array(6, plane.dtype)
    pixels_to_java(plane[::2, ::2], pixels)
    assert list(pixels) == [0, 2, 4, 12, 14, 16]
    pixels_to_java(plane[:1].astype(">u2"), pixels)
    assert list(pixels) == [0, 1, 2, 3, 4, 5]
    fixed = np.zeros((2, 3), np.uint16)
    fixed.flags.writeable = False
    for out in (np.zeros((2, 6), np.uint16)[:, ::2], np.zeros((2, 3), ">u2"), fixed):
        with pytest.raises(ValueError, match="give a new contiguous one"):
            pixels_from_java(out, pixels)


def test_memory_is_let_go_of_at_once(app: jvm.ImageJ) -> None:
    from nrrn_fiji.fiji.pixels import java_array, pixels_from_java, pixels_to_java

    plane = np.ones((300, 300), np.uint8)
    pixels = java_array(plane.size, plane.dtype)
    pixels_to_java(plane, pixels)
    pixels_from_java(plane, pixels)
    left = weakref.ref(plane)
    del plane
    gc.collect()
    assert left() is None  # and not when Java next collects garbage


def test_a_slab_that_two_threads_copy(app: jvm.ImageJ, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import jpype

    from nrrn_fiji.fiji import pixels as module
    from nrrn_fiji.fiji.images import ImagePlusVolume, volume_of

    monkeypatch.setattr(module, "WORTH_TWO_THREADS", 1)
    threads = set()
    read = ImagePlusVolume._read_plane

    def spy(self: Any, out: Any, *place: int) -> None:
        threads.add(threading.get_ident())
        read(self, out, *place)

    monkeypatch.setattr(ImagePlusVolume, "_read_plane", spy)
    imp = jpype.JClass("ij.IJ").createImage("r", "16-bit ramp", 40, 30, 7)
    for z in range(7):
        imp.getStack().setVoxel(1, 2, z, 1000 + z)
    got = volume_of(imp).read(1, 7)
    assert list(got[:, 2, 1]) == [1001, 1002, 1003, 1004, 1005, 1006]
    assert len(threads) == (2 if (module.os.cpu_count() or 1) > 1 else 1)
    imp.flush()
    with pytest.raises(ValueError, match="closed"):  # from whichever thread
        volume_of(imp)
