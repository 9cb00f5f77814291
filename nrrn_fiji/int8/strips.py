"""Shares the rows of a window out to threads, strip by strip (docs/decisions/speed.md).

This module knows nothing of networks.  It must never leave torch with another number of threads
than it had.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier

import torch

__all__ = ["Strips", "Threads"]

STRIP = 8192 * 64
"""Numbers of one kind (pixels × maps) in a strip: 2 MB in fp32.  Half and twice as many are equally
fast; smaller ones cost calls, the whole tile leaves the processor's cache."""


class Threads:
    """Threads that compute alone, with torch held to one thread in each.

    They are kept, because a new thread costs more than a strip's share of one: torch forgets
    prepared convolutions when a number of threads is set, and the system clears memory for each.
    They end with this object.
    """

    def __init__(self) -> None:
        self._count = 0
        self._pool: ThreadPoolExecutor | None = None

    def pool(self, count: int) -> ThreadPoolExecutor:
        """Return ``count`` threads; all of them have been started."""
        if self._pool is None or self._count != count:
            everywhere = torch.get_num_threads()
            pool = ThreadPoolExecutor(count, initializer=compute_alone)
            started = Barrier(count)
            try:
                wait([pool.submit(started.wait) for _ in range(count)])
            finally:
                started.abort()  # if the system gives no further thread, the others wait no more
                # Their own number has become that of threads to come, too.
                torch.set_num_threads(everywhere)
            self._count, self._pool = count, pool
        return self._pool


class Strips:
    """The strips of one window, shared out to threads.

    Each thread computes alone: strips are independent, so nobody waits for anybody within one.
    """

    def __init__(self, height: int, row: int, threads: Threads):
        most = torch.get_num_threads()
        count = min(height, max(1, round(height * row / STRIP)))
        size = math.ceil(height / (math.ceil(count / most) * most))
        self.bounds = [(y, min(y + size, height)) for y in range(0, height, size)]
        self.pool = threads.pool(most) if min(most, len(self.bounds)) > 1 else None

    def each(self, work: Callable[[int, int], None]) -> None:
        """Call ``work(start, stop)`` for every strip, and wait for all, also when one fails."""
        if self.pool is None:
            for start, stop in self.bounds:
                work(start, stop)
            return
        compute = torch.inference_mode()(work)
        strips = [self.pool.submit(compute, *bounds) for bounds in self.bounds]
        wait(strips)
        for strip in strips:
            strip.result()


def compute_alone() -> None:
    """Keep torch from sharing out what this thread computes."""
    torch.get_num_threads()  # a thread's first computation would otherwise set the number anew
    torch.set_num_threads(1)
