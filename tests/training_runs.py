"""What tests of trainings share: a small volume to learn from, and a user who stops."""

from __future__ import annotations

import numpy as np

__all__ = ["StopAfter", "wavy"]


def wavy(depth: int = 24, size: int = 40, sigma: float = 0.1, seed: int = 0) -> np.ndarray:
    """A smooth isotropic volume in 8 bits, with noise that is independent from pixel to pixel."""
    z, y, x = np.mgrid[:depth, :size, :size]
    clean = 0.5 + 0.3 * np.sin(x / 4) * np.cos(y / 5 + z / 9)
    noisy = clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)
    return np.clip(noisy * 255, 0, 255).round().astype(np.uint8)


class StopAfter:
    """A user who cancels when a number of steps is done."""

    def __init__(self, steps: int):
        self.steps = steps
        self.done = 0.0
        self.messages: list[str] = []

    def update(self, done: float, total: float, text: str = "") -> None:
        self.done = done

    def message(self, text: str) -> None:
        self.messages.append(text)

    @property
    def cancelled(self) -> bool:
        return self.done >= self.steps
