"""The file that ``--log`` writes: everything that whoever helps a user wants to know.

What was asked for, with which versions, on what machine, what was said meanwhile, how it went on,
and the whole traceback of an error.  Lines are on disk as soon as they are written, so that a
crash leaves them there.  This module must never write grey values, environment variables or
anything else that the command line and its messages do not show.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from ..version import full_version

__all__ = ["PACKAGES", "LogFile", "package_versions"]

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "tifffile",
    "imagecodecs",
    "zarr",
    "h5py",
    "mrcfile",
    "dask",
    "jpype1",
    "scyjava",
    "pyimagej",
)
SECONDS_BETWEEN_LINES = 30.0


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that results depend on, without importing."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class LogFile:
    """A log of one run, appended to a file.

    Parameters
    ----------
    path
        The file; what stands in it stays.
    words
        The command line, without the program's name.

    Raises
    ------
    OSError
        If the file cannot be written.  When that happens later, the run goes on without it.
    """

    def __init__(self, path: Path, words: Sequence[str]):
        self.path = path
        self.started = self.shown = time.monotonic()
        self.begun = False
        self.writing = threading.Lock()
        self.file: TextIO = path.open("a", encoding="utf-8", errors="backslashreplace")
        packages = ", ".join(f"{name} {number}" for name, number in package_versions().items())
        self.write(time.strftime("nrrn run of %Y-%m-%d %H:%M:%S %z"))
        self.write(f"command: {shlex.join(['nrrn', *words])}")
        self.write(f"folder: {os.getcwd()}")
        self.write(f"nrrn-fiji {full_version()}")
        self.write(f"Python {platform.python_version()} on {platform.platform()}, {sys.executable}")
        self.write(f"packages: {packages}")
        self.begun = True

    def write(self, text: str) -> None:
        """Write a sentence, or more lines than one, with the seconds since the start."""
        with self.writing:
            if self.file.closed:
                return
            try:
                for line in text.splitlines():
                    self.file.write(f"{time.monotonic() - self.started:9.1f} s  {line}\n")
                self.file.flush()
                return
            except OSError as error:
                if not self.begun:
                    raise
                problem = error.strerror
                with suppress(OSError):  # what is left in its buffer still has no room
                    self.file.close()
        # A log is no reason to lose the work that it tells of.
        warnings.warn(
            f"The log {self.path} cannot be written any more ({problem}): the run goes on "
            "without it.",
            stacklevel=2,
        )

    def progress(self, text: str, *, last: bool) -> None:
        """Write how far a job is: the end, and now and then on the way."""
        now = time.monotonic()
        if last or now - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = now
            self.write(text)

    def failure(self, error: BaseException) -> None:
        """Write an error with its traceback, whoever raised it."""
        self.write("".join(traceback.format_exception(error)))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Note warnings too while the context lasts, and close the file at its end."""
        before = warnings.showwarning

        def show(message: Warning | str, *rest: Any, **more: Any) -> None:
            self.write(f"Warning: {' '.join(str(message).split())}")
            before(message, *rest, **more)

        warnings.showwarning = show
        try:
            yield
        finally:
            warnings.showwarning = before
            with self.writing, suppress(OSError):
                self.file.close()
