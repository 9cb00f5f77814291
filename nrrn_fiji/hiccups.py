"""Patience with disks that fail for a moment, as those in a network do.

A read that fails is tried again for some seconds, and every time the user is told; what still fails
then is an error with a sentence.  Only what the system says of a disk out of reach is tried again:
this module must never hide damage, nor wait for what waiting cannot mend.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .files import UNREACHABLE

__all__ = ["SourceLostError", "out_of_reach", "patiently"]

WAITS = (0.5, 1, 2, 4, 8)
"""Seconds before each further attempt."""

VANISHED = errno.ENOENT
"""A file that was there is gone, perhaps because its disk is: a disk in a network may come back."""

T = TypeVar("T")


class SourceLostError(OSError):
    """What is being read is out of reach, and did not come back; the message is a sentence."""


def patiently(
    read: Callable[[], T],
    path: Path | str,
    *,
    again: Callable[[], None],
    tell: Callable[[str], None],
    passing: frozenset[int] = frozenset(),
) -> T:
    """Return what ``read`` returns, which is tried a few times if a disk is out of reach.

    Parameters
    ----------
    read
        May be called several times.
    path
        What is read, for the sentences.
    again
        Called before each further attempt, to open anew what may have gone stale; what it raises
        counts as ``read``'s.
    tell
        Called with a sentence before each further attempt.
    passing
        Numbers of further errors that may be over in a moment.

    Raises
    ------
    SourceLostError
        If it does not come back.
    """
    waits = list(WAITS)
    reopen = False
    while True:
        try:
            if reopen:
                again()
            return read()
        except SourceLostError:
            raise
        except OSError as error:
            if not out_of_reach(error) and error.errno not in passing:
                raise
            number = _number(error)
            what = os.strerror(number)
            if not waits:
                lost = SourceLostError(
                    f"{path} cannot be read any more ({what}; tried {len(WAITS) + 1} times in "
                    f"{sum(WAITS):g} s): check the file, its disk, or the network that it is in, "
                    "and run the same command again."
                )
                lost.errno = number
                raise lost from error
        wait = waits.pop(0)
        tell(f"{path} cannot be read at the moment ({what}): trying again in {wait:g} s.")
        time.sleep(wait)
        reopen = True


def out_of_reach(error: BaseException) -> bool:
    """Whether an error says that a disk, or a file that was there, is out of reach."""
    return isinstance(error, OSError) and _number(error) in UNREACHABLE | {VANISHED}


def _number(error: OSError) -> int:
    """Return the system's number of an error; HDF5 tells it in its text alone."""
    if error.errno is not None:
        return error.errno
    found = re.search(r"errno = (\d+)", str(error))
    return int(found[1]) if found else 0
