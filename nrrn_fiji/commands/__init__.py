"""The command table: everything that can be asked for, declared once.

The ``nrrn`` command line, ImageJ's menu, dialogs and macro keys all derive from :data:`COMMANDS`:
a command has a name, a settings dataclass whose fields carry their own labels and help, a few
options that only make sense where there are files, and the function that does the work.  A new
setting is one field in :mod:`nrrn_fiji.settings`, a new command is one entry in the file of its
kind here.  This package must know nothing of any edge.
"""

from __future__ import annotations

from . import fiji, measures, models, scans, stacks, studies
from .declare import Command, Kind, Option

__all__ = ["COMMANDS", "GROUPS", "Command", "Kind", "Option", "find_command"]

GROUPS = {
    "models": "List, show, import, fetch, export and remove models.",
    "study": "Measure denoisers as the paper does, on your own volumes. Begin with study all.",
}
"""What the commands of two words have in common, by their first word."""

COMMANDS: tuple[Command, ...] = (
    *stacks.COMMANDS,
    *scans.COMMANDS,
    *measures.COMMANDS,
    *models.COMMANDS,
    *studies.COMMANDS,
    *fiji.COMMANDS,
)
"""Every command, in the order of the help."""


def find_command(name: str) -> Command:
    """Return the command of that name.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    for command in COMMANDS:
        if command.name == name:
            return command
    known = ", ".join(command.name for command in COMMANDS)
    raise ValueError(f"{name!r} is no command: choose one of {known}.")
