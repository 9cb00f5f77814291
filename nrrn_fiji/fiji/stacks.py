"""Commands that make a new image from the open one: Denoise Stack…, Preview… and Add Noise….

The work is that of the command line, so settings, pixels and records are the same.  This module
must never change the image it is given, and never show a result that is not whole.
"""

from __future__ import annotations

import time
from typing import Any

from ..commands import Kind, Option, find_command
from ..models import DEFAULT_MODEL, load_model
from ..reports import readable_time
from ..settings import DenoiseSettings
from ..volumes import VolumeShape
from . import java
from .entry import Entry, Host, options_of, unused_title
from .images import volume_of
from .layout import move_sliders, put_beside, show, show_alike

__all__ = ["add_noise_entry", "denoise_entry", "preview_entry"]

# What a run into files needs and a run on the open image does not.
FILE_OPTIONS = (
    *("source", "out", "noise_out", "units_out", "overwrite", "restart"),
    *("dask", "workers"),
)
# What makes no difference to the pixels of one slice, or would make the slice another one.
NOT_FOR_PREVIEW = ("slices", "z_axis", "scans", "tile", "slab")
NOISE_TO_BEGIN_WITH = 25.0


def denoise_entry() -> Entry:
    """Return Denoise Stack…"""
    command = find_command("denoise")
    noise = Option(
        name="noise",
        label="Show removed noise",
        help="Also show what was taken away: input - output, 32-bit.",
        kind=Kind.FLAG,
        default=False,
    )
    return Entry(
        label="Denoise Stack...",
        key="denoise",
        summary=command.summary,
        options=(*options_of(command, *FILE_OPTIONS), noise),
        check=command.make_settings,
        run=denoise,
        note=time_needed,
    )


def denoise(host: Host, values: dict[str, Any]) -> None:
    """Denoise the open image into a new window."""
    from .jobs import denoise_image

    imp = host.current_image()
    begun = time.monotonic()
    with host.working_on(imp, "Denoise") as progress:
        made = denoise_image(
            imp,
            values.get("model", DEFAULT_MODEL),
            find_command("denoise").make_settings(values),
            slices=values.get("slices"),
            noise=values.get("noise", False),
            z_axis=values.get("z_axis"),
            progress=progress,
        )
    for result in (made.noise, made.image):  # the image last: it is then the active one
        show_beside(result, imp)
    done = amount(*asked_of(imp, values))
    java.JClass("ij.IJ").showStatus(f"Denoised {done} in {time.monotonic() - begun:.1f} s")


def show_beside(result: Any, imp: Any) -> None:
    """Show a new image beside its source and as that is shown; nothing for None."""
    if result is not None:
        result.setTitle(unused_title(str(result.getTitle())))
        show(result)
        move_sliders(result)
        show_alike(result, imp)
        put_beside(result, imp)


def asked_of(imp: Any, values: dict[str, Any]) -> tuple[VolumeShape, int]:
    """Return the shape of an image as it is read with these values, and how many slices of it."""
    volume = volume_of(imp)
    if (axis := values.get("z_axis")) is not None:
        volume.reinterpret(axis)
    slices = values.get("slices")
    return volume.shape, volume.shape.z if slices is None else len(slices)


def amount(shape: VolumeShape, slices: int) -> str:
    """Return how much is denoised, in words: "5 slices", "8 channels", "5 slices x 2 channels"."""
    counts = {"slice": slices, "channel": shape.c, "time point": shape.t}
    many = [f"{count} {what}s" for what, count in counts.items() if count > 1]
    return " x ".join(many) or "1 slice"


def time_needed(imp: Any, values: dict[str, Any]) -> str:
    """Return how long denoising an image would take, from timing one tile."""
    from ..denoising import estimate_seconds
    from ..jobs.denoise_checks import check_slices
    from ..plan import make_plan

    settings: DenoiseSettings = find_command("denoise").make_settings(values)
    volume = volume_of(imp)
    if (axis := values.get("z_axis")) is not None:
        volume.reinterpret(axis)
    slices = values.get("slices")
    check_slices(slices, settings, volume)
    network = load_model(values.get("model", DEFAULT_MODEL)).network
    plan = make_plan(volume.shape[2:], volume.dtype, network, settings, (0.0, 1.0))
    count = volume.shape.z if slices is None else len(slices)
    seconds = estimate_seconds(network, plan, count) * volume.shape.c * volume.shape.t
    return f"About {readable_time(seconds)} for {amount(volume.shape, count)} ({plan.device})."


def preview_entry() -> Entry:
    """Return Preview…"""
    command = find_command("denoise")
    each = Option(
        name="each",
        label="Show after each unit",
        help="Show a small stack: the slice after every building unit, and at the end.",
        kind=Kind.FLAG,
        default=False,
    )

    def once(host: Host, values: dict[str, Any]) -> None:
        from .preview import preview  # torch is imported when it is first needed

        preview(host, values)

    def follow(host: Host, entry: Entry) -> None:
        from .preview import follow

        follow(host, entry)

    return Entry(
        label="Preview...",
        name="NRRN Preview...",
        key="preview",
        summary="Show the denoised slice, or the selection in it, while you choose settings.",
        options=(*options_of(command, *FILE_OPTIONS, *NOT_FOR_PREVIEW), each),
        check=command.make_settings,
        run=once,
        window=follow,
    )


def add_noise_entry() -> Entry:
    """Return Add Noise…"""
    command = find_command("add-noise")
    return Entry(
        label="Add Noise...",
        key="add-noise",
        summary=command.summary,
        options=options_of(command, *FILE_OPTIONS),
        check=command.make_settings,
        run=add_noise,
        start=lambda imp: {"gaussian": NOISE_TO_BEGIN_WITH},
    )


def add_noise(host: Host, values: dict[str, Any]) -> None:
    """Show the open image with synthetic noise in a new window."""
    from .jobs import noisy_image

    imp = host.current_image()
    with host.working_on(imp, "Add Noise") as progress:
        made = noisy_image(imp, find_command("add-noise").make_settings(values), progress=progress)
    show_beside(made, imp)
