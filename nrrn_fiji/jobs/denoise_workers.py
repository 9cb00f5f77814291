"""The part of a denoising run that other processes compute, as the run sees it.

Workers write their blocks; here they are dealt out, and marked as finished when they are on disk:
so a worker that dies loses one block, and a run that ends, for whatever reason, goes on with the
same command.  This module must never import dask: it is given whoever computes.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from ..models import save_model
from ..outputs.journal import BlockKey
from ..outputs.partial import PartialOutput
from ..plan import MOST_CPU_MEMORY, Plan
from ..progress import Progress
from ..volumes import VolumeWriter
from .denoise_block import USED
from .denoise_checks import several_devices
from .denoise_job import DenoiseJob

if TYPE_CHECKING:
    from .cluster import Crew
    from .cluster_blocks import BlockDone, Run

__all__ = ["compute_by", "crew_for", "planned_by"]

SHARED_MEMORY = 0.5
"""Fraction of the free memory that workers on one machine divide among them."""


@contextmanager
def crew_for(
    job: DenoiseJob, dask: str | None, workers: int | None, progress: Progress
) -> Iterator[Crew | None]:
    """Assemble the workers that were asked for, if any."""
    devices = several_devices(job.settings.device)
    if dask is None and workers is None and not devices:
        yield None
        return
    if job.volume.origin is None:
        raise ValueError(
            f"{job.volume.name} is an array in memory, but workers read from files: save it first, "
            "or leave dask, workers and lists of devices out."
        )
    try:
        from .cluster import assembled
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise ImportError(
            "dask, workers and lists of devices need dask.distributed, which is not installed: "
            "pip install 'nrrn-fiji[cluster]'."
        ) from error

    with assembled(dask, workers, devices, progress) as crew:
        yield crew


def planned_by(crew: Crew, job: DenoiseJob, part: PartialOutput) -> tuple[Plan, ...]:
    """Let a worker resolve the settings, because its machine is the one that computes."""
    from .cluster_blocks import plan_here

    settings = job.to_plan
    if crew.local and settings.memory is None:
        share = int(psutil.virtual_memory().available * SHARED_MEMORY / crew.size)
        if share < MOST_CPU_MEMORY:
            settings = dataclasses.replace(settings, memory=f"{share // 10**6}MB")
    return crew.call(plan_here, _run(crew, job, part), settings)


def compute_by(
    crew: Crew,
    job: DenoiseJob,
    part: PartialOutput,
    writers: Mapping[str, VolumeWriter],
    progress: Progress,
) -> None:
    """Let workers denoise and write every block that is not finished.

    Parameters
    ----------
    crew
        Who computes.
    job
        What is denoised; its plans are made.
    part
        Where it is written; the files are laid out.
    writers
        Of these files, by kind.
    progress
        Is told of every finished block, and asked whether to stop.

    Raises
    ------
    ValueError
        If two blocks would share a chunk of an output.
    """
    parts, depth = job.parts(), job.plans[0].slab
    for writer in writers.values():
        if len(parts) > 1 and depth % writer.depth_multiple:
            raise ValueError(
                f"slab is {depth}, but {writer.path.name} is written in chunks of "
                f"{writer.depth_multiple} slices, which workers must not share: choose a multiple "
                "of that."
            )
    todo = [
        key
        for time, channel in job.passes()
        for key in (BlockKey(time, channel, slab) for slab in range(len(parts)))
        if key not in part.finished
    ]
    said: set[str] = set()
    finished = job.count(part.finished)
    progress.update(finished, job.total)
    for done in crew.blocks(_run(crew, job, part), todo):
        for sentence, text in done.said:
            if sentence not in said:
                said.add(sentence)
                progress.message(text)
        _note(job, part, done)
        part.mark(done.key)
        finished += len(parts[done.key.slab])
        progress.update(finished, job.total)


def _note(job: DenoiseJob, part: PartialOutput, done: BlockDone) -> None:
    """Remember with what a block was computed, if not as planned."""
    key, plan = done.key, job.plans[done.key.channel]
    if all(done.used[name] == getattr(plan, name) for name in USED):
        return
    slices = job.parts()[key.slab]
    place: dict[str, Any] = {"time": key.time, "channel": key.channel}
    job.went_on.append({**place, "slice": slices.start, "stop": slices.stop, **done.used})
    part.remember({"went_on_with": job.went_on})


def _run(crew: Crew, job: DenoiseJob, part: PartialOutput) -> Run:
    """Say what workers need to know, and leave them the model."""
    from .cluster_blocks import OutputPlace, Run

    assert job.volume.origin is not None
    model = part.for_workers() / "model.safetensors"
    if not model.exists():
        save_model(model, job.model.network, job.model.card)
    return Run(
        name=uuid.uuid4().hex[:12],
        origin=job.volume.origin,
        model=os.path.abspath(model),
        outputs=tuple(
            OutputPlace(
                kind, str(part.path(kind).absolute()), job.shape(kind), job.dtype(kind).name
            )
            for kind in job.targets
        ),
        folder=os.path.abspath(part.folder),
        record=part.run if part.begun else "",
        slices=job.written,
        devices=crew.devices,
        workers=crew.size,
        plans=job.plans,
    )
