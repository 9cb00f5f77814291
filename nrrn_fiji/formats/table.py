"""Which file formats there are: a line for each, and a module that is imported when it is needed.

A new format is a file beside this one and a line in :data:`FORMATS`.  The file must have three
functions,

``open_file(path, inside) -> Volume``
    open an image; ``inside`` names one in a file that holds several ("/raw" of "a.h5:/raw"), and
    is "" where nothing was named;
``create(path, output) -> VolumeWriter``
    lay out an :class:`Output`, full size and with all its metadata;
``reopen(path, output) -> VolumeWriter``
    go on with what ``create`` began, perhaps in another process;

and, if its images are folders known by markers,

``parts_of_image(folder) -> set[str]``
    which files and folders in it are the image: what else is there is never deleted with it.

This module must never import a format, or a library that one needs, before a file of it is met.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import psutil

from .image import Volume, VolumeWriter
from .metadata import ImageMetadata, VolumeShape

__all__ = [
    "FORMATS",
    "Format",
    "Output",
    "check_output_name",
    "check_packed",
    "check_plane",
    "check_same",
    "format_of_folder",
    "format_of_input",
    "format_of_output",
    "load_format",
    "parts_of_image",
    "plain_name",
    "split_inside",
]


class Format(NamedTuple):
    """A way in which images are stored."""

    name: str
    """As it is called in messages."""
    module: str
    """Module of this package that reads and writes it."""
    reads: tuple[str, ...]
    """Suffixes that are read, with their dot and in small letters."""
    writes: tuple[str, ...]
    """Suffixes that are written; "" for a name without one."""
    extra: str | None = None
    """Which extra of this package installs the libraries that it needs."""
    markers: tuple[str, ...] = ()
    """For formats that are folders: names one of which is in every such folder."""
    inside: bool = False
    """Whether a file can hold several images, one of which is chosen by "file:/path"."""


ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray")

FORMATS = (
    Format("TIFF", "tiff_output", (".tif", ".tiff"), (".tif", ".tiff")),
    Format("OME-Zarr", "ome_zarr_output", (".zarr",), (".zarr",), "zarr", ZARR, inside=True),
    Format("HDF5", "hdf5", (".h5", ".hdf5", ".hdf"), (".h5", ".hdf5"), "hdf5", inside=True),
    Format("MRC", "mrc", (".mrc", ".rec", ".st", ".ali", ".map"), (".mrc",), "mrc"),
    Format("folder of slices", "folders", (".png", ".bmp", ".jpg", ".jpeg"), ("",)),
)


LARGEST_RATIO = 40_000
"""How many times smaller than its pixels a file can be: zstd packs 128 kB of zeros into 4 bytes."""


@dataclass(frozen=True)
class Output:
    """What an output is to hold; all that :func:`create` and :func:`reopen` of a format need."""

    like: Volume
    """The image whose metadata it takes over."""
    shape: VolumeShape
    dtype: np.dtype[Any]
    slices: range
    """Which slices of ``like`` it holds; as many as ``shape.z``."""
    slab: int = 1
    """Slices that will be written at a time: chunks must not straddle these."""
    same_values: bool = True
    """Whether its grey values mean what those of ``like`` mean."""
    provenance: dict[str, Any] | None = None
    channel_names: tuple[str, ...] | None = None

    @property
    def metadata(self) -> ImageMetadata:
        """What is true for the output of what was said about the input."""
        return self.like.metadata.selected(
            self.like.shape,
            self.shape,
            self.slices,
            same_values=self.same_values,
            channel_names=self.channel_names,
        )


class FormatModule(Protocol):
    """What the module of a format offers."""

    def open_file(self, path: Path, inside: str) -> Volume: ...

    def create(self, path: Path, output: Output) -> VolumeWriter: ...

    def reopen(self, path: Path, output: Output) -> VolumeWriter: ...

    def parts_of_image(self, folder: Path) -> set[str]: ...


def load_format(kind: Format) -> FormatModule:
    """Import the module of a format.

    Raises
    ------
    ImportError
        If a library that it needs is missing; the sentence says how to get it.
    """
    try:
        return cast(FormatModule, importlib.import_module(f".{kind.module}", __package__))
    except ImportError as error:
        if kind.extra is None or (error.name or "").startswith("nrrn_fiji"):
            raise
        missing = isinstance(error, ModuleNotFoundError)
        state = "not installed" if missing else f"installed but cannot be loaded ({error})"
        raise ImportError(
            f"{kind.name} needs the package {error.name or kind.extra}, which is {state}: "
            f"pip install 'nrrn-fiji[{kind.extra}]'."
        ) from error


def format_of_input(path: Path) -> Format:
    """Return the format that reads files of this name; TIFF where the name does not tell.

    A TIFF under another name (.lsm, .stk, none) is still a TIFF.
    """
    suffix = path.suffix.lower()
    return next((kind for kind in FORMATS if suffix in kind.reads), FORMATS[0])


def format_of_folder(folder: Path) -> Format | None:
    """Return the format whose image a folder is; None for a folder of files."""
    for kind in FORMATS:
        if any((folder / marker).exists() for marker in kind.markers):
            return kind
    return None


def parts_of_image(folder: Path) -> set[str]:
    """Return the names in a folder that belong to the image which the folder is; empty for none."""
    kind = format_of_folder(folder)
    names: set[str] = set() if kind is None else load_format(kind).parts_of_image(folder)
    return names


def format_of_output(path: Path) -> Format:
    """Return the format that an output of this name is written in.

    Raises
    ------
    ValueError
        If there is none.
    """
    for kind in FORMATS:
        if path.suffix.lower() in kind.writes:
            return kind
    known = [suffix for kind in FORMATS for suffix in kind.writes if suffix]
    raise ValueError(
        f"output is {path.name}, but only {', '.join(known)}, and folders (a name without a dot), "
        "can be written: change the name."
    )


def check_output_name(path: Path) -> None:
    """Raise a ValueError unless an output of this name can be written here.

    Raises
    ------
    ValueError
        If no format has this suffix.
    ImportError
        If a library that the format needs is missing.
    """
    load_format(format_of_output(path))


def split_inside(source: str) -> tuple[str, str]:
    """Split "file.h5:/path" into file and path, where the file's format can hold several images.

    >>> split_inside("C:/stacks/cortex.tif")
    ('C:/stacks/cortex.tif', '')
    """
    suffixes = "|".join(re.escape(s) for kind in FORMATS if kind.inside for s in kind.reads)
    found = re.fullmatch(rf"(.*(?:{suffixes})):[\\/](.*)", source, re.IGNORECASE | re.DOTALL)
    if found is None or not suffixes:
        return source, ""
    return found[1], "/" + found[2].replace("\\", "/").strip("/")


def plain_name(path: Path) -> str:
    """Return the name of a file without folder, suffix and the ".ome" before it."""
    return re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE)


def check_plane(path: Path, shape: VolumeShape, dtype: np.dtype[Any]) -> None:
    """Refuse an image of which not even one slice fits into this machine's memory.

    For formats in which a file may be smaller than the image it announces.

    Raises
    ------
    ValueError
        If so; the sizes are then more likely wrong than right.
    """
    size = shape.y * shape.x * dtype.itemsize
    memory = psutil.virtual_memory().total
    if size > memory:
        raise ValueError(
            f"{path} announces slices of {shape.y} x {shape.x} pixels, {size / 1e9:.3g} GB each, "
            f"and this machine has {memory / 1e9:.3g} GB of memory: check the file."
        )


def check_packed(path: Path, size: int) -> None:
    """Refuse an image of ``size`` bytes that no compression can have packed into its file.

    Raises
    ------
    ValueError
        If so: it would be read into memory that nothing in the file can fill.
    """
    held = path.stat().st_size
    if size > LARGEST_RATIO * held:
        raise ValueError(
            f"{path} is damaged or incomplete (it announces {size / 1e9:.3g} GB of pixels, which "
            f"cannot be packed into {held} bytes): copy it again, or save it again."
        )


def check_same(path: Path, shape: VolumeShape, dtype: np.dtype[Any], output: Output) -> None:
    """Raise a ValueError unless what was begun has the shape and type that are to be continued."""
    if shape != output.shape or dtype != output.dtype:
        raise ValueError(
            f"{path} holds {tuple(shape)} of {dtype}, but {tuple(output.shape)} of {output.dtype} "
            "is to be continued: start again (--restart)."
        )
