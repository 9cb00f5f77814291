"""Add synthetic noise to an image file, slice by slice, so that tests and examples need no tricks.

The noise of a slice depends on the seed and the slice's place alone, so any part of a stack gets
the same noise as the whole.  This module must never hold more than one slice.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..intensity import grey_range, to_unit
from ..noise import add_noise
from ..outputs.partial import BlockKey, PartialOutput
from ..progress import Cancelled, NoProgress, Progress
from ..reports import counted
from ..settings import NoiseSettings
from ..volumes import (
    StackSource,
    Volume,
    create_volume,
    open_volume,
    reopen_volume,
)
from .denoise_checks import check_outputs

__all__ = ["NoiseReport", "add_noise_file", "check_noise", "noise_spans", "noisy_slice"]


@dataclass(frozen=True)
class NoiseReport:
    """What was written; see :class:`nrrn_fiji.reports.Reportable`."""

    image: Path
    slices: int
    settings: NoiseSettings

    @property
    def summary(self) -> str:
        """What was done and where the result is."""
        kinds = [
            f"{name} {value:g}"
            for name, value in (
                ("Poisson noise of peak", self.settings.poisson),
                ("Gaussian noise of sigma", self.settings.gaussian),
            )
            if value is not None
        ]
        return f"{self.image}: {counted(self.slices, 'slice')} with {' and '.join(kinds)}."

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON's types."""
        return {
            "image": str(self.image),
            "slices": self.slices,
            "settings": asdict(self.settings),
        }


def add_noise_file(
    source: str | Path | NDArray[Any],
    out: str | Path,
    settings: NoiseSettings,
    *,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
) -> NoiseReport:
    """Write ``source`` with noise, of the same type and with the same metadata, to ``out``.

    Parameters
    ----------
    source
        An image as :func:`nrrn_fiji.open_volume` takes it.
    out
        The file or folder to write.
    settings
        Which noise.
    overwrite
        Replace a finished output.
    restart
        Begin anew, and drop what an interrupted run left.
    progress
        Told how far it is, and asked whether to stop.

    Raises
    ------
    ValueError, TypeError, OSError
        If no noise is asked for, or input or output cannot be used; each with one sentence.
    Cancelled
        If the user stopped; the message says what is kept.
    """
    check_noise(settings)
    progress = progress or NoProgress()
    out = Path(out)
    check_outputs(source, {"image": out})
    with open_volume(source) as volume:
        for note in volume.notes:
            progress.message(note)
        shape = volume.shape
        spans = noise_spans(volume, settings)
        request = {
            "input image": volume.fingerprint(),
            "package version": __version__,
            **asdict(settings),
        }
        planes = [(t, c, z) for t in range(shape.t) for c in range(shape.c) for z in range(shape.z)]
        with PartialOutput({"image": out}, overwrite=overwrite, restart=restart) as part:
            with part.kept_said():
                goes_on = part.goes_on(request)
            if not part.complete:
                with part.kept_said(), ExitStack() as files:
                    if goes_on:
                        writer = reopen_volume(part.path("image"), volume)
                    else:
                        part.check_space(len(planes) * shape.y * shape.x * volume.dtype.itemsize)
                        part.make_folders()
                        about = provenance(volume.name, settings)
                        writer = create_volume(part.path("image"), volume, provenance=about)
                    files.enter_context(writer)
                    if not goes_on:
                        part.begin(request, {})
                    for number, (t, c, z) in enumerate(planes):
                        if BlockKey(t, c, z) in part.finished:
                            continue
                        if progress.cancelled:
                            again = " Run the same command again to go on." if part.finished else ""
                            raise Cancelled(f"Stopped: {part.kept()}{again}")
                        noisy = noisy_slice(volume, (t, c, z), spans[c], settings)
                        writer.write(z, noisy, channel=c, time=t)
                        writer.flush()
                        part.mark(BlockKey(t, c, z))
                        progress.update(number + 1, len(planes))
                    writer.finish(progress)
            with part.kept_said():
                part.finish()
    return NoiseReport(out, len(planes), settings)


def check_noise(settings: NoiseSettings) -> None:
    """Refuse settings that ask for no noise at all."""
    if settings.poisson is None and settings.gaussian is None:
        raise ValueError(
            "No noise was asked for: give poisson (a peak, such as 8), gaussian (a sigma, such as "
            "25), or both."
        )


def noise_spans(volume: Volume, settings: NoiseSettings) -> list[tuple[float, float]]:
    """Return the grey values that count as 0 and 1, per channel.

    Raises
    ------
    ValueError
        If a channel has one grey value only.
    """
    spans = []
    for c in range(volume.shape.c):
        sources = [StackSource(volume, c, t) for t in range(volume.shape.t)]
        span = grey_range(*sources, asked=settings.intensity)
        if span.constant:
            raise ValueError(
                f"{volume.name} has the same grey value {span.low:g} everywhere, which gives "
                "noise no scale: give intensity=LO,HI."
            )
        spans.append((span.low, span.high))
    return spans


def noisy_slice(
    volume: Volume, place: tuple[int, int, int], span: tuple[float, float], settings: NoiseSettings
) -> NDArray[Any]:
    """Return the slice at (time, channel, slice) with its noise, (1, Y, X) of the same type."""
    t, c, z = place
    image = volume.read(z, z + 1, channel=c, time=t)
    return with_noise(image, span, settings, np.random.default_rng([settings.seed, *place]))


def with_noise(
    image: NDArray[Any],
    span: tuple[float, float],
    settings: NoiseSettings,
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Return an image with noise, of the same type; NaN and infinite values stay as they are."""
    valid = np.isfinite(image)
    noisy = add_noise(
        to_unit(np.where(valid, image, span[0]), span),
        peak=settings.poisson,
        sigma=settings.gaussian,
        rng=rng,
        clip=settings.clipped,
    )
    low, high = span
    values = low + (high - low) * noisy.astype(np.float64)
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.where(valid, values.astype(image.dtype), image)


def provenance(name: str, settings: NoiseSettings) -> dict[str, Any]:
    """Return what is recorded in the output."""
    return {
        "program": "nrrn-fiji",
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "add-noise",
        "content": "input with synthetic noise",
        "input": name,
        "settings": asdict(settings),
    }
