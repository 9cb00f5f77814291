"""Runs a denoising job: lays the outputs out, computes block after block, gives the final names.

Blocks are written as they are finished, so memory does not grow with the stack and a run that was
stopped goes on where it was.  This module must never decide how to denoise: that is
:mod:`nrrn_fiji.denoising`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..choices import chosen
from ..denoising import denoise_slabs
from ..outputs.partial import BlockKey, PartialOutput
from ..progress import Cancelled, Progress, ShareOfProgress
from ..stack_checks import warn
from ..volumes import StackSource, VolumeWriter, create_volume, reopen_volume
from .denoise_block import saved_plans, write_block
from .denoise_job import DenoiseJob
from .denoise_workers import compute_by, planned_by

if TYPE_CHECKING:
    from .cluster import Crew

__all__ = ["run_job"]


def run_job(
    job: DenoiseJob, crew: Crew | None, *, overwrite: bool, restart: bool, progress: Progress
) -> int:
    """Denoise everything that is not finished yet.

    Returns
    -------
    int
        How many slices an interrupted run had finished.
    """
    with PartialOutput(job.targets, overwrite=overwrite, restart=restart) as part:
        request = job.request()
        with part.kept_said():
            if part.goes_on(request):
                job.plans = saved_plans(part, here=crew is None and not part.complete)
                job.went_on = part.remembered.get("went_on_with", [])
            elif crew is not None:
                job.plans = planned_by(crew, job, part)
            else:
                job.plans = job.make_plans()
        if not part.complete:
            part.check_space(sum(map(job.size, job.targets)))
        part.make_folders()
        resumed = job.count(part.finished)
        if not part.complete:
            where = "" if crew is None else crew.described(job.plans[0].device)
            progress.message(chosen(job.model, job.plans[0], job.settings, where))
        if part.moved:
            progress.message(
                f"An earlier run had finished all {job.total} slices and could not say so."
            )
        elif part.finished:
            progress.message(
                f"Going on with an interrupted run: {resumed} of {job.total} slices are "
                "finished already."
            )
        elif not part.complete and job.settings.images > 1:
            warn(StackSource(job.volume), progress, scans=job.settings.scans)
        if not part.complete:
            job.warn_if_unlike(progress)
            if crew is None:  # the time would be that of this machine
                job.name_faster(job.total - resumed, progress)
            with part.kept_said(), ExitStack() as files:
                writers = {
                    kind: files.enter_context(_writer(job, part, kind)) for kind in job.targets
                }
                if not part.begun:
                    part.begin(request, {"channels": [plan.as_dict() for plan in job.plans]})
                try:
                    for writer in writers.values():
                        for note in writer.notes:
                            progress.message(note)
                    if crew is None:
                        _compute(job, part, writers, progress)
                    else:
                        compute_by(crew, job, part, writers, progress)
                    for writer in writers.values():
                        writer.finish(progress)
                except Cancelled as stop:
                    raise Cancelled(f"Stopped: {_what_is_kept(part)}") from stop
                except ConnectionError as lost:
                    raise ConnectionError(f"{lost} {_what_is_kept(part)}") from lost
                if job.went_on:  # the record was written before it was known
                    for kind, writer in writers.items():
                        writer.record(job.provenance(kind))
        with part.kept_said():
            part.finish()
        return resumed


def _writer(job: DenoiseJob, part: PartialOutput, kind: str) -> VolumeWriter:
    """Lay out an output, or go on with it."""
    about: dict[str, Any] = {
        "shape": job.shape(kind),
        "dtype": job.dtype(kind),
        "slices": job.written,
    }
    if part.begun:
        return reopen_volume(part.path(kind), job.volume, **about)
    names = None
    if kind == "units":
        channels = job.volume.shape.c
        names = [
            name if channels == 1 else f"channel {channel}, {name}"
            for channel in range(channels)
            for name in job.estimates
        ]
    return create_volume(
        part.path(kind),
        job.volume,
        **about,
        slab=job.plans[0].slab,
        same_values=kind != "noise",
        channel_names=names,
        provenance=job.provenance(kind),
    )


def _compute(
    job: DenoiseJob, part: PartialOutput, writers: dict[str, VolumeWriter], progress: Progress
) -> None:
    """Denoise and write block after block."""
    parts = job.parts()
    first, depth = job.written.start, job.plans[0].slab
    many = job.volume.shape.t * job.volume.shape.c > 1
    said: set[str] = set()
    before = 0
    for time_point, channel in job.passes():
        done = {
            key.slab for key in part.finished if (key.time, key.channel) == (time_point, channel)
        }
        if len(done) < len(parts):
            text = f"time point {time_point}, channel {channel}" if many else ""
            skipped = sum(len(parts[slab]) for slab in done)
            for block in denoise_slabs(
                StackSource(job.volume, channel, time_point),
                job.model.network,
                job.plan_now(channel),
                slices=job.slices,
                done=done,
                want_noise="noise" in writers,
                want_units="units" in writers,
                progress=ShareOfProgress(progress, before + skipped, job.total, text),
                said=said,
            ):
                if job.note(block, channel, time_point):
                    part.remember({"went_on_with": job.went_on})
                write_block(writers, block, block.start - first, channel, time_point)
                part.mark(BlockKey(time_point, channel, (block.start - first) // depth))
        before += len(job.written)
    progress.update(job.total, job.total)


def _what_is_kept(part: PartialOutput) -> str:
    """Say what an interruption leaves, and what to do."""
    if part.finished:
        return f"{part.kept()} Run the same command again to go on."
    return f"{part.kept()} A smaller slab loses less."
