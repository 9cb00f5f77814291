"""Shares the rows of a window out to threads, strip by strip (docs/decisions/speed.md).

This module knows nothing of networks.  It must never leave torch with another number of threads
than it had.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["Strips"]

STRIP = 8192 * 64
"""Numbers of one kind (pixels × maps) in a strip: 2 MB in fp32.  Half and twice as many are equally
fast; smaller ones cost calls, the whole tile leaves the processor's cache."""


class Strips:
    """Shares the strips of a window out to threads; to be used as a context.

    Each thread computes alone: strips are independent, so nobody waits for anybody within one.
    """

    def __init__(self, height: int, row: int):
        self.everywhere = threads = torch.get_num_threads()
        count = min(height, max(1, round(height * row / STRIP)))
        size = math.ceil(height / (math.ceil(count / threads) * threads))
        self.bounds = [(y, min(y + size, height)) for y in range(0, height, size)]
        self.threads = min(threads, len(self.bounds))
        self.pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Strips:
        if self.threads > 1:
            self.pool = ThreadPoolExecutor(self.threads, initializer=compute_alone)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()
            # The threads' own number has become that of threads to come, too.
            torch.set_num_threads(self.everywhere)

    def each(self, work: Callable[[int, int], None]) -> None:
        """Call ``work(start, stop)`` for every strip, and wait."""
        if self.pool is None:
            for start, stop in self.bounds:
                work(start, stop)
        else:
            for _ in self.pool.map(
                torch.inference_mode()(lambda bounds: work(*bounds)), self.bounds
            ):
                pass


def compute_alone() -> None:
    """Keep torch from sharing out what this thread computes."""
    torch.get_num_threads()  # a thread's first computation would otherwise set the number anew
    torch.set_num_threads(1)
