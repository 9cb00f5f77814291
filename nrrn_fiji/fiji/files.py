"""Denoise File…: a file, or a folder of slices, into another one, without opening either.

For what no window of ImageJ should hold.  The job is that of ``nrrn denoise``: slab by slab on the
disk, with the same pixels and record, stopped by Esc and gone on with by the same command.  This
module must never open an image, nor leave a result under its name that is not whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..commands import Option, find_command
from ..progress import Cancelled
from ..reports import counted, readable_time
from . import java
from .entry import Entry, Host, options_of

__all__ = ["file_entry"]

# What needs processes or machines of its own is for the command line.
NOT_HERE = ("dask", "workers")
RARE = ("units_out", "z_axis", "restart")
"""Which a macro can give, and the dialog leaves out."""
HELP = {
    "source": "A file (TIFF, OME-Zarr, HDF5, MRC), or a folder with an image for each slice: drop "
    "it onto the field, or type its path. A dataset of an HDF5 file is given as stack.h5:/raw.",
    "out": "A .tif, .ome.tif, .zarr, .h5 or .mrc file, or a folder; beside the input and named "
    "after it (stack-denoised.tif) when empty. It appears under its name when it is whole.",
}


def file_entry() -> Entry:
    """Return Denoise File…"""
    command = find_command("denoise")
    return Entry(
        label="Denoise File...",
        key="denoise-file",
        summary="Denoise a file into another one, slab by slab: for stacks larger than memory.",
        options=tuple(for_fiji(option) for option in options_of(command, *NOT_HERE)),
        check=command.make_settings,
        run=denoise_file,
        note=what_would_be_done,
        needs_image=False,
    )


def for_fiji(option: Option) -> Option:
    """Return an option with the help that it has in Fiji; rare ones are for macros."""
    if option.name in RARE:
        return replace(option, expert=True)
    return replace(option, help=HELP.get(option.name, option.help))


def denoise_file(host: Host, values: dict[str, Any]) -> None:
    """Denoise the file, and say in the log where the result is, or what was kept."""
    with host.progress("Denoise File") as progress:
        try:
            report = find_command("denoise").call(values, progress)
        except Cancelled as stopped:
            progress.message(str(stopped))
            raise
        progress.message(report.summary)
    java.JClass("ij.IJ").showStatus("Denoise File: done, see the Log")


def what_would_be_done(imp: Any, values: dict[str, Any]) -> str:
    """Return how much there is to do, how long it takes and where the result goes."""
    if "source" not in values:
        return "Name the input: drop a file or a folder onto its field, or type its path."
    command = find_command("denoise")
    plan: Any = command.call(values, plan=True)
    out, _ = plan.outputs["image"]
    slices = counted(plan.slices, "slice")
    device = plan.plans[0].device
    return f"About {readable_time(plan.seconds)} for {slices} ({device}), into {out}"
