"""Write files so that nothing is ever half-written under its own name, or lost with the power."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["beside", "sync_folder", "write_whole"]

DOUBLE_SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.zarr")
# Kinds of files that are read and not written, single pictures among them: the result is a TIFF.
READ_ONLY = (".png", ".bmp", ".jpg", ".jpeg")


def beside(source: Path, ending: str) -> Path:
    """Return the name of a result that lies beside its source.

    Parameters
    ----------
    source
        A file, a folder, or a pattern of the files in a folder, which counts as that folder.
    ending
        What is added to the name, before its suffix; a suffix in it takes the place of the
        source's.

    Examples
    --------
    >>> str(beside(Path("a/stack.ome.tif"), "-denoised"))
    'a/stack-denoised.ome.tif'
    >>> str(beside(Path("stack.tif"), "-model.safetensors"))
    'stack-model.safetensors'
    >>> str(beside(Path("a/slices/*.png"), "-denoised"))
    'a/slices-denoised'
    """
    if any(sign in source.name for sign in "*?["):
        source = source.parent
    # "." and "a/.." have no name of their own.
    if source.name in ("", ".."):
        source = source.resolve()
    lowered = source.name.lower()
    double = next((one for one in DOUBLE_SUFFIXES if lowered.endswith(one)), "")
    suffix = source.name[-len(double) :] if double else source.suffix
    if source.is_dir() and not lowered.endswith(".zarr"):
        suffix = ""  # a dot in the name of a folder of slices begins no suffix
    stem = source.name[: len(source.name) - len(suffix)]
    if "." in ending:
        suffix = ""
    elif suffix.lower() in READ_ONLY:
        suffix = ".tif"
    return source.with_name(stem + ending + suffix)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is under its name whole, or not at all, whatever happens.

    Parameters
    ----------
    path
        The file; an existing one is replaced.
    content
        All of it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make new and changed names in a folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot
            raise
    finally:
        os.close(handle)
