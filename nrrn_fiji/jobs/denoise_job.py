"""What a denoising run is about: what is asked for, what is planned, what is recorded of it.

Every channel and time point is a stack of its own; a channel has one grey-value mapping for all
its time points.  This module must never denoise a slice or write an output: running is
:mod:`.denoise_run`, and the workers' part of it :mod:`.denoise_workers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..choices import faster_model
from ..denoising import Block, Plan
from ..fitness import warn_if_unlike
from ..models import Model, load_model
from ..outputs.partial import BlockKey, PartialOutput
from ..progress import Progress
from ..settings import DenoiseSettings
from ..tiles import slabs
from ..volumes import StackSource, Volume, VolumeShape, open_volume
from .denoise_block import USED, channel_plans, saved_plans
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
from .denoise_report import CONTENTS

__all__ = ["DenoiseJob", "open_job"]


@dataclass
class DenoiseJob:
    """What was asked for, opened and checked; how it is planned, and what is recorded of it."""

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
        """Say so if a quicker model would save much of this machine's time."""
        faster = faster_model(self.model, self.plans[0], self.settings, slices)
        if faster:
            progress.message(faster)

    def look_at_outputs(self, *, overwrite: bool, restart: bool) -> tuple[int, list[str]]:
        """Take over the plan of an interrupted run that would be continued.

        Returns
        -------
        tuple
            How many slices are left to denoise, and what to tell about that and about outputs
            that are there already.
        """
        there = standing_outputs(self.targets, overwrite)
        part = PartialOutput(self.targets)
        try:
            if not part.look():
                return self.total, there
            if restart:
                return self.total, [
                    *there,
                    f"An interrupted run in {part.folder} will be dropped.",
                ]
            if part.moved and not part.journal.is_for(self.request()):
                return self.total, there
            there = standing_outputs(part.waiting, overwrite)
            part.check(self.request())
            self.plans = saved_plans(part, here=not part.complete)
        except ValueError as error:
            return self.total, [*there, str(error)]
        finished = f"An earlier run has finished all {self.total} slices"
        if part.moved:
            return 0, [f"{finished}."]
        if part.complete:
            names = " and ".join(path.name for path in part.waiting.values())
            return 0, [*there, f"{finished}; what is left is to give {names} the final name."]
        done = self.count(part.finished)
        return self.total - done, [
            *there,
            f"An interrupted run with {done} of {self.total} slices will be continued.",
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


def open_job(
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
