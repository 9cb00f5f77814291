"""What tests of experiments share: made-up tissue, a tiny budget, finding a record."""

from __future__ import annotations

import dataclasses

import numpy as np

from nrrn_fiji.study.budgets import QUICK
from nrrn_fiji.study.parts import Part

TINY = dataclasses.replace(
    QUICK, contenders=(), thin=1, transfer_steps=2, inherited_steps=2, units=1, maps=4
)


def tissue(depth=9, edge=56, seed=0) -> np.ndarray:
    """Smooth structure that changes slowly along z, 8-bit."""
    z, y, x = np.mgrid[:depth, :edge, :edge]
    grey = 0.5 + 0.2 * np.sin((x + z) / 4 + seed) * np.cos(y / 5) + 0.15 * np.sin(y / 9 + z / 7)
    return np.round(grey * 255).astype(np.uint8)


def by_label(part: Part, **wanted) -> dict:
    """The only record with these values."""
    [record] = [r for r in part.records if all(r[k] == v for k, v in wanted.items())]
    return record
