"""Write files so that nothing is ever half-written under its own name, or lost with the power.

What a system says of a disk is turned into a sentence here, for all that reads and writes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path

__all__ = [
    "NO_SPACE",
    "UNREACHABLE",
    "beside",
    "replace",
    "sync_folder",
    "trouble",
    "write_whole",
]

NO_SPACE = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
"""What the system says when a disk or a quota is full, or a file may not grow so large."""

UNREACHABLE = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EREMOTEIO", "ENXIO", "ENODEV", "ENOTCONN", "ENOLINK"),
        *("ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET"),
    )
    if hasattr(errno, name)
)
"""What the system says when a disk fails, or one in the network is out of reach."""

READERS_HOLD_NAMES = os.name == "nt"
"""Whether a file that is being read cannot be renamed or replaced."""

WAITS_FOR_READERS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Seconds before each further attempt to replace such a file."""

DOUBLE_SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.zarr")
# Suffixes that are read and not written -> what is written instead.
WRITTEN_AS = {
    **dict.fromkeys((".png", ".bmp", ".jpg", ".jpeg"), ".tif"),
    ".hdf": ".h5",
    **dict.fromkeys((".rec", ".st", ".ali", ".map"), ".mrc"),
}
# "cells.h5:/raw" is one image of several in a file; the result gets a file of its own.
INSIDE = re.compile(r"(.+\.(?:zarr|h5|hdf5|hdf)):[\\/].*", re.IGNORECASE)


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
    inside = INSIDE.fullmatch(str(source))
    if inside is not None:
        source = Path(inside[1])
    # A file may have such a sign in its name: "stack [2].tif".
    if any(sign in source.name for sign in "*?[") and not source.exists():
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
    suffix = "" if "." in ending else WRITTEN_AS.get(suffix.lower(), suffix)
    return source.with_name(stem + ending + suffix)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is under its name whole, or not at all, whatever happens.

    Parameters
    ----------
    path
        The file; an existing one is replaced.
    content
        All of it.

    Raises
    ------
    OSError
        If it cannot be written: with a sentence and the ``errno`` of the system's own error, where
        the disk is full or out of reach.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        told = trouble(path, error)
        if told is None:
            raise
        raise told from error
    finally:
        with contextlib.suppress(OSError):  # which would hide the first error
            beside.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Rename a file or folder, in place of a file that has the name.

    Windows refuses that while another process, such as a worker or a virus scanner, looks at
    either; they do so for a moment only, and are waited for.

    Raises
    ------
    OSError
        As ``os.replace`` does.
    """
    for wait in WAITS_FOR_READERS if READERS_HOLD_NAMES else ():
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


def trouble(path: Path, error: OSError, kept: str = "") -> OSError | None:
    """Return the error to raise instead of the system's own, where that has a known meaning.

    Parameters
    ----------
    path
        What was to be written.
    error
        What the system said.
    kept
        A sentence on what is kept.

    Returns
    -------
    OSError or None
        With a sentence, and the same ``errno``; None for errors that say enough themselves.
    """
    if error.errno is None:
        return None
    if error.errno in NO_SPACE:
        problem, advice = (
            f"There is no space left to write {path}",
            "Make room, or choose another disk",
        )
    elif error.errno in UNREACHABLE:
        problem = f"The disk does not let {path} be written"
        advice = "Check the disk, or the network that it is in"
    else:
        return None
    kept = f" {kept}" if kept else ""
    told = OSError(
        f"{problem} ({os.strerror(error.errno)}):{kept} {advice}, and run the same command again."
    )
    told.errno = error.errno
    return told


def sync_folder(folder: Path) -> None:
    """Make new and changed names in a folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder to write into that may not be looked into
        return
    try:
        os.fsync(handle)
    except OSError as error:  # some network disks cannot
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)
