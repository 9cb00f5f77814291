"""Workers for a denoising run: several GPUs, several processes, or the machines of a Dask cluster.

Dask starts, watches and replaces workers and hands them blocks; this module asks it to, one or two
blocks ahead per worker, and passes on what they report.  It must never compute or write a pixel,
and never be imported where no workers were asked for: ``dask.distributed`` is an extra.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import distributed

from .. import __version__
from ..outputs.journal import BlockKey
from ..progress import Cancelled, Progress
from . import cluster_blocks
from .cluster_blocks import BlockDone, Run, close_run, compute_block

__all__ = ["Crew", "assembled"]

T = TypeVar("T")

LOCAL = "local"
AHEAD = 2
"""Blocks per worker that are handed out: the one it computes, and one that waits."""

POLL_SECONDS = 0.2
SECONDS_TO_CONNECT = 20
SECONDS_TO_END = 60
"""How long a stopped run waits for the blocks that are being computed."""


class Crew:
    """The workers of a run.

    Parameters
    ----------
    client
        Connected to their scheduler.
    devices
        One for every worker in turn; empty where every worker takes the plan's.
    progress
        Is told what happens to workers, and asked whether to stop.
    local
        Whether all workers are on this machine.
    """

    def __init__(
        self, client: Any, devices: tuple[str, ...], progress: Progress, *, local: bool = False
    ):
        self.client, self.devices, self.progress, self.local = client, devices, progress, local
        self.address: str = client.scheduler.address

    @property
    def size(self) -> int:
        """How many workers there are at this moment."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def described(self, device: str) -> str:
        """Return who computes, in words."""
        count = self.size
        what = ", ".join(self.devices) or device
        return f"{count} worker{'s' if count > 1 else ''} of {self.address} ({what})"

    def wait_for_workers(self) -> None:
        """Wait until there is a worker; in the queue of a cluster that can take hours.

        Raises
        ------
        Cancelled
            When the user stops.
        ValueError
            If the workers have another version of this package, or none.
        """
        said = False
        with self.watched():
            while not self.size:
                if not said:
                    said = True
                    self.progress.message(f"No worker has joined {self.address} yet: waiting.")
                if self.progress.cancelled:
                    raise Cancelled("Stopped before a worker had joined.")
                time.sleep(POLL_SECONDS)
            found = self.client.get_versions(packages=["nrrn_fiji"])["workers"]
        for address, about in found.items():
            version = (about or {}).get("packages", {}).get("nrrn_fiji")
            if version != __version__:
                has = "does not have nrrn-fiji" if version is None else f"has nrrn-fiji {version}"
                raise ValueError(
                    f"The worker {address} {has}, but {__version__} is needed: install the same "
                    "version of nrrn-fiji where the workers run."
                )

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of a function that one of the workers calls."""
        with self.watched():
            future = self.client.submit(function, *arguments, pure=False)
            while not future.done():
                if self.progress.cancelled:
                    future.cancel()
                    raise Cancelled("Stopped before a block was finished.")
                time.sleep(POLL_SECONDS)
            result: T = future.result()
            return result

    def blocks(self, run: Run, keys: Iterable[BlockKey]) -> Iterator[BlockDone]:
        """Let the workers compute blocks; yield each as soon as it is on disk.

        A block whose worker is lost is given to another one.

        Parameters
        ----------
        run
            What they are a part of.
        keys
            Which blocks.

        Raises
        ------
        Cancelled
            When the user stops, after the blocks that are being computed.
        ConnectionError
            If the scheduler is lost.
        RuntimeError
            If a block ends one worker after the other.
        """
        left, waiting = deque(keys), set[Any]()
        with self.watched():
            try:
                while (left or waiting) and not self.progress.cancelled:
                    while left and len(waiting) < AHEAD * max(1, self.size):
                        key = left.popleft()
                        waiting.add(self.submit(run, key))
                    yield from self.finished(waiting)
                if left or waiting:
                    yield from self.last_ones(waiting)
                    raise Cancelled("Stopped.")
            finally:
                self.client.cancel(list(waiting), force=True)
                with suppress(Exception):  # an open file is all that there is to lose
                    self.client.run(close_run, run.name)

    def submit(self, run: Run, key: BlockKey) -> Any:
        """Hand out a block."""
        name = f"nrrn-{run.name}-{key.time}-{key.channel}-{key.slab}"
        return self.client.submit(compute_block, run, key, key=name, pure=False)

    def finished(self, waiting: set[Any]) -> Iterator[BlockDone]:
        """Yield what has been finished meanwhile; it waits no longer."""
        with suppress(TimeoutError), self.client.as_current():
            distributed.wait(list(waiting), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
        for future in [future for future in waiting if future.done()]:
            done: BlockDone = future.result()
            waiting.discard(future)
            yield done

    def last_ones(self, waiting: set[Any]) -> Iterator[BlockDone]:
        """Yield the blocks that are being computed; those that wait are taken back."""
        with suppress(TimeoutError):
            busy = {key for keys in self.client.processing().values() for key in keys}
            computed = self.client.run(_computing)
            busy &= {key for keys in computed.values() for key in keys}
            queued = {future for future in waiting if future.key not in busy}
            self.client.cancel(list(queued))
            waiting -= queued
            until = time.monotonic() + SECONDS_TO_END
            while waiting and time.monotonic() < until:
                yield from self.finished(waiting)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what can happen to a cluster within the context into sentences."""
        try:
            yield
        except distributed.KilledWorker as error:
            raise RuntimeError(
                "A block has ended one worker after the other; most likely their memory does not "
                "suffice: choose a smaller slab or tile, or workers with more memory."
            ) from error
        except (CancelledError, distributed.comm.core.CommClosedError, TimeoutError) as error:
            raise ConnectionError(
                f"The Dask scheduler at {self.address} is lost: start it again, if it was not "
                "this run that ended it."
            ) from error


def _computing(dask_worker: Any) -> list[str]:
    """Return the keys of the blocks that a worker is computing; Dask says which worker it is."""
    return [str(task.key) for task in dask_worker.state.executing]


@contextmanager
def assembled(
    dask: str | None, workers: int | None, devices: tuple[str, ...], progress: Progress
) -> Iterator[Crew]:
    """Connect to a cluster, or start one on this machine, as long as the context lasts.

    Parameters
    ----------
    dask
        Address of a Dask scheduler ("tcp://host:8786"), its scheduler file (".json"), or "local".
    workers
        How many processes to start on this machine.
    devices
        Several devices of this machine, each for a worker of its own; or none.
    progress
        Is told what is going on, and asked whether to stop.

    Raises
    ------
    ValueError
        If the arguments contradict each other, or the workers do not suit.
    ConnectionError
        If there is no scheduler.
    """
    if dask not in (None, LOCAL):
        if workers is not None or devices:
            raise ValueError(
                f"dask is {dask}, a cluster that has workers and devices of its own: leave "
                "workers out, and give no list of devices."
            )
        with _quiet(), _client(str(dask)) as client:
            crew = Crew(client, (), progress)
            crew.wait_for_workers()
            yield crew
        return
    if devices and workers is not None and workers % len(devices):
        raise ValueError(
            f"workers is {workers}, but there are {len(devices)} devices: give each of them as "
            "many workers, or leave workers out."
        )
    count = workers or (len(devices) or None)
    cores = os.cpu_count() or 1
    with (
        _quiet(),
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=None if count is None else max(1, cores // count),
            processes=True,
            memory_limit=None,  # blocks are planned to fit; a worker must not be ended for pages
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            preload=[cluster_blocks.__name__],
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        crew = Crew(client, devices, progress, local=True)
        crew.wait_for_workers()
        yield crew


def _client(address: str) -> Any:
    """Return a client of a scheduler that is running somewhere."""
    about: dict[str, Any] = {"address": address}
    if address.endswith(".json"):
        if not os.path.exists(address):
            raise FileNotFoundError(
                f"The scheduler file {address} does not exist: start the scheduler with "
                f"--scheduler-file {address}, and wait until it runs."
            )
        about = {"scheduler_file": address}
    try:
        return distributed.Client(**about, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(
            f"There is no Dask scheduler at {address} (such as tcp://host:8786): start one with "
            "`dask scheduler`, or check the address."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own log out of what the user reads; what matters is said in sentences."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    loggers = [logging.getLogger(name) for name in names]  # each has a level of its own
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
