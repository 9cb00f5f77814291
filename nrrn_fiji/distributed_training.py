"""Training by several processes together, on one machine or many, as ``torchrun`` starts them.

Every process has the whole data and a copy of the network; each makes its part of every batch,
torch's DistributedDataParallel averages the gradients, and so all take the same step that one
process would take with the whole batch.  The first process alone decides, validates, writes and
speaks.  This module must never know what is trained or on what: it deals out the parts of a batch
and agrees on values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nrrn_fiji.progress import Cancelled, NoProgress, Progress

__all__ = ["ALONE", "PeerLost", "Team", "joined"]

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""A process that hears nothing from the others for so long gives up; a validation is shorter."""

LOST = ("closed by peer", "connection reset", "broken pipe", "timed out", "timeout", "socket")
"""Words of the transport's errors when another process is gone."""


class PeerLost(ConnectionError):
    """Another process of the training has ended or cannot be reached; the message says so."""


class Team:
    """The processes of one training, as one of them sees it.

    Parameters
    ----------
    rank
        Number of this process, from 0.
    size
        How many there are.
    local_rank
        Number of this process among those of this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._place = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that decides, writes and speaks."""
        return self.rank == 0

    def device(self, asked: str | None) -> str | None:
        """Return the device of this process: a GPU of its own, or the CPU for all.

        Parameters
        ----------
        asked
            As in the settings.

        Raises
        ------
        ValueError
            If the machine has fewer GPUs than processes, or one device was asked for by number.
        """
        if self.size == 1:
            return asked
        if asked == "cpu" or (asked is None and not torch.cuda.is_available()):
            return "cpu"
        if asked not in (None, "cuda"):
            raise ValueError(
                f"device is {asked!r}, but {self.size} processes train together, each on a GPU of "
                'its own or all on the CPU: choose "cuda" or "cpu", or leave it out.'
            )
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.local_rank >= count:
            raise ValueError(
                f"Process {self.local_rank} of this machine has no GPU, for there are {count}: "
                "start as many processes as there are GPUs, or train on the CPU (device cpu)."
            )
        return f"cuda:{self.local_rank}"

    def part(self, batch: int) -> range:
        """Return which samples of a batch this process makes.

        Raises
        ------
        ValueError
            If there are fewer samples than processes.
        """
        if batch < self.size:
            raise ValueError(
                f"batch is {batch}, but {self.size} processes share it: choose a batch of "
                f"{self.size} or more, or start fewer processes."
            )
        return range(batch * self.rank // self.size, batch * (self.rank + 1) // self.size)

    def progress(self, progress: Progress) -> Progress:
        """Return what this process reports to; nobody, unless it is the first."""
        return progress if self.first else NoProgress()

    def learner(self, module: nn.Module) -> nn.Module:
        """Return ``module`` so that its backward pass averages the gradients of all processes.

        Its parameters become those of the first process.
        """
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def share(self, batch: int) -> float:
        """Return the factor that makes the mean over processes the mean over samples.

        Gradients are averaged over processes, whose parts of a batch may differ by a sample.
        """
        return len(self.part(batch)) * self.size / batch

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over all processes."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value = value / self.size
        return float(value.item())

    def agreed(self, value: float) -> float:
        """Return the first process's number in all of them."""
        if self.size == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=self._place)
        dist.broadcast(number, 0)
        return float(number.item())

    def given(self, value: T) -> T:
        """Return the first process's object, of any kind, in all of them."""
        if self.size == 1:
            return value
        held: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(held, 0, device=self._place)
        result: T = held[0]
        return result

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let an error of one process within the context be the end of all, said once.

        Raises
        ------
        RuntimeError
            In the first process, with the sentence of another one that failed.
        SystemExit
            In the others: the first says why.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.size == 1:
                raise
            failure = error
        if self.size == 1:
            return
        texts: list[str | None] = [None] * self.size
        with self.watched():
            dist.all_gather_object(texts, None if failure is None else str(failure))
        if self.first and failure is not None:
            raise failure
        failed = [number for number, text in enumerate(texts) if text is not None]
        if failed and self.first:
            raise RuntimeError(f"Process {failed[0]} of {self.size}: {texts[failed[0]]}")
        if failed:
            raise SystemExit(1)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn the loss of another process within the context into a sentence.

        Raises
        ------
        PeerLost
            If another process ended, or could not be reached for ten minutes.
        """
        try:
            yield
        except RuntimeError as error:
            if not self.lost(error):
                raise
            raise self.peer_lost() from error

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that another process is gone."""
        if self.size == 1 or not isinstance(error, RuntimeError):
            return False
        return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST)

    def peer_lost(self, kept: str = "") -> PeerLost:
        """Return the sentence for the loss of another process, and what is kept."""
        return PeerLost(
            f"Process {self.rank} of the {self.size} that train together (counted from 0) has lost "
            "the others: one has ended, or its machine cannot be reached. What it said last tells "
            f"why.{kept}"
        )


ALONE = Team()
"""A training by one process."""


def launched() -> Team:
    """Return the team that the launcher's environment describes; :data:`ALONE` without one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return ALONE
    return Team(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined(device: str | None) -> Iterator[Team]:
    """Join the other processes of the training, as long as the context lasts.

    Parameters
    ----------
    device
        Where the training was asked to run.

    Yields
    ------
    Team
        :data:`ALONE` unless a launcher such as ``torchrun`` started several processes.

    Raises
    ------
    ValueError
        If this machine does not have a device for every process.
    PeerLost
        If another process ended meanwhile.
    SystemExit
        In the other processes, where the first one says what happened: the user stopped, or the
        training diverged.
    """
    team = launched()
    if team.size == 1:
        yield team
        return
    chosen = team.device(device)
    if chosen != "cpu":
        assert chosen is not None
        team._place = torch.device(chosen)
        torch.cuda.set_device(team._place)
    with team.watched():
        dist.init_process_group("gloo" if chosen == "cpu" else "nccl", timeout=PATIENCE)
    try:
        with team.watched():
            yield team
    except (Cancelled, ArithmeticError, KeyboardInterrupt) as error:
        if team.first:
            raise
        raise SystemExit(1) from error
    finally:
        dist.destroy_process_group()
