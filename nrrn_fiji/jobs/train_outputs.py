"""What a training leaves: its report, and the files beside its model.

This module must never train, nor write anything but what it is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrrn_fiji.files import NO_SPACE, UNREACHABLE
from nrrn_fiji.models import Model
from nrrn_fiji.outputs.checks import check_parent
from nrrn_fiji.outputs.locks import locked
from nrrn_fiji.reports import counted, readable_time

__all__ = ["Beside", "TrainReport", "checkpoint_told", "few_steps", "model_path", "same_file"]

FEW_STEPS = 200
"""Fewer are a fraction of what a training needs (docs/decisions/training.md); who asks for steps
knows how many, but who asks for minutes does not."""


@dataclass(frozen=True)
class TrainReport:
    """What a training did; see :class:`nrrn_fiji.reports.Reportable`."""

    model: Model
    ended: str
    """``"finished"``, ``"stopped"`` or ``"diverged"``."""
    steps: int
    best_step: int
    best_error: float | None
    """Held-out error of the best step; None if the training ended before its first validation."""
    seconds: float
    files: tuple[Path, ...]
    """The loss curve (CSV, PNG) and the sample picture."""
    silent: bool = False
    """Whether another process of the same training tells of it."""

    @property
    def model_path(self) -> Path:
        """The model file."""
        assert self.model.path is not None
        return self.model.path

    @property
    def summary(self) -> str:
        """What was done and where the result is."""
        error = (
            "not validated" if self.best_error is None else f"held-out error {self.best_error:.4g}"
        )
        lines = [
            f"Model: {self.model_path}",
            f"The best of {counted(self.steps, 'step')} is step {self.best_step} ({error}), after "
            f"{readable_time(self.seconds)} in all.",
        ]
        if self.files:
            lines.append(f"Look at {', '.join(str(file) for file in self.files)}.")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {
            "model": str(self.model_path),
            "hash": self.model.hash,
            "ended": self.ended,
            "steps": self.steps,
            "best_step": self.best_step,
            "best_error": self.best_error,
            "seconds": self.seconds,
            "files": [str(file) for file in self.files],
        }


def few_steps(steps: int, minutes: float) -> str:
    """Return a sentence if a training by the clock took few steps; empty if it took enough.

    Parameters
    ----------
    steps
        How many it took.
    minutes
        How long it was to be.
    """
    if steps >= FEW_STEPS:
        return ""
    taken = f"{counted(steps, 'step')} {'was' if steps == 1 else 'were'}"
    return (
        f"Only {taken} taken in {minutes:g} min on this machine, a fraction of what a training "
        "needs: give it more minutes, or a smaller batch or crop."
    )


@dataclass(frozen=True)
class Beside:
    """The files that a training keeps beside its model."""

    model: Path

    def named(self, suffix: str) -> Path:
        """Return ``mine<suffix>`` for the model ``mine.safetensors``."""
        return self.model.with_name(self.model.stem + suffix)

    @property
    def checkpoint(self) -> Path:
        """State of the training, to resume from."""
        return self.named(".checkpoint.safetensors")

    @property
    def losses(self) -> Path:
        """A row per step."""
        return self.named(".loss.csv")

    @property
    def curve(self) -> Path:
        """The loss curve."""
        return self.named(".loss.png")

    @property
    def sample(self) -> Path:
        """A held-out crop, denoised."""
        return self.named(".sample.png")

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse to lose an existing model or an interrupted training."""
        if resume:
            if not self.checkpoint.is_file():
                raise FileNotFoundError(
                    f"There is no checkpoint {self.checkpoint} to resume from: start without "
                    "--resume (resume=True)."
                )
            return
        if overwrite:
            return
        if self.checkpoint.exists():
            raise FileExistsError(
                f"A training of {self.model} was interrupted: continue it with --resume "
                "(resume=True), or start again with --overwrite (overwrite=True)."
            )
        if self.model.exists():
            raise FileExistsError(
                f"The model {self.model} exists: choose another name, or replace it with "
                "--overwrite (overwrite=True)."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second training out of the same files."""
        check_parent(self.model)
        with locked(
            self.named(".lock"),
            f"Another training is writing {self.model} right now: wait for it, or choose another "
            "name.",
        ):
            yield


def same_file(one: Path, other: Path) -> bool:
    """Whether both names are those of one existing file."""
    return one.exists() and other.exists() and one.samefile(other)


def model_path(out: str | Path) -> Path:
    """Return the file that a model called ``out`` is written to."""
    path = Path(out)
    if path.suffix == "":
        return path.with_suffix(".safetensors")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"The model file {path} ends in {path.suffix}, but models are .safetensors files: "
            f"write to {path.with_suffix('.safetensors').name}, say."
        )
    return path


@contextmanager
def checkpoint_told(files: Beside) -> Iterator[None]:
    """Say, where a disk is full or out of reach, that the last checkpoint is still there."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE | UNREACHABLE or not files.checkpoint.is_file():
            raise
        told = OSError(
            f"{error} The last checkpoint is kept in {files.checkpoint}: go on with --resume "
            "(resume=True)."
        )
        told.errno = error.errno
        raise told from error
