"""Denoise from files to files, or say what that would do.

The two functions here are the doors; behind them lie the job (:mod:`.denoise_job`), its running
(:mod:`.denoise_run`) and what they tell (:mod:`.denoise_report`).  This module must never decide
how to denoise: that is :mod:`nrrn_fiji.denoising`.
"""

from __future__ import annotations

import time
from pathlib import Path

from ..denoising import estimate_seconds
from ..formats.calibration import readable_voxel
from ..models import DEFAULT_MODEL, Model
from ..progress import NoProgress, Progress, Told
from ..settings import DenoiseSettings
from .denoise_checks import ImageSource, SliceRange
from .denoise_job import DenoiseJob, open_job
from .denoise_report import DenoiseReport, PlanReport
from .denoise_run import run_job
from .denoise_workers import crew_for

__all__ = [
    "DenoiseJob",
    "DenoiseReport",
    "PlanReport",
    "denoise_file",
    "plan_file",
]


def denoise_file(
    source: ImageSource,
    out: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    settings: DenoiseSettings | None = None,
    *,
    slices: SliceRange | None = None,
    noise_out: str | Path | None = None,
    units_out: str | Path | None = None,
    z_axis: str | None = None,
    overwrite: bool = False,
    restart: bool = False,
    dask: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DenoiseReport:
    """Denoise an image file, or folder of slices, into another one.

    The result has the bit depth and the metadata of the input, and how it was made is recorded
    in it under the name ``nrrn``.  It appears under its name when it is whole; until then the
    finished blocks are in ``OUT.partial``, and the same call goes on with them.

    Parameters
    ----------
    source
        As for :func:`nrrn_fiji.open_volume`.
    out
        A ``.tif``, ``.ome.tif``, ``.zarr``, ``.h5`` or ``.mrc`` file, or a name without suffix for
        a folder of slices.
    model
        Name, file or loaded model.
    settings
        How to denoise; the defaults when left out.
    slices
        Denoise only these slices, a range or (first, last + 1); their neighbours outside are still
        looked at.
    noise_out
        Also write input − output, float32.
    units_out
        Also write x̂[1] … x̂[L] and the final estimate as channels, float32, in grey values.
    z_axis
        Read the axis "T" or "C" as depth.
    overwrite
        Replace finished outputs of these names.
    restart
        Begin anew, and drop the blocks of an interrupted run.
    dask
        Let the workers of a Dask cluster compute: address of its scheduler ("tcp://host:8786"),
        its scheduler file (".json"), or "local" for workers on this machine.
    workers
        Compute with so many processes on this machine.
    progress
        Is told of every slice (of all channels and time points), and asked whether to stop.

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError, TypeError, OSError
        For input that cannot be denoised and outputs that cannot be written, each with one
        sentence; nothing is left behind.  On a full disk the finished blocks are kept.
    ImportError
        If workers are asked for without the package's extra "cluster".
    Cancelled
        When the user stops; the message says what is kept.
    """
    started = time.monotonic()
    told = Told(NoProgress() if progress is None else progress)
    with (
        open_job(source, out, model, settings, slices, noise_out, units_out, z_axis) as job,
        crew_for(job, dask, workers, told) as crew,
    ):
        job.volume.tell = told.message
        for note in job.volume.notes:
            told.message(note)
        resumed = run_job(job, crew, overwrite=overwrite, restart=restart, progress=told)
        return DenoiseReport(
            image=job.targets["image"],
            noise=job.targets.get("noise"),
            units=job.targets.get("units"),
            plans=job.plans,
            slices=job.total,
            resumed=resumed,
            seconds=time.monotonic() - started,
            notes=tuple(told.notes),
            went_on=tuple(job.went_on),
        )


def plan_file(
    source: ImageSource,
    out: str | Path,
    model: str | Path | Model = DEFAULT_MODEL,
    settings: DenoiseSettings | None = None,
    *,
    slices: SliceRange | None = None,
    noise_out: str | Path | None = None,
    units_out: str | Path | None = None,
    z_axis: str | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
) -> PlanReport:
    """Say what :func:`denoise_file` would do with these arguments; write nothing.

    The time is estimated by denoising one tile.  Arguments and errors are those of
    :func:`denoise_file`; outputs and interrupted runs that would be in the way are told in notes.
    """
    with open_job(source, out, model, settings, slices, noise_out, units_out, z_axis) as job:
        left, about = job.look_at_outputs(overwrite=overwrite, restart=restart)
        notes = [*job.volume.notes, *about]
        job.plans = job.plans or job.make_plans()
        said = Told(NoProgress())
        if left:
            job.warn_if_unlike(said)
            job.name_faster(left, said)
        notes += said.notes
        channels = [plan for plan in job.plans if plan.intensity[0] < plan.intensity[1]]
        seconds = 0.0
        if channels and left:
            count = None if job.slices is None else len(job.slices)
            one = estimate_seconds(job.model.network, channels[0], count)
            seconds = one * len(channels) * job.volume.shape.t * left / job.total
        return PlanReport(
            plans=job.plans,
            outputs={kind: (job.targets[kind], job.size(kind)) for kind in job.targets},
            slices=job.total,
            seconds=seconds,
            notes=tuple(notes),
            voxel=readable_voxel(job.volume.voxel_size, job.volume.voxel_unit),
        )
