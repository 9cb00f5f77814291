"""How much work a study is: every number that trades time for certainty, in one place.

This module must never know what is measured, only how often and how long.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..scoring import Level
from .levels import LEVELS, MOST_SLICES

__all__ = ["FULL", "HOUR", "QUICK", "Budget"]


@dataclass(frozen=True)
class Budget:
    """The work of a study."""

    name: str
    levels: tuple[Level, ...]
    """Noise levels of Table 2."""
    slices: int
    """Most slices that are scored."""
    tile_slices: int | None
    """Most slices whose tiles are scored; None: all."""
    contenders: tuple[str, ...]
    """Keys of the competitors that are trained (:data:`nrrn_fiji.baselines.trained.CONTENDERS`)."""
    minutes: float | None
    """Training time of each competitor; by ``steps`` when None."""
    steps: int | None
    """Steps of each competitor; by the clock when None."""
    size: tuple[int, int] | None
    """Units and maps of NRRNs among the competitors; as for every training when None."""
    slow_filters: str
    """At which levels BM3D, which takes seconds per slice, takes part where it is installed:
    ``"always"``, at that of ``"table1"``, or ``"never"``."""
    orientations: int
    """How many orientations of the slices the model is averaged over beside the usual one, in the
    tables of scores; 1: not at all."""
    thin: int
    """Every which setting of the filters' grids is tried."""
    transfer_steps: int
    """Steps of fine-tuning, and of training afresh, on a small volume."""
    transfer_contenders: tuple[str, ...]
    """Competitors that are trained on the small volume too."""
    alone_levels: int
    """At how many noise levels networks learn from the noisy stack alone."""
    inherited_steps: int
    """Steps of each network that is trained towards simulated scans."""
    units: int
    maps: int
    """Size of these networks."""

    @property
    def length(self) -> str:
        """How long each competitor is trained, in words."""
        return f"{self.steps} steps" if self.minutes is None else f"{self.minutes:g} min"


FULL = Budget(
    name="full",
    levels=LEVELS,
    slices=MOST_SLICES,
    tile_slices=None,
    contenders=(
        *("nrrn", "nrrn-n2n"),
        *("unet-single", "unet-mean", "unet-three", "unet-n2n"),
        *("denoisenet-single", "denoisenet-mean", "denoisenet-three", "denoisenet-n2n"),
    ),
    minutes=20,
    steps=None,
    size=None,
    slow_filters="always",
    orientations=8,
    thin=1,
    transfer_steps=1000,
    transfer_contenders=("unet-mean", "denoisenet-three"),
    alone_levels=2,
    inherited_steps=2000,
    units=2,
    maps=16,
)
"""What an experiment uses when it is asked for by its own command: hours with competitors."""

HOUR = Budget(
    name="hour",
    levels=LEVELS,
    slices=3,
    tile_slices=8,
    contenders=("nrrn", "unet-mean", "denoisenet-three"),
    minutes=3,
    steps=None,
    size=None,
    slow_filters="table1",
    orientations=1,
    thin=1,
    transfer_steps=60,
    transfer_contenders=(),
    alone_levels=1,
    inherited_steps=250,
    units=2,
    maps=12,
)
"""What ``nrrn study all`` uses: within an hour on two CPU cores."""

QUICK = Budget(
    name="quick",
    levels=(LEVELS[2], LEVELS[5]),
    slices=1,
    tile_slices=2,
    contenders=("nrrn",),
    minutes=None,
    steps=2,
    size=(1, 8),
    slow_filters="never",
    orientations=1,
    thin=12,
    transfer_steps=3,
    transfer_contenders=(),
    alone_levels=1,
    inherited_steps=3,
    units=1,
    maps=8,
)
"""For a first look, and for automatic tests: minutes, and numbers that mean nothing wherever
something is trained."""
