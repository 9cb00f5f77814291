"""The gates of a building unit in one pass over memory, compiled by Numba.

Between the convolutions of :class:`.engine.QuantisedNRRN` a dozen simple operations
happen to every number of every map.  One after the other, each reads and writes all of them, and
that takes as long as the convolutions; here a pixel's maps are read once.

Arrays are (Y, X, C), C fastest; bytes lie in arrays with a border of one pixel.  These functions
release Python's lock and use one thread each: the caller shares the strips out.  This module must
never be imported without need: Numba takes half a second, and the first time on a machine some
seconds to compile (it keeps the result on disk).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["close", "features", "gates", "memory"]

FAST = {"nnan", "ninf", "nsz", "arcp", "contract", "afn", "reassoc"}
"""Numbers are finite here (weights and images are checked), so order and special cases do not
matter; without this the compiler does not use the processor's vectors."""

f32 = np.float32
HALF, TOP = f32(0.5), f32(255)
PARTS = 16
"""Numbers in the longest vector of a processor."""

# tanh as a fraction of polynomials, exact to 4e-7 up to where it is 1 in fp32; fitted for fp32 by
# the authors of Eigen (MathFunctionsImpl.h), from lowest to highest order.
LIMIT = f32(7.90531110763549805)
A1, A3, A5 = f32(4.89352455891786e-03), f32(6.37261928875436e-04), f32(1.48572235717979e-05)
A7, A9 = f32(5.12229709037114e-08), f32(-8.60467152213735e-11)
A11, A13 = f32(2.00018790482477e-13), f32(-2.76076847742355e-16)
B0, B2 = f32(4.89352518554385e-03), f32(2.26843463243900e-03)
B4, B6 = f32(1.18534705686654e-04), f32(1.19825839466702e-06)

Maps = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@njit(fastmath=FAST, inline="always")
def tanh(x):  # type: ignore[no-untyped-def]
    x = min(max(x, -LIMIT), LIMIT)
    y = x * x
    above = x * (A1 + y * (A3 + y * (A5 + y * (A7 + y * (A9 + y * (A11 + y * A13))))))
    return above / (B0 + y * (B2 + y * (B4 + y * B6)))


@njit(fastmath=FAST, inline="always")
def sigmoid(x):  # type: ignore[no-untyped-def]
    return HALF * tanh(HALF * x) + HALF


@njit(fastmath=FAST, inline="always")
def byte(x):  # type: ignore[no-untyped-def]
    return np.uint8(np.int32(min(max(x + HALF, HALF), TOP + HALF)))


@njit(fastmath=FAST, inline="always")
def largest(values, part):  # type: ignore[no-untyped-def]
    # One maximum for each place in a vector first: the compiler does not divide it itself.
    for k in range(PARTS):
        part[k] = values[0]
    c = 0
    while c + PARTS <= len(values):
        for k in range(PARTS):
            part[k] = max(part[k], values[c + k])
        c += PARTS
    top = part[0]
    while c < len(values):
        top = max(top, values[c])
        c += 1
    for k in range(PARTS):
        top = max(top, part[k])
    return top


@njit(fastmath=FAST, nogil=True, cache=True, error_model="numpy")
def features(maps: Maps, factor: Maps, zero: Maps, into: Bytes) -> None:
    """Store maps as bytes, ``maps * factor + zero`` rounded and clamped.

    Parameters
    ----------
    maps
        (H, W, C).
    factor, zero
        (C,).
    into
        (H, W + 2, C); the border is left alone.
    """
    height, width, count = maps.shape
    for y in range(height):
        for x in range(width):
            value, stored = maps[y, x], into[y, x + 1]
            for c in range(count):
                stored[c] = byte(value[c] * factor[c] + zero[c])


@njit(fastmath=FAST, nogil=True, cache=True, error_model="numpy")
def memory(maps: Maps, factor: Maps, zero: Maps, precise: Maps, into: Bytes) -> None:
    """Compute m = tanh(maps): in fp32 into ``precise`` (H, W, C), and as bytes.

    The other parameters are those of :func:`features`.
    """
    height, width, count = maps.shape
    for y in range(height):
        for x in range(width):
            value, kept, stored = maps[y, x], precise[y, x], into[y, x + 1]
            for c in range(count):
                kept[c] = tanh(value[c])
            for c in range(count):
                stored[c] = byte(kept[c] * factor[c] + zero[c])


@njit(fastmath=FAST, nogil=True, cache=True, error_model="numpy")
def gates(
    vr: Maps,
    vu: Maps,
    vc: Maps,
    wr: Maps,
    wu: Maps,
    wc: Maps,
    m: Maps,
    image: Maps,
    change: Maps,
    factor: Maps,
    zero: Maps,
    into: Bytes,
) -> None:
    """Compute h, add its noise estimate to ``change``, and store the next state as bytes.

    Parameters
    ----------
    vr, vu, vc
        The three V-convolutions of m, (H, W, C).
    wr, wu, wc
        The three W-convolutions of the state.
    m
        The memory, (H, W, C).
    image
        The centre slice, (H, W).
    change
        x̂ − centre so far, (H, W); changed.
    factor, zero, into
        As for :func:`features`.
    """
    height, width, count = m.shape
    h = np.empty(count, np.float32)
    part = np.empty(PARTS, np.float32)
    for y in range(height):
        for x in range(width):
            vr_, vu_, vc_ = vr[y, x], vu[y, x], vc[y, x]
            wr_, wu_, wc_ = wr[y, x], wu[y, x], wc[y, x]
            m_, stored = m[y, x], into[y, x + 1]
            for c in range(count):
                r = sigmoid(vr_[c] + wr_[c])
                u = sigmoid(vu_[c] + wu_[c])
                candidate = tanh(wc_[c] + r * vc_[c])
                h[c] = candidate + u * (m_[c] - candidate)
            change[y, x] += h[0] * sigmoid(largest(h, part))
            h[0] = tanh(image[y, x] + change[y, x])
            for c in range(count):
                stored[c] = byte(h[c] * factor[c] + zero[c])


@njit(fastmath=FAST, nogil=True, cache=True, error_model="numpy")
def close(maps: Maps, change: Maps) -> None:
    """Add NAtt(maps), the noise estimate of maps (H, W, C), to ``change`` (H, W)."""
    height, width, _ = maps.shape
    part = np.empty(PARTS, np.float32)
    for y in range(height):
        for x in range(width):
            value = maps[y, x]
            change[y, x] += value[0] * sigmoid(largest(value, part))
