"""Grey values between Java's arrays and NumPy's, at the speed of memory.

Java copies them in one go, through an NIO buffer over NumPy's own memory.  JPype lets go of what
such a buffer was made from only when Java next collects garbage: a large stack that is read slab by
slab would stay in memory as a whole.  So the buffer is made from the mere address, and used for one
copy.  Large slabs are copied by two threads.

This module must never keep anything alive that it was given, never use a buffer after the call
that made it, and needs Java to run before anything here is called.

Source: ``java.nio.ByteBuffer``; measured by ``benchmarks/fiji_pixels.py``.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..formats.image import Array
from ..outputs.checks import readable_size
from . import java

__all__ = [
    "fits_in_java",
    "in_parallel",
    "java_array",
    "java_arrays",
    "java_is_full",
    "more_memory",
    "pixels_from_java",
    "pixels_to_java",
]

# Java's type with the same bits, and the view of a byte buffer that copies it in bulk.
JAVA_TYPES: dict[str, tuple[Any, str]] = {
    "uint8": (java.JByte, "duplicate"),
    "int8": (java.JByte, "duplicate"),
    "uint16": (java.JShort, "asShortBuffer"),
    "int16": (java.JShort, "asShortBuffer"),
    "float32": (java.JFloat, "asFloatBuffer"),
    "float64": (java.JDouble, "asDoubleBuffer"),
}
PIECE_BYTES = 1 << 30
"""Of a buffer; Java counts its bytes with 31 bits."""
WORTH_TWO_THREADS = 8 << 20
"""Bytes; fewer are copied before a second thread has begun."""


@functools.cache
def _array_type(dtype: str) -> Any:
    """Return Java's array type for the bits of a dtype."""
    return java.JArray(JAVA_TYPES[dtype][0])


@functools.cache
def _order() -> Any:
    """Return this machine's order of bytes, as Java says it; a buffer's own is another."""
    return java.JClass("java.nio.ByteOrder").nativeOrder()


def pixels_from_java(out: Array, pixels: Any, offset: int = 0) -> None:
    """Copy pixels out of a Java array, bit by bit.

    Parameters
    ----------
    out
        Contiguous (Y, X) of uint8, int8, uint16, int16, float32 or float64.
    pixels
        The Java array of the same size of pixel.
    offset
        Where in it the plane begins.

    Raises
    ------
    ValueError
        If the Java array is of another type or too short.
    """
    wanted = _array_type(out.dtype.name)
    if not isinstance(pixels, wanted) or len(pixels) < offset + out.size:
        raise ValueError(
            f"pixels is a {type(pixels).__name__} of {len(pixels)}, but a {wanted.__name__} of "
            f"{offset + out.size} or more is needed: convert the image to one type first."
        )
    if not (out.flags.c_contiguous and out.flags.writeable and out.dtype.isnative):
        raise ValueError(
            "out is an array with gaps, that cannot be written to, or of another machine's byte "
            "order: give a new contiguous one."
        )
    if java.is_remote():
        java.copy_from_java(out, pixels, offset)
        return
    for start, count, buffer in _buffers(out):
        buffer.put(pixels, offset + start, count)


def pixels_to_java(plane: Array, pixels: Any, offset: int = 0) -> None:
    """Copy pixels into a Java array, bit by bit; the inverse of :func:`pixels_from_java`."""
    whole = np.ascontiguousarray(plane, plane.dtype.newbyteorder("="))
    if java.is_remote():
        java.copy_to_java(whole, pixels, offset)
        return
    for start, count, buffer in _buffers(whole):
        buffer.get(pixels, offset + start, count)


def _buffers(array: Array) -> Iterator[tuple[int, int, Any]]:
    """Lay NIO buffers over a contiguous array, which must outlive their use.

    Yields
    ------
    tuple
        The first pixel and the number of pixels of a piece, and the buffer over it.
    """
    view = JAVA_TYPES[array.dtype.name][1]
    size, most = array.dtype.itemsize, PIECE_BYTES // array.dtype.itemsize
    for start in range(0, array.size, most):
        count = min(most, array.size - start)
        memory = (ctypes.c_byte * (count * size)).from_address(array.ctypes.data + start * size)
        piece = np.frombuffer(memoryview(memory), np.int8)  # JPype does not know ctypes' own types
        buffer = java.nio.convertToDirectBuffer(piece).order(_order())
        yield start, count, getattr(buffer, view)()


@functools.cache
def _second() -> ThreadPoolExecutor:
    """Return the thread that copies beside the calling one."""
    return ThreadPoolExecutor(1, thread_name_prefix="nrrn pixels")


def in_parallel(copy: Callable[[int, int], None], count: int, size: int) -> None:
    """Copy many planes, by two threads where that is faster.

    Parameters
    ----------
    copy
        Copies planes ``start`` to ``stop`` (not included).
    count
        How many planes there are.
    size
        Bytes of all of them.
    """
    # Another process is sent one plane at a time.
    if java.is_remote() or count < 2 or size < WORTH_TWO_THREADS or (os.cpu_count() or 1) < 2:
        copy(0, count)
        return
    half = count // 2
    beside = _second().submit(copy, half, count)
    try:
        copy(0, half)
    finally:
        beside.result()


def java_array(size: int, dtype: np.dtype[Any]) -> Any:
    """Return a new Java array of ``size`` pixels that holds the bits of ``dtype``.

    Raises
    ------
    MemoryError
        If Java's memory is full.
    """
    try:
        return _array_type(dtype.name)(size)
    except java.JException as error:
        if isinstance(error, java.JClass("java.lang.OutOfMemoryError")):
            raise java_is_full(size * dtype.itemsize) from error
        raise


def java_arrays(count: int, size: int, dtype: np.dtype[Any]) -> list[Any]:
    """Return ``count`` new Java arrays, each as of :func:`java_array`.

    Raises
    ------
    MemoryError
        If Java's memory is full.
    """
    if not java.is_remote():
        return [java_array(size, dtype) for _ in range(count)]
    try:
        made: list[Any] = java.arrays(count, JAVA_TYPES[dtype.name][0], size)
    except java.JException as error:
        if isinstance(error, java.JClass("java.lang.OutOfMemoryError")):
            raise java_is_full(count * size * dtype.itemsize) from error
        raise
    return made


def fits_in_java(size: int) -> bool:
    """Whether Java has ``size`` more bytes for pixels, with some left for its own work."""
    runtime = java.JClass("java.lang.Runtime").getRuntime()
    for attempt in range(2):
        if attempt:
            runtime.gc()  # what nobody uses any more counts as used until it is collected
        used = runtime.totalMemory() - runtime.freeMemory()
        if used + size < 0.9 * runtime.maxMemory():
            return True
    return False


def java_is_full(size: int) -> MemoryError:
    """Return the error for a result that Java has no room for; its message is a sentence."""
    most = java.JClass("java.lang.Runtime").getRuntime().maxMemory()
    return MemoryError(
        f"Java has no {readable_size(size)} left for the result (all of Java may take "
        f"{readable_size(most)}). Close images, write the result to a file, or give Java more "
        f"memory ({more_memory()})."
    )


def more_memory() -> str:
    """Return where a user gives Java more memory: that depends on who has started Fiji."""
    return "Edit > Options > Memory & Threads..." if java.is_remote() else "--memory"
