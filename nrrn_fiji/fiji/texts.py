"""Where sentences are broken into lines for ImageJ's windows, which let long ones run out.

What a sentence calls an option of a command line is called as in a dialog and in a macro.  This
module must never change another word, and breaks nothing that has no space: a path stays whole.
"""

from __future__ import annotations

import re
import textwrap

from ..sentences import REPORT_IT

__all__ = [
    "DIALOG_LETTERS",
    "INDENT",
    "LOG_LETTERS",
    "SEE_THE_LOG",
    "as_in_fiji",
    "exactly",
    "in_lines",
]

LOG_LETTERS = 100
"""In a line of the window Log, and of other windows of text."""
DIALOG_LETTERS = 80
"""In a line of an error's dialog."""
INDENT = "    "
"""Before the further lines of a sentence in the Log, where the next sentence follows at once."""


def in_lines(text: str, letters: int, *, indent: str = "") -> str:
    """Return a text with no line longer than ``letters``, but for words and rows of columns.

    Parameters
    ----------
    indent
        Put before every line but the first of each that the text had, after what that began with.
    """
    return "\n".join(
        line
        for paragraph in text.splitlines() or [""]
        for line in _wrapped(paragraph, letters, indent) or [""]
    )


def _wrapped(text: str, letters: int, indent: str) -> list[str]:
    if "  " in text.strip():  # a row of columns
        return [text]
    return textwrap.wrap(
        text,
        letters,
        subsequent_indent=text[: len(text) - len(text.lstrip())] + indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def exactly(text: str, letters: int, count: int) -> str:
    """Return a text in exactly ``count`` lines; what does not fit becomes "…".

    A path that is longer than a line is broken here: there is no more room.
    """
    lines = textwrap.wrap(text, letters, max_lines=count, placeholder=" …", break_on_hyphens=False)
    return "\n".join(lines + [" "] * (count - len(lines)))


SEE_THE_LOG = "Please report what the window Log shows of it."
"""Ends the sentence of a fault of ours, in place of what it says at a terminal."""
OF_COMMAND_LINE = {
    "overwrite": "overwrite",
    "restart": "restart",
    "noise": "noise_out",
    "units-out": "units_out",
    "z-axis": "z_axis",
}
"""Options that jobs name in their sentences, and their names in dialogs and macros."""
SPELT = re.compile(
    rf"--({'|'.join(OF_COMMAND_LINE)})(?: ([TC]))?(?![\w-])(?: \([a-z_]+(?:=[^)]*)?\))?"
)
"""With the value that an axis is given, and how Python spells the same."""


def as_in_fiji(text: str) -> str:
    """Return a sentence with the names that options have in Fiji.

    >>> as_in_fiji("begin again with --restart (restart=True).")
    'begin again with the option restart.'
    >>> as_in_fiji('If they are slices in depth, give --z-axis T (z_axis="T").')
    'If they are slices in depth, give the option z_axis=T.'
    """

    def option(found: re.Match[str]) -> str:
        value = f"={found[2]}" if found[2] else ""
        return f"the option {OF_COMMAND_LINE[found[1]]}{value}"

    return SPELT.sub(option, text).replace(REPORT_IT, SEE_THE_LOG)
