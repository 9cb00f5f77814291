"""A long job as ImageJ shows it: progress bar, status text, Fiji's window of tasks, and Esc.

This module must never block: a job asks it many times a second.
"""

from __future__ import annotations

import time
from typing import Any

import jpype

from ..reports import readable_time
from .jvm import ImageJ

__all__ = ["ImageJProgress"]

SECONDS_BETWEEN_UPDATES = 0.1
LETTERS_IN_STATUS_BAR = 56
"""More would run into Fiji's progress bar and search field."""


class ImageJProgress:
    """A job's progress in ImageJ: bar, status text, Esc, and Fiji's window of tasks."""

    def __init__(self, app: ImageJ, title: str):
        self._ij = jpype.JClass("ij.IJ")
        self._ij.resetEscape()
        self._title = title
        self._task: Any = None
        if app.gateway is not None:
            service = app.context.getService(jpype.JClass("org.scijava.task.TaskService"))
            self._task = service.createTask(title)
            self._task.start()
        self._started = time.monotonic()
        self._shown = 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        """Show how far the job is, at most ten times a second."""
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_UPDATES and done < total:
            return
        self._shown = now
        remaining = ""
        if 0 < done < total:
            seconds = (now - self._started) * (total - done) / done
            remaining = f", {readable_time(seconds)} left"
        status = f"{self._title}: {done:.0f}/{total:.0f}{remaining}{', ' if text else ''}{text}"
        fits = len(status) <= LETTERS_IN_STATUS_BAR
        self._ij.showStatus(status if fits else status[: LETTERS_IN_STATUS_BAR - 1] + "…")
        self._ij.showProgress(min(done / total, 1.0) if total else 1.0)
        if self._task is not None:
            self._task.setStatusMessage(status.removeprefix(f"{self._title}: "))
            self._task.setProgressMaximum(int(total))
            self._task.setProgressValue(int(done))

    def message(self, text: str) -> None:
        """Write a sentence into ImageJ's log."""
        self._ij.log(f"{self._title}: {text}")

    @property
    def cancelled(self) -> bool:
        """Whether Esc was pressed, or the task's red X."""
        if self._ij.escapePressed():
            return True
        return self._task is not None and bool(self._task.isCanceled())

    def close(self) -> None:
        """Take the bar and the task away."""
        self._ij.showProgress(1.0)
        if self._task is not None:
            self._task.finish()
