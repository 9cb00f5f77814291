"""What a denoise job tells when it is done, and what it would do.

This module must never compute or write anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..device import choose_device, describe
from ..outputs.partial import readable_size
from ..plan import Plan
from ..reports import Table, counted, readable_time

__all__ = ["CONTENTS", "DenoiseReport", "PlanReport"]

CONTENTS = {
    "image": "denoised image",
    "noise": "removed noise, input - output",
    "units": "image after every building unit",
}
"""What each kind of output holds."""


@dataclass(frozen=True)
class DenoiseReport:
    """What a run did; see :class:`nrrn_fiji.reports.Reportable`."""

    image: Path
    """The denoised image."""
    noise: Path | None
    """What was taken away, if it was asked for."""
    units: Path | None
    """The image after every building unit, if it was asked for."""
    plans: tuple[Plan, ...]
    """How it was computed, one plan per channel."""
    slices: int
    """Slices of all channels and time points together."""
    resumed: int
    """How many of them an interrupted run had finished."""
    seconds: float
    notes: tuple[str, ...]
    """Sentences that the user was told."""
    went_on: tuple[dict[str, Any], ...] = ()
    """With what, from which slice on, where memory did not suffice for the plan."""

    @property
    def summary(self) -> str:
        """What was done and where the result is."""
        images = counted(self.slices, "slice")
        before = f", {self.resumed} of them in an earlier run" if self.resumed else ""
        lines = [f"Denoised {images} in {readable_time(self.seconds)}{before}: {self.image}"]
        if self.noise is not None:
            lines.append(f"Removed noise: {self.noise}")
        if self.units is not None:
            lines.append(f"After every building unit: {self.units}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {
            "image": str(self.image),
            "noise": None if self.noise is None else str(self.noise),
            "units": None if self.units is None else str(self.units),
            "plans": [plan.as_dict() for plan in self.plans],
            "slices": self.slices,
            "resumed": self.resumed,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "went_on_with": list(self.went_on),
        }


@dataclass(frozen=True)
class PlanReport:
    """What a run would do; see :class:`nrrn_fiji.reports.Reportable`."""

    plans: tuple[Plan, ...]
    """One per channel."""
    outputs: dict[str, tuple[Path, int]]
    """Path and bytes of each output, by kind."""
    slices: int
    """Slices of all channels and time points together."""
    seconds: float
    """Estimated time of computing, without reading and writing."""
    notes: tuple[str, ...]
    voxel: str = ""
    """Size of a voxel in words, if it is known."""

    @property
    def table(self) -> Table:
        """The plan, one row per choice."""
        plan = self.plans[0]
        spans = [f"{low:g} to {high:g}" for low, high in (p.intensity for p in self.plans)]
        if len(set(spans)) == 1:
            spans = spans[:1]
        rows = [
            ("slices", f"{self.slices} of {plan.shape[1]} × {plan.shape[2]} px, {plan.dtype}"),
            *((("voxel size", self.voxel),) * bool(self.voxel)),
            ("device", _in_words(plan.device)),
            ("precision", plan.precision),
            ("building units", str(plan.units)),
            ("images per slice", "scans" if plan.scans else str(plan.images)),
            *((("orientations", f"mean of {plan.orientations}"),) * (plan.orientations > 1)),
            *((("strength", f"{plan.strength:g}"),) * (plan.strength < 1)),
            ("grey range", "; ".join(spans)),
            ("tile", f"{plan.tile} px and a halo of {plan.halo} px"),
            ("slab", f"{plan.slab} slices" if plan.slab > 1 else "1 slice"),
            ("memory", f"{readable_size(plan.memory)} beside the program itself"),
            ("time", f"about {readable_time(self.seconds)}, and reading and writing"),
            *(
                (CONTENTS[kind].split(",")[0], f"{path} ({readable_size(size)})")
                for kind, (path, size) in self.outputs.items()
            ),
        ]
        return Table(("what", "value"), tuple(rows))

    @property
    def summary(self) -> str:
        """What the table means, and what else should be known."""
        return "\n".join([*self.notes, "Nothing was written: this is only the plan."])

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {
            "plans": [plan.as_dict() for plan in self.plans],
            "outputs": {
                kind: {"path": str(path), "bytes": size}
                for kind, (path, size) in self.outputs.items()
            },
            "slices": self.slices,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def _in_words(device: str) -> str:
    """Return the name of a device, which may be one of another machine where all is computed."""
    try:
        return describe(choose_device(device))
    except ValueError:
        return f"{device} (not of this machine)"
