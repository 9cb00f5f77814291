"""The one progress and cancel object that every long job takes.

Jobs call :meth:`Progress.update` often and ask :attr:`Progress.cancelled` between pieces of work;
what is shown, and how a user cancels, is up to the edge: the command line, Fiji and notebooks
bring their own.  This module must never print.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Cancelled", "NoProgress", "Progress"]


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
