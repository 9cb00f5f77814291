"""What a command hands back, whoever asked for it: a terminal, a script, or Fiji.

The functions behind the command table return something with a ``summary`` for people and an
``as_dict()`` for programs, and may add a ``table``.  This module must never print: the edges do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = ["Report", "Reportable", "Table"]


class Table(NamedTuple):
    """A table of texts."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """One text per column of the header."""


class Reportable(Protocol):
    """The result of a command."""

    @property
    def summary(self) -> str:
        """What was done and where the result is, in one or a few lines."""

    def as_dict(self) -> dict[str, Any]:
        """The same and more, in JSON's types."""


@dataclass(frozen=True)
class Report:
    """A result that needs no class of its own; see :class:`Reportable`."""

    summary: str
    data: dict[str, Any]
    table: Table | None = None
    """Shown above the summary."""

    def as_dict(self) -> dict[str, Any]:
        """Return ``data``."""
        return self.data
