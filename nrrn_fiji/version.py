"""Which nrrn-fiji this is, down to the commit: what a support request needs to know first.

A release number alone does not tell two checkouts apart.  In a checkout git is asked; a wheel
carries the commit that it was built from (``hatch_build.py``).  This module must never fail: where
the commit cannot be told, the number stands alone.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from . import __version__

__all__ = ["commit", "full_version"]

PACKAGE = Path(__file__).resolve().parent
SECONDS_FOR_GIT = 30.0


@cache
def commit() -> str | None:
    """Return the short hash of the commit, with "-dirty" if files differ from it; None if unknown.

    Returns
    -------
    str or None
        "5b7411e25c" or "5b7411e25c-dirty".
    """
    recorded = PACKAGE / "_data" / "commit.txt"
    try:
        if recorded.is_file():
            return recorded.read_text(encoding="utf-8").strip() or None
        if not (PACKAGE.parent / ".git").exists():
            return None
        # --match with a pattern that no tag has: the hash alone, whatever tags there are.
        words = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--match", "no-tag"]
        done = subprocess.run(
            words, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=SECONDS_FOR_GIT
        )
    except (OSError, ValueError, subprocess.SubprocessError):  # no git, or one that hangs
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def full_version() -> str:
    """Return "0.1.0 (commit 5b7411e25c)", or "0.1.0" where the commit is unknown."""
    known = commit()
    return f"{__version__} (commit {known})" if known else __version__
