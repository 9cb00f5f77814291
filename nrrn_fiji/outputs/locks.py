"""Keeps a second run out of the same files, by a lock of the operating system.

The system lets go of it however a process ends, so a killed run holds nothing.  The file that is
locked does not stay.  This module must never remove the lock of the run that comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["let_go", "locked", "removed"]


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
        let_go(held, lambda: removed(lock))


def let_go(held: FileLock, remove: Callable[[], bool]) -> None:
    """Release a lock and remove its file, but never that of the run that comes next.

    Parameters
    ----------
    held
        The lock.
    remove
        Removes the file; returns whether that could be done.
    """
    # Where an open file can be removed, this is done before others can take the lock; elsewhere
    # (Windows) after it, which fails if one has taken it meanwhile.
    gone = remove()
    held.release()
    if not gone:
        remove()


def removed(lock: Path) -> bool:
    """Remove the file of a lock; return whether that could be done."""
    try:
        lock.unlink(missing_ok=True)
    except OSError:
        return False
    return True
