"""The menu Plugins > NRRN: which commands ImageJ gets, in their order.

This module must never do any work: each command has a module of its own.
"""

from __future__ import annotations

from .measure import extensions_entry, measure_entry
from .plugin import Entry
from .stacks import add_noise_entry, denoise_entry

__all__ = ["entries"]


def entries() -> tuple[Entry, ...]:
    """Return every command, in the order of the menu."""
    return (denoise_entry(), add_noise_entry(), measure_entry(), extensions_entry())
