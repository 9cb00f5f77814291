"""Where to compute and how precisely, and whether an error means "out of memory".

This module must never guess silently: a device that was asked for and is not there is an error,
and what was chosen is in the plan.
"""

from __future__ import annotations

import platform
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from .settings import PRECISIONS

__all__ = [
    "INSTALL_NUMBA",
    "TORCH_DTYPES",
    "bf16_is_fast",
    "check_int8",
    "choose_device",
    "choose_precision",
    "describe",
    "free_memory",
    "is_out_of_memory",
    "missing_for_int8",
    "release_memory",
    "wants_numba",
]

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

INSTALL_NUMBA = "python -m pip install numba"
NUMBA = f"Numba ({INSTALL_NUMBA})"

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",
)


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device called ``name``, or the best there is.

    Parameters
    ----------
    name
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None takes CUDA, then MPS, then the CPU.

    Raises
    ------
    ValueError
        If the name is unknown, or this machine has no such device.
    """
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found[:0] = [f"cuda:{i}" for i in range(count)]
    if name is None:
        return torch.device(found[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if str(device) == "cuda":
        device = torch.device("cuda:0")
    if str(device) not in found:
        raise ValueError(
            f"device is {str(name)!r}, but this machine has {', '.join(found)}: "
            "choose one of these, or leave it out."
        )
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bf16 convolutions are faster than fp32 ones on ``device``.

    True for NVIDIA GPUs from Ampere on (sm80) and for CPUs with AMX tiles.  Not for CPUs that
    have AVX-512 bf16 alone: bf16 works there, but measured half as fast as fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Not in every version of torch; without it fp32 is the safe answer.
        has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return bool(has_amx is not None and has_amx())
    return False


def missing_for_int8(device: torch.device) -> str | None:
    """Return what is missing for quick 8-bit convolutions on ``device``; None if nothing is.

    They need a CPU that multiplies bytes (AVX-512 VNNI: Intel's servers from 2019, AMD's from 2022
    on), torch's convolutions for it, and Numba for what lies between them.
    """
    if device.type != "cpu":
        return "a CPU (8-bit convolutions exist for no other device)"
    # Neither is in every version of torch.
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    if supported is None or not supported():
        return "a processor with AVX-512 VNNI"
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return "a version of torch with oneDNN"
    if find_spec("numba") is None:
        return NUMBA
    return None


def wants_numba(device: torch.device) -> bool:
    """Whether nothing but Numba is missing for 8-bit convolutions on ``device``."""
    return missing_for_int8(device) == NUMBA


def check_int8(device: torch.device) -> None:
    """Raise ValueError if ``device`` cannot compute in int8, and say what is missing."""
    missing = missing_for_int8(device)
    if missing is not None:
        raise ValueError(
            f"precision is 'int8', but that needs {missing}: choose fp32, or leave it out."
        )


def choose_precision(name: str | None, device: torch.device, dtype: np.dtype[Any] | str) -> str:
    """Return the precision ``name``, or the best for images of type ``dtype`` on ``device``.

    Returns
    -------
    str
        ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"int8"``.  Left out, it is bf16 for 8-bit images
        where that is faster (:func:`bf16_is_fast`), because its error is below that of rounding to
        8 bits, else fp32; docs/decisions/precision.md has the measurements.  int8 depends on the
        network, too, so it is left to :func:`nrrn_fiji.plan.make_plan`.

    Raises
    ------
    ValueError
        If ``name`` is unknown, or the device cannot compute in it.
    """
    if name is None:
        return "bf16" if np.dtype(dtype).itemsize == 1 and bf16_is_fast(device) else "fp32"
    if name not in PRECISIONS:
        raise ValueError(
            f"precision is {name!r}, but it must be one of {', '.join(PRECISIONS)}: "
            "choose one of these, or leave it out."
        )
    if name == "int8":
        check_int8(device)
    if name == "fp16" and device.type == "cpu":
        raise ValueError(
            "precision is 'fp16', but CPUs compute in fp32 or bf16, and some in int8: choose one "
            "of these, or leave it out."
        )
    return name


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in OUT_OF_MEMORY)


def free_memory(device: torch.device) -> int | None:
    """Return the free memory of a GPU in bytes; None for the CPU, whose memory others plan."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        limit = torch.mps.recommended_max_memory()
        return max(0, int(limit - torch.mps.driver_allocated_memory()))
    return None


def release_memory(device: torch.device) -> None:
    """Give cached memory of a GPU back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def describe(device: torch.device) -> str:
    """Return the device in words, for a person: its kind and name."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"
    return str(device)
