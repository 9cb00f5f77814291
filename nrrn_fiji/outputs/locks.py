"""Keeps a second run out of the same files, by a lock of the operating system.

The system lets go of it however a process ends, so a killed run holds nothing.  The file that is
locked does not stay.  This module must never remove the lock of the run that comes next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["locked"]


@contextmanager
def locked(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock as long as the context lasts.

    Parameters
    ----------
    lock
        The file that is locked; it is made, and removed at the end.
    refusal
        What to say if another process holds it.

    Raises
    ------
    FileExistsError
        If another process holds it.
    """
    held = FileLock(lock, blocking=False)
    try:
        held.acquire()
    except Timeout:
        raise FileExistsError(refusal) from None
    try:
        yield
    finally:
        # Where an open file can be removed, this is done before others can take the lock;
        # elsewhere (Windows) after it, which fails if one has taken it meanwhile.
        gone = _removed(lock)
        held.release()
        if not gone:
            _removed(lock)


def _removed(lock: Path) -> bool:
    """Remove a lock; return whether that could be done."""
    try:
        lock.unlink(missing_ok=True)
    except OSError:
        return False
    return True
