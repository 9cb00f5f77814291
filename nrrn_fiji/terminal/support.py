"""A support request, filled in as far as a computer can: ``nrrn doctor --report``.

Its headings are those of ``.github/ISSUE_TEMPLATE/support.yml``, so that the text can be pasted
there or into a mail.  This module must never send anything, nor tell the user's name: the home
folder is written as ``~``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..reports import Table
from .log_file import package_versions

__all__ = ["QUESTIONS", "support_request"]

QUESTIONS = (
    ("What did you do?", "The command, macro or menu entry, with all its settings."),
    ("What did you expect, and what happened instead?", "The whole message, if there was one."),
    (
        "What is your image?",
        "Microscope, width x height x slices, bit depth, voxel size, file format; a small crop "
        "says more than words.",
    ),
    (
        "The log",
        "Run the same command with --log log.txt and attach the file. From Fiji: the text of the "
        "window Log.",
    ),
)
"""What only the user knows: heading, and what belongs below it."""

COMPUTER = "What nrrn doctor found"


def support_request(findings: Table, advice: Sequence[str]) -> str:
    """Return a support request in Markdown.

    Parameters
    ----------
    findings
        What was looked at, in columns.
    advice
        What ``nrrn doctor`` recommends, a sentence each.
    """
    lines = []
    for heading, hint in QUESTIONS:
        lines += [f"### {heading}", "", f"<!-- {hint} -->", ""]
    lines += [f"### {COMPUTER}", "", "```"]
    widths = [max(map(len, column)) for column in zip(*findings.rows, strict=True)]
    for row in findings.rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    packages = ", ".join(f"{name} {number}" for name, number in package_versions().items())
    lines += ["", f"packages: {packages}", "", *advice, "```"]
    text, home = "\n".join(lines), Path.home()
    return text.replace(str(home), "~") if len(home.parts) > 1 else text
