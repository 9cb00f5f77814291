"""What a Fiji could leave behind: shared memory and processes.  What others have does not count.

Only Linux tells; on other systems there is nothing to look at.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
SECONDS = 300.0


def shared_memory() -> set[Path]:
    """Return what is shared on this computer at the moment in Appose's way, by whomever."""
    return set(MEMORY.glob("psm_*"))


def shared_since(before: Collection[Path], family: Collection[int] = ()) -> set[Path]:
    """Return what has been shared since, but for what processes outside of ``family`` use."""
    new = shared_memory() - set(before)
    others = []
    for maps in Path("/proc").glob("[0-9]*/maps") if new else ():
        try:
            if int(maps.parent.name) not in family:
                others.append(maps.read_text(errors="replace"))
        except OSError:  # it has ended, or is somebody else's
            continue
    return {file for file in new if not any(file.name in text for text in others)}


def has_ended(pid: int) -> bool:
    """Whether a process comes to its end; it may still be in the list of processes then."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def workers_of(mark: str, value: str) -> list[int]:
    """Return our Pythons of those Fijis that were started with that environment variable."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = "nrrn_fiji.fiji.worker" in " ".join(process.cmdline())
            if ours and process.environ().get(mark) == value:
                found.append(process.pid)
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    return found
