"""The kernel of :mod:`nrrn_fiji.one_pass`; apart from it because importing this imports Triton.

This module must never be imported where Triton may be missing.
"""

# No `from __future__ import annotations`: Triton reads the annotations.
import triton
import triton.language as tl

__all__ = ["gates_kernel"]


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def maps_at(pointer, pixel, step, channel, inside):  # type: ignore[no-untyped-def]
    values = tl.load(pointer + pixel[:, None] * step + channel[None, :], mask=inside, other=0)
    return values.to(tl.float32)


@triton.jit
def gates_kernel(  # type: ignore[no-untyped-def]
    vr,
    vu,
    vc,
    wr,
    wu,
    wc,
    m,
    image,
    change,
    h,
    pixels,
    vr_step,
    vu_step,
    vc_step,
    wr_step,
    wu_step,
    wc_step,
    m_step,
    maps: tl.constexpr,
    places: tl.constexpr,
    block: tl.constexpr,
):
    """Equations of a building unit, for ``block`` pixels; ``places`` is 2^k and ≥ ``maps``."""
    pixel = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    channel = tl.arange(0, places)
    there = pixel < pixels
    is_map = channel[None, :] < maps
    inside = there[:, None] & is_map
    r = tl.sigmoid(
        maps_at(vr, pixel, vr_step, channel, inside) + maps_at(wr, pixel, wr_step, channel, inside)
    )
    u = tl.sigmoid(
        maps_at(vu, pixel, vu_step, channel, inside) + maps_at(wu, pixel, wu_step, channel, inside)
    )
    c = tanh(
        maps_at(wc, pixel, wc_step, channel, inside)
        + r * maps_at(vc, pixel, vc_step, channel, inside)
    )
    state = c + u * (maps_at(m, pixel, m_step, channel, inside) - c)
    # NAtt(h) = h[0] · sigmoid(largest of h)
    first = tl.sum(tl.where(channel[None, :] == 0, state, 0.0), axis=1)
    top = tl.max(tl.where(is_map, state, float("-inf")), axis=1)
    total = tl.load(change + pixel, mask=there, other=0) + first * tl.sigmoid(top)
    tl.store(change + pixel, total, mask=there)
    estimate = tanh(tl.load(image + pixel, mask=there, other=0) + total)
    state = tl.where(channel[None, :] == 0, estimate[:, None], state)
    at = pixel[:, None] * maps + channel[None, :]
    tl.store(h + at, state.to(h.dtype.element_ty), mask=inside)
