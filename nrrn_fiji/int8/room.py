"""Memory for maps, used again from slice to slice (docs/decisions/speed.md).

Maps of a window are many megabytes, which the system would give back after each slice and clear
anew for the next, one page after the other, while all threads wait.  This module must never hold
memory for windows of a size that is not in use any more: memory may have run out with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Room"]


class Room:
    """Memory for maps (B, C, H, W), channels last, of the windows of one volume.

    Parameters
    ----------
    maps
        C.
    """

    def __init__(self, maps: int):
        self.maps = maps
        self._window = (0, 0)
        self._free: dict[tuple[torch.dtype, torch.Size], list[Tensor]] = {}

    def use_for(self, height: int, width: int) -> None:
        """Say how large windows are from now on; maps of others are forgotten."""
        if self._window != (height, width):
            self._window = height, width
            self._free.clear()

    def take(
        self, height: int, width: int, dtype: torch.dtype = torch.float32, count: int = 1
    ) -> Tensor:
        """Return (``count``, C, ``height``, ``width``), with any values."""
        shape = torch.Size((count, self.maps, height, width))
        free = self._free.get((dtype, shape))
        if free:
            return free.pop()
        return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)

    def give_back(self, *maps: Tensor) -> None:
        """Let maps be used again: nobody may read them any more."""
        for one in maps:
            self._free.setdefault((one.dtype, one.shape), []).append(one)
