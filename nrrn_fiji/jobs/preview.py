"""``nrrn preview``: a few places of a stack under several settings, to choose by looking.

What is shown of a place is what denoising the whole stack would give there.  This module must
never denoise more than these places, nor say which choice is best: that is for eyes.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..denoising import denoise_slabs, estimate_seconds, make_plan
from ..files import beside
from ..fitness import warn_if_unlike
from ..intensity import ArraySource, grey_range, to_unit
from ..models import Model, known_models, load_model
from ..network import receptive_radius
from ..noise_statistics import noise_level
from ..outputs.checks import checked_output
from ..progress import Cancelled, NoProgress, Progress
from ..reports import Report, Table, counted, readable_number, readable_time
from ..settings import DenoiseSettings, PreviewSettings, TrainSettings
from ..training_facts import units_were_added
from ..volumes import StackSource, Volume, open_volume
from .preview_places import Place, choose_places
from .preview_sheet import Row, draw_sheet

__all__ = ["Choice", "preview_file"]

Array = NDArray[Any]

SMALLEST, LARGEST = 48, 160
"""Edges of places whose size is chosen, in pixels."""
PALEST, DARKEST = 0.5, 99.5
"""Percentiles of the denoised crops that are shown black and white."""
BEYOND = 0.15
"""How far beyond them, as a share of their distance."""


@dataclass(frozen=True)
class Choice:
    """A model and how it is used."""

    model: Model
    units: int | None = None
    strength: float = 1.0
    group: int = 0

    def command(self, source: str) -> str:
        """Return the command line for the whole stack."""
        words = ["nrrn", "denoise", source, "-m", self.called]
        if self.units is not None:
            words += ["--units", str(self.units)]
        if self.strength < 1:
            words += ["--strength", f"{self.strength:g}"]
        return shlex.join(words)

    @property
    def called(self) -> str:
        """The model's name, or its file where it cannot be had by name."""
        path = self.model.path
        known = path is None or (path.stem == self.model.name and self.model.name in names())
        return self.model.name if known else str(path)


def names() -> set[str]:
    """Return the names of the models that can be had by name."""
    return {entry.name for entry in known_models() if not entry.problem}


def preview_file(
    source: str | Path | Volume,
    out: str | Path | None = None,
    settings: PreviewSettings | None = None,
    *,
    model: Sequence[str | Path | Model] = (),
    channel: int = 0,
    z_axis: str | None = None,
    overwrite: bool = False,
    command: Callable[[Choice], str] | None = None,
    first_slice: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Draw a few crops of a stack under several settings, as one picture.

    Parameters
    ----------
    source
        A stack, as for :func:`nrrn_fiji.open_volume`, or an opened volume, which stays open.
    out
        The PNG file; ``NAME-preview.png`` beside the stack when left out.  A volume needs it.
    settings
        What to compare; the defaults when left out.
    model
        Models to show beside the shipped ones: names, files or loaded models.
    channel
        Which channel is looked at, from 0.
    z_axis
        Read the axis "T" or "C" as depth.
    overwrite
        Replace an existing picture, and a model that was fine-tuned for it.
    command
        Returns what is written beneath a choice; its command line when left out.
    first_slice
        The number of the first slice, for those who look: ImageJ counts from 1.
    progress
        Is told of every choice, and asked whether to stop.

    Returns
    -------
    Report
        With a table of the choices and their command lines.

    Raises
    ------
    ValueError, TypeError, OSError
        If the stack or a model cannot be used, or the picture cannot be written.
    Cancelled
        When the user stops; nothing is written then.
    """
    settings = PreviewSettings() if settings is None else settings
    progress = NoProgress() if progress is None else progress
    given = None if isinstance(source, Volume) else source
    if out is None and given is not None:
        out = beside(Path(given), "-preview.png")
    target = checked_output(out, [given], (".png",), overwrite)
    if target is None:
        raise ValueError("out is missing, but a volume in memory has no place for a picture.")
    strengths = parse_strengths(settings.strengths)
    with (
        nullcontext(source)
        if isinstance(source, Volume)
        else open_volume(source, z_axis=z_axis) as volume
    ):
        if not 0 <= channel < volume.shape.c:
            raise ValueError(
                f"channel is {channel}, but {volume.name} has {volume.shape.c}: choose "
                f"0 … {volume.shape.c - 1}."
            )
        stack = StackSource(volume, channel)
        span = grey_range(stack, asked=settings.intensity)
        if span.constant:
            raise ValueError(
                f"{volume.name} has the same grey value {span.low:g} everywhere, so there is "
                "nothing to see: give another stack."
            )
        scale = (span.low, span.high)
        models = shown_models(model)
        for loaded in models:
            warn_if_unlike(
                loaded.name, loaded.card, volume, stack, scale, progress, previewing=True
            )
        if settings.fine_tune_minutes is not None:
            models.append(
                fine_tuned(
                    volume if given is None else given,
                    target,
                    models[0],
                    settings,
                    overwrite,
                    progress,
                )
            )
        choices = [c for number, m in enumerate(models) for c in choices_of(m, number, settings)]
        choices += [Choice(models[0], None, strength, 0) for strength in strengths]
        choices.sort(key=lambda choice: choice.group)
        sheet = Sheet(volume, stack, scale, settings, progress)
        sheet.command = command or (lambda choice: choice.command(str(source)))
        sheet.first_slice = first_slice
        rows = sheet.rows(choices)
        draw_sheet(
            rows,
            sheet.columns,
            f"{volume.name} under {len(rows) - 1} settings",
            sheet.subtitle,
            target,
        )
    table = Table(
        ("choice", "s per slice", "noise removed", "command"),
        tuple(
            (told.name, readable_number(told.seconds), percent(told.removed), told.command)
            for told in sheet.told
        ),
    )
    return Report(
        f"{target}: compare the rows, and use the command beneath the one you like best.",
        {
            "picture": str(target),
            "places": [place._asdict() for place in sheet.places],
            "choices": [
                {
                    "choice": told.name,
                    "seconds_per_slice": told.seconds,
                    "noise_removed": told.removed,
                    "command": told.command,
                }
                for told in sheet.told
            ],
        },
        table,
    )


class Told(NamedTuple):
    """What is told of a choice beside its picture."""

    name: str
    seconds: float
    """For a slice of the whole stack, estimated."""
    removed: float | None
    """Share of the noise that was removed, 0 … 1; None where noise cannot be measured."""
    command: str


class Sheet:
    """The places of a stack, and what they look like under each choice."""

    def __init__(
        self,
        volume: Volume,
        stack: StackSource,
        scale: tuple[float, float],
        settings: PreviewSettings,
        progress: Progress,
    ):
        self.volume, self.stack, self.scale = volume, stack, scale
        self.settings, self.progress = settings, progress
        size = settings.size or max(SMALLEST, min(LARGEST, min(stack.shape[1:]) // 2))
        self.places = choose_places(stack, settings.crops, size)
        self.around = {z: self.read_around(z) for z in {place.z for place in self.places}}
        self.before = [self.cut(place, 0) for place in self.places]
        self.told: list[Told] = []
        self.seconds: dict[tuple[str, int | None], float] = {}
        self.shown = (0.0, 1.0)
        self.command: Callable[[Choice], str] = lambda choice: choice.command(volume.name)
        self.first_slice = 0

    def read_around(self, z: int) -> tuple[int, Array]:
        """Return a slice with those beside it, and the number of the first."""
        first = max(0, z - 1)
        return first, self.stack.read(first, min(self.stack.shape[0], z + 2))

    def cut(self, place: Place, margin: int) -> Array:
        """Return a place in its slice, with a margin as far as there is any, (Y, X)."""
        first, slices = self.around[place.z]
        rows, columns, _ = self.window(place, margin)
        return np.asarray(slices[place.z - first, rows, columns])

    def window(self, place: Place, margin: int) -> tuple[slice, slice, tuple[slice, slice]]:
        """Return rows and columns of a place with its margin, and the place within them."""
        _, height, width = self.stack.shape
        top, left = max(0, place.top - margin), max(0, place.left - margin)
        rows = slice(top, min(height, place.top + place.height + margin))
        columns = slice(left, min(width, place.left + place.width + margin))
        inside = (
            slice(place.top - top, place.top - top + place.height),
            slice(place.left - left, place.left - left + place.width),
        )
        return rows, columns, inside

    @property
    def columns(self) -> list[str]:
        """Return what the columns show."""
        first = self.first_slice
        named = [f"{place.kind}, slice {place.z + first}" for place in self.places]
        return [*named, f"taken away ({self.places[0].kind})"]

    @property
    def subtitle(self) -> str:
        """Return what holds for all rows."""
        low, high = (self.scale[0] + v * (self.scale[1] - self.scale[0]) for v in self.shown)
        z, y, x = self.stack.shape
        return (
            f"{z} × {y} × {x} (Z, Y, X), {self.volume.dtype}; noise removed is measured from pixel "
            "to pixel on these crops (a report counts smoother grain too); all shown alike, grey "
            f"values {readable_number(low)} to {readable_number(high)}. What was taken away should "
            "look like noise: no outlines."
        )

    def rows(self, choices: Sequence[Choice]) -> list[Row]:
        """Denoise the places under every choice."""
        made: list[list[Array]] = []
        for number, choice in enumerate(choices):
            self.progress.update(number, len(choices), choice.model.name)
            if self.progress.cancelled:
                raise Cancelled("Stopped: nothing was written.")
            made.append([self.denoised(place, choice) for place in self.places])
        self.progress.update(len(choices), len(choices))
        self.shown = shown_range([to_unit(crop, self.scale) for crop in made[0]])
        noise = [noise_level(crop) for crop in self.before]
        level = float(np.nanmedian(noise)) if not np.isnan(noise).all() else math.nan
        share = 100 * level / (self.scale[1] - self.scale[0])
        lines = ("as it is", f"noise about {readable_number(share, 2)} % of the grey range")
        shown = (*self.display(self.before), None)
        rows = [Row("Source", lines if math.isfinite(share) else lines[:1], shown)]
        for choice, crops in zip(choices, made, strict=True):
            rows.append(self.row(choice, crops, noise))
        return rows

    def denoised(self, place: Place, choice: Choice) -> Array:
        """Return what denoising the whole stack would give at a place, (Y, X)."""
        network = choice.model.network
        units = network.check_units(choice.units)
        margin = receptive_radius(units, final=units == network.units)
        rows, columns, inside = self.window(place, margin)
        first, slices = self.around[place.z]
        part = ArraySource(np.ascontiguousarray(slices[:, rows, columns]))
        plan = make_plan(part.shape, part.dtype, network, self.denoising(choice), self.scale)
        middle = place.z - first
        blocks = denoise_slabs(part, network, plan, slices=range(middle, middle + 1))
        return next(iter(blocks)).image[(0, *inside)]

    def denoising(self, choice: Choice) -> DenoiseSettings:
        """Return the settings of a choice."""
        return DenoiseSettings(
            units=choice.units,
            strength=choice.strength,
            intensity=self.scale,
            device=self.settings.device,
            precision=self.settings.precision,
        )

    def time_of(self, choice: Choice) -> float:
        """Return the estimated seconds for a slice of the whole stack."""
        key = (choice.model.hash, choice.units)
        if key not in self.seconds:
            network, settings = choice.model.network, self.denoising(choice)
            plan = make_plan(self.stack.shape, self.stack.dtype, network, settings, self.scale)
            count = min(self.stack.shape[0], 100)
            self.seconds[key] = estimate_seconds(network, plan, count) / count
        return self.seconds[key]

    def row(self, choice: Choice, crops: Sequence[Array], noise: Sequence[float]) -> Row:
        """Put a choice into words."""
        units, network = choice.units, choice.model.network
        seconds = self.time_of(choice)
        left = [noise_level(crop) for crop in crops]
        shares = [1 - b / a for a, b in zip(noise, left, strict=True) if a > 0 and b >= 0]
        removed = max(0.0, float(np.median(shares))) if shares else None
        whole = seconds * self.stack.shape[0] * self.volume.shape.t * self.volume.shape.c
        lines = [f"{counted(network.units, 'unit')} × {counted(network.maps, 'map')}"]
        command = self.command(choice)
        name = choice.model.name
        if units is not None:
            name += f", {units} of {network.units} units"
            lines[0] = f"the estimate after {units} of {network.units} units"
            if units_were_added(choice.model.card):
                lines.append(
                    "Only to look at: its units were added later, so this is no quicker "
                    "version of it."
                )
                command = ""
        if choice.strength < 1:
            name += f", strength {choice.strength:g}"
            lines.append(f"{100 * choice.strength:.0f} % of what it takes away")
        lines += [
            f"{in_seconds(seconds)} per slice, {readable_time(whole)} in all",
            f"{percent(removed)} of the noise removed",
        ]
        self.told.append(Told(name, seconds, removed, command))
        shown = (*self.display(crops), self.removed(crops[0]))
        return Row(name, tuple(lines), shown, command, choice.group)

    def removed(self, after: Array) -> NDArray[np.float64]:
        """Return what was taken away at the first place, mid grey where it is nothing."""
        before = self.before[0]
        level = noise_level(before)
        spread = 6 * level if level > 0 else self.scale[1] - self.scale[0]
        with np.errstate(invalid="ignore"):  # infinite in both: returned as it is, so nothing
            taken = np.subtract(before, after, dtype=np.float64) / spread
        return 0.5 + np.where(np.isfinite(taken), taken, 0.0)

    def display(self, crops: Sequence[Array]) -> tuple[NDArray[np.float64], ...]:
        """Return crops as they are shown."""
        low, high = self.shown
        units = [to_unit(crop, self.scale).astype(np.float64) for crop in crops]
        return tuple((unit - low) / (high - low) for unit in units)


def choices_of(model: Model, group: int, settings: PreviewSettings) -> list[Choice]:
    """Return a model whole, and after fewer units if these were asked for."""
    fewer = range(1, model.units) if settings.units else range(0)
    return [Choice(model, None, 1.0, group), *(Choice(model, u, 1.0, group) for u in fewer)]


def shown_models(more: Sequence[str | Path | Model]) -> list[Model]:
    """Return the shipped models and more, each once."""
    shipped = [
        load_model(entry.path)
        for entry in known_models()
        if entry.origin == "shipped" and not entry.problem
    ]
    models = {model.hash: model for model in (*shipped, *map(load_model, more))}
    if not models:
        raise ValueError("There is no model to show: give one by -m (model).")
    return list(models.values())


def fine_tuned(
    source: str | Path | Volume,
    target: Path,
    parent: Model,
    settings: PreviewSettings,
    overwrite: bool,
    progress: Progress,
) -> Model:
    """Fine-tune a model on the stack, and keep it beside the picture."""
    from .train import train_files

    out = target.with_name(f"{target.stem}-tuned.safetensors")
    asked = TrainSettings(
        minutes=settings.fine_tune_minutes,
        seed=settings.seed,
        device=settings.device,
        intensity=settings.intensity,
    )
    report = train_files(
        [source], out, asked, fine_tune=parent, overwrite=overwrite, progress=progress
    )
    progress.message(f"The model that was fine-tuned for the preview is kept: {out}")
    return report.model


def parse_strengths(text: str) -> list[float]:
    """Return strengths from "0.5,0.75"; none from "none" or an empty text."""
    parts = [] if text.strip().lower() in ("", "none") else text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = [math.nan]
    if not all(0 < value < 1 for value in values):
        raise ValueError(
            f"strengths is {text!r}, but it must be numbers between 0 and 1, such as 0.5,0.75: "
            "give some, or none."
        )
    return values


def shown_range(crops: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return what is shown black and white, on the network's scale."""
    values = np.concatenate([crop[np.isfinite(crop)] for crop in crops])
    low, high = np.percentile(values, (PALEST, DARKEST)) if values.size else (0.0, 1.0)
    room = BEYOND * (high - low) or 0.5
    return float(low - room), float(high + room)


def percent(share: float | None) -> str:
    """Return a share as a text; a dash where it is not known."""
    return "–" if share is None else f"{100 * share:.0f} %"


def in_seconds(seconds: float) -> str:
    """Return a short time as people say it."""
    digits = 1 if seconds < 10 else 0
    return f"{round(100 * seconds) * 10} ms" if seconds < 0.995 else f"{seconds:.{digits}f} s"
