"""Write files so that nothing is ever half-written under its own name, or lost with the power."""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["sync_folder", "write_whole"]


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
