"""What a worker of a cluster does: open what the task names, denoise one block, write it.

A task is small and names files; the worker reads its own slices and writes into the unfinished
output itself, so that no pixels travel through the scheduler.  What was opened stays open for the
next block of the same run.  This module must never record that a block is finished (the client
does, when the worker has returned), nor write anything but the block that it was given, nor that
when nobody waits for it any more: a worker that was taken for lost can wake when another one has
written its block, or when the result has its final name.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import torch

from ..denoising import Plan, denoise_slabs
from ..device import choose_device
from ..formats.image import Origin
from ..formats.metadata import VolumeShape
from ..models import Model, load_model
from ..outputs.journal import BlockKey, is_wanted
from ..progress import NoProgress
from ..settings import DenoiseSettings
from ..volumes import StackSource, Volume, VolumeWriter, open_volume, reopen_volume
from .denoise_block import USED, channel_plans, write_block

__all__ = ["BlockDone", "OutputPlace", "Run", "close_run", "compute_block", "plan_here"]


@dataclass(frozen=True)
class OutputPlace:
    """An unfinished output."""

    kind: str
    path: str
    shape: VolumeShape
    dtype: str


@dataclass(frozen=True)
class Run:
    """What all blocks of a run have in common."""

    name: str
    """Of its own for every run, also for one that goes on."""
    origin: Origin
    model: str
    """The model file."""
    outputs: tuple[OutputPlace, ...]
    folder: str
    """Of the unfinished outputs, where the record lies."""
    record: str
    """How the record names the run; "" before there is one."""
    slices: range
    """Which slices of the input the outputs hold."""
    devices: tuple[str, ...]
    """One for every worker in turn; empty where the plan says it."""
    workers: int
    """How many there were when the run began."""
    plans: tuple[Plan, ...] = ()
    """One per channel."""


@dataclass(frozen=True)
class BlockDone:
    """What a worker says of a block that is on disk."""

    key: BlockKey
    used: dict[str, Any]
    """With what it was computed; see :data:`USED`."""
    said: tuple[tuple[str, str], ...]
    """What was noticed: the sentence, and the sentence with the place."""


class _Opened:
    """What one worker process keeps open for a run."""

    def __init__(self, run: Run):
        self.name = run.name
        with _here(), ExitStack() as files:
            self.model: Model = load_model(run.model)
            self.volume: Volume = files.enter_context(
                open_volume(_source(run.origin), z_axis=run.origin.z_axis)
            )
            self.writers: dict[str, VolumeWriter] = {
                output.kind: files.enter_context(
                    reopen_volume(
                        output.path,
                        self.volume,
                        shape=output.shape,
                        dtype=np.dtype(output.dtype),
                        slices=run.slices,
                    )
                )
                for output in run.outputs
            }
            self.files = files.pop_all()
        self.settled: dict[str, Any] = {}
        """What memory sufficed for; empty while that is the plan."""


_turn = threading.Lock()
"""A worker may have several threads; torch uses them all for one block."""

_opened: list[_Opened] = []


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes of a run, to the one that decides.

    Dask calls this in every worker that :mod:`.cluster` starts.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def compute_block(run: Run, key: BlockKey) -> BlockDone:
    """Denoise one block and write it into the outputs, if the run still waits for it.

    Parameters
    ----------
    run
        What it is a part of.
    key
        Which block.

    Raises
    ------
    ValueError
        If this machine lacks the device of the plan.
    FileNotFoundError
        If it does not see the input, the model or the output.
    RuntimeError
        If nobody waits for the block any more.
    """
    worker = distributed.get_worker()
    with _turn:
        torch.set_num_threads(max(1, worker.state.nthreads))
        opened = _open(run)
        planned = run.plans[key.channel]
        device = planned.device
        if run.devices:
            device = run.devices[int(worker.name) % len(run.devices)]
        choose_device(device)
        plan = dataclasses.replace(planned, **{"device": device, **opened.settled})
        start = run.slices.start + key.slab * plan.slab
        slices = None if plan.scans else range(start, min(start + plan.slab, run.slices.stop))
        said: set[str] = set()
        heard = _Heard()
        (block,) = denoise_slabs(
            StackSource(opened.volume, key.channel, key.time),
            opened.model.network,
            plan,
            slices=slices,
            want_noise="noise" in opened.writers,
            want_units="units" in opened.writers,
            progress=heard,
            said=said,
        )
        used = {name: getattr(block.plan, name) for name in USED}
        if any(used[name] != getattr(plan, name) for name in USED):
            opened.settled = used
        if not is_wanted(Path(run.folder), run.record, key):
            # Never a silent return: whoever did wait would count the block as written.
            raise RuntimeError(
                f"{run.folder} does not wait for this block any more: another worker has written "
                "it, or the run is over. If it is not, run the same command again to go on."
            )
        start = block.start - run.slices.start
        write_block(opened.writers, block, start, key.channel, key.time)
    if used["device"] == device:
        used["device"] = planned.device  # whichever of equal devices it was
    return BlockDone(key, used, heard.by_sentence(said))


def plan_here(run: Run, settings: DenoiseSettings) -> tuple[Plan, ...]:
    """Resolve the settings for this machine; see :func:`channel_plans`."""
    with _here(), open_volume(_source(run.origin), z_axis=run.origin.z_axis) as volume:
        kinds = [output.kind for output in run.outputs]
        return channel_plans(
            volume, load_model(run.model), settings, run.slices, kinds, run.workers
        )


def _open(run: Run) -> _Opened:
    """Return what is open for this run; close what was open for another one."""
    if not _opened or _opened[0].name != run.name:
        _close()
        _opened.append(_Opened(run))
    return _opened[0]


def _close() -> None:
    while _opened:
        _opened.pop().files.close()


def close_run(name: str) -> None:
    """Close what is open for a run that has ended, unless a block of it is still computed.

    The next run closes it then: Dask must not wait here, where a worker answers its scheduler.
    """
    if _turn.acquire(blocking=False):
        try:
            if _opened and _opened[0].name == name:
                _close()
        finally:
            _turn.release()


def _source(origin: Origin) -> Any:
    """Return what :func:`open_volume` takes."""
    return origin.source if isinstance(origin.source, str) else list(origin.source)


@contextmanager
def _here() -> Iterator[None]:
    """Say which machine does not see a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The worker {distributed.get_worker().address} cannot find a file ({error}): input "
            "and output must lie on a disk that all workers see under the same name."
        ) from error


class _Heard(NoProgress):
    """Keeps what a block has to say."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        """Keep the sentence."""
        self.texts.append(text)

    def by_sentence(self, said: set[str]) -> tuple[tuple[str, str], ...]:
        """Return every text with the sentence that it begins with; places differ by block."""
        return tuple(
            (next((known for known in said if text.startswith(known)), text), text)
            for text in self.texts
        )
