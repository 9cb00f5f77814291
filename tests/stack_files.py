"""What tests of denoising share: stacks of random grey values, a model, who watches a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from plain_engine import strong_network

from nrrn_fiji.models import Model, save_model
from nrrn_fiji.progress import NoProgress
from nrrn_fiji.volumes import open_volume


def strong_model(folder: Path) -> Model:
    """A random network in which every gate matters, saved as a model file."""
    models = folder / "models"
    models.mkdir()
    return save_model(models / "strong.safetensors", strong_network(2), {})


def noisy(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """Random grey values in a range that suits the type."""
    low, high = {"uint8": (0, 256), "int16": (-500, 900), "uint16": (1000, 9000)}.get(dtype, (0, 1))
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    return rng.integers(low, high, shape).astype(dtype)


def write(path: Path, stack: NDArray[Any], axes: str = "ZYX", **metadata: Any) -> Path:
    """Write a stack as ImageJ does; return its path."""
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": axes, **metadata})
    return path


def provenance(path: Path) -> dict[str, Any]:
    """What a result says of its making."""
    with open_volume(path) as volume:
        found = volume.provenance
    assert found is not None
    return found


class Watch(NoProgress):
    """Remembers what it is told, and cancels after so many updates."""

    def __init__(self, after: float = float("inf")):
        self.after = after
        self.seen: list[tuple[float, float]] = []
        self.said: list[str] = []

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        return len(self.seen) >= self.after

    def update(self, done: float, total: float, text: str = "") -> None:
        self.seen.append((done, total))

    def message(self, text: str) -> None:
        self.said.append(text)


class StopAt(NoProgress):
    """Stops when more than so many slices are done."""

    def __init__(self, slices: float) -> None:
        self.slices, self.done = slices, 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        self.done = done

    @property
    def cancelled(self) -> bool:  # type: ignore[override]
        return self.done > self.slices
