"""Record in wheels and source archives the commit that they were built from.

``nrrn --version`` and ``nrrn doctor --report`` tell it.  This file runs when a package is built,
never when it is used; it must never make a build fail.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RECORD = "commit.txt"


class CommitHook(BuildHookInterface[Any]):
    """Adds ``commit.txt`` to what is built; see :mod:`nrrn_fiji.version`."""

    PLUGIN_NAME = "custom"
    folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the record, unless the build is an editable one: there git itself is asked."""
        if version == "editable":
            return
        known = self.commit()
        if known is None:
            return
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / RECORD
        file.write_text(known + "\n", encoding="utf-8")
        inside = RECORD if self.target_name == "sdist" else f"nrrn_fiji/_data/{RECORD}"
        build_data["force_include"][str(file)] = inside

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take away the temporary file."""
        if self.folder is not None:
            self.folder.cleanup()

    def commit(self) -> str | None:
        """Return the commit of the checkout, or of the source archive; None if unknown."""
        root = Path(self.root)
        archived = root / RECORD
        if archived.is_file():
            return archived.read_text(encoding="utf-8").strip() or None
        if not (root / ".git").exists():
            return None
        words = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--match", "no-tag"]
        try:
            done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() or None if done.returncode == 0 else None
