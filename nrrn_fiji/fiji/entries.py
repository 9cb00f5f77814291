"""The menu Plugins > NRRN: which commands ImageJ gets, in their order.

This module must never do any work: each command has a module of its own.
"""

from __future__ import annotations

from .align import align_entry
from .compare import compare_entry
from .entry import Entry
from .files import file_entry
from .library import help_entry, models_entry
from .measure import extensions_entry, measure_entry
from .sheet import sheet_entry
from .stacks import add_noise_entry, denoise_entry, preview_entry
from .training import train_entry

__all__ = ["entries"]


def entries() -> tuple[Entry, ...]:
    """Return every command, in the order of the menu."""
    return (
        denoise_entry(),
        file_entry(),
        preview_entry(),
        sheet_entry(),
        train_entry(),
        add_noise_entry(),
        align_entry(),
        measure_entry(),
        compare_entry(),
        models_entry(),
        help_entry(),
        extensions_entry(),
    )
