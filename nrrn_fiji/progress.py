"""The one progress and cancel object that every long job takes.

Jobs call :meth:`Progress.update` often and ask :attr:`Progress.cancelled` between pieces of work;
what is shown, and how a user cancels, is up to the edge: the command line, Fiji and notebooks
bring their own.  This module must never print.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["Cancelled", "NoProgress", "Pace", "Progress", "ShareOfProgress", "Told"]

SECONDS_OF_RATE = 30.0


class Progress(Protocol):
    """What a long job reports to, and where it learns that it should stop."""

    def update(self, done: float, total: float, text: str = "") -> None:
        """Report that ``done`` of ``total`` is finished; ``text`` says what is going on."""

    def message(self, text: str) -> None:
        """Tell the user one sentence worth knowing (a choice made, a thing noticed)."""

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""


class NoProgress:
    """Shows nothing and never cancels."""

    cancelled = False

    def update(self, done: float, total: float, text: str = "") -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""


class Cancelled(Exception):
    """The user stopped the job; the message says what was kept."""


class Told:
    """Passes progress on, everything once, and remembers the sentences."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.notes: list[str] = []
        self.last = (-1.0, -1.0)

    @property
    def cancelled(self) -> bool:
        return self.progress.cancelled

    def update(self, done: float, total: float, text: str = "") -> None:
        if (done, total) != self.last:
            self.last = (done, total)
            self.progress.update(done, total, text)

    def message(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.progress.message(text)


class ShareOfProgress:
    """Progress of one channel and time point as a share of the whole run."""

    def __init__(self, whole: Progress, before: int, total: int, text: str):
        self.whole, self.before, self.total, self.text = whole, before, total, text

    @property
    def cancelled(self) -> bool:
        return self.whole.cancelled

    def update(self, done: float, total: float, text: str = "") -> None:
        self.whole.update(self.before + done, self.total, text or self.text)

    def message(self, text: str) -> None:
        self.whole.message(f"{self.text}: {text}" if self.text else text)


class Pace:
    """How quickly a job gets on: from what it has done of late, not from when it was started.

    What a job prepares before its first piece says nothing of those that follow.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, now: float, done: float, total: float) -> None:
        """Note how far the job is at a time, in seconds of any clock."""
        # A new phase has a pace of its own.
        if total != self.total or (self._seen and done < self.done):
            self._seen.clear()
            self.total = total
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > SECONDS_OF_RATE:
            self._seen.popleft()

    @property
    def done(self) -> float:
        """How much was done when that was last noted; 0 before."""
        return self._seen[-1][1] if self._seen else 0.0

    @property
    def rate(self) -> float | None:
        """Pieces per second of late; None until that can be told."""
        if len(self._seen) < 2:
            return None
        (start, first), (now, done) = self._seen[0], self._seen[-1]
        return (done - first) / (now - start) if now > start and done > first else None

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at the present rate; None until that can be told."""
        rate = self.rate
        return None if rate is None else max(self.total - self.done, 0.0) / rate
