"""Measuring denoisers alike: clean slices, their noisy forms, and the scores of every method.

A method is a :class:`Candidate`: it gets the same three noisy slices as all others and returns
one.  This module must never know how a method came to its settings, and never leave out a slice
or a level because of how it looks.

Source: nrrn.md of the method, "Training in the paper": the synthetic noise of the tests is
clipped to [0, 1].
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .intensity import ArraySource, Source, grey_range
from .metrics import PAPER_WINDOW, psnr, ssim
from .noise import add_noise
from .progress import Cancelled, Progress

__all__ = [
    "METHOD_VERSION",
    "Candidate",
    "CleanSlices",
    "Image",
    "Level",
    "Row",
    "Steps",
    "score",
]

METHOD_VERSION = 2
"""Raised whenever noise, filters or scores give other numbers than before: what an older version
of the package measured and kept is then measured again."""

Image = NDArray[np.float32]


class Level(NamedTuple):
    """One noise level of the table."""

    kind: str
    """``"poisson"`` or ``"gaussian"``."""
    value: float
    """Peak, or sigma in grey levels of 255."""

    @property
    def label(self) -> str:
        """Like "Poisson 8"."""
        return f"{self.kind.capitalize()} {self.value:g}"

    @property
    def noise(self) -> dict[str, float]:
        """Keyword of :func:`nrrn_fiji.noise.add_noise` and of the grey correction."""
        return {{"poisson": "peak", "gaussian": "sigma"}[self.kind]: self.value}

    def rng(self, seed: int, index: int) -> np.random.Generator:
        """Return the generator of one slice's noise: it depends on seed, level and slice alone.

        So a slice carries the same noise whether it is denoised or serves as a neighbour, and
        whatever else is asked for.
        """
        kind = ("poisson", "gaussian").index(self.kind)
        return np.random.default_rng([seed, kind, round(self.value * 1000), index])


class CleanSlices:
    """Some slices of a clean stack on [0, 1], and their noisy forms; read when they are needed.

    Parameters
    ----------
    source
        Array (Z, Y, X), or a stack that is read slice by slice.  Its grey range, as in denoising,
        maps to [0, 1]; values outside are clipped, because the truth must lie in the range that
        noisy slices and estimates are clipped to.
    indices
        0-based numbers of the slices that matter.
    seed
        Seed of the noise.
    name
        What to call the stack in messages.

    Raises
    ------
    ValueError
        If the source is no stack, or an index lies outside.
    TypeError
        If the type of its pixels cannot be denoised.
    """

    def __init__(
        self, source: NDArray[Any] | Source, indices: Sequence[int], seed: int, *, name: str
    ):
        if len(source.shape) != 3:
            raise ValueError(
                f"{name} has the shape {tuple(source.shape)}, but the study needs a stack "
                "(Z, Y, X): give one channel and one time point."
            )
        self.source = ArraySource(source) if isinstance(source, np.ndarray) else source
        self.depth = self.source.shape[0]
        if not indices or not all(0 <= index < self.depth for index in indices):
            raise ValueError(
                f"The slices of {name} are {', '.join(map(str, indices)) or 'none'}, but it has "
                f"slices 0 … {self.depth - 1}: choose one or more of these."
            )
        self.indices, self.seed, self.name = tuple(indices), seed, name
        self.range = grey_range(self.source)
        if self.range.constant:
            raise ValueError(f"{name} is constant, so there is nothing to measure: check the file.")

    def neighbours(self, index: int) -> tuple[int, int, int]:
        """Return the slices (j - 1, j, j + 1), mirrored at the ends of the stack."""
        if self.depth == 1:
            return index, index, index
        before = index - 1 if index > 0 else 1
        after = index + 1 if index < self.depth - 1 else index - 1
        return before, index, after

    def clean(self, index: int) -> Image:
        """Return a slice (Y, X), float32 on [0, 1]."""
        values = self.source.read(index, index + 1)[0].astype(np.float64)
        mapped = (values - self.range.low) / (self.range.high - self.range.low)
        return np.clip(mapped, 0, 1).astype(np.float32)

    def noisy(self, index: int, level: Level) -> Image:
        """Return a slice with noise, clipped to [0, 1] as a detector does."""
        rng = level.rng(self.seed, index)
        return add_noise(self.clean(index), **level.noise, rng=rng, clip=True)

    def triplet(self, index: int, level: Level) -> Image:
        """Return the noisy slices (j - 1, j, j + 1), (3, Y, X)."""
        return np.stack([self.noisy(i, level) for i in self.neighbours(index)])

    def fingerprint(self) -> str:
        """Return a digest of everything that decides the noisy slices of a level."""
        digest = hashlib.sha256(repr([self.indices, self.seed]).encode())
        for index in sorted({j for i in self.indices for j in self.neighbours(i)}):
            digest.update(self.clean(index).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Candidate:
    """One method at one noise level."""

    method: str
    """Key in files: "input", "mean", "gaussian", "median", "nlm", "nrrn"."""
    label: str
    """Name in tables."""
    images: int
    """How many of the three images it uses."""
    denoise: Callable[[Image], Image]
    """Noisy slices (3, Y, X) -> estimate (Y, X), grey values on [0, 1]."""
    corrected: bool = False
    """Whether the expected effect of clipping was undone on the estimate."""
    setting: dict[str, float] | None = None
    """What was tuned."""


@dataclass(frozen=True)
class Row:
    """What one method scored at one level; one value per slice."""

    level: Level
    method: str
    label: str
    images: int
    corrected: bool
    setting: dict[str, float] | None
    scores: dict[str, list[float]]
    """"psnr" in dB, "ssim" (window 7) and, where the slices are large enough, "ssim127"."""

    @property
    def key(self) -> tuple[str, int, bool]:
        """What makes rows of different levels the same line of the table."""
        return self.method, self.images, self.corrected

    def mean(self, metric: str) -> float:
        """Return the mean over the slices."""
        return statistics.fmean(self.scores[metric])

    def sd(self, metric: str) -> float:
        """Return the standard deviation over the slices (n - 1), 0 for a single slice."""
        values = self.scores[metric]
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types; :meth:`from_dict` reads it back."""
        return {
            "level": list(self.level),
            "method": self.method,
            "label": self.label,
            "images": self.images,
            "corrected": self.corrected,
            "setting": self.setting,
            "scores": self.scores,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Row:
        """Return the row that :meth:`as_dict` described."""
        return cls(**{**data, "level": Level(*data["level"])})


class Steps:
    """Counts pieces of work for a progress object; stops when asked to, saying what is kept."""

    def __init__(self, progress: Progress, total: int, kept: str):
        self.progress, self.total, self.kept, self.done = progress, total, kept, 0

    def next(self, text: str) -> None:
        """Report one more piece of work that is finished."""
        self.done += 1
        self.progress.update(self.done, self.total, text)
        if self.progress.cancelled:
            raise Cancelled(f"The study was stopped; {self.kept}.")

    def skip(self, count: int) -> None:
        """Count pieces of work that were finished earlier."""
        self.done += count


def score(
    candidates: Sequence[Candidate],
    scored: CleanSlices,
    level: Level,
    steps: Steps | None = None,
) -> list[Row]:
    """Return a row for every candidate: each sees the same noisy slices.

    Parameters
    ----------
    candidates
        The methods, tuned for this level.
    scored
        The volume and the slices to score.
    level
        The noise level.
    steps
        Told of every slice.
    """
    results: list[dict[str, list[float]]] = [{} for _ in candidates]
    for index in scored.indices:
        clean, triplet = scored.clean(index), scored.triplet(index, level)
        for candidate, scores in zip(candidates, results, strict=True):
            estimate = candidate.denoise(triplet)
            scores.setdefault("psnr", []).append(psnr(clean, estimate))
            scores.setdefault("ssim", []).append(ssim(clean, estimate))
            if min(clean.shape) >= PAPER_WINDOW:
                scores.setdefault(f"ssim{PAPER_WINDOW}", []).append(
                    ssim(clean, estimate, PAPER_WINDOW)
                )
        if steps:
            steps.next(f"{level.label}: slice {index}")
    return [
        Row(level, c.method, c.label, c.images, c.corrected, c.setting, scores)
        for c, scores in zip(candidates, results, strict=True)
    ]
