"""Opens the files of a study, and refuses what cannot be one.

This module must never let the file that is scored be tuned or trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..intensity import Source
from ..models import Model, load_model
from ..progress import NoProgress, Progress
from ..resources import data_folder
from ..scoring import Level
from ..training_data import read_stacks
from ..triplets import TrainingStack
from ..volumes import StackSource, Volume, open_volume
from .budgets import FULL, Budget
from .context import Study

__all__ = ["SliceRange", "open_study"]

EXAMPLE = "fibsem_medulla.tif"
"""Scored when no volume is given: it comes with the package."""


class SliceRange:
    """Slices ``start`` … ``stop - 1`` of a source, as a source of their own."""

    def __init__(self, source: Source, start: int, stop: int):
        self.source, self.start, self.dtype = source, start, source.dtype
        self.shape: tuple[int, int, int] = (stop - start, *source.shape[1:])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return slices ``start`` … ``stop - 1``, counted from the first of the range."""
        return self.source.read(self.start + start, self.start + stop)


@contextmanager
def open_study(
    volume: str | Path | None,
    tuning: str | Path | None,
    out: str | Path,
    *,
    train: Sequence[str | Path] = (),
    models: Sequence[Model | str | Path] = (),
    compete: bool = True,
    budget: Budget = FULL,
    slices: Sequence[int] | None = None,
    tuning_slices: Sequence[int] | None = None,
    levels: Sequence[Level] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Study]:
    """Open the files of a study.

    Parameters
    ----------
    volume
        The clean stack that is scored.  When left out, the second half of the example that comes
        with the package, and its first half takes the place of ``tuning``.
    tuning
        A clean stack for tuning the filters.
    out
        The folder for results.
    train
        Clean stacks that competitors are trained on; ``tuning`` when left out, whose last tenth,
        where filters are tuned, no training sees.
    models
        Models, names or files, the one that is measured first.
    compete
        Whether competitors are trained and take part.
    budget, slices, tuning_slices, levels, seed, device
        As in :class:`Study`.
    progress
        Told of the work.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        If a file or a setting cannot be used; the message says what is needed.
    """
    progress = progress or NoProgress()
    loaded = tuple(load_model(model) for model in models)
    with ExitStack() as files:

        def one_channel(path: str | Path) -> StackSource:
            return StackSource(check_single(files.enter_context(open_volume(path))))

        scored: Source
        other: Source
        if volume is None:
            if tuning is not None or train:
                raise ValueError(
                    "volume is missing, but there is a volume for tuning or training: name the "
                    "clean stack that is scored too, or leave out all of them for the example."
                )
            progress.message(
                f"No volume was given: the small example {EXAMPLE} is scored (its second half; "
                "tuning and training see the first). For numbers that count give VOLUME, a clean "
                "stack, and --tuning, another one."
            )
            example = one_channel(data_folder("examples") / EXAMPLE)
            half = example.shape[0] // 2
            scored = SliceRange(example, half, example.shape[0])
            other = SliceRange(example, 0, half)
            names = (f"{EXAMPLE}, second half", f"{EXAMPLE}, first half")
            if slices is None:
                # Far enough from what training and tuning saw.
                slices = range(2, scored.shape[0] - 1, 3)[: budget.slices]
        else:
            if tuning is None:
                raise ValueError(
                    "tuning is missing: filters need slices that are not scored to be tuned on. "
                    "Give --tuning, another clean stack (competitors are trained on it too, "
                    "unless --train names others)."
                )
            paths = [Path(path).resolve() for path in (tuning, *train)]
            for path in paths:
                if path == Path(volume).resolve():
                    raise ValueError(
                        f"{path} is also the volume that is scored, but filters must be tuned, "
                        "and networks trained, on other slices: give another volume."
                    )
            first, second = one_channel(volume), one_channel(tuning)
            scored, other = first, second
            names = (first.volume.name, second.volume.name)
        yield Study(
            scored,
            other,
            loaded,
            lambda: training_stacks(train, other, names[1], progress),
            compete,
            budget,
            Path(out),
            slices,
            tuning_slices,
            levels,
            seed,
            device,
            *names,
            progress,
        )


def check_single(volume: Volume) -> Volume:
    """Return a volume that has one channel and one time point, or refuse it."""
    if volume.shape.c * volume.shape.t != 1:
        raise ValueError(
            f"{volume.name} has {volume.shape.c} channels and {volume.shape.t} time points, "
            "but the study needs one of each: save the one to measure as a file of its own."
        )
    return volume


def training_stacks(
    train: Sequence[str | Path], tuning: Source, name: str, progress: Progress
) -> list[TrainingStack]:
    """Read what competitors are trained on: the files, or the tuning volume."""
    if train:
        return read_stacks(train, None, progress)
    stacks = read_stacks([tuning.read(0, tuning.shape[0])], None, progress)
    return [dataclasses.replace(stack, name=name, source=name) for stack in stacks]
