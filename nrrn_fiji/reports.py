"""What a command hands back, whoever asked for it: a terminal, a script, or Fiji.

The functions behind the command table return something with a ``summary`` for people and an
``as_dict()`` for programs, and may add a ``table``.  This module must never print: the edges do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = [
    "Report",
    "Reportable",
    "Table",
    "as_json",
    "counted",
    "readable_number",
    "readable_time",
]


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
    exit_code: int = 0
    """What the ``nrrn`` command ends with; for findings that a script should act on."""

    def as_dict(self) -> dict[str, Any]:
        """Return ``data``."""
        return self.data


def readable_time(seconds: float) -> str:
    """Return "42 s", "3 min 5 s", "2 h 10 min" or "3 d 4 h"."""
    whole = round(seconds)
    for big, name_big, small, name_small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= big:
            return f"{whole // big} {name_big} {whole % big // small} {name_small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def readable_number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """Return a number with so many digits that count, as people write it: without a power of ten.

    Only what would be longer than a million, or begin after six zeros, keeps its power.

    Parameters
    ----------
    value
        Any number, NaN and infinity too.
    digits
        Digits that count, 1 or more; the others of a large number are zeros.
    sign
        Whether a "+" stands before a positive number.

    >>> readable_number(1583.2), readable_number(0.0000712, 2), readable_number(3.6e9)
    ('1580', '0.000071', '3.6e+09')
    """
    text = f"{value:{'+' if sign else ''}.{digits}g}"
    if "e" not in text or not 1e-6 <= abs(value) < 1e7:
        return text
    decimals = max(0, digits - 1 - int(text.partition("e")[2]))
    return f"{float(text):{'+' if sign else ''}.{decimals}f}"


def counted(number: int, what: str) -> str:
    """Return a number of things, whose plural is made with an s.

    >>> counted(1, "unit"), counted(4, "unit")
    ('1 unit', '4 units')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def as_json(value: Any) -> Any:
    """Return ``value`` in JSON's own types; a number that JSON lacks (NaN, infinity) is null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return as_json(value.tolist())
    if isinstance(value, float) and value - value != 0:
        return None
    return value
