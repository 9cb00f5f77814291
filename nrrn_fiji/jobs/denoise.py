"""Denoise from files to files: joins volumes, the engine, models and resumable outputs.

Every channel and time point is a stack of its own; a channel has one grey-value mapping for all
its time points.  Blocks are written as they are finished, so memory does not grow with the stack
and a run that was stopped goes on where it was.  This module must never decide how to denoise:
that is :mod:`nrrn_fiji.denoising`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..choices import chosen, faster_model
from ..denoising import Block, Plan, denoise_slabs, estimate_seconds
from ..fitness import warn_if_unlike
from ..formats.calibration import readable_voxel
from ..models import DEFAULT_MODEL, Model, load_model
from ..outputs.partial import BlockKey, PartialOutput
from ..progress import Cancelled, NoProgress, Progress, ShareOfProgress, Told
from ..settings import DenoiseSettings
from ..stack_checks import warn
from ..tiles import slabs
from ..volumes import (
    StackSource,
    Volume,
    VolumeShape,
    VolumeWriter,
    create_volume,
    open_volume,
    reopen_volume,
)
from .denoise_block import USED, channel_plans, saved_plans, write_block
from .denoise_checks import (
    ARGUMENTS,
    ImageSource,
    SliceRange,
    as_range,
    check_outputs,
    check_slices,
    several_devices,
    standing_outputs,
)
from .denoise_report import CONTENTS, DenoiseReport, PlanReport
from .denoise_workers import compute_by, crew_for, planned_by

if TYPE_CHECKING:
    from .cluster import Crew

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
        _open_job(source, out, model, settings, slices, noise_out, units_out, z_axis) as job,
        crew_for(job, dask, workers, told) as job.crew,
    ):
        job.volume.tell = told.message
        for note in job.volume.notes:
            told.message(note)
        resumed = job.run(overwrite=overwrite, restart=restart, progress=told)
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
    with _open_job(source, out, model, settings, slices, noise_out, units_out, z_axis) as job:
        notes = [*job.volume.notes, *standing_outputs(job.targets, overwrite)]
        left, about = job.look_at_interrupted(restart)
        notes += about
        job.plans = job.plans or job.make_plans()
        said = Told(NoProgress())
        job.warn_if_unlike(said)
        job.name_faster(left, said)
        notes += said.notes
        channels = [plan for plan in job.plans if plan.intensity[0] < plan.intensity[1]]
        seconds = 0.0
        if channels:
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


@dataclass
class DenoiseJob:
    """What was asked for, opened and checked."""

    volume: Volume
    model: Model
    settings: DenoiseSettings
    slices: range | None
    targets: dict[str, Path]
    plans: tuple[Plan, ...] = ()
    went_on: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """With what, from which slice on, where memory did not suffice for the plan; in the order in
    which it happened, and with a ``stop`` where workers computed blocks in any order."""
    settled: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What memory sufficed for, for the channels and time points that follow."""
    crew: Crew | None = None
    """Who computes, if not this process."""

    def __enter__(self) -> DenoiseJob:
        return self

    def __exit__(self, *error: object) -> None:
        self.volume.close()

    @property
    def written(self) -> range:
        """The slices of the input that the output holds."""
        if self.settings.scans:
            return range(1)
        return range(self.volume.shape.z) if self.slices is None else self.slices

    @property
    def total(self) -> int:
        """Slices of all channels and time points together."""
        return self.volume.shape.t * self.volume.shape.c * len(self.written)

    @property
    def estimates(self) -> list[str]:
        """Names of the estimates in the units output."""
        units = self.model.network.check_units(self.settings.units)
        names = [f"unit {unit}" for unit in range(1, units + 1)]
        return [*names, "final"] if units == self.model.units else names

    def shape(self, kind: str) -> VolumeShape:
        """Shape of an output."""
        shape = self.volume.shape._replace(z=len(self.written))
        return shape._replace(c=shape.c * len(self.estimates)) if kind == "units" else shape

    def dtype(self, kind: str) -> np.dtype[Any]:
        """Type of an output's pixels."""
        return self.volume.dtype if kind == "image" else np.dtype(np.float32)

    def size(self, kind: str) -> int:
        """Bytes of an output's pixels."""
        t, c, z, y, x = self.shape(kind)
        return t * c * z * y * x * self.dtype(kind).itemsize

    @property
    def to_plan(self) -> DenoiseSettings:
        """The settings with one device where several, which are alike, were asked for."""
        devices = several_devices(self.settings.device)
        if not devices:
            return self.settings
        return dataclasses.replace(self.settings, device=devices[0])

    def make_plans(self) -> tuple[Plan, ...]:
        """Measure the grey values of every channel and resolve the settings."""
        return channel_plans(self.volume, self.model, self.to_plan, self.written, self.targets)

    def plan_now(self, channel: int) -> Plan:
        """Return a channel's plan with what memory sufficed for last."""
        return dataclasses.replace(self.plans[channel], **self.settled)

    def warn_if_unlike(self, progress: Progress) -> None:
        """Say so if the stack is unlike what the model was trained on."""
        span = self.plans[0].intensity
        source = StackSource(self.volume)
        warn_if_unlike(self.model.name, self.model.card, self.volume, source, span, progress)

    def name_faster(self, slices: int, progress: Progress) -> None:
        """Say so if a quicker model would save much of the time."""
        faster = (
            ""
            if self.crew is not None
            else faster_model(self.model, self.plans[0], self.settings, slices)
        )
        if faster:
            progress.message(faster)

    def look_at_interrupted(self, restart: bool) -> tuple[int, list[str]]:
        """Take over the plan of an interrupted run that would be continued.

        Returns
        -------
        tuple
            How many slices are left to denoise, and what to tell about it.
        """
        part = PartialOutput(self.targets)
        try:
            if not part.look():
                return self.total, []
            if restart:
                return self.total, [f"An interrupted run in {part.folder} will be dropped."]
            part.check(self.request())
            self.plans = saved_plans(part)
        except ValueError as error:
            return self.total, [str(error)]
        done = self.total if part.complete else self.count(part.finished)
        return self.total - done, [
            f"An interrupted run with {done} of {self.total} slices will be continued."
        ]

    def request(self) -> dict[str, Any]:
        """What must be the same for an interrupted run to be resumed."""
        return {
            "input image": self.volume.fingerprint(),
            "model": self.model.hash,
            "package version": __version__,
            "slices": None if self.slices is None else [self.slices.start, self.slices.stop],
            **{ARGUMENTS[kind]: path.name for kind, path in self.targets.items()},
            **dataclasses.asdict(self.to_plan),
        }

    def provenance(self, kind: str) -> dict[str, Any]:
        """How an output was made, as it goes into its metadata."""
        plan = self.plans[0].as_dict()
        spans = [list(plan.intensity) for plan in self.plans]
        plan["intensity"] = spans[0] if len(spans) == 1 else spans
        changes = {"went_on_with": self.went_on} if self.went_on else {}
        return {
            "program": "nrrn-fiji",
            "version": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": "denoise",
            "content": CONTENTS[kind],
            "input": self.volume.name,
            "model": {"name": self.model.name, "hash": self.model.hash},
            "settings": self.settings.asked(),
            "slices": [self.written.start, self.written.stop],
            "plan": plan,
            **changes,
        }

    def note(self, block: Block, channel: int, time_point: int) -> bool:
        """Remember with what a block was computed; return whether that has changed."""
        used = {name: getattr(block.plan, name) for name in USED}
        last = self.went_on[-1] if self.went_on else self.plans[channel].as_dict()
        if all(used[name] == last[name] for name in USED):
            return False
        self.settled = used
        place = {"time": time_point, "channel": channel, "slice": block.start}
        self.went_on.append({**place, **used})
        return True

    def run(self, *, overwrite: bool, restart: bool, progress: Progress) -> int:
        """Denoise everything that is not finished yet.

        Returns
        -------
        int
            How many slices an interrupted run had finished.
        """
        with PartialOutput(self.targets, overwrite=overwrite, restart=restart) as part:
            request = self.request()
            with part.kept_said():
                if part.begun:
                    part.check(request)
                    self.plans = saved_plans(part, here=self.crew is None)
                    self.went_on = part.remembered.get("went_on_with", [])
                elif self.crew is not None:
                    self.plans = planned_by(self.crew, self, part)
                else:
                    self.plans = self.make_plans()
            if not part.complete:
                part.check_space(sum(map(self.size, self.targets)))
            part.make_folders()
            resumed = self.count(part.finished)
            where = "" if self.crew is None else self.crew.described(self.plans[0].device)
            progress.message(chosen(self.model, self.plans[0], self.settings, where))
            if part.finished:
                progress.message(
                    f"Going on with an interrupted run: {resumed} of {self.total} slices are "
                    "finished already."
                )
            elif not part.complete and self.settings.images > 1:
                warn(StackSource(self.volume), progress, scans=self.settings.scans)
            if not part.complete:
                self.warn_if_unlike(progress)
                if self.crew is None:  # the time would be that of this machine
                    self.name_faster(self.total - resumed, progress)
                with part.kept_said(), ExitStack() as files:
                    writers = {
                        kind: files.enter_context(self.writer(part, kind)) for kind in self.targets
                    }
                    if not part.begun:
                        part.begin(request, {"channels": [plan.as_dict() for plan in self.plans]})
                    try:
                        for writer in writers.values():
                            for note in writer.notes:
                                progress.message(note)
                        if self.crew is None:
                            self.compute(part, writers, progress)
                        else:
                            compute_by(self.crew, self, part, writers, progress)
                        for writer in writers.values():
                            writer.finish(progress)
                    except Cancelled as stop:
                        raise Cancelled(f"Stopped: {_what_is_kept(part)}") from stop
                    except ConnectionError as lost:
                        raise ConnectionError(f"{lost} {_what_is_kept(part)}") from lost
                    if self.went_on:  # the record was written before it was known
                        for kind, writer in writers.items():
                            writer.record(self.provenance(kind))
            with part.kept_said():
                part.finish()
            return resumed

    def writer(self, part: PartialOutput, kind: str) -> VolumeWriter:
        """Lay out an output, or go on with it."""
        about: dict[str, Any] = {
            "shape": self.shape(kind),
            "dtype": self.dtype(kind),
            "slices": self.written,
        }
        if part.begun:
            return reopen_volume(part.path(kind), self.volume, **about)
        names = None
        if kind == "units":
            channels = self.volume.shape.c
            names = [
                name if channels == 1 else f"channel {channel}, {name}"
                for channel in range(channels)
                for name in self.estimates
            ]
        return create_volume(
            part.path(kind),
            self.volume,
            **about,
            slab=self.plans[0].slab,
            same_values=kind != "noise",
            channel_names=names,
            provenance=self.provenance(kind),
        )

    def passes(self) -> Iterator[tuple[int, int]]:
        """Every (time, channel), in the order in which they are denoised."""
        for time_point in range(self.volume.shape.t):
            for channel in range(self.volume.shape.c):
                yield time_point, channel

    def parts(self) -> list[range]:
        """The slabs of one channel and time point."""
        if self.settings.scans:
            return [range(1)]
        return list(slabs(self.written, self.plans[0].slab))

    def count(self, finished: set[BlockKey]) -> int:
        """How many slices these blocks hold."""
        parts = self.parts()
        return sum(len(parts[key.slab]) for key in finished if key.slab < len(parts))

    def compute(
        self, part: PartialOutput, writers: dict[str, VolumeWriter], progress: Progress
    ) -> None:
        """Denoise and write block after block."""
        parts = self.parts()
        first, depth = self.written.start, self.plans[0].slab
        many = self.volume.shape.t * self.volume.shape.c > 1
        said: set[str] = set()
        before = 0
        for time_point, channel in self.passes():
            done = {
                key.slab
                for key in part.finished
                if (key.time, key.channel) == (time_point, channel)
            }
            if len(done) < len(parts):
                text = f"time point {time_point}, channel {channel}" if many else ""
                skipped = sum(len(parts[slab]) for slab in done)
                for block in denoise_slabs(
                    StackSource(self.volume, channel, time_point),
                    self.model.network,
                    self.plan_now(channel),
                    slices=self.slices,
                    done=done,
                    want_noise="noise" in writers,
                    want_units="units" in writers,
                    progress=ShareOfProgress(progress, before + skipped, self.total, text),
                    said=said,
                ):
                    if self.note(block, channel, time_point):
                        part.remember({"went_on_with": self.went_on})
                    write_block(writers, block, block.start - first, channel, time_point)
                    part.mark(BlockKey(time_point, channel, (block.start - first) // depth))
            before += len(self.written)
        progress.update(self.total, self.total)


def _what_is_kept(part: PartialOutput) -> str:
    """Say what an interruption leaves, and what to do."""
    if part.finished:
        return f"{part.kept()} Run the same command again to go on."
    return f"{part.kept()} A smaller slab loses less."


def _open_job(
    source: ImageSource,
    out: str | Path,
    model: str | Path | Model,
    settings: DenoiseSettings | None,
    slices: SliceRange | None,
    noise_out: str | Path | None,
    units_out: str | Path | None,
    z_axis: str | None,
) -> DenoiseJob:
    """Open and check everything that can be checked before anything is written."""
    settings = DenoiseSettings() if settings is None else settings
    asked = {"image": out, "noise": noise_out, "units": units_out}
    targets = {kind: Path(path) for kind, path in asked.items() if path is not None}
    chosen = as_range(slices)
    loaded = load_model(model)
    loaded.network.check_units(settings.units)
    volume = open_volume(source, z_axis=z_axis)
    try:
        check_outputs(source, targets)
        check_slices(chosen, settings, volume)
    except BaseException:
        volume.close()
        raise
    return DenoiseJob(volume, loaded, settings, chosen, targets)
