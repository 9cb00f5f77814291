"""What lies between two convolutions of a building unit, in one pass over a GPU's memory.

On a GPU the gates cost more than the convolutions if each of their dozen operations reads and
writes all maps: they are bound by memory.  This kernel (Triton, which comes with PyTorch for CUDA
on Linux) reads the maps once and writes the next state once; sums are in fp32 whatever the
precision of the maps.

This module must never compute anything else than :meth:`nrrn_fiji.fused.FusedNRRN` does without it;
tests hold the two equal, on the CPU by Triton's interpreter.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from .device import is_out_of_memory

__all__ = ["gates_in_one_pass", "missing_for_one_pass"]

OLDEST = (7, 5)
"""Compute capability of the oldest GPUs (Turing) that Triton compiles for."""

NUMBERS = 2048
"""Pixels × maps that a block of threads computes."""


@cache
def missing_for_one_pass(device: torch.device) -> str | None:
    """Return what ``device`` lacks to run the kernel; None if nothing is missing.

    On a CUDA GPU it is tried, once in a process: Triton compiles it, which needs a C compiler and
    Python's headers, and a folder to keep it in.
    """
    if device.type != "cuda":
        return "a CUDA GPU"
    if find_spec("triton") is None:
        return "Triton, which comes with PyTorch for CUDA on Linux"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "a GPU from 2018 or later"
    try:
        try_it(device)
    except Exception as error:  # whatever a compiler, a driver or a disk may raise
        if is_out_of_memory(error):
            raise
        return f"Triton, which failed ({type(error).__name__}: {str(error).splitlines()[0]})"
    return None


def try_it(device: torch.device) -> None:
    """Run the kernel once on nothing but zeros."""
    maps, image = torch.zeros((1, 4, 1, 1), device=device), torch.zeros((1, 1, 1, 1), device=device)
    gates_in_one_pass((maps,) * 3, (maps,) * 3, maps, image, image, torch.empty_like(maps))
    torch.cuda.synchronize(device)


def gates_in_one_pass(
    v: tuple[Tensor, ...],
    w: tuple[Tensor, ...],
    m: Tensor,
    image: Tensor,
    change: Tensor,
    h: Tensor,
) -> None:
    """Compute the next state of one centre, and add its noise estimate to the change.

    Parameters
    ----------
    v, w
        V- and W-convolutions for r, u and c, three each; (B, C, H, W), channels last, fp32, bf16
        or fp16; views of maps with more channels are read where they lie.
    m
        The memory, as ``v``.
    image
        The centre, (B, 1, H, W), fp32.
    change
        x̂ − centre so far, (B, 1, H, W), fp32; changed.
    h
        Gets the state, (B, C, H, W), channels last without gaps, in the precision of the maps.
    """
    from .one_pass_kernel import gates_kernel  # only here: Triton takes a second to import

    maps = h.shape[1]
    pixels = image.numel()
    places = 1 << (maps - 1).bit_length()
    block = max(1, NUMBERS // places)
    laid, steps = zip(*(pixel_by_pixel(one) for one in (*v, *w, m)), strict=True)
    with torch.cuda.device_of(h):
        gates_kernel[(-(-pixels // block),)](
            *laid, image, change, h, pixels, *steps, maps=maps, places=places, block=block
        )


def pixel_by_pixel(maps: Tensor) -> tuple[Tensor, int]:
    """Return maps whose numbers of a pixel lie side by side, and how far apart pixels are."""
    _, count, height, width = maps.shape
    step = maps.stride(3)
    if maps.stride() == (height * width * step, 1, width * step, step):
        return maps, step
    return maps.contiguous(memory_format=torch.channels_last), count
