"""What a user reads in place of an error: one sentence, at a terminal and in Fiji alike.

This module must never show anything: the edges do.
"""

from __future__ import annotations

import re

from .progress import Cancelled

__all__ = ["REPORT_IT", "as_typed", "sentence"]

EXPECTED = (
    Cancelled,
    ArithmeticError,
    ValueError,
    TypeError,
    OSError,
    RuntimeError,
    ImportError,
    MemoryError,
)
"""What people are meant to read; anything else is a fault of ours and says so."""


REPORT_IT = "Run the command again with --debug, and please report what it shows."
"""Ends the sentence of a fault of ours."""


def sentence(error: BaseException) -> str:
    """Return what a user should read instead of a traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "Stopped."
    if isinstance(error, MemoryError):
        return f"There is not enough memory. {error}".strip()
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}."
    text = as_typed(" ".join(str(error).split()))
    if isinstance(error, EXPECTED) and not isinstance(error, ModuleNotFoundError) and text:
        return text
    return f"Something happened that should not: {type(error).__name__}: {text} {REPORT_IT}"


# An option with its value, and the same for Python: --restart (restart=True).
FOR_PYTHON = re.compile(r"(--([a-z-]+)(?: [^\s()]+)?) \(([a-z_]+)(?:=[^)]*)?\)")


def as_typed(text: str) -> str:
    """Return a sentence as it reads on a command line, where options are not arguments.

    >>> as_typed("begin again with --restart (restart=True).")
    'begin again with --restart.'
    """
    return FOR_PYTHON.sub(
        lambda found: found[1] if found[3].replace("_", "-").startswith(found[2]) else found[0],
        text,
    )
