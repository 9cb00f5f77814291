"""A long job as ImageJ shows it: progress bar, status text, Fiji's window of tasks, and Esc.

This module must never block: a job asks it many times a second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..progress import Pace
from ..reports import readable_time
from . import java
from .jvm import ImageJ
from .texts import INDENT, LOG_LETTERS, as_in_fiji, in_lines

__all__ = ["ImageJProgress"]

SECONDS_BETWEEN_UPDATES = 0.1
SECONDS_BETWEEN_LOOKS = 0.2
LETTERS_IN_STATUS_BAR = 56
"""More would run into Fiji's progress bar and search field."""
LOG_SIZE = (840, 260)
"""Width and height of the window Log where we are the first to write into it, in pixels."""


class ImageJProgress:
    """A job's progress in ImageJ: bar, status text, Esc, and Fiji's window of tasks.

    Parameters
    ----------
    title
        What the job does, in front of every text.
    counts
        Whether how much is done means something to a user (slices, say); otherwise the job's own
        text says how far it is.
    """

    def __init__(self, app: ImageJ, title: str, *, counts: bool = True):
        self._ij = java.JClass("ij.IJ")
        self._ij.resetEscape()
        self._ij.showStatus(f"{title} ...")  # to begin can take some seconds
        self._title = title
        self._counts = counts
        self._headless = app.headless
        self._task: Any = None
        if app.gateway is not None:
            service = app.context.getService(java.JClass("org.scijava.task.TaskService"))
            self._task = service.createTask(title)
            self._task.start()
        self._pace = Pace()
        self._shown = 0.0
        self._looked = 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        """Show how far the job is, at most ten times a second."""
        now = time.monotonic()
        self._pace.note(now, done, total)
        if now - self._shown < SECONDS_BETWEEN_UPDATES and done < total:
            return
        self._shown = now
        said = [f"{done:.0f}/{total:.0f}"] if self._counts else []
        if self._pace.remaining:
            said.append(f"{readable_time(self._pace.remaining)} left")
        said += text.split(", ") if text else []
        java.tell(self._ij.showStatus, shortened(self._title, said))
        java.tell(self._ij.showProgress, min(done / total, 1.0) if total else 1.0)
        if self._task is not None:
            java.tell(self._task.setStatusMessage, ", ".join(said))
            java.tell(self._task.setProgressMaximum, int(total))
            java.tell(self._task.setProgressValue, int(done))

    def message(self, text: str) -> None:
        """Write a sentence into ImageJ's log; into lines where that is a window."""
        said = as_in_fiji(f"{self._title}: {text}")
        if self._headless:
            self._ij.log(said)
            return
        windows = java.JClass("ij.WindowManager")
        there = windows.getWindow("Log") is not None
        self._ij.log(in_lines(said, LOG_LETTERS, indent=INDENT))
        if not there and (window := windows.getWindow("Log")) is not None:
            window.setSize(*LOG_SIZE)  # ImageJ opens it half as wide as such lines

    @property
    def cancelled(self) -> bool:
        """Whether Esc was pressed, or the task's red X."""
        if java.stopped():
            return True
        if java.is_remote():
            # Which is asked less often: another process needs its time for an answer.
            now = time.monotonic()
            if now - self._looked < SECONDS_BETWEEN_LOOKS:
                return False
            self._looked = now
        if self._ij.escapePressed():
            return True
        return self._task is not None and bool(self._task.isCanceled())

    def close(self) -> None:
        """Take the bar and the task away."""
        self._ij.showProgress(1.0)
        if self._task is not None:
            self._task.finish()


def shortened(title: str, said: Sequence[str]) -> str:
    """Return as much for the status bar as fits there: what comes last is left out first."""
    text = f"{title}: {', '.join(said)}"
    while len(text) > LETTERS_IN_STATUS_BAR and len(said) > 1:
        said = said[:-1]
        text = f"{title}: {', '.join(said)}"
    return text if len(text) <= LETTERS_IN_STATUS_BAR else text[: LETTERS_IN_STATUS_BAR - 1] + "…"
