"""What the package can do to an image that is open in ImageJ: images in, new images out.

The work itself is that of the command line: same settings, same plan, same pixels, same record of
how it was done.  This module must never show anything, nor change the image that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..denoising import denoise_slabs
from ..device import choose_device
from ..formats.image import Volume
from ..jobs.add_noise import check_noise, noise_spans, noisy_slice
from ..jobs.add_noise import provenance as provenance_of_noise
from ..jobs.denoise import DenoiseJob
from ..jobs.denoise_checks import check_slices
from ..models import DEFAULT_MODEL, Model, load_model
from ..outputs.partial import readable_size
from ..progress import Cancelled, NoProgress, Progress, ShareOfProgress
from ..settings import DenoiseSettings, NoiseSettings
from ..stack_checks import warn
from ..volumes import StackSource
from .datasets import ImgPlusVolume, ImgPlusWriter
from .images import ImagePlusVolume, ImagePlusWriter, volume_of
from .virtual import VirtualWriter
from .writer import ImageWriter
from .xarrays import XarrayVolume, XarrayWriter

__all__ = ["DenoisedImage", "denoise_image", "noisy_image"]


@dataclass(frozen=True)
class DenoisedImage:
    """The images that :func:`denoise_image` made; of the kind that it was given."""

    image: Any
    noise: Any
    """input − output, 32-bit; None if it was not asked for."""
    slices: int
    """Slices of all channels and time points together."""


def denoise_image(
    image: Any,
    model: str | Path | Model = DEFAULT_MODEL,
    settings: DenoiseSettings | None = None,
    *,
    slices: range | None = None,
    noise: bool = False,
    z_axis: str | None = None,
    progress: Progress | None = None,
) -> DenoisedImage:
    """Denoise an image of ImageJ, ImageJ2 or PyImageJ.

    Parameters
    ----------
    image
        ``ij.ImagePlus``, ``net.imagej.Dataset``, ``net.imagej.ImgPlus`` or ``xarray.DataArray``;
        every channel and time point is a stack of its own.
    model
        A name, a file, or a loaded model.
    settings
        How; the defaults when left out.
    slices
        Which slices, counted from 0; all when left out.
    noise
        Also return what was taken away.
    z_axis
        "T" or "C" where the slices were saved as time points or channels.

    Returns
    -------
    DenoisedImage
        New images that are not shown yet, with all that the source carries.

    Raises
    ------
    ValueError, FileNotFoundError
        If the image, the model or a setting cannot be used.
    MemoryError
        If the result does not fit into Java's memory, before anything is computed; not for an
        ``ij.ImagePlus``, whose result then goes into a file and is a virtual stack.
    Cancelled
        When the user stops; no image is made then.
    """
    settings = DenoiseSettings() if settings is None else settings
    progress = NoProgress() if progress is None else progress
    loaded = load_model(model)
    loaded.network.check_units(settings.units)
    choose_device(settings.device)  # one: several share the work on files alone
    volume = volume_of(image)
    if z_axis is not None:
        volume.reinterpret(z_axis)
    else:
        for note in volume.notes:
            progress.message(note)
    check_slices(slices, settings, volume)
    titles = {"image": title_of(volume.name, "denoised")}
    if noise:
        titles["noise"] = title_of(volume.name, "noise")
    targets = {kind: Path(title) for kind, title in titles.items()}
    job = DenoiseJob(volume, loaded, settings, slices, targets)
    job.plans = job.make_plans()
    if volume.shape.z == 1 and not settings.scans and settings.images > 1:
        progress.message(
            f"{volume.name} has one slice and no neighbours: it is denoised from itself alone."
        )
    elif settings.images > 1:
        warn(StackSource(volume), progress, scans=settings.scans)
    job.warn_if_unlike(progress)
    with ExitStack() as unfinished:
        writers = make_writers(
            volume,
            {
                kind: (title, np.dtype(np.float32) if kind == "noise" else volume.dtype)
                for kind, title in titles.items()
            },
            slices=job.written,
            provenance=job.provenance,
            unfinished=unfinished,
            progress=progress,
        )
        many = volume.shape.t * volume.shape.c > 1
        said: set[str] = set()
        for number, (time, channel) in enumerate(job.passes()):
            text = f"time point {time + 1}, channel {channel + 1}" if many else ""
            for block in denoise_slabs(
                StackSource(volume, channel, time),
                loaded.network,
                job.plan_now(channel),
                slices=slices,
                want_noise=noise,
                progress=ShareOfProgress(progress, number * len(job.written), job.total, text),
                said=said,
            ):
                job.note(block, channel, time)
                start = block.start - job.written.start
                writers["image"].write(start, block.image, channel=channel, time=time)
                if block.noise is not None:
                    writers["noise"].write(start, block.noise, channel=channel, time=time)
        progress.update(job.total, job.total)
        if job.went_on:  # which nobody knew when the results were begun
            for kind, made in writers.items():
                made.record(job.provenance(kind))
        results = {kind: made.finish() for kind, made in writers.items()}
    return DenoisedImage(results["image"], results.get("noise"), job.total)


def noisy_image(image: Any, settings: NoiseSettings, *, progress: Progress | None = None) -> Any:
    """Add synthetic noise to an image of ImageJ or ImageJ2; the pixels of ``nrrn add-noise``.

    Parameters
    ----------
    image
        As for :func:`denoise_image`.
    settings
        Which noise.

    Returns
    -------
    image
        A new one of the same kind and type that is not shown yet.

    Raises
    ------
    ValueError
        If the image cannot be used, or no noise is asked for.
    MemoryError
        If the result does not fit into Java's memory.
    Cancelled
        When the user stops; no image is made then.
    """
    progress = NoProgress() if progress is None else progress
    volume = volume_of(image)
    check_noise(settings)
    spans = noise_spans(volume, settings)
    title = title_of(volume.name, "noisy")
    with ExitStack() as unfinished:
        made = make_writers(
            volume,
            {"image": (title, volume.dtype)},
            slices=range(volume.shape.z),
            provenance=lambda kind: provenance_of_noise(volume.name, settings),
            unfinished=unfinished,
            progress=progress,
        )["image"]
        places = list(np.ndindex(volume.shape[:3]))
        for number, (time, channel, z) in enumerate(places):
            if progress.cancelled:
                raise Cancelled("Stopped: every image is as it was.")
            noisy = noisy_slice(volume, (time, channel, z), spans[channel], settings)
            made.write(z, noisy, channel=channel, time=time)
            progress.update(number + 1, len(places))
        return made.finish()


def title_of(name: str, what: str) -> str:
    """Return the title of a result: "cortex.tif" -> "cortex-denoised.tif"."""
    stem, dot, suffix = name.rpartition(".")
    if dot and stem and len(suffix) <= 4 and suffix.isalnum():
        return f"{stem}-{what}.{suffix}"
    return f"{name}-{what}"


def make_writers(
    like: Volume,
    wanted: Mapping[str, tuple[str, np.dtype[Any]]],
    *,
    slices: range,
    provenance: Callable[[str], dict[str, Any]],
    unfinished: ExitStack,
    progress: Progress,
) -> dict[str, ImageWriter]:
    """Return the writers for results of the same kind as their source.

    Parameters
    ----------
    like
        The source.
    wanted
        Title and type of each result, by kind; "noise" holds other values than the source.
    slices
        Which slices of the source they hold.
    provenance
        Returns how a kind of result was made.
    unfinished
        Closes the writers when it ends.
    progress
        Is told of results that go into files.
    """
    writers: dict[str, ImageWriter] = {}
    for kind, (title, dtype) in wanted.items():
        about: dict[str, Any] = {
            "title": title,
            "dtype": dtype,
            "slices": slices,
            "provenance": provenance(kind),
        }
        if isinstance(like, XarrayVolume):
            writers[kind] = XarrayWriter(like, **about)
        elif isinstance(like, ImgPlusVolume):
            writers[kind] = ImgPlusWriter(like, **about)
        else:
            assert isinstance(like, ImagePlusVolume)
            about["same_values"] = kind != "noise" and dtype == like.dtype
            try:
                writers[kind] = ImagePlusWriter(like, **about)
            except MemoryError:
                writers[kind] = VirtualWriter(like, **about)
                size = like.shape._replace(z=len(slices)).planes
                size *= like.shape.y * like.shape.x * dtype.itemsize
                progress.message(
                    f"Java has no {readable_size(size)} left for {title}: its pixels go into the "
                    f"file {writers[kind].path}, and it will be a virtual stack."
                )
        unfinished.enter_context(writers[kind])
    return writers
